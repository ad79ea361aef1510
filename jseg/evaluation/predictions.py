"""Predicted label maps: what a segmentation network saw in a result, and how that agrees with the
label map it was made from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

import numpy as np

from jseg.data.classes import IGNORED, ClassSet
from jseg.data.label_maps import read_values
from jseg.data.numbering import Classes, Numbering
from jseg.data.validation import same_aspect
from jseg.files import DataError
from jseg.images import resize_label

CLEARLY = 0.2  # of all pixels: by how much another numbering must explain predictions better


def load_prediction(path: Path, shape: Optional[Tuple[int, int]], classes: Classes) -> np.ndarray:
    """A predicted label map, uint8 of class ids, resized to the label map's `shape` (height, width)
    with nearest; raises DataError.
    """
    return read_prediction(path, shape, classes)[0]


def read_prediction(
    path: Path, shape: Optional[Tuple[int, int]], classes: Classes
) -> Tuple[np.ndarray, List[str]]:
    """(what `load_prediction` gives, remarks on how the file was read): ids 0 ... N - 1, or the
    colours of `classes`.
    """
    # Predictions are numbered as segment numbers them, whatever the data set's own label files do.
    if isinstance(classes, int):
        count, plain, stored = classes, classes, ()
    else:
        count, stored = len(classes), classes.file_ids + classes.file_ignore
        plain = replace(classes, ignore=(), file_ids=(), file_ignore=(), file_map=())
    label_map = read_values(path, Numbering.of(plain).classes)
    values, reading = label_map.values, label_map.reading
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size:
        hint = ""
        if stored and set(np.unique(values).tolist()) <= set(stored):
            hint = f", not those that label files of {classes.name} store"
        raise DataError(
            f"prediction {path} holds the id {wrong.max()}; expected class ids 0 to {count - 1}, "
            f"as segment writes them{hint}"
        )

    ids = values.astype(np.uint8)
    remarks = [reading.replace("label maps", "predictions", 1)] if reading else []
    if shape is None:
        return ids, remarks
    (height, width), (label_height, label_width) = ids.shape, shape
    if not same_aspect(width, height, label_width, label_height):
        raise DataError(
            f"prediction {path} is {width}x{height}, its label map {label_width}x{label_height}; "
            "expected the same aspect ratio"
        )
    return resize_label(ids, label_width, label_height), remarks


class Agreement:
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
        self.classes: Dict[str, Set[int]] = {name: set() for name in self.tables}

    def add(self, prediction: np.ndarray, label: np.ndarray) -> None:
        """Count the pixels of one pair, both uint8 of one shape."""
        known = label != IGNORED
        self.total += int(known.sum())
        for name, table in self.tables.items():
            equal = label[(table[prediction] == label) & known]
            self.equal[name] += equal.size
            self.classes[name].update(np.unique(equal).tolist())

    def remarks(self) -> List[str]:
        """A warning where another numbering explains the predictions far better, else []."""
        best = max(self.equal, key=lambda name: self.equal[name])  # the first of equals
        plain, other = (self.equal[name] / max(self.total, 1) for name in ("", best))
        # A network that mistakes one class for its neighbour is no other numbering.
        if other < max(2 * plain, plain + CLEARLY) or len(self.classes[best]) < 2:
            return []
        return [
            f"warning: the predictions agree with {100 * plain:.0f} % of the label maps' pixels, "
            f"read {best} with {100 * other:.0f} %; expected ids 0, 1, 2, ..., as segment writes "
            "them: renumber them"
        ]
