"""Malformed inputs of the inference command: one line that says what was given, expected and to be
done; exit code 2; nothing written.
"""

# ruff: noqa: F401  fixtures are imported from tiny.py and then named as arguments
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.faults import all_of, cut, drawn, emptied, removed, written
from support.places import ROOT
from support.tiny import STAGES, challenge, label_map, photograph, saved, weights

from jseg.images import read_image
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.runtime import jt


def with_id(value):
    """A sixteenth of the pixels have that id."""
    label = label_map(1)
    label[:12, :16] = value
    return drawn("test/val_B_labels_resized/b.png", label)


def table(content):
    return written("test/label_to_img.json", content)


def pairs(stems, **changed):
    entries = {f"{stem}.png": changed.get(stem, f"ref_{stem}.jpg") for stem in stems}
    return table(json.dumps(entries))


def stage(**fields):
    """The second stage of the file has those fields."""
    first, second = STAGES["stages"]
    content = {"base": "fine", "stages": [first, {**second, **fields}]}
    return written("stages.json", json.dumps(content))


def cut_copy(c, path, fraction):
    """The first part of a weights file, beside the challenge; others need it whole."""
    copy = c.root / "cut.st"
    copy.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    return copy


def network_file(name, config, **options):
    """Weights of another configuration, under the option that takes them."""
    option = "model_path" if config.__class__ is UNET.__class__ else "ae_path"
    return lambda c: {option: saved(c.root / name, config, **options)}


UNET, AUTOENCODER = UNETS["tiny"], AUTOENCODERS["tiny"]
LABELS, REFERENCES = "test/val_B_labels_resized", "train/imgs"
B, REF_B = f"{LABELS}/b.png", f"{REFERENCES}/ref_b.jpg"
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

# What the one line holds, and what was done to a sound challenge.
FILES = {
    "val_B_labels_resized | holds no PNG | expected the label maps": emptied(LABELS),
    "no label_to_img.json | expected the file that pairs": removed("test/label_to_img.json"),
    "label_to_img.json | no entry for b.png | one reference for every PNG": pairs("ac"),
    "no entry for 3 files (a.png, b.png, c.png)": pairs(""),
    'label_to_img.json | not valid JSON | expected {"label.png"': table('{"a.png": "ref_a.jpg",'),
    "label_to_img.json | holds a list | expected": table('["ref_a.jpg"]'),
    "a.png | ../ref_a.jpg | expected a file name": pairs("abc", a="../ref_a.jpg"),
    "lacks ref_b.jpg | label_to_img.json | add it or correct": removed(REF_B),
    "ref_b.jpg | truncated | copy or make it again": all_of(drawn(REF_B, NOISE), cut(REF_B, 1000)),
    "ref_b.jpg is 64x64 | expected 64x48 | crop it": drawn(REF_B, photograph(1, 64, 64)),
    "ref_b.jpg | is not an image | copy or make": written(REF_B, "hello"),
    "b.png has mode RGB | 8-bit single-channel | turn its colours back": drawn(B, photograph(1)),
    "b.png has mode RGB | save one channel": drawn(B, np.stack([label_map(1)] * 3, -1)),
    "b.png holds ids outside 0..28: 29 (6 %) | ids found: | correct it": with_id(29),
    "b.png holds ids outside 0..28: 100 (6 %) | ids found: | correct it": with_id(100),
    "b.png holds ids outside 0..28: 255 (6 %) | name the ids to be ignored": with_id(255),
    "b.png holds ids outside 0..28: 3 | and | ids found:": drawn(B, label_map(1) + np.uint16(300)),
    "b.png | truncated or damaged | copy or make it again": cut(B, 200),
    "b.png | is empty (0 bytes) | copy or make it again": cut(B, 0),
    "b.png is 64x64 | expected 64x48 | crop it": drawn(B, label_map(1, 64, 64)),
    "a.png | truncated | 1 more file with | b.png": all_of(
        cut(f"{LABELS}/a.png", 200), with_id(77)
    ),
    "stages.json | is not JSON | see --help": written("stages.json", "{"),
    "stages.json | at least one stage": written("stages.json", '{"stages": []}'),
    "stages.json, stage 1 | 'strength' | expected guidance": stage(strength=0.6),
    "stages.json, stage 1 | start index 10 | from 0 to 9 | 10 steps of ddim10": stage(
        start_index=10
    ),
    "stage 1 | 'ddim300' | nearest that exist | ddim334": stage(respacing="ddim300"),
}

# What the one line holds, and the options of the call; ./ is the challenge's folder.
OUTPUT = "label_to_img.json is a file | expected a folder"
OPTIONS = {
    "label folder | nowhere | does not exist | give an existing folder": {
        "input_path": "./nowhere"
    },
    "label_to_img.json | is a file | give a folder": {"input_path": "./test/label_to_img.json"},
    "empty | holds neither val_B_labels_resized nor val_A_labels_resized | give the folder": {
        "input_path": "./empty"
    },
    "did you mean | test": {"input_path": "./"},
    "reference folder | nowhere | does not exist | give an existing folder": {
        "img_path": "./nowhere"
    },
    "none.json | does not exist | expected a JSON file": {"stages": "./none.json"},
    "'best' | expected one of release, fine": {"stages": None, "preset": "best"},
    "camvid-11 has 11 classes | the network 29 | give the class set": {"classes": "camvid-11"},
    "no class set or file streets | camvid-11": {"classes": "streets"},
    "seed is -1 | from 0 on": {"seed": -1},
    "--seed | 'x' | --help": {"seed": "x"},
    "--batch_size is 0 | expected 1 or more": {"batch_size": 0},
    "--limit is 0 | expected 1 or more": {"limit": 0},
    f"--output_path | {OUTPUT}": {"output_path": "./test/label_to_img.json"},
    f"--output_path | er: | {OUTPUT}": {"output_path": "./test/label_to_img.json/deep/er"},
    "--model_path | none.pkl does not exist | checkpoints/average-176k-266k.pkl | "
    "checkpoints/autoencoder.pkl": {"model_path": "./none.pkl"},
    "--model_path | val_B_labels_resized: is a folder | put the official weights": {
        "model_path": f"./{LABELS}"
    },
    "--ae_path | none.pkl does not exist | checkpoints/autoencoder.pkl": {"ae_path": "./none.pkl"},
    "a.png | is an image | expected weights": {"model_path": f"./{LABELS}/a.png"},
}

# What the one line holds, and the weights of the call.
WEIGHTS = {
    "--model_path | cut.st | again": lambda c: {"model_path": cut_copy(c, c.model, 0.5)},
    "--ae_path | cut.st | again": lambda c: {"ae_path": cut_copy(c, c.autoencoder, 0.9)},
    "cut.st | empty | again": lambda c: {"model_path": cut_copy(c, c.model, 0)},
    "unet.safetensors | UNetConfig | expected AutoencoderConfig | swapped": (
        lambda c: {"ae_path": c.model}
    ),
    "autoencoder.safetensors | expected UNetConfig | swapped": (
        lambda c: {"model_path": c.autoencoder}
    ),
    "plain.npz | does not fit the network | missing | of another shape | the network is": (
        network_file("plain.npz", UNET, named=False)
    ),
    "plain.pkl | does not fit the network | of another shape": (
        network_file("plain.pkl", replace(AUTOENCODER, channels=64), named=False)
    ),
    "latents of 3 channels | makes 4 | trained together": (
        network_file("four.npz", replace(AUTOENCODER, latent_channels=4))
    ),
    "latent size is 20x15 | multiples of 2": (
        network_file("odd.npz", replace(UNET, width=20, height=15))
    ),
    "nan.npz | out.2.bias | NaN | take an earlier one": (
        network_file("nan.npz", UNET, **{"out.2.bias": np.full(6, np.nan, "f4")})
    ),
}


@pytest.fixture(autouse=True)
def _no_official_weights(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(
        tmp_path_factory.mktemp("elsewhere")
    )  # ./checkpoints is looked up in the working directory
    monkeypatch.delenv("JSEG_TRACEBACK", raising=False)


def refused(c, words, **changed):
    """The one line of a call that must fail without writing anything."""
    before = c.everything()
    code, lines = c.run(**changed)
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith("jseg test: "), lines[0]
    assert [word for word in words.split(" | ") if word not in lines[0]] == [], lines[0]
    assert c.everything() == before
    return lines[0]


@pytest.mark.parametrize("words", FILES)
def test_a_wrong_input(challenge, words):
    FILES[words](challenge.root)
    refused(challenge, words)


@pytest.mark.parametrize("words", FILES)
def test_a_wrong_input_wins_over_weights_that_are_missing(challenge, words):
    FILES[words](challenge.root)
    words = words.replace("expected 64x48", "expected 128x96")  # the weights that ship
    refused(challenge, words, model_path=None, ae_path=None)


def options_of(challenge, words):
    """The options of a row of OPTIONS, whose paths are in the challenge's folder."""
    return {
        name: challenge.root / value[2:] if str(value).startswith("./") else value
        for name, value in OPTIONS[words].items()
    }


@pytest.mark.parametrize("words", OPTIONS)
def test_a_wrong_option(challenge, words):
    (challenge.root / "empty").mkdir()
    refused(challenge, words, **options_of(challenge, words))


@pytest.mark.parametrize("words", [row for row in OPTIONS if "_path | none.pkl" not in row])
def test_a_wrong_option_wins_over_weights_that_are_missing(challenge, words):
    (challenge.root / "empty").mkdir()
    refused(
        challenge, words, **{"model_path": None, "ae_path": None, **options_of(challenge, words)}
    )


def test_an_id_other_than_the_ignored_is_refused(challenge):
    with_id(200)(challenge.root)
    words = "b.png holds ids outside 0..28: 200 (6 %)"
    refused(challenge, words, ignore=255)
    refused(challenge, words, ignore=255, model_path=None, ae_path=None)


@pytest.mark.parametrize("words", WEIGHTS)
def test_wrong_weights(challenge, words):
    refused(challenge, words, **WEIGHTS[words](challenge))


OFFICIAL = "./checkpoints/average-176k-266k.pkl"


def test_a_unet_without_its_autoencoder_is_told_where_the_official_one_belongs(challenge):
    words = f"no autoencoder | {OFFICIAL} | ./checkpoints/autoencoder.pkl | README | --ae_path"
    refused(challenge, words, ae_path=None)
    refused(challenge, f"no UNet | {OFFICIAL} | --model_path", model_path=None)


def test_the_official_places_are_searched(challenge):
    os.mkdir("checkpoints")
    shutil.copy(challenge.model, "checkpoints/average-176k-266k.pkl")
    words = "no autoencoder | ./checkpoints/autoencoder.pkl"
    refused(challenge, words, model_path=None, ae_path=None)
    shutil.copy(challenge.autoencoder, "checkpoints/autoencoder.pkl")
    assert challenge.run(model_path=None, ae_path=None, limit=1)[0] == 0


def test_without_any_weights_those_that_ship_are_used_and_it_is_said(challenge):
    code, lines = challenge.run(model_path=None, ae_path=None, limit=1)
    assert code == 0 and any("the small ones that ship with jseg" in line for line in lines)
    (image,) = challenge.results().values()
    assert read_image(challenge.output / "a.jpg").shape == (96, 128, 3) and image


class Evil:
    """What a malicious pickle does: unpickling it calls os.mkdir."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("option", ["model_path", "ae_path"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    challenge, option, nested, tmp_path_factory
):
    trace = tmp_path_factory.mktemp("trace") / "ran"
    evil = (
        {"out.2.bias": np.zeros(6, np.float32), "state": [Evil(trace)]} if nested else Evil(trace)
    )
    path = challenge.root / "evil.pkl"
    path.write_bytes(pickle.dumps(evil))
    refused(challenge, "evil.pkl | mkdir", **{option: path})
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.is_dir(), "the same file is harmful to a plain unpickler"


def test_a_full_disk_is_told_before_the_work(challenge, monkeypatch):
    usage = shutil.disk_usage(str(challenge.root))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3000))
    refused(challenge, "results | MB free | 3 images of 64x48 | free some room")
    refused(challenge, "results | MB free | 1 image of 64x48", limit=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8000))
    assert challenge.run(limit=1)[0] == 0, "one image may take 7680 bytes"
    refused(challenge, "MB may be needed for 2 images of 64x48")


def test_an_output_that_cannot_be_written_is_told(challenge, monkeypatch):
    challenge.output.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and access(path, mode))
    refused(challenge, "results cannot be written | give a folder that can")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_is_told(challenge):
    challenge.output.mkdir()
    challenge.output.chmod(0o555)
    refused(challenge, "results cannot be written | give a folder that can")


@pytest.mark.skipif(jt.has_cuda, reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_told(challenge):
    refused(challenge, "device cuda | use --device cpu", device="cuda")


def test_notes_about_usable_inputs_do_not_come_before_an_error(challenge):
    drawn(B, label_map(1, 128, 96))(challenge.root)
    drawn(f"{REFERENCES}/ref_a.jpg", photograph(1, 128, 96))(challenge.root)
    refused(challenge, "none.pkl", model_path=challenge.root / "none.pkl")
    code, lines = challenge.run(limit=1)
    assert code == 0 and len([line for line in lines if "resized" in line]) == 2


def test_an_input_error_comes_without_jittor(challenge):
    with_id(99)(challenge.root)
    code = (
        "import sys; from jseg.commands import cli, test; code = cli.run(test.main, sys.argv[1:]); "
        "print(code, sorted({'jittor', 'jittor_utils', 'jseg.runtime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code] + challenge.arguments(model_path=None, ae_path=None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    assert done.stdout == "2 []\n" and done.stderr.count("\n") == 1 and "99 (6 %)" in done.stderr


def test_the_script_exits_with_the_code_and_one_line(challenge):
    root = ROOT
    command = [sys.executable, os.path.join(root, "scripts", "test.py")] + challenge.arguments(
        input_path=challenge.root / "nowhere"
    )
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=root),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
