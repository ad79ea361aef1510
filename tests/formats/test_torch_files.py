"""What PyTorch programs store beside and around their weights: read without running code, or
refused with what to do."""

import numpy as np
import pytest
from support.places import GOLDEN

from jseg.checkpoint import CheckpointError, load
from jseg.formats.reader import open_weights
from jseg.formats.state_dicts import select

TORCH, PEERS = GOLDEN / "torch", GOLDEN / "peers"
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "path",
    (TORCH / "beside_2.ckpt", TORCH / "beside_4.ckpt", PEERS / "torch_defaultdict.ckpt"),
    ids=lambda path: path.name,
)
def test_plain_data_beside_the_weights_is_no_reason_to_refuse_them(path):
    given = load(path)
    assert list(given) == ["w"] and np.array_equal(given["w"].ravel()[:3], WEIGHTS.ravel()[:3])


def test_places_spans_and_times_are_kept_as_plain_values():
    with open_weights(TORCH / "beside_2.ckpt") as contents:
        tree = contents.tree
        assert tree["arguments"] == {"output": "a/b", "steps": 3} and tree["range"] == (0, 3, 1)
        assert tree["counts"] == {"a": 1}
        assert tree["deque"] == [1, 2] and tree["size"] == (2, 3)


@pytest.mark.parametrize(
    "path, expected",
    ((PEERS / "torch_negative_bit.pt", [-2, 4]), (TORCH / "negated_legacy.pth", [-1, -3, -5])),
    ids=("zip", "legacy"),
)
def test_a_pending_negation_is_done(path, expected):
    assert load(path)["w"].tolist() == expected


def test_an_averaged_model_is_taken_out_of_its_wrapper():
    average = load(PEERS / "torch_averaged_model.pth")
    assert {name: array.shape for name, array in average.items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }
    assert np.array_equal(average["weight"].ravel()[:4], [0, 0.5, 1, 1.5])
    assert set(load(PEERS / "torch_averaged_model.pth", "model")) == {"weight", "bias"}


def test_wrappers_around_wrappers_are_taken_off_and_the_counter_is_counted():
    with open_weights(TORCH / "wrapped.pth") as contents:
        selection = select(contents.tree, "ema")
        assert np.array_equal(selection.tensors["weight"].read(), WEIGHTS)
        assert list(selection.tensors) == ["weight", "bias"]
        assert selection.averaged and selection.dropped == {"n_averaged": 1}


def test_an_averaged_model_beside_its_network_in_a_lightning_file():
    for weights, expected in (("ema", WEIGHTS + 10), ("model", WEIGHTS)):
        given = load(TORCH / "lightning_average.ckpt", weights)
        assert list(given) == ["weight", "bias"] and np.array_equal(given["weight"], expected)


@pytest.mark.parametrize(
    "name, kind, remedy",
    (
        ("float8.pth", "torch.float8_e4m3fn", "x.float()"),
        ("float8_legacy.pth", "torch.float8_e4m3fn", "x.float()"),
        ("complex.pth", "ComplexFloat", "torch.view_as_real"),
        ("conjugated.pth", "ComplexFloat", "torch.view_as_real"),
        ("quantised.pth", "quantised tensor", "x.dequantize()"),
        ("sparse.pth", "sparse tensor", "x.to_dense()"),
        ("meta.pth", "meta tensor", "load the weights before saving"),
    ),
)
def test_types_that_are_not_read_are_named_with_what_to_convert_to(name, kind, remedy):
    with pytest.raises(CheckpointError) as caught:
        load(TORCH / name)
    message = str(caught.value)
    assert (
        f"{name}: holds arrays of type {kind}; float16, bfloat16, float32, float64, integers and "
        f"bool are read" in message
    )
    assert remedy in message and "\n" not in message and "nothing was run" not in message


@pytest.mark.parametrize(
    "name, word",
    (("namedtuple.ckpt", "__main__.Point"), ("whole_module.pth", "torch.nn.modules.linear.Linear")),
)
def test_classes_of_the_program_are_refused_by_name_with_how_to_export(name, word):
    said = f"asks for {word}.*nothing was run.*export its weights alone"
    with pytest.raises(CheckpointError, match=said):
        load(TORCH / name)


def test_types_of_other_containers(tmp_path):
    np.savez(tmp_path / "complex.npz", w=np.ones(2, np.complex64))
    np.savez(tmp_path / "long.npz", w=np.ones(2, np.longdouble))
    for name, kind in (("complex.npz", "complex64"), ("long.npz", "float128")):
        said = f"type {kind}; float16, bfloat16, float32, float64, integers and bool are read"
        with pytest.raises(CheckpointError, match=said):
            load(tmp_path / name)
