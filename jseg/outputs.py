"""A folder that a command writes its results into: one running process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Iterator

from jseg.atomic import PathLike

LOCK = ".jseg-lock"


class OutputError(ValueError):
    """A folder that results cannot be written into; one line: what is there, what to do."""


@contextlib.contextmanager
def locked(folder: PathLike) -> Iterator[None]:
    """Hold `folder`, which exists, for this process alone, until the `with` ends or the process does.

    The lock is the system's own on the hidden file LOCK, so a killed process holds nothing; the file goes when the `with` ends. Where the
    file system knows no locks, nothing is held. Raises OutputError, which names the process that holds the folder, and OSError.
    """
    path = Path(folder) / LOCK
    descriptor = _locked_file(path, Path(folder))
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _locked_file(path: Path, folder: Path):
    while True:
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise OutputError(
                "%s is being written by another run of jseg%s; wait for it, stop it, or give another folder"
                % (folder, " (process %s)" % holder if holder.isdigit() else "")
            ) from None
        except OSError:  # a network file system without locks
            os.close(descriptor)
            return None
        # The holder before us may have removed the file between our opening and locking it: then the lock is on a file without a name.
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
            return descriptor
        os.close(descriptor)
