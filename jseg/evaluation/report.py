"""What score tells: a table in two columns of terms and scores, and the gallery of all images."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from jseg.counting import counted
from jseg.data.classes import ClassSet, colorize
from jseg.data.numbering import Numbering
from jseg.evaluation.gallery import WIDTH, Column, write_gallery
from jseg.evaluation.inputs import Item
from jseg.evaluation.measures import REMEDY, ImageScores, Score, Terms
from jseg.evaluation.predictions import load_prediction
from jseg.evaluation.results import COLUMNS, GALLERY
from jseg.images import read_image, resize_label
from jseg.outputs.record import writing

MEANING = {
    "mask_accuracy": "mask accuracy",
    "style_challenge": "style, challenge's script",
    "style_corrected": "style, corrected",
    "aesthetic": "aesthetic value",
}
Line = Tuple[str, str]


def lines(
    terms: Terms, scores: Sequence[Score], segmenter: str = "", stand_in: bool = False
) -> List[Line]:
    """(name, value) of every term and score, as printed; a missing one comes with its remedy.

    segmenter: what saw the classes in the results. stand_in: whether a distance stands in for FID.
    """
    aesthetic = _or_remedy(terms.aesthetic, "aesthetic value", f" of {terms.aesthetic_max:g}")
    return [
        ("images", str(terms.images)),
        *_accuracies(terms, segmenter),
        ("style similarity, challenge's script", f"{terms.style_challenge:.4f}"),
        ("style similarity, corrected", f"{terms.style_corrected:.4f}"),
        ("aesthetic value", aesthetic),
        *_distances(terms, stand_in),
        *(("score " + score.name, _value_of(score)) for score in scores),
    ]


def _accuracies(terms: Terms, segmenter: str) -> List[Line]:
    if terms.mask_accuracy is None:
        return [("mask accuracy", _or_remedy(None, "mask accuracy"))]
    return [
        ("mask accuracy", f"{terms.mask_accuracy:.4f} ({segmenter})"),
        ("pixel accuracy", f"{terms.pixel_accuracy:.4f}"),
        ("mIoU", f"{terms.mean_iou:.4f}"),
    ]


def _distances(terms: Terms, stand_in: bool) -> List[Line]:
    sets = f"{terms.images} results, {terms.real} real images"
    found = [("FID", _or_remedy(terms.fid, "FID", f" ({sets})"))]
    if terms.kid is not None:
        found.append(("KID", f"{terms.kid:.6f} (Inception's features)"))
    if terms.stand_in is not None:
        value = f"{terms.stand_in:.6f} (KID of our autoencoder's features, {sets}; no FID)"
        found.append(("stand-in for FID", value))
    elif stand_in:
        found.append(("stand-in for FID", "missing: it needs two results and two real images"))
    return found


def _value_of(score: Score) -> str:
    if score.value is not None:
        return f"{score.value:.4f}"
    missing = ", ".join(score.missing)
    return f"missing: without {missing}; between {score.low:.4f} and {score.high:.4f}"


def _or_remedy(value: Optional[float], name: str, unit: str = "") -> str:
    return f"missing: give {REMEDY[name]}" if value is None else f"{value:.4f}{unit}"


def table(found: Sequence[Line]) -> str:
    """The lines in two columns."""
    width = max(len(name) for name, _ in found)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found)


def write_page(
    output: Path,
    items: Sequence[Item],
    rows: Sequence[ImageScores],
    classes: ClassSet,
    ignore: Sequence[int],
    facts: Sequence[Line],
    remarks: Sequence[str],
) -> None:
    """The gallery: label map, reference, result and prediction of every row, and its numbers."""
    names = [name for name in COLUMNS[1:] if any(getattr(row, name) is not None for row in rows)]
    seen = any(item.prediction for item in items)
    columns = [
        Column("image", "text"),
        Column("label map", "map"),
        Column("reference", "image"),
        Column("result", "image"),
        *[Column("seen in the result", "map")] * seen,
        *(Column(MEANING[name]) for name in names),
    ]
    numbering = Numbering.of(classes, ignore)

    def cells() -> Iterator[list]:
        for item, row in zip(items, rows):
            label = numbering.read(item.label).ids
            cell = [row.stem, colorize(_small(label), classes)]
            cell += [read_image(item.reference), read_image(item.result)]
            if seen and item.prediction:
                prediction = load_prediction(item.prediction, label.shape, len(classes))
                cell.append(colorize(_small(prediction), classes))
            elif seen:
                cell.append(None)
            yield cell + [getattr(row, name) for name in names]

    title = f"jseg score: {counted(len(rows), 'image[s]')}"
    with writing(output / GALLERY):
        write_gallery(output / GALLERY, title, columns, cells(), facts, remarks)


def _small(label: np.ndarray) -> np.ndarray:
    """The label map as wide as the gallery shows it at most."""
    width = min(label.shape[1], WIDTH)
    return resize_label(label, width, max(1, round(label.shape[0] * width / label.shape[1])))
