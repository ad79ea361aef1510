"""Two processes under mpirun train as one does: the same loop, order and checkpoints; they add
gradients in buckets, hand values to each other and fill one cache of latents.
"""

from pathlib import Path

import numpy as np
import pytest
from support import mpirun
from support.places import ROOT

from jseg.training import distributed

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from support.small_training import main
main(sys.argv[1], *map(int, sys.argv[2:]))
"""


def run(folder, processes, steps, *more):
    program = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"))
    return mpirun.python(processes, "-c", program, folder, steps, *more)


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


@mpirun.needs_mpirun
def test_two_processes_do_what_one_does_save_once_and_end(whole, tmp_path):
    done = run(tmp_path, 2, 6)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("6 steps are done") == 1
    assert_equal(tmp_path, whole)


@mpirun.needs_mpirun
def test_two_processes_go_on_from_what_one_began(whole, tmp_path):
    assert run(tmp_path, 1, 3).returncode == 0
    resumed = run(tmp_path, 2, 6)
    assert resumed.returncode == 0 and resumed.stdout.count("going on from") == 1, resumed.stdout
    assert_equal(tmp_path, whole)


@mpirun.needs_mpirun
def test_a_mistake_ends_every_process(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "checkpoint-00000002.safetensors").write_bytes(b"nothing that can be read")
    done = run(tmp_path / "full", 2, 4)
    assert done.returncode != 0 and "checkpoint-00000002" in done.stdout


@mpirun.needs_mpirun
def test_a_process_that_cannot_load_lets_all_save_first(tmp_path):
    done = run(tmp_path, 2, 8, 5)
    assert done.returncode != 0
    assert mpirun.lines(done)[-1] == "jseg train: image 7 is gone; put it back"
    assert "step 5 is saved; the same command goes on from there" in done.stdout
    assert (tmp_path / "checkpoint-00000005.safetensors").is_file()


# --- what they hand to each other -----------------------------------------------------------------


class Var:
    """As much of a Jittor Var as cutting into buckets looks at."""

    def __init__(self, name, numbers, dtype="float32"):
        self.name, self.numbers, self.dtype = name, numbers, Type(dtype)

    def numel(self):
        return self.numbers


class Type(str):
    def dsize(self):
        return {"float32": 4, "float16": 2}[self]


@pytest.mark.parametrize(
    "values, names",
    [
        ([], []),
        ([Var("a", 2), Var("b", 2), Var("c", 1)], ["ab", "c"]),
        ([Var("a", 1), Var("b", 90), Var("c", 1), Var("d", 3)], ["a", "b", "cd"]),
        ([Var("a", 1), Var("b", 1, "float16"), Var("c", 7, "float16")], ["a", "bc"]),
    ],
    ids=["none", "full", "one larger than a bucket", "two types"],
)
def test_buckets_keep_the_order_and_the_types_apart(monkeypatch, values, names):
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 16)
    buckets = ["".join(value.name for value in bucket) for bucket in distributed.buckets(values)]
    assert buckets == names


TOGETHER = """
import sys
import numpy as np
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + "/ldm"]
from jseg.runtime import jt
from jseg.training import distributed
from test_latent_cache import Data

rng = np.random.default_rng(distributed.rank())
shapes = [(3,), (4, 5), (2, 3, 3, 3), (), (7, 2)]
arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
one_by_one = [jt.array(array).mpi_all_reduce("add").numpy() for array in arrays]
for bucket in (64, 25 << 20):
    distributed.BUCKET_BYTES = bucket
    summed = [value.numpy() for value in distributed.all_reduce([jt.array(a) for a in arrays])]
    assert all(map(np.array_equal, summed, one_by_one)), bucket
    assert [value.shape for value in summed] == [value.shape for value in one_by_one]

assert distributed.from_process(1, ("of", distributed.rank())) == ("of", 1)
assert distributed.from_first(lambda: distributed.rank()) == 0
assert distributed.gather(str(distributed.rank()) * 3) == ["000", "111"]
assert distributed.rounds("abcde") == [["a", "b"], ["c", "d"], ["e"]]
if distributed.rank() == 0:
    Data("abcde").fill(sys.argv[1] + "/one")
data = Data("abcde")
data.fill(sys.argv[1] + "/two", processes=distributed)
assert distributed.gather("".join(data.encoded)) == ["abc", "de"]
assert [len(told) for told in distributed.gather(data.told)] == [1, 0]
"""


@mpirun.needs_mpirun
def test_sums_in_buckets_equal_single_ones_and_a_cache_is_filled_together(tmp_path):
    """The latents are those of one process, to the byte, and each process made half of them."""
    program = TOGETHER.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = mpirun.python(2, "-c", program, tmp_path)
    assert done.returncode == 0, done.stdout
    assert files(tmp_path / "one") == files(tmp_path / "two")


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}
