import functools

import numpy as np
import pytest

from jseg import checkpoint
from jseg.checkpoint import CheckpointError
from jseg.ldm.lpips import Lpips, load_lpips, pool, unit
from jseg.runtime import jt

CONVOLUTIONS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}


@functools.lru_cache(maxsize=None)
def network():
    """Random weights of a fitting scale, heads not negative as the published ones are not."""
    lpips, rng = Lpips(), np.random.default_rng(0)
    for name, v in lpips.state_dict().items():
        if "scaling" not in name:
            spread = rng.standard_normal(v.shape, dtype=np.float32)
            v.assign(
                jt.array(
                    np.abs(spread)
                    if name.startswith("lin")
                    else spread * np.float32(np.sqrt(2 / np.prod(v.shape[1:])))
                )
            )
    return lpips


def state():
    return {name: v.numpy() for name, v in network().state_dict().items()}


def features(w, x):
    """The five slices in float64 NumPy."""
    x = (x - w["scaling_layer.shift"]) / w["scaling_layer.scale"]
    found = []
    for number, places in CONVOLUTIONS.items():
        if number > 1:
            height, width = x.shape[2] // 2, x.shape[3] // 2
            x = (
                x[:, :, : 2 * height, : 2 * width]
                .reshape(*x.shape[:2], height, 2, width, 2)
                .max((3, 5))
            )
        for place in places:
            weight = w[f"net.slice{number}.{place}.weight"]
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            x = sum(
                np.tensordot(
                    padded[:, :, i : i + x.shape[2], j : j + x.shape[3]], weight[:, :, i, j], (1, 1)
                ).transpose(0, 3, 1, 2)
                for i in range(3)
                for j in range(3)
            )
            x = np.maximum(x + w[f"net.slice{number}.{place}.bias"].reshape(1, -1, 1, 1), 0)
        found.append(x)
    return found


def twin(a, b):
    w = {name: value.astype(np.float64) for name, value in state().items()}
    distance = 0
    for i, (f, g) in enumerate(
        zip(features(w, a.astype(np.float64)), features(w, b.astype(np.float64)))
    ):
        f, g = (h / (np.sqrt((h**2).sum(1, keepdims=True)) + 1e-10) for h in (f, g))
        distance = distance + ((f - g) ** 2 * w[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    return distance


def images(height=16, width=24):
    return [
        np.random.default_rng(seed).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
        for seed in (1, 2)
    ]


def test_names_and_shapes_are_taming_transformers():
    expected, width = {"scaling_layer.shift": [1, 3, 1, 1], "scaling_layer.scale": [1, 3, 1, 1]}, 3
    for number, places in CONVOLUTIONS.items():
        expected[f"lin{number - 1}.model.1.weight"] = [1, WIDTHS[number], 1, 1]
        for place in places:
            expected[f"net.slice{number}.{place}.weight"] = [WIDTHS[number], width, 3, 3]
            expected[f"net.slice{number}.{place}.bias"] = [WIDTHS[number]]
            width = WIDTHS[number]
    lpips = network()
    assert {name: list(v.shape) for name, v in lpips.state_dict().items()} == expected
    assert all(v.is_stop_grad() for v in lpips.parameters())


def test_distances_are_the_twins_and_zero_for_equal_images():
    a, b = images()
    distance = network()(a, b).numpy()
    assert distance.shape == (2,) and distance.min() > 0.01
    np.testing.assert_allclose(distance, twin(a, b), rtol=1e-4)
    assert np.abs(network()(a, a).numpy()).max() == 0


def test_the_gradient_is_the_twins_finite_difference():
    a, b = images()
    x = jt.array(b)
    gradient = jt.grad(network()(a, x).sum(), x).numpy().astype(np.float64)
    size = np.linalg.norm(gradient)
    step = 1e-4 * gradient / size
    assert ((twin(a, b + step) - twin(a, b - step)) / 2e-4).sum() == pytest.approx(size, rel=1e-3)


def test_dead_features_have_a_finite_gradient():
    """A position where no feature answers has length 0, where a square root's slope is infinite."""
    h = jt.array(np.stack([np.zeros((2, 3, 4)), np.ones((2, 3, 4))]).astype(np.float32))
    assert np.abs(unit(h).numpy()[0]).max() == 0 and np.allclose(unit(h).numpy()[1], np.sqrt(0.5))
    assert np.isfinite(jt.grad((unit(h) * unit(h)).sum(), h).numpy()).all()


def test_pooling_gives_the_gradient_to_one_of_equal_values():
    x = jt.ones((1, 1, 5, 4))
    y = pool(x)
    gradient = jt.grad(y.sum(), x).numpy()[0, 0]
    assert list(y.shape) == [1, 1, 2, 2] and gradient.sum() == 4
    # PyTorch's choice: the first.
    assert gradient[0].tolist() == [1, 0, 1, 0] and (gradient[1] == 0).all()
    whole = jt.grad(x[:, :, :2, :2].reshape(1, 4).max(1).sum(), x).numpy()
    assert whole.sum() == 4  # why not Jittor's max over an axis


def test_weights_come_whole_in_pieces_or_inside_of_a_vq_gan(tmp_path):
    arrays = state()
    backbone = {
        "features." + name.split(".", 2)[2]: value
        for name, value in arrays.items()
        if name.startswith("net.")
    }
    backbone["classifier.0.weight"] = np.zeros((2, 2), np.float32)
    heads = {name: value for name, value in arrays.items() if name.startswith("lin")}
    inside = {"loss.perceptual_loss." + name: value for name, value in arrays.items()}
    for name, part in (
        ("heads", heads),
        ("vgg16", backbone),
        ("vqgan", {**inside, "encoder.conv_in.bias": np.zeros(4, np.float32)}),
    ):
        checkpoint.save(tmp_path / f"{name}.npz", part)
    for paths in (["heads.npz", "vgg16.npz"], ["vqgan.npz"]):
        loaded = load_lpips(*(tmp_path / path for path in paths)).state_dict()
        assert all((loaded[name].numpy() == value).all() for name, value in arrays.items())
    said = r"heads.npz: without VGG16's features; .* torchvision's vgg16"
    with pytest.raises(CheckpointError, match=said):
        load_lpips(tmp_path / "heads.npz")
    with pytest.raises(CheckpointError, match=r"without the heads"):
        load_lpips(tmp_path / "vgg16.npz")


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 16"):
        network()(np.zeros((1, 3, 8, 16), np.float32), np.zeros((1, 3, 8, 16), np.float32))
    with pytest.raises(ValueError, match="two equal shapes"):
        network()(np.zeros((1, 3, 16, 16), np.float32), np.zeros((2, 3, 16, 16), np.float32))
