"""Open a weight file of any kind, recognised by its content and never by its name.

Kinds: Jittor's .pkl (a pickle, its SHA-1 and a mark) and any other pickle, PyTorch's zip and older
formats, .safetensors, .npz, and a model in several files. Files that this package wrote also carry
a JSON record, whichever kind they are (docs/formats.md).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import mmap
import os
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, Optional, Tuple, Union

from jseg import files
from jseg.files import PathLike
from jseg.formats import jittor_pickle, npz, pytorch, safetensors, shards
from jseg.formats.tensor import EXPECTED, CheckpointError, Tensor
from jseg.formats.zip_archive import Archive

RECORD = "jseg"
RECORD_ENTRY = "__jseg__"
MAX_RECORD = 1 << 26
CHECK_LENGTH = len(', "check": "00000000"}')

# What people save by mistake under the name of a weight file: first bytes -> what it is and what to
# do.
STRANGERS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file; run 'git lfs pull', or download the file itself",
    ),
    (b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (b"BZh", "is a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "is an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "is a 7-Zip archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89HDF", "is an HDF5 file (Keras?); " + EXPECTED),
    (b"\x93NUMPY", "is a single NumPy array; " + EXPECTED),
    (b"\x89PNG", "is an image; " + EXPECTED),
    (b"\xff\xd8\xff", "is an image; " + EXPECTED),
    (b"GGUF", "is a GGUF file; " + EXPECTED),
)


class OpenFile:
    """An open weight file; nothing is read before it is asked for."""

    def __init__(self, file: BinaryIO):
        self.file, self.file_size = file, os.fstat(file.fileno()).st_size

    @functools.cached_property
    def record(self) -> Optional[dict]:
        """The JSON record of a file that this package wrote, None of any other; reads no array."""
        if self._kind == "safetensors":
            return _parsed(self._safetensors[1].get(RECORD))
        if self._kind == "zip" and RECORD_ENTRY + ".npy" in self._archive.names():
            entry = self._npz[RECORD_ENTRY]
            return _parsed(entry.read().tobytes() if entry.count <= MAX_RECORD else b"")
        return _parsed(self._pickled_record) if self._kind == "pickle" else None

    @functools.cached_property
    def tree(self) -> object:
        """What the file holds: nested containers with Tensors as leaves."""
        if self._kind == "safetensors":
            return self._with_checksums(self._safetensors[0])
        if self._kind == "zip":
            return self._unzipped()
        with _mapped(self.file) as data:
            if self._kind == "legacy":
                return pytorch.read_legacy(self.file, data, self.file_size)
            sealed = self._pickled_record is not None
            return jittor_pickle.read(self.file, data, self.file_size, sealed)

    @property
    def size(self) -> int:
        """The bytes that the file declares to hold, for limits."""
        return self._archive.size if self._kind == "zip" else self.file_size

    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""
        self.file.seek(0)
        return files.sha256_of(self.file)

    @functools.cached_property
    def _kind(self) -> str:
        return _kind(self.file, self.file_size)

    @functools.cached_property
    def _safetensors(self) -> Tuple[Dict[str, Tensor], Dict[str, str]]:
        return safetensors.read(self.file, self.file_size)

    @functools.cached_property
    def _archive(self) -> Archive:
        return Archive(self.file, self.file_size)

    @functools.cached_property
    def _npz(self) -> Dict[str, Tensor]:
        return npz.read(self._archive)

    @functools.cached_property
    def _pickled_record(self) -> Optional[bytes]:
        return jittor_pickle.read_record(self.file, self.file_size)

    def _with_checksums(self, tensors: Dict[str, Tensor]) -> Dict[str, Tensor]:
        for name, crc in (self.record or {}).get("crc32", {}).items():
            if name not in tensors:
                raise CheckpointError(
                    f"lacks the array {name!r:.80}, which its record lists; the file is damaged, "
                    "copy it again"
                )
            tensors[name].crc = crc
        return tensors

    def _unzipped(self) -> object:
        names = self._archive.names()
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if pickles:
            return pytorch.read_zip(self._archive, min(pickles, key=len)[: -len("data.pkl")])
        if any(name.endswith(".npy") for name in names):
            return {name: tensor for name, tensor in self._npz.items() if name != RECORD_ENTRY}
        listed = ", ".join(ascii(name[:40]) for name in names[:3]) or "empty"
        raise CheckpointError(
            f"is a zip archive without weights in it ({listed}); unpack it if the weights are "
            f"inside, {EXPECTED}"
        )


class OpenParts:
    """A model in several open files, read as one `OpenFile`."""

    record = None

    def __init__(self, model: shards.Parts, members: Dict[Path, OpenFile]):
        self.model, self.members = model, members

    @functools.cached_property
    def tree(self) -> Dict[str, object]:
        """The arrays of all parts, by name."""
        arrays = {}
        for part, member in self.members.items():
            with _named(part):
                tree = member.tree if isinstance(member.tree, dict) else {}
                arrays[part] = {
                    name: item for name, item in tree.items() if isinstance(item, Tensor)
                }
                if not arrays[part]:
                    raise CheckpointError(
                        "is a part of a model and holds no arrays by name; download it again"
                    )
        return shards.join(arrays, self.model.table)

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members.values())

    def sha256(self) -> str:
        """The SHA-256 of the names and contents of the index and all parts."""
        digests = {part: member.sha256() for part, member in self.members.items()}
        if self.model.index is not None:
            digests[self.model.index] = hashlib.sha256(self.model.text).hexdigest()
        lines = "".join(f"{path.name} {digests[path]}\n" for path in self.model.all)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


@contextlib.contextmanager
def open_weights(path: PathLike) -> Iterator[Union[OpenFile, OpenParts]]:
    """The weight file `path`, open inside of the `with`; CheckpointErrors raised there name it.

    The index of a model in several files, or their folder, is read as one file
    (jseg/formats/shards.py). Raises FileNotFoundError if there is no such file. What is no weight
    file, is damaged or asks for code raises CheckpointError, here or when it is read.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; {EXPECTED}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_named(path))
        if os.path.isdir(path):
            model = shards.parts(path)
        else:
            file = stack.enter_context(open(path, "rb"))
            model = shards.parts(path, file)
        if model is None:
            yield OpenFile(file)
        else:
            parts = {part: OpenFile(stack.enter_context(open(part, "rb"))) for part in model.files}
            yield OpenParts(model, parts)


def read_record(path: PathLike) -> Optional[dict]:
    """The JSON record of a file that this package wrote, None of any other; reads no array."""
    with open_weights(path) as file:
        return file.record


@contextlib.contextmanager
def _named(path: PathLike) -> Iterator[None]:
    """CheckpointErrors raised inside of the `with` have the path in front."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None


@contextlib.contextmanager
def _mapped(file: BinaryIO) -> Iterator[bytes]:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _kind(file: BinaryIO, size: int) -> str:
    """The format of a weight file, by its first bytes; raises CheckpointError for other files."""
    file.seek(0)
    head = file.read(512)
    _refuse_others(head)

    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[4:9] == b"\0\0\0\0{":
        return "safetensors"
    if pytorch.LEGACY_MAGIC_BYTES in head[:32]:
        return "legacy"
    if head[0] == 0x80 or head[:1] in b"(]}cl":
        return "pickle"
    raise CheckpointError(
        f"is not a weight file ({size} bytes that start with {bytes(head[:8])!r}); {EXPECTED}"
    )


def _refuse_others(head: bytes) -> None:
    """Raise CheckpointError for a file of another program, by its first bytes, with what to do."""
    if not head:
        raise CheckpointError("is empty (0 bytes); copy or download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")):
        raise CheckpointError(
            "is a web page, not the file (a download page was saved in its place); download the "
            "file itself"
        )
    for start, complaint in STRANGERS:
        if head.startswith(start):
            raise CheckpointError(complaint)
    if head[257:262] == b"ustar":
        raise CheckpointError(
            "is a tar archive (or of PyTorch before 0.2); unpack it, or load it in PyTorch and "
            "save it again"
        )


def sealed(record: str) -> str:
    """The JSON record with its own CRC-32 as the last member, which `_parsed` checks where it is
    there.
    """
    return f'{record[:-1]}, "check": "{zlib.crc32(record.encode("utf-8")):08x}"}}'


def _parsed(text) -> Optional[dict]:
    if text is None:
        return None
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        record = json.loads(text)
        if "check" in record and sealed(text[:-CHECK_LENGTH] + "}") != text:
            raise ValueError("checksum")
    except (ValueError, TypeError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("crc32", {}), dict):
        raise CheckpointError(
            "the record of this package in the file is damaged or was edited; copy or download "
            "the file again"
        )
    return record
