import numpy as np
import pytest

from jseg.nn import chunks, kernels, layers
from jseg.runtime import jt

nn = jt.nn


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("mean, tolerance", [(0.0, 1e-5), (1e3, 2e-3)])
def test_group_norm_keeps_its_digits_where_jittors_loses_them(mean, tolerance):
    x = (rng().standard_normal((2, 64, 12, 16)) + mean).astype(np.float32)
    exact = x.astype(np.float64).reshape(2, 32, -1)
    centred = exact - exact.mean(-1, keepdims=True)
    exact = (centred / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)).reshape(x.shape)
    norm = layers.GroupNorm(32, 64)
    norm.weight.assign(jt.full((64,), 2.0))
    norm.bias.assign(jt.full((64,), 0.5))
    np.testing.assert_allclose(norm(jt.array(x)).numpy(), 2 * exact + 0.5, atol=tolerance)
    if mean:
        # Why this class exists.
        assert np.abs(nn.GroupNorm(32, 64)(jt.array(x)).numpy() - exact).max() > 0.1


def test_group_norm_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="40 channels do not divide into 32 groups"):
        layers.GroupNorm(32, 40)


@pytest.fixture(params=["tiles", "chunks"])
def way(request, monkeypatch):
    """How attention goes about it."""
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    monkeypatch.setattr(
        kernels, "FASTER", {"cpu": ("attention",) if request.param == "tiles" else ()}
    )
    return request.param


@pytest.mark.parametrize("chunk", [32 << 20, 4 * 40 * 7])
def test_attention_is_the_textbook_formula_whatever_the_chunk(chunk, way, monkeypatch):
    monkeypatch.setitem(chunks.ATTENTION_CHUNK_BYTES, "cpu", chunk)
    q, k, v = (rng().standard_normal((3, n, 8)) for n in (24, 40, 40))
    scores = np.einsum("nid,njd->nij", q, k) * 0.35
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("nij,njd->nid", weights / weights.sum(-1, keepdims=True), v)
    with jt.no_grad():
        ours = layers.attention(*(jt.array(a.astype(np.float32)) for a in (q, k, v)), 0.35)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)


def test_attention_survives_scores_that_would_overflow(way):
    q = jt.array(np.full((1, 4, 8), 30.0, np.float32))
    v = jt.array(rng().standard_normal((1, 4, 8)).astype(np.float32))
    np.testing.assert_allclose(
        layers.attention(q, q, v, 1.0).numpy()[0], np.tile(v.numpy()[0].mean(0), (4, 1)), atol=1e-5
    )


@pytest.mark.parametrize("chunk", [32 << 20, 4 * 40 * 7])
def test_attention_s_gradients_are_those_of_the_formula_whatever_the_chunk(chunk, way, monkeypatch):
    monkeypatch.setitem(chunks.ATTENTION_CHUNK_BYTES, "cpu", chunk)
    variables = [
        jt.array(rng().standard_normal((3, n, 8)).astype(np.float32)) for n in (24, 40, 40)
    ]
    factor = jt.array(rng().standard_normal((3, 24, 8)).astype(np.float32)).stop_grad()
    q, k, v = variables
    plain = nn.bmm(nn.softmax(nn.bmm_transpose(q, k) * 0.35, dim=-1), v)
    expected = jt.grad(plain * factor, variables)
    for ours, theirs in zip(jt.grad(layers.attention(q, k, v, 0.35) * factor, variables), expected):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=5e-6)


def test_attention_takes_as_many_operations_for_one_head_as_for_many(way):
    """Jittor stops being lazy at 100,000 operations, and then computes a convolution's
    seven-dimensional product as it stands.
    """

    def operations(heads):
        q, k, v = (
            jt.array(rng().standard_normal((heads, 6, 8)).astype(np.float32)) for _ in range(3)
        )
        jt.sync_all()
        before = jt.number_of_lived_ops()
        out = layers.attention(q, k, v, 1.0)
        gradients = jt.grad(out.sum(), [q, k, v])
        return jt.number_of_lived_ops() - before + 0 * len(gradients)

    assert operations(2) == operations(48) > 3


@pytest.mark.parametrize("kind, bound", [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_costs_attention_its_rounding(kind, bound):
    """Scores of up to 40 of either sign, whose exponentials have no place in float16; the softmax
    and its sums are float32.
    """
    q, k, v = (rng().standard_normal((3, n, 8)) * 2 for n in (24, 40, 40))
    q, k, v = (jt.array(a.astype(np.float32)).cast(kind) for a in (q, k, v))
    exact_q, exact_k, exact_v = (a.float32().numpy().astype(np.float64) for a in (q, k, v))
    weights = np.exp(np.einsum("nid,njd->nij", exact_q, exact_k))
    expected = np.einsum("nij,njd->nid", weights / weights.sum(-1, keepdims=True), exact_v)
    found = layers.attention(q, k, v, 1.0)
    assert str(found.dtype) == kind and np.abs(np.log(weights)).max() > 15
    error = np.abs(found.float32().numpy() - expected)
    assert np.median(error) < bound * np.abs(expected).max(), (
        "scores are products in half precision here, so single ones are further off"
    )


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_with_what_follows_it_is_the_same_compiled_or_not(affine, monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    x = jt.array(rng().standard_normal((2, 8, 4, 5)).astype(np.float32))
    film = [jt.full((2, 8, 1, 1), 1.5), jt.full((2, 8, 1, 1), 0.25)]
    norm, results = layers.GroupNorm(4, 8, affine=affine), []
    for names in ((), ("group_norm",)):
        monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
        y = norm(x, film, activate=True)
        results.append([v.numpy() for v in [y] + jt.grad(y * x.detach(), [x] + film)])
    for plain, compiled in zip(*results):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_pointwise_is_a_1x1_convolution(batch):
    layer = layers.Pointwise(8, 12)
    x = rng().standard_normal((batch, 8, 6, 10)).astype(np.float32)
    expected = np.einsum("oc,bchw->bohw", layer.weight.numpy()[:, :, 0, 0], x)
    expected += layer.bias.numpy().reshape(1, -1, 1, 1)
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)
    assert list(layers.Pointwise(8, 12, ndim=3).weight.shape) == [12, 8, 1]


def test_pointwise_s_gradients_are_a_convolution_s():
    layer = layers.Pointwise(8, 12)
    x = jt.array(rng().standard_normal((3, 8, 6, 10)).astype(np.float32))
    factor = jt.array(rng().standard_normal((3, 12, 6, 10)).astype(np.float32)).stop_grad()
    targets = [x, layer.weight, layer.bias]
    expected = jt.grad(nn.conv2d(x, layer.weight, layer.bias) * factor, targets)
    for ours, theirs in zip(jt.grad(layer(x) * factor, targets), expected):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_timestep_table_is_cosines_then_sines_of_geometric_frequencies():
    table = layers.timestep_table(1000, 8)
    for t in (0, 1, 999):
        for i in range(4):
            phase = t * 10000.0 ** (-i / 4)
            expected = [np.cos(phase), np.sin(phase)]
            np.testing.assert_allclose(table[t, [i, 4 + i]], expected, atol=1e-7)


def test_one_hot_gives_unknown_ids_an_empty_column():
    maps = layers.one_hot(np.array([[[0, 2], [255, 1]]]), 3).numpy()
    assert maps.shape == (1, 3, 2, 2) and maps.sum() == 3
    assert maps[0, :, 0, 1].tolist() == [0, 0, 1] and maps[0, :, 1, 0].tolist() == [0, 0, 0]


def test_zero_really_zeroes():
    """The release's zero_module (detach().zero_()) leaves Jittor parameters as they were; `zero`
    does not.
    """
    assert np.abs(layers.zero(nn.Linear(4, 3)).weight.numpy()).max() == 0
    linear = nn.Linear(4, 3)
    for parameter in linear.parameters():
        parameter.detach().zero_()
    assert np.abs(linear.weight.numpy()).max() > 0
