"""The likeliest class of each pixel: the operator gives what the enlarged map gives, to the last
tie."""

import numpy as np
import pytest

from jseg.flowseg.likeliest import NAME, interpolated, likeliest, neighbours
from jseg.nn import kernels

SIZES = {
    "larger": ((12, 16), (96, 131)),
    "smaller": ((13, 17), (5, 6)),
    "its own": ((9, 11), (9, 11)),
    "to one pixel": ((5, 4), (1, 1)),
    "from one pixel": ((1, 1), (6, 7)),
}


def probabilities(size, classes=7, seed=0):
    values = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), size)
    return np.ascontiguousarray(values.transpose(2, 0, 1).astype(np.float32))


@pytest.fixture(params=["operator", "twin"], autouse=True)
def form(request, monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    names = (NAME,) if request.param == "operator" else ()
    monkeypatch.setattr(kernels, "FASTER", {"cpu": names})


@pytest.mark.parametrize("case", SIZES)
def test_both_forms_give_the_largest_of_the_enlarged_map(case):
    size, target = SIZES[case]
    rows = probabilities(size)
    down, across = (neighbours(length, new) for length, new in zip(size, target))
    labels = likeliest(rows, down, across)
    assert labels.dtype == np.int32 and labels.shape == target
    assert np.array_equal(labels, interpolated(rows, down, across).argmax(0))


def test_ties_go_to_the_lowest_class():
    rows = probabilities((6, 8), classes=3)
    rows = rows[[0, 0, 1, 1, 2]]
    down, across = neighbours(6, 29), neighbours(8, 31)
    labels = likeliest(rows, down, across)
    assert set(np.unique(labels)) <= {0, 2, 4}
    assert np.array_equal(labels, interpolated(rows, down, across).argmax(0))


def test_a_strip_of_rows_is_that_part_of_the_whole():
    rows, down, across = probabilities((12, 9)), neighbours(12, 40), neighbours(9, 20)
    part = down.part(slice(17, 29), 4)
    whole = likeliest(rows, down, across)
    assert np.array_equal(likeliest(rows[:, 4:10], part, across), whole[17:29])
