"""The files that are scored: every result with its label map, its reference and, where there is
one, a predicted label map; all are checked first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.counting import agreeing, counted
from jseg.data.census import Census
from jseg.data.challenge import Pair, find_pairs
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.folders import (
    existing_folder,
    left_out,
    listing,
    map_suffixes,
    name_key,
    visible_files,
)
from jseg.data.image_folder import IMAGE_FOLDERS, LABEL_FOLDERS, image_place
from jseg.data.label_maps import LABEL_SUFFIXES
from jseg.data.numbering import Numbering
from jseg.data.validation import check_files, same_aspect
from jseg.evaluation.predictions import Agreement, read_prediction
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES, read_header
from jseg.images import examine_image
from jseg.outputs.origin import images_alone

IGNORED_IDS = "label maps hold ignored ids, which are not scored"
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
) -> Tuple[List[Item], List[str]]:
    """(every label map of the challenge's layout with RESULTS/stem.jpg (or .png, ...); remarks).

    Items are sorted by name. predictions: a folder with stem.png for each. partial: label maps
    without a result are left out, with a remark; else they are an error. Raises DataError in one
    line.
    """
    pairs, remarks = find_pairs(labels, references)
    usual = [Path(path).name for path in (predictions, labels, references) if path]
    images, others = _results(Path(results), pairs, usual, partial)
    pairs = [pair for pair in pairs if name_key(pair.stem) in images]
    maps, of_predictions = _predictions(predictions, pairs)
    items = [
        Item(pair.stem, images[key], pair.label, pair.reference, maps.get(key))
        for pair in pairs
        for key in [name_key(pair.stem)]
    ]
    return items, remarks + others + of_predictions


def _results(
    folder: Path, pairs: Sequence[Pair], usual: Sequence[str], partial: bool
) -> Tuple[Dict[str, Path], List[str]]:
    """(the results by the key of their stem, remarks); every label map needs one, unless a part of
    them is enough.
    """
    stems = [pair.stem for pair in pairs]
    images, remarks = _by_stem(
        existing_folder(folder, "results folder"), IMAGE_SUFFIXES, stems, usual
    )
    missing = [stem for stem in stems if name_key(stem) not in images]
    if not missing:
        return images, remarks

    if len(missing) == len(pairs):
        raise DataError(
            f"{folder} holds no result of the {counted(len(pairs), 'label map[s]')} "
            f"({missing[0]}.jpg, ...); give the folder that test wrote"
        )
    if not partial:
        raise DataError(
            f"{folder} lacks the results of {len(missing)} of {len(pairs)} label maps "
            f"({listing(missing)}); make them, or give --partial to score what is there"
        )
    without = (
        f"{len(missing)} of {counted(len(pairs), 'label map[s]')} "
        f"{agreeing(len(missing), '[has|have] no result and [is|are] left out')} "
        f"({listing(missing)})"
    )
    return images, [*remarks, without]


def _predictions(folder, pairs: Sequence[Pair]) -> Tuple[Dict[str, Path], List[str]]:
    """(the predictions by the key of their stem, remarks); every result needs one, if there is a
    folder of them.
    """
    if folder is None:
        return {}, []
    stems = [pair.stem for pair in pairs]
    maps, remarks = _by_stem(existing_folder(folder, "predictions folder"), LABEL_SUFFIXES, stems)
    missing = [stem for stem in stems if name_key(stem) not in maps]
    if missing:
        raise DataError(
            f"{folder} lacks the label maps of {len(missing)} of {len(pairs)} results "
            f"({missing[0]}.png, ...); expected one for each, as segment writes them"
        )
    return maps, remarks


def _by_stem(
    folder: Path, suffixes: Sequence[str], stems: Sequence[str], usual: Sequence[str] = ()
) -> Tuple[Dict[str, Path], List[str]]:
    """(the files of a folder by the key of their stem; remarks on what is of none of `stems`)."""
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
    others = [path.name for key, path in files.items() if key not in keys and path.name != GRID]
    remark = (
        f"{counted(len(others), 'file[s]')} in {folder} "
        f"{agreeing(len(others), '[is|are] of no label map and [is|are]')} left out "
        f"({listing(others)})"
    )
    return files, [remark] * bool(others) + left_out(folder, endings, OWN + tuple(usual))


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
            reading = numbering.read(path, census)
            labels.append(reading.ids)
            ignored = bool((reading.ids == IGNORED).any())
            return reading.remarks + [IGNORED_IDS] * ignored

        def result(path: Path) -> List[str]:
            reading = examine_image(path, "result")
            height, width = reading.pixels.shape[:2]
            label_height, label_width = labels[0].shape if labels else (height, width)
            if not same_aspect(width, height, label_width, label_height):
                raise DataError(
                    f"result {path} is {width}x{height}, its label map "
                    f"{label_width}x{label_height}; expected the same aspect ratio"
                )
            resized = (label_height, label_width) != (height, width)
            return reading.remarks + [OTHER_SIZE] * resized

        def prediction(path: Path) -> List[str]:
            ids, remarks = read_prediction(path, labels[0].shape if labels else None, classes)
            if labels:
                agreement.add(ids, labels[0])
            return remarks

        def reference(path: Path) -> List[str]:
            return examine_image(path, "reference").remarks

        files = [(item.label, label), (item.result, result), (item.reference, reference)]
        return files + ([(item.prediction, prediction)] if item.prediction else [])

    remarks = check_files([checks(item) for item in items])
    return remarks + census.warnings(numbering, named=ignore) + agreement.remarks()


def find_real(folder, least: int = 2) -> Tuple[List[Path], List[str]]:
    """(the images of a folder, or of imgs/ or images/ in it, sorted by name; remarks).

    Only their headers are read: there may be ten thousand, whose features are there already. Raises
    DataError for fewer than `least`, or for files that are no images.
    """
    place, remarks = image_place(existing_folder(folder, "folder of real images"))
    images, by_products = images_alone(visible_files(place, IMAGE_SUFFIXES))
    others = left_out(place, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS)
    if len(images) < least:
        raise DataError(
            f"{place} holds {counted(len(images), 'image[s]')}; expected the real images, "
            f"{least} at least"
        )

    def header(path: Path) -> List[str]:
        read_header(path)
        return []

    check_files([[(path, header)] for path in images])
    return images, remarks + by_products + others
