"""The command beside a small stand-in for the release: processes, verdicts, exit codes, repeated
calls, and what is refused.

With JSEG_OFFICIAL=DIR, a clone of the official release, the real thing runs too: its quick parts,
and with --run-slow all of them.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.calls import answered
from support.places import ROOT

from jseg import checkpoint
from jseg.commands import compare_official
from jseg.images import read_image
from jseg.ldm import weights as weight_files
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes
from jseg.parity.release import differences, nudges, running
from jseg.parity.release.parts import FILES, PARTS
from jseg.parity.stand_in import fill

OFFICIAL = os.environ.get("JSEG_OFFICIAL", "")
QUICK = ["layout", "codes", "noise", "step", "colour", "merge"]

# What parts `noise`, `colour` and `merge` ask of the release, by other means than ours.
SCRIPT_UTIL = """
import blobfile
import cv2
import jittor
import numpy as np
from PIL import Image


class create_gaussian_diffusion:
    def __init__(self, steps, learn_sigma, noise_schedule, timestep_respacing):
        timesteps = np.arange(0, steps, steps // int(timestep_respacing[4:]))
        self.alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, steps))[timesteps]

    def q_sample(self, x, t, noise):
        alpha_bar = self.alpha_bar[t.numpy()].astype(np.float32).reshape(-1, 1, 1, 1)
        return jittor.array(np.sqrt(alpha_bar)) * x + jittor.array(np.sqrt(1 - alpha_bar)) * noise


def Normalize(ref, source):
    print("stdout is the table's")
    t, s = (cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2LAB) for image in (ref, source))
    (tm, td), (sm, sd) = ([np.around(v.ravel(), 2) for v in cv2.meanStdDev(x)] for x in (t, s))
    with np.errstate(all="ignore"):
        s, sm, tm, ratio = (v.astype(np.float32) for v in (s, sm, tm, td / sd))
        moved = (s - sm) * ratio + tm
        moved = np.clip(np.round(moved), 0, 255).astype(np.uint8)
    return Image.fromarray(cv2.cvtColor(moved, cv2.COLOR_LAB2RGB))
"""
MERGE = """
import pickle


def merge_ckpt(save_path, ckpts_to_merge):
    parts = [pickle.load(open(path, "rb")) for path in ckpts_to_merge]
    mean = {}
    for name in parts[0]:
        mean[name] = sum(part[name].astype("float64") for part in parts) / len(parts)
    pickle.dump(mean, open(save_path, "wb"))
"""


class Job:
    """A folder that looks like the release, and calls of the command on it."""

    def __init__(self, root, capsys):
        self.root = root
        self.capsys = capsys
        self.clone = root / "clone"
        self.output = root / "found"
        for name in FILES:
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.clone / name).write_text("")
        self.script = self.clone / "models" / "guided_diffusion" / "script_util.py"
        self.script.write_text(SCRIPT_UTIL)
        (self.clone / "merge_model.py").write_text(MERGE)

    def run(self, *words, official=None):
        """(exit code, standard output, lines on standard error)."""
        options = dict(official=official or self.clone, output=self.output, device="cpu")
        return answered(compare_official, self.capsys, *words, **options)

    def rows(self):
        return {
            (row["part"], row["row"]): row
            for row in json.loads((self.output / "comparison.json").read_text())["rows"]
        }


@pytest.fixture
def job(tmp_path, capsys):
    return Job(tmp_path, capsys)


def test_rows_that_agree_are_in_the_table_and_a_second_call_computes_nothing(job):
    before = sorted(path.relative_to(job.clone) for path in job.clone.rglob("*"))
    code, out, told = job.run("--only", "noise", "colour", "merge")
    assert code == 0, told
    assert told[-1].startswith("jseg compare_official: 6 of 6 rows within bounds"), told
    assert out.count("| ok |") == 5
    assert out.count("on purpose (no. 13)") == 1
    assert "stdout is" not in out
    rows = job.rows()
    assert rows["noise", "stage 2"]["relative"] < 1e-6
    assert 0 < rows["merge", "merged"]["relative"] < 1e-6
    assert rows["colour", "flat"]["largest"] > 50
    assert all(row["gigabytes"]["ours"] > 0.01 for row in rows.values())
    page = (job.output / "comparison.md").read_text()
    assert out.strip() in page
    assert "blobfile is not installed" in page
    assert "UNet of 32 channels" in page
    assert read_image(job.output / "comparison.png").ndim == 3
    assert sorted(path.relative_to(job.clone) for path in job.clone.rglob("*")) == before, (
        "nothing is written into the clone"
    )

    code, again, told = job.run("--only", "noise", "colour", "merge")
    assert code == 0 and again == out and sum(line.endswith("is there") for line in told) == 6
    job.script.write_text(SCRIPT_UTIL + "\n")
    _, _, told = job.run("--only", "noise")
    assert ["computing" in line for line in told[:3]] == [True, False, False]
    assert told[2].endswith("noise, ours: is there")
    _, _, told = job.run("--only", "noise", "--again")
    assert sum(line.endswith("computing") for line in told) == 2


def test_what_differs_what_raises_and_what_crashes_is_told_and_the_rest_goes_on(job):
    job.script.write_text(
        SCRIPT_UTIL.replace("np.sqrt(1 - alpha_bar)", "np.sqrt(1.01 - alpha_bar)")
    )
    (job.clone / "merge_model.py").write_text("raise ValueError('no merging today')")
    code, out, told = job.run("--only", "noise", "colour", "merge")
    rows = job.rows()
    assert code == 1
    assert "not: add noise, index 300 of ddim500;" in told[-1]
    assert "merge of two autoencoders" in told[-1]
    assert rows["noise", "stage 0"]["verdict"] == "DIFFERS"
    assert rows["noise", "stage 0"]["relative"] > 1e-3
    assert rows["colour", "image"]["verdict"] == "ok"
    assert rows["merge", "merged"]["verdict"] == "FAILED"
    assert "no merging today" in rows["merge", "merged"]["note"]
    assert "release: the process ended with 1" in out
    job.script.write_text("import os\nos.abort()")
    code, out, _ = job.run("--only", "colour")
    assert code == 1 and out.count("FAILED") == 2 and "ended with -6" in out


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "Compiling 1/2\rCompiling 2/2\nTraceback:\n  x\nValueError: not so\n\n",
            "ValueError: not so",
        ),
        ("RuntimeError: wrong\n[Input]: a\n[Reason]: no kernel\x1b[m\n>>> trace", "no kernel"),
        ("", "without a word"),
    ],
)
def test_the_last_word_of_a_process_is_its_reason(text, told):
    assert running.last_word(text) == told


def saved(folder, unet=UNETS["small"], autoencoder=AUTOENCODERS["small"]):
    checkpoint.save(folder / "unet.safetensors", fill(unet_shapes(unet)), unet)
    checkpoint.save(
        folder / "autoencoder.safetensors", fill(autoencoder_shapes(autoencoder)), autoencoder
    )
    return (
        "--model_path",
        folder / "unet.safetensors",
        "--ae_path",
        folder / "autoencoder.safetensors",
    )


def test_weights_of_one_s_own(job):
    code, _, _ = job.run("--only", "merge", *saved(job.root))
    page = (job.output / "comparison.md").read_text()
    assert code == 0
    assert "weights: unet.safetensors, autoencoder.safetensors" in page
    assert not (job.output / "weights").exists()


def wrong(kind, job):
    """(arguments, what the line must say)."""
    shipped = [
        "--model_path",
        weight_files.SHIPPED_MODEL,
        "--ae_path",
        weight_files.SHIPPED_AUTOENCODER,
    ]
    if kind == "empty":
        shutil.rmtree(job.clone)
        job.clone.mkdir()
        return [], ["no image_sample.py in it", "expected a clone"]
    if kind == "nothing":
        shutil.rmtree(job.clone)
        return [], ["is no folder"]
    if kind == "half":
        (job.clone / "models/autoencoder/quantize.py").unlink()
        return [], ["no models/autoencoder/quantize.py"]
    if kind == "output":
        job.output.write_text("")
        return [], ["is a file; expected a folder"]
    if kind == "swapped":
        words = saved(job.root)
        return [words[0], words[3], words[2], words[1]], ["expected UNetConfig"]
    if kind == "cut":
        words = saved(job.root)
        state = checkpoint.load(words[1])
        state.pop("out.2.bias")
        checkpoint.save(words[1], state, UNETS["small"])
        return words, ["1 missing (out.2.bias)"]
    return {
        "one": (["--model_path", "x"], ["one is given; give both"]),
        "gone": (["--model_path", "x", "--ae_path", "y"], ["x does not exist"]),
        "shipped": (shipped, ["spade_channels 32", "128 only"]),
        "size": (saved(job.root) + ("--size", "release"), ["leave --size out"]),
        "part": (["--only", "unet", "nothing"], ["invalid choice"]),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    "empty nothing half output swapped cut one gone shipped size part".split(),
)
def test_a_wrong_argument_is_one_line_and_nothing_is_written(kind, job):
    words, parts = wrong(kind, job)
    code, out, told = job.run(*words)
    assert code == 2 and len(told) == 1 and out == "", told
    assert all(part in told[0] for part in parts), told
    assert not job.output.exists() or job.output.is_file()


def test_a_size_with_files_of_that_size_is_fine(job):
    args = compare_official.parser().parse_args(
        ["--official", str(job.clone), "--size", "small", *map(str, saved(job.root))]
    )
    assert compare_official.networks(args) == ("small", UNETS["small"], AUTOENCODERS["small"])
    odd = dataclasses.replace(UNETS["small"], channels=64)
    args = compare_official.parser().parse_args(
        ["--official", str(job.clone), *map(str, saved(job.root, odd))]
    )
    assert compare_official.networks(args)[1] == odd


def test_the_page_tells_every_option_part_and_verdict():
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    options = [
        action.option_strings[0]
        for action in compare_official.parser()._actions
        if action.dest != "help"
    ]
    assert [option for option in options if f"`{option}`" not in text] == []
    assert "parts: " + ", ".join(f"`{name}`" for name in PARTS) in text
    assert [
        verdict
        for verdict in differences.FINE + ("DIFFERS", "FAILED")
        if f"**{verdict}**" not in text
    ] == []
    assert [name for name in nudges.STAND_INS if name not in text] == []


@pytest.mark.skipif(not OFFICIAL, reason="needs JSEG_OFFICIAL, a clone of the official release")
@pytest.mark.parametrize(
    "parts", [QUICK, pytest.param(list(PARTS), marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_the_real_release(parts, job):
    code, out, told = job.run("--only", *parts, official=Path(OFFICIAL))
    assert code == 0 and "FAILED" not in out and "DIFFERS" not in out, told
    rows = job.rows()
    assert {part for part, _ in rows} == set(parts)
    assert all(np.isfinite(row["relative"]) for row in rows.values())
