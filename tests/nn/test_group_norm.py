import contextlib

import numpy as np
import pytest
from scipy.special import expit
from support.operators import FORMS, choose

from jseg.nn import group_norm as fused
from jseg.nn.kernels import graph_used_once
from jseg.runtime import jt

GROUPS, EPS = 2, 1e-5
CASES = {
    "group norm": (False, False, False),
    "and SiLU": (False, False, True),
    "FiLM": (False, True, True),
    "SPADE": (True, False, True),
    "SPADE, FiLM": (True, True, True),
    "one map for all": ("1", True, True),
    "the last map for two": ("2", True, True),
}


def arrays(maps, film, shape=(3, 6, 7, 9), mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    like = (shape[0] if maps is True else int(maps),) + shape[1:] if maps else shape[1:2]
    values = {
        "x": rng.standard_normal(shape) + mean,
        "scale": 1 + 0.5 * rng.standard_normal(like),
        "shift": rng.standard_normal(like),
    }
    if film:
        values["a"] = 1 + 0.5 * rng.standard_normal(shape[:2])
        values["b"] = rng.standard_normal(shape[:2])
    return values, rng.standard_normal(shape)


def exact(values, activate):
    """The formula in float64 NumPy."""
    x, spread = values["x"], [1] * (values["x"].ndim - 2)
    grouped = x.reshape(x.shape[0], GROUPS, -1)
    centred = grouped - grouped.mean(-1, keepdims=True)
    normal = (centred / np.sqrt(grouped.var(-1, keepdims=True) + EPS)).reshape(x.shape)
    scale, shift = (
        v[np.minimum(np.arange(len(x)), len(v) - 1)] if v.ndim > 1 else v.reshape([1, -1] + spread)
        for v in (values["scale"], values["shift"])
    )
    z = normal * scale + shift
    if "a" in values:
        a, b = (values[name].reshape(list(x.shape[:2]) + spread) for name in "ab")
        z = z * a + b
    return z * expit(z) if activate else z


def slope(values, factor, activate, name, place, h=1e-5):
    """d sum(factor y) / d values[name][place] by central differences."""
    sides = []
    for sign in (1, -1):
        moved = {key: value.copy() for key, value in values.items()}
        moved[name][place] += sign * h
        sides.append((exact(moved, activate) * factor).sum())
    return (sides[0] - sides[1]) / (2 * h)


def ours(values, activate, kind="float32"):
    inputs = {
        name: jt.array(v.astype(np.float32)).cast(kind if name == "x" else "float32")
        for name, v in values.items()
    }
    x, scale, shift, *film = inputs.values()
    return inputs, fused.group_norm(x, GROUPS, EPS, scale, shift, film or None, activate)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_all_forms_are_the_formula_and_their_gradients_its_slope(form, case, monkeypatch):
    choose(form, monkeypatch, fused)
    maps, film, activate = CASES[case]
    values, factor = arrays(maps, film)
    inputs, y = ours(values, activate)
    np.testing.assert_allclose(y.numpy(), exact(values, activate), atol=5e-6)
    gradients = jt.grad(y * jt.array(factor.astype(np.float32)).stop_grad(), list(inputs.values()))
    rng = np.random.default_rng(1)
    for name, gradient in zip(inputs, gradients):
        found = gradient.numpy()
        assert found.shape == values[name].shape
        for place in [tuple(rng.integers(0, found.shape)) for _ in range(5)]:
            assert found[place] == pytest.approx(
                slope(values, factor, activate, name, place), rel=2e-5, abs=2e-5
            ), name


@pytest.mark.parametrize("form", FORMS)
def test_a_large_mean_costs_no_digits_but_those_of_the_input(form, monkeypatch):
    choose(form, monkeypatch, fused)
    values, _ = arrays(False, False, (1, 4, 80, 120), mean=1e3)
    values["x"] = values["x"].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(ours(values, False)[1].numpy(), exact(values, False), atol=5e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind, unit", [("float16", 2.0**-11), ("bfloat16", 2.0**-7)]
)  # the CPU's conversion to bfloat16 truncates
def test_half_precision_costs_its_rounding_alone(form, kind, unit, monkeypatch):
    """x of mean 300: squares of it have no place in float16, their sums none in bfloat16."""
    choose(form, monkeypatch, fused)
    values, factor = arrays(False, False, mean=300.0 if kind == "float16" else 8.0)
    values["x"] = (
        jt.array(values["x"].astype(np.float32)).cast(kind).float32().numpy().astype(np.float64)
    )
    inputs, y = ours(values, True, kind)
    expected = exact(values, True)
    assert str(y.dtype) == kind
    assert np.abs(y.float32().numpy() - expected).max() < 1.1 * unit * np.abs(expected).max() + 1e-4
    gradient, of_scale = jt.grad(
        y.float32() * jt.array(factor.astype(np.float32)).stop_grad(),
        [inputs["x"], inputs["scale"]],
    )
    assert str(gradient.dtype) == kind and str(of_scale.dtype) == "float32"
    places = [(0, 1, 2, 3), (1, 5, 6, 8), (1, 0, 0, 0)]
    # The gradient has y's type.
    rounded = jt.array(factor.astype(np.float32)).cast(kind).float32().numpy().astype(np.float64)
    expected = np.array([slope(values, rounded, True, "x", place) for place in places])
    found = gradient.float32().numpy()[tuple(zip(*places))]
    assert np.abs(found - expected).max() < 2 * unit * np.abs(gradient.float32().numpy()).max()


def test_a_number_per_channel_is_found_among_all_images_too(monkeypatch):
    choose("compiled", monkeypatch, fused)
    values, factor = arrays(True, True, (3, 4, 1, 1))
    inputs, y = ours(values, True)
    np.testing.assert_allclose(y.numpy(), exact(values, True), atol=5e-6)


def test_sizes_are_not_compiled(monkeypatch):
    """Other shapes of the same number of axes use the same kernels: no file appears among the
    compiled ones.
    """
    import os

    choose("compiled", monkeypatch, fused)

    def run(shape):
        values, factor = arrays(True, True, shape)
        inputs, y = ours(values, True)
        jt.sync(
            jt.grad(y * jt.array(factor.astype(np.float32)).stop_grad(), list(inputs.values()))
            + [y]
        )

    run((2, 6, 7, 9))
    folder = os.path.join(jt.flags.cache_path, "jit")
    before = {name for name in os.listdir(folder) if "code" in name}
    run((1, 8, 3, 4))
    assert {name for name in os.listdir(folder) if "code" in name} == before


def test_what_the_gradient_keeps_is_the_inputs_and_three_numbers_a_group(monkeypatch):
    choose("compiled", monkeypatch, fused)
    values, _ = arrays(False, False)
    saved = []
    monkeypatch.setattr(fused.GroupNormFunction, "keep", lambda self, *v: saved.append(v))
    inputs, y = ours(values, True)
    assert [list(v.shape) for v in saved[0]] == [
        [3, 6, 63],
        [1, 6, 1],
        [1, 6, 1],
        [1, 1],
        [1, 1],
        [6, 3],
    ]


# -- rows, each less its mean over its spread ------------------------------------------------------


def rows(n, mean=0.0):
    rng = np.random.default_rng(n)
    x, factor = rng.standard_normal((6, n)) + mean, rng.standard_normal((6, n))
    return x.astype(np.float32), factor.astype(np.float32)


def standardized(x, factor, eps=1e-5):
    """The rows, and the gradient of the sum of their product with `factor`."""
    x = jt.array(x)
    y = fused.standardize(x, eps)
    return y.numpy(), jt.grad(y * jt.array(factor).stop_grad(), x).numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "n, mean, tolerance", [(1, 0.0, 1e-6), (48, 0.0, 4e-6), (5000, 0.0, 4e-6), (5000, 1e3, 2e-3)]
)
def test_rows_and_their_gradients_are_the_formula(form, n, mean, tolerance, monkeypatch):
    choose(form, monkeypatch, fused)
    x, factor = rows(n, mean)
    y, gradient = standardized(x, factor)
    x, g = x.astype(np.float64), factor.astype(np.float64)
    scale = 1 / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    normal = (x - x.mean(1, keepdims=True)) * scale
    slope = (g * normal).mean(1, keepdims=True)
    np.testing.assert_allclose(y, normal, atol=tolerance)
    expected = scale * (g - g.mean(1, keepdims=True) - normal * slope)
    np.testing.assert_allclose(gradient, expected, atol=tolerance)


def test_sums_of_many_numbers_keep_their_digits():
    x = np.full((1, 1 << 20), 0.1, np.float32)
    x[0, ::2] = 0.3
    assert np.abs(fused.standardize(jt.array(x), 0.0).numpy()[0, :2] - [1, -1]).max() < 2e-6


def test_nothing_stays_behind():
    for _ in range(2):
        standardized(*rows(48))
    before = jt.number_of_lived_vars()
    standardized(*rows(48))
    assert jt.number_of_lived_vars() <= before


@pytest.mark.parametrize("once", [False, True])
def test_what_a_gradient_needed_is_free_before_the_run_ends_where_it_is_asked_for_once(once):
    x, factor = (jt.array(array) for array in rows(48))
    constants = [jt.full(shape, 1.0) for shape in ((1, 1, 1), (1, 1, 1), (1, 1), (1, 1))]
    with graph_used_once() if once else contextlib.nullcontext():
        function = fused.GroupNormFunction(1, 1e-5, False)
        y = function(x.reshape(6, 1, 48), *constants)
    assert len(function.saved) == 6
    jt.grad(y.reshape(6, 48) * factor.stop_grad(), x)
    assert (function.saved is None) == once
