"""One running process at a time: a folder, or the name of a single file, is held by a lock.

The lock is the system's own on a hidden file, so a process that is killed holds nothing. The file
goes when the work ends. Where the file system knows no locks, nothing is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Iterable, Iterator, Optional

from jseg.files import PathLike
from jseg.outputs.places import OutputError

LOCK = ".jseg-lock"


@contextlib.contextmanager
def held(folder: PathLike) -> Iterator[None]:
    """Hold `folder` as `locked` does, and make it where it is missing.

    What was made is removed again if nothing was written into it.
    """
    with _made(Path(folder)), locked(folder):
        yield


@contextlib.contextmanager
def held_files(paths: Iterable[PathLike]) -> Iterator[None]:
    """Hold the names of single files that are going to be written, whether they exist or not.

    Check once more inside of the `with` that they may be replaced: another process may have
    written them since. Raises OutputError as `locked` does.
    """
    places = sorted(
        Path(os.path.realpath(str(Path(path).parent))) / Path(path).name for path in paths
    )
    with contextlib.ExitStack() as stack:
        for path in places:
            # A digest, since the name may already be as long as a name can be.
            digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
            stack.enter_context(_made(path.parent))
            stack.enter_context(_lock(path.parent / f"{LOCK}-{digest}", path, "name"))
        yield


@contextlib.contextmanager
def locked(folder: PathLike) -> Iterator[None]:
    """Hold an existing folder for this process alone until the `with` or the process ends.

    Raises OutputError, which names the process that holds the folder.
    """
    with _lock(Path(folder) / LOCK, Path(folder), "folder"):
        yield


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


@contextlib.contextmanager
def _lock(path: Path, output: Path, kind: str) -> Iterator[None]:
    """Hold the hidden file `path` while `output` is written, a "folder" or the "name" of a file."""
    descriptor = _locked_file(path, output, kind)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _locked_file(path: Path, output: Path, kind: str) -> Optional[int]:
    """The descriptor of the locked file; None on a file system without locks."""
    while True:
        try:
            descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{output} cannot be written, because {path.parent} takes no new file "
                f"({error.strerror}); give another {kind}, or make room"
            ) from None

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            process = f" (process {holder})" if holder.isdigit() else ""
            raise OutputError(
                f"{output} is being written by another run of jseg{process}; wait for it, stop "
                f"it, or give another {kind}"
            ) from None
        except OSError:  # a network file system without locks
            os.close(descriptor)
            return None

        # The previous holder may have removed the file after we opened it: then the lock is on a
        # file without a name, and the next process would lock another one.
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
            return descriptor
        os.close(descriptor)
