"""Strips with their neighbours' rows: the operator and its twin give the rows of the whole padded,
normalised and activated map.
"""

import numpy as np
import pytest

from jseg.ldm import halo, strips
from jseg.nn import kernels
from jseg.nn.layers import GroupNorm
from jseg.runtime import jt

# Heights of the strips, and [B, C, width].
MAPS = {
    "one strip": ((5,), (1, 8, 16)),
    "two strips, odd width": ((4, 3), (1, 8, 13)),
    "three strips, batch 2": ((3, 4, 2), (2, 16, 9)),
    "strips of one row, one column": ((1, 1, 1, 1), (2, 8, 1)),
    "more than a vector": ((6, 6, 6), (1, 8, 67)),
}
SIDES = {"both": (1, 1, 0), "below and right": (0, 1, 1), "above": (1, 0, 0)}


@pytest.fixture(params=["operator", "twin"], autouse=True)
def form(request, monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    names = (halo.NAME,) if request.param == "operator" else ()
    monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
    with jt.no_grad():
        yield request.param


def cut(x, heights):
    bounds = np.cumsum([0, *heights])
    pieces = [x[:, :, start:stop] for start, stop in zip(bounds[:-1], bounds[1:])]
    return [jt.array(np.ascontiguousarray(piece)) for piece in pieces]


def padded_rows(y, heights, above, below, right):
    """The rows of the whole map y, zeros around it, that belong to each strip."""
    y = np.pad(y, ((0, 0), (0, 0), (above, below), (0, right)))
    starts = np.cumsum([0, *heights[:-1]])
    return [
        y[:, :, start : start + above + height + below] for start, height in zip(starts, heights)
    ]


def made_map(heights, size, mean=0.0):
    batch, channels, width = size
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, channels, sum(heights), width)) + mean
    return x.astype(np.float32)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("case", MAPS)
def test_copies_are_the_rows_of_the_padded_map(case, sides):
    (heights, size), (above, below, right) = MAPS[case], SIDES[sides]
    x = made_map(heights, size)
    pieces = cut(x, heights)
    for i, rows in enumerate(padded_rows(x, heights, above, below, right)):
        found = halo.with_halo(pieces, i, None, above, below, right)
        assert np.array_equal(found.numpy(), rows)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("case", MAPS)
def test_zeros_are_put_around_the_activated_map(case, sides, mean):
    (heights, size), (above, below, right) = MAPS[case], SIDES[sides]
    x, random = made_map(heights, size, mean), np.random.default_rng(1)
    shift, scale, bias = random.standard_normal((3, *size[:2])).astype(np.float32)
    scale *= 50  # some results are far on either side of zero
    shift += mean

    z = x.astype(np.float64) - shift[..., None, None]
    z = z * scale[..., None, None] + bias[..., None, None]
    exact = z / (1 + np.exp(-z.clip(-700, 700)))

    pieces, coefficients = cut(x, heights), jt.array(np.stack([shift, scale, bias]))
    for i, rows in enumerate(padded_rows(exact, heights, above, below, right)):
        found = halo.with_halo(pieces, i, coefficients, above, below, right).numpy()
        assert found.shape == rows.shape
        assert np.abs(found - rows).max() <= 1e-6 * np.abs(exact).max()


def test_a_norm_over_strips_is_that_of_the_whole_map_with_a_large_mean():
    heights = (3, 4, 2)
    x = made_map(heights, (2, 32, 9), mean=1000.0)
    norm = GroupNorm(8, 32, 1e-6)
    norm.weight, norm.bias = jt.array(np.linspace(-1, 2, 32, dtype=np.float32)), jt.ones(32) * 0.3

    groups = x.astype(np.float64).reshape(2, 8, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(
        groups.var(-1, keepdims=True) + 1e-6
    )
    weight, bias = norm.weight.numpy()[:, None, None], norm.bias.numpy()[:, None, None]
    z = normal.reshape(x.shape) * weight + bias
    exact = z / (1 + np.exp(-z))

    pieces = cut(x, heights)
    coefficients = strips.normalization(norm, pieces)
    for i, rows in enumerate(padded_rows(exact, heights, 1, 1, 0)):
        found = halo.with_halo(pieces, i, coefficients).numpy()
        assert np.abs(found - rows).max() < 1e-4  # rounding moves a mean of 1000 by up to 3e-5


def test_a_single_strip_keeps_its_gradient(form):
    with jt.enable_grad():
        x = jt.array(made_map((4,), (1, 8, 6)))
        y = halo.with_halo([x], 0, above=0, right=1)
        assert (jt.grad((y * y).sum() / 2, x).numpy() == x.numpy()).all()


def test_the_operator_computes_where_it_is_switched_on(form, monkeypatch):
    calls = []
    compiled = halo.compiled_with_halo
    monkeypatch.setattr(halo, "compiled_with_halo", lambda *a: (calls.append(1), compiled(*a))[1])
    pieces = cut(made_map((2, 2), (1, 8, 5)), (2, 2))
    halo.with_halo(pieces, 1).sync()
    assert len(calls) == (form == "operator")
