"""Interrupted, repeated and extended runs of the inference command: the same bytes, nothing half
written, nothing mixed.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time

import pytest
from PIL import Image
from support.places import ROOT
from support.tiny import STAGES, challenge, label_map, photograph, saved, stubbed, weights

from jseg.commands import cli
from jseg.commands import test as command
from jseg.images import save_image
from jseg.ldm import low_memory, modulations
from jseg.ldm.presets import UNETS
from jseg.ldm.refine import Synthesizer


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jpg")}


def whole(c):
    """Every image opens and decodes, no temporary is left, run.json is whole."""
    for path in c.output.glob("*.jpg"):
        Image.open(path).load()
    others = {
        path.name for path in c.output.iterdir() if path.suffix not in (".jpg", ".json", ".png")
    }
    assert others <= {"stages"}, list(c.output.iterdir())
    return json.loads((c.output / "run.json").read_text())


# -- skipping and refusing -------------------------------------------------------------------------


def test_a_second_run_makes_nothing_and_says_so(challenge, stubbed):
    assert challenge.run()[0] == 0
    before, made, seconds = times(challenge.output), len(stubbed), whole(challenge)["seconds"]
    code, lines = challenge.run()
    assert code == 0 and times(challenge.output) == before and len(stubbed) == made
    assert lines == [
        f"jseg test: 3 of 3 images are in {challenge.output} already and are kept",
        f"jseg test: 3 images in {challenge.output}, settings and timings in "
        f"{challenge.output / 'run.json'}",
    ]
    assert whole(challenge)["seconds"] == seconds and whole(challenge)["pictures"] == {
        "total": 3,
        "finished": 3,
    }


def test_a_second_run_loads_no_weights(challenge, stubbed, monkeypatch):
    assert challenge.run(limit=1)[0] == 0
    monkeypatch.setattr(
        Synthesizer, "from_files", lambda *given: pytest.fail("nothing is to be made")
    )
    assert challenge.run(limit=1)[0] == 0


def test_less_memory_goes_on_with_the_same_images_and_says_so(challenge, monkeypatch):
    """Resumed on a machine with less: the batch that is made again is the one that was there."""
    monkeypatch.setattr(modulations, "KEPT_POSITIONS", 50)
    assert challenge.run(batch_size=2, memory="full")[0] == 0
    images = challenge.results()
    (challenge.output / "a.jpg").unlink()
    (challenge.output / "c.jpg").unlink()
    monkeypatch.setattr(low_memory, "free_bytes", lambda: 1 << 20)
    code, lines = challenge.run(batch_size=2)
    assert code == 0 and challenge.results() == images
    assert sum(line.startswith("jseg test: memory: 0.0 GB are free, ") for line in lines) == 1


def test_a_missing_image_takes_its_whole_batch_with_it(challenge, stubbed):
    challenge.fill("d", "e")
    assert challenge.run()[0] == 0
    before, results = times(challenge.output), challenge.results()
    (challenge.output / "c.jpg").unlink()
    del stubbed[:]
    assert "3 of 5 images" in challenge.run()[1][0]
    assert stubbed == [["c", "d"]] and challenge.results() == results
    assert {name for name, moment in times(challenge.output).items() if moment != before[name]} == {
        "c.jpg",
        "d.jpg",
    }


def test_an_image_that_was_retouched_is_never_written_again(challenge, stubbed):
    assert challenge.run()[0] == 0
    save_image(challenge.output / "a.jpg", photograph(99))
    retouched = (challenge.output / "a.jpg").read_bytes()
    (challenge.output / "b.jpg").unlink()
    code, lines = challenge.run()
    assert code == 0 and "1 result was changed by others since it was made (a.jpg)" in lines[0]
    assert stubbed[-1] == ["a", "b"] and (challenge.output / "a.jpg").read_bytes() == retouched


@pytest.mark.parametrize("damage", [b"", b"hello"])
def test_a_result_that_is_no_image_is_made_again(challenge, stubbed, damage):
    assert challenge.run()[0] == 0
    results = challenge.results()
    (challenge.output / "b.jpg").write_bytes(damage)
    assert challenge.run()[0] == 0 and challenge.results() == results


def other_stages(c):
    c.stages.write_text(
        json.dumps(
            {**STAGES, "stages": [STAGES["stages"][0], {**STAGES["stages"][1], "guidance": 3.6}]}
        )
    )


def other_weights(c):
    return {"model_path": saved(c.root / "other.npz", UNETS["tiny"])}


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda c: {"seed": 1}, "seed was 0, is 1"),
        (lambda c: {"stages": None, "preset": "fine"}, "pipeline"),
        (other_stages, "pipeline.stages[1].guidance was 3.7, is 3.6"),
        (lambda c: {"ignore": 255}, "ignore was [], is [255]"),
        (other_weights, "model was"),
        (lambda c: c.fill("d") and None, "inputs was"),
        (lambda c: save_image(c.labels / "b.png", label_map(5)), "inputs was"),
        (lambda c: save_image(c.references / "ref_b.jpg", photograph(5)), "inputs was"),
    ],
)
def test_another_setting_refuses_to_mix_and_is_named(challenge, stubbed, change, word):
    assert challenge.run(limit=1)[0] == 0
    changed = change(challenge)
    before, made = challenge.everything(), len(stubbed)
    code, lines = challenge.run(**(changed if isinstance(changed, dict) else {}))
    assert code == 2 and len(lines) == 1 and "holds results of other settings" in lines[0], lines
    assert word in lines[0], lines
    assert challenge.everything() == before and len(stubbed) == made
    assert (
        challenge.run(
            **{
                **(changed if isinstance(changed, dict) else {}),
                "output_path": challenge.root / "fresh",
            }
        )[0]
        == 0
    )


def test_the_same_settings_by_another_way_are_the_same(challenge, stubbed):
    assert challenge.run(limit=1)[0] == 0
    challenge.stages.write_text(json.dumps({**STAGES, "jpeg_quality": 75}))
    challenge.model.with_name("copy.safetensors").write_bytes(challenge.model.read_bytes())
    assert challenge.run(model_path=challenge.model.with_name("copy.safetensors"))[0] == 0
    assert len(challenge.results()) == 3


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limited_run_and_then_all_is_one_run(challenge, stubbed, limit):
    challenge.fill("d", "e")
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    assert challenge.run(limit=limit)[0] == 0
    assert sorted(challenge.results()) == ["a.jpg", "b.jpg", "c.jpg"][:limit]
    assert whole(challenge)["pictures"] == {"total": 5, "finished": limit}
    assert challenge.run()[0] == 0
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert whole(challenge)["pictures"] == {"total": 5, "finished": 5}
    assert challenge.run(limit=limit)[0] == 0 and whole(challenge)["pictures"] == {
        "total": 5,
        "finished": 5,
    }


@pytest.mark.parametrize("older", [False, True])
def test_another_batch_size_goes_on_and_is_told(challenge, stubbed, older):
    assert challenge.run(limit=1)[0] == 0
    if older:
        run = json.loads((challenge.output / "run.json").read_text())
        for name in ("command", "files", "stages"):
            del run[name]
        (challenge.output / "run.json").write_text(json.dumps(run))
    before = challenge.results()
    code, lines = challenge.run(batch_size=1)
    assert code == 0 and "batch_size was 2, is 1" in lines[0] and "last bits" in lines[0]
    assert stubbed[1:] == [["b"], ["c"]] and before.items() <= challenge.results().items()
    assert whole(challenge)["settings"]["batch_size"] == 1
    assert "last bits" in whole(challenge)["notes"][0]


def test_a_run_that_was_stopped_before_its_first_image_may_take_other_settings(
    challenge, stubbed, monkeypatch
):
    def stopped(self, *given):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch:
        patch.setattr(Synthesizer, "run", stopped)
        assert challenge.run()[0] == 130 and challenge.results() == {}
    code, lines = challenge.run(stages=None, preset="fine", seed=3, batch_size=1)
    assert code == 0 and "nothing was finished" in lines[0] and len(challenge.results()) == 3
    assert whole(challenge)["settings"]["seed"] == 3


def test_an_image_put_there_after_an_interruption_is_not_taken_for_a_result(challenge, stubbed):
    assert challenge.run(limit=1, batch_size=1)[0] == 0
    save_image(challenge.output / "c.jpg", photograph(1))
    before = challenge.everything()
    code, lines = challenge.run(batch_size=1)
    assert code == 2 and len(lines) == 1 and "holds c.jpg (1 of the results' names" in lines[0]
    assert "run.json" in lines[0]
    assert challenge.everything() == before


def test_foreign_images_are_not_taken_for_results(challenge, stubbed):
    challenge.output.mkdir()
    save_image(challenge.output / "b.jpg", photograph(1))
    before = challenge.everything()
    code, lines = challenge.run()
    assert code == 2 and len(lines) == 1 and "b.jpg" in lines[0] and "no run.json" in lines[0]
    assert challenge.everything() == before


def test_results_never_overwrite_references_of_the_same_name(challenge, stubbed):
    save_image(challenge.references / "a.jpg", photograph(1))
    before = challenge.everything()
    assert challenge.run(output_path=challenge.references)[0] == 2
    assert challenge.everything() == before


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"format": 1, "settings": {}, "seconds": {}}']
)
def test_a_damaged_run_file_is_refused(challenge, stubbed, damage):
    assert challenge.run(limit=1)[0] == 0
    (challenge.output / "run.json").write_bytes(damage)
    before = challenge.everything()
    code, lines = challenge.run()
    assert code == 2 and len(lines) == 1
    assert "run.json is damaged (it " in lines[0]
    assert challenge.everything() == before


# -- a disk that fills up --------------------------------------------------------------------------

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITES = [
    "run.json",
    "a.jpg",
    "b.jpg",
    "run.json",
    "c.jpg",
    "run.json",
]  # of an uninterrupted run of three images by two


def stopped_by_a_full_disk(c, finished):
    """The error of a run on a full disk: one line, the finished images stay, nothing else
    does.
    """
    code, lines = c.run()
    errors = [line for line in lines if line.startswith("jseg test: ")]
    assert code == 2 and len(errors) == 1 and "No space left on device" in errors[0]
    assert "give the same command again" in errors[0]
    assert f"cannot write {c.output / WRITES[finished]}" in errors[0]
    assert list(c.results()) == [name for name in WRITES[:finished] if name.endswith(".jpg")]
    assert {path.name for path in c.output.glob("*")} == set(WRITES[:finished])


@pytest.mark.parametrize("finished", range(len(WRITES)))
def test_a_disk_that_fills_up_leaves_what_is_finished(challenge, stubbed, monkeypatch, finished):
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    fsync, count = os.fsync, [0]

    def full(handle):
        count[0] += stat.S_ISREG(os.fstat(handle).st_mode)  # folders are synchronised too
        if count[0] > finished:
            raise FULL
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        stopped_by_a_full_disk(challenge, finished)
    assert challenge.run()[0] == 0
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert whole(challenge)["pictures"] == {"total": 3, "finished": 3}


def test_an_image_that_is_half_written_is_removed(challenge, stubbed, monkeypatch):
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    save, count = Image.Image.save, [0]

    def full(self, file, **settings):
        count[0] += 1
        if count[0] == 3:
            file.write(b"half of an image")
            raise FULL
        save(self, file, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        stopped_by_a_full_disk(challenge, 4)
    assert challenge.run()[0] == 0
    assert challenge.results() == challenge.results(challenge.root / "expected")


def test_a_contact_sheet_without_room_is_told_and_the_images_stay(challenge, stubbed, monkeypatch):
    save = Image.Image.save

    def full(self, file, format, **settings):
        if format == "PNG" and self.width > 64:  # stages are smaller
            raise FULL
        save(self, file, format, **settings)

    monkeypatch.setattr(Image.Image, "save", full)
    code, lines = challenge.run(grid=True)
    assert code == 2
    assert f"cannot write {challenge.output / 'grid.png'} (No space left on device)" in lines[-1]
    assert whole(challenge)["pictures"] == {"total": 3, "finished": 3}
    assert len(challenge.results()) == 3


# -- kill -9 and Ctrl-C ----------------------------------------------------------------------------


def killed_at_a_file(c, number, moment):
    """Run the command in a copy of this process that kills itself just before or after the file of
    that number gets its name.

    Returns whether it was killed; if not, it has finished.
    """
    process = os.fork()
    if process == 0:
        try:
            replace, count = os.replace, [0]

            def deadly(*paths):
                count[0] += 1
                if count[0] == number and moment == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(*paths)
                if count[0] == number and moment == "after":
                    os.kill(os.getpid(), signal.SIGKILL)

            os.replace = deadly
            os._exit(cli.run(command.main, c.arguments()))
        finally:
            os._exit(99)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(WRITES) + 1))
def test_kill_9_at_every_file(challenge, stubbed, number, moment):
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    expected = challenge.results(challenge.root / "expected")
    assert killed_at_a_file(challenge, number, moment)
    done = number if moment == "after" else number - 1
    assert list(challenge.results()) == [name for name in WRITES[:done] if name.endswith(".jpg")], (
        "whole images keep their names"
    )
    assert all(data == expected[name] for name, data in challenge.results().items())
    assert challenge.run()[0] == 0 and challenge.results() == expected
    assert whole(challenge)["pictures"] == {"total": 3, "finished": 3}


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_again_and_again(challenge, stubbed, seed):
    challenge.fill(*"defghij")
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    dice, kills = random.Random(seed), 0
    while killed_at_a_file(challenge, dice.randint(2, 5), dice.choice(["before", "after"])):
        kills += 1
        assert kills < 100
    assert kills >= 2 and challenge.results() == challenge.results(challenge.root / "expected")
    assert whole(challenge)["pictures"] == {"total": 10, "finished": 10}


def started(c, **changed):
    """The command as its own process."""
    return subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "scripts", "test.py")] + c.arguments(**changed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    assert path.exists(), process.stderr.read()


def killed_at_random(c, rounds, seed):
    """Kill -9 the real command that often: once a random image of the first half is there and a
    random time after; then let it finish.
    """
    dice, kills = random.Random(seed), 0
    for _ in range(rounds):
        missing = [
            path.stem
            for path in sorted(c.labels.glob("*.png"))
            if not (c.output / f"{path.stem}.jpg").exists()
        ]
        if not missing:
            break
        process = started(c)
        wait_for(c.output / f"{dice.choice(missing[: (len(missing) + 1) // 2])}.jpg", process)
        time.sleep(dice.uniform(0, 0.05))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    process = started(c)
    assert (process.communicate()[0], process.returncode) == ("", 0)
    return kills


def test_kill_9_of_the_real_thing_changes_no_byte(challenge):
    challenge.fill("d", "e")
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    assert killed_at_random(challenge, 2, seed=0) >= 1
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert whole(challenge)["pictures"] == {"total": 5, "finished": 5}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_of_the_real_thing_many_times(challenge, seed):
    challenge.fill(*"defghijklmnopqrstu")
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    assert killed_at_random(challenge, 10, seed) >= 2
    assert challenge.results() == challenge.results(challenge.root / "expected")
    assert whole(challenge)["pictures"] == {"total": 21, "finished": 21}


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_130_and_one_line_and_the_next_run_goes_on(challenge):
    challenge.fill("d", "e")
    assert challenge.run(output_path=challenge.root / "expected")[0] == 0
    process = started(challenge)
    wait_for(challenge.output / "b.jpg", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "") and err == "jseg test: interrupted\n"
    whole(challenge)
    assert 2 <= len(challenge.results()) < 5
    code, lines = challenge.run()
    assert code == 0 and "are in" in lines[0]
    assert challenge.results() == challenge.results(challenge.root / "expected")
