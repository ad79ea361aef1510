"""Metrics against loops, closed forms, scipy, and numbers that the script in circulation gave."""

import itertools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.linalg

from jseg import metrics
from jseg.metrics import (
    challenge_score,
    confusion,
    frechet_distance,
    kernel_distance,
    mask_accuracy,
    mean_iou,
    style_similarity,
)

RNG = np.random.default_rng


def random_image(seed, height=24, width=32):
    """Twelve noisy fields of random colours: all hues, levels on every edge."""
    rng = RNG(seed)
    fields = rng.integers(0, 256, (3, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    noisy = fields[:height, :width] + rng.integers(-40, 41, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def plain(red, green, blue, size=(4, 4)):
    return np.full(size + (3,), (red, green, blue), np.uint8)


# Label maps


def test_confusion_counts_pixels_with_targets_in_rows():
    prediction, target = RNG(0).integers(0, 5, (2, 3, 7, 4)).astype(np.uint8)
    target[0, :3] = 255
    expected = np.zeros((5, 5), int)
    for p, t in zip(prediction.ravel(), target.ravel()):
        if t != 255:
            expected[t, p] += 1
    whole = confusion(prediction, target, 5, 255)
    assert whole.dtype == np.int64 and whole.shape == (5, 5)
    np.testing.assert_array_equal(whole, expected)
    summed = sum(confusion(p, t, 5, 255) for p, t in zip(prediction, target))
    np.testing.assert_array_equal(summed, expected)


@pytest.mark.parametrize("ignore", [4, (4, 255), [255, 4], np.array([4])])
def test_confusion_ignores_ids_of_the_target_only(ignore):
    found = confusion(np.array([4, 1, 4, 0]), np.array([0, 4, 4, 0]), 5, ignore)
    assert found.sum() == 2 and found[0, 4] == 1 and found[0, 0] == 1


def test_confusion_without_ignored_ids_counts_all():
    assert confusion(np.array([[0, 1]]), np.array([[1, 1]]), 2, None).tolist() == [[0, 0], [1, 1]]
    assert not confusion(np.zeros((2, 2), int), np.full((2, 2), 255), 3, 255).any()


@pytest.mark.parametrize(
    "prediction, target, said",
    [
        ([[0, 1]], [[0], [1]], "equal shapes"),
        ([0.0, 1.0], [0, 1], "integer"),
        ([0, 3], [0, 1], r"prediction holds ids \[3\]; expected 0 to 2"),
        ([0, 255], [0, 1], r"prediction holds ids \[255\]"),
        ([0, 1], [0, -1], r"target holds ids \[-1\]"),
    ],
)
def test_confusion_refuses_what_would_be_counted_wrong(prediction, target, said):
    with pytest.raises(ValueError, match=said):
        confusion(np.array(prediction), np.array(target), 3, 255)


# Class 0: 3 of 4 found and 1 of class 1 taken for it; class 2 is only ever predicted; class 3 is
# nowhere.
MATRIX = np.array([[3, 1, 0, 0], [1, 4, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_scores_of_a_matrix_by_hand():
    scores = metrics.class_scores(MATRIX)
    np.testing.assert_allclose(scores.iou, [3 / 5, 4 / 7, 0, np.nan])
    np.testing.assert_allclose(scores.accuracy, [3 / 4, 4 / 6, np.nan, np.nan])
    np.testing.assert_allclose(scores.precision, [3 / 4, 4 / 5, 0, np.nan])
    assert scores.pixels.tolist() == [4, 6, 0, 0] and scores.predicted.tolist() == [4, 5, 1, 0]
    assert mean_iou(MATRIX) == pytest.approx((3 / 5 + 4 / 7 + 0) / 3)
    assert metrics.pixel_accuracy(MATRIX) == pytest.approx(7 / 10)


def test_scores_without_any_pixel_are_undefined_and_perfect_ones_are_one():
    label = RNG(1).integers(0, 4, (6, 8))
    for score in (mean_iou, metrics.pixel_accuracy):
        assert np.isnan(score(np.zeros((3, 3), int)))
        assert score(confusion(label, label, 29, 255)) == 1.0
    with pytest.raises(ValueError, match=r"\[classes, classes\]"):
        mean_iou(np.zeros((3, 4)))


def test_mask_accuracy_is_the_fraction_of_all_pixels():
    target = np.array([[0, 1, 2], [255, 4, 5]], np.uint8)
    assert mask_accuracy(target, target) == 1.0
    assert mask_accuracy(np.array([[0, 1, 0], [255, 0, 0]], np.uint8), target) == 0.5
    for wrong in (target[:, :2], target[:0]):
        with pytest.raises(ValueError):
            mask_accuracy(wrong, target if wrong.size else wrong)


# Styles


def eight_bit_counts(image):
    """Both histograms pixel by pixel in the arithmetic of uint8, from what is written about the
    script.
    """
    import cv2

    colours, classes = np.zeros(4096), np.zeros(72)
    hsv = cv2.cvtColor(image[..., ::-1].copy(), cv2.COLOR_BGR2HSV)
    edges = (20, 40, 75, 155, 190, 270, 295, 315)
    hues = list(enumerate(zip(edges, edges[1:]), 1))
    with np.errstate(over="ignore"):
        for (r, g, b), (h, s, v) in zip(image.reshape(-1, 3), hsv.reshape(-1, 3)):
            sixteen = np.uint8(16)
            colours[b // sixteen * sixteen * sixteen + g // sixteen * sixteen + r // sixteen] += 1
            doubled = int(h + h)
            hue = next((number for number, (low, high) in hues if low < doubled <= high), 0)
            classes[9 * hue + 3 * ((s > 51) + int(s > 178)) + (v > 51) + int(v > 178)] += 1
    return colours, classes


def mean_correlation(ours, theirs):
    return np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(ours, theirs)])


@pytest.mark.parametrize("seed", range(3))
def test_challenge_style_is_the_script_s_arithmetic(seed):
    image, reference = random_image(seed), random_image(seed + 1)
    expected = mean_correlation(eight_bit_counts(image), eight_bit_counts(reference))
    assert style_similarity(image, reference, "challenge") == pytest.approx(expected, abs=1e-12)


def test_challenge_style_equals_the_script_to_the_bit():
    """Numbers from running that script itself (OpenCV 4.11, NumPy 1.26) on these images."""
    expected = [0.5451145252290222, 0.5760450437394753, 0.506683159380167]
    images = [random_image(seed) for seed in range(4)]
    pairs = zip(images, images[1:])
    assert [style_similarity(*pair, "challenge") for pair in pairs] == expected
    noise = RNG(0)
    one, other = (noise.integers(0, 256, (24, 32, 3), dtype=np.uint8) for _ in range(2))
    assert style_similarity(one, other, "challenge") == 0.8569854631844234


def exact_counts(image):
    """Both histograms as they were meant, hue in exact fractions of a turn rather than OpenCV's two
    degrees.
    """
    import colorsys

    colours, classes = np.zeros((16, 16, 16)), np.zeros((8, 3, 3))
    for r, g, b in image.reshape(-1, 3).tolist():
        colours[r * 16 // 256, g * 16 // 256, b * 16 // 256] += 1
        h, s, v = colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)
        hue = sum(360 * h > edge for edge in (20, 40, 75, 155, 190, 270, 295, 315)) % 8
        classes[hue, (s > 0.2) + (s > 0.7), (v > 0.2) + (v > 0.7)] += 1
    return colours.ravel(), classes.ravel()


@pytest.mark.parametrize("seed", range(3))
def test_corrected_style_is_what_the_script_meant(seed):
    image, reference = random_image(seed), random_image(seed + 1)
    # OpenCV rounds hue to two degrees and saturation to 1 / 255, which moves the few pixels that
    # lie on an edge.
    exact = mean_correlation(exact_counts(image), exact_counts(reference))
    assert style_similarity(image, reference) == pytest.approx(exact, abs=0.01)
    assert abs(style_similarity(image, reference, "challenge") - exact) > 0.1


def test_the_two_kinds_differ_where_the_script_overflows():
    for quirk, one, other in (
        ("blue is ignored", plain(90, 90, 100), plain(90, 90, 120)),
        ("320 degrees are filed under 64", plain(200, 0, 133), plain(187, 200, 0)),
    ):
        found = {kind: style_similarity(one, other, kind) for kind in ("corrected", "challenge")}
        assert found["challenge"] - found["corrected"] > 0.49, quirk
    brightest = plain(255, 0, 204)  # 312 degrees, saturated and bright: the last of the 72 classes
    assert style_similarity(brightest, brightest) == 1.0
    assert metrics._histograms(brightest, False)[1][71] == 16
    assert metrics._histograms(brightest, True)[1][54:].sum() == 0


@pytest.mark.parametrize("kind", ["corrected", "challenge"])
def test_style_does_not_see_size_or_place(kind):
    image, reference = random_image(4), random_image(5)
    known = style_similarity(image, reference, kind)
    assert style_similarity(image, image, kind) == 1.0
    assert style_similarity(reference, image, kind) == known
    larger, mirrored = image[::-1].repeat(2, axis=0), reference[:, ::-1]
    assert style_similarity(larger, mirrored, kind) == pytest.approx(known, abs=1e-9)
    assert -1 <= style_similarity(plain(255, 0, 0), plain(0, 255, 0), kind) < 0


@pytest.mark.parametrize(
    "image, kind, said",
    [
        (np.zeros((4, 4, 3), np.float32), "corrected", "uint8"),
        (np.zeros((4, 4), np.uint8), "corrected", "shape"),
        (np.zeros((0, 4, 3), np.uint8), "corrected", "shape"),
        (plain(1, 2, 3), "legacy", "kind is 'legacy'"),
    ],
)
def test_style_refuses_other_arrays(image, kind, said):
    with pytest.raises(ValueError, match=said):
        style_similarity(image, plain(1, 2, 3), kind)


# Feature sets


def by_sqrtm(a, b):
    of_a, of_b = (np.cov(x, rowvar=False) for x in (a, b))
    gap = a.mean(axis=0) - b.mean(axis=0)
    root = scipy.linalg.sqrtm(of_a @ of_b)
    return gap @ gap + np.trace(of_a + of_b) - 2 * np.trace(root).real


@pytest.mark.parametrize("n, m, d", [(40, 60, 6), (300, 9, 8)])
def test_frechet_distance_is_the_matrix_formula(n, m, d):
    rng = RNG(n)
    a = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    b = rng.normal(size=(m, d)) @ rng.normal(size=(d, d))
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_distance_with_fewer_images_than_features():
    rng = RNG(0)
    a, b = rng.normal(size=(5, 40)), 2 * rng.normal(size=(12, 40)) + 1
    of_a, of_b = (np.cov(x, rowvar=False) for x in (a, b))
    values, vectors = np.linalg.eigh(of_a)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    trace = np.sqrt(np.clip(np.linalg.eigvalsh(root @ of_b @ root), 0, None)).sum()
    gap = a.mean(axis=0) - b.mean(axis=0)
    expected = gap @ gap + np.trace(of_a + of_b) - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_in_closed_forms():
    rng = RNG(1)
    a = rng.normal(size=(50, 7)).astype(np.float32)
    assert 0 <= frechet_distance(a, a) < 1e-12 and 0 <= frechet_distance(a[:4], a[3::-1]) < 1e-12
    shift = rng.normal(size=7)
    assert frechet_distance(a, a + shift) == pytest.approx(shift @ shift, rel=1e-6)
    # Under a scale s the covariance is s^2 C: tr(C)(1 + s^2 - 2 s), which biased covariances miss
    # by 50 / 49.
    centred = a - a.mean(axis=0, dtype=np.float64)
    exact = 4 * np.trace(np.cov(centred, rowvar=False))
    assert frechet_distance(centred, 3 * centred) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(centred + 1e6, centred + 1e6 + 1) == pytest.approx(7, rel=1e-6)


def test_kernel_distance_is_the_mean_over_pairs():
    a, b = RNG(2).normal(size=(5, 3)), RNG(3).normal(size=(7, 3)) + 0.5

    def mean(pairs):
        return np.mean([(sum(p * q for p, q in zip(x, y)) / 3 + 1) ** 3 for x, y in pairs])

    within = mean(itertools.permutations(a, 2)) + mean(itertools.permutations(b, 2))
    expected = within - 2 * mean(itertools.product(a, b))
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased_and_goes_in_pieces(monkeypatch):
    draws = [kernel_distance(*RNG(seed).normal(size=(2, 6, 4))) for seed in range(300)]
    assert min(draws) < 0 and abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(300)
    a, b = RNG(4).normal(size=(2, 3000, 2))
    whole = kernel_distance(a, b)
    monkeypatch.setattr(metrics, "KERNEL_ROWS", 7)
    tracemalloc.start()
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-6)
    assert tracemalloc.get_traced_memory()[1] < 3e6  # the whole matrix takes 72 MB
    tracemalloc.stop()


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse_other_features(distance):
    good = np.ones((3, 4))
    wrong = [
        (np.ones((3, 5)), "shapes"),
        (np.ones(4), "shapes"),
        (np.ones((1, 4)), "at least 2"),
        (np.full((3, 4), np.nan), "NaN"),
    ]
    for bad, said in wrong:
        with pytest.raises(ValueError, match=said):
            distance(good, bad)


# The challenge


@pytest.mark.parametrize(
    "mask, aesthetic, fid, score, digits",
    [
        (0.8479, 5.0436, 43.8223, 0.452, 3),
        (0.8334, 5.0361, 37.9765, 0.4683, 4),
        (0.9028, 4.9005, 44.6153, 0.4712, 4),
        (0.9037, 4.9004, 42.7708, 0.48, 3),
    ],
)
def test_four_published_scores_of_2022(mask, aesthetic, fid, score, digits):
    assert round(challenge_score(mask, aesthetic, None, fid, year=2022), digits) == score


def test_score_of_2023():
    for arguments, score in (
        ((0.9, 0.5, 0.9, 35), 0.639),
        ((1, 1, 1, 0), 1),
        ((1, 0, -1, 100), 0),
        ((0, 1, 1, 0), 0),
        ((0.9, 0.5, 0.9, 100), 0.9 * 0.385),
        ((0.9, 0.5, 0.9, 250), 0.9 * 0.385),  # as 100
    ):
        assert challenge_score(*arguments) == pytest.approx(score)
    good = dict(mask=0.9, aesthetic=0.5, style=0.9, fid=35)
    for year, changed in (
        (2023, dict(mask=1.1)),
        (2023, dict(aesthetic=5.0)),
        (2023, dict(style=None)),
        (2023, dict(fid=float("nan"))),
        (2022, dict(aesthetic=11)),
        (2021, {}),
    ):
        with pytest.raises(ValueError):
            challenge_score(**{**good, "year": year, **changed})


def test_importing_the_metrics_loads_no_heavy_package():
    code = (
        "import sys, jseg.metrics; sys.exit(bool({'cv2', 'scipy', 'PIL', 'jittor'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
