"""Commands that write single files, and caches: two runs at once lose nothing, and no cache mixes
with files of others.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.calls import answered
from support.places import ROOT
from support.tiny import saved

from jseg.commands import (
    cli,
    convert_weights,
    gpu_check,
    landscapes,
    merge_weights,
    score,
    train,
)
from jseg.ldm.presets import AUTOENCODERS
from jseg.outputs.locks import LOCK, held_files
from jseg.outputs.places import OutputError, check_cache

COMMANDS = {
    "convert_weights": convert_weights,
    "merge_weights": merge_weights,
    "landscapes": landscapes,
    "gpu_check": gpu_check,
}
HOLDER = (
    "import sys; from jseg.outputs.locks import held_files\nwith held_files(sys.argv[1:]): "
    "print('held', flush=True); sys.stdin.read()"
)


class Holder:
    """Another process that holds these files until the `with` ends."""

    def __init__(self, *paths):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
        )

    def __enter__(self):
        assert self.process.stdout.readline() == b"held\n"
        return self.process.pid

    def __exit__(self, *exception):
        self.process.communicate(b"")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two autoencoders of one configuration and different weights."""
    folder = tmp_path_factory.mktemp("networks")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    saved(paths[0], AUTOENCODERS["tiny"])
    call = ["--ckpts", f"{paths[0]}:2", f"{paths[0]}:1", "--save_path", str(paths[1])]
    assert cli.run(merge_weights.main, call) == 0
    return paths


@pytest.fixture
def main(capsys):
    """(exit code, last line said) of a command."""

    def called(name, *words):
        code, _, lines = answered(COMMANDS[name], capsys, *words)
        return code, (lines or [""])[-1]

    return called


def calls(networks, tmp_path):
    """{command: (the file that two calls write, their words)}; the two do different work."""
    a, b = networks
    out, sheet = tmp_path / "out.safetensors", tmp_path / "sheet.png"
    drawn = ["--count", 1, "--width", 32, "--height", 24, "--sheet", sheet, "--output"]
    found = tmp_path / "found"
    checks = ["--device", "cpu", "--minutes", "1e-6", "--output", found, "--only"]
    return {
        "convert_weights": (out, [a, out], [b, out]),
        "merge_weights": (out, *(["--ckpts", x, a, "--save_path", out] for x in (a, b))),
        "landscapes": (sheet, [*drawn, tmp_path / "l1"], [*drawn, tmp_path / "l2", "--seed", 9]),
        "gpu_check": (tmp_path / "found.json", [*checks, "layers"], [*checks, "losses"]),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_of_two_runs_into_one_file_names_the_first_one_s_process(
    command, networks, tmp_path, main
):
    path, words, _ = calls(networks, tmp_path)[command]
    with Holder(path) as process:
        before = sorted(tmp_path.iterdir())
        code, said = main(command, *words)
        assert code == 2
        assert f"{path} is being written by another run of jseg (process {process})" in said
        assert sorted(tmp_path.iterdir()) == before
    assert main(command, *words)[0] == 0 and path.is_file()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(LOCK)]


@pytest.mark.parametrize("command", COMMANDS)
def test_of_two_runs_at_once_one_alone_ends_well(command, networks, tmp_path, main):
    path, *both = calls(networks, tmp_path)[command]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "jseg", command, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for words in both
    ]
    said = [child.communicate(timeout=300)[1] for child in running]
    codes = [child.returncode for child in running]
    assert sorted(codes) == [0, 2], said
    line = said[codes.index(2)].decode().splitlines()
    assert len(line) == 1 and os.path.basename(path) in line[0]
    assert main(command, *both[codes.index(0)])[0] == 0, "the file is not the winner's"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(LOCK)]


@pytest.mark.parametrize("command", ["convert_weights", "merge_weights", "landscapes"])
def test_a_file_that_appears_during_the_work_is_not_replaced(
    command, networks, tmp_path, monkeypatch, capsys
):
    """What another program wrote between the first look and the lock."""
    from jseg.outputs import locks

    path, words, _ = calls(networks, tmp_path)[command]
    held = locks.held_files

    def later(paths):
        path.write_bytes(b"mine")
        return held(paths)

    monkeypatch.setattr(locks, "held_files", later)
    assert cli.run(COMMANDS[command].main, list(map(str, words))) == 2
    assert path.read_bytes() == b"mine" and capsys.readouterr().err.count("\n") == 1


def test_a_dry_run_takes_no_lock(networks, tmp_path, main):
    path, words, _ = calls(networks, tmp_path)["convert_weights"]
    with Holder(path):
        assert main("convert_weights", *words, "--dry_run")[0] == 0
    assert os.listdir(tmp_path) == []


def test_names_are_held_one_by_one_however_they_are_spelled(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    long = "n" * 250 + ".md"
    with Holder(tmp_path / "real" / "a", tmp_path / "real" / long) as process:
        for path in (
            tmp_path / "real" / "a",
            tmp_path / "link" / "a",
            tmp_path / "real" / ".." / "link" / "a",
            tmp_path / "link" / long,
        ):
            with pytest.raises(
                OutputError, match=f"process {process}.*give another name"
            ), held_files([path]):
                pass
        with held_files([tmp_path / "real" / "b", tmp_path / "new" / "deep" / "a"]):
            assert (tmp_path / "new" / "deep").is_dir()
    assert sorted(os.listdir(tmp_path)) == ["link", "real"] and os.listdir(tmp_path / "real") == []


def test_a_killed_run_holds_nothing(tmp_path):
    holder = Holder(tmp_path / "a")
    with holder:
        holder.process.kill()
        holder.process.wait()
    with held_files([tmp_path / "a"]):
        pass
    assert os.listdir(tmp_path) == []


# --- caches ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Inputs of score and train in a folder, of which every test gets a copy."""
    folder = tmp_path_factory.mktemp("inputs") / "place"
    line = f"--output {folder / 'data'} --count 2 --width 64 --height 48"
    assert cli.run(landscapes.main, line.split()) == 0
    for name in ("results", "photos", "data/train/imgs/images"):
        (folder / name).mkdir()
    for number in range(2):
        image = Image.fromarray(np.full((48, 64, 3), 90 + number, np.uint8))
        image.save(folder / "results" / f"scene_{number:04d}.jpg")
        image.save(folder / "photos" / f"{number}.JPG")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def place(tmp_path, inputs, monkeypatch):
    shutil.copytree(inputs, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def words_of(command, networks, cache):
    if command == "score":
        module, line = score, "--results results --labels data/test --references data/train"
    else:
        module = train
        line = (
            f"--input_path data/train --ae_path {networks[0]} --preset tiny --steps 1 "
            "--batch_size 1 --preview_interval 0"
        )
    return module, [*line.split(), *f"--output scores --device cpu --cache {cache}".split()]


def files_below(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "cache",
    (
        "data/train data/train/imgs data/train/labels results data/test "
        "data/test/val_B_labels_resized scores ./results/../scores photos ."
    ).split(),
)
@pytest.mark.parametrize("command", ["score", "train"])
def test_a_cache_is_never_mixed_with_inputs_results_or_files_of_others(
    command, cache, place, networks, capsys
):
    before = files_below(place)
    module, words = words_of(command, networks, cache)
    capsys.readouterr()
    assert cli.run(module.main, words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--cache {cache} " in error.replace(": ", " "), error
    assert files_below(place) == before


@pytest.mark.parametrize("command", ["score", "train"])
def test_a_cache_in_a_folder_of_its_own_is_used_again(command, place, networks, capsys):
    for _ in range(2):
        module, words = words_of(command, networks, "cache")
        assert cli.run(module.main, words) == 0, capsys.readouterr().err
    assert [path for path in (place / "cache").iterdir() if path.is_dir()]


def test_what_a_cache_may_be(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.csv").write_text("")
    (tmp_path / "mine" / "b.csv").write_text("")
    with pytest.raises(OutputError, match="holds 2 files of another origin, such as a.csv"):
        check_cache(tmp_path / "mine", "--cache", tmp_path / "out")
    with pytest.raises(OutputError, match="is a file"):
        check_cache(tmp_path / "mine" / "a.csv", "--cache", tmp_path / "out")
    (tmp_path / "cache" / "kind").mkdir(parents=True)
    (tmp_path / "cache" / ".lock").write_text("")
    check_cache(tmp_path / "cache", "--cache", tmp_path / "out")
    check_cache(tmp_path / "new", "--cache", tmp_path / "out")
    with pytest.raises(OutputError, match="inputs are read"):
        check_cache(tmp_path / "cache", "--cache", tmp_path / "out", [], [tmp_path / "cache"])


def test_score_looks_at_its_folder_once_more_when_it_holds_it(place, networks, capsys, monkeypatch):
    """Two calls for different results start at once: the later one must not write over the earlier
    one's scores.
    """
    from jseg.outputs import locks

    held = locks.held

    def later(folder):
        (place / "scores").mkdir()
        record = {"command": "score", "format": 1, "settings": {"results": str(place / "others")}}
        (place / "scores" / "summary.json").write_text(json.dumps(record))
        return held(folder)

    monkeypatch.setattr(locks, "held", later)
    module, words = words_of("score", networks, "cache")
    assert cli.run(module.main, words) == 2
    assert "holds the scores of" in capsys.readouterr().err
    assert os.listdir(place / "scores") == ["summary.json"]
