"""`test` and `segment` under mpirun: the processes share the images, which are those of one process
to the byte, and the first one alone checks, records and speaks.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import json

import pytest
from support import mpirun
from support.places import ROOT
from support.tiny import HEIGHT, WIDTH, challenge, photograph, weights

from jseg.images import save_image

pytestmark = mpirun.needs_mpirun


def images(folder):
    paths = [path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def record(folder, *without):
    """run.json without what the time of day decides."""
    return {
        name: value
        for name, value in json.loads((folder / "run.json").read_text()).items()
        if name not in ("seconds", *without)
    }


def test_images_and_record_are_those_of_one_process(challenge):
    """Also where three processes go on with what is missing of two batches, one of them with
    nothing to do.
    """
    challenge.fill("c", "a", "b", "d", "e")  # batches ab, cd, e
    code, _ = challenge.run(output_path=challenge.root / "one")
    assert code == 0
    one = images(challenge.root / "one")
    script = ROOT / "scripts" / "test.py"
    for processes, missing in ((2, []), (3, ["d.jpg", "e.jpg"])):
        for name in missing:
            (challenge.output / name).unlink()
        done = mpirun.python(processes, script, *challenge.arguments())
        assert done.returncode == 0, done.stdout
        assert images(challenge.output) == one
        assert record(challenge.output) == record(challenge.root / "one")
        said = mpirun.lines(done)
        assert len(said) == 1 + bool(missing), said
        assert said[-1].startswith(f"jseg test: 5 images in {challenge.output}")
        assert done.stdout.count("5 of 5 images") == 1, done.stdout


def test_label_maps_and_record_are_those_of_one_process(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number in range(3):
        save_image(tmp_path / "photographs" / f"{number}.png", photograph(number))
    options = ["--input", tmp_path / "photographs", "--steps", 1, "--device", "cpu"]
    script = ROOT / "scripts" / "segment.py"
    for processes, name in ((1, "one"), (2, "two")):
        done = mpirun.python(processes, script, *options, "--output", tmp_path / name)
        assert done.returncode == 0, done.stdout
        assert len(mpirun.lines(done)) == 2 and done.stdout.count("3 of 3 images") == 1
    assert images(tmp_path / "one") == images(tmp_path / "two")
    assert len(images(tmp_path / "one")) == 6
    assert record(tmp_path / "one") == record(tmp_path / "two")


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"seed": -1}, "jseg test: seed is -1; expected a whole number from 0 on"),
        ({"input_path": "nowhere"}, "nowhere"),
        ({"batch_size": "x"}, "argument --batch_size: invalid int value"),
    ],
)
def test_what_fails_on_all_processes_is_one_line_and_the_exit_code(challenge, changed, line):
    done = mpirun.python(2, ROOT / "scripts" / "test.py", *challenge.arguments(**changed))
    assert done.returncode == 2, done.stdout
    said = mpirun.lines(done)
    assert len(said) == 1 and line in said[0], said


FAILS_ALONE = """
import os, sys
from jseg.commands import cli
cli.FIRST_SPEAKS = 0.5
def main(argv):
    from jseg.training import distributed
    distributed.barrier()
    if distributed.rank() == 1:
        raise OSError("the disk is full")
    distributed.barrier()
main.__module__ = "jseg.commands.test"
sys.exit(cli.run(main))
"""


def test_a_process_that_fails_alone_ends_all_and_names_itself():
    done = mpirun.python(2, "-c", FAILS_ALONE)
    assert done.returncode == 2, done.stdout
    assert mpirun.lines(done) == ["jseg test: process 1: the disk is full"]
