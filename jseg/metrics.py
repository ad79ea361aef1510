"""Metrics from arrays: agreement of label maps, likeness of styles, distances of feature sets, and
the challenge's score.

Label maps: one confusion matrix a data set, added up image by image, and everything else from
it (Long et al. 2015). Styles: the colour histograms of a script in circulation among the entries of
the 3rd Jittor AI challenge; whether the organisers score with it is not known. Feature sets:
Frechet distance (Heusel et al. 2017) and kernel distance (Binkowski et al. 2018). The release has
no metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.classes import IGNORED

Ignore = Union[int, Sequence[int], None]

# Degrees; a class ends at its edge, and above the last one begins the first again.
HUE_EDGES = (20, 40, 75, 155, 190, 270, 295, 315)
CUTS = (51, 178)  # of saturation and value, 0.2 and 0.7 of 255
COLOUR_BINS, HUE_BINS = 16**3, 8 * 3 * 3
KERNEL_ROWS = 1024  # of the kernel matrix at a time: 10,000 images need 80 MB instead of 800


def confusion(
    prediction: np.ndarray, target: np.ndarray, classes: int, ignore: Ignore = IGNORED
) -> np.ndarray:
    """Pixels counted by (target, prediction): int64 [classes, classes], rows = target. Matrices of
    a data set's images add up.

    prediction, target: integers of one shape; pixels whose target is `ignore` (an id, several, or
    None) are not counted. Raises ValueError for other shapes and types, and for ids outside of 0
    ... classes - 1 in a counted pixel.
    """
    prediction, target = _maps(prediction, target)
    ignored = [] if ignore is None else np.atleast_1d(ignore).tolist()
    counted = ~np.isin(target, ignored)
    prediction, target = prediction[counted].astype(np.int64), target[counted].astype(np.int64)

    for name, ids in (("prediction", prediction), ("target", target)):
        beyond = np.unique(ids[(ids < 0) | (ids >= classes)])
        if beyond.size:
            raise ValueError(
                f"confusion: the {name} holds ids {beyond[:8].tolist()}; expected 0 to "
                f"{classes - 1}, or ids to ignore ({', '.join(map(str, ignored)) or 'none'}) in "
                "the target"
            )
    counts = np.bincount(target * classes + prediction, minlength=classes * classes)
    return counts.reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """One row per class, float64 [classes], NaN where a score is not defined; pixels and predicted
    count pixels, int64.
    """

    iou: np.ndarray  # intersection over union
    accuracy: np.ndarray  # recall: the fraction of the class's pixels that were predicted as it
    precision: np.ndarray  # the fraction of the pixels predicted as the class that are it
    pixels: np.ndarray
    predicted: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """The per-class table of a confusion matrix [classes, classes], rows = target."""
    matrix = _square(matrix)
    hits, pixels, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return ClassScores(
        _fraction(hits, pixels + predicted - hits),
        _fraction(hits, pixels),
        _fraction(hits, predicted),
        pixels,
        predicted,
    )


def mean_iou(matrix: np.ndarray) -> float:
    """Mean intersection over union over the classes present, that is in the targets or predicted;
    NaN without any pixel.
    """
    iou = class_scores(matrix).iou
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Fraction of the counted pixels that were given their own class; NaN without any pixel."""
    matrix = _square(matrix)
    return float(_fraction(np.trace(matrix), matrix.sum()))


def mask_accuracy(prediction: np.ndarray, target: np.ndarray) -> float:
    """The challenge's mask accuracy of one image: the fraction of all pixels with equal ids,
    nothing ignored; the mean over images counts.
    """
    prediction, target = _maps(prediction, target)
    if not target.size:
        raise ValueError("mask accuracy: the label maps are empty; expected at least one pixel")
    return float(np.mean(prediction == target))


def style_similarity(image: np.ndarray, reference: np.ndarray, kind: str = "corrected") -> float:
    """How alike the colours of two images are, -1 to 1: the mean correlation of their 4096-bin
    RGB and 72-bin HSV histograms.

    image, reference: uint8 [H, W, 3] RGB, each of any size. RGB: 16 levels a channel, joint. HSV: 8
    hues, 3 saturations, 3 values. kind "challenge" repeats the script in circulation to the bit: it
    computes in 8 bits, where blue * 256 is always 0 (so blue is ignored) and twice OpenCV's hue (0
    ... 179) wraps at 256 (so hues from 256 degrees on are filed under those 256 degrees lower, and
    two classes stay empty). kind "corrected" is what it meant. Raises ValueError for other arrays
    and kinds.
    """
    if kind not in ("corrected", "challenge"):
        raise ValueError(f"style similarity: kind is {kind!r}; expected 'corrected' or 'challenge'")
    import cv2

    for name, array in (("image", image), ("reference", reference)):
        shape, dtype = np.shape(array), np.asarray(array).dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or not np.size(array):
            raise ValueError(
                f"style similarity: the {name} has shape {shape} and type {dtype}; expected uint8 "
                "[H, W, 3] RGB"
            )

    eight_bits = kind == "challenge"
    pairs = zip(_histograms(image, eight_bits), _histograms(reference, eight_bits))
    of_rgb, of_hsv = (cv2.compareHist(*pair, cv2.HISTCMP_CORREL) for pair in pairs)
    return float(np.clip((of_rgb + of_hsv) / 2, -1.0, 1.0))


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Frechet distance of the normal distributions with the sets' means and unbiased covariances;
    FID if the features are Inception's.

    features: float [n, d] and [m, d], n and m at least 2 and also below d: |m_a - m_b|^2 + tr(C_a +
    C_b - 2 (C_a C_b)^(1/2)). With C = R^T R the last trace is the sum of the singular values of R_a
    R_b^T, which needs no root of a singular matrix. Raises ValueError for other shapes and for
    values that are not finite.
    """
    a, b = _features(features_a, features_b, "Frechet distance")
    gap = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(max(0.0, gap @ gap + np.sum(root_a**2) + np.sum(root_b**2) - 2 * shared))


def kernel_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / d + 1)^3; KID if the
    features are Inception's.

    features: float [n, d] and [m, d], n and m at least 2. Around 0 for sets from one distribution,
    so it may be negative.
    """
    a, b = _features(features_a, features_b, "kernel distance")
    within = _mean_kernel(a) + _mean_kernel(b)
    return float(within - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def challenge_score(
    mask: float, aesthetic: float, style: Optional[float], fid: float, year: int = 2023
) -> float:
    """The machine score of the Jittor challenge's landscape track; an FID above 100 counts as 100.

    2023: mask (0.2 aesthetic + 0.3 (style / 2 + 0.5) + 0.5 (100 - FID) / 100), aesthetic 0 to 1,
    style -1 to 1. 2022: mask (0.5 aesthetic / 10 + 0.5 (100 - FID) / 100), aesthetic 0 to 10, style
    not used. The rule of 2022 is not published; this one reproduces four published rows of results.
    Raises ValueError for values out of range and for other years.
    """
    if year not in (2022, 2023):
        raise ValueError(f"challenge score: year is {year!r}; expected 2023 or 2022")
    top = 1 if year == 2023 else 10
    ranges = [
        ("mask accuracy", mask, 0, 1),
        ("aesthetic score", aesthetic, 0, top),
        ("FID", fid, 0, float("inf")),
    ]
    if year == 2023:
        ranges.insert(2, ("style", style, -1, 1))
    for name, value, low, high in ranges:
        if value is None or not low <= value <= high:
            raise ValueError(
                f"challenge score {year}: the {name} is {value}; expected {low} to {high}"
            )

    distance = 0.5 * (100 - min(fid, 100.0)) / 100
    if year == 2022:
        return float(mask * (0.5 * aesthetic / 10 + distance))
    return float(mask * (0.2 * aesthetic + 0.3 * (style / 2 + 0.5) + distance))


def _maps(prediction, target) -> Tuple[np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction), np.asarray(target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"label maps: the prediction has shape {prediction.shape}, the target {target.shape}; "
            "expected equal shapes, resize one with nearest"
        )
    for name, ids in (("prediction", prediction), ("target", target)):
        if ids.dtype.kind not in "iu":
            raise ValueError(
                f"label maps: the {name} is of type {ids.dtype}; expected integer class ids"
            )
    return prediction, target


def _square(matrix) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"confusion matrix: got shape {matrix.shape}; expected [classes, classes], as from "
            "confusion()"
        )
    return matrix


def _fraction(part, whole) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _histograms(image: np.ndarray, eight_bits: bool) -> Tuple[np.ndarray, np.ndarray]:
    """Counts float32 of the joint RGB levels [4096] and of the HSV classes [72], with or without
    the script's overflows.
    """
    import cv2

    image = np.ascontiguousarray(image)
    red, green, blue = np.moveaxis(image.astype(np.int64) // 16, -1, 0)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int64)
    hue, saturation, value = np.moveaxis(hsv, -1, 0)

    colour, degrees = 256 * blue + 16 * green + red, 2 * hue
    if eight_bits:
        colour, degrees = colour % 256, degrees % 256
    hues = np.searchsorted(HUE_EDGES, degrees) % 8
    classes = 9 * hues + 3 * np.searchsorted(CUTS, saturation) + np.searchsorted(CUTS, value)

    # The script's HSV histogram ends below 71, the last class; in 8 bits no pixel gets there, and
    # "corrected" counts it.
    of_rgb = np.bincount(colour.ravel(), minlength=COLOUR_BINS)
    of_hsv = np.bincount(classes.ravel(), minlength=HUE_BINS)
    return of_rgb.astype(np.float32), of_hsv.astype(np.float32)


def _features(features_a, features_b, what: str) -> Tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"{what}: got features of shapes {a.shape} and {b.shape}; expected [n, d] and [m, d] "
            "with at least 2 rows each"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"{what}: the features hold NaN or infinite values; check the images and the network"
        )
    return a, b


def _covariance_root(features: np.ndarray) -> np.ndarray:
    """R [min(n, d), d] with R^T R = the unbiased covariance."""
    root = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(root, mode="r") if root.shape[0] > root.shape[1] else root


def _mean_kernel(x: np.ndarray) -> float:
    """The kernel's mean over all pairs of different rows."""
    diagonal = np.sum((np.sum(x * x, axis=1) / x.shape[1] + 1) ** 3)
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    return sum(
        float(np.sum((a[start : start + KERNEL_ROWS] @ b.T / a.shape[1] + 1) ** 3))
        for start in range(0, len(a), KERNEL_ROWS)
    )
