"""Zip archives as blobs: the container of PyTorch's files since 1.6 and of NumPy's .npz.

Stored entries are read in place, compressed ones are unpacked to exactly the size they declare, and
a declared size that no deflate stream of that length can reach, or entries that overlap, are
refused before anything is unpacked.
"""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from typing import BinaryIO, Dict, List

from jseg.formats.tensor import CheckpointError, Memory, Region

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
MAX_DEFLATE_RATIO = 1032
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNREADABLE = (
    zipfile.BadZipFile,
    ValueError,
    NotImplementedError,
    struct.error,
    EOFError,
    IndexError,
    OverflowError,
)
DAMAGED = "the zip archive is truncated or corrupt; copy or download it again"


class Archive:
    """The entries of the zip archive in `file`, by name; raises CheckpointError.

    `size` is the sum of their declared sizes.
    """

    def __init__(self, file: BinaryIO, file_size: int):
        self.file, self.file_size = file, file_size
        entries = _entries(file)
        self._entries: Dict[str, zipfile.ZipInfo] = {entry.filename: entry for entry in entries}
        self._unpacked = ("", None)
        self.size = sum(entry.file_size for entry in entries)

        # What no writer makes, and what could unpack to more than the file can hold.
        if len(self._entries) != len(entries):
            raise CheckpointError(
                "the zip archive has two entries of one name; the file is corrupt or hostile"
            )
        if sum(entry.compress_size for entry in entries) > file_size:
            raise CheckpointError(
                "the zip archive's entries overlap; the file is corrupt or hostile"
            )
        for entry in entries:
            if entry.flag_bits & 1 or entry.compress_type not in METHODS:
                raise CheckpointError(
                    "the zip archive is encrypted or compressed in an unknown way; expected the "
                    "file as it was saved"
                )
            stored = entry.compress_type == zipfile.ZIP_STORED
            resized = stored and entry.file_size != entry.compress_size
            if resized or entry.file_size > MAX_DEFLATE_RATIO * entry.compress_size + 64:
                raise CheckpointError(
                    f"the zip archive declares an impossible size for {entry.filename!r:.80}; the "
                    "file is corrupt or hostile"
                )

    def names(self) -> List[str]:
        return list(self._entries)

    def blob(self, name: str):
        """The contents of an entry.

        Its CRC-32 is checked when it is first read, where the writer computed one (PyTorch may
        write 0).
        """
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(
                f"the zip archive lacks {name!r:.80}; the file is incomplete, copy or download it "
                "again"
            )

        # The entry's own header must agree with the directory, or a damaged directory could give
        # one entry for another.
        self.file.seek(max(0, entry.header_offset))
        header = self.file.read(LOCAL_HEADER.size)
        complete = len(header) == LOCAL_HEADER.size and header.startswith(b"PK\x03\x04")
        if entry.header_offset < 0 or not complete:
            raise CheckpointError(DAMAGED)
        name_length, extra_length = LOCAL_HEADER.unpack(header)[-2:]
        own_name = self.file.read(name_length).decode("utf-8", "replace")
        start = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if own_name != name or start + entry.compress_size > self.file_size:
            raise CheckpointError(DAMAGED)
        data = Region(self.file, start, entry.compress_size, entry.CRC or None)
        return data if entry.compress_type == zipfile.ZIP_STORED else Deflated(self, entry, data)

    def unpack(self, entry: zipfile.ZipInfo, data: Region) -> Memory:
        """The contents of a compressed entry; the last one is kept, for arrays that share it."""
        if self._unpacked[0] == entry.filename:
            return self._unpacked[1]
        data.crc = None  # the CRC-32 is that of the contents
        contents = b""
        if entry.file_size:
            try:
                unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
                contents = unpacker.decompress(data.read(0, data.size), entry.file_size)
            except zlib.error:
                raise CheckpointError(DAMAGED) from None
        wrong = entry.CRC and zlib.crc32(contents) != entry.CRC
        if wrong or len(contents) != entry.file_size:
            raise CheckpointError(
                "the contents do not match their checksum; the file is damaged, copy or download "
                "it again"
            )
        self._unpacked = (entry.filename, Memory(contents))
        return self._unpacked[1]


class Deflated:
    """A blob that is a compressed entry of an archive, unpacked when first read."""

    def __init__(self, archive: Archive, entry: zipfile.ZipInfo, data: Region):
        self.archive, self.entry, self.data, self.size = archive, entry, data, entry.file_size

    def read(self, start: int, size: int):
        return self.archive.unpack(self.entry, self.data).read(start, size)


def _entries(file: BinaryIO) -> List[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except UNREADABLE:
        raise CheckpointError(DAMAGED) from None
    except OSError as error:
        # Older Pythons seek to whatever a damaged directory says.
        if error.errno != errno.EINVAL:
            raise
        raise CheckpointError(DAMAGED) from None
