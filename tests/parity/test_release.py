"""What a comparison with the release is made of: inputs, differences, verdicts, the table, and what
keeps the release running.
"""

import dataclasses
import importlib
import json
import sys

import numpy as np
import pytest
from support.golden_networks import SMALL_AUTOENCODER, SMALL_UNET, golden
from support.places import ROOT

from jseg import checkpoint
from jseg.formats.record import MemoryArray
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.nn.layers import GroupNorm
from jseg.parity.release import computing, differences, inputs, nudges, official, ours, table
from jseg.parity.release.parts import BOUND, EXACT, MEASURES, PARTS, SIDES, Row
from jseg.parity.stand_in import value
from jseg.runtime import jt


def held(**arrays):
    return {
        name.replace("__", "/"): MemoryArray(name, np.asarray(array))
        for name, array in arrays.items()
    }


def compared(measure, a, b, name="x"):
    return differences.compare(Row(name, "", measure), held(**a), held(**b))


# Differences
# --------------------------------------------------------------------------------------------------


def test_each_measure_is_what_it_says():
    a, b = np.array([1.0, -4.5], np.float32), np.array([1.0, -4.0], np.float32)
    assert compared("values", {"x": a}, {"x": b}) == (0.5, 0.125)
    largest, relative = compared("norm", {"x__p": a, "x__q": a * 0}, {"x__p": b, "x__q": b * 0})
    assert largest == 0.5 and relative == pytest.approx(0.5 / np.sqrt(17))
    assert compared(
        "levels", {"x": np.array([0, 255], np.uint8)}, {"x": np.array([2, 255], np.uint8)}
    ) == (2, 1 / 255)
    assert compared("entries", {"x": np.array([1, 2, 3, 4])}, {"x": np.array([1, 9, 3, 4])}) == (
        1,
        0.25,
    )
    names = [np.frombuffer(text, np.uint8) for text in (b"a [1]\nb [2]", b"a [1]\nb [3]")]
    assert compared("names", {"x": names[0]}, {"x": names[0]}) == (0, 0)
    assert compared("names", {"x": names[0]}, {"x": names[1]}) == (2, 1)
    assert set(MEASURES) == {row.measure for part in PARTS.values() for row in part.rows}


def test_rows_see_their_own_arrays_alone_and_zeros_are_equal():
    assert compared(
        "values", {"x": np.ones(2), "xy": np.ones(2)}, {"x": np.ones(2), "xy": np.zeros(2)}
    ) == (0, 0)
    assert compared("values", {"x": np.zeros(2)}, {"x": np.zeros(2)}) == (0, 0)
    assert compared("values", {"x": np.ones(2)}, {"x": np.zeros(2)})[1] == np.inf


@pytest.mark.parametrize(
    "a, b",
    [
        ({"x": np.ones(2)}, {"x": np.ones(3)}),
        ({"x": np.ones(2)}, {}),
        ({}, {}),
        ({"x": np.array([1, np.nan])}, {"x": np.array([1, np.nan])}),
        ({"x__a": np.ones(1)}, {"x__b": np.ones(1)}),
    ],
)
def test_what_cannot_be_compared_is_infinitely_far(a, b):
    assert compared("values", a, b) == (np.inf, np.inf)


# Verdicts and the table
# ---------------------------------------------------------------------------------------------


def put(folder, part, side, **arrays):
    """Results as a child leaves them; every row of the part has the array 1, unless another is
    given.
    """
    results, record = inputs.result_paths(folder, part, side)
    results.parent.mkdir(exist_ok=True)
    rows = {
        row.name: arrays.get(row.name, np.ones((1, 3, 8, 8), np.float32))
        for row in PARTS[part].rows
    }
    checkpoint.save(results, rows)
    record.write_text(
        json.dumps(
            {
                "key": "k",
                "seconds": dict.fromkeys(rows, {"release": 3.0, "ours": 1.5}.get(side)),
                "gigabytes": 1.0,
                "nudges": ["nudge of " + side],
                "device": "cpu",
                "jittor": "1",
                "numpy": "1",
            }
        )
    )


def array(excess):
    return np.ones((1, 3, 8, 8), np.float32) + np.float32(excess)


def test_a_difference_is_the_release_s_rounding_where_exact_norms_side_with_us(tmp_path):
    put(tmp_path, "encode", "ours", latent=array(1e-3))
    put(tmp_path, "encode", "release")
    (record,) = differences.records(tmp_path, "encode", {})
    assert record["verdict"] == "DIFFERS"
    assert differences.doubtful([record])
    assert record["relative"] == pytest.approx(1e-3, rel=1e-3)
    put(tmp_path, "encode", EXACT, latent=array(1e-3 + BOUND / 2))
    (record,) = differences.records(tmp_path, "encode", {}, exact=True)
    assert record["verdict"] == "release's rounding"
    assert "ours 5.0e-05, the release itself 1.0e-03" in record["note"]
    put(tmp_path, "encode", EXACT)
    (record,) = differences.records(tmp_path, "encode", {}, exact=True)
    assert record["verdict"] == "DIFFERS"
    assert "ours 1.0e-03, the release itself 0.0e+00" in record["note"]
    assert table.nudges_of(tmp_path, [record]) == ["nudge of release", "nudge of exact"]


def test_rows_that_differ_on_purpose_are_held_to_no_bound_and_failures_say_why(tmp_path):
    for side, value_of in (("ours", 0), ("release", 200)):
        put(
            tmp_path,
            "colour",
            side,
            image=np.zeros((4, 4, 3), np.uint8),
            flat=np.full((4, 4, 3), value_of, np.uint8),
        )
    found = differences.records(tmp_path, "colour", {})
    assert [record["verdict"] for record in found] == ["ok", "on purpose"]
    assert not differences.doubtful(found)
    failed = differences.records(
        tmp_path, "merge", {"release": "the process ended with -9: | no output"}
    )
    text = table.page(
        found + failed, {"machine": "this"}, table.nudges_of(tmp_path, found + failed), image=True
    )
    assert "2 of 3 rows are fine" in text
    assert "on purpose (no. 13)" in text
    assert "ended with -9: / no output" in text
    assert "| 3.00 s | 1.50 s | 2.00 | 1.00 GB | 1.00 GB |" in text
    assert "- nudge of release" in text
    assert "comparison.png" in text
    lines = table.table(found + failed).splitlines()
    assert len({text.count("|") for text in lines}) == 1 and len(lines) == 5


def test_what_is_infinite_is_null_in_json(tmp_path):
    put(tmp_path, "encode", "ours", latent=array(np.nan))
    put(tmp_path, "encode", "release")
    found = differences.records(tmp_path, "encode", {})
    assert found[0]["verdict"] == "DIFFERS" and "| inf | inf |" in table.line(found[0])
    assert json.loads(json.dumps(table.plain(found), allow_nan=False))[0]["relative"] is None
    assert table.sheet(tmp_path, {}, found) is None


def test_purposes_are_numbers_of_the_page_of_differences():
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    for part in PARTS.values():
        assert all(f"\n| {row.purpose} | " in text for row in part.rows if row.purpose)


def test_the_sheet_shows_what_there_is(tmp_path):
    put(tmp_path, "decode", "ours", image=array(-0.9))
    put(tmp_path, "decode", "release", image=array(-1.0))
    found = differences.records(tmp_path, "decode", {})
    sheet = table.sheet(tmp_path, {}, found)
    assert sheet.ndim == 3 and sheet.dtype == np.uint8 and sheet.shape[1] > 4 * 256
    assert table.sheet(tmp_path, {}, []) is None
    assert (
        table.sheet(tmp_path, {}, differences.records(tmp_path, "decode", {"ours": "why"})) is None
    )


# Inputs
# --------------------------------------------------------------------------------------------------


def setting(**changed):
    found = inputs.Setting("clone", SMALL_UNET, SMALL_AUTOENCODER, "u", "a", 2, 2, 1, "cpu")
    return dataclasses.replace(found, **changed)


def test_inputs_are_read_as_they_were_written_and_always_the_same(tmp_path):
    written = inputs.write(tmp_path, setting())
    found, arrays = inputs.read(tmp_path)
    assert found == setting()
    assert set(arrays) == set(written)
    assert inputs.digest(arrays) == inputs.digest(inputs.draw(setting()))
    assert arrays["reference"].shape == arrays["source"].shape == (384, 512, 3)
    assert len(np.unique(arrays["flat"].reshape(-1, 3), axis=0)) == 1
    assert arrays["label"].shape == (1, 96, 128)
    assert arrays["label"].max() < 29
    assert len(np.unique(arrays["label"])) > 2
    assert arrays["labels"].shape[0] == arrays["train.z"].shape[0] == 2
    assert arrays["noise.2"].dtype == np.float32
    assert inputs.draw(setting(examples=1))["train.z"].shape == (1, 3, 96, 128)


def test_stand_ins_are_the_golden_recipe_and_made_once(tmp_path):
    unet, autoencoder = inputs.stand_in_weights(tmp_path, "small")
    assert UNETS["small"] == SMALL_UNET and checkpoint.load_config(unet) == SMALL_UNET
    assert checkpoint.load_config(autoencoder) == AUTOENCODERS["small"]
    state = checkpoint.load(autoencoder)
    assert all((array == value(name, array.shape)).all() for name, array in state.items())
    assert len(state) == 205
    before = unet.stat().st_mtime_ns
    assert inputs.stand_in_weights(tmp_path, "small")[0].stat().st_mtime_ns == before


def test_digests_see_every_change(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    found = [
        inputs.digest(tmp_path),
        inputs.digest({"a": np.zeros(2)}),
        inputs.digest({"a": np.zeros((2, 1))}),
        inputs.digest("ab", "c"),
        inputs.digest("a", "bc"),
        inputs.digest(setting()),
        inputs.digest(setting(stage=1)),
    ]
    (tmp_path / "a.py").write_text("x = 2")
    found += [inputs.digest(tmp_path), inputs.digest(tmp_path / "a.py")]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "unet, autoencoder, told",
    [
        (UNETS["landscape"], SMALL_AUTOENCODER, "spade_channels 32"),
        (SMALL_UNET, AUTOENCODERS["landscape"], "groups 8"),
        (dataclasses.replace(SMALL_UNET, width=36), SMALL_AUTOENCODER, "does not divide"),
    ],
)
def test_networks_that_the_release_s_code_cannot_build_are_refused(unet, autoencoder, told):
    inputs.check_buildable(UNETS["release"], AUTOENCODERS["release"])
    with pytest.raises(ValueError, match=told):
        inputs.check_buildable(unet, autoencoder)


# Both sides
# --------------------------------------------------------------------------------------------------


def test_both_sides_have_every_part():
    for name in PARTS:
        assert callable(getattr(ours.Ours, name)) and callable(getattr(official.Release, name))
    assert set(SIDES) == {"ours", "release"}


def test_a_computation_is_warmed_up_and_its_best_time_counts():
    calls = []

    def run(kind="run"):
        calls.append(kind)
        return {"a": jt.ones(2) + len(calls), "b": {"c": jt.zeros(1), "d": np.ones(3)}}

    found, seconds = computing.measured(computing.Computation(run), 3)
    assert calls == ["run"] * 4
    assert set(found) == {"a", "b/c", "b/d"}
    assert found["a"].numpy()[0] == 5
    assert seconds > 0
    calls.clear()
    computing.measured(computing.Computation(run, lambda: run("warm")), 3)
    assert calls == ["warm", "run"]
    assert computing.measured(computing.Computation(run, timed=False), 3)[1] is None
    assert len(calls) == 3


def test_codes_and_steps_of_our_side_are_those_of_the_golden_release(tmp_path):
    """The release's own numbers, through the class that a comparison runs."""
    unet, autoencoder = inputs.stand_in_weights(tmp_path, "small")
    chosen, arrays = (
        setting(unet_weights=str(unet), autoencoder_weights=str(autoencoder)),
        golden("autoencoder_small.npz"),
    )
    side = ours.Ours(chosen, {"latent": arrays["latent"]}, tmp_path)
    assert (computing.measured(side.codes()[0], 1)[0]["codes"].numpy() == arrays["codes"]).all()
    found = computing.measured(side.decode()[0], 1)[0]["image"].numpy()
    assert np.abs(found - arrays["decoded"]).max() < 1e-4 * np.abs(arrays["decoded"]).max()


def test_modules_that_are_missing_can_be_imported_and_not_called(monkeypatch):
    lines = []
    monkeypatch.setattr(nudges, "STAND_INS", ("no_such_package", "json"))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path + [nudges.StandIns(lines)])
    try:
        absent = importlib.import_module("no_such_package.part")
        from no_such_package import anything

        assert importlib.import_module("json") is json
        assert lines == ["no_such_package is not installed: an empty module, which nothing calls"]
        with pytest.raises(NotImplementedError, match="no_such_package.part.thing.inner"):
            absent.thing.inner(1)
        with pytest.raises(NotImplementedError, match="install it"):
            anything()
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_other_package")
    finally:
        for name in [name for name in sys.modules if name.startswith("no_such_package")]:
            del sys.modules[name]


def test_exact_group_norms_are_the_formula_in_float64():
    x = (np.random.default_rng(0).standard_normal((2, 64, 12, 16)) + 30).astype(np.float32)
    norm, plain = jt.nn.GroupNorm(32, 64), GroupNorm(32, 64)
    weight = np.linspace(0.5, 2, 64).astype(np.float32)
    exact = x.astype(np.float64).reshape(2, 32, -1)
    exact = (
        (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    ).reshape(x.shape)
    exact = exact * weight.reshape(1, -1, 1, 1) + 0.25
    for module in (norm, plain):
        module.weight.assign(weight)
        module.bias.assign(np.full(64, 0.25, np.float32))
    found = nudges.exact_group_norm(norm, jt.array(x)).numpy()
    assert found.dtype == np.float32 and np.abs(found - exact).max() < 1e-6
    assert (
        np.abs(plain(jt.array(x)).numpy() - exact).max()
        < 1e-4
        < np.abs(norm(jt.array(x)).numpy() - exact).max()
    )
    without = jt.nn.GroupNorm(32, 64, affine=False)
    assert np.isfinite(nudges.exact_group_norm(without, jt.array(x)).numpy()).all()
