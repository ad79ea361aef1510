"""The .safetensors format: 8 bytes of length, a JSON header of names, types, shapes and offsets,
then the arrays.

Read and written here because the public library is one more dependency; files are exchanged with it
both ways. Header rules as its specification has them: offsets cover the data without holes,
overlaps or excess.
"""

from __future__ import annotations

import json
import zlib
from typing import BinaryIO, Callable, Dict, Mapping, Tuple

import numpy as np

from jseg.formats.tensor import BFLOAT16, CheckpointError, Region, Tensor, dtype_of, raw, unreadable

MAX_HEADER = 100 << 20
CODES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": BFLOAT16,
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "b1",
}
NAMES = {code: name for name, code in CODES.items()}
TRUNCATED = (
    "the .safetensors file has %d bytes; its header promises %d; it is truncated or corrupt, copy "
    "or download it again"
)


def read(file: BinaryIO, file_size: int) -> Tuple[Dict[str, Tensor], Dict[str, str]]:
    """(name -> Tensor, metadata) of a .safetensors file; raises CheckpointError."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, file_size - 8):
        raise CheckpointError(TRUNCATED % (file_size, length + 8))
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        entries = [
            (name, str(entry["dtype"]), entry["shape"], entry["data_offsets"])
            for name, entry in header.items()
        ]
        spans = sorted((start, end) for _, _, _, (start, end) in entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(
            "the header of the .safetensors file is corrupt; copy or download it again"
        ) from None
    if not isinstance(metadata, dict) or any(type(n) is not int for span in spans for n in span):
        raise CheckpointError(
            "the header of the .safetensors file is corrupt; copy or download it again"
        )
    base, position = 8 + length, 0
    for start, end in spans:
        if start != position or end < start:
            raise CheckpointError(
                "the arrays of the .safetensors file overlap or leave holes; it is corrupt, copy "
                "or download it again"
            )
        position = end
    if base + position != file_size:
        raise CheckpointError(TRUNCATED % (file_size, base + position))
    tensors = {}
    for name, dtype, shape, (start, end) in entries:
        if dtype not in CODES:
            kind = "complex " * dtype.startswith("C") + dtype[:20]
            raise CheckpointError(f"array {name!r:.80}: {unreadable(kind)}")
        code = CODES[dtype]
        tensor = Tensor(
            Region(file, base + start, end - start),
            code if code == BFLOAT16 else dtype_of(code),
            _list(shape),
        )
        if tensor.count * tensor.itemsize != end - start:
            raise CheckpointError(
                f"array {name!r:.80} has {end - start} bytes for its shape {list(tensor.shape)}; "
                "the file is corrupt"
            )
        tensors[name] = tensor
    return tensors, metadata


def write(
    file: BinaryIO,
    arrays: Mapping[str, Callable[[], np.ndarray]],
    metadata: Callable[[Dict[str, int]], Dict[str, str]],
) -> None:
    """Write arrays, each made by a call (twice, one at a time), and the metadata made from their
    checksums (see `Tensor.crc`).

    Large elements come first, so every array is aligned to its element; the header keeps the given
    order of names.
    """
    kinds, checksums = {}, {}
    for name, make in arrays.items():
        array = make()
        kinds[name], checksums[name] = (
            (array.dtype, array.shape, array.nbytes),
            zlib.crc32(raw(array)),
        )
    order = sorted(arrays, key=lambda name: -kinds[name][0].itemsize)
    offsets, position = {}, 0
    for name in order:
        offsets[name] = [position, position + kinds[name][2]]
        position = offsets[name][1]
    header: Dict[str, object] = {"__metadata__": metadata(checksums)}
    for name, (dtype, shape, _) in kinds.items():
        header[name] = {
            "dtype": NAMES[dtype.str[1:]],
            "shape": list(shape),
            "data_offsets": offsets[name],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(raw(arrays[name]()))


def _unique(pairs) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name twice")
    return result


def _list(shape) -> list:
    if not isinstance(shape, list):
        raise CheckpointError(
            "the header of the .safetensors file is corrupt; copy or download it again"
        )
    return shape
