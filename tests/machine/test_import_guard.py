"""Waiting for Jittor's lock: who holds it is said once, and Ctrl-C ends the waiting."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.places import ROOT

from jseg.machine import compilation, import_guard
from jseg.runtime import jt

HOLDER = (
    "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
    "print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def held(tmp_path):
    """A file that another process has locked; (path, that process)."""
    path = tmp_path / "jittor.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield str(path), process
    process.kill()
    process.communicate()


def suspend(process):
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def release_after(process, seconds):
    def work():
        time.sleep(seconds)
        process.kill()

    threading.Thread(target=work).start()


@pytest.mark.parametrize("suspended", [False, True])
def test_the_process_that_holds_the_lock_is_named_once(held, suspended, monkeypatch):
    path, process = held
    monkeypatch.setattr(import_guard, "PATIENCE", 0.3)
    if suspended:
        suspend(process)
    said = []
    release_after(process, 1.5)
    with open(path, "w") as file:
        import_guard.wait_for(file, path, said.append)
        assert import_guard.holder(path) == os.getpid()
    assert len(said) == 1 and f"process {process.pid}," in said[0] and path in said[0]
    assert (
        f"is suspended: let it go on (fg in its terminal, or kill -CONT {process.pid})" in said[0]
    ) == suspended


def test_a_short_wait_says_nothing(held):
    path, process = held
    release_after(process, 0.3)
    said = []
    with open(path, "w") as file:
        import_guard.wait_for(file, path, said.append)
    assert said == [] and import_guard.holder(path) is None


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_waiting_also_where_it_is_held_back(held):
    """Jittor is imported with Ctrl-C held back, for its own handler would end the process."""
    path, _ = held
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with open(path, "w") as file, pytest.raises(KeyboardInterrupt):
        with import_guard.ctrl_c_waits():
            import_guard.wait_for(file, path, pytest.fail)


@pytest.mark.parametrize("suspended", [False, True])
def test_the_waiting_for_a_compilation_names_a_suspended_process_alone(
    held, suspended, monkeypatch
):
    path, process = held
    monkeypatch.setattr(import_guard, "PATIENCE", 0.2)
    if suspended:
        suspend(process)
    release_after(process, 1.0)
    said = []
    with compilation._alone(path, said.append):
        pass
    assert said[0] == "another process compiles Jittor here; this one waits for it"
    assert len(said) == 1 + suspended
    assert not suspended or f"process {process.pid}, which holds" in said[1]


IMPORT = "from jseg.machine import import_guard; import_guard.PATIENCE = 0.2\nimport jseg.runtime"


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["imports", "compiles"])
def test_importing_jittor_says_for_whom_it_waits(lock):
    """Jittor's imports are under one kind of lock, its compilations of operators under the
    other.
    """
    path = sys.modules["jittor_utils"].lock.lock_path
    assert jt is not None and os.path.isfile(path)
    command = [sys.executable, "-c", IMPORT]
    lines = []
    with open(path, "r+") as file:
        lock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(command, stderr=subprocess.PIPE, universal_newlines=True, cwd=ROOT)
        for line in child.stderr:
            lines.append(line.rstrip("\n"))
            if f"process {os.getpid()}," in line:
                break
    lines += child.communicate(timeout=300)[1].splitlines()

    # The lock is this machine's: the child may have to wait for others that compute here, too.
    who = r"waiting for process (\d+), which holds Jittor's lock"
    lines = [re.fullmatch(f"jseg: {who} (.*); Ctrl-C ends the waiting", line) for line in lines]
    assert child.returncode == 0 and all(lines)
    assert (str(os.getpid()), path) in [line.groups() for line in lines]
