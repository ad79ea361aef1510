import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.places import ROOT
from support.small_training import run_in

from jseg.checkpoint import CheckpointError, load, load_config, load_extra, load_sets
from jseg.training import run as training_run
from jseg.training import state
from jseg.training.records import checkpoints

PROGRAM = (
    "import sys; sys.path[:0] = [{!r}, {!r}]; from support.small_training import main; "
    "main(sys.argv[1], int(sys.argv[2]))"
)


def train(folder, steps, resume="auto", told=None, **changed):
    lines = [] if told is None else told
    run, batches = run_in(folder, steps, say=lines.append, **changed)
    return run.follow(batches, run.resume(resume)), run


def everything(path):
    """All arrays of a checkpoint: parameters, average, both moments."""
    sets = load_sets(path)
    return {f"{group}/{name}": value for group in sets for name, value in sets[group].items()}


def assert_equal_files(one, two):
    a, b = everything(one), everything(two)
    assert set(a) == set(b)
    assert [name for name in a if not np.array_equal(a[name], b[name])] == []


def logged(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of eight steps; checkpoints at 3, 6 and 8."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, 8)[0]
    return folder


def test_a_run_leaves_what_it_promises(whole):
    assert [path.name for path in checkpoints(whole)] == [
        f"checkpoint-0000000{step}.safetensors" for step in (3, 6, 8)
    ]
    assert [row["step"] for row in logged(whole)] == [str(step) for step in range(1, 9)]
    assert not list(whole.glob(".jseg-*"))
    last = whole / "checkpoint-00000008.safetensors"
    average, result = load(last), load(whole / "unet.safetensors")
    assert all(np.array_equal(average[name], result[name]) for name in average)
    assert load_config(last) == load_config(whole / "unet.safetensors")
    assert load_extra(last)["settings"]["learning_rate"] == 1e-3


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(whole, tmp_path):
    told = []
    train(tmp_path, 4)
    train(tmp_path, 8, told=told)
    assert told[0].startswith("going on from") and "checkpoint-00000004" in told[0]
    assert_equal_files(
        whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors"
    )
    assert [{**row, "seconds": ""} for row in logged(tmp_path)] == [
        {**row, "seconds": ""} for row in logged(whole)
    ]


def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_not(whole, tmp_path):
    program = PROGRAM.format(str(ROOT), str(ROOT / "tests"))
    for steps in range(3):  # killed three times, each time a little later
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), "8"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            rows = (
                (tmp_path / "log.csv").read_text().count("\n")
                if (tmp_path / "log.csv").exists()
                else 0
            )
            if rows > 2 + 2 * steps:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(tmp_path, 8)
    assert_equal_files(
        whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors"
    )
    assert [row["step"] for row in logged(tmp_path)] == [str(step) for step in range(1, 9)]


def test_dropout_too_is_resumed_bit_by_bit(tmp_path):
    train(tmp_path / "whole", 4, dropout=0.3)
    train(tmp_path / "cut", 2, dropout=0.3)
    train(tmp_path / "cut", 4, dropout=0.3)
    assert_equal_files(
        tmp_path / "whole" / "checkpoint-00000004.safetensors",
        tmp_path / "cut" / "checkpoint-00000004.safetensors",
    )
    train(tmp_path / "without", 4)
    assert not np.array_equal(
        load(tmp_path / "whole" / "unet.safetensors")["out.2.weight"],
        load(tmp_path / "without" / "unet.safetensors")["out.2.weight"],
    )


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_in_hand_and_the_same_command_goes_on(number, whole, tmp_path):
    told = []
    run, batches = run_in(tmp_path, 8, say=told.append)

    def interrupted(step):
        if step == 4:
            os.kill(os.getpid(), number)
        return batches(step)

    assert run.follow(interrupted, run.resume()) is False
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint-00000005.safetensors"
    assert "stopped after step 5" in told[-1]
    assert train(tmp_path, 8)[0]
    assert_equal_files(
        whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors"
    )


def test_old_checkpoints_go_and_all_stay_on_request(tmp_path):
    train(tmp_path / "two", 5, save_interval=1, keep=2)
    assert [path.name[-13:-12] for path in checkpoints(tmp_path / "two")] == ["4", "5"]
    train(tmp_path / "all", 4, save_interval=1, keep=0)
    assert len(checkpoints(tmp_path / "all")) == 4


def test_a_finished_run_trains_nothing_more(whole):
    told, before = [], (whole / "checkpoint-00000008.safetensors").read_bytes()
    train(whole, 8, told=told)
    assert any("nothing to train" in line for line in told)
    assert (whole / "checkpoint-00000008.safetensors").read_bytes() == before


def test_never_refuses_a_folder_with_checkpoints(whole):
    said = "--resume is never; give another --output, or --resume auto"
    with pytest.raises(CheckpointError, match=said):
        train(whole, 9, resume="never")


def test_other_settings_are_refused_by_name_and_nothing_changes(whole):
    before = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    run, _ = run_in(whole, 9, say=print)
    run.settings["learning_rate"] = 0.5
    with pytest.raises(CheckpointError, match="learning_rate was 0.001, is 0.5; .*--model_path"):
        run.resume()
    assert {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()} == before


def test_a_checkpoint_of_another_network_is_refused(whole, tmp_path):
    run, _ = run_in(tmp_path, 9, dropout=0.5)
    with pytest.raises(CheckpointError, match="holds another network"):
        run.resume(str(whole / "checkpoint-00000008.safetensors"))


def test_weights_alone_are_no_checkpoint(whole, tmp_path):
    run, _ = run_in(tmp_path, 9)
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run; .*--model_path"):
        run.resume(str(whole / "unet.safetensors"))


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    train(tmp_path, 3)
    before = (tmp_path / "checkpoint-00000003.safetensors").read_bytes()

    def full(*arguments, **extra):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_run, "save", full)
    with pytest.raises(OSError, match="No space left on device.*what is finished stays"):
        train(tmp_path, 6)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-00000003.safetensors"]
    assert (tmp_path / "checkpoint-00000003.safetensors").read_bytes() == before


def test_a_disk_too_small_is_told_before_the_training(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(state.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match="one checkpoint takes .* GB; make room"):
        train(tmp_path, 3)


def test_previews_see_the_average_and_leave_the_parameters(whole, tmp_path):
    seen = []
    run, batches = run_in(tmp_path, 8, preview_interval=4)

    def preview(path):
        seen.append((path.name, run.networks[0].module.state_dict()["out.2.bias"].numpy()))

    run.follow(batches, run.resume(), preview)
    assert [name for name, _ in seen] == ["preview-00000004.png", "preview-00000008.png"]
    np.testing.assert_array_equal(seen[-1][1], load(whole / "unet.safetensors")["out.2.bias"])
    assert_equal_files(
        whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors"
    )


class Scores:
    """A validation that gives the listed scores in turn; what it saw and when."""

    def __init__(self, run, scores):
        self.run, self.scores, self.seen = run, list(scores), []

    def __call__(self, stop):
        self.seen.append(self.run.networks[0].module.state_dict()["out.2.bias"].numpy())
        return None if stop() else {"miou": self.scores[len(self.seen) - 1], "accuracy": 0.5}


def validated(folder, steps, scores, told=None, batches=None, **plan):
    run, own = run_in(
        folder, steps, say=[].append if told is None else told.append, validate_interval=2, **plan
    )
    validate = Scores(run, scores)
    done = run.follow(
        own if batches is None else lambda step: batches(own, step), run.resume(), validate=validate
    )
    return validate, done


def test_the_best_validation_s_average_is_kept(whole, tmp_path):
    told = []
    validate, _ = validated(tmp_path, 8, [0.2, 0.7, 0.6, 0.7], told)
    assert len(validate.seen) == 4
    extra, best = load_extra(tmp_path / "best.safetensors"), load(tmp_path / "best.safetensors")
    assert (extra["score"], extra["step"], extra["settings"]["learning_rate"]) == (0.7, 4, 1e-3)
    np.testing.assert_array_equal(best["out.2.bias"], validate.seen[1])
    np.testing.assert_array_equal(validate.seen[3], load(whole / "unet.safetensors")["out.2.bias"])
    assert load_config(tmp_path / "best.safetensors") == load_config(whole / "unet.safetensors")
    assert [line for line in told if "miou" in line][1:3] == [
        "step 4: miou 0.7000, accuracy 0.5000; the best so far",
        "step 6: miou 0.6000, accuracy 0.5000; best 0.7000 at step 4",
    ]
    rows = [row for row in logged(tmp_path) if row["validation/miou"]]
    assert [(row["step"], row["validation/miou"]) for row in rows] == [
        ("2", "0.2"),
        ("4", "0.7"),
        ("6", "0.6"),
        ("8", "0.7"),
    ]
    assert_equal_files(
        whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors"
    )


def test_a_validation_that_was_missed_is_made_up_for_and_none_is_repeated(tmp_path):
    def killed(own, step):
        if step == 4:
            raise KeyboardInterrupt
        return own(step)

    with pytest.raises(KeyboardInterrupt):
        validated(tmp_path, 8, [0.3, 0.4], batches=killed, save_interval=2)
    assert (
        len(validated(tmp_path, 8, [0.35, 0.1], save_interval=2)[0].seen) == 2
    )  # of steps 6 and 8
    assert load_extra(tmp_path / "best.safetensors")["step"] == 4
    assert validated(tmp_path, 8, [])[0].seen == []
    train(tmp_path / "other", 4, save_interval=2)  # as one killed before its validation
    validate, _ = validated(tmp_path / "other", 6, [0.5, 0.6], save_interval=2)
    assert len(validate.seen) == 2
    assert load_extra(tmp_path / "other" / "best.safetensors")["step"] == 6
    assert [row["step"] for row in logged(tmp_path / "other") if row["validation/miou"]] == [
        "4",
        "6",
    ]


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_cuts_a_validation_short_and_it_is_made_after_resuming(tmp_path):
    def interrupted(own, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return own(step)

    validate, done = validated(tmp_path, 4, [0.1], batches=interrupted)
    assert not done and validate.seen == []
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000002.safetensors"
    validate, done = validated(tmp_path, 4, [0.1, 0.2])
    assert done and len(validate.seen) == 2


def test_a_best_of_other_settings_counts_for_nothing(tmp_path):
    validated(tmp_path, 2, [0.9])
    for path in checkpoints(tmp_path):
        path.unlink()
    run, batches = run_in(tmp_path, 2, say=lambda line: None)
    run.settings["learning_rate"] = 0.5
    run.follow(batches, run.resume(), validate=Scores(run, [0.1]))
    assert load_extra(tmp_path / "best.safetensors")["score"] == 0.1
