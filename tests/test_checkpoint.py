"""Saving whole, loading strictly, averaging in float64; files that carry their network's
configuration.
"""

import dataclasses
import errno
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from support.refusals import refusal

from jseg.checkpoint import (
    CheckpointError,
    WeightFile,
    average,
    describe,
    load,
    load_config,
    load_extra,
    load_into,
    load_sets,
    save,
    weights_sha256,
)
from jseg.configs import CONFIGS, AutoencoderConfig, UNetConfig
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes
from jseg.runtime import jt

SUFFIXES = (".safetensors", ".npz", ".pkl")


def state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "net.0.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "net.0.bias": rng.standard_normal(3).astype(np.float32),
        "half.weight": rng.standard_normal((2, 2)).astype(np.float16),
        "model.double": rng.standard_normal((4, 5)).T,
        "module.count": np.array(7),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 2), np.float32),
        "größe": np.float32(2.5),
    }


def assert_same(given, expected):
    assert list(given) == list(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        assert given[name].dtype == array.dtype and given[name].shape == array.shape, name
        assert np.array_equal(given[name], array), name


class Variable:
    """What load_into needs of a Jittor Var."""

    def __init__(self, array):
        self.array, self.assigned = array, 0

    shape = property(lambda self: list(self.array.shape))
    dtype = property(lambda self: self.array.dtype)

    def assign(self, array):
        self.array, self.assigned = array, self.assigned + 1


class Network:
    """A module that is nothing but its state."""

    def __init__(self, shapes, dtype=np.float32):
        self.variables = {name: Variable(np.zeros(shape, dtype)) for name, shape in shapes.items()}

    def state_dict(self):
        return self.variables


# Round trips
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_saved_is_loaded(suffix, tmp_path):
    path, ema = tmp_path / ("weights" + suffix), {"net.0.bias": np.full(3, 9, np.float32)}
    optimizer = {"net.0.bias/m": np.ones(3)}
    extra = {"step": 120, "note": '"é"', "betas": [0.9, 0.999], "nothing": {}}
    save(path, state(), UNETS["small"], ema=ema, optimizer=optimizer, **extra)
    assert_same(load(path, "model"), state())
    assert_same(load(path, "ema"), {**state(), **ema})
    assert_same(load(path), {**state(), **ema})
    assert load_config(path) == UNETS["small"] and type(load_config(path)) is UNetConfig
    assert load_extra(path) == extra
    sets = load_sets(path)
    assert set(sets) == {"", "ema", "optimizer"}
    for name, arrays in (("", state()), ("ema", ema), ("optimizer", optimizer)):
        assert_same(sets[name], arrays)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_weights_give_equal_bytes(suffix, tmp_path):
    one, two = tmp_path / ("one" + suffix), tmp_path / ("two" + suffix)
    save(one, state(), AUTOENCODERS["tiny"])
    save(two, state(), AUTOENCODERS["tiny"])
    assert one.read_bytes() == two.read_bytes()
    assert weights_sha256(one) == hashlib.sha256(one.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_without_configuration(suffix, tmp_path):
    path = tmp_path / ("weights" + suffix)
    save(path, state())
    assert load_config(path) is None and load_extra(path) == {}
    assert list(load_sets(path)) == [""]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_description_has_what_was_asked_for_and_stands_for_its_file(suffix, tmp_path):
    path = tmp_path / ("weights" + suffix)
    save(path, state(), UNETS["tiny"], settings={"drop": 0.2})
    plain = describe(path)
    assert (plain.path, plain.config, plain.settings) == (path, UNETS["tiny"], {"drop": 0.2})
    assert (plain.sha256, plain.digest, plain.shapes) == ("", "", {})
    assert str(plain) == str(path) == os.fspath(plain)

    # A description without what is wanted now is made again; one that has it is handed on.
    whole = describe(plain, sha256=True, prefixes=("net.",), shapes=True)
    assert whole.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert whole.shapes == {name: np.shape(array) for name, array in state().items()}
    assert describe(whole, sha256=True, prefixes=("net.",)) is whole is describe(whole)
    assert_same(load(whole), state())
    network = Network(whole.shapes, np.float64)
    load_into(network, whole)
    assert np.array_equal(network.variables["mask"].array, state()["mask"])


def test_the_digest_is_of_the_values_in_any_kind_of_file(tmp_path):
    for suffix in SUFFIXES:
        save(tmp_path / ("weights" + suffix), state())
    changed = {**state(), "mask": np.array([False, False])}
    save(tmp_path / "other.npz", changed)
    wide = {**state(), "net.0.bias": state()["net.0.bias"].astype(np.float64)}
    save(tmp_path / "wide.npz", wide)
    digests = {describe(path, prefixes=("net.",)).digest for path in tmp_path.iterdir()}
    assert len(digests) == 1
    assert describe(tmp_path / "other.npz", prefixes=("mask",)).digest not in digests


def test_the_description_of_another_program_s_file(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones(2))
    weights = describe(tmp_path / "w.npz", shapes=True)
    assert weights == WeightFile(tmp_path / "w.npz") and weights.shapes == {"w": (2,)}
    assert weights.extra == weights.settings == {} == load_extra(tmp_path / "w.npz")
    assert_same(load_sets(tmp_path / "w.npz")[""], {"w": np.ones(2)})


def test_other_programs_read_our_files(tmp_path):
    save(tmp_path / "w.pkl", state(), UNETS["tiny"])
    with open(tmp_path / "w.pkl", "rb") as file:  # merge_model.py of the release
        assert_same(pickle.load(file), {name: np.asarray(array) for name, array in state().items()})
    data = (
        tmp_path / "w.pkl"
    ).read_bytes()  # jittor.load: SHA-1 of what is before it, then the mark
    assert data.endswith(b"HCAJSLHD") and hashlib.sha1(data[:-28]).digest() == data[-28:-8]
    save(tmp_path / "w.npz", state(), UNETS["tiny"])
    with np.load(tmp_path / "w.npz", allow_pickle=False) as arrays:
        assert_same({name: arrays[name] for name in arrays.files if name != "__jseg__"}, state())
        assert (
            json.loads(arrays["__jseg__"].tobytes().decode())["config"]["network"] == "UNetConfig"
        )
    save(tmp_path / "w.safetensors", state(), UNETS["tiny"])
    data = (tmp_path / "w.safetensors").read_bytes()  # the specification, read literally
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert all(isinstance(text, str) for text in header.pop("__metadata__").values())
    assert (8 + length) % 8 == 0
    types = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "BOOL": "?"}
    for name, array in state().items():
        start, end = (8 + length + offset for offset in header[name]["data_offsets"])
        assert np.array_equal(
            np.frombuffer(data[start:end], types[header[name]["dtype"]]).reshape(
                header[name]["shape"]
            ),
            array,
        )


@pytest.mark.parametrize(
    "arguments, word",
    (
        (dict(state={}), "at least one array"),
        (dict(state={"w": "text"}), "numbers"),
        (dict(state={"w": np.array([object()])}), "numbers"),
        (dict(state={"": np.ones(1)}), "usable name"),
        (dict(state={"__metadata__": np.ones(1)}), "usable name"),
        (dict(state={"ema/w": np.ones(1)}, ema={"w": np.ones(1)}), "another set"),
        (dict(state={"w": np.ones(1)}, thing=object()), "JSON"),
        (dict(state={"w": np.ones(1)}, config=dataclasses.make_dataclass("Other", [])()), "Other"),
    ),
)
def test_what_cannot_be_saved(arguments, word, tmp_path):
    refusal(save, tmp_path / "w.safetensors", **arguments, kind=CheckpointError, match=word)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ("w.pth", "w", "w.bin", "missing/w.npz"))
def test_where_nothing_can_be_saved(name, tmp_path):
    with pytest.raises(CheckpointError, match="cannot save"):
        save(tmp_path / name, state())


# Failures while writing
# ---------------------------------------------------------------------------------------------


class Failing:
    """An array whose values cannot be had the second time."""

    shape, dtype = (2,), np.dtype(np.float32)

    def __init__(self, error, reads=0):
        self.error, self.reads = error, reads

    def numpy(self):
        self.reads -= 1
        if self.reads < 0:
            raise self.error
        return np.ones(2, np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "error",
    (
        OSError(errno.ENOSPC, "No space left"),
        KeyboardInterrupt(),
        RuntimeError("the device is gone"),
    ),
)
def test_a_failure_leaves_the_old_file(suffix, error, tmp_path):
    path = tmp_path / ("w" + suffix)
    save(path, state())
    before = path.read_bytes()
    with pytest.raises(type(error)):
        save(path, {**state(1), "last": Failing(error, reads=1 if suffix == ".safetensors" else 0)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save(path, state())
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, state(1))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# Configuration
# --------------------------------------------------------------------------------------------------


def with_config(tmp_path, config, **record):
    """A file whose record was written by another version."""
    from jseg.formats.record import FORMAT

    text = json.dumps(
        {"format": FORMAT, "groups": {"": 1}, "extra": {}, "config": config, **record}
    )
    header = json.dumps(
        {
            "__metadata__": {"jseg": text},
            "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        }
    ).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


def test_fields_that_a_file_lacks_have_their_defaults(tmp_path):
    assert load_config(
        with_config(tmp_path, {"network": "UNetConfig", "channels": 64})
    ) == UNetConfig(channels=64)
    older = with_config(tmp_path, {"network": "AutoencoderConfig", "channel_mult": [1, 2]})
    assert load_config(older) == AutoencoderConfig(channel_mult=(1, 2))
    assert (
        load_config(with_config(tmp_path, {"network": "UNetConfig", "dropout": 0})) == UNetConfig()
    )
    assert load_config(with_config(tmp_path, None)) is None


@pytest.mark.parametrize(
    "config, word",
    (
        ({"network": "UNetConfig", "flash": 1}, "flash"),
        ({"network": "Transformer"}, "Transformer"),
        ({"network": ["x"]}, "configuration"),
        ({"network": "UNetConfig", "channels": "64"}, "channels"),
        ({"network": "UNetConfig", "channels": True}, "channels"),
        ({"network": "UNetConfig", "channel_mult": [1, "2"]}, "channel_mult"),
        ({"network": "UNetConfig", "channel_mult": 2}, "channel_mult"),
        ("UNetConfig", "configuration"),
        ([1], "configuration"),
    ),
)
def test_configurations_of_other_versions_are_refused(config, word, tmp_path):
    path = with_config(tmp_path, config)
    assert str(path) in refusal(load_config, path, kind=CheckpointError, match=word)
    assert_same(load(path), {"w": np.zeros(1, np.float32)})


def test_a_newer_format_and_an_edited_record(tmp_path):
    for wrong in (
        {"format": 2},
        {"groups": {"": 2}},
        {"crc32": {"w": 1}},
        {"crc32": {"v": 1}},
        {"check": "00000000"},
    ):
        path = with_config(tmp_path, None, **wrong)
        with pytest.raises(CheckpointError, match="w.safetensors: .*(format|record|checksum)"):
            load(path)


# Strict loading
# --------------------------------------------------------------------------------------------------


def test_every_difference_is_in_one_error_and_nothing_is_loaded(tmp_path):
    network = Network({"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,), "c.weight": (1, 1)})
    given = {
        "a.weight": np.ones((3, 2)),
        "b.weight": np.ones(4),
        "d.weight": np.ones(1),
        "e.weight": np.ones(1),
    }
    for source in (given, tmp_path / "w.npz"):
        if source is not given:
            save(source, given)
        with pytest.raises(CheckpointError) as caught:
            load_into(network, source)
        message = str(caught.value)
        assert "2 missing (a.bias, c.weight)" in message
        assert "2 unexpected (d.weight, e.weight)" in message
        assert "1 of another shape (a.weight is [3, 2], expected [2, 3])" in message
        assert "\n" not in message
        assert (str(source) in message) == (source is not given)
    assert not any(variable.assigned for variable in network.variables.values())


def test_long_lists_are_cut_and_counted():
    network = Network({f"w{number}": (1,) for number in range(500)})
    line = refusal(load_into, network, {"x": np.ones(1)}, kind=CheckpointError, most=400)
    assert "500 missing (w0, w1, " in line and "and 494 more" in line


def test_the_wrong_network_is_called_by_its_name():
    unet, autoencoder = unet_shapes(UNETS["tiny"]), autoencoder_shapes(AUTOENCODERS["tiny"])
    arrays = {name: np.zeros(shape, np.float32) for name, shape in autoencoder.items()}
    said = "like an autoencoder with 32 base channels and 64 codes, the network is a UNet with 32"
    with pytest.raises(CheckpointError, match=said):
        load_into(Network(unet), arrays)
    wider = {
        name: np.zeros(shape, np.float32)
        for name, shape in autoencoder_shapes(AutoencoderConfig(64, (1, 1, 1), 1, 3, 64)).items()
    }
    said = "an autoencoder with 64 base channels .* the network is an autoencoder with 32 base"
    with pytest.raises(CheckpointError, match=said):
        load_into(Network(autoencoder), wider)
    prefixed = {"first_stage_model." + name: array for name, array in arrays.items()}
    with pytest.raises(CheckpointError, match="convert_weights.py"):
        load_into(Network(autoencoder), prefixed)
    with pytest.raises(CheckpointError, match="convert_weights.py"):
        load_into(Network(autoencoder), {**arrays, "loss.logvar": np.zeros(1)})


@pytest.mark.parametrize("dtype", (np.float32, np.float16))
@pytest.mark.parametrize("stored", (np.float64, np.float32, np.float16))
def test_values_take_the_parameters_type(dtype, stored, tmp_path):
    network, values = Network({"w": (3,), "n": (1,)}, dtype), np.array([1.5, -2.25, 0.125], stored)
    save(tmp_path / "w.pkl", {"w": values, "n": np.array(3.0, stored)})
    load_into(network, tmp_path / "w.pkl")
    assert network.variables["w"].array.dtype == dtype
    assert np.array_equal(network.variables["w"].array, values)
    assert network.variables["n"].array.shape == (1,)


@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf, 1e300))
def test_values_that_are_no_weights_are_refused_by_name(bad):
    network = Network({"good": (2,), "bad": (2,)})
    with pytest.raises(CheckpointError, match=r"1 array holds NaN.*\(bad\)"):
        load_into(network, {"good": np.ones(2), "bad": np.array([1, bad])})
    assert not any(variable.assigned for variable in network.variables.values())


def test_fractions_do_not_become_integers():
    with pytest.raises(CheckpointError, match="(n)"):
        load_into(Network({"n": (2,)}, np.int32), {"n": np.array([1.0, 1.5])})
    network = Network({"n": (2,)}, np.int32)
    load_into(network, {"n": np.array([1.0, 2.0])})
    assert network.variables["n"].array.tolist() == [1, 2]


class Tiny(jt.nn.Module):
    def __init__(self):
        self.layer = jt.nn.Linear(3, 2)
        self.norm = jt.nn.BatchNorm(2)
        self.average = jt.zeros((2,)).stop_grad()

    def execute(self, x):
        return self.norm(self.layer(x)) + self.average


@pytest.fixture
def module():
    """A module of Jittor with weights of its own, and these as float64."""
    rng, module = np.random.default_rng(0), Tiny()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    arrays = {name: np.abs(rng.standard_normal(shape)) + 1 for name, shape in shapes.items()}
    load_into(module, arrays)
    return module, arrays


def values(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def test_a_jittor_module_takes_values_as_its_own_type(module):
    module, arrays = module
    trains = {name: value.requires_grad for name, value in Tiny().state_dict().items()}
    assert any(trains.values()) and not all(trains.values())
    for name, value in module.state_dict().items():
        assert str(value.dtype) == "float32" and value.requires_grad == trains[name]
        assert np.array_equal(value.numpy(), arrays[name].astype(np.float32))

    # release: a wrong shape or name is logged and left out, and a half-precision file makes the
    # parameter half; here: refused, kept.
    with pytest.raises(CheckpointError, match="layer.weight is"):
        load_into(module, {**arrays, "layer.weight": np.ones((3, 2))})
    load_into(module, {name: array.astype(np.float16) for name, array in arrays.items()})
    assert {str(value.dtype) for value in module.state_dict().values()} == {"float32"}


def test_a_jittor_module_s_files_and_ours_are_read_by_both(module, tmp_path):
    module, _ = module
    save(tmp_path / "jittor.pkl", module.state_dict())
    assert_same(load(tmp_path / "jittor.pkl"), values(module))
    other = Tiny()
    other.load_state_dict(jt.load(str(tmp_path / "jittor.pkl")))
    assert_same(values(other), values(module))
    module.save(str(tmp_path / "theirs.pkl"))
    assert_same(load(tmp_path / "theirs.pkl"), values(module))


@pytest.mark.parametrize("kind", ("float16", "bfloat16"))
def test_a_jittor_module_in_half_precision_stays_so(module, kind):
    _, arrays = module
    half = Tiny()
    half.layer.weight.assign(half.layer.weight.cast(kind))
    load_into(half, {**arrays, "layer.weight": np.full((2, 3), 1.5)})
    assert str(half.layer.weight.dtype) == kind
    assert (half.layer.weight.float32().numpy() == 1.5).all()


# Averaging
# Averaging
# --------------------------------------------------------------------------------------------------


def test_the_average_is_the_weighted_mean_in_float64(tmp_path):
    rng = np.random.default_rng(3)
    parts = [
        ({"w": rng.standard_normal((5, 4)).astype(dtype), "n": np.arange(3)}, weight)
        for dtype, weight in ((np.float32, 0.5), (np.float64, 2), (np.float16, 0.25))
    ]
    expected = sum(weight * part["w"].astype(np.float64) for part, weight in parts) / 2.75
    save(tmp_path / "a.npz", parts[1][0])
    for given in (parts, [parts[0], (tmp_path / "a.npz", 2), parts[2]]):
        mean = average(given)
        assert mean["w"].dtype == np.float32 and np.allclose(mean["w"], expected, rtol=1e-7, atol=0)
        assert mean["n"].dtype == np.int64 and mean["n"].tolist() == [0, 1, 2]


def test_the_sum_is_taken_in_float64():
    large = [({"w": np.array([value], np.float32)}, 1.0) for value in (1e8, 1.0, -1e8, 1.0)]
    assert average(large)["w"][0] == np.float32(0.5)  # float32 sums would give 0.25 or 0


def test_one_file_and_negative_weights():
    one = {"w": np.array([1.0, 2.0], np.float32)}
    assert np.array_equal(average([(one, 7)])["w"], one["w"])
    assert np.array_equal(average([(one, 2), ({"w": np.array([3.0, 2.0])}, -1)])["w"], [-1.0, 2.0])


def test_release_averages_of_two_equal_weights(tmp_path):
    # release: merge_model.py sums in float64, divides by the number and pickles float64; here: the
    # same numbers as float32.
    arrays = [
        {"w": np.random.default_rng(seed).standard_normal((6, 5)).astype(np.float32)}
        for seed in (0, 1)
    ]
    total = np.zeros(arrays[0]["w"].shape)
    for array in arrays:
        total += array["w"]
    with open(tmp_path / "release.pkl", "wb") as file:
        pickle.dump({"w": total / 2}, file)
    assert load(tmp_path / "release.pkl")["w"].dtype == np.float64
    assert np.array_equal(
        average([(arrays[0], 0.5), (arrays[1], 0.5)])["w"], (total / 2).astype(np.float32)
    )


@pytest.mark.parametrize(
    "parts, word",
    (
        ([], "at least one"),
        ([(1, 1.0), (2, -1.0)], "sum is not 0"),
        ([(1, float("nan"))], "sum is not 0"),
        ([(1, 1.0), ({"v": np.ones(2)}, 1.0)], r"1 missing \(w\); 1 unexpected \(v\)"),
        ([(1, 1.0), ({"w": np.ones(3)}, 1.0)], r"w is \[3\], expected \[2\]"),
        ([(1, 1.0), ({"w": np.array([1, np.nan])}, 1.0)], "part 2: w holds NaN"),
        (
            [({"n": np.array([1])}, 1.0), ({"n": np.array([2])}, 1.0)],
            "part 2: n holds integers that differ",
        ),
    ),
)
def test_what_cannot_be_averaged(parts, word):
    weighted = [
        ({"w": np.ones(2)} if isinstance(source, int) else source, weight)
        for source, weight in parts
    ]
    refusal(average, weighted, kind=CheckpointError, match=word)


def test_the_file_that_does_not_fit_is_named(tmp_path):
    save(tmp_path / "a.npz", {"w": np.ones(2)})
    save(tmp_path / "b.npz", {"w": np.ones(3)})
    said = f"^{tmp_path / 'b.npz'}: cannot be averaged with {tmp_path / 'a.npz'}"
    with pytest.raises(CheckpointError, match=said):
        average([(tmp_path / "a.npz", 1), (tmp_path / "b.npz", 1), (tmp_path / "a.npz", 1)])


def test_the_table_of_configurations_is_complete():
    assert set(CONFIGS) == {"UNetConfig", "AutoencoderConfig", "PixNerdConfig"}
    assert all(dataclasses.is_dataclass(CONFIGS[name]) for name in CONFIGS)
