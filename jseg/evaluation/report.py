"""What score writes: a row per image (CSV), the summary (JSON and a printed table), and the
gallery.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from jseg import __version__
from jseg.data.classes import ClassSet, colorize
from jseg.data.validation import Numbering
from jseg.evaluation.gallery import WIDTH, Column, write_gallery
from jseg.evaluation.inputs import FORMAT, GALLERY, SUMMARY, TABLE, Item
from jseg.evaluation.measures import REMEDY, ImageScores, Score, Terms
from jseg.evaluation.predictions import load_prediction
from jseg.files import sha256, write_atomic
from jseg.images import read_image, resize_label
from jseg.outputs.records import read_record

COLUMNS = ("image", "mask_accuracy", "style_challenge", "style_corrected", "aesthetic")
MEANING = {
    "mask_accuracy": "mask accuracy",
    "style_challenge": "style, challenge's script",
    "style_corrected": "style, corrected",
    "aesthetic": "aesthetic value",
}


def lines(
    terms: Terms, scores: Sequence[Score], segmenter: str = "", stand_in: bool = False
) -> List[Tuple[str, str]]:
    """(name, value) of every term and score, as printed; what is missing is named with its
    remedy.
    """

    def shown(value: Optional[float], name: str, form: str = "%.4f") -> str:
        return f"missing: give {REMEDY[name]}" if value is None else form % value

    found = [
        ("pictures", str(terms.images)),
        ("mask accuracy", shown(terms.mask_accuracy, "mask accuracy")),
    ]
    if terms.mask_accuracy is not None:
        found[-1:] = [
            ("mask accuracy", f"{terms.mask_accuracy:.4f} ({segmenter})"),
            ("pixel accuracy", f"{terms.pixel_accuracy:.4f}"),
            ("mIoU", f"{terms.mean_iou:.4f}"),
        ]
    found += [
        ("style similarity, challenge's script", f"{terms.style_challenge:.4f}"),
        ("style similarity, corrected", f"{terms.style_corrected:.4f}"),
        (
            "aesthetic value",
            shown(terms.aesthetic, "aesthetic value", f"%.4f of {terms.aesthetic_max:g}"),
        ),
        (
            "FID",
            shown(
                terms.fid,
                "FID",
                f"%.4f ({terms.images} results, {terms.real} real images)",
            ),
        ),
    ]
    if terms.kid is not None:
        found.append(("KID", f"{terms.kid:.6f} (Inception's features)"))
    if terms.stand_in is not None:
        found.append(
            (
                "stand-in for FID",
                f"{terms.stand_in:.6f} (KID of our autoencoder's features, {terms.images} "
                f"results, {terms.real} real images; no FID)",
            )
        )
    elif stand_in:
        found.append(("stand-in for FID", "missing: it needs two results and two real images"))
    for score in scores:
        value = (
            f"{score.value:.4f}"
            if score.value is not None
            else f"missing: without {', '.join(score.missing)}; between {score.low:.4f} and "
            f"{score.high:.4f}"
        )
        found.append(("score " + score.name, value))
    return found


def table(found: Sequence[Tuple[str, str]]) -> str:
    """The lines in two columns."""
    width = max(len(name) for name, _ in found)
    return "\n".join("%-*s  %s" % (width, name, value) for name, value in found)


def write(
    output: Path,
    rows: Sequence[ImageScores],
    terms: Terms,
    scores: Sequence[Score],
    settings: dict,
    notes: Sequence[str],
) -> None:
    """Write the table of images and the summary, each whole or not at all; nan is never in
    them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(
            [row.stem]
            + [
                "" if value is None else f"{value:.6f}"
                for value in (getattr(row, name) for name in COLUMNS[1:])
            ]
        )
    _write(output / TABLE, text.getvalue())
    summary = {
        "format": FORMAT,
        "command": "score",
        "version": __version__,
        "settings": settings,
        "terms": dataclasses.asdict(terms),
        "scores": [dataclasses.asdict(score) for score in scores],
        "notes": list(notes),
        "files": {
            name: sha256(output / name) for name in (TABLE, GALLERY) if (output / name).exists()
        },
    }
    _write(
        output / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def write_claim(output: Path, settings: dict) -> None:
    """Write a summary without terms where there is none, so that the folder is known as one of
    these results' scores.

    One that is there then lists no file's SHA-256, as the files are about to be written again.
    """
    old = read_record(output / SUMMARY)
    claimed = {
        "format": FORMAT,
        "command": "score",
        "version": __version__,
        "settings": settings,
        "unfinished": True,
    }
    _write(
        output / SUMMARY,
        json.dumps({**(old or claimed), "files": {}}, indent=1, ensure_ascii=False) + "\n",
    )


def _write(path: Path, text: str) -> None:
    # A file name that is no text becomes an escape.
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_page(
    output: Path,
    items: Sequence[Item],
    rows: Sequence[ImageScores],
    classes: ClassSet,
    ignore: Sequence[int],
    facts: Sequence[Tuple[str, str]],
    notes: Sequence[str],
) -> None:
    """The gallery: label map, reference, result and prediction of every row, and its numbers."""
    names = [name for name in COLUMNS[1:] if any(getattr(row, name) is not None for row in rows)]
    seen = any(item.prediction for item in items)
    columns = [
        Column("image", "text"),
        Column("label map", "map"),
        Column("reference", "image"),
        Column("result", "image"),
    ]
    columns += [Column("seen in the result", "map")] * seen + [
        Column(MEANING[name]) for name in names
    ]
    numbering = Numbering.of(classes, ignore)

    def cells() -> Iterator[list]:
        for item, row in zip(items, rows):
            label, _ = numbering.read(item.label)
            images = [
                colorize(_small(label), classes),
                read_image(item.reference),
                read_image(item.result),
            ]
            if seen:
                found = (
                    load_prediction(item.prediction, label.shape, len(classes))
                    if item.prediction
                    else None
                )
                images.append(None if found is None else colorize(_small(found), classes))
            yield [row.stem] + images + [getattr(row, name) for name in names]

    write_gallery(
        output / GALLERY, f"jseg score: {len(rows)} images", columns, cells(), facts, notes
    )


def _small(label):
    width = min(label.shape[1], WIDTH)
    return resize_label(label, width, max(1, round(label.shape[0] * width / label.shape[1])))
