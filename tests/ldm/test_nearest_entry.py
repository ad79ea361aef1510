"""The nearest entry of a codebook: the operator and its twin against NumPy in float64."""

import numpy as np
import pytest

from jseg.ldm import nearest_entry as module
from jseg.ldm.nearest_entry import NAME, nearest_entry
from jseg.nn import kernels
from jseg.runtime import jt

SIZES = {  # rows, entries, numbers of an entry
    "the release's three numbers": (50, 256, 3),
    "four numbers, entries do not fill a vector": (13, 61, 4),
    "seven numbers": (9, 100, 7),
    "fewer entries than a vector": (6, 5, 3),
    "one row, one entry, one number": (1, 1, 1),
}


@pytest.fixture(params=["operator", "twin"])
def form(request, monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    names = (NAME,) if request.param == "operator" else ()
    monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
    with jt.no_grad():
        yield request.param


def distances(z, entries):
    return ((z[:, None].astype(np.float64) - entries[None]) ** 2).sum(-1)


@pytest.mark.parametrize("chunk", [32 << 20, 4 * 256 * 5])
@pytest.mark.parametrize("case", SIZES)
def test_the_nearest_entry_is_found(case, chunk, form, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    (rows, count, depth), random = SIZES[case], np.random.default_rng(0)
    z = random.standard_normal((rows, depth)).astype(np.float32)
    entries = random.standard_normal((count, depth)).astype(np.float32)
    indices = nearest_entry(jt.array(z), jt.array(entries)).numpy()
    assert indices.dtype == np.int32
    assert np.array_equal(indices, distances(z, entries).argmin(1))


@pytest.mark.parametrize("count", [16, 21])
def test_the_lowest_index_wins_on_ties(count, form):
    """Entries and rows are whole numbers, so that equal distances are equal in float32."""
    random = np.random.default_rng(1)
    entries = random.integers(-2, 3, (count, 3)).astype(np.float32)
    entries[count // 2 :] = entries[: count - count // 2][::-1]
    entries[-1] = entries[0]
    z = random.integers(-2, 3, (40, 3)).astype(np.float32)
    exact = distances(z, entries)
    assert ((exact == exact.min(1, keepdims=True)).sum(1) > 1).mean() > 0.5
    indices = nearest_entry(jt.array(z), jt.array(entries)).numpy()
    assert np.array_equal(indices, exact.argmin(1))


def test_close_entries_are_told_apart_far_from_zero(monkeypatch):
    """The operator's distances have no |z|^2 and |e|^2 that cancel."""
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    monkeypatch.setattr(kernels, "FASTER", {"cpu": (NAME,)})
    random = np.random.default_rng(2)
    z = (1000 + random.standard_normal((64, 3))).astype(np.float32)
    entries = (1000 + random.standard_normal((128, 3))).astype(np.float32)
    indices = nearest_entry(jt.array(z), jt.array(entries)).numpy()
    assert np.array_equal(indices, distances(z, entries).argmin(1))


def test_rows_with_nan_give_an_entry_and_wrong_shapes_an_error():
    z = np.full((5, 3), np.nan, np.float32)
    entries = np.random.default_rng(8).standard_normal((23, 3)).astype(np.float32)
    indices = nearest_entry(jt.array(z), jt.array(entries)).numpy()
    assert ((indices >= 0) & (indices < 23)).all()
    with pytest.raises(ValueError, match="expected .n, D. and .K, D."):
        nearest_entry(jt.zeros((5, 4)), jt.array(entries))
