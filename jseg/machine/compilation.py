"""Jittor's first use on a machine: it compiles itself, for minutes, in a child process that can
fail, be watched and be interrupted.

Here a failure might abort the process, and every compiling process would answer Ctrl-C with a
traceback of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Callable, Iterator, List

from jseg.machine import mpirun
from jseg.machine.facts import RuntimeProblem, cores, jittor
from jseg.machine.import_guard import wait_for

MEMORY_PER_WORKER = 1 << 30  # bytes: Jittor's largest source file takes half of it in g++ 12
# Bytes: 200 MB for the core and its operators, 60 MB for oneDNN, room for the compiler.
DISK = 400 << 20

# Jittor starts a compiling process for every 3 GiB of the machine's memory, whatever the number of
# cores and a container's limit are.
_CHILD = """
import sys
sys.path[:] = eval(sys.argv[1])
import jittor_utils
jittor_utils.get_total_mem = lambda: 3 * 2**30 * int(sys.argv[2])
import jittor
"""
_PROGRESS = re.compile(rb"\((\d+)/(\d+)\) used:")


def workers() -> int:
    """How many compilers to run at once: one per core, as far as the memory goes, 16 at most
    (Jittor's own limit).
    """
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit) as file:
                memory.append(int(file.read()))
        except (OSError, ValueError):  # no such group, or "max"
            pass
    return max(1, min(16, cores(), min(memory) // MEMORY_PER_WORKER))


def ensure(cache: str, tell: Callable[[str], None]) -> None:
    """Compile Jittor into `cache` unless that is done; `tell` gets a line before it takes minutes.

    Of several processes on a machine, under mpirun or not, one compiles and the others wait for it.
    Under mpirun, Jittor's MPI part is compiled too. Raises RuntimeProblem.
    """
    nvcc = os.environ.get("nvcc_path", "")
    device = hashlib.md5(nvcc.encode()).hexdigest()[:6] if nvcc else "cpu"
    several = "_mpi" if mpirun.is_inside() else ""
    done = os.path.join(cache, f"jseg_ready_{jittor().text}_{device}{several}")
    if os.path.isfile(done):
        return
    with _alone(os.path.join(cache, "jseg_compile.lock"), tell):
        if not os.path.isfile(done):
            _compile(cache, done, tell)


@contextlib.contextmanager
def _alone(path: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the system takes back when the process ends, however it ends."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not mpirun.is_inside():
                tell("another process compiles Jittor here; this one waits for it")
            wait_for(file, path, tell, only_suspended=True)
        except OSError:
            # A file system without locks: Jittor's own lock still keeps the cache whole.
            pass
        yield


def _compile(cache: str, done: str, tell: Callable[[str], None]) -> None:
    cold, several = not _is_there(cache, "jittor_core*"), mpirun.is_inside()
    waiting = "; the other processes wait" if several else ""
    if cold:
        free = shutil.disk_usage(cache).free
        if free < DISK:
            raise RuntimeProblem(
                f"{cache} has {free >> 20} MB left on its disk, compiling Jittor needs "
                f"{DISK >> 20}: make room"
            )
        tell(
            "the first use of Jittor here compiles it, for 1 to 10 minutes, once (into "
            f"{cache}){waiting}"
        )
    elif several and not _is_there(cache, "custom_ops", "jittor_mpi_core*.so"):
        tell(f"Jittor's MPI part is compiled, for about a minute, once{waiting}")

    start = time.time()
    _run(cache, cold)
    with open(done, "w") as file:
        file.write(
            "Jittor compiled and was imported with these settings; delete the whole folder, not "
            "this file alone\n"
        )
    if cold:
        tell(f"Jittor is compiled ({time.time() - start:.0f} s)")


def _is_there(cache: str, *pattern: str) -> bool:
    """Whether Jittor's cache, or CUDA's folder in it where CUDA is used, holds such a file."""
    folder = "cu*" if os.environ.get("nvcc_path") else ""
    return bool(glob.glob(os.path.join(glob.escape(cache), folder, *pattern)))


def without_cuda() -> str:
    """How to avoid a CUDA that Jittor cannot build on, as the end of a message; "" where CUDA is
    not used.
    """
    return "; nvcc_path= in the environment uses the CPU" if os.environ.get("nvcc_path") else ""


def _run(cache: str, cold: bool) -> None:
    log = os.path.join(cache, f"jseg_compile_{os.getpid()}.log")
    command = [sys.executable, "-u", "-c", _CHILD, repr(sys.path), str(workers())]
    with open(log, "wb") as file:
        # A session of its own, so that Ctrl-C reaches this process alone, which ends the whole
        # group.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        try:
            _watch(child, file, cold and sys.stderr.isatty())
            status = child.wait()
        finally:
            _end(child)
    if status:
        raise RuntimeProblem(
            f"Jittor cannot be compiled here ({_cause(log, status)}){without_cuda()}; all of it "
            f"is in {log}"
        )
    for old in glob.glob(os.path.join(glob.escape(cache), "jseg_compile_*.log")):
        with contextlib.suppress(OSError):
            os.remove(old)


def _environment() -> "dict[str, str]":
    """The child's environment: no process of the MPI program, which it could only join under its
    parent's rank. It compiles Jittor's MPI part where its parent needs it, and starts no MPI.
    """
    use_mpi = "1" if mpirun.is_inside() else "0"
    return dict(mpirun.without(os.environ), log_silent="0", use_mpi=use_mpi)


def _watch(child: "subprocess.Popen[bytes]", log, show: bool) -> None:
    """Copy the child's output to `log`; show the progress on one line of the terminal."""
    start = time.time()
    pipe = child.stdout.fileno()
    while True:
        if not select.select([pipe], [], [], 0.5)[0]:
            # It may have ended, though compilers that it left behind hold the pipe open.
            if child.poll() is not None:
                break
            continue
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            break
        log.write(chunk)
        steps = _PROGRESS.findall(chunk)
        if show and steps:
            done, total = (int(number) for number in steps[-1])
            sys.stderr.write(
                f"\rjseg: compiling, {done} of {total} files, {time.time() - start:.0f} s "
            )
            sys.stderr.flush()
    if show:
        sys.stderr.write("\r" + " " * 60 + "\r")


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the child and everything it started; asked to end, g++ removes its unfinished output."""
    child.stdout.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(5)
        except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            pass


def _cause(log: str, status: int) -> str:
    if status < 0:
        guess = ", probably because memory ran out" if status == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-status).name}{guess}"
    with open(log, errors="replace") as file:
        return telling_line(file.read())


def telling_line(output: str) -> str:
    """The line of a compilation's output that most likely names the cause."""
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", output)
    lines: List[str] = [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
    signs = re.compile(r"\berror:|\bError\b|Exception:|failed:|cannot |out of memory")
    marked = list(filter(signs.search, lines))
    return (marked or lines or ["no output"])[0][:200]
