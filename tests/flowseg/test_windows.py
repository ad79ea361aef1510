import itertools

import numpy as np
import pytest

from jseg.flowseg.windows import bands, resized, scaled_size, starts, taper


@pytest.mark.parametrize(
    "size, scale, expected",
    [
        ((64, 48), 1.0, (64, 48)),
        ((320, 240), 1.0, (64, 48)),
        ((16, 16), 1.0, (64, 64)),
        ((100, 20), 1.0, (240, 48)),
        ((20, 100), 1.0, (64, 320)),
        ((320, 240), 2.0, (128, 96)),
        ((320, 240), None, (320, 240)),
        ((32, 30), None, (64, 60)),
        ((63, 48), 1.0, (64, 49)),
    ],
)
def test_an_image_is_scaled_until_it_covers_a_window(size, scale, expected):
    assert scaled_size(size, (64, 48), scale) == expected


@pytest.mark.parametrize(
    "length, window, overlap",
    list(itertools.product((7, 16, 17, 30, 100), (7, 16), (0.0, 1 / 3, 0.9))),
)
def test_windows_reach_from_end_to_end_and_overlap_as_asked(length, window, overlap):
    found = starts(length, window, overlap)
    assert found[0] == 0 and (length <= window or found[-1] == length - window)
    steps = np.diff(found)
    assert (steps > 0).all() and (steps <= np.floor(window * (1 - overlap)) + 1).all()


def test_as_few_windows_as_will_do():
    assert starts(64, 64, 1 / 3) == [0] and starts(128, 64, 0.0) == [0, 64]
    assert starts(106, 64, 1 / 3) == [0, 42]


def test_weights_fall_towards_the_edges():
    weights = taper((6, 4))
    assert weights.shape == (4, 6) and weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert weights[0, 0] < weights[1, 0] < weights[1, 2]


def whole(parts, size, count):
    """Bands put together; every row must come once, in order."""
    found, next_row = np.full((count, size[1], size[0]), np.nan, np.float32), 0
    for first, band in parts:
        assert first == next_row
        found[:, first : first + band.shape[1]] = band
        next_row = first + band.shape[1]
    assert next_row == size[1]
    return found


@pytest.mark.parametrize(
    "size, overlap",
    [((20, 17), 1 / 3), ((8, 6), 0.0), ((8, 40), 0.5), ((41, 6), 0.9), ((24, 18), 0.0)],
)
def test_windows_cut_from_a_map_join_to_that_map(size, overlap):
    values = np.random.default_rng(0).random((3, size[1], size[0]), dtype=np.float32)

    def predict(places):
        return (values[:, top : top + 6, left : left + 8] for left, top in places)

    np.testing.assert_allclose(
        whole(bands(size, (8, 6), overlap, predict), size, 3), values, rtol=2e-6
    )


def test_where_windows_overlap_their_mean_is_weighed_as_a_whole_sum_would_be():
    size, window, overlap = (13, 11), (8, 6), 0.4
    rng, made = np.random.default_rng(1), {}

    def predict(places):
        for place in places:
            made[place] = rng.random((2, 6, 8), dtype=np.float32)
            yield made[place]

    found = whole(bands(size, window, overlap, predict), size, 2)
    total, counted = np.zeros((2, 11, 13)), np.zeros((11, 13))
    for (left, top), values in made.items():
        for y, x in itertools.product(range(6), range(8)):
            weight = min(x + 1, 8 - x) * min(y + 1, 6 - y)
            total[:, top + y, left + x] += weight * values[:, y, x]
            counted[top + y, left + x] += weight
    np.testing.assert_allclose(found, total / counted, rtol=1e-5)


def bilinear(values, target):
    """The formula, pixel by pixel: centres on centres, the edge continued."""
    _, height, width = values.shape
    found = np.zeros((values.shape[0], target[1], target[0]))
    for row, column in itertools.product(range(target[1]), range(target[0])):
        y = min(max((row + 0.5) * height / target[1] - 0.5, 0), height - 1)
        x = min(max((column + 0.5) * width / target[0] - 0.5, 0), width - 1)
        top, left = int(y), int(x)
        low, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        found[:, row, column] = (values[:, top, left] * (1 - dx) + values[:, top, right] * dx) * (
            1 - dy
        ) + (values[:, low, left] * (1 - dx) + values[:, low, right] * dx) * dy
    return found


@pytest.mark.parametrize("cuts", [(9,), (1, 2, 3, 9), (4, 5, 9), tuple(range(1, 10))])
@pytest.mark.parametrize("target", [(7, 9), (14, 18), (3, 4), (20, 5), (1, 1), (7, 30), (8, 10)])
def test_resizing_band_by_band_is_resizing_the_whole(target, cuts, monkeypatch):
    monkeypatch.setattr("jseg.flowseg.windows.STRIP_VALUES", 3 * 20 * 2)
    values = np.random.default_rng(2).random((3, 9, 7), dtype=np.float32)
    given = [(start, values[:, start:stop]) for start, stop in zip((0,) + cuts, cuts)]
    found = whole(resized(given, (7, 9), target), target, 3)
    np.testing.assert_allclose(found, bilinear(values, target), rtol=1e-5)


def test_resized_probabilities_still_sum_to_one():
    values = (
        np.random.default_rng(3)
        .dirichlet(np.ones(5), (12, 16))
        .transpose(2, 0, 1)
        .astype(np.float32)
    )
    found = whole(resized([(0, values)], (16, 12), (23, 31)), (23, 31), 5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
