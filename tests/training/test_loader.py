"""Batches that worker processes make ahead of the loop: same numbers, one reading a step, and what
happens when one of them fails.
"""

import errno
import multiprocessing
import os
import re
import signal
import time

import numpy as np
import pytest
from support.small_training import run_in

from jseg.files import DataError
from jseg.machine.facts import RuntimeProblem
from jseg.training import loader as training_loader
from jseg.training.loader import Loader, LoadingError, default_workers
from jseg.training.plan import Signals
from jseg.training.records import checkpoints

STEPS = range(3, 10)


def batches(step):
    """Two micro-batches that know their step, and the process that made them."""
    for part in range(2):
        values = np.random.default_rng([step, part]).standard_normal((4, 300, 300))
        yield {"step": step, "values": values.astype(np.float32), "process": os.getpid()}, 0.5


def numbers(parts):
    return [(batch["step"], batch["values"].tobytes(), weight) for batch, weight in parts]


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
def test_any_number_of_workers_makes_the_same_numbers(workers):
    with Loader(batches, STEPS, workers) as loader:
        for step in STEPS:
            parts = loader(step)
            assert numbers(parts) == numbers(batches(step))
            away = {batch["process"] for batch, _ in parts} != {os.getpid()}
            assert away == (workers > 0)
    assert loader.waited > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_is_made_once_however_often_it_is_asked_for(workers, tmp_path):
    def counted(step):
        with open(tmp_path / f"{workers}-{step}", "a") as file:
            file.write("x")
        return batches(step)

    with Loader(counted, STEPS, workers) as loader:
        for step in STEPS[:3]:
            assert loader(step) is loader(step)
    assert {(tmp_path / f"{workers}-{step}").read_text() for step in STEPS[:3]} == {"x"}


def test_workers_are_ahead_of_the_loop(tmp_path):
    def noted(step):
        (tmp_path / str(step)).touch()
        return batches(step)

    with Loader(noted, STEPS, 2) as loader:
        loader(3)
        limit = time.monotonic() + 20
        while not (tmp_path / "5").exists() and time.monotonic() < limit:
            time.sleep(0.01)
        assert {path.name for path in tmp_path.iterdir()} == {"3", "4", "5"}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_at_its_step(workers):
    def failing(step):
        if step == 5:
            raise DataError("image 7 is gone; put it back")
        return batches(step)

    with Loader(failing, STEPS, workers) as loader:
        assert numbers(loader(3)) and numbers(loader(4))
        with pytest.raises(LoadingError) as caught:
            loader(5)
    assert caught.value.step == 5 and type(caught.value.error) is DataError
    assert str(caught.value.error) == "image 7 is gone; put it back"
    if workers:
        assert "in failing" in str(caught.value.error.__cause__)  # the traceback in the worker


def test_an_error_that_cannot_be_sent_is_told():
    class Local(Exception):
        pass

    def failing(step):
        raise Local("what was wrong")

    with Loader(failing, STEPS, 1) as loader, pytest.raises(LoadingError, match="Local: what was"):
        loader(3)


def test_a_worker_without_memory_names_what_helps():
    def large(step):
        raise MemoryError

    message = "a worker process has no memory for a batch; give .* --num_workers .*smaller images"
    with Loader(large, STEPS, 1) as loader, pytest.raises(LoadingError, match=message) as caught:
        loader(3)
    assert type(caught.value.error) is RuntimeProblem


def test_a_killed_worker_is_named_and_so_is_the_remedy():
    def killed(step):
        os.kill(os.getpid(), signal.SIGKILL)

    message = "was killed by signal 9, .*; give the same command with a smaller --num_workers"
    with Loader(killed, STEPS, 2) as loader, pytest.raises(LoadingError, match=message) as caught:
        loader(3)
    assert type(caught.value.error) is RuntimeProblem


def test_without_room_for_processes_the_loop_makes_its_own_batches(monkeypatch):
    class Full:
        def __init__(self, started):
            self.left = started

        def __call__(self):
            self.left -= 1
            if self.left < 0:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return fork()

    fork, lines = os.fork, []
    monkeypatch.setattr(os, "fork", Full(1))
    with Loader(batches, STEPS, 2, lines.append) as loader:
        assert numbers(loader(3)) == numbers(batches(3))
    assert lines == [
        "no worker processes (Resource temporarily unavailable): the training makes its own batches"
    ]
    assert multiprocessing.active_children() == []


def test_signals_for_the_loop_do_not_end_its_workers():
    with Loader(batches, STEPS, 2) as loader:
        loader(3)
        for process in loader._processes:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(process.pid, number)
        assert [numbers(loader(step)) for step in STEPS] == [numbers(batches(s)) for s in STEPS]


def test_a_ctrl_c_while_workers_start_is_the_loop_s(monkeypatch):
    def interrupted():
        monkeypatch.setattr(os, "fork", fork)
        process = fork()
        os.kill(os.getpid(), signal.SIGINT)  # both get it, as from a terminal
        return process

    fork = os.fork
    with Signals(speaks=False) as signals:
        monkeypatch.setattr(os, "fork", interrupted)
        with Loader(batches, STEPS, 3) as loader:
            assert signals.caught
            assert [numbers(loader(step)) for step in STEPS] == [numbers(batches(s)) for s in STEPS]


def test_a_second_ctrl_c_while_workers_start_ends_them(monkeypatch):
    def interrupted():
        process = fork()
        os.kill(os.getpid(), signal.SIGINT)
        return process

    fork = os.fork
    monkeypatch.setattr(os, "fork", interrupted)
    with pytest.raises(KeyboardInterrupt), Signals(speaks=False):
        with Loader(batches, STEPS, 3):
            pass
    assert multiprocessing.active_children() == []


def test_no_worker_outlives_the_loop():
    def endless(step):
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt), Loader(endless, STEPS, 2) as loader:
        processes = list(loader._processes)
        raise KeyboardInterrupt
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2


def test_no_worker_outlives_a_loop_that_was_killed():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with Loader(batches, STEPS, 2) as loader:
            loader(3)
            pids = " ".join(str(process.pid) for process in loader._processes)
            os.write(write, pids.encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    workers = [int(pid) for pid in os.read(read, 100).split()]
    limit = time.monotonic() + 20
    while any(is_alive(pid) for pid in workers) and time.monotonic() < limit:
        time.sleep(0.01)
    assert len(workers) == 2 and not any(is_alive(pid) for pid in workers)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_by_default_a_gpu_has_a_worker_for_each_core_but_one(monkeypatch):
    def on(cores, processes=1, device="cuda"):
        monkeypatch.setattr(training_loader, "cores", lambda: cores)
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(processes))
        return default_workers(device)

    assert [on(1), on(2), on(6), on(64)] == [1, 1, 5, training_loader.MOST_WORKERS]
    assert [on(16, 4), on(16, 8), on(16, 16)] == [3, 1, 1]
    assert [on(cores, device="cpu") for cores in (1, 2, 64)] == [0, 1, 1]
    assert on(2, 4, device="cpu") == 0 and on(2, 4) == 1


def test_much_waiting_is_told_once_with_the_number_that_helps(monkeypatch):
    monkeypatch.setattr(training_loader, "cores", lambda: 16)
    monkeypatch.setattr(training_loader, "WATCHED_STEPS", 3)

    def said(making, training):
        def slow(step):
            time.sleep(making)
            return batches(step)

        lines = []
        with Loader(slow, STEPS, 2, lines.append) as loader:
            for step in STEPS:
                loader(step)
                time.sleep(training)
        return lines

    (line,) = said(0.3, 0)
    assert re.fullmatch(
        r"the training waits \d+% of its time for batches, which 2 workers make: give "
        r"--num_workers 5",
        line,
    )
    assert said(0, 0.2) == []


# A run with workers
# --------------------------------------------------------------------------------------------------


def test_a_run_with_workers_is_the_run_without(tmp_path):
    for workers in (0, 2):
        run, made = run_in(tmp_path / str(workers), 4, num_workers=workers)
        assert run.follow(made, run.resume())
    one, other = ((tmp_path / name / "unet.safetensors").read_bytes() for name in ("0", "2"))
    assert one == other


def test_what_was_trained_is_saved_before_a_loading_error_ends_the_run(tmp_path):
    lines = []
    run, made = run_in(tmp_path, 8, num_workers=2, say=lines.append)

    def failing(step):
        if step == 5:
            raise DataError("image 7 is gone; put it back")
        return made(step)

    with pytest.raises(DataError, match="image 7 is gone; put it back"):
        run.follow(failing, run.resume())
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000005.safetensors"
    assert lines[-1] == "step 5 is saved; the same command goes on from there"
