"""From arrays to terms, and from terms to the challenge's score; a term that is not known is named
and never invented.

The formulas are those of `jseg.metrics`. Where a term is missing, the score is the interval between
its worst and its best value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.metrics import (
    challenge_score,
    confusion,
    frechet_distance,
    kernel_distance,
    mask_accuracy,
    mean_iou,
    pixel_accuracy,
    style_similarity,
)

STYLES = ("challenge", "corrected")  # kinds of jseg.metrics.style_similarity
WORST_FID = 100.0  # the challenge counts more as 100
# What a term is called, and what gives it.
MASK, AESTHETIC, STYLE, FID = "mask accuracy", "aesthetic value", "style similarity", "FID"
REMEDY = {MASK: "--predictions or --flowseg", AESTHETIC: "--aesthetic", FID: "--inception"}


@dataclass(frozen=True)
class ImageScores:
    """What is known of one result: fractions 0 to 1, styles -1 to 1; None where nothing is."""

    stem: str
    mask_accuracy: Optional[float]
    style_challenge: float
    style_corrected: float
    aesthetic: Optional[float] = None


def score_image(
    stem: str,
    result: np.ndarray,
    reference: np.ndarray,
    label: np.ndarray,
    prediction: Optional[np.ndarray],
    classes: int,
    aesthetic: Optional[float] = None,
) -> Tuple[ImageScores, np.ndarray]:
    """(scores, confusion int64 [classes, classes]) of a result and its reference, uint8 [h, w, 3],
    with its label map and a prediction of that.

    label, prediction: uint8 of one shape; pixels whose label is 255 are not scored. Without a
    prediction the confusion is all zero.
    """
    styles = {kind: style_similarity(result, reference, kind) for kind in STYLES}
    accuracy, matrix = None, np.zeros((classes, classes), np.int64)
    if prediction is not None:
        known = label != IGNORED
        matrix = confusion(prediction, label, classes)
        accuracy = mask_accuracy(prediction[known], label[known]) if known.any() else None
    return ImageScores(stem, accuracy, styles["challenge"], styles["corrected"], aesthetic), matrix


@dataclass(frozen=True)
class Terms:
    """Means over the results, and distances of the set; None where nothing is known. aesthetic is 0
    to `aesthetic_max`.
    """

    images: int
    mask_accuracy: Optional[float] = None
    pixel_accuracy: Optional[float] = None
    mean_iou: Optional[float] = None
    style_challenge: Optional[float] = None
    style_corrected: Optional[float] = None
    aesthetic: Optional[float] = None
    aesthetic_max: float = 10.0
    real: int = 0
    fid: Optional[float] = None
    kid: Optional[float] = None  # of the features that FID has
    stand_in: Optional[float] = None  # KID of our autoencoder's features


def gathered(
    scores: Sequence[ImageScores],
    matrix: np.ndarray,
    aesthetic_max: float = 10.0,
    real: int = 0,
    distances: Optional[Dict[str, float]] = None,
) -> Terms:
    """The terms of all results.

    The mask accuracy is the mean over the images, as in the challenge; the pixel accuracy counts
    all pixels.
    """

    def mean(name: str) -> Optional[float]:
        values = [getattr(score, name) for score in scores if getattr(score, name) is not None]
        return float(np.mean(values)) if values else None

    predicted = matrix.any()
    return Terms(
        images=len(scores),
        mask_accuracy=mean("mask_accuracy"),
        pixel_accuracy=pixel_accuracy(matrix) if predicted else None,
        mean_iou=mean_iou(matrix) if predicted else None,
        style_challenge=mean("style_challenge"),
        style_corrected=mean("style_corrected"),
        aesthetic=mean("aesthetic"),
        aesthetic_max=aesthetic_max,
        real=real,
        **(distances or {}),
    )


def inception_distances(results: np.ndarray, real: np.ndarray) -> Dict[str, float]:
    """FID and KID of Inception's features [n, 2048] and [m, 2048]."""
    return {"fid": frechet_distance(results, real), "kid": kernel_distance(results, real)}


def stand_in_distance(results: np.ndarray, real: np.ndarray) -> Dict[str, float]:
    """KID of the autoencoder's features [n, d] and [m, d], each scaled to mean 0 and deviation 1
    over the real images; no FID.

    Without the scaling, the brightness of an image would outweigh all else.
    """
    centre, spread = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 1e-6 * max(1e-6, float(spread.max())), spread, 1.0)
    return {"stand_in": kernel_distance((results - centre) / spread, (real - centre) / spread)}


@dataclass(frozen=True)
class Score:
    """A formula's value, or None with the names of what is missing; it lies between low and high
    whatever that is.
    """

    name: str
    value: Optional[float]
    missing: Tuple[str, ...]
    low: float
    high: float


def challenge_scores(terms: Terms) -> List[Score]:
    """The challenge's formulas: 2023 with either kind of style similarity, and 2022, which has
    none.
    """
    return [
        _score("2023, style as the challenge's script", terms, terms.style_challenge, 2023),
        _score("2023, style corrected", terms, terms.style_corrected, 2023),
        _score("2022", terms, 0.0, 2022),
    ]


def _score(name: str, terms: Terms, style: Optional[float], year: int) -> Score:
    top = 1.0 if year == 2023 else 10.0
    aesthetic = None
    if terms.aesthetic is not None:
        aesthetic = min(top, terms.aesthetic / terms.aesthetic_max * top)

    # For each term: its value, its worst and its best.
    parts = {
        MASK: (terms.mask_accuracy, 0.0, 1.0),
        AESTHETIC: (aesthetic, 0.0, top),
        STYLE: (style, -1.0, 1.0),
        FID: (terms.fid, WORST_FID, 0.0),
    }
    missing = tuple(part for part, (value, _, _) in parts.items() if value is None)
    bounds = []
    for end in (1, 2):
        values = [part[end] if part[0] is None else part[0] for part in parts.values()]
        bounds.append(challenge_score(*values, year=year))
    low, high = bounds
    return Score(name, None if missing else low, missing, low, high)
