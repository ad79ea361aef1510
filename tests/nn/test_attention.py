import numpy as np
import pytest
from support.operators import choose

from jseg.nn import attention as fused
from jseg.nn import kernels, layers
from jseg.runtime import jt

SCALE = 0.35
SIZES = {
    "small": (3, 24, 40, 8),
    "tiles and a rest": (2, 300, 530, 20),
    "one of each": (2, 1, 1, 4),
    "wide heads": (1, 20, 37, 100),
}


def exact(q, k, v):
    scores = SCALE * np.einsum("nid,njd->nij", q, k)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    sums = weights.sum(-1, keepdims=True)
    return (
        np.einsum("nij,njd->nid", weights / sums, v),
        (np.log(sums) + scores.max(-1, keepdims=True))[..., 0],
        weights / sums,
    )


def exact_gradients(q, k, v, g):
    out, _, p = exact(q, k, v)
    of_p = np.einsum("nid,njd->nij", g, v)
    of_scores = SCALE * p * (of_p - (of_p * p).sum(-1, keepdims=True))
    return [
        np.einsum("nij,njd->nid", of_scores, k),
        np.einsum("nij,nid->njd", of_scores, q),
        np.einsum("nij,nid->njd", p, g),
    ]


def arrays(size, spread=1.0):
    n, length, others, d = SIZES[size]
    rng = np.random.default_rng(0)
    return [spread * rng.standard_normal((n, count, d)) for count in (length, others, others)] + [
        rng.standard_normal((n, length, d))
    ]


def vars_of(arrays):
    return [jt.array(array.astype(np.float32)) for array in arrays]


@pytest.mark.parametrize("size", SIZES)
def test_the_source_is_the_textbook_formula_and_its_gradient(size, monkeypatch):
    choose("compiled", monkeypatch, fused)
    inputs = arrays(size)
    q, k, v, g = vars_of(inputs)
    out, sums = fused.forward(q, k, v, SCALE)
    expected, expected_sums, _ = exact(*inputs[:3])
    np.testing.assert_allclose(out.numpy(), expected, atol=3e-6)
    np.testing.assert_allclose(sums.numpy(), expected_sums, rtol=2e-6)
    for found, theirs in zip(
        fused.backward(g, q, k, v, out, sums, SCALE), exact_gradients(*inputs)
    ):
        np.testing.assert_allclose(found.numpy(), theirs, atol=2e-5)


def test_the_gradient_is_the_slope(monkeypatch):
    choose("compiled", monkeypatch, fused)
    inputs = arrays("small")
    q, k, v, g = vars_of(inputs)
    gradients = [
        x.numpy() for x in fused.backward(g, q, k, v, *fused.forward(q, k, v, SCALE), SCALE)
    ]
    rng = np.random.default_rng(1)
    for number, gradient in enumerate(gradients):
        for place in [tuple(rng.integers(0, gradient.shape)) for _ in range(4)]:
            sides = []
            for sign in (1, -1):
                moved = [array.copy() for array in inputs]
                moved[number][place] += sign * 1e-5
                sides.append((exact(*moved[:3])[0] * inputs[3]).sum())
            assert gradient[place] == pytest.approx(
                (sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-5
            )


def test_scores_of_hundreds_overflow_nothing(monkeypatch):
    choose("compiled", monkeypatch, fused)
    inputs = arrays("tiles and a rest", spread=12.0)
    assert np.abs(exact(*inputs[:3])[1]).max() > 400
    out, _ = fused.forward(*vars_of(inputs[:3]), SCALE)
    np.testing.assert_allclose(out.numpy(), exact(*inputs[:3])[0], atol=2e-3)


def test_who_is_taken(monkeypatch):
    choose("compiled", monkeypatch, fused)
    q = vars_of(arrays("small"))[0]
    assert fused.tiled(q) == kernels.onednn()
    assert not fused.tiled(q.float16())
    assert not fused.tiled(q.float64())
    monkeypatch.setattr(kernels, "FASTER", {"cpu": ()})
    assert not fused.tiled(q)
    monkeypatch.setenv("JSEG_FUSED", "rms_norm,attention")
    assert fused.tiled(q) == kernels.onednn()
    monkeypatch.setenv("JSEG_FUSED", "")
    assert not fused.tiled(q)


@pytest.mark.parametrize("chosen", [True, False])
def test_layers_attention_is_the_same_either_way(chosen, monkeypatch):
    monkeypatch.setattr(kernels, "FASTER", {"cpu": (fused.NAME,) if chosen else ()})
    inputs = arrays("tiles and a rest")
    q, k, v, g = vars_of(inputs)
    out = layers.attention(q, k, v, SCALE)
    np.testing.assert_allclose(out.numpy(), exact(*inputs[:3])[0], atol=3e-6)
    for found, theirs in zip(jt.grad(out * g.stop_grad(), [q, k, v]), exact_gradients(*inputs)):
        np.testing.assert_allclose(found.numpy(), theirs, atol=2e-5)
