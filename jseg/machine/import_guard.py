"""Undo what importing Jittor does to the process: to standard output, signals, random generators,
TLS checks and children; and wait for its lock with a word to the user.

Standard library and NumPy only; `runtime.py` imports Jittor inside of these. Facts about Jittor
1.3.11: src/utils/log.cc, jittor_utils/__init__.py.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import math
import os
import random
import signal
import ssl
import sys
import threading
import time
from types import ModuleType
from typing import Callable, Iterator, Optional

PATIENCE = 10.0  # seconds of waiting for another process before it is named
PAUSE = 0.01  # between two attempts: a compiling process releases the lock only between operators


@contextlib.contextmanager
def restore_process() -> Iterator[None]:
    """Undo what importing Jittor does to the process: standard output, signals, random generators,
    TLS checks.
    """
    import numpy as np

    # NumPy remembers these. Later it would warn: Jittor's fast code rounds denormals to zero in the
    # whole process.
    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)}
    states = random.getstate(), np.random.get_state()
    context = ssl._create_default_https_context
    try:
        with stdout_to_stderr():
            yield
    finally:
        # Jittor seeds both generators from the clock, ends the process at Ctrl-C without a chance
        # to finish a file, ends it when any child process is killed, and switches certificate
        # checks off for every download of the process.
        random.setstate(states[0])
        np.random.set_state(states[1])
        ssl._create_default_https_context = context
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back while Jittor's own handler is in place, which ends the process with another
    message; afterwards Python's handler answers it.
    """
    handler = signal.getsignal(signal.SIGINT)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Jittor and the compilers it starts print to standard output, where our results go."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a daemon without standard streams
        saved = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def end_pool(jittor_utils: ModuleType) -> None:
    """End the compiling processes that Jittor's import starts and keeps: each would answer Ctrl-C
    with a traceback of its own.
    """
    if getattr(jittor_utils, "pool_size", 0) and hasattr(jittor_utils, "p"):
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_cleanup()
        jittor_utils.pool_size = 0


def wait_aloud(lock: Optional[ModuleType], tell: Callable[[str], None]) -> None:
    """Make jittor_utils.lock report for which process it waits; a suspended one would block all
    others forever.

    Jittor imports, and compiles operators that come with files of their own, under this lock.
    """
    if not _known(lock):
        return
    jittor_lock, path = lock.jittor_lock, lock.lock_path

    def take() -> None:
        wait_for(jittor_lock.handle, path, tell)
        jittor_lock.is_locked = True

    jittor_lock.lock = take


def wait_for_compilers(lock: Optional[ModuleType], tell: Callable[[str], None]) -> None:
    """Wait until no other process compiles an operator: Jittor's own wait for that, in C++, reports
    nothing and ignores Ctrl-C.
    """
    if not _known(lock):
        return
    with contextlib.suppress(OSError), open(lock.lock_path, "r+") as file:
        wait_for(file, lock.lock_path, tell, kind="POSIX")


def _known(lock: Optional[ModuleType]) -> bool:
    """Whether Jittor locks, and in the way of Jittor 1.3.11."""
    known = all(hasattr(lock, name) for name in ("jittor_lock", "lock_path"))
    return known and not getattr(lock, "disable_lock", False)


def wait_for(
    file, path: str, tell: Callable[[str], None], only_suspended: bool = False, kind: str = "FLOCK"
) -> None:
    """Lock `file`, which is open at `path`; after PATIENCE seconds `tell` gets one line that names
    the process that holds it.

    only_suspended: only a suspended holder is worth a line. kind: "FLOCK", or "POSIX" for fcntl's
    locks, which are independent of the others. Ctrl-C ends the waiting, also while it is held back
    (`ctrl_c_waits`). Raises OSError where the file system has no locks.
    """
    lock = fcntl.flock if kind == "FLOCK" else fcntl.lockf
    look = time.monotonic() + PATIENCE
    while True:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):  # lockf may give either
            pass
        if signal.SIGINT in signal.sigpending():
            raise KeyboardInterrupt
        if time.monotonic() >= look:
            look = time.monotonic() + 1
            process = holder(path, kind)
            suspended = process is not None and is_suspended(process)
            if suspended or not only_suspended:
                look = math.inf
                tell(waiting_line(path, process, suspended))
        time.sleep(PAUSE)


def waiting_line(path: str, process: Optional[int], suspended: bool) -> str:
    """The line about the process that this one waits for."""
    holder = "another process" if process is None else f"process {process}"
    remedy = ""
    if suspended:
        remedy = (
            f" and is suspended: let it go on (fg in its terminal, or kill -CONT {process}), or "
            "end it"
        )
    line = f"waiting for {holder}, which holds Jittor's lock {path}{remedy}"
    return f"{line}; Ctrl-C ends the waiting"


def holder(path: str, kind: str = "FLOCK") -> Optional[int]:
    """The process that has locked the file by this kind of lock, None where the system does not
    say.
    """
    try:
        inode = str(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except (OSError, ValueError):
        return None
    # "1: FLOCK ADVISORY WRITE 1806 fe:00:2508737 0 EOF"; processes that wait have an arrow before
    # the kind.
    for row in rows:
        if len(row) > 5 and row[1] == kind and row[5].rpartition(":")[2] == inode:
            if row[4].isdigit() and row[4] != "0":
                return int(row[4])
    return None


def is_suspended(process: int) -> bool:
    """Whether it is stopped, by Ctrl-Z or by a debugger."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[:1] in (["T"], ["t"])
    except OSError:
        return False
