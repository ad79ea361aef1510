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
DAMAGED = "the zip archive is truncated or corrupt; copy or download it again"


class Archive:
    """The entries of the zip archive in `file`, by name; `size` is the sum of their declared sizes.
    Raises CheckpointError.
    """

    def __init__(self, file: BinaryIO, file_size: int):
        self.file, self.file_size = file, file_size
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (
            zipfile.BadZipFile,
            ValueError,
            NotImplementedError,
            struct.error,
            EOFError,
            IndexError,
            OverflowError,
        ):
            raise CheckpointError(DAMAGED) from None
        except OSError as error:
            # Older Pythons seek to whatever a damaged directory says.
            if error.errno != errno.EINVAL:
                raise
            raise CheckpointError(DAMAGED) from None
        self._entries: Dict[str, zipfile.ZipInfo] = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise CheckpointError(
                "the zip archive has two entries of one name; the file is corrupt or hostile"
            )
        self._unpacked = ("", None)
        self.size = sum(entry.file_size for entry in self._entries.values())
        if sum(entry.compress_size for entry in self._entries.values()) > file_size:
            raise CheckpointError(
                "the zip archive's entries overlap; the file is corrupt or hostile"
            )
        for name, entry in self._entries.items():
            stored = entry.compress_type == zipfile.ZIP_STORED
            if entry.flag_bits & 1 or entry.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise CheckpointError(
                    "the zip archive is encrypted or compressed in an unknown way; expected the "
                    "file as it was saved"
                )
            if (
                stored
                and entry.file_size != entry.compress_size
                or entry.file_size > MAX_DEFLATE_RATIO * entry.compress_size + 64
            ):
                raise CheckpointError(
                    f"the zip archive declares an impossible size for {name!r:.80}; the file is "
                    "corrupt or hostile"
                )

    def names(self) -> List[str]:
        return list(self._entries)

    def blob(self, name: str):
        """The contents of an entry; CRC-32 checked when first read, where the writer computed one
        (PyTorch may write 0).
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
        if (
            entry.header_offset < 0
            or len(header) != LOCAL_HEADER.size
            or not header.startswith(b"PK\x03\x04")
        ):
            raise CheckpointError(DAMAGED)
        name_length, extra_length = LOCAL_HEADER.unpack(header)[-2:]
        start = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if (
            self.file.read(name_length).decode("utf-8", "replace") != name
            or start + entry.compress_size > self.file_size
        ):
            raise CheckpointError(DAMAGED)
        data = Region(self.file, start, entry.compress_size, entry.CRC or None)
        return data if entry.compress_type == zipfile.ZIP_STORED else Deflated(self, entry, data)

    def unpack(self, entry: zipfile.ZipInfo, data: Region) -> Memory:
        """The contents of a compressed entry; the last one unpacked is kept, for arrays that share
        it.
        """
        if self._unpacked[0] != entry.filename:
            data.crc = None
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                contents = (
                    unpacker.decompress(data.read(0, data.size), entry.file_size)
                    if entry.file_size
                    else b""
                )
            except zlib.error:
                raise CheckpointError(DAMAGED) from None
            if len(contents) != entry.file_size or (
                entry.CRC and zlib.crc32(contents) != entry.CRC
            ):
                raise CheckpointError(
                    "the contents do not match their checksum; the file is damaged, copy or "
                    "download it again"
                )
            self._unpacked = (entry.filename, Memory(contents))
        return self._unpacked[1]


class Deflated:
    """A blob that is a compressed entry of an archive, unpacked when first read."""

    def __init__(self, archive: Archive, entry: zipfile.ZipInfo, data: Region):
        self.archive, self.entry, self.data, self.size = archive, entry, data, entry.file_size

    def read(self, start: int, size: int):
        return self.archive.unpack(self.entry, self.data).read(start, size)
