"""The .safetensors format: a length of 8 bytes, a JSON header, then the arrays.

The header has names, types, shapes and offsets, which cover the data without holes or overlaps, as
the specification says. Read and written here to spare a dependency; files are exchanged with the
public library both ways.
"""

from __future__ import annotations

import json
import zlib
from typing import BinaryIO, Callable, Dict, Mapping, Tuple

import numpy as np

from jseg.formats.tensor import BFLOAT16, CheckpointError, Region, Tensor, dtype_of, raw, unreadable

MAX_HEADER = 100 << 20
CODES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "BOOL": "b1"}
CODES.update({"I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"})
CODES.update({"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1"})
NAMES = {code: name for name, code in CODES.items()}
CORRUPT = "the header of the .safetensors file is corrupt; copy or download it again"


def read(file: BinaryIO, file_size: int) -> Tuple[Dict[str, Tensor], Dict[str, str]]:
    """({name: Tensor}, metadata) of a .safetensors file; raises CheckpointError."""
    header, base = _header(file, file_size)
    try:
        metadata = header.pop("__metadata__", {})
        entries = [
            (name, str(entry["dtype"]), entry["shape"], entry["data_offsets"])
            for name, entry in header.items()
        ]
        spans = sorted((start, end) for _, _, _, (start, end) in entries)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(CORRUPT) from None
    if not isinstance(metadata, dict) or any(type(n) is not int for span in spans for n in span):
        raise CheckpointError(CORRUPT)

    # The arrays follow each other, up to the end of the file.
    position = 0
    for start, end in spans:
        if start != position or end < start:
            raise CheckpointError(
                "the arrays of the .safetensors file overlap or leave holes; it is corrupt, copy "
                "or download it again"
            )
        position = end
    if base + position != file_size:
        raise _truncated(file_size, base + position)
    return {
        name: _tensor(Region(file, base + start, end - start), name, dtype, shape)
        for name, dtype, shape, (start, end) in entries
    }, metadata


def write(
    file: BinaryIO,
    arrays: Mapping[str, Callable[[], np.ndarray]],
    metadata: Callable[[Dict[str, int]], Dict[str, str]],
) -> None:
    """Write arrays, each made by a call (twice, one at a time), and metadata.

    The metadata are made from the arrays' checksums (`Tensor.crc`). Large elements come first, so
    every array is aligned to its element; the header keeps the given order of names.
    """
    kinds, checksums = {}, {}
    for name, make in arrays.items():
        array = make()
        kinds[name] = array.dtype, array.shape, array.nbytes
        checksums[name] = zlib.crc32(raw(array))

    # The place of every array.
    order = sorted(arrays, key=lambda name: -kinds[name][0].itemsize)
    offsets, position = {}, 0
    for name in order:
        offsets[name] = [position, position + kinds[name][2]]
        position = offsets[name][1]

    # The header, padded so that the arrays begin at a multiple of 8 bytes.
    header: Dict[str, object] = {"__metadata__": metadata(checksums)}
    for name, (dtype, shape, _) in kinds.items():
        code = NAMES[dtype.str[1:]]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets[name]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(raw(arrays[name]()))


def _header(file: BinaryIO, file_size: int) -> Tuple[dict, int]:
    """(the JSON header, where the arrays begin)."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, file_size - 8):
        raise _truncated(file_size, length + 8)
    try:
        text = file.read(length).decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique), 8 + length
    except (ValueError, RecursionError):
        raise CheckpointError(CORRUPT) from None


def _tensor(blob: Region, name: str, dtype: str, shape) -> Tensor:
    if dtype not in CODES:
        kind = "complex " * dtype.startswith("C") + dtype[:20]
        raise CheckpointError(f"array {name!r:.80}: {unreadable(kind)}")
    if not isinstance(shape, list):
        raise CheckpointError(CORRUPT)
    code = CODES[dtype]
    tensor = Tensor(blob, code if code == BFLOAT16 else dtype_of(code), shape)
    if tensor.count * tensor.itemsize != blob.size:
        raise CheckpointError(
            f"array {name!r:.80} has {blob.size} bytes for its shape {list(tensor.shape)}; the "
            "file is corrupt"
        )
    return tensor


def _truncated(size: int, promised: int) -> CheckpointError:
    return CheckpointError(
        f"the .safetensors file has {size} bytes; its header promises {promised}; it is truncated "
        "or corrupt, copy or download it again"
    )


def _unique(pairs) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name twice")
    return result
