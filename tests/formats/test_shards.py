"""A model in several files is read as one file, by its index or its names; what is missing,
double or elsewhere is named."""

import functools
import json
import os
import pickle

import numpy as np
from support import refusals

from jseg import checkpoint
from jseg.checkpoint import CheckpointError, load, save
from jseg.commands import cli, convert_weights, merge_weights
from jseg.ldm.presets import AUTOENCODERS
from jseg.ldm.state_dict import autoencoder_shapes
from jseg.parity.stand_in import fill

STATE = {
    "a": np.arange(3, dtype=np.float32),
    "b": np.ones((2, 2), np.float32),
    "c": np.full(1, 7, np.float32),
    "d": np.zeros(2, np.float16),
}
NAMES = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]


def split(folder, state=None, index="model.safetensors.index.json", names=NAMES, write=None):
    """The state in three files with an index beside them; the path of the index."""
    state = STATE if state is None else state
    table = {name: names[number * len(names) // len(state)] for number, name in enumerate(state)}
    for part in names:
        arrays = {name: state[name] for name, place in table.items() if place == part}
        (write or save)(folder / part, arrays)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return folder / index


def pickled(path, arrays):
    path.write_bytes(pickle.dumps(arrays))


def assert_whole(path, state=None):
    given, state = load(path), STATE if state is None else state
    assert list(given) == list(state)
    assert all(np.array_equal(given[name], state[name]) for name in state)
    assert {name: array.dtype for name, array in given.items()} == {
        name: array.dtype for name, array in state.items()
    }


refusal = functools.partial(refusals.refusal, load, kind=CheckpointError)


def test_an_index_and_its_folder_give_the_whole_model(tmp_path):
    index = split(tmp_path)
    assert_whole(index)
    assert_whole(tmp_path)


def test_parts_of_pytorch_by_their_index(tmp_path):
    names = [f"pytorch_model-{number:05}-of-00003.bin" for number in (1, 2, 3)]
    assert_whole(split(tmp_path, index="pytorch_model.bin.index.json", names=names, write=pickled))


def test_a_folder_of_all_parts_needs_no_index(tmp_path):
    split(tmp_path).unlink()
    assert_whole(tmp_path)


def test_a_module_is_filled_from_parts_and_their_digest_is_that_of_all(tmp_path):
    class Module:
        def __init__(self):
            self.state = {name: np.zeros_like(array) for name, array in STATE.items()}

        def state_dict(self):
            return {name: Parameter(array) for name, array in self.state.items()}

    class Parameter:
        def __init__(self, array):
            self.array, self.shape, self.dtype = array, array.shape, array.dtype

        def assign(self, array):
            self.array[...] = array

    index, module = split(tmp_path), Module()
    checkpoint.load_into(module, index)
    assert all(np.array_equal(module.state[name], STATE[name]) for name in STATE)
    before = checkpoint.weights_sha256(index)
    save(tmp_path / NAMES[2], {"d": np.ones(2, np.float16)})
    assert checkpoint.weights_sha256(index) != before and checkpoint.load_config(index) is None
    assert checkpoint.load_extra(index) == {}


def test_a_missing_part_is_named(tmp_path):
    index = split(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    assert f"1 of the 3 parts that its index names is missing ({NAMES[1]})" in refusal(index)
    index.unlink()
    assert "holds 2 of the 3 parts of model.safetensors; missing: 2" in refusal(tmp_path)


def test_a_single_part_says_what_it_is_part_of(tmp_path):
    index = split(tmp_path)
    assert f"is part 1 of 3 of a model; give {index}" in refusal(tmp_path / NAMES[0])
    index.unlink()
    assert f"is part 1 of 3 of a model; give the folder {tmp_path}" in refusal(tmp_path / NAMES[0])
    os.rename(tmp_path / NAMES[0], tmp_path / "model-00001-of-00001.safetensors")
    assert "a" in load(tmp_path / "model-00001-of-00001.safetensors")


def test_an_array_in_two_parts_is_named(tmp_path):
    index = split(tmp_path)
    save(tmp_path / NAMES[1], {"a": STATE["a"], "c": STATE["c"]})
    assert f"a in {NAMES[0]} and {NAMES[1]}" in refusal(index)


def test_an_array_that_its_part_lacks_is_named_and_so_is_one_that_the_index_lacks(tmp_path):
    index = split(tmp_path)
    save(tmp_path / NAMES[1], {"other": STATE["c"]})
    assert f"1 array is not in the part that the index names (c in {NAMES[1]})" in refusal(index)
    save(tmp_path / NAMES[1], {"c": STATE["c"], "other": STATE["c"]})
    assert f"1 array is in the parts and not in the index (other in {NAMES[1]})" in refusal(index)


def test_folders_and_indexes_that_are_none(tmp_path):
    assert "is a folder; expected weights" in refusal(tmp_path)
    save(tmp_path / "whole.safetensors", STATE)
    assert "it holds whole.safetensors: give the file" in refusal(tmp_path)
    split(tmp_path)
    split(tmp_path, index="other.safetensors.index.json")
    assert (
        "2 indexes (model.safetensors.index.json, other.safetensors.index.json); give one of "
        "these files" in refusal(tmp_path)
    )
    for text in ("{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": ['):
        (tmp_path / "bad.index.json").write_text(text)
        assert '"weight_map"' in refusal(tmp_path / "bad.index.json")
    (tmp_path / "bad.index.json").write_text('{"weight_map": {"a": "../secret.pkl"}}')
    assert "other folders (../secret.pkl)" in refusal(tmp_path / "bad.index.json")


def test_a_damaged_part_is_named_and_one_without_arrays_too(tmp_path):
    index = split(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(b"nothing of use")
    assert f"{NAMES[2]}: is not a weight file" in refusal(index)
    pickled(tmp_path / NAMES[2], [1, 2])
    assert f"{NAMES[2]}: is a part of a model and holds no arrays by name" in refusal(index)


def test_converting_and_averaging_take_parts_and_never_write_over_one(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    state = fill(autoencoder_shapes(AUTOENCODERS["tiny"]))
    index = split(tmp_path, state)
    assert cli.run(convert_weights.main, [str(index), "vq.safetensors"]) == 0
    assert checkpoint.load_config("vq.safetensors") == AUTOENCODERS["tiny"]
    assert_whole("vq.safetensors", state)
    save("whole.npz", state)
    assert (
        cli.run(merge_weights.main, ["--ckpts", str(index), "whole.npz", "--save_path", "mean.npz"])
        == 0
    )
    assert np.allclose(load("mean.npz")["quant_conv.bias"], state["quant_conv.bias"])
    os.symlink(NAMES[0], "link.safetensors")
    capsys.readouterr()
    for target in (NAMES[0], "link.safetensors"):
        content = (tmp_path / NAMES[0]).read_bytes()
        assert cli.run(convert_weights.main, [str(index), target]) == 2
        assert cli.run(merge_weights.main, ["--ckpts", ".", "--save_path", target]) == 2
        assert capsys.readouterr().err.count("is one of the inputs") == 2
        assert (tmp_path / NAMES[0]).read_bytes() == content
