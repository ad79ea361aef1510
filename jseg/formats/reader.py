"""Open a weight file of any kind: recognised by its content, never by its name, with a plain word
for what is no weight file.

Kinds: Jittor's .pkl (a pickle, its SHA-1 and a mark) and any other pickle, PyTorch's zip and older
formats, .safetensors, .npz. Files that this package wrote also carry a JSON record (see
docs/formats.md), whichever kind they are.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Iterator, Optional, Tuple

from jseg.files import PathLike
from jseg.formats import jittor_pickle, npz, pytorch, safetensors, shards
from jseg.formats.tensor import CheckpointError, Tensor
from jseg.formats.zip_archive import Archive

RECORD = "jseg"
RECORD_ENTRY = "__jseg__"
MAX_RECORD = 1 << 26
CHECK_LENGTH = len(', "check": "00000000"}')
EXPECTED = "expected weights as .pkl, .pth, .pt, .ckpt, .safetensors or .npz"

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


@dataclass
class Contents:
    """What a weight file holds: nested containers with Tensors as leaves, and the JSON record of a
    file that we wrote.
    """

    tree: object
    record: Optional[dict]
    size: int  # bytes that the file declares to hold, for limits


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[Contents]:
    """The contents of the weight file `path`, readable inside of the `with`; CheckpointErrors
    raised there name the file.

    The index of a model in several files, or their folder, is read as one file
    (jseg/formats/shards.py). Raises FileNotFoundError when there is no such file, CheckpointError
    when it is no weight file, is damaged or asks for code.
    """
    together = shards.parts(path)
    if together is not None:
        with _joined(path, *together) as contents:
            yield contents
        return
    with _opened_one(path) as contents:
        yield contents


@contextlib.contextmanager
def _opened_one(path: PathLike) -> Iterator[Contents]:
    with _file(path) as (file, size):
        with _mapped(file) as data:
            yield _contents(file, data, size)


@contextlib.contextmanager
def _joined(path: PathLike, parts, table) -> Iterator[Contents]:
    """The arrays of all parts as one flat tree; all files stay open."""
    with contextlib.ExitStack() as stack:
        found, size = {}, 0
        for part in parts:
            contents = stack.enter_context(_opened_one(part))
            tree = contents.tree if isinstance(contents.tree, dict) else {}
            found[part] = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
            if not found[part]:
                raise CheckpointError.at(
                    part, "is a part of a model and holds no arrays by name; download it again"
                )
            size += contents.size
        try:
            yield Contents(shards.join(found, table), None, size)
        except CheckpointError as error:
            raise CheckpointError.at(path, error) from None


def read_record(path: PathLike) -> Optional[dict]:
    """The JSON record of a file that this package wrote, None of any other; reads no array."""
    if shards.parts(path) is not None:
        return None
    with _file(path) as (file, size):
        kind = _kind(file, size)
        if kind == "safetensors":
            return _parse(safetensors.read(file, size)[1].get(RECORD))
        if kind == "zip":
            archive = Archive(file, size)
            return (
                _npz_record(npz.read(archive)) if RECORD_ENTRY + ".npy" in archive.names() else None
            )
        return _parse(jittor_pickle.read_record(file, size)) if kind == "pickle" else None


@contextlib.contextmanager
def _file(path: PathLike) -> Iterator[Tuple[BinaryIO, int]]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; {EXPECTED}")
    if os.path.isdir(path):
        raise CheckpointError(f"{path} is a folder; {EXPECTED}")
    try:
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None


@contextlib.contextmanager
def _mapped(file: BinaryIO) -> Iterator[bytes]:
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise CheckpointError("is empty (0 bytes); copy or download it again") from None
    with data:
        yield data


def _kind(file: BinaryIO, size: int) -> str:
    file.seek(0)
    head = file.read(512)
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


def _contents(file: BinaryIO, data, size: int) -> Contents:
    kind = _kind(file, size)
    if kind == "safetensors":
        tensors, metadata = safetensors.read(file, size)
        record = _parse(metadata.get(RECORD))
        for name, crc in (record or {}).get("crc32", {}).items():
            if name not in tensors:
                raise CheckpointError(
                    f"lacks the array {name!r:.80} that its record tells of; the file is damaged, "
                    "copy it again"
                )
            tensors[name].crc = crc
        return Contents(tensors, record, size)
    if kind == "zip":
        return _zip_contents(Archive(file, size))
    if kind == "legacy":
        return Contents(pytorch.read_legacy(file, data, size), None, size)
    text = jittor_pickle.read_record(file, size)
    return Contents(
        jittor_pickle.read(file, data, size, sealed=text is not None), _parse(text), size
    )


def _zip_contents(archive: Archive) -> Contents:
    names = archive.names()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if pickles:
        return Contents(
            pytorch.read_zip(archive, min(pickles, key=len)[: -len("data.pkl")]), None, archive.size
        )
    if not any(name.endswith(".npy") for name in names):
        raise CheckpointError(
            "is a zip archive without weights in it "
            f"({', '.join(ascii(name[:40]) for name in names[:3]) or 'empty'}); unpack it if the "
            f"weights are inside, {EXPECTED}"
        )
    tensors = npz.read(archive)
    return Contents(tensors, _npz_record(tensors), archive.size)


def _npz_record(tensors) -> Optional[dict]:
    entry = tensors.pop(RECORD_ENTRY, None)
    if entry is None:
        return None
    return _parse(
        entry.read().tobytes() if isinstance(entry, Tensor) and entry.count <= MAX_RECORD else b""
    )


def sealed(record: str) -> str:
    """The JSON record with its own CRC-32 as the last member, which `_parse` checks where it is
    there.
    """
    return f'{record[:-1]}, "check": "{zlib.crc32(record.encode("utf-8")):08x}"}}'


def _parse(text) -> Optional[dict]:
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
