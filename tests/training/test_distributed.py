"""Two processes under mpirun train as one does: the same loop, order and checkpoints. Skipped where
Open MPI is not installed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.places import ROOT

from jseg.machine import facts

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from support.small_training import main
main(sys.argv[1], int(sys.argv[2]))
"""


def works() -> bool:
    return (
        shutil.which("mpirun") is not None
        and shutil.which("mpicc") is not None
        and not facts.mpi().problem
    )


pytestmark = pytest.mark.skipif(not works(), reason="Open MPI (mpirun and mpicc) is not installed")


def run(folder, processes, steps):
    program = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"))
    start = (
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", str(processes)]
        if processes > 1
        else []
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        start + [sys.executable, "-c", program, str(folder), str(steps)],
        cwd=ROOT,
        env=environment,
        timeout=240,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def weights(folder):
    from jseg.checkpoint import load

    return load(sorted(Path(folder).glob("checkpoint-*.safetensors"))[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights after six steps of one process."""
    folder = tmp_path_factory.mktemp("one")
    done = run(folder, 1, 6)
    assert done.returncode == 0 and done.stdout.count("6 steps are done") == 1, done.stdout
    return weights(folder)


def assert_equal(folder, whole):
    """Equal to the last bit: two micro-batches are a + b in either order."""
    state = weights(folder)
    assert set(state) == set(whole)
    assert [name for name in whole if not np.array_equal(state[name], whole[name])] == []


def test_two_processes_do_what_one_does_save_once_and_end(whole, tmp_path):
    done = run(tmp_path, 2, 6)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("6 steps are done") == 1
    assert_equal(tmp_path, whole)


def test_two_processes_go_on_from_what_one_began(whole, tmp_path):
    assert run(tmp_path, 1, 3).returncode == 0
    resumed = run(tmp_path, 2, 6)
    assert resumed.returncode == 0 and resumed.stdout.count("going on from") == 1, resumed.stdout
    assert_equal(tmp_path, whole)


def test_a_mistake_ends_every_process(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "checkpoint-00000002.safetensors").write_bytes(b"nothing that can be read")
    done = run(tmp_path / "full", 2, 4)
    assert done.returncode != 0 and "checkpoint-00000002" in done.stdout
