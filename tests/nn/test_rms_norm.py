from types import SimpleNamespace

import numpy as np
import pytest
from support.operators import FORMS, choose

from jseg.nn import kernels
from jseg.nn import rms_norm as fused
from jseg.runtime import jt

EPS = 1e-6
CASES = {
    "norm": (1, False),
    "and shift": (1, True),
    "adaLN": (3, True),
    "scale of each image": (3, False),
}


def arrays(rows, shifted, shape=(3, 70, 24), seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.standard_normal(shape),
        "scale": 1 + 0.5 * rng.standard_normal((rows, shape[2])),
    }
    if shifted:
        values["shift"] = rng.standard_normal((rows, shape[2]))
    return values, rng.standard_normal(shape)


def exact(values):
    x = values["x"]
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * values["scale"][:, None]
    return y + values["shift"][:, None] if "shift" in values else y


def slope(values, factor, name, place, h=1e-5):
    sides = []
    for sign in (1, -1):
        moved = {key: value.copy() for key, value in values.items()}
        moved[name][place] += sign * h
        sides.append((exact(moved) * factor).sum())
    return (sides[0] - sides[1]) / (2 * h)


def ours(values, kind="float32"):
    inputs = {
        name: jt.array(v.astype(np.float32)).cast(kind if name == "x" else "float32")
        for name, v in values.items()
    }
    return inputs, fused.rms_norm(inputs["x"], EPS, inputs["scale"], inputs.get("shift"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_all_forms_are_the_formula_and_their_gradients_its_slope(form, case, monkeypatch):
    choose(form, monkeypatch, fused)
    values, factor = arrays(*CASES[case])
    inputs, y = ours(values)
    np.testing.assert_allclose(y.numpy(), exact(values), atol=5e-6)
    gradients = jt.grad(y * jt.array(factor.astype(np.float32)).stop_grad(), list(inputs.values()))
    rng = np.random.default_rng(1)
    for name, gradient in zip(inputs, gradients):
        found = gradient.numpy()
        assert found.shape == values[name].shape
        for place in [tuple(rng.integers(0, found.shape)) for _ in range(5)]:
            assert found[place] == pytest.approx(
                slope(values, factor, name, place), rel=2e-5, abs=2e-5
            ), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind, unit, largest", [("float16", 2.0**-11, 3e4), ("bfloat16", 2.0**-7, 1e18)]
)
def test_half_precision_costs_its_rounding_alone(form, kind, unit, largest, monkeypatch):
    """Squares of these values have no place in float16, and their sums no digits in bfloat16."""
    choose(form, monkeypatch, fused)
    values, factor = arrays(1, False)
    values["x"] *= largest / np.abs(values["x"]).max()
    values["x"] = (
        jt.array(values["x"].astype(np.float32)).cast(kind).float32().numpy().astype(np.float64)
    )
    inputs, y = ours(values, kind)
    expected = exact(values)
    assert str(y.dtype) == kind
    assert np.abs(y.float32().numpy() - expected).max() < 1.1 * unit * np.abs(expected).max()
    gradient, of_scale = jt.grad(
        y.float32() * jt.array(factor.astype(np.float32)).stop_grad(),
        [inputs["x"], inputs["scale"]],
    )
    assert str(gradient.dtype) == kind and str(of_scale.dtype) == "float32"
    rounded = jt.array(factor.astype(np.float32)).cast(kind).float32().numpy().astype(np.float64)
    np.testing.assert_allclose(
        of_scale.numpy()[0, 3], slope(values, rounded, "scale", (0, 3)), rtol=1e-4, atol=1e-3
    )


def test_a_sequence_without_images_will_do(monkeypatch):
    choose("compiled", monkeypatch, fused)
    values, _ = arrays(1, True, (1, 5, 24))
    inputs = [jt.array(values[name][0].astype(np.float32)) for name in ("x", "scale", "shift")]
    np.testing.assert_allclose(
        fused.rms_norm(inputs[0], EPS, *inputs[1:]).numpy(), exact(values)[0], atol=5e-6
    )


def test_cuda_leaves_rows_that_its_gradient_has_no_room_for_to_the_twin(monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    on_cuda = SimpleNamespace(flags=SimpleNamespace(use_cuda=1))
    for module in (kernels, fused):
        monkeypatch.setattr(module, "jt", on_cuda)
    rows = [SimpleNamespace(shape=[1, 2, fused.WIDEST + more], dtype="float32") for more in (0, 1)]
    assert [fused.computes(x) for x in rows] == [True, False]
    assert 2 * 4 * fused.WIDEST <= 48 << 10, "a launch has no more shared memory without asking"


@pytest.mark.parametrize("tokens", [1, 8, 9, 2048, 262144, 524289])
def test_runs_on_cuda_are_as_many_as_fill_a_gpu_or_short(tokens):
    run = fused.cuda_run(tokens)
    assert -(-tokens // run) <= fused.BLOCKS
    assert run == fused.SHORTEST or -(-tokens // run) > fused.BLOCKS / 2
