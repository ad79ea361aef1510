"""How often a command opens an input file: every read of a large data set is paid by the user."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.places import ROOT
from support.tiny import STAGES, label_map, photograph, saved

from jseg.data.classes import CLASS_SETS
from jseg.images import save_image
from jseg.ldm.presets import AUTOENCODERS, UNETS

# A command in a process of its own that lists on standard output which files it opens.
COUNTED = """
import json, os, sys
paths = []
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        paths.append(os.fsdecode(arguments[0]))
sys.addaudithook(note)
from jseg.__main__ import main
code = main(sys.argv[1:])
print(json.dumps(paths))
sys.exit(code)
"""


def opens(folder, *arguments):
    """{path relative to `folder`: how often the command opened it}, of the files in it."""
    command = [sys.executable, "-c", COUNTED, *map(str, arguments)]
    child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.returncode == 0, child.stderr.decode()
    paths = [Path(path) for path in json.loads(child.stdout)]
    return Counter(
        str(path.relative_to(folder)) for path in paths if folder in path.parents and path.is_file()
    )


@pytest.fixture
def training(tmp_path):
    """A training folder of three examples."""
    for name in ("imgs", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for seed in range(3):
        save_image(tmp_path / "data" / "imgs" / f"p{seed}.jpg", photograph(seed))
        save_image(tmp_path / "data" / "labels" / f"p{seed}.png", label_map(seed))
    return tmp_path


def plan(output):
    """One step of a tiny network; of a larger batch two examples would be tried first, for the
    memory that they take.
    """
    return (
        *("--output", output, "--preset", "tiny", "--steps", 1, "--batch_size", 2),
        *("--preview_interval", 0, "--device", "cpu"),
    )


@pytest.mark.parametrize("options", [(), ("--fit", "crop", "--classes", "own.txt")])
def test_train_reads_an_example_twice_and_then_once(training, options):
    """To check it and to encode it; what is in the cache is only checked."""
    autoencoder = saved(training / "autoencoder.safetensors", AUTOENCODERS["tiny"])
    palette = CLASS_SETS["landscape-29"].palette[::-1]
    lines = [f"class{i} {r} {g} {b}" for i, (r, g, b) in enumerate(palette.tolist())]
    (training / "own.txt").write_text("\n".join(lines))
    if options:
        save_image(training / "data" / "labels" / "p0.png", palette[label_map(0)])
    command = (
        *("train", "--input_path", training / "data", "--ae_path", autoencoder),
        *(training / word if word == "own.txt" else word for word in options),
        *("--cache", training / "cache"),
    )
    counts = opens(training / "data", *command, *plan(training / "run"))
    assert len(counts) == 6 and set(counts.values()) == {2}, counts
    counts = opens(training / "data", *command, *plan(training / "another"))
    assert len(counts) == 6 and set(counts.values()) == {1}, counts


def test_train_autoencoder_reads_an_image_once_before_the_steps(training):
    counts = opens(
        training / "data",
        *("train_autoencoder", "--input_path", training / "data", "--decoder_only"),
        *("--model_path", saved(training / "autoencoder.safetensors", AUTOENCODERS["tiny"])),
        *("--width", 64, "--height", 48),
        *plan(training / "run"),
    )
    assert len(counts) == 3 and max(counts.values()) <= 2, counts


def test_train_flowseg_reads_an_example_once_before_the_steps(training):
    counts = opens(
        training / "data",
        *("train_flowseg", "--data", training / "data", "--classes", 29),
        *("--width", 48, "--height", 32, "--validate_interval", 0),
        *plan(training / "run"),
    )
    assert len(counts) == 6 and max(counts.values()) <= 2, counts


def test_test_reads_a_label_map_and_a_reference_twice(tmp_path):
    data = tmp_path / "data"
    (data / "imgs").mkdir(parents=True)
    (tmp_path / "stages.json").write_text(json.dumps(STAGES))
    for seed in range(2):
        save_image(data / f"p{seed}.png", label_map(seed))
        save_image(data / "imgs" / f"r{seed}.jpg", photograph(seed))
    (data / "label_to_img.json").write_text(json.dumps({f"p{i}.png": f"r{i}.jpg" for i in (0, 1)}))
    counts = opens(
        data,
        *("test", "--input_path", data, "--img_path", data, "--output_path", tmp_path / "results"),
        *("--model_path", saved(tmp_path / "unet.safetensors", UNETS["tiny"])),
        *("--ae_path", saved(tmp_path / "autoencoder.safetensors", AUTOENCODERS["tiny"])),
        *("--stages", tmp_path / "stages.json", "--device", "cpu"),
    )
    assert len(counts) == 5 and max(counts.values()) <= 2, counts
