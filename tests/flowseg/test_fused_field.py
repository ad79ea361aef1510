"""The neural field's operator against float64 NumPy written from the formulas, the slope of that,
and plain Jittor."""

import dataclasses

import numpy as np
import pytest

from jseg.flowseg import fused_field
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.nn import kernels
from jseg.runtime import jt

EPS = 1e-6
# patches, pixels of a patch, colours, channels, hidden, width of tokens, blocks
CASES = {
    "small": (5, 64, 3, 16, 32, 12, 2),
    "odd sizes": (35, 9, 6, 11, 19, 7, 3),
    "one pixel": (1, 1, 3, 3, 5, 2, 1),
    "one channel": (2, 5, 3, 1, 1, 3, 1),
    "more than a run": (fused_field.RUN * 2 + 1, 4, 3, 8, 16, 4, 1),
}


def arrays(case, seed=0):
    n, pixels, colours, channels, hidden, width, blocks = CASES[case]
    rng = np.random.default_rng(seed)
    shapes = {
        "pixels": (n, pixels, colours),
        "colour": (colours, channels),
        "place": (pixels, channels),
        "norms": (blocks + 1, channels),
        "last": (3, channels),
        "bias": (3,),
        "tokens": (n, width),
    }
    for k in range(blocks):
        shapes[f"weight {k}"], shapes[f"bias {k}"] = (
            (2 * channels * hidden, width),
            (2 * channels * hidden,),
        )
    values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return values, rng.standard_normal((n, pixels, 3))


def normed(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale


def unit(w):
    return w / np.sqrt(np.maximum((w**2).sum(1, keepdims=True), 1e-24))


def exact(values):
    h = values["pixels"] @ values["colour"] + values["place"]
    n, _, channels = h.shape
    blocks = len(values["norms"]) - 1
    for k in range(blocks):
        w = values["tokens"] @ values[f"weight {k}"].T + values[f"bias {k}"]
        w1, w2 = np.split(w, 2, axis=1)
        z = normed(h, values["norms"][k]) @ unit(w1.reshape(n, channels, -1))
        h = h + z / (1 + np.exp(-z)) @ unit(w2.reshape(n, -1, channels))
    return normed(h, values["norms"][blocks]) @ values["last"].T + values["bias"]


def ours(values):
    inputs = {name: jt.array(v.astype(np.float32)) for name, v in values.items()}
    first = list(inputs.values())[:7]
    layers = [(inputs[f"weight {k}"], inputs[f"bias {k}"]) for k in range(len(values["norms"]) - 1)]
    return inputs, fused_field.neural_field(*first, layers, EPS)


def slope(values, factor, name, place, h=1e-5):
    sides = []
    for sign in (1, -1):
        moved = {key: value.copy() for key, value in values.items()}
        moved[name][place] += sign * h
        sides.append((exact(moved) * factor).sum())
    return (sides[0] - sides[1]) / (2 * h)


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_the_formula_and_its_gradients_the_slope(case):
    values, factor = arrays(case)
    inputs, y = ours(values)
    np.testing.assert_allclose(y.numpy(), exact(values), atol=2e-5)
    gradients = jt.grad(y * jt.array(factor.astype(np.float32)).stop_grad(), list(inputs.values()))
    rng = np.random.default_rng(1)
    for (name, value), gradient in zip(values.items(), gradients):
        found = gradient.numpy()
        assert found.shape == value.shape
        scale = np.abs(found).max()
        for place in [tuple(rng.integers(0, found.shape)) for _ in range(4)]:
            expected = slope(values, factor, name, place)
            assert found[place] == pytest.approx(expected, rel=1e-4, abs=1e-4 * scale + 1e-5), name


@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_large_means_of_pixels_and_of_weights_keep_their_digits(mean):
    values, _ = arrays("small")
    values["pixels"] += mean
    values["bias 0"] += mean
    found, expected = ours(values)[1].numpy(), exact(values)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_generated_columns_of_zeros_give_finite_results_and_gradients():
    values, _ = arrays("small")
    for name in ("weight 0", "bias 0"):
        values[name][:] = 0
    inputs, y = ours(values)
    np.testing.assert_allclose(y.numpy(), exact(values), atol=2e-5)
    for gradient in jt.grad(y.sum(), list(inputs.values())):
        assert np.isfinite(gradient.numpy()).all()


@pytest.mark.parametrize("source", ["image", "noise"])
def test_operator_and_plain_jittor_give_the_same_field(source, monkeypatch):
    """Also with a patch of odd size, and with the image's pixels as further colours."""
    config = dataclasses.replace(
        NETWORKS["tiny"], source=source, patch=5, width=20, height=15, pixel_channels=12
    )
    network, rng = PixNerd(config), np.random.default_rng(2)
    field = network._field[0]
    for parameter in field.parameters():
        parameter.assign(jt.array(rng.standard_normal(parameter.shape).astype(np.float32)))
    shapes = [(12, config.hidden_size), (12, 25, 3)] + [(12, 25, 3)] * config.sees_image
    inputs = [jt.array(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]

    monkeypatch.delenv("JSEG_FUSED", raising=False)
    results = []
    for names in ((fused_field.NAME,), ()):
        monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
        y = field(*inputs)
        gradients = jt.grad((y * y).sum(), inputs + field.parameters())
        results.append([v.numpy() for v in (y, *gradients)])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_other_types_and_more_colours_are_left_to_plain_jittor(monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    assert fused_field.fused(jt.zeros((2, 4, 6)))
    assert not fused_field.fused(jt.zeros((2, 4, 9)))
    assert not fused_field.fused(jt.zeros((2, 4, 3)).float64())
    assert not fused_field.fused(jt.zeros((2, 4, 3)).float16())
    monkeypatch.setenv("JSEG_FUSED", "")
    assert not fused_field.fused(jt.zeros((2, 4, 3)))
