"""The files that are scored: every result with its label map, its reference and, where there is
one, a predicted label map; all are checked first.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.data.census import Census
from jseg.data.challenge import find_pairs
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.image_folder import IMAGE_FOLDERS, LABEL_FOLDERS, image_place
from jseg.data.validation import (
    LABEL_SUFFIXES,
    Numbering,
    check_files,
    existing_folder,
    left_out,
    map_suffixes,
    name_key,
    same_aspect,
    some,
    visible_files,
)
from jseg.evaluation.predictions import Agreement, read_prediction
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES, read_header
from jseg.images import examine_image
from jseg.outputs.records import images_alone, is_own
from jseg.outputs.rules import check_folder, check_origin, claim

SUMMARY, TABLE, GALLERY, PREDICTIONS = "summary.json", "images.csv", "gallery.html", "predictions"
FORMAT = 1
ROOM = 1 << 20  # bytes without which not even the smallest tables fit
OTHER_SIZE = (
    "results are of another size than their label maps; label maps of them are compared at the "
    "latter's"
)
GRID = "grid.png"  # a sheet of all results, by test
# What our own commands write beside results and predictions.
OWN = ("run.json", "stages", "overlays", "probabilities")


@dataclass(frozen=True)
class Item:
    """A result and the files it is compared with; `prediction` is a label map of the result."""

    stem: str
    result: Path
    label: Path
    reference: Path
    prediction: Optional[Path] = None


def find_items(
    results,
    labels,
    references,
    predictions=None,
    partial: bool = False,
    notes: Optional[List[str]] = None,
) -> List[Item]:
    """Every label map of the challenge's layout (`jseg.data.challenge.find_pairs`) with
    RESULTS/stem.jpg (or .png, ...), sorted by name.

    predictions: a folder with stem.png for each. partial: label maps without a result are left out,
    with a note; else they are an error. Raises DataError in one line.
    """
    pairs = find_pairs(labels, references, notes)
    stems = [pair.stem for pair in pairs]
    usual = [Path(path).name for path in (predictions, labels, references) if path]
    folder = existing_folder(results, "results folder")
    images = _by_stem(folder, IMAGE_SUFFIXES, stems, notes, usual)

    # Every label map needs a result, unless a part of them is enough.
    missing = [stem for stem in stems if name_key(stem) not in images]
    if len(missing) == len(pairs):
        raise DataError(
            f"{results} holds no result of the {len(pairs)} label maps ({missing[0]}.jpg, ...); "
            "give the folder that test wrote"
        )
    if missing and not partial:
        raise DataError(
            f"{results} lacks the results of {len(missing)} of {len(pairs)} label maps "
            f"({some(missing, False)}); make them, or give --partial to score what is there"
        )
    if missing and notes is not None:
        notes.append(
            f"{len(missing)} of {len(pairs)} label maps have no result and are left out "
            f"({some(missing, False)})"
        )
    pairs = [pair for pair in pairs if name_key(pair.stem) in images]

    # Every result needs a prediction, if there is a folder of them.
    maps: Dict[str, Path] = {}
    if predictions is not None:
        stems = [pair.stem for pair in pairs]
        folder = existing_folder(predictions, "predictions folder")
        maps = _by_stem(folder, LABEL_SUFFIXES, stems, notes)
        missing = [stem for stem in stems if name_key(stem) not in maps]
        if missing:
            raise DataError(
                f"{predictions} lacks the label maps of {len(missing)} of {len(pairs)} results "
                f"({missing[0]}.png, ...); expected one for each, as segment writes them"
            )
    return [
        Item(pair.stem, images[key], pair.label, pair.reference, maps.get(key))
        for pair in pairs
        for key in [name_key(pair.stem)]
    ]


def _by_stem(
    folder: Path,
    suffixes: Sequence[str],
    stems: Sequence[str],
    notes: Optional[List[str]],
    usual: Sequence[str] = (),
) -> Dict[str, Path]:
    """The files of a folder by the key of their stem; a line for what is of none of `stems`."""
    # Of two files with one stem, neither is taken.
    files: Dict[str, Path] = {}
    keys = set(map(name_key, stems))
    endings = map_suffixes(folder) if suffixes is LABEL_SUFFIXES else suffixes
    for path in visible_files(folder, endings):
        key = name_key(path.stem)
        if key in files and key in keys:
            raise DataError(
                f"{folder} holds both {files[key].name} and {path.name}; expected one, remove the "
                "other"
            )
        files[key] = path

    # What is left out, apart from what our own commands write there.
    if notes is not None:
        others = [path.name for key, path in files.items() if key not in keys]
        others = [name for name in others if name != GRID]
        if others:
            notes.append(
                f"{len(others)} files in {folder} are of no label map and are left out "
                f"({some(others, False)})"
            )
        notes.extend(left_out(folder, endings, OWN + tuple(usual)))
    return files


def check_items(items: Sequence[Item], classes: ClassSet, ignore: Sequence[int] = ()) -> List[str]:
    """Read every file once; returns remarks for the user.

    A result must have its label map's aspect ratio, a prediction the ids 0 ... N - 1 (or the
    classes' colours) and one of the two sizes, the label map `classes`. Raises DataError naming the
    first unusable file and how many more there are.
    """
    numbering, agreement, census = Numbering.of(classes, ignore), Agreement(classes), Census()

    def checks(item: Item) -> List[Tuple[Path, Callable[[Path], List[str]]]]:
        labels: List[np.ndarray] = []  # the label map, once it is read

        # Each reads one file and returns its remarks; the label map comes first.
        def label(path: Path) -> List[str]:
            ids, remarks = numbering.read(path, census)
            labels.append(ids)
            if (ids == IGNORED).any():
                remarks = remarks + ["label maps hold ignored ids, which are not scored"]
            return remarks

        def result(path: Path) -> List[str]:
            image, remarks = examine_image(path, "result")
            height, width = image.shape[:2]
            label_height, label_width = labels[0].shape if labels else (height, width)
            if not same_aspect(width, height, label_width, label_height):
                raise DataError(
                    f"result {path} is {width}x{height}, its label map "
                    f"{label_width}x{label_height}; expected the same aspect ratio"
                )
            if (label_height, label_width) != (height, width):
                remarks = remarks + [OTHER_SIZE]
            return remarks

        def prediction(path: Path) -> List[str]:
            ids, remarks = read_prediction(path, labels[0].shape if labels else None, classes)
            if labels:
                agreement.add(ids, labels[0])
            return remarks

        def reference(path: Path) -> List[str]:
            return examine_image(path, "reference")[1]

        files = [(item.label, label), (item.result, result), (item.reference, reference)]
        return files + ([(item.prediction, prediction)] if item.prediction else [])

    remarks = check_files([checks(item) for item in items])
    return remarks + census.warnings(numbering, named=ignore) + agreement.remarks()


def find_real(folder, least: int = 2, notes: Optional[List[str]] = None) -> List[Path]:
    """The images of a folder, or of imgs/ or images/ in it, sorted by name; raises DataError for
    fewer than `least`, or for other files.

    Only their headers are read: there may be ten thousand, whose features are stored already. Lines
    on the files that are left out are appended to `notes`.
    """
    folder = existing_folder(folder, "folder of real images")
    place = image_place(folder, notes)
    images = images_alone(visible_files(place, IMAGE_SUFFIXES), notes)
    if notes is not None:
        notes.extend(left_out(place, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS))
    if len(images) < least:
        raise DataError(
            f"{place} holds {len(images)} images; expected the real images, {least} at least"
        )

    def header(path: Path) -> List[str]:
        read_header(path)
        return []

    check_files([[(path, header)] for path in images])
    return images


def check_output(
    output: Path, results: Path, inputs: Sequence[Path] = (), places: Sequence[Path] = ()
) -> None:
    """Raise DataError unless `output` is new, or a folder without files of our names, or holds
    scores of these very results.

    inputs, places: files that are read and folders that they lie in, none of which a result may
    replace; see `outputs.claim`.
    """
    check_folder(output, "--output")
    check_origin(output, "--output", "score")

    # An earlier call's files may be replaced, if they are still as it wrote them.
    known: Optional[Sequence[str]] = ()
    if os.path.lexists(str(output / SUMMARY)):
        try:
            old = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
            if old["command"] != "score" or old["format"] != FORMAT:
                raise ValueError("another format")
            scored = str(old["settings"]["results"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"{output / SUMMARY} is no summary of score, or is damaged ({error}); move it "
                "away or give another --output"
            ) from None
        if scored != str(Path(results).resolve()):
            raise DataError(f"{output} holds the scores of {scored}; give another --output")
        known, files = None, old.get("files", {})
        changed = [
            name
            for name in (TABLE, GALLERY)
            if isinstance(files, dict) and not is_own(output, name, files)
        ]
        if changed:
            raise DataError(
                f"{output / changed[0]} was changed by others since score wrote it; move it away, "
                "or give another --output"
            )
    claim(output, "--output", "score", [TABLE, GALLERY], inputs, places, known, SUMMARY, ROOM)
