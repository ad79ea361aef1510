"""Any number of files, any weights: one file, in float32, with the configuration that all of them
share.
"""

import dataclasses
import os
import pickle

import numpy as np
import pytest

from jseg.checkpoint import load, load_config, load_extra, save, weights_sha256
from jseg.commands import cli, merge_weights
from jseg.ldm.presets import UNETS

TINY = UNETS["tiny"]


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {
        "a.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "a.bias": rng.standard_normal(3).astype(np.float32),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.pkl", "b.npz", "c.safetensors")):
        save(name, arrays(seed), TINY)
    return tmp_path


def merge(capsys, save_path, *parts, options=()):
    code = cli.run(
        merge_weights.main, ["--ckpts", *map(str, parts), "--save_path", str(save_path), *options]
    )
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, save_path, *parts):
    before = {name: weights_sha256(name) for name in os.listdir(".") if os.path.isfile(name)}
    code, _, err = merge(capsys, save_path, *parts)
    assert code == 2 and err.count("\n") == 1 and err.startswith("jseg merge_weights: ")
    assert {
        name: weights_sha256(name) for name in os.listdir(".") if os.path.isfile(name)
    } == before
    return err


def mean(*fractions):
    total = sum(fractions)
    return {
        name: (
            sum(
                share / total * arrays(seed)[name].astype(np.float64)
                for seed, share in enumerate(fractions)
            )
        )
        for name in arrays(0)
    }


@pytest.mark.parametrize("save_path", ("out.pkl", "out.npz", "out.safetensors"))
def test_three_files_with_weights(folder, capsys, save_path):
    code, out, _ = merge(capsys, save_path, "a.pkl:0.5", "b.npz:2", "c.safetensors")
    given = load(save_path)
    assert code == 0 and load_config(save_path) == TINY and weights_sha256(save_path) in out
    for name, array in mean(0.5, 2, 1).items():
        assert given[name].dtype == np.float32
        assert np.allclose(given[name], array, rtol=1e-6, atol=1e-9)
    assert load_extra(save_path)["merged_from"] == [
        {"file": "a.pkl", "weight": 0.5 / 3.5},
        {"file": "b.npz", "weight": 2 / 3.5},
        {"file": "c.safetensors", "weight": 1 / 3.5},
    ]


def test_the_release_s_call_and_its_result(folder, capsys):
    # release: the default pair only, equal weights, a float64 pickle; here: the same mean, which
    # jittor.load and pickle read.
    for name, seed in (("176000.pkl", 0), ("266000.pkl", 1)):
        with open(name, "wb") as file:
            pickle.dump(arrays(seed), file)
    assert merge(capsys, "average-176k-266k.pkl", "176000.pkl:0.5", "266000.pkl:0.5")[0] == 0
    with open("average-176k-266k.pkl", "rb") as file:
        given = pickle.load(file)
    assert {name: array.dtype for name, array in given.items()} == {
        "a.weight": np.float32,
        "a.bias": np.float32,
    }
    assert all(
        np.array_equal(given[name], array.astype(np.float32)) for name, array in mean(1, 1).items()
    )
    assert load_config("average-176k-266k.pkl") is None


def test_a_result_of_an_earlier_version_is_replaced(folder, capsys):
    """Its record calls the weight of a part "share"."""
    assert merge(capsys, "mean.npz", "a.pkl", "b.npz:3")[0] == 0
    about = load_extra("mean.npz")
    parts = [{"file": part["file"], "share": part["weight"]} for part in about["merged_from"]]
    save("mean.npz", load("mean.npz"), load_config("mean.npz"), **{**about, "merged_from": parts})
    code, lines = merge(capsys, "mean.npz", "a.pkl", "b.npz:3")[:2]
    assert code == 0 and load_extra("mean.npz") == about
    assert "was made from others" in failure(capsys, "mean.npz", "a.pkl", "b.npz:2")


def test_moving_averages_or_the_models(folder, capsys):
    save("trained.safetensors", arrays(0), TINY, ema=arrays(1))
    assert merge(capsys, "ema.npz", "trained.safetensors")[0] == 0
    assert merge(capsys, "model.npz", "trained.safetensors", options=("--weights", "model"))[0] == 0
    assert np.array_equal(load("ema.npz")["a.bias"], arrays(1)["a.bias"])
    assert np.array_equal(load("model.npz")["a.bias"], arrays(0)["a.bias"])


@pytest.mark.parametrize(
    "part, expected",
    (
        ("a.pkl", ("a.pkl", 1.0)),
        ("a.pkl:0.25", ("a.pkl", 0.25)),
        ("a.pkl:-1", ("a.pkl", -1.0)),
        ("a.pkl:1e-3", ("a.pkl", 1e-3)),
        ("dir:x/a.pkl", ("dir:x/a.pkl", 1.0)),
        ("dir:x/a.pkl:2", ("dir:x/a.pkl", 2.0)),
        ("step:7", ("step:7", 1.0)),
        ("step:7:3", ("step:7", 3.0)),
    ),
)
def test_colons(folder, part, expected):
    save("step.npz", arrays(0))
    os.rename("step.npz", "step:7")
    assert merge_weights.split_part(part) == expected


@pytest.mark.parametrize("part", ("a.pkl:nan", "a.pkl:inf", ":0.5"))
def test_weights_that_are_none(folder, capsys, part):
    assert "expected FILE or FILE:WEIGHT" in failure(capsys, "out.npz", part)


def test_inputs_are_never_overwritten(folder, capsys):
    os.symlink("a.pkl", "link.pkl")
    os.link("a.pkl", "hard.pkl")
    for save_path in ("a.pkl", "./a.pkl", folder / "a.pkl", "link.pkl", "hard.pkl"):
        assert "is one of the inputs" in failure(capsys, save_path, "a.pkl", "b.npz")


def test_only_an_older_result_of_the_same_parts_is_replaced(folder, capsys):
    assert "wrote out.npz" in merge(capsys, "out.npz", "a.pkl", "b.npz")[1]
    first = weights_sha256("out.npz")
    assert "replaced out.npz" in merge(capsys, "out.npz", "a.pkl", "b.npz")[1]
    assert weights_sha256("out.npz") == first
    assert "it exists and was made from others" in failure(
        capsys, "out.npz", "a.pkl", "c.safetensors"
    )
    assert "it exists and was made from others" in failure(capsys, "out.npz", "a.pkl:3", "b.npz")
    save("a.pkl", arrays(8), TINY)  # the same names, other contents
    assert "it exists and was made from others" in failure(capsys, "out.npz", "a.pkl", "b.npz")


def test_what_something_else_wrote_is_never_replaced(folder, capsys):
    save("trained.npz", arrays(9), TINY, step=3)
    with open("notes.pkl", "wb") as file:
        file.write(b"my notes")
    os.symlink("trained.npz", "link.npz")
    os.symlink("nowhere.npz", "dangling.npz")
    for name, word in (
        ("trained.npz", "not made by this command"),
        ("notes.pkl", "was not written by this command"),
        ("link.npz", "not made by this command"),
        ("dangling.npz", "link to nowhere.npz, which is not there"),
    ):
        assert word in failure(capsys, name, "a.pkl", "b.npz")


def test_a_missing_folder_is_made_and_told_and_goes_again_if_nothing_was_written(folder, capsys):
    code, out, _ = merge(capsys, "new/deep/out.npz", "a.pkl")
    assert code == 0 and f"made the folder {folder / 'new'}, which" in out
    assert f"made the folder {folder / 'new' / 'deep'}, which" in out
    save("nan.npz", {"a.weight": np.full((3, 4), np.nan), "a.bias": np.ones(3)}, TINY)
    failure(capsys, "other/out.npz", "nan.npz")
    os.symlink("nowhere", "gone")
    assert "is a link to nowhere; expected a folder" in failure(capsys, "gone/out.npz", "a.pkl")
    assert "a.pkl is a file; expected a folder" in failure(capsys, "a.pkl/out.npz", "b.npz")
    assert not os.path.exists("other") and not os.path.exists("nowhere")


def trained(name, values, **settings):
    save(name, arrays(values), TINY, step=settings.pop("step", 10), settings=settings)
    return name


def test_settings_on_which_all_parts_agree_are_kept_and_the_others_named(folder, capsys):
    trained("one.npz", 0, autoencoder="aa", learning_rate=1e-4, seed=1, zero_init="zero")
    trained("two.npz", 1, autoencoder="aa", learning_rate=2e-4, seed=2, step=20)
    code, out, _ = merge(capsys, "out.npz", "one.npz", "two.npz")
    assert code == 0 and load_extra("out.npz")["settings"] == {"autoencoder": "aa"}
    assert "step" not in load_extra("out.npz")
    assert "kept 1 setting on which all parts agree: autoencoder" in out
    assert (
        "left out 3 settings that differ or that not all parts have: learning_rate, seed, zero_init"
        in out
    )


def test_a_part_that_does_not_say_takes_the_setting_from_the_result(folder, capsys):
    trained("one.npz", 0, autoencoder="aa")
    code, out, _ = merge(capsys, "out.npz", "one.npz", "a.pkl")
    assert (
        code == 0
        and "settings" not in load_extra("out.npz")
        and "left out 1 setting that differs" in out
    )
    assert "autoencoder" in out


ENCODERS = "different autoencoders (aaaaaaaaaaaa..., bbbbbbbbbbbb...)"
SEA, TREE = ({"names": ["sky", name]} for name in ("sea", "tree"))


@pytest.mark.parametrize(
    "name, one, two, word",
    (
        ("autoencoder", "a" * 64, "b" * 64, ENCODERS),
        ("classes", SEA, TREE, "different classes (2 classes: sky, sea..., 2 classes"),
        ("shift", 1.0, 20.0, "different --shift (1.0, 20.0)"),
    ),
)
def test_parts_that_mean_different_things_are_refused(name, one, two, word, folder, capsys):
    trained("one.npz", 0, **{name: one})
    trained("two.npz", 1, **{name: two})
    assert word in failure(capsys, "out.npz", "one.npz", "a.pkl", "two.npz")


def test_the_merged_file_finds_its_autoencoder(folder, capsys, monkeypatch):
    from support.tiny import saved

    from jseg.ldm import weights
    from jseg.ldm.presets import AUTOENCODERS

    shipped = saved(folder / "shipped.safetensors", AUTOENCODERS["tiny"])
    monkeypatch.setattr(weights, "SHIPPED_AUTOENCODER", shipped)
    for seed, name in enumerate(("one.npz", "two.npz")):
        trained(name, seed, autoencoder=weights.encoder_digest(shipped))
    assert merge(capsys, "mean.npz", "one.npz", "two.npz")[0] == 0
    assert weights.find_weights("mean.npz").autoencoder.path == shipped


def test_files_that_do_not_go_together(folder, capsys):
    save("deeper.npz", {**arrays(0), "b.weight": np.ones(2)})
    message = failure(capsys, "out.npz", "a.pkl", "deeper.npz")
    assert "deeper.npz: cannot be averaged with a.pkl" in message
    assert "1 unexpected (b.weight)" in message
    save("heads.npz", arrays(0), dataclasses.replace(TINY, head_channels=32))
    assert "head_channels 16 and 32" in failure(capsys, "out.npz", "a.pkl", "heads.npz")
    assert "sum is not 0" in failure(capsys, "out.npz", "a.pkl:1", "b.npz:-1")
    save("nan.npz", {"a.weight": np.full((3, 4), np.nan), "a.bias": np.ones(3)}, TINY)
    assert "nan.npz: a.weight holds NaN" in failure(capsys, "out.npz", "a.pkl", "nan.npz")
    assert "does not exist" in failure(capsys, "out.npz", "nowhere.pkl:2")
    assert "ends in" in failure(capsys, "out.pth", "a.pkl")


def test_the_configuration_is_kept_only_if_all_have_it(folder, capsys):
    save("bare.npz", arrays(3))
    code, out, _ = merge(capsys, "out.npz", "a.pkl", "bare.npz")
    assert code == 0 and load_config("out.npz") is None and "not stored" in out
