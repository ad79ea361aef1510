"""The transformer block's operator for inference against float64 NumPy and against plain Jittor."""

import numpy as np
import pytest

from jseg.flowseg import fused_block
from jseg.flowseg.blocks import EPS, TransformerBlock, turn_tables
from jseg.nn import kernels
from jseg.runtime import jt

# batch, rows and columns of patches, channels, heads
CASES = {
    "small": (1, 3, 5, 32, 2),
    "one patch": (1, 1, 1, 8, 2),
    "three images": (3, 4, 3, 24, 3),
    "two tiles of queries": (2, 18, 17, 16, 4),
}


@pytest.fixture(params=CASES)
def case(request):
    batch, rows, columns, channels, heads = CASES[request.param]
    rng, block = np.random.default_rng(0), TransformerBlock(channels, heads)
    for parameter in block.parameters():
        value = rng.standard_normal(parameter.shape) * channels**-0.5
        parameter.assign(jt.array(value.astype(np.float32)))
    arrays = [
        rng.standard_normal((batch, rows * columns, channels)),
        rng.standard_normal((batch, channels)),
        *turn_tables(rows, columns, channels // heads),
    ]
    return block, [array.astype(np.float32) for array in arrays]


def computed(block, arrays):
    with jt.no_grad():
        return block(*map(jt.array, arrays)).numpy()


def normed(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale


def exact(block, arrays):
    w = {name: v.numpy().astype(np.float64) for name, v in block.state_dict().items()}
    s, condition, cosines, sines = (array.astype(np.float64) for array in arrays)
    modulation = condition @ w["adaLN_modulation.0.weight"].T + w["adaLN_modulation.0.bias"]
    parts = np.split(modulation[:, None], 6, axis=2)  # each [B, 1, D]
    batch, length, channels = s.shape

    def turned(x, scale):
        x = normed(x, scale)
        neighbour = x.reshape(x.shape[:-1] + (-1, 2))[..., ::-1].reshape(x.shape)
        return x * cosines + neighbour * sines

    h = normed(s, w["norm1.weight"] * (1 + parts[1])) + parts[0]
    qkv = (h @ w["attn.qkv.weight"].T).reshape(batch, length, 3, block.attn.heads, -1)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [B, h, L, d]
    q, k = turned(q, w["attn.q_norm.weight"]), turned(k, w["attn.k_norm.weight"])
    scores = q @ k.transpose(0, 1, 3, 2) * q.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    h = weights / weights.sum(-1, keepdims=True) @ v
    h = h.transpose(0, 2, 1, 3).reshape(s.shape) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    s = s + parts[2] * h

    h = normed(s, w["norm2.weight"] * (1 + parts[4])) + parts[3]
    first = h @ w["mlp.w1.weight"].T
    h = first / (1 + np.exp(-first)) * (h @ w["mlp.w3.weight"].T)
    return s + parts[5] * (h @ w["mlp.w2.weight"].T)


def test_the_operator_is_the_formula(case):
    expected = exact(*case)
    np.testing.assert_allclose(computed(*case), expected, atol=1e-5 * np.abs(expected).max())


def test_large_means_keep_their_digits(case):
    block, arrays = case
    arrays[0] = arrays[0] + np.float32(1e3)
    expected = exact(block, arrays)
    np.testing.assert_allclose(computed(block, arrays), expected, rtol=2e-6)


def test_operator_and_plain_jittor_give_the_same_tokens(case, monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    results = []
    for names in ((fused_block.NAME,), ()):
        monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
        results.append(computed(*case))
    np.testing.assert_allclose(*results, atol=1e-5 * np.abs(results[1]).max())


def test_only_tokens_in_float32_without_gradients_are_taken(monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    s = jt.zeros((1, 2, 8))
    assert not fused_block.fused(s)
    with jt.no_grad():
        assert fused_block.fused(s) and not fused_block.fused(s.float64())
        monkeypatch.setenv("JSEG_FUSED", "attention")
        assert not fused_block.fused(s)
