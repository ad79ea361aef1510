"""Random histories of a training (stopped, killed, branched, changed, diverging) against what a run
promises.
"""

import csv
import json
import os
import random
import shutil
import signal

import numpy as np
import pytest
from support.least_squares import network

from jseg import files
from jseg.checkpoint import CheckpointError, load, save
from jseg.files import DataError
from jseg.outputs.places import OutputError, check_origin
from jseg.training import curve, loop, run_folder
from jseg.training.loop import TrainingProblem
from jseg.training.loss_scale import FIRST, LossScale
from jseg.training.records import checkpoints, record
from jseg.training.run import Plan, TrainingRun

END = 12


class Killed(BaseException):
    """What a kill -9 is to the files: nothing after it runs."""


def inputs(step, bad=()):
    rng = np.random.default_rng(step)
    x = rng.standard_normal((4, 5)).astype(np.float32)
    yield {"x": x * np.float32("nan") if step + 1 in bad else x, "y": x[:, :2]}, 1.0


def training(
    folder,
    told=None,
    rate=0.01,
    given=("learning_rate",),
    resume="auto",
    stop=None,
    bad=(),
    steps=END,
    validate=None,
    settings=(),
    scaled=False,
    **plan,
):
    """Run in `folder`: (whether it came to its end, the run); stop: the step in which SIGTERM
    comes; scaled: with a loss scale, as in float16.
    """
    trained = network(rate, ema=True)
    trained.loss_scale = LossScale() if scaled else None
    run = TrainingRun(
        folder,
        [trained],
        None,
        {"learning_rate": rate, "seed": 0, **dict(settings)},
        Plan(steps, **{"save_interval": 3, "log_interval": 1, **plan}),
        "model",
        [].append if told is None else told.append,
        given,
    )

    def batches(step):
        if stop == step + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return inputs(step, bad)

    return run.follow(batches, run.resume(str(resume)), validate=validate), run


def steps_logged(folder):
    if not (folder / "log.csv").exists():
        return []
    with open(folder / "log.csv") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def digest(path):
    """Parameters and their moving average."""
    return (
        load(path, weights="model")["weight"].tobytes()
        + load(path, weights="ema")["weight"].tobytes()
    )


def saved(folder):
    """{(step, weights)} of every checkpoint below the folder; each can be read."""
    return {
        (int(path.name[11:19]), digest(path)) for path in folder.rglob("checkpoint-*.safetensors")
    }


def line(folder):
    """{(step, weights): branch} of the checkpoints in the folder itself, those of one line of
    steps.
    """
    there = checkpoints(folder) if folder.exists() else []
    return {
        (int(path.name[11:19]), digest(path)): json.dumps(record(path)["branch"]) for path in there
    }


def test_the_same_branching_command_goes_on_after_a_stop_and_nothing_is_lost(tmp_path):
    training(tmp_path, steps=9)
    before, told = saved(tmp_path), []
    command = dict(resume=tmp_path / "checkpoint-00000003.safetensors", keep=1, told=told)
    assert training(tmp_path, stop=5, **command)[0] is False
    assert before <= saved(tmp_path) and told[-1].startswith("stopped after step 5, which is saved")
    assert steps_logged(tmp_path) == [1, 2, 3, 4, 5]
    aside = tmp_path / "set_aside-00000003-1"
    assert steps_logged(aside) == list(range(1, 10)) and (aside / "model.safetensors").exists()
    told.clear()
    assert training(tmp_path, **command)[0] and any("the branch goes on" in line for line in told)
    assert not (tmp_path / "set_aside-00000003-2").exists() and before <= saved(tmp_path)
    assert steps_logged(tmp_path) == list(range(1, END + 1))


def test_a_setting_changed_on_purpose_is_recorded_and_others_are_refused(tmp_path):
    training(tmp_path, steps=3)
    told = []
    said = "learning_rate was 0.01, is 0.02; .*--learning_rate, to change it on purpose"
    with pytest.raises(CheckpointError, match=said):
        training(tmp_path, rate=0.02, given=())
    assert training(tmp_path, told, rate=0.02)[0]
    assert "changed from step 3 on: learning_rate 0.01 -> 0.02" in told
    assert record(checkpoints(tmp_path)[-1])["changes"] == [
        {"step": 3, "name": "learning_rate", "was": 0.01, "is": 0.02}
    ]


def test_a_loss_that_is_no_number_saves_the_step_before_and_may_be_skipped(tmp_path):
    said = "step 5: .*nan.*; step 4 is saved: .*--skip_bad_steps 1"
    with pytest.raises(TrainingProblem, match=said):
        training(tmp_path, bad=(5,))
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000004.safetensors"
    assert steps_logged(tmp_path) == [1, 2, 3, 4]
    done, run = training(tmp_path, bad=(5,), skip_bad_steps=1)
    assert done and run.skipped == 1 and record(checkpoints(tmp_path)[-1])["skipped"] == 1
    assert np.isfinite(load(tmp_path / "model.safetensors")["weight"]).all()


def test_steps_that_overflow_are_told_once_and_counted(tmp_path, monkeypatch):
    finite, told = iter([True, False, False, True, False]), []
    monkeypatch.setattr(loop, "all_finite", lambda gradients: next(finite, True))
    done, run = training(tmp_path, told, scaled=True)
    assert done and run.networks[0].optimizer.steps == END - 3
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["left_out"] for row in rows] == ["", *"1223", *"3" * (END - 5)]
    assert [float(row["loss_scale"]) / FIRST for row in rows[:4]] == [1, 1, 0.5, 0.25]
    (first,) = [line for line in told if "overflow float16" in line]
    assert first.startswith("step 2: its gradients overflow float16; it is left out and the loss ")
    assert told[-1].startswith(f"{END} steps are done, 3 of them left out because gradients")

    # A run that goes on counts on, and tells nothing twice.
    finite, told = iter([False]), []
    assert training(tmp_path, told, steps=END + 2, scaled=True)[0]
    assert not any("overflow float16" in line for line in told)
    assert f"{END + 2} steps are done, 4 of them left out" in told[-1]


def test_gradients_that_overflow_at_the_least_scale_end_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "all_finite", lambda gradients: False)
    monkeypatch.setattr(loop, "LEAST", FIRST / 4)
    with pytest.raises(TrainingProblem, match="step 3: its gradients overflow at the least loss"):
        training(tmp_path, scaled=True)


class Lucky:
    """A validation with these scores, measured on so many examples."""

    def __init__(self, scores, examples):
        self.scores, self.measured = iter(scores), {"protocol": 1, "examples": examples}

    def __call__(self, stop):
        return {"miou": next(self.scores)}


def test_a_best_of_other_examples_is_set_aside_and_not_compared(tmp_path):
    """One lucky image (--validate_count 1) would stay the best for good."""
    training(tmp_path, steps=3, validate=Lucky([0.99], 1))
    lucky, told = (tmp_path / "best.safetensors").read_bytes(), []
    training(tmp_path, told, steps=9, validate_interval=3, validate=Lucky([0.40, 0.30], 50))
    best = record(tmp_path / "best.safetensors")
    assert (best["score"], best["step"], best["measured"]["examples"]) == (0.40, 6, 50)
    assert (tmp_path / "set_aside-00000003-1" / "best.safetensors").read_bytes() == lucky
    assert [line for line in told if "best.safetensors" in line] == [
        "best.safetensors was scored in another way or is of other settings: it is set aside in "
        f"{tmp_path / 'set_aside-00000003-1'} and not compared"
    ]
    training(tmp_path, told, steps=END, validate=Lucky([0.35], 50))
    assert record(tmp_path / "best.safetensors")["score"] == 0.40
    assert told[-2] == "step 12: miou 0.3500; best 0.4000 at step 6"


def test_a_damaged_best_is_set_aside_as_damaged(tmp_path):
    training(tmp_path, steps=3, validate=Lucky([0.99], 50))
    (tmp_path / "best.safetensors").write_bytes(b"half")
    told = []
    training(tmp_path, told, steps=6, validate=Lucky([0.40], 50))
    assert record(tmp_path / "best.safetensors")["score"] == 0.40
    assert [line for line in told if "set aside" in line] == [
        "best.safetensors is damaged, or no file of a training: it is set aside in "
        f"{tmp_path / 'set_aside-00000000-1'} and not compared"
    ]


def test_the_last_curve_has_the_last_validation(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        curve, "draw_curve", lambda log, path, title: drawn.append(log.path.read_text())
    )
    training(tmp_path, steps=6, validate_interval=3, validate=Lucky([0.1, 0.2], 5))
    assert drawn[-1] == (tmp_path / "log.csv").read_text()
    assert [
        line.split(",")[0] for line in drawn[-1].splitlines()[1:] if not line.endswith(",")
    ] == ["3", "6"]


def test_a_file_that_is_no_log_is_refused_before_anything_is_moved(tmp_path):
    training(tmp_path, steps=6)
    (tmp_path / "log.csv").write_text("garbage\n")
    before, names = saved(tmp_path), sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="log.csv is no log of a training"):
        training(tmp_path, resume=tmp_path / "checkpoint-00000003.safetensors", steps=8)
    assert saved(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("seconds, times", [(0, 9), (3600, 1)])
def test_the_curve_is_drawn_now_and_then_and_at_the_end(tmp_path, monkeypatch, seconds, times):
    """Six steps are saved, two are validated."""
    drawn = []
    monkeypatch.setattr(curve, "SECONDS", seconds)
    monkeypatch.setattr(curve, "draw_curve", lambda log, path, title: drawn.append(path))
    training(tmp_path, steps=6, save_interval=1, validate_interval=3, validate=Lucky([0.1, 0.2], 5))
    assert drawn == [tmp_path / "curve.png"] * times


def test_a_setting_that_a_checkpoint_does_not_have_is_as_it_was_then(tmp_path):
    """An upgrade of jseg adds settings; trainings that are under way go on with the old behaviour,
    and with that alone.
    """
    training(tmp_path, steps=3)
    assert training(
        tmp_path, steps=6, settings={"decay": "none", "drop": 0.2, "scales": (0.5, 2.0)}
    )[0]
    with pytest.raises(CheckpointError, match="zero_init was zero, is unit; give the old ones"):
        training(tmp_path, settings={"zero_init": "unit"})
    with pytest.raises(CheckpointError, match="invented was None, is 1"):
        training(tmp_path, settings={"invented": 1})
    assert training(
        tmp_path,
        steps=9,
        settings={"invented": None, "classes": [1, 2], "class_set": "one"},
    )[0]
    said = r"classes\[0\] was 1, is 0; classes\[1\] was 2, is 1"
    with pytest.raises(CheckpointError, match=said):
        training(tmp_path, settings={"classes": [0, 1], "class_set": "one"})
    assert training(tmp_path, settings={"classes": [1, 2], "class_set": "a copy's name"})[0]


def test_a_result_that_the_training_did_not_write_is_set_aside(tmp_path):
    """A merge, a converted file or another run's result under the name of the result."""
    arrays = {"weight": np.zeros((2, 5), np.float32)}
    foreign = [
        dict(settings={"seed": 0}, step=3, merged_from=[]),
        dict(settings={"seed": 0}),
        dict(converted_from="x"),
        dict(settings={"seed": 5, "learning_rate": 0.01}, step=3),
    ]
    for number, extra in enumerate(foreign):
        folder, told = tmp_path / str(number), []
        training(folder, steps=3)
        save(folder / "model.safetensors", arrays, None, **extra)
        theirs = (folder / "model.safetensors").read_bytes()
        assert training(folder, told, steps=6)[0]
        (aside,) = folder.glob("set_aside-*/model.safetensors")
        assert aside.read_bytes() == theirs
        assert not (load(folder / "model.safetensors")["weight"] == 0).all()
        assert any(
            "model.safetensors is no result of this training: it is set aside in" in line
            for line in told
        )
    merged = tmp_path / "merged"
    merged.mkdir()
    save(merged / "model.safetensors", arrays, None, settings={"seed": 0}, merged_from=[])
    said = "holds model.safetensors, which no training of model wrote there"
    with pytest.raises(OutputError, match=said):
        training(merged)


@pytest.mark.parametrize(
    "text, said",
    (
        ("", "is damaged (it is empty); remove it and give the same command again"),
        ('{"training": ', "is damaged (it is no JSON from line 1 on); remove it"),
        ("{}", "is damaged (it lacks 'training'); remove it"),
        ('{"training": 3}', "is damaged (it does not say what is trained); remove it"),
        ('{"training": "other"}', "holds a training of other, not of model; give another --output"),
    ),
)
def test_a_damaged_mark_is_no_other_training(tmp_path, text, said):
    training(tmp_path, steps=3)
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(DataError) as error:
        training(tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)

    # As the line says.
    (tmp_path / "training.json").unlink()
    assert training(tmp_path)[0]


def test_a_checkpoint_of_another_training_is_no_old_one_of_this(tmp_path):
    training(tmp_path / "other", steps=3, settings={"seed": 5})
    training(tmp_path / "run", steps=6)
    moved = tmp_path / "run" / "checkpoint-00000002.safetensors"
    os.replace(tmp_path / "other" / "checkpoint-00000003.safetensors", moved)
    assert training(tmp_path / "run", keep=1)[0]
    assert [path.name[-14:-12] for path in checkpoints(tmp_path / "run")] == ["02", "12"]


def test_a_folder_of_images_or_inside_of_an_input_becomes_no_run(tmp_path):
    photos, data = tmp_path / "photos", tmp_path / "data"
    (data / "val" / "images").mkdir(parents=True)
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"x")
    said = "holds 1 image, such as cat.jpg, and no training; give another --output"
    with pytest.raises(OutputError, match=said):
        training(photos)
    with pytest.raises(OutputError, match="would take the place of the input --data"):
        run_folder.check_places({"output": data / "val"}, {"data": data})
    training(data / "runs" / "x", steps=3)
    (data / "runs" / "encoding" / "latents").mkdir(parents=True)
    (data / "runs" / "encoding" / ".jseg-lock").write_bytes(b"")
    for output in ("x", "encoding", "new"):
        run_folder.check_places(
            {"output": data / "runs" / output, "cache": data / "runs" / output / "latents"},
            {"data": data},
        )


def test_a_damaged_newest_checkpoint_names_the_one_before(tmp_path):
    training(tmp_path, steps=6)
    newest = tmp_path / "checkpoint-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    said = "; or give --resume .*checkpoint-00000003.safetensors to go on from the one before it"
    with pytest.raises(CheckpointError, match=said):
        training(tmp_path)
    assert training(tmp_path, resume=tmp_path / "checkpoint-00000003.safetensors")[0]


@pytest.mark.parametrize(
    "name, text",
    [
        ("run.json", '{"command": "test"}'),
        ("run.json", '{"command": "segment"}'),
        ("summary.json", '{"command": "score"}'),
        ("landscapes.json", '{"command": "landscapes"}'),
    ],
)
def test_the_folder_of_another_command_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    said = "this folder holds results of the .* command; give another --output"
    with pytest.raises(OutputError, match=said):
        training(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_training_s_folder_is_one_without_its_checkpoints_too(tmp_path):
    training(tmp_path, steps=3)
    for path in checkpoints(tmp_path):
        path.unlink()
    with pytest.raises(OutputError, match="holds the run of a training"):
        check_origin(tmp_path, "--output_path", "test")


def test_what_goes_on_after_never_and_in_a_branch_is_said_as_it_is(tmp_path):
    told = []
    training(tmp_path, told, resume="never", stop=5)
    assert (
        told[-1]
        == "stopped after step 5, which is saved; the same command with --resume auto goes on "
        "from there"
    )
    said = "give the same command with --resume auto and a lower --learning_rate, or --skip_bad"
    with pytest.raises(TrainingProblem, match=said):
        training(tmp_path, resume=tmp_path / "checkpoint-00000003.safetensors", bad=(6,))
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000005.safetensors"
    assert training(tmp_path, rate=0.005)[0]


@pytest.mark.parametrize("linked", [os.symlink, os.link, shutil.copyfile])
def test_the_log_comes_along_whatever_way_the_checkpoint_is_named(tmp_path, linked):
    run, latest = tmp_path / "run", tmp_path / "latest.safetensors"
    training(run, steps=9)
    linked(str(run / "checkpoint-00000006.safetensors"), str(latest))
    training(run, resume=latest)
    assert steps_logged(run) == list(range(1, END + 1))
    if linked is os.symlink:
        training(tmp_path / "new", resume=latest)
        assert steps_logged(tmp_path / "new") == list(range(1, END + 1))


def test_a_shorter_run_than_is_done_says_so_and_leaves_the_result(tmp_path):
    training(tmp_path, steps=6)
    before, told = (tmp_path / "model.safetensors").read_bytes(), []
    assert training(tmp_path, told, steps=4)[0]
    assert "6 steps are done, 4 asked for: nothing to train; give --steps above 6 to go on" in told
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    (
        "log.csv curve.png model.safetensors best.safetensors "
        "checkpoint-00000003.safetensors preview-00000003.png"
    ).split(),
)
def test_files_of_another_origin_are_refused_and_nothing_is_written(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match=name):
        training(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"mine"


def test_an_output_that_takes_an_input_s_place_is_refused(tmp_path):
    images = tmp_path / "data" / "imgs"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(b"x")
    for output in (tmp_path / "data", images, images / "run"):
        said = "--output .* would take the place of the input --input_path"
        with pytest.raises(OutputError, match=said):
            run_folder.check_places({"output": output}, {"input_path": tmp_path / "data"})
    run_folder.check_places(
        {"output": tmp_path / "data" / "runs" / "x"}, {"input_path": tmp_path / "data"}
    )


def test_a_folder_in_use_is_refused_and_one_that_stays_empty_goes(tmp_path):
    with run_folder.run_folder(tmp_path / "a" / "run", "model", {}):
        with pytest.raises(OutputError, match=f"process {os.getpid()}"):
            with run_folder.run_folder(tmp_path / "a" / "run", "model", {}):
                pass
    assert list(tmp_path.iterdir()) == []


def killing(monkeypatch, rng):
    """From a random one of the next file operations on, none works."""
    left = [rng.randrange(1, 14)]

    def dying(work):
        def operation(*arguments, **named):
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return work(*arguments, **named)

        return operation

    for name in ("replace", "fsync"):
        monkeypatch.setattr(files.os, name, dying(getattr(os, name)))


def something_happens(rng, folder, rate):
    """A run in which one of five things happens: which, and the options of the run."""
    event = rng.choice(("stop", "kill", "branch", "nan", "rate"))
    there = checkpoints(folder) if folder.exists() else []
    options = dict(keep=rng.choice((0, 1, 2)), rate=rate, steps=rng.randrange(4, END))
    if event == "stop":
        options["stop"] = rng.randrange(1, END)
    elif event == "nan":
        options["bad"] = (rng.randrange(2, END),)
    elif event == "branch" and there:
        options["resume"] = rng.choice(there)
    elif event == "rate" and there:
        options["rate"] = rng.choice((0.01, 0.02))
    with pytest.MonkeyPatch.context() as patch:
        if event == "kill":
            killing(patch, rng)
        try:
            training(folder, **options)
        except (Killed, TrainingProblem):
            pass
    return event, options


def from_the_beginning(folder, changes, rate):
    """The last checkpoint of a run with these changes of the rate, in one line of steps."""
    stops = {change["step"]: change["is"] for change in changes}
    rates = [changes[0]["was"] if changes else rate, *(stops[step] for step in sorted(stops))]
    for stop, new in [*zip(sorted(stops), rates), (END, rate)]:
        training(folder, rate=new, steps=stop)
    return checkpoints(folder)[-1]


@pytest.mark.parametrize("seed", range(32))
def test_whatever_happens_nothing_saved_is_lost_and_the_run_ends_as_it_should(seed, tmp_path):
    rng, folder = random.Random(seed), tmp_path / "run"
    known, known_line, rate = set(), {}, 0.01
    for _ in range(5):
        event, options = something_happens(rng, folder, rate)
        now = saved(folder) if folder.exists() else set()

        # `keep` removes the oldest of this branch, and only while so many newer ones are there.
        for step, weights in known - now:
            newer = [other for other in line(folder) if other[0] > step]
            branches = {known_line.get((step, weights))} | {line(folder)[other] for other in newer}
            lost = f"step {step} was lost after {event}"
            assert options["keep"] and len(newer) >= options["keep"], lost
            assert len(branches) == 1, lost
        known, known_line = now, line(folder)
        newest = checkpoints(folder)[-1:] if folder.exists() else []
        rate = record(newest[0])["settings"]["learning_rate"] if newest else options["rate"]
    assert training(folder, rate=rate, keep=1)[0]
    assert steps_logged(folder) == list(range(1, END + 1))

    # The same from the beginning, with the changes of this line of steps.
    last = checkpoints(folder)[-1]
    changes = record(last)["changes"]
    assert digest(last) == digest(from_the_beginning(tmp_path / "whole", changes, rate))
