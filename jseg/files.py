"""A file is written whole or not at all, whatever interrupts the run; SHA-256 of files.

The content goes to a hidden temporary file in the same folder, reaches the disk, and takes its name
in one move.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import BinaryIO, Callable, List, Union

PathLike = Union[str, "os.PathLike[str]"]
TEMPORARY = re.compile(r"^\.jseg-(\d+)-[0-9a-f]{16}\.part$")
CHUNK = 1 << 22
_open_temporaries = set()


class DataError(ValueError):
    """Input files that cannot be used: one line with what was given, expected, and to be done."""


def write_atomic(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Let `write(file)` fill a hidden temporary file beside `path`, then put it in place.

    The content is on the disk before it has the name. Whatever goes wrong, `path` keeps its old
    content (or stays missing), the temporary is removed and the error is raised again.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the folder {path.parent} does not exist; create it first"
        )
    temporary = path.parent / f".jseg-{os.getpid()}-{secrets.token_hex(8)}.part"
    _open_temporaries.add(temporary.name)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        _open_temporaries.discard(temporary.name)
    _sync_folder(path.parent)


def remove_stale_temporaries(folder: PathLike) -> List[str]:
    """Remove what killed runs left of `write_atomic` in `folder`; returns the names.

    Temporary files of live processes stay.
    """
    removed = []
    for entry in sorted(Path(folder).iterdir()):
        match = TEMPORARY.match(entry.name)
        if match and entry.name not in _open_temporaries and not _in_use(int(match.group(1))):
            entry.unlink()
            removed.append(entry.name)
    return removed


def sha256(path: PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """The SHA-256 of the rest of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(CHUNK), b""):
        digest.update(block)
    return digest.hexdigest()


def _in_use(process: int) -> bool:
    # A killed run's number may have become ours (containers count from 1 again); our own files are
    # known by name.
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(str(folder), os.O_RDONLY)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)
