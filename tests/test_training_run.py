import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jseg import training_run
from jseg.checkpoint import CheckpointError, load, load_config, load_extra
from jseg.training_run import checkpoints
from small_training import run_in

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "import sys; sys.path[:0] = [{!r}, {!r}]; from small_training import main; main(sys.argv[1], int(sys.argv[2]))"


def train(folder, steps, resume="auto", told=None, **changed):
    lines = [] if told is None else told
    run, batches = run_in(folder, steps, tell=lines.append, **changed)
    return run.follow(batches, run.resume(resume)), run


def everything(path):
    """All arrays of a checkpoint: parameters, average, both moments."""
    extra = load_extra(path)
    return {**load(path, weights="model"), **{f"ema/{k}": v for k, v in extra["ema"].items()},
            **{f"optimizer/{k}": v for k, v in extra["optimizer"].items()}}


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
    assert [path.name for path in checkpoints(whole)] == [f"checkpoint-0000000{step}.safetensors" for step in (3, 6, 8)]
    assert [row["step"] for row in logged(whole)] == [str(step) for step in range(1, 9)]
    assert not list(whole.glob(".jseg-*"))
    last = whole / "checkpoint-00000008.safetensors"
    average, result = load(last), load(whole / "unet.safetensors")
    assert all(np.array_equal(average[name], result[name]) for name in average)
    assert load_config(last) == load_config(whole / "unet.safetensors") and load_extra(last)["settings"]["learning_rate"] == 1e-3


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(whole, tmp_path):
    told = []
    train(tmp_path, 4)
    train(tmp_path, 8, told=told)
    assert told[0].startswith("going on from") and "checkpoint-00000004" in told[0]
    assert_equal_files(whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors")
    assert [{**row, "seconds": ""} for row in logged(tmp_path)] == [{**row, "seconds": ""} for row in logged(whole)]


def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_not(whole, tmp_path):
    program = PROGRAM.format(str(ROOT), str(ROOT / "tests"))
    for steps in range(3):                                   # killed three times, each time a little later
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), "8"], cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            rows = (tmp_path / "log.csv").read_text().count("\n") if (tmp_path / "log.csv").exists() else 0
            if rows > 2 + 2 * steps:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(tmp_path, 8)
    assert_equal_files(whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors")
    assert [row["step"] for row in logged(tmp_path)] == [str(step) for step in range(1, 9)]


def test_dropout_too_is_resumed_bit_by_bit(tmp_path):
    train(tmp_path / "whole", 4, dropout=0.3)
    train(tmp_path / "cut", 2, dropout=0.3)
    train(tmp_path / "cut", 4, dropout=0.3)
    assert_equal_files(tmp_path / "whole" / "checkpoint-00000004.safetensors", tmp_path / "cut" / "checkpoint-00000004.safetensors")
    train(tmp_path / "without", 4)
    assert not np.array_equal(load(tmp_path / "whole" / "unet.safetensors")["out.2.weight"],
                              load(tmp_path / "without" / "unet.safetensors")["out.2.weight"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_in_hand_and_the_same_command_goes_on(number, whole, tmp_path):
    told = []
    run, batches = run_in(tmp_path, 8, tell=told.append)

    def interrupted(step):
        if step == 4:
            os.kill(os.getpid(), number)
        return batches(step)

    assert run.follow(interrupted, run.resume()) is False
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint-00000005.safetensors" and "stopped after step 5" in told[-1]
    assert train(tmp_path, 8)[0]
    assert_equal_files(whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors")


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
    with pytest.raises(CheckpointError, match="--resume is never; give another --output, or --resume auto"):
        train(whole, 9, resume="never")


def test_other_settings_are_refused_by_name_and_nothing_changes(whole):
    before = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    run, _ = run_in(whole, 9, tell=print)
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
    with pytest.raises(OSError, match="No space left on device.*earlier checkpoints stay"):
        train(tmp_path, 6)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-00000003.safetensors"]
    assert (tmp_path / "checkpoint-00000003.safetensors").read_bytes() == before


def test_a_disk_too_small_is_told_before_the_training(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(training_run.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match="one checkpoint takes .* GB; make room"):
        train(tmp_path, 3)


def test_previews_see_the_average_and_leave_the_parameters(whole, tmp_path):
    seen = []
    run, batches = run_in(tmp_path, 8, preview_interval=4)

    def preview(path):
        seen.append((path.name, run.parts[0].module.state_dict()["out.2.bias"].numpy()))

    run.follow(batches, run.resume(), preview)
    assert [name for name, _ in seen] == ["preview-00000004.png", "preview-00000008.png"]
    np.testing.assert_array_equal(seen[-1][1], load(whole / "unet.safetensors")["out.2.bias"])
    assert_equal_files(whole / "checkpoint-00000008.safetensors", tmp_path / "checkpoint-00000008.safetensors")
