"""Jittor's .pkl, and any other pickle of arrays: read without execution, written without pickling.

A Jittor file is a pickle of protocol 4, its SHA-1 and a mark of 8 bytes (jittor.save). So are ours,
and `jittor.load` and the release's scripts read them; the JSON record is a text that the pickle
pushes first and drops at once.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from typing import BinaryIO, Callable, Mapping, Optional

import numpy as np

from jseg.files import CHUNK
from jseg.formats.tensor import CheckpointError, Region, raw
from jseg.formats.unpickler import Unpickler

MARK = b"HCAJSLHD"
TRAILER = 20 + len(MARK)
START = pickle.PROTO + b"\x04" + pickle.BINUNICODE
MAX_RECORD = 1 << 26


def read(file: BinaryIO, data, size: int, sealed: bool):
    """The object in the pickle.

    Jittor's SHA-1 is checked where there is one, and must be there in a `sealed` file.
    """
    file.seek(max(0, size - TRAILER))
    trailer, end = file.read(TRAILER), size
    if len(trailer) == TRAILER and trailer.endswith(MARK):
        end -= TRAILER
        if _sha1(file, end) != trailer[:20]:
            raise CheckpointError(
                "the contents do not match their SHA-1; the file is damaged, copy or download it "
                "again"
            )
    elif sealed:
        raise CheckpointError(
            "the SHA-1 at its end is missing; the file is truncated, copy or download it again"
        )

    # The pickle ends where the trailer begins.
    unpickler = Unpickler(data, Region(file, 0, size))
    tree = unpickler.load()
    if unpickler.position != end:
        raise CheckpointError(
            f"the pickle ends at byte {unpickler.position} of {end}; the file is truncated or "
            "corrupt, copy or download it again"
        )
    return tree


def read_record(file: BinaryIO, size: int) -> Optional[bytes]:
    """The JSON text at the start of a pickle that we wrote; None for any other."""
    file.seek(0)
    head = file.read(len(START) + 4)
    length = int.from_bytes(head[len(START) :], "little")
    if not head.startswith(START) or length > min(MAX_RECORD, size):
        return None
    text = file.read(length)
    return text if text.startswith(b"{") and file.read(1) == pickle.POP else None


def write(file: BinaryIO, arrays: Mapping[str, Callable[[], np.ndarray]], record: str) -> None:
    """Write arrays, each made by a call, as a Jittor file of ndarrays under their names.

    Equal arrays give equal bytes. The opcodes are written here because a pickler would keep a copy
    of every array until its end, and because NumPy 2's pickles name modules that NumPy 1 lacks.
    """
    digest = hashlib.sha1()

    def put(data) -> None:
        digest.update(data)
        file.write(data)

    put(START + _sized("<I", record.encode("utf-8")) + pickle.POP + pickle.EMPTY_DICT + pickle.MARK)
    for name, make in arrays.items():
        array = make()
        data = raw(array)
        put(_text(name) + _array_opcodes(array))
        short = len(data) < 1 << 32
        opcode, layout = (pickle.BINBYTES, "<I") if short else (pickle.BINBYTES8, "<Q")
        put(opcode + struct.pack(layout, len(data)))
        put(data)
        put(pickle.TUPLE + pickle.BUILD)
    put(pickle.SETITEMS + pickle.STOP)
    file.write(digest.digest() + MARK)


def _array_opcodes(array: np.ndarray) -> bytes:
    """The pickle of an ndarray up to its values: a call of `_reconstruct`, then its state."""
    ndarray = pickle.GLOBAL + b"numpy\nndarray\n"
    arguments = ndarray + _byte(0) + pickle.TUPLE1 + pickle.SHORT_BINBYTES + b"\x01b"
    reconstruct = pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n"
    call = reconstruct + arguments + pickle.TUPLE3 + pickle.REDUCE

    # A dtype is a call, too, and its state: version 3, byte order, no fields, no alignment, flags.
    kind = _text(array.dtype.str[1:]) + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3
    dtype = pickle.GLOBAL + b"numpy\ndtype\n" + kind + pickle.REDUCE
    minus_one = pickle.BININT + struct.pack("<i", -1)
    state = _byte(3) + _text(array.dtype.str[0]) + 3 * pickle.NONE + 2 * minus_one + _byte(0)
    dtype += pickle.MARK + state + pickle.TUPLE + pickle.BUILD

    # The array's state: version 1, shape, dtype, C order; its values follow.
    sizes = b"".join(pickle.LONG1 + b"\x08" + struct.pack("<q", n) for n in array.shape)
    shape = pickle.MARK + sizes + pickle.TUPLE
    return call + pickle.MARK + _byte(1) + shape + dtype + pickle.NEWFALSE


def _byte(number: int) -> bytes:
    return pickle.BININT1 + bytes([number])


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + _sized("<I", text.encode("utf-8"))


def _sized(layout: str, data: bytes) -> bytes:
    return struct.pack(layout, len(data)) + data


def _sha1(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha1()
    file.seek(0)
    for start in range(0, size, CHUNK):
        digest.update(file.read(min(CHUNK, size - start)))
    return digest.digest()
