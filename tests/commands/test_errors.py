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
from support.places import ROOT
from support.tiny import STAGES, challenge, label_map, photograph, saved, weights

from jseg.images import read_image
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.runtime import jt


def emptied(folder):
    for path in folder.iterdir():
        path.unlink()


def truncated(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def noisy_photograph(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(
        path
    )


def put(path, array, mode=None):
    Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)


def with_id(c, value):
    label = label_map(1)
    label[:12, :16] = value  # a sixteenth of the pixels
    put(c.labels / "b.png", label)


def table(c, text):
    c.table.write_text(text if isinstance(text, str) else json.dumps(text))


def stages(c, text):
    c.stages.write_text(text if isinstance(text, str) else json.dumps(text))


def stage(**fields):
    return {"base": "fine", "stages": [STAGES["stages"][0], {**STAGES["stages"][1], **fields}]}


def cut_copy(c, path, share):
    """The first part of a weights file, beside the challenge; others need it whole."""
    copy = c.root / "cut.st"
    copy.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return copy


# Each row: name, what is done to a sound challenge (returning changed arguments), what the line
# must hold.
INPUTS = [
    (
        "input folder missing",
        lambda c: {"input_path": c.root / "nowhere"},
        ["nowhere", "does not exist", "give an existing folder"],
    ),
    (
        "class set of another size",
        lambda c: {"classes": "camvid-11"},
        ["camvid-11 has 11 classes", "the network 29", "give the class set"],
    ),
    (
        "class set unknown",
        lambda c: {"classes": "streets"},
        ["no class set or file streets", "camvid-11"],
    ),
    (
        "input folder a file",
        lambda c: {"input_path": c.table},
        ["label_to_img.json", "is a file", "give a folder"],
    ),
    (
        "reference folder missing",
        lambda c: {"img_path": c.root / "nowhere"},
        ["nowhere", "does not exist", "give an existing folder"],
    ),
    (
        "input folder empty",
        lambda c: (c.labels / "../../empty").mkdir() or {"input_path": c.root / "empty"},
        ["empty", "holds neither val_B_labels_resized nor val_A_labels_resized", "give the folder"],
    ),
    (
        "label folder empty",
        lambda c: emptied(c.labels),
        ["val_B_labels_resized", "holds no PNG", "expected the label maps"],
    ),
    ("the folder above", lambda c: {"input_path": c.root}, ["did you mean", "test"]),
    (
        "table missing",
        lambda c: c.table.unlink(),
        ["no label_to_img.json", "expected the file that pairs"],
    ),
    (
        "table without an entry",
        lambda c: table(c, {"a.png": "ref_a.jpg", "c.png": "ref_c.jpg"}),
        ["label_to_img.json", "no entry for b.png", "one reference for every PNG"],
    ),
    (
        "table without entries",
        lambda c: table(c, {}),
        ["no entry for 3 files (a.png, b.png, c.png)"],
    ),
    (
        "table malformed",
        lambda c: table(c, '{"a.png": "ref_a.jpg",'),
        ["label_to_img.json", "not valid JSON", 'expected {"label.png"'],
    ),
    (
        "table a list",
        lambda c: table(c, ["ref_a.jpg"]),
        ["label_to_img.json", "holds a list", "expected"],
    ),
    (
        "table with a path",
        lambda c: table(c, {"a.png": "../ref_a.jpg", "b.png": "ref_b.jpg", "c.png": "ref_c.jpg"}),
        ["a.png", "../ref_a.jpg", "expected a file name"],
    ),
    (
        "reference missing",
        lambda c: (c.references / "ref_b.jpg").unlink(),
        ["lacks ref_b.jpg", "label_to_img.json", "add it or correct"],
    ),
    (
        "reference truncated",
        lambda c: (
            noisy_photograph(c.references / "ref_b.jpg"),
            truncated(c.references / "ref_b.jpg"),
        ),
        ["ref_b.jpg", "truncated", "copy or make it again"],
    ),
    (
        "reference of another aspect",
        lambda c: put(c.references / "ref_b.jpg", photograph(1, 64, 64)),
        ["ref_b.jpg is 64x64", "expected 64x48", "crop it"],
    ),
    (
        "reference no image",
        lambda c: (c.references / "ref_b.jpg").write_text("hello"),
        ["ref_b.jpg", "is not an image", "copy or make"],
    ),
    (
        "label in colour",
        lambda c: put(c.labels / "b.png", photograph(1)),
        ["b.png has mode RGB", "8-bit single-channel", "turn its colours back"],
    ),
    (
        "label gray in colour",
        lambda c: put(c.labels / "b.png", np.stack([label_map(1)] * 3, -1)),
        ["b.png has mode RGB", "save one channel"],
    ),
    (
        "label with id 29",
        lambda c: with_id(c, 29),
        ["b.png holds ids outside 0..28: 29 (6 %)", "ids found:", "correct it"],
    ),
    (
        "label with id 100",
        lambda c: with_id(c, 100),
        ["b.png holds ids outside 0..28: 100 (6 %)", "ids found:", "correct it"],
    ),
    (
        "label with id 255",
        lambda c: with_id(c, 255),
        ["b.png holds ids outside 0..28: 255 (6 %)", "name the ids to be ignored"],
    ),
    (
        "label with an id other than the ignored",
        lambda c: with_id(c, 200) or {"ignore": 255},
        ["b.png holds ids outside 0..28: 200 (6 %)"],
    ),
    (
        "label of 16 bits",
        lambda c: put(c.labels / "b.png", (label_map(1) + 300).astype(np.uint16)),
        ["b.png holds ids outside 0..28: 3", "and ", "ids found:"],
    ),
    (
        "label truncated",
        lambda c: truncated(c.labels / "b.png"),
        ["b.png", "truncated or damaged", "copy or make it again"],
    ),
    (
        "label empty",
        lambda c: truncated(c.labels / "b.png", 0),
        ["b.png", "is empty (0 bytes)", "copy or make it again"],
    ),
    (
        "label of another aspect",
        lambda c: put(c.labels / "b.png", label_map(1, 64, 64)),
        ["b.png is 64x64", "expected 64x48", "crop it"],
    ),
    (
        "two labels wrong",
        lambda c: (truncated(c.labels / "a.png"), with_id(c, 77)),
        ["a.png", "truncated", "1 more file with", "b.png"],
    ),
    (
        "stages file missing",
        lambda c: {"stages": c.root / "none.json"},
        ["none.json", "does not exist", "expected a JSON file"],
    ),
    (
        "stages file malformed",
        lambda c: stages(c, "{"),
        ["stages.json", "is not JSON", "see --help"],
    ),
    (
        "stages file empty",
        lambda c: stages(c, {"stages": []}),
        ["stages.json", "at least one stage"],
    ),
    (
        "stages file with an unknown field",
        lambda c: stages(c, stage(strength=0.6)),
        ["stages.json, stage 1", "'strength'", "expected guidance"],
    ),
    (
        "start index beyond",
        lambda c: stages(c, stage(start_index=10)),
        ["stages.json, stage 1", "start index 10", "from 0 to 9", "10 steps of ddim10"],
    ),
    (
        "ddimN that does not divide",
        lambda c: stages(c, stage(respacing="ddim300")),
        ["stage 1", "'ddim300'", "nearest that exist", "ddim334"],
    ),
    (
        "preset unknown",
        lambda c: {"stages": None, "preset": "best"},
        ["'best'", "expected one of release, fine"],
    ),
    ("seed negative", lambda c: {"seed": -1}, ["seed is -1", "from 0 on"]),
    ("seed no number", lambda c: {"seed": "x"}, ["--seed", "'x'", "--help"]),
    ("batch size 0", lambda c: {"batch_size": 0}, ["--batch_size is 0", "expected 1 or more"]),
    ("limit 0", lambda c: {"limit": 0}, ["--limit is 0", "expected 1 or more"]),
    (
        "output a file",
        lambda c: {"output_path": c.table},
        ["label_to_img.json is a file", "expected a folder"],
    ),
    (
        "output under a file",
        lambda c: {"output_path": c.table / "deep" / "er"},
        ["label_to_img.json is a file", "expected a folder"],
    ),
    (
        "weights missing",
        lambda c: {"model_path": c.root / "none.pkl"},
        [
            "--model_path",
            "none.pkl does not exist",
            "checkpoints/average-176k-266k.pkl",
            "checkpoints/autoencoder.pkl",
        ],
    ),
    (
        "weights a folder",
        lambda c: {"model_path": c.labels},
        ["--model_path", "val_B_labels_resized: is a folder", "put the official weights"],
    ),
    (
        "autoencoder missing",
        lambda c: {"ae_path": c.root / "none.pkl"},
        ["--ae_path", "none.pkl does not exist", "checkpoints/autoencoder.pkl"],
    ),
]

# The same for weights: (option, the file given for it), what the line must hold.
WEIGHTS = [
    ("UNet truncated", lambda c: ("model_path", cut_copy(c, c.model, 0.5)), ["cut.st", "again"]),
    (
        "autoencoder truncated",
        lambda c: ("ae_path", cut_copy(c, c.autoencoder, 0.9)),
        ["cut.st", "again"],
    ),
    (
        "weights empty",
        lambda c: ("model_path", cut_copy(c, c.model, 0)),
        ["cut.st", "empty", "again"],
    ),
    (
        "weights an image",
        lambda c: ("model_path", c.labels / "a.png"),
        ["a.png", "is an image", "expected weights"],
    ),
    (
        "UNet given as autoencoder",
        lambda c: ("ae_path", c.model),
        ["unet.safetensors", "UNetConfig", "expected AutoencoderConfig", "swapped"],
    ),
    (
        "autoencoder given as UNet",
        lambda c: ("model_path", c.autoencoder),
        ["autoencoder.safetensors", "expected UNetConfig", "swapped"],
    ),
    (
        "UNet without its configuration",
        lambda c: ("model_path", saved(c.root / "plain.npz", UNETS["tiny"], named=False)),
        ["plain.npz", "does not fit the network", "missing", "of another shape", "the network is"],
    ),
    (
        "autoencoder of another width without its configuration",
        lambda c: (
            "ae_path",
            saved(c.root / "plain.pkl", replace(AUTOENCODERS["tiny"], channels=64), named=False),
        ),
        ["plain.pkl", "does not fit the network", "of another shape"],
    ),
    (
        "networks of different latents",
        lambda c: (
            "ae_path",
            saved(c.root / "four.npz", replace(AUTOENCODERS["tiny"], latent_channels=4)),
        ),
        ["latents of 3 channels", "makes 4", "trained together"],
    ),
    (
        "latent that cannot be halved",
        lambda c: (
            "model_path",
            saved(c.root / "odd.npz", replace(UNETS["tiny"], width=20, height=15)),
        ),
        ["latent size is 20x15", "multiples of 2"],
    ),
    (
        "NaN in the weights",
        lambda c: (
            "model_path",
            saved(c.root / "nan.npz", UNETS["tiny"], **{"out.2.bias": np.full(6, np.nan, "f4")}),
        ),
        ["nan.npz", "out.2.bias", "NaN", "take an earlier one"],
    ),
]


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
    assert (
        lines[0].startswith("jseg test: ")
        and [word for word in words if word not in lines[0]] == []
    ), lines[0]
    assert c.everything() == before
    return lines[0]


def named(rows):
    return pytest.mark.parametrize(
        "spoil, words", [row[1:] for row in rows], ids=[row[0].replace(" ", "_") for row in rows]
    )


@named(INPUTS)
def test_a_wrong_input(challenge, spoil, words):
    changed = spoil(challenge)
    refused(challenge, words, **(changed if isinstance(changed, dict) else {}))


@named(
    [
        row
        for row in INPUTS
        if row[0].startswith(("label", "reference", "table", "stages", "output", "start"))
    ]
)
def test_a_wrong_input_wins_over_weights_that_are_missing(challenge, spoil, words):
    changed = spoil(challenge)
    sizes = {"64x48": "128x96"}  # the size of the weights that ship
    refused(
        challenge,
        [sizes.get(word[-5:], word) if word.startswith("expected 64") else word for word in words],
        **{"model_path": None, "ae_path": None, **(changed if isinstance(changed, dict) else {})},
    )


@named(WEIGHTS)
def test_wrong_weights(challenge, spoil, words):
    option, path = spoil(challenge)
    refused(challenge, words, **{option: path})


def test_a_unet_without_its_autoencoder_is_told_where_the_official_one_belongs(challenge):
    refused(
        challenge,
        [
            "no autoencoder",
            "./checkpoints/average-176k-266k.pkl",
            "./checkpoints/autoencoder.pkl",
            "README",
            "--ae_path",
        ],
        ae_path=None,
    )
    refused(
        challenge,
        ["no UNet", "./checkpoints/average-176k-266k.pkl", "--model_path"],
        model_path=None,
    )


def test_the_official_places_are_searched(challenge):
    os.mkdir("checkpoints")
    shutil.copy(challenge.model, "checkpoints/average-176k-266k.pkl")
    refused(
        challenge,
        ["no autoencoder", "./checkpoints/autoencoder.pkl"],
        model_path=None,
        ae_path=None,
    )
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
    refused(challenge, ["evil.pkl", "mkdir"], **{option: path})
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.is_dir(), "the same file is harmful to a plain unpickler"


def test_a_full_disk_is_told_before_the_work(challenge, monkeypatch):
    usage = shutil.disk_usage(str(challenge.root))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3000))
    refused(challenge, ["results", "MB free", "3 images of 64x48", "free some room"])
    refused(challenge, ["results", "MB free", "1 image of 64x48"], limit=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8000))
    assert challenge.run(limit=1)[0] == 0, "one image may take 7680 bytes"
    refused(challenge, ["MB may be needed for 2 images of 64x48"])


def test_an_output_that_cannot_be_written_is_told(challenge, monkeypatch):
    challenge.output.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and access(path, mode))
    refused(challenge, ["results cannot be written", "give a folder that can"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_is_told(challenge):
    challenge.output.mkdir()
    challenge.output.chmod(0o555)
    refused(challenge, ["results cannot be written", "give a folder that can"])


@pytest.mark.skipif(jt.has_cuda, reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_told(challenge):
    refused(challenge, ["device cuda", "use --device cpu"], device="cuda")


def test_several_processes_of_mpirun_are_refused(challenge, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    refused(challenge, ["started by mpirun", "without mpirun"])


def test_notes_about_usable_inputs_do_not_come_before_an_error(challenge):
    put(challenge.labels / "b.png", label_map(1, 128, 96))
    put(challenge.references / "ref_a.jpg", photograph(1, 128, 96))
    refused(challenge, ["none.pkl"], model_path=challenge.root / "none.pkl")
    code, lines = challenge.run(limit=1)
    assert code == 0 and len([line for line in lines if "resized" in line]) == 2


def test_an_input_error_comes_without_jittor(challenge):
    with_id(challenge, 99)
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
