"""The operator that makes queries, keys and values against float64 NumPy, its slope and plain
Jittor."""

import numpy as np
import pytest

from jseg.flowseg import fused_heads
from jseg.flowseg.blocks import Attention, turn_tables
from jseg.nn import kernels
from jseg.runtime import jt

EPS = 1e-6
# batch, rows and columns of patches, heads, d
CASES = {"small": (2, 3, 5, 2, 16), "one patch": (1, 1, 1, 1, 4), "runs": (3, 7, 10, 3, 8)}


def arrays(case, seed=0):
    batch, rows, columns, heads, d = CASES[case]
    rng, length = np.random.default_rng(seed), rows * columns
    values = {
        "qkv": rng.standard_normal((batch, length, 3 * heads * d)),
        "q weight": 1 + 0.5 * rng.standard_normal(d),
        "k weight": 1 + 0.5 * rng.standard_normal(d),
    }
    factors = [rng.standard_normal((batch * heads, length, d)) for _ in range(3)]
    return values, turn_tables(rows, columns, d), factors


def exact(values, tables):
    cosines, sines = (table.astype(np.float64) for table in tables)
    batch, length, channels = values["qkv"].shape
    d = cosines.shape[1]
    parts = values["qkv"].reshape(batch, length, 3, -1, d).transpose(2, 0, 3, 1, 4)
    found = []
    for x, name in zip(parts, ("q weight", "k weight", "")):
        if name:
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * values[name]
            neighbour = x.reshape(x.shape[:-1] + (-1, 2))[..., ::-1].reshape(x.shape)
            x = x * cosines + neighbour * sines
        found.append(x.reshape(-1, length, d))
    return found


def slope(values, tables, factors, name, place, h=1e-5):
    sides = []
    for sign in (1, -1):
        moved = {key: value.copy() for key, value in values.items()}
        moved[name][place] += sign * h
        sides.append(sum((x * f).sum() for x, f in zip(exact(moved, tables), factors)))
    return (sides[0] - sides[1]) / (2 * h)


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_the_formula_and_its_gradients_the_slope(case):
    values, tables, factors = arrays(case)
    inputs = [jt.array(v.astype(np.float32)) for v in values.values()]
    results = fused_heads.turned_heads(*inputs, *(jt.array(t).stop_grad() for t in tables), EPS)
    for found, expected in zip(results, exact(values, tables)):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    loss = sum(
        (x * jt.array(f.astype(np.float32)).stop_grad()).sum() for x, f in zip(results, factors)
    )
    rng = np.random.default_rng(1)
    for name, gradient in zip(values, jt.grad(loss, inputs)):
        found = gradient.numpy()
        assert found.shape == values[name].shape
        for place in [tuple(rng.integers(0, found.shape)) for _ in range(8)]:
            expected = slope(values, tables, factors, name, place)
            assert found[place] == pytest.approx(expected, rel=2e-5, abs=5e-5), name


def test_large_means_keep_their_digits():
    values, tables, _ = arrays("small")
    values["qkv"] += 1e3
    inputs = [jt.array(v.astype(np.float32)) for v in values.values()]
    results = fused_heads.turned_heads(*inputs, *(jt.array(t) for t in tables), EPS)
    rounded = {**values, "qkv": values["qkv"].astype(np.float32).astype(np.float64)}
    for found, expected in zip(results, exact(rounded, tables)):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=5e-6)


def test_attention_is_the_same_with_and_without_it(monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    rng, layer = np.random.default_rng(2), Attention(24, 3)
    s = jt.array(rng.standard_normal((2, 15, 24)).astype(np.float32))
    tables = [jt.array(table).stop_grad() for table in turn_tables(3, 5, 8)]
    results = []
    for names in ((fused_heads.NAME,), ()):
        monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
        y = layer(s, *tables)
        results.append([v.numpy() for v in (y, *jt.grad((y * y).sum(), [s, *layer.parameters()]))])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
