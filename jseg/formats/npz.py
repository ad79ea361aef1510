"""NumPy's .npz: a zip archive of .npy files, each a header (type, order, shape) and the values.

The header is matched against the one form that NumPy writes, so object arrays (pickles) cannot even
be described.
"""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO, Callable, Dict, Mapping

import numpy as np

from jseg.formats.builders import strides_of
from jseg.formats.tensor import CheckpointError, Tensor, dtype_of, raw
from jseg.formats.zip_archive import Archive

HEADER = re.compile(
    rb"\{'descr': '([<>|=])([a-zA-Z]+\d*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,20}, ?)*(?:\d{1,20},?)?)\), *\} *\n?"
)
MAX_HEADER = 1 << 16


def read(archive: Archive) -> Dict[str, Tensor]:
    """{name: Tensor} of every .npy entry.

    Raises CheckpointError, with the entry's name, for arrays that are not plain numbers.
    """
    entries = [name for name in archive.names() if name.endswith(".npy")]
    return {name[: -len(".npy")]: _read_entry(archive, name) for name in entries}


def write(file: BinaryIO, arrays: Mapping[str, Callable[[], np.ndarray]]) -> None:
    """Write arrays, each made by a call, as numpy.savez does, uncompressed.

    Equal arrays give equal bytes.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, make in arrays.items():
            array = make()
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(
                    entry, np.lib.format.header_data_from_array_1_0(array)
                )
                entry.write(raw(array))


def _read_entry(archive: Archive, name: str) -> Tensor:
    # The length of the header, in 2 or 4 bytes by the format's version.
    blob = archive.blob(name)
    start = bytes(blob.read(0, min(12, blob.size)))
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(start[6:8])
    if start[:6] != b"\x93NUMPY" or width is None or len(start) < 8 + width:
        raise CheckpointError(f"entry {name!r:.80} is not a NumPy array; the file is corrupt")
    length = int.from_bytes(start[8 : 8 + width], "little")
    begin = 8 + width + length
    if length > MAX_HEADER or begin > blob.size:
        raise CheckpointError(
            f"entry {name!r:.80} is truncated or corrupt; copy or download the file again"
        )

    # The header, and an array of exactly the values behind it.
    match = HEADER.fullmatch(bytes(blob.read(8 + width, length)))
    if match is None:
        raise CheckpointError(
            f"entry {name!r:.80} is not an array of plain numbers; expected numpy.savez of numbers"
        )
    order, code, fortran, sizes = match.groups()
    shape = [int(size) for size in sizes.replace(b",", b" ").split()]
    dtype = dtype_of(code.decode(), order.decode())
    strides = strides_of(shape, fortran == b"True")
    tensor = Tensor(_Part(blob, begin), dtype, shape, strides)
    if tensor.count * tensor.itemsize != blob.size - begin:
        raise CheckpointError(
            f"entry {name!r:.80} holds {blob.size - begin} bytes; expected "
            f"{tensor.count * tensor.itemsize}; the file is corrupt"
        )
    return tensor


class _Part:
    """The values behind an entry's header; read through the entry, whose checksum covers both."""

    def __init__(self, blob, begin: int):
        self.blob, self.begin, self.size = blob, begin, blob.size - begin

    def read(self, start: int, size: int):
        return self.blob.read(self.begin + start, size)
