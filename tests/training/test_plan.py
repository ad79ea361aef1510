"""The signals that end a training: said while a step computes, and left ignored where they were."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest
from support.places import ROOT

from jseg.training.plan import STOPPING, Signals

# A step in which Python cannot run, as in an operator of Jittor's: the C function keeps the
# interpreter's lock till the pipe is read.
LONG_STEP = """
import ctypes, os, signal, sys
sys.path.insert(0, {root!r})
from jseg.training.plan import Signals
with Signals() as signals:
    print("begun", flush=True)
    ctypes.PyDLL(None).system(b"read line < {pipe}")
    print("caught" if signals.caught else "not yet", flush=True)
"""


@pytest.fixture(autouse=True)
def started_from_a_terminal():
    """`nohup make test` starts with SIGHUP ignored, and so would the children."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_signal_is_answered_while_the_step_computes(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP.format(root=str(ROOT), pipe=pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "begun\n"
    run.send_signal(signal.SIGTERM)
    assert run.stderr.readline() == STOPPING + "\n"  # the step still waits for the pipe
    pipe.write_text("go on\n")
    assert run.communicate(timeout=60) == ("caught\n", "") and run.returncode == 0


def test_a_signal_cuts_no_wait_for_a_lock_short(tmp_path):
    """Jittor locks its cache by fcntl, and dies where that is interrupted."""
    program = (
        "import ctypes, fcntl, os, sys; sys.path.insert(0, {!r})\nfrom jseg.training.plan import "
        "Signals\nfile = open({!r}, 'w')\nwith Signals() as signals:\n    print('begun', "
        "flush=True)\n    print(ctypes.PyDLL(None, use_errno=True).lockf(file.fileno(), 1, 0), "
        "signals.caught)"
    )
    path = tmp_path / "lock"
    with open(path, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        run = subprocess.Popen(
            [sys.executable, "-c", program.format(str(ROOT), str(path))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stdout.readline() == "begun\n"
        run.send_signal(signal.SIGTERM)
        assert run.stderr.readline() == STOPPING + "\n"
    assert run.communicate(timeout=60)[0] == "0 True\n"


def test_without_a_signal_nothing_is_said_and_all_is_as_before(capfd):
    before = (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        signal.set_wakeup_fd(-1),
    )
    with Signals() as signals:
        assert signal.getsignal(signal.SIGTERM) == signals._catch
    assert (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        signal.set_wakeup_fd(-1),
    ) == before
    assert capfd.readouterr() == ("", "") and not signals.caught


def test_the_process_that_does_not_speak_only_notices(capfd):
    with Signals(speaks=False) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.caught
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", [True, False])
def test_it_is_said_once_and_the_second_signal_ends_it(shell, capfd, monkeypatch):
    if not shell:
        monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KeyboardInterrupt):
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.caught
            os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == STOPPING + "\n"


def test_a_closed_terminal_only_ever_asks_for_the_end(capfd):
    """Shells send SIGHUP to a process that the system has sent it already."""
    with Signals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.caught
    assert capfd.readouterr().err == STOPPING + "\n"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_reader_of_the_messages_that_is_gone_ends_nothing(monkeypatch):
    """`train 2>&1 | tee log`: the Ctrl-C that ends tee must still save the step."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setenv("PATH", "/nowhere")
    with open(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.caught
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            gone.write("x")
            gone.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())


def test_further_signals_leave_no_trace(tmp_path):
    """The pipe that says the first must still be read when the second comes."""
    program = (
        "import os, signal, sys, time; sys.path.insert(0, {!r})\nfrom jseg.training.plan import "
        "Signals\nwith Signals():\n    for _ in range(4):\n        os.kill(os.getpid(), "
        "signal.SIGHUP); time.sleep(0.1)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program.format(str(ROOT))], stderr=subprocess.PIPE, text=True
    )
    assert (run.returncode, run.stderr) == (0, STOPPING + "\n")


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert not signals.caught and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
