"""What importing Jittor does to the process, undone: standard output, signals, random generators, TLS checks, children.

Standard library and NumPy only; `runtime.py` imports Jittor within these. Facts about Jittor 1.3.11: src/utils/log.cc,
jittor_utils/__init__.py.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import ssl
import sys
import threading
from types import ModuleType
from typing import Iterator


@contextlib.contextmanager
def process_kept() -> Iterator[None]:
    """Undo what importing Jittor does to the process: standard output, signals, random generators, TLS checks."""
    import numpy as np

    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)  # remembered by NumPy, which would warn later: Jittor's fast code rounds denormals to zero in the whole process
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)}
    states = random.getstate(), np.random.get_state()
    context = ssl._create_default_https_context
    try:
        with stdout_to_stderr():
            yield
    finally:
        # Jittor seeds both generators from the clock, ends the process at Ctrl-C without a chance to finish a file, ends it
        # when any child process is killed, and switches certificate checks off for every download in the process.
        random.setstate(states[0])
        np.random.set_state(states[1])
        ssl._create_default_https_context = context
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back while Jittor's own handler is in place, which ends the process with words of its own; then Python's answers it."""
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
    """End the compiling processes that Jittor's import starts and keeps: each would answer Ctrl-C with a traceback of its own."""
    if getattr(jittor_utils, "pool_size", 0) and hasattr(jittor_utils, "p"):
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_cleanup()
        jittor_utils.pool_size = 0
