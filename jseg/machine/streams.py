"""The standard streams of a command: none is missing, and standard error never ends the work.

A daemon or a cron job may start without them, a terminal may be closed, the disk of a log may fill
up, and the `tee` behind a pipe may be gone before the command that writes to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Iterator

NAMES = ("stdin", "stdout", "stderr")
# Nobody will ever read what is written from here on; a full disk may have room again.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class StandardOutputError(OSError):
    """Standard output cannot be written; the message is one line: why, and what to do."""


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Inside of the `with`, what cannot be written to standard error is dropped, and standard
    output that cannot be written raises StandardOutputError (BrokenPipeError where its reader is
    gone).

    Missing streams are replaced by the null device, for good. Inside of another one nothing
    changes.
    """
    open_missing()
    if isinstance(sys.stderr, _StandardError):
        yield
        return

    # A caller's own streams come back afterwards, unless someone has put others in place.
    before = {"stdout": sys.stdout, "stderr": sys.stderr}
    ours = {"stdout": _StandardOutput(sys.stdout), "stderr": _StandardError(sys.stderr)}
    for name, stream in ours.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in ours.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, before[name])
            stream.end()


def open_missing() -> None:
    """Put the null device in place of the standard streams that this process was started without.

    Their numbers are occupied too: else the next open file would get one of them, and whatever a
    library or a child process prints would go into that file.
    """
    # All numbers first: a stream's own file would take the next of them.
    for number in range(len(NAMES)):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)
    for name in NAMES:
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="backslashreplace"))


class _Stream:
    """A text stream whose `write` and `flush` a subclass guards; all else is the stream's own."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._guarded(self._stream.write, text)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._guarded(self._stream.flush)

    def end(self) -> None:
        """Let go of what could not be written, over which Python would stumble when it exits."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _guarded(self, call, *arguments) -> None:
        raise NotImplementedError

    def _discard(self) -> None:
        """Send what waits in the stream, and all that follows, to the null device."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, self._stream.fileno())
            os.close(descriptor)
            self._stream.flush()


class _StandardError(_Stream):
    """Drops what cannot be written."""

    def _guarded(self, call, *arguments) -> None:
        try:
            call(*arguments)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in GONE:
                self._discard()


class _StandardOutput(_Stream):
    """Names itself where it cannot be written: the error alone would read as one of a result's
    file."""

    def _guarded(self, call, *arguments) -> None:
        try:
            call(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StandardOutputError(
                f"standard output cannot be written ({error.strerror or error}): what was to be "
                f"printed is lost, files that were written are whole; send it to a place with room"
            ) from error
