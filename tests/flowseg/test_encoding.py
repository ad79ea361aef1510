import re
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from jseg.flowseg import encoding
from jseg.flowseg.encoding import KINDS, assignment, class_codes, decode, encode

GOLDEN = {
    (150, 0): (-0.1758086, 0.46690351, -0.54193795),
    (150, 1): (0.662844, -0.07665, -0.063508),
    (150, 7): (-0.37929996, 0.71916748, 0.78041004),
    (150, 149): (-0.74713336, 0.6202031, -0.18903804),
    (171, 0): (-0.1698273, 0.46967626, -0.53710066),
    (171, 170): (0.66877376, -0.64298336, -0.27131719),
    (29, 0): (-0.16103282, 0.47498309, -0.52786405),
    (29, 28): (-1, -0.58593221, 0.76393202),
    (11, 0): (-0.17157288, 0.55198152, -0.72804293),
    (11, 10): (0.17157288, -1, 0.15202862),
    (2, 0): (-1, 1, -1),
    (2, 1): (1, -1, 1),
}
DISTANCES = {
    "kronecker": {
        2: 3.4641,
        3: 2.0,
        11: 0.8554,
        19: 0.5902,
        29: 0.5220,
        40: 0.2956,
        150: 0.1541,
        171: 0.1534,
        182: 0.1534,
    },
    "r3": {2: 3.4641, 19: 0.6410, 29: 0.5184, 150: 0.2260, 171: 0.2242, 182: 0.2241},
    "grid": {2: 2.0, 19: 1.0, 29: 0.6667, 150: 0.4, 171: 0.4, 182: 0.4},
    "lattice": {19: 0.8914, 29: 0.7640, 150: 0.4033, 171: 0.3799, 182: 0.3747},
}


def points(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1.2, 1.2, shape)


@pytest.mark.parametrize("n, row", GOLDEN)
def test_the_codes_are_the_paper_s(n, row):
    codes = class_codes(n)
    assert codes.dtype == np.float64 and codes.shape == (n, 3)
    np.testing.assert_allclose(
        codes[row], GOLDEN[n, row], atol=1e-6 if (n, row) == (150, 1) else 1e-8
    )


def test_the_codes_of_r3():
    np.testing.assert_allclose(
        class_codes(150, "r3")[[0, 149]],
        [(0.65191449, 0.33472337, 0.09624112), (0.76657299, 0.30533223, -0.09624112)],
        atol=1e-8,
    )


def test_the_codes_of_the_grid_are_in_lexicographic_order():
    codes = class_codes(8, "grid")
    assert codes.tolist() == sorted(codes.tolist()) and set(np.abs(codes).ravel()) == {1.0}
    assert class_codes(9, "grid")[:3].tolist() == [[-1, -1, -1], [-1, -1, 0], [-1, -1, 1]]
    assert (
        len(np.unique(class_codes(1000, "grid")[:, 0]))
        == 10
        == len(np.unique(class_codes(1000, "grid")[:, 2]))
    )


@pytest.mark.parametrize(
    "kind, n, expected",
    [(kind, n, value) for kind, row in DISTANCES.items() for n, value in row.items()],
)
def test_the_smallest_distances(kind, n, expected):
    codes = class_codes(n, kind)
    assert pdist(codes).min() == pytest.approx(expected, abs=6e-5)


def test_the_smallest_distances_in_the_documentation():
    table = re.search(r"N = (.*?)\n(.*)", encoding.__doc__, re.S)
    sizes = [int(n) for n in table.group(1).split()]
    for line in table.group(2).splitlines()[:4]:
        kind, values = line.split()[0], line.split()[-len(sizes) :]
        assert [f"{pdist(class_codes(n, kind)).min():.4f}".lstrip("0") for n in sizes] == values


@pytest.mark.parametrize("n, expected", [(11, 0.8504), (29, 0.5195), (150, 0.1511), (171, 0.1467)])
def test_rounding_codes_to_bytes_keeps_them_apart(n, expected):
    codes = class_codes(n)
    rounded = np.round((codes + 1) * 127.5) / 127.5 - 1
    assert pdist(rounded).min() == pytest.approx(expected, abs=6e-5)
    assert (decode(rounded.T.reshape(3, 1, n), codes)[0] == np.arange(n)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_come_back_for_every_number_of_classes(kind):
    for n in range(2, 257):
        codes, labels = class_codes(n, kind), np.arange(n).reshape(1, n)
        assert np.abs(codes).max() <= 1 and np.array_equal(codes, class_codes(n, kind))
        x1, mask = encode(labels, codes, None)
        assert (decode(x1, codes) == labels).all() and mask.all()
        if kind == "lattice":
            assert pdist(codes).min() > pdist(class_codes(n)).min() - 1e-9


@pytest.mark.parametrize(
    "n, kind",
    [
        (1, "kronecker"),
        (0, "grid"),
        (-3, "r3"),
        (2.0, "kronecker"),
        (True, "kronecker"),
        (5, "palette"),
        (257, "lattice"),
    ],
)
def test_wrong_requests_for_codes_are_refused(n, kind):
    said = "class_codes: .*(2 or more|choose one of kronecker, r3, grid, lattice|use kind='r3')"
    with pytest.raises(ValueError, match=said):
        class_codes(n, kind)


@pytest.mark.parametrize("ignore", [255, (255, 11), [255, 11]])
def test_ignored_pixels_are_the_centre_and_masked(ignore):
    codes = class_codes(11)
    labels = np.array(
        [[0, 255, 10], [3, 11 if isinstance(ignore, (tuple, list)) else 255, 7]], np.uint8
    )
    x1, mask = encode(labels, codes, ignore)
    assert x1.dtype == mask.dtype == np.float32 and x1.shape == (3, 2, 3)
    assert mask.shape == (1, 2, 3)
    assert mask.tolist() == [[[1, 0, 1], [1, 0, 1]]] and not x1[:, :, 1].any()
    np.testing.assert_array_equal(x1[:, 1, 2], codes[7].astype(np.float32))
    np.testing.assert_array_equal(decode(x1, codes)[:, [0, 2]], labels[:, [0, 2]])


def test_other_labels_are_refused():
    codes = class_codes(11)
    with pytest.raises(ValueError, match=r"label -1, 11, 12 outside 0 \.\.\. 10, the 11 classes"):
        encode(np.array([[0, 12, 11, -1, 255, 12]]), codes)
    with pytest.raises(ValueError, match="label 255 outside"):
        encode(np.array([[255]]), codes, None)
    for labels in (np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros(4, int)):
        with pytest.raises(ValueError, match=r"expected integers \[..., H, W\]"):
            encode(labels, codes)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_leading_dimensions_agree(lead, monkeypatch):
    codes, x = class_codes(29), points(*lead, 3, 5, 7).astype(np.float32)
    labels, p = decode(x, codes), assignment(x, codes)
    assert labels.dtype == np.int32 and labels.shape == lead + (5, 7) and p.dtype == np.float32
    assert p.shape == lead + (29, 5, 7)
    x1, mask = encode(labels, codes)
    assert x1.shape == x.shape and mask.shape == lead + (1, 5, 7)
    for place in np.ndindex(*lead):
        np.testing.assert_array_equal(labels[place], decode(x[place], codes))
        np.testing.assert_array_equal(p[place], assignment(x[place], codes))
        np.testing.assert_array_equal(x1[place], encode(labels[place], codes)[0])
    monkeypatch.setattr(encoding, "CHUNK", 4)
    np.testing.assert_array_equal(decode(x, codes), labels)
    np.testing.assert_allclose(assignment(x, codes), p, rtol=1e-6)


def test_decoding_takes_the_nearest_code_and_the_lowest_on_ties():
    codes, x = class_codes(150), points(3, 20, 30)
    assert (decode(x, codes).ravel() == cdist(x.reshape(3, -1).T, codes).argmin(1)).all()
    corners = class_codes(8, "grid")
    assert decode(np.zeros((3, 1, 1)), corners) == 0
    assert decode(np.array([1.0, 0, 5]).reshape(3, 1, 1), corners) == 5
    assert decode(np.array([0.1, -0.2, 0.3]).reshape(3, 1, 1), codes) == 27


@pytest.mark.parametrize(
    "tau, eps", [(1, 1e-2), (2, 1e-2), (0.5, 1e-3), (1, 1e-6), (0.01, 1e-6), (1, 0)]
)
def test_assignments_are_the_inverse_distance_softmax(tau, eps):
    codes, x = class_codes(40), points(3, 10, 20)
    p = assignment(x, codes, tau, eps)
    weights = cdist(x.reshape(3, -1).T, codes) ** 2 + eps
    weights = (weights / weights.min(1, keepdims=True)) ** (-1 / tau)
    np.testing.assert_allclose(
        p.reshape(40, -1).T, weights / weights.sum(1, keepdims=True), rtol=1e-5, atol=1e-30
    )
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(p.argmax(0), decode(x, codes))


@pytest.mark.parametrize(
    "n, tau, label, expected",
    [(150, 1, 27, 0.07211973), (150, 2, 27, 0.02411286), (11, 1, 5, 0.25012375)],
)
def test_golden_assignments(n, tau, label, expected):
    p = assignment(np.array([0.1, -0.2, 0.3]).reshape(3, 1, 1), class_codes(n), tau)[:, 0, 0]
    assert p.argmax() == label and p[label] == pytest.approx(expected, rel=1e-6)


def test_on_a_code_without_eps_the_assignment_is_certain():
    codes = class_codes(5)
    np.testing.assert_allclose(
        assignment(codes.T.reshape(3, 1, 5), codes, eps=0)[:, 0], np.eye(5), atol=1e-30
    )


def test_wrong_points_are_refused():
    codes = class_codes(5)
    for function in (decode, assignment):
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="not finite"):
                function(np.full((3, 1, 2), bad), codes)
        with pytest.raises(ValueError, match=r"shape \[4, 2, 2\]; expected \[..., 3, H, W\]"):
            function(np.zeros((4, 2, 2)), codes)
        with pytest.raises(ValueError, match=r"codes of shape \[5, 2\]; expected \[N, 3\]"):
            function(np.zeros((3, 2, 2)), codes[:, :2])
    for tau, eps in ((0, 1e-2), (-1, 1e-2), (1, -1e-2), (np.nan, 1e-2)):
        with pytest.raises(ValueError, match="expected tau above 0 and eps 0 or more"):
            assignment(np.zeros((3, 2, 2)), codes, tau, eps)


def test_decoding_keeps_no_distances_of_all_classes():
    codes, x = class_codes(150), points(3, 256, 256).astype(np.float32)
    tracemalloc.start()
    decode(x, codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6  # float32 distances of all classes: 39 MB
