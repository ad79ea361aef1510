"""What is scored: every result with its label map, its reference and, where there is one, a
predicted label map; all checked first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from jseg.data.census import Census
from jseg.data.challenge import find_pairs
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.folders import (
    existing_folder,
    left_out,
    map_suffixes,
    name_key,
    some,
    visible_files,
)
from jseg.data.image_folder import IMAGE_FOLDERS, LABEL_FOLDERS, image_place
from jseg.data.label_maps import LABEL_SUFFIXES, read_values
from jseg.data.numbering import Classes, Numbering
from jseg.data.validation import check_files, same_aspect
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES, read_header
from jseg.images import examine_image, resize_label
from jseg.outputs.origin import images_alone

CLEARLY = 0.2  # of all pixels: by how much another numbering must explain predictions better
GRID = "grid.png"  # a sheet of all results, by test
OWN = (
    "run.json",
    "stages",
    "overlays",
    "probabilities",
)  # beside results and predictions by our own commands


@dataclass(frozen=True)
class Item:
    """A result and what it is held against; `prediction` is a label map of the result, if there is
    one.
    """

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
    pairs, found = find_pairs(labels, references)
    if notes is not None:
        notes.extend(found)
    given = [Path(path).name for path in (predictions, labels, references) if path]
    made = _by_stem(
        existing_folder(results, "results folder"),
        IMAGE_SUFFIXES,
        [pair.stem for pair in pairs],
        notes,
        given,
    )
    missing = [pair.stem for pair in pairs if name_key(pair.stem) not in made]
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
    pairs = [pair for pair in pairs if name_key(pair.stem) in made]
    seen = (
        {}
        if predictions is None
        else _by_stem(
            existing_folder(predictions, "predictions folder"),
            LABEL_SUFFIXES,
            [pair.stem for pair in pairs],
            notes,
        )
    )
    unseen = [
        pair.stem for pair in pairs if predictions is not None and name_key(pair.stem) not in seen
    ]
    if unseen:
        raise DataError(
            f"{predictions} lacks the label maps of {len(unseen)} of {len(pairs)} results "
            f"({unseen[0]}.png, ...); expected one for each, as segment writes them"
        )
    return [
        Item(
            pair.stem,
            made[name_key(pair.stem)],
            pair.label,
            pair.reference,
            seen.get(name_key(pair.stem)),
        )
        for pair in pairs
    ]


def _by_stem(
    folder: Path,
    suffixes: Sequence[str],
    wanted: Sequence[str],
    notes: Optional[List[str]],
    usual: Sequence[str] = (),
) -> Dict[str, Path]:
    found: Dict[str, Path] = {}
    keys = set(map(name_key, wanted))
    suffixes = map_suffixes(folder) if suffixes is LABEL_SUFFIXES else suffixes
    for path in visible_files(folder, suffixes):
        stem = name_key(path.stem)
        if stem in found and stem in keys:
            raise DataError(
                f"{folder} holds both {found[stem].name} and {path.name}; expected one, remove "
                "the other"
            )
        found[stem] = path
    if notes is not None:
        others = [
            path.name for stem, path in found.items() if stem not in keys and path.name != GRID
        ]
        notes.extend(
            [
                f"{len(others)} files in {folder} are of no label map and are left out "
                f"({some(others, False)})"
            ]
            * bool(others)
        )
        notes.extend(left_out(folder, suffixes, OWN + tuple(usual)))
    return found


def check_items(items: Sequence[Item], classes: ClassSet, ignore: Sequence[int] = ()) -> List[str]:
    """Read every file once; what the user should be told. Raises DataError naming the first
    unusable file and how many more there are.

    A result must have its label map's aspect ratio, a prediction the ids 0 ... N - 1 (or the
    classes' colours) and one of the two sizes, the label map `classes`.
    """
    numbering, agreement, census = Numbering.of(classes, ignore), _Agreement(classes), Census()

    def group(item: Item):
        labels: List[np.ndarray] = []

        def label(path: Path) -> List[str]:
            reading = numbering.read(path, census)
            labels.append(reading.ids)
            return reading.remarks + ["label maps hold ignored ids, which are not scored"] * bool(
                (reading.ids == IGNORED).any()
            )

        def result(path: Path) -> List[str]:
            reading = examine_image(path, "result")
            height, width = reading.pixels.shape[:2]
            shape = labels[0].shape if labels else (height, width)
            if not same_aspect(width, height, *shape[::-1]):
                raise DataError(
                    "result %s is %dx%d, its label map %dx%d; expected the same aspect ratio"
                    % (path, width, height, *shape[::-1])
                )
            same = shape == (height, width)
            return (
                reading.remarks
                if same
                else reading.remarks
                + [
                    "results are of another size than their label maps; label maps of them are "
                    "compared at the latter's"
                ]
            )

        def prediction(path: Path) -> List[str]:
            found, remarks = read_prediction(path, labels[0].shape if labels else None, classes)
            if labels:
                agreement.add(found, labels[0])
            return remarks

        def reference(path: Path) -> List[str]:
            return examine_image(path, "reference").remarks

        return [(item.label, label), (item.result, result), (item.reference, reference)] + [
            (item.prediction, prediction)
        ] * bool(item.prediction)

    remarks = check_files([group(item) for item in items])
    return remarks + census.warnings(numbering, named=ignore) + agreement.remarks()


class _Agreement:
    """How many pixels of predictions are those of their label maps, in the numbering that is
    expected and in others.
    """

    def __init__(self, classes: ClassSet) -> None:
        count, values = len(classes), np.arange(256)
        stored = np.full(256, -1)
        stored[list(classes.file_ids or range(count))] = np.arange(count)
        self.tables = {
            "": values,
            f"as label files of {classes.name} store them": stored,
            "as ids from 1 on": values - 1,
            "as ids from -1 on": values + 1,
        }
        self.equal, self.total = dict.fromkeys(self.tables, 0), 0
        self.met: Dict[str, Set[int]] = {name: set() for name in self.tables}

    def add(self, prediction: np.ndarray, label: np.ndarray) -> None:
        known = label != IGNORED
        self.total += int(known.sum())
        for name, table in self.tables.items():
            met = label[(table[prediction] == label) & known]
            self.equal[name] += met.size
            self.met[name].update(np.unique(met).tolist())

    def remarks(self) -> List[str]:
        """A warning where another numbering explains the predictions far better; [] else."""
        best = max(self.equal, key=lambda name: self.equal[name])  # the first of equals
        plain, other = (self.equal[name] / max(self.total, 1) for name in ("", best))
        # A network that takes one class for its neighbour is no other numbering.
        if other < max(2 * plain, plain + CLEARLY) or len(self.met[best]) < 2:
            return []
        return [
            f"warning: the predictions agree with {100 * plain:.0f} % of the label maps' pixels, "
            f"read {best} with {100 * other:.0f} %; expected ids 0, 1, 2, ..., as segment writes "
            "them: renumber them"
        ]


def load_prediction(path: Path, shape: Optional[Tuple[int, int]], classes: Classes) -> np.ndarray:
    """A predicted label map, uint8 of class ids, brought to the label map's `shape` (height, width)
    with nearest; raises DataError.
    """
    return read_prediction(path, shape, classes)[0]


def read_prediction(
    path: Path, shape: Optional[Tuple[int, int]], classes: Classes
) -> Tuple[np.ndarray, List[str]]:
    """(what `load_prediction` gives, remarks on how the file was read): ids 0 ... N - 1, or the
    colours of `classes`.
    """
    count = classes if isinstance(classes, int) else len(classes)
    # Predictions are numbered as segment numbers them, whatever the data set's own label files do.
    plain = (
        classes
        if isinstance(classes, int)
        else replace(classes, ignore=(), file_ids=(), file_ignore=(), file_map=())
    )
    label_map = read_values(path, Numbering.of(plain).classes)
    values, reading = label_map.values, label_map.reading
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size:
        known = () if isinstance(classes, int) else classes.file_ids + classes.file_ignore
        stored = set(np.unique(values).tolist()) <= set(known) and known != ()
        raise DataError(
            "prediction %s holds the id %d; expected class ids 0 to %d, as segment writes them%s"
            % (
                path,
                wrong.max(),
                count - 1,
                f", not those that label files of {classes.name} store" if stored else "",
            )
        )
    found, remarks = (
        values.astype(np.uint8),
        [reading.replace("label maps", "predictions", 1)] * bool(reading),
    )
    if shape is None:
        return found, remarks
    if not same_aspect(found.shape[1], found.shape[0], *shape[::-1]):
        raise DataError(
            "prediction %s is %dx%d, its label map %dx%d; expected the same aspect ratio"
            % (path, *found.shape[::-1], *shape[::-1])
        )
    return resize_label(found, *shape[::-1]), remarks


def find_real(folder, least: int = 2, notes: Optional[List[str]] = None) -> List[Path]:
    """The images of a folder, or of imgs/ or images/ in it, sorted by name; raises DataError for
    fewer than `least`, or for other files.

    Only their headers are read: there may be ten thousand, with features kept already. Lines on the
    files that are left out are appended to `notes`.
    """
    folder = existing_folder(folder, "folder of real images")
    place, remarks = image_place(folder)
    found, by_products = images_alone(visible_files(place, IMAGE_SUFFIXES))
    if notes is not None:
        notes.extend(remarks + by_products)
        notes.extend(left_out(place, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS))
    if len(found) < least:
        raise DataError(
            f"{place} holds {len(found)} images; expected the real images, {least} at least"
        )

    def header(path: Path) -> List[str]:
        read_header(path)
        return []

    check_files([[(path, header)] for path in found])
    return found
