"""The training commands as a user calls them, on tiny networks and drawn data."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from support.calls import TrainingFolder, called, everything, words
from support.faults import cut, drawn, emptied, removed
from support.tiny import HEIGHT, WIDTH, label_map, photograph, saved

from jseg.checkpoint import load, load_config, load_extra
from jseg.commands import cli, train, train_autoencoder
from jseg.commands import test as test_command
from jseg.images import read_image, save_image
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.machine.facts import cores
from jseg.training import memory
from jseg.training.changes import LABEL, WHEN_MISSING
from jseg.training.records import checkpoints


class Folder(TrainingFolder):
    """Training data under `root` and a call of a command on it; `run` returns (exit code, stderr's
    lines).
    """

    def __init__(self, root, autoencoder, capsys):
        super().__init__(root, capsys)
        self.autoencoder = autoencoder
        for name in ("imgs", "labels"):
            (self.data / name).mkdir(parents=True)
        for seed in range(5):
            save_image(self.data / "imgs" / f"p{seed}.jpg", photograph(seed))
            save_image(self.data / "labels" / f"p{seed}.png", label_map(seed))

    def run(self, command=train, **changed):
        options = dict(
            input_path=self.data,
            output=self.output,
            ae_path=self.autoencoder,
            preset="tiny",
            steps=3,
            batch_size=4,
            save_interval=2,
            log_interval=1,
            preview_interval=0,
            device="cpu",
        )
        return called(command, self.capsys, **{**options, **changed})


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    return saved(
        tmp_path_factory.mktemp("autoencoder") / "autoencoder.safetensors", AUTOENCODERS["tiny"]
    )


@pytest.fixture
def folder(tmp_path, autoencoder, capsys):
    return Folder(tmp_path, autoencoder, capsys)


SMALL = dict(ae_path=None, width=WIDTH, height=HEIGHT, crop=32, critic_start=-1)
COMMANDS = pytest.mark.parametrize(
    "command, own", [(train, {}), (train_autoencoder, SMALL)], ids=["train", "train_autoencoder"]
)


def assert_older_trainings_go_on(folder, known):
    """known: the settings of the first version; others have a meaning where they are missing."""
    settings = load_extra(checkpoints(folder.output)[-1])["settings"]
    assert set(settings) <= {*known.split(), LABEL, *WHEN_MISSING}


def test_the_first_line_names_the_autoencoder(folder):
    from jseg.ldm.weights import autoencoder_line

    code, lines = folder.run(steps=1)
    assert code == 0 and lines[0] == f"jseg train: {autoencoder_line(folder.autoencoder)}"


def test_training_from_a_folder_to_images(folder):
    code, lines = folder.run(preview_interval=3)
    assert code == 0 and any("10 examples" in line for line in lines), lines
    assert "3 steps are done" in lines[-1]
    assert [row["step"] for row in folder.rows()] == ["1", "2", "3"]
    assert float(folder.rows()[0]["mse"]) > 0
    assert [path.name for path in checkpoints(folder.output)] == [
        "checkpoint-00000002.safetensors",
        "checkpoint-00000003.safetensors",
    ]
    assert read_image(folder.output / "preview-00000003.png").ndim == 3
    assert load_config(folder.output / "unet.safetensors") == UNETS["tiny"]
    assert_older_trainings_go_on(
        folder,
        "autoencoder batch_size data drop ema learning_rate seed weight_decay zero_init",
    )
    labels = folder.data / "labels"
    (labels / "label_to_img.json").write_text(
        json.dumps({f"p{seed}.png": f"p{seed}.jpg" for seed in range(5)})
    )
    (folder.root / "stages.json").write_text(
        '{"base": "fine", "stages": [{"guidance": 2.0, "respacing": "ddim10", "start_index": 2}]}'
    )
    for weights in ("unet.safetensors", "checkpoint-00000002.safetensors"):
        output = folder.root / weights[:4]
        options = dict(
            input_path=labels,
            img_path=folder.data,
            output_path=output,
            model_path=folder.output / weights,
            ae_path=folder.autoencoder,
            stages=folder.root / "stages.json",
            limit=1,
        )
        assert cli.run(test_command.main, words(**options)) == 0
        assert read_image(output / "p0.jpg").shape == (HEIGHT, WIDTH, 3)


def times_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


def test_the_same_command_again_goes_on_and_encodes_nothing(folder):
    folder.run(steps=2)
    before = times_of(folder.output / "latents")
    code, lines = folder.run(steps=4)
    assert code == 0 and before and any("going on from" in line for line in lines)
    assert not any("to be encoded" in line for line in lines)
    assert times_of(folder.output / "latents") == before
    assert [row["step"] for row in folder.rows()] == ["1", "2", "3", "4"]


def test_micro_batches_and_recompute_give_the_same_update(folder):
    results = []
    for name, options in (
        ("whole", {}),
        ("cut", {"micro_batch": 1}),
        ("again", {"recompute": True}),
    ):
        assert folder.into(name).run(steps=2, **options)[0] == 0
        results.append(load(folder.output / "checkpoint-00000002.safetensors", weights="model"))
    for other in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_allclose(other[key], value, atol=2e-5)


def test_another_start_is_another_run_and_weights_can_be_taken_over(folder):
    folder.run(steps=2)
    first = folder.output
    assert folder.into("second").run(steps=2, seed=7)[0] == 0
    assert not np.array_equal(
        load(first / "unet.safetensors")["out.2.weight"],
        load(folder.output / "unet.safetensors")["out.2.weight"],
    )
    assert (
        folder.into("third").run(
            steps=1, model_path=first / "unet.safetensors", learning_rate=1e-9
        )[0]
        == 0
    )
    np.testing.assert_allclose(
        load(folder.output / "unet.safetensors")["out.2.weight"],
        load(first / "unet.safetensors")["out.2.weight"],
        atol=1e-7,
    )


def test_zero_init_and_the_release_s(folder):
    for name, zero in (("zero", True), ("release", False)):
        folder.into(name).run(steps=1, zero_init=name, learning_rate=1e-12)
        weight = load(folder.output / "checkpoint-00000001.safetensors", weights="model")[
            "out.2.weight"
        ]
        assert (np.abs(weight).max() < 1e-6) == zero


def test_the_release_s_recipe_whatever_else_is_given(folder, monkeypatch):
    monkeypatch.setattr(train, "RELEASE", {**train.RELEASE, "preset": "tiny"})
    assert folder.run(steps=1, release=True, learning_rate=0.5, batch_size=2)[0] == 0
    settings = load_extra(folder.output / "checkpoint-00000001.safetensors")["settings"]
    recipe = dict(learning_rate=1e-4, ema=0.9999, drop=0.2, batch_size=5, weight_decay=0.0)
    recipe["zero_init"] = "release"
    assert {name: settings[name] for name in recipe} == recipe
    assert train.RELEASE["zero_init"] == "release"


def test_classes_of_one_s_own(folder):
    (folder.root / "classes.txt").write_text(
        "".join(f"thing-{i} {i} {i} {i}\n" for i in range(31)) + "ignore 31\n"
    )
    label = np.full((HEIGHT, WIDTH), 31, np.uint8)
    label[:20] = 30
    save_image(folder.data / "labels" / "p0.png", label)
    code, lines = folder.run(steps=1, classes=folder.root / "classes.txt", preview_interval=1)
    assert code == 0, lines
    assert load_config(folder.output / "unet.safetensors").classes == 31


def test_the_autoencoder_trains_too(folder):
    options = dict(SMALL, steps=4, critic_start=2, critic_channels=8, preview_interval=4)
    code, lines = folder.run(command=train_autoencoder, **options)
    assert code == 0 and "4 steps are done" in lines[-1], lines
    assert_older_trainings_go_on(
        folder,
        "batch_size codebook_weight commitment_weight critic_channels critic_start critic_weight "
        "crop ema height learning_rate pictures preset seed weight_decay width",
    )
    rows = folder.rows()
    assert rows[0]["l1"] and not rows[0].get("critic/loss") and float(rows[3]["critic/loss"]) > 0
    assert 0 < float(rows[0]["codes_used"]) <= 1 and float(rows[0]["perplexity"]) >= 1
    result = load(folder.output / "autoencoder.safetensors")
    assert load_config(folder.output / "autoencoder.safetensors") == AUTOENCODERS["tiny"]
    first = folder.output
    folder.output = folder.root / "decoder"
    options = dict(SMALL, decoder_only=True, model_path=first / "autoencoder.safetensors")
    assert folder.run(command=train_autoencoder, steps=2, **options)[0] == 0
    tuned = load(folder.output / "autoencoder.safetensors")
    for name, value in result.items():
        assert np.array_equal(value, tuned[name]) == (
            not name.startswith(("decoder.", "post_quant_conv."))
        ), name


def test_the_autoencoder_refuses_half_precision(folder):
    code, lines = folder.run(command=train_autoencoder, precision="bf16", **SMALL)
    assert code == 2 and lines[0].endswith("rounds away; expected float32 or tf32")
    assert len(lines) == 1 and not folder.output.exists()


def test_another_precision_is_refused_before_any_image_is_encoded(folder, monkeypatch):
    assert folder.run(steps=1)[0] == 0
    monkeypatch.setattr(train, "_latents", lambda *_: pytest.fail("latents were asked for"))
    code, lines = folder.run(steps=2, precision="bf16")
    assert code == 2 and "precision was float32, is bf16" in lines[-1]


@COMMANDS
def test_held_out_images_are_validated_on_and_not_trained_on(folder, command, own):
    options = dict(command=command, steps=3, **own)
    code, lines = folder.run(validate_count=2, validate_interval=1, **options)
    assert code == 0 and any("2 " in line and "to validate on" in line for line in lines), lines
    losses = {
        int(row["step"]): float(row["validation/loss"])
        for row in folder.rows()
        if row["validation/loss"]
    }
    best = load_extra(folder.output / "best.safetensors")
    assert set(losses) == {1, 2, 3} and best["score"] == pytest.approx(min(losses.values()))
    assert losses[best["step"]] == min(losses.values())

    # The same without these images, and without a validation.
    held_out = folder.output / "checkpoint-00000003.safetensors"
    folder.output = folder.root / "without"
    for stem in ("p0", "p4"):
        for path in folder.data.rglob(stem + ".*"):
            path.unlink()
    assert folder.run(**options)[0] == 0
    result = load(folder.output / "checkpoint-00000003.safetensors", weights="model")
    for name, value in load(held_out, weights="model").items():
        np.testing.assert_array_equal(value, result[name], name)


def test_another_validate_count_is_refused_before_a_latent_is_touched(folder):
    assert folder.run(steps=2, validate_count=1)[0] == 0
    before = everything(folder.output)
    code, lines = folder.run(steps=3, validate_count=2)
    assert code == 2 and "validate_count was 1, is 2; give the old ones to go on" in lines[-1]
    assert everything(folder.output) == before
    code, lines = folder.run(steps=3, validate_interval=1)
    assert code == 2 and "--validate_interval is 1 and nothing is held out" in lines[-1]


def test_the_best_autoencoder_is_one_that_could_be_the_result(folder):
    """Its latents have unit variance, which is seen to at the end alone."""
    options = dict(SMALL, command=train_autoencoder, steps=2, learning_rate=1e-2, save_interval=1)
    code, lines = folder.run(validate_count=1, **options)
    assert code == 0, lines
    best = load_extra(folder.output / "best.safetensors")["step"]
    assert folder.into("whole").run(validate_count=1, **{**options, "steps": best})[0] == 0
    result = load(folder.output / "autoencoder.safetensors")
    for name, value in load(folder.root / "run" / "best.safetensors").items():
        np.testing.assert_array_equal(value, result[name], name)


@COMMANDS
def test_the_rate_may_rise_and_fall(folder, command, own):
    results = []
    for name, options in (("plain", {}), ("warmup", {"warmup": 9}), ("decay", {"decay": "linear"})):
        assert folder.into(name).run(command=command, steps=2, **options, **own)[0] == 0
        results.append(load(folder.output / "checkpoint-00000002.safetensors", weights="model"))
    for other in results[1:]:
        assert any(not np.array_equal(other[name], value) for name, value in results[0].items())
    code, lines = folder.run(command=command, steps=3, decay="linear", **own)
    assert code == 0 and any("changed from step 2 on: steps 2 -> 3" in line for line in lines)


@COMMANDS
def test_trusted_data_are_not_read_first(folder, command, own):
    (folder.data / "imgs" / "p3.jpg").unlink()
    deep = Image.new("I;16", (WIDTH, HEIGHT), 40000)
    deep.save(folder.data / "imgs" / "p3.png")
    for trusted in (False, True):
        code, lines = folder.into(str(trusted)).run(
            command=command, steps=1, trust_data=trusted, **own
        )
        remarks = [line for line in lines if "images are reduced from 16 bits" in line]
        assert code == 0 and bool(remarks) != trusted, lines


def test_what_is_special_in_an_autoencoder_s_images_is_told_before_the_training(folder):
    images = folder.data / "imgs"
    Image.new("I;16", (WIDTH, HEIGHT), 40000).save(images / "deep.png")
    (images / "notes.docx").write_text("x")
    code, lines = folder.run(command=train_autoencoder, steps=1, **SMALL)
    assert code == 0
    for said in (
        "images are reduced from 16 bits (deep.png)",
        "images are of one colour (deep.png)",
        "left out (notes.docx)",
    ):
        assert any(said in line for line in lines), (said, lines)
    (images / "torn.png").write_bytes((images / "deep.png").read_bytes()[:60])
    code, lines = folder.into("other").run(command=train_autoencoder, steps=1, **SMALL)
    assert code == 2 and len(lines) == 1 and "torn.png" in lines[0] and not folder.output.exists()


@COMMANDS
def test_names_of_bytes_that_are_no_utf_8_are_names_like_others(folder, command, own):
    name = b"\xc4\xe3".decode("utf-8", "surrogateescape")
    for path in (folder.data / "imgs/p0.jpg", folder.data / "labels/p0.png"):
        path.rename(path.with_name(name + path.suffix))
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python opens it; pytest's own is strict
    code, lines = folder.run(command=command, steps=1, preview_interval=1, **own)
    assert code == 0 and "1 step is done" in lines[-1], lines


WRONG_DATA = {
    "imgs": emptied("imgs"),
    "p2": removed("imgs/p2.jpg"),
    "p1.png": drawn("labels/p1.png", np.full((HEIGHT, WIDTH), 77, np.uint8)),
    "p3.jpg": cut("imgs/p3.jpg", 200),
    "p0.jpg": drawn("imgs/p0.jpg", photograph(0, 48, 64)),
}


@pytest.mark.parametrize("named", WRONG_DATA)
def test_wrong_data_is_one_line_that_names_the_file_and_nothing_is_written(folder, named):
    WRONG_DATA[named](folder.data)
    code, lines = folder.run()
    assert code == 2 and len(lines) == 1 and named in lines[0] and not folder.output.exists()


@pytest.mark.parametrize(
    "changed, said",
    [
        (dict(steps=0), "--steps is 0; expected 1 or more"),
        (dict(epochs=1), "give one"),
        (dict(learning_rate=3), "--learning_rate is 3"),
        (dict(ema=1), "--ema is 1"),
        (dict(drop=1.5), "--drop is 1.5"),
        (dict(preset="huge"), "expected one of release"),
        (dict(width=70), "expected multiples of 8"),
        (dict(ae_path="nowhere.safetensors"), "--ae_path nowhere.safetensors does not exist"),
        (dict(model_path="nowhere.pkl"), "--model_path nowhere.pkl does not exist"),
        (dict(resume="nowhere"), "--resume nowhere does not exist"),
        (dict(classes="nothing-7"), "no class set or file nothing-7"),
        (dict(batch_size=4, micro_batch=0), "--micro_batch is 0"),
        (dict(num_workers=-1), "--num_workers is -1; expected 0 or more"),
        (dict(num_workers=10_000), f"--num_workers is 10000; expected {8 * cores()} at most"),
        (dict(recompute=True, no_recompute=True), "not allowed with argument --recompute"),
        (dict(width=0), "--width 0 --height"),
        (dict(height=0), "--height 0: expected multiples of"),
        (dict(warmup=-1), "--warmup is -1; expected 0 or more"),
        (dict(validate_count=5), "--validate_count is 5; expected fewer than 5"),
        (dict(precision="half"), "invalid choice: 'half'"),
        (dict(precision="tf32"), "a CPU has no TF32"),
    ],
)
def test_wrong_options_are_one_line(folder, changed, said):
    code, lines = folder.run(**changed)
    assert code == 2 and len(lines) == 1 and said in lines[0], lines
    assert not folder.output.exists()


def test_a_cache_of_another_autoencoder_is_refused(folder, tmp_path):
    folder.run(steps=1)
    other = saved(
        tmp_path / "other.safetensors",
        AUTOENCODERS["tiny"],
        **{"quant_conv.bias": np.ones(3, np.float32)},
    )
    code, lines = folder.run(ae_path=other)
    assert code == 2 and "another autoencoder" in lines[-1]


def test_a_checkpoint_of_another_network_or_other_settings_is_refused(folder):
    folder.run(steps=1)
    before = (folder.output / "checkpoint-00000001.safetensors").read_bytes()
    for changed, said in (
        (dict(dropout=0.1), "another network"),
        (dict(seed=3), "seed was 0, is 3"),
    ):
        code, lines = folder.run(**changed)
        assert code == 2 and said in lines[-1]
    assert (folder.output / "checkpoint-00000001.safetensors").read_bytes() == before


def test_too_large_a_batch_is_told_with_one_that_fits(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 20)
    code, lines = folder.run(batch_size=4096)
    assert code == 2 and "4096 examples at a time need about" in lines[-1]
    assert "give --micro_batch" in lines[-1]
    assert checkpoints(folder.output) == []


def test_a_published_folder_of_squares_is_trained_on_as_it_is(folder):
    for split in ("training", "validation"):
        for place, made in (("images", photograph), ("annotations", label_map)):
            (folder.root / "ade" / place / split).mkdir(parents=True)
            for seed in range(3):
                square = np.ascontiguousarray(made(seed)[:, :HEIGHT])
                save_image(folder.root / "ade" / place / split / f"p{seed}.png", square)
    options = dict(input_path=folder.root / "ade", layout="ade20k", steps=1)
    code, lines = folder.run(**options)
    assert code == 2 and len(lines) == 1 and "--fit crop" in lines[0] and not folder.output.exists()
    code, lines = folder.run(fit="crop", **options)
    assert code == 0, lines
    assert any(
        "150 classes of ade20k-150: wall, building" in line and "1..150" in line for line in lines
    )
    said = "of 3 examples in the validation folder 3 are validated on and none trained on"
    assert any(said in line for line in lines)
    assert any("classes are present, absent: " in line for line in lines)
    assert any("6 examples, 3 to validate on, " in line for line in lines)
    assert np.isfinite(load_extra(folder.output / "best.safetensors")["score"])

    code, lines = folder.into("other").run(
        fit="crop", validate_count=0, validate_interval=1, **options
    )
    assert code == 2 and "nothing is held out to validate on" in lines[-1]
    folder.into("run")

    # The option rules, and changes nothing of what is trained on.
    count = dict(fit="crop", validate_count=1, **{**options, "steps": 2})
    code, lines = folder.run(**count)
    assert code == 0 and any("6 examples, 1 to validate on, " in line for line in lines), lines
    assert load_config(folder.output / "unet.safetensors").classes == 150
    code, lines = folder.run(fit="crop", classes="camvid-11", **options)
    assert code == 2 and "--classes camvid-11 and --layout ade20k" in lines[0]
