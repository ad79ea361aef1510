"""The training of FlowSeg as a user calls it, on the tiny network and drawn scenes."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.calls import TrainingFolder, called, everything, words
from support.faults import all_of, cut, drawn, emptied, removed
from support.places import ROOT
from support.small_flowseg import CLASSES, scene, write_scenes

from jseg.checkpoint import load, load_config, load_extra, load_sets, save
from jseg.commands import segment, train_flowseg
from jseg.data.label_maps import read_label
from jseg.flowseg import dinov2
from jseg.flowseg.predict import trained_classes
from jseg.flowseg.presets import NETWORKS
from jseg.flowseg.validation import Validation
from jseg.images import read_image, save_image
from jseg.training.changes import WHEN_MISSING
from jseg.training.records import checkpoints

SMALL_DINO = dinov2.Dinov2Config(width=24, depth=1, heads=3, patch=7, grid=3)


class Folder(TrainingFolder):
    """Six scenes to train on and two to validate on, and a call of the command on them; `run`
    returns (exit code, stderr's lines).
    """

    def __init__(self, root, capsys):
        super().__init__(root, capsys)
        write_scenes(self.data / "train", range(6))
        write_scenes(self.data / "val", (10, 11))

    def options(self, **changed):
        options = dict(
            data=self.data,
            layout="folders",
            output=self.output,
            preset="tiny",
            steps=2,
            batch_size=4,
            save_interval=2,
            log_interval=1,
            preview_interval=0,
            validate_steps=1,
            validate_interval=0,
            device="cpu",
        )
        return {**options, **changed}

    def run(self, **changed):
        return called(train_flowseg, self.capsys, **self.options(**changed))


@pytest.fixture
def folder(tmp_path, capsys):
    return Folder(tmp_path, capsys)


def arrays(path):
    """All arrays of a checkpoint: parameters, average, moments, the companion's."""
    sets = load_sets(path)
    return {f"{group}/{name}": value for group in sets for name, value in sets[group].items()}


def assert_equal(one, other):
    one, other = arrays(one), arrays(other)
    assert set(one) == set(other)
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


# A run
# --------------------------------------------------------------------------------------------------


@pytest.mark.curve
def test_training_from_a_folder_to_label_maps(folder):
    code, lines = folder.run(steps=3, preview_interval=3, validate_interval=2)
    assert code == 0, lines
    assert any("6 examples, 2 to validate on, 4 classes" in line for line in lines)
    assert "3 steps are done" in lines[-1]
    assert any("4 classes counted in the label maps" in line for line in lines)
    assert [path.name for path in checkpoints(folder.output)] == [
        "checkpoint-00000002.safetensors",
        "checkpoint-00000003.safetensors",
    ]
    known = "batch_size classes data decay ema eps jitter learning_rate scales schedule seed shift"
    known = {*known.split(), "tau", "warmup", "weight", "weight_decay", *WHEN_MISSING}
    settings = load_extra(checkpoints(folder.output)[-1])["settings"]
    assert set(settings) <= known, "older trainings would not go on"
    rows = folder.rows()
    assert [row["step"] for row in rows] == ["1", "2", "2", "3", "3"]
    assert float(rows[0]["correction_norm"]) > 0
    scores = {row["step"]: float(row["validation/miou"]) for row in rows if row["validation/miou"]}
    best = load_extra(folder.output / "best.safetensors")
    assert set(scores) == {"2", "3"}
    assert best["score"] == pytest.approx(max(scores.values()), rel=1e-6)
    assert read_image(folder.output / "preview-00000003.png").ndim == 3
    assert min(read_image(folder.output / "curve.png").shape[:2]) > 100
    config = dataclasses.replace(NETWORKS["tiny"], labels=CLASSES)
    for weights in ("best.safetensors", "flowseg.safetensors", "checkpoint-00000002.safetensors"):
        assert load_config(folder.output / weights) == config
        assert trained_classes(folder.output / weights, CLASSES).name == "4 classes"
        labels = folder.root / weights[:4]
        code, lines = called(
            segment,
            folder.capsys,
            weights=folder.output / weights,
            input=folder.data / "val",
            output=labels,
            steps=1,
            device="cpu",
        )
        assert code == 0, lines
        assert sorted(path.name for path in labels.glob("*.png")) == ["s10.png", "s11.png"]
        assert read_label(labels / "s10.png").shape == (32, 48)


def test_a_stopped_run_goes_on_bit_by_bit_and_validations_change_nothing(folder):
    whole = folder.into("whole").run(steps=4)
    assert whole[0] == 0
    folder.into("cut").run(steps=1, validate_interval=1, preview_interval=1)
    folder.run(steps=3, validate_interval=1)
    code, lines = folder.run(steps=4, validate_interval=1)
    assert code == 0
    assert any("going on from" in line and "checkpoint-00000003" in line for line in lines)
    assert_equal(
        folder.root / "whole" / "checkpoint-00000004.safetensors",
        folder.output / "checkpoint-00000004.safetensors",
    )
    assert [row["loss"] for row in folder.rows() if row["loss"]] == [
        row["loss"] for row in folder.into("whole").rows() if row["loss"]
    ]


def killed(folder, step, **options):
    """Start the training in a process of its own, and kill it as soon as the checkpoint of that
    step is there.
    """
    options = folder.options(save_interval=1, **options)
    process = subprocess.Popen(
        [sys.executable, os.path.join("scripts", "train_flowseg.py"), *words(**options)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while (
        time.monotonic() < until
        and process.poll() is None
        and not (folder.output / (f"checkpoint-{step:08d}.safetensors")).exists()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_rate_that_rises_and_falls_goes_on_bit_by_bit_and_knows_its_end(folder):
    options = dict(warmup=2, decay="linear", shift=4, jitter=0.2)
    assert folder.into("whole").run(steps=4, **options)[0] == 0
    folder.into("cut")
    killed(folder, 1, steps=4, **options)
    assert folder.run(steps=4, **options)[0] == 0
    assert_equal(
        folder.root / "whole" / "checkpoint-00000004.safetensors",
        folder.output / "checkpoint-00000004.safetensors",
    )
    code, lines = folder.run(steps=5, **options)
    assert code == 0 and any("changed from step 4 on: steps 4 -> 5" in line for line in lines)


def test_the_rate_jitter_and_shift_of_a_run_change_its_weights(folder):
    results = {}
    for name, options in (
        ("plain", {}),
        ("warmup", {"warmup": 9}),
        ("decay", {"decay": "linear"}),
        ("shift", {"shift": 9}),
        ("jitter", {"jitter": 0.4}),
    ):
        assert folder.into(name).run(**options)[0] == 0
        results[name] = load(folder.output / "checkpoint-00000002.safetensors", weights="model")[
            "final_layer.linear.weight"
        ]
    assert [
        name
        for name in results
        if name != "plain" and np.array_equal(results[name], results["plain"])
    ] == []


def test_a_run_that_was_killed_goes_on_bit_by_bit(folder):
    assert folder.into("whole").run(steps=6, save_interval=1)[0] == 0
    folder.into("cut")
    killed(folder, 2, steps=6)
    assert folder.run(steps=6, save_interval=1)[0] == 0
    assert_equal(
        folder.root / "whole" / "checkpoint-00000006.safetensors",
        folder.output / "checkpoint-00000006.safetensors",
    )


def test_the_best_network_is_kept(folder, monkeypatch):
    scores, seen = iter([0.2, 0.9, 0.4]), []

    def scored(self, stop=None):
        seen.append(self.network.final_layer.linear.bias.numpy().copy())
        return {"miou": next(scores), "accuracy": 0.5}

    monkeypatch.setattr(Validation, "__call__", scored)
    code, lines = folder.run(steps=3, validate_interval=1)
    assert code == 0 and any(
        "step 3: miou 0.4000, accuracy 0.5000; best 0.9000 at step 2" in line for line in lines
    )
    assert load_extra(folder.output / "best.safetensors")["step"] == 2
    np.testing.assert_array_equal(
        load(folder.output / "best.safetensors")["final_layer.linear.bias"], seen[1]
    )


def test_micro_batches_and_recompute_give_the_same_update(folder):
    results = []
    for name, options in (
        ("whole", {}),
        ("cut", {"micro_batch": 1}),
        ("again", {"recompute": True}),
    ):
        assert folder.into(name).run(**options)[0] == 0
        results.append(load(folder.output / "checkpoint-00000002.safetensors", weights="model"))
    for other in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_allclose(other[key], value, atol=5e-5)


def test_only_the_weight_tells_flowseg_from_flow_matching(folder):
    rows = {}
    for weight in (0, 1):
        folder.into(f"weight{weight}").run(weight=weight)
        rows[weight] = folder.rows()[0]
    assert rows[0]["fm"] == rows[1]["fm"] and rows[0]["loss"] == rows[0]["fm"]
    assert float(rows[0]["correction_norm"]) == 0
    assert float(rows[1]["loss"]) > float(rows[1]["fm"])


def test_a_run_for_epochs_without_an_average_or_a_validation_folder(folder):
    code, lines = folder.run(
        data=folder.data / "train", steps=None, epochs=1, batch_size=5, ema=0, validate_count=1
    )
    assert code == 0 and any("1 of its 6 examples is held out" in line for line in lines), lines
    assert [row["step"] for row in folder.rows() if row["loss"]] == ["1"]
    assert "ema" not in load_sets(folder.output / "checkpoint-00000001.safetensors")


def test_other_options_reach_the_network_and_the_loss(folder):
    network = dict(source="noise", codes="grid", width=32, height=24)
    code, _ = folder.run(steps=1, classes=6, schedule="1-t", tau=2, scales=[1, 1], **network)
    assert code == 0
    expected = dataclasses.replace(NETWORKS["tiny"], labels=6, **network)
    assert load_config(folder.output / "best.safetensors") == expected and expected.sees_image
    started = folder.output / "best.safetensors"
    code, _ = folder.into("next").run(steps=1, classes=6, model_path=started, **network)
    assert code == 0


def test_a_network_that_sees_the_image_starts_from_one_that_does_not(folder):
    assert folder.run(steps=1)[0] == 0
    started = folder.output / "flowseg.safetensors"
    options = dict(source="image+noise", model_path=started, learning_rate=1e-9)
    assert folder.into("fed").run(steps=1, **options)[0] == 0
    found, before = load(folder.output / "flowseg.safetensors"), load(started)
    assert {name for name in found if name not in before} == {
        "c_embedder.proj.weight",
        "xc_embedder.weight",
    }
    for name, value in before.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6)


# Data sets
# --------------------------------------------------------------------------------------------------


def test_camvid_s_void_is_ignored(folder):
    write_scenes(folder.root / "camvid" / "train", range(3), ids=[0, 3, 10, 11])
    write_scenes(folder.root / "camvid" / "val", [7], ids=[0, 3, 10, 11])
    for output, options in (
        ("one", {"layout": "camvid"}),
        ("two", {"layout": "camvid", "ignore": [11]}),
        ("three", {"ignore": [11]}),
    ):
        code, lines = folder.into(output).run(data=folder.root / "camvid", steps=1, **options)
        assert code == 0, lines
        assert load_config(folder.output / "best.safetensors").labels == 11
    assert trained_classes(folder.root / "one" / "best.safetensors", 11).names[3] == "road"


def test_ade20k_counts_from_one(folder):
    for split, seeds in (("training", range(3)), ("validation", [7])):
        write_scenes(
            folder.root / "ade",
            seeds,
            ids=[0, 1, 2, 150],
            names=(f"images/{split}", f"annotations/{split}"),
        )
    code, lines = folder.run(data=folder.root / "ade", layout="ade20k", steps=1)
    assert code == 0, lines
    assert load_config(folder.output / "best.safetensors").labels == 150


# REPA
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder(folder, monkeypatch):
    """The path of weights that are DINOv2's but for their size, which the command then expects."""
    monkeypatch.setattr(dinov2, "VIT_B14", SMALL_DINO)
    rng, path = np.random.default_rng(0), folder.root / "dinov2.npz"
    shapes = {name: value.shape for name, value in dinov2.Dinov2(SMALL_DINO).state_dict().items()}
    save(
        path,
        {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()},
    )
    return path


def test_tokens_are_aligned_and_the_projection_is_resumed_but_not_shipped(folder, encoder):
    code, lines = folder.into("whole").run(steps=3, repa=encoder)
    assert code == 0, lines
    assert all(0 < float(row["repa"]) < 2 for row in folder.rows() if row["loss"])
    assert float(folder.rows()[0]["loss"]) > float(folder.rows()[0]["repa"]) / 2
    last = folder.output / "checkpoint-00000003.safetensors"
    assert load_extra(last)["settings"]["repa_block"] == 2
    assert "proj.0.4.weight" in load_sets(last)["companion"]
    assert not [name for name in load(folder.output / "flowseg.safetensors") if "proj.0." in name]
    folder.into("cut").run(steps=1, repa=encoder)
    assert folder.run(steps=3, repa=encoder)[0] == 0
    assert_equal(last, folder.output / "checkpoint-00000003.safetensors")
    for changed in ({"repa": encoder, "repa_block": 1}, {}):
        code, lines = folder.run(steps=4, **changed)
        assert code == 2 and "repa" in lines[-1] and "was trained with other settings" in lines[-1]


def test_alignment_moves_the_network_s_tokens(folder, encoder):
    results = []
    for name, options in (
        ("with", {"repa": encoder, "repa_block": 1}),
        ("zero", {"repa": encoder, "repa_weight": 0}),
        ("without", {}),
    ):
        folder.into(name).run(steps=2, **options)
        results.append(load(folder.output / "checkpoint-00000002.safetensors", weights="model"))
    for name, value in results[2].items():
        np.testing.assert_allclose(results[1][name], value, atol=1e-6)
    assert not np.allclose(
        results[0]["blocks.0.attn.qkv.weight"], results[2]["blocks.0.attn.qkv.weight"], atol=1e-5
    )


def test_weights_of_another_dinov2_are_refused_by_name(folder):
    width = 384
    state = {
        "pos_embed": np.zeros((1, 2, width), np.float32),
        "patch_embed.proj.weight": np.zeros((width, 3, 14, 14), np.float32),
    }
    save(
        folder.root / "vits.npz",
        {**state, **{f"blocks.{i}.norm1.weight": np.zeros(width, np.float32) for i in range(12)}},
    )
    code, lines = folder.run(repa=folder.root / "vits.npz")
    assert code == 2
    assert len([line for line in lines if "ViT-S/14" in line and "expected ViT-B/14" in line]) == 1
    assert "ViT" in lines[-1]


# Errors
# --------------------------------------------------------------------------------------------------


def with_77():
    label = scene(2)[1]
    label[0] = 77
    return label


BEYOND = drawn("train/labels/s2.png", with_77())
TOO_SMALL = all_of(
    drawn("train/images/s3.jpg", scene(3, 48, 7)[0]),
    drawn("train/labels/s3.png", scene(3, 48, 7)[1]),
)
# What the one line holds, what was done to the data, and the options of the call.
WRONG_DATA = {
    "s2.png | outside 0..3: 77 ( | ids found: ": (BEYOND, {"classes": 4}),
    "s2.png | outside 0..28: 77 (": (BEYOND, {"layout": "landscape"}),
    "s3.jpg is 48x7; expected at least 8x8": (TOO_SMALL, {}),
    "images holds no": (emptied("train/images"), {}),
    "s10": (removed("val/labels/s10.png"), {}),
    "s1.jpg": (cut("train/images/s1.jpg", 300), {}),
    "s1.png is 32x48; expected 48x32": (drawn("train/labels/s1.png", scene(1, 32, 48)[1]), {}),
}


@pytest.mark.parametrize("words", WRONG_DATA)
def test_wrong_data_is_one_line_that_names_the_file_and_nothing_is_written(folder, words):
    fault, options = WRONG_DATA[words]
    fault(folder.data)
    before = everything(folder.root)
    code, lines = folder.run(**options)
    assert code == 2 and len(lines) == 1, lines
    assert [word for word in words.split(" | ") if word not in lines[0]] == [], lines
    assert everything(folder.root) == before


@pytest.mark.parametrize(
    "changed, said",
    [
        (dict(data="nowhere"), "data folder nowhere does not exist"),
        (dict(preset="huge"), "expected one of pixnerd-L/16"),
        (dict(layout="camvid", classes=12), "12 classes given, but layout camvid has 11"),
        (dict(classes=1), "1 classes; expected 2 to 255"),
        (dict(classes="nothing"), "no class set or file nothing"),
        (dict(layout="ade20k"), "expected images in images/training"),
        (dict(width=44), "expected multiples of 8, the patch"),
        (dict(scales=[2, 1]), "--scales 2.0 1.0"),
        (dict(tau=0), "--tau is 0"),
        (dict(eps=-1), "--eps is -1"),
        (dict(shift=0), "--shift is 0"),
        (dict(jitter=1), "--jitter is 1"),
        (dict(eps=0), "--eps is 0.0; expected a number from 1e-12"),
        (dict(scales=[1, "inf"]), "--scales 1.0 inf"),
        (dict(repa_weight="inf"), "--repa_weight is inf"),
        (dict(validate_steps=0), "--validate_steps is 0"),
        (dict(validate_count=0), "--validate_count is 0"),
        (dict(steps=0), "--steps is 0"),
        (dict(repa="nowhere.pth"), "--repa nowhere.pth"),
        (dict(repa=__file__, repa_block=3), "--repa_block is 3; expected 1 to 2"),
        (dict(model_path="nowhere"), "--model_path nowhere"),
        (dict(layout="shapes"), "invalid choice: 'shapes'"),
        *(
            ({name: value}, f"--{name} is {value}")
            for name in ("eps", "tau", "shift", "jitter", "weight", "learning_rate")
            for value in ("nan", "inf")
        ),
    ],
)
def test_wrong_options_are_one_line(folder, changed, said):
    code, lines = folder.run(**changed)
    assert code == 2 and len(lines) == 1 and said in lines[0], lines
    assert not folder.output.exists()


def test_weights_and_checkpoints_of_another_preset_are_refused(folder, monkeypatch):
    monkeypatch.setitem(
        NETWORKS, "small", dataclasses.replace(NETWORKS["tiny"], hidden_size=24, depth=1)
    )
    assert folder.run(steps=1)[0] == 0
    before = everything(folder.output)
    code, lines = folder.run(steps=2, preset="small")
    assert code == 2 and "holds another network" in lines[-1] and "--preset" in lines[-1]
    assert everything(folder.output) == before
    started = folder.output / "flowseg.safetensors"
    code, lines = folder.into("other").run(preset="small", model_path=started)
    assert code == 2 and str(started) in lines[-1] and "blocks.1" in lines[-1]
    assert not folder.output.exists()


def test_other_data_and_settings_are_refused_by_name(folder):
    assert folder.run(steps=1)[0] == 0
    for changed, said in (
        (dict(seed=3), "seed was 0, is 3"),
        (dict(eps=0.1), "eps was 0.01, is 0.1"),
    ):
        code, lines = folder.run(steps=2, **changed)
        assert code == 2 and said in lines[-1]
    write_scenes(folder.data / "train", [9])
    code, lines = folder.run(steps=2)
    assert code == 2 and "other settings: data was" in lines[-1]


def test_unchecked_data_are_told_when_they_are_met(folder):
    BEYOND(folder.data)
    code, lines = folder.run(classes=4, trust_data=True, steps=4, batch_size=6)
    assert code == 2 and "s2.png" in lines[-1] and "77" in lines[-1]


# Masks
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, "classes.txt"])
def test_black_and_white_masks_are_refused_until_they_are_mapped(folder, classes):
    for path in folder.data.rglob("*.png"):
        save_image(path, (read_label(path) % 2 * 255).astype(np.uint8))
    if classes:
        classes = folder.root / classes
        classes.write_text("land 1 2 3\nsea 4 5 6\n")
    code, lines = folder.run(classes=classes)
    assert code == 2 and len(lines) == 1 and not folder.output.exists()
    assert "0 and 255: a black-and-white mask? save 0 and 1, or --map 255:1" in lines[0]
    code, lines = folder.run(classes=classes, map=["255:1"])
    assert code == 0 and any(
        "2 of 2 classes are present; 0.0 % of the pixels are ignored" in line for line in lines
    ), lines
    assert not classes or any("2 classes of classes: land, sea" in line for line in lines)
    mapped = load_extra(folder.output / "flowseg.safetensors")["settings"]["data"]
    assert folder.into("other").run(classes=classes, map=["255:0", "0:1"])[0] == 0
    assert load_extra(folder.output / "flowseg.safetensors")["settings"]["data"] != mapped


# -- precision -------------------------------------------------------------------------------------


def test_float16_goes_on_to_the_same_numbers_and_another_precision_is_refused(folder):
    code, _ = folder.run(precision="fp16", steps=4)
    assert code == 0
    whole = arrays(folder.output / "checkpoint-00000004.safetensors")
    assert whole["loss_scale/value"] == 2.0**14 and whole["loss_scale/good_steps"] == 4
    log = (folder.output / "log.csv").read_text().splitlines()
    column = log[0].split(",").index("loss_scale")
    assert [row.split(",")[column] for row in log[1:5]] == ["16384"] * 4

    # Stopped after two steps and resumed, the numbers are the same.
    second = folder.output.parent / "second"
    assert folder.run(precision="fp16", steps=2, output=second)[0] == 0
    code, lines = folder.run(steps=4, output=second)
    assert code == 2 and "precision was fp16, is float32" in lines[-1]
    assert folder.run(precision="fp16", steps=4, output=second)[0] == 0
    resumed = arrays(second / "checkpoint-00000004.safetensors")
    assert set(resumed) == set(whole)
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values, name)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_in_half_precision_stay_near_those_of_float32(folder, precision):
    losses = []
    for kind in ("float32", precision):
        output = folder.output.parent / kind
        assert folder.run(precision=kind, steps=12, output=output)[0] == 0
        rows = (output / "log.csv").read_text().splitlines()
        column = rows[0].split(",").index("loss")
        losses.append([float(row.split(",")[column]) for row in rows[1:13]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)
    assert losses[1] != losses[0]
