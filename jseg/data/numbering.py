"""What the values in label files mean: a data set's own numbering -> the classes 0, 1, 2, ..."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.census import Census, suspected
from jseg.data.classes import CLASS_SETS, IGNORED, ClassSet
from jseg.data.label_maps import LabelMap, fractions, read_values
from jseg.files import DataError

Classes = Union[int, ClassSet]


@dataclass(frozen=True, eq=False)
class LabelReading:
    """A label map as class ids, and what a person should know of how it was read.

    ids: uint8 [H, W], 255 where nothing is known.
    """

    ids: np.ndarray
    remarks: List[str]
    label_map: LabelMap


@dataclass(frozen=True, eq=False)
class Numbering:
    """What the values in label files mean, and which class set gives their colours a meaning.

    table: int16 [256], as of `label_table`. far: {value: class or 255} of values outside of 0..255,
    by --ignore and --map.
    """

    table: np.ndarray
    classes: Optional[ClassSet] = None
    far: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, classes: Classes, ignore: Sequence[int] = ()) -> "Numbering":
        """From a class set or a number of classes, and the values that mean nothing is known.

        29 classes have the colours of landscape-29.
        """
        table = label_table(classes, ignore)
        far = {value: IGNORED for value in ignore if not 0 <= value < 256}
        if isinstance(classes, ClassSet):
            mapped = [(value, target) for value, target in classes.file_map if value > 255]
            far.update((value, int(table[target])) for value, target in mapped)
            return cls(table, classes, far)
        landscape = CLASS_SETS["landscape-29"]
        return cls(table, landscape if classes == len(landscape) else None, far)

    @property
    def own_colours(self) -> bool:
        """Whether the colours are those of a file of classes, not of a set that ships."""
        known = CLASS_SETS.get(self.classes.name) if self.classes is not None else None
        return self.classes is not None and not (
            known and np.array_equal(known.palette, self.classes.palette)
        )

    @property
    def key(self) -> bytes:
        """All of it that results depend on, except for the colours."""
        far = "".join(f"{value}:{self.far[value]} " for value in sorted(self.far))
        return self.table.astype("<i2").tobytes() + far.encode("ascii")

    def meaning(self, values: np.ndarray) -> np.ndarray:
        """Integers of any shape as stored -> int16 class ids.

        255 where nothing is known, -1 for values that are neither a class nor ignored.
        """
        if values.dtype == np.uint8:
            return self.table[values]
        inside = (values >= 0) & (values < 256)
        ids = np.where(inside, self.table[np.where(inside, values, 0)], np.int16(-1))
        for value, meant in self.far.items():
            ids[values == value] = meant
        return ids

    def read(self, path: Path, census: Optional[Census] = None) -> LabelReading:
        """Read a label map as class ids; `census` learns which values it holds.

        Raises ImageError or DataError in one line.
        """
        label_map = read_values(path, self.classes)
        if census is not None:
            census.note(path, label_map)
        ids = class_ids(label_map.values, self, path, census)
        return LabelReading(ids, [label_map.reading] * bool(label_map.reading), label_map)


def label_table(classes: Classes, ignore: Sequence[int] = ()) -> np.ndarray:
    """int16 [256]: the class of each stored value, 255 where nothing is known, -1 for the others.

    classes: a number of classes, stored as 0, 1, 2, ..., or a ClassSet, stored in its data set's
    own numbering. `ignore` are values as stored, and win over classes; a class set's `file_map`
    wins over both.
    """
    table = np.full(256, -1, np.int16)
    if isinstance(classes, ClassSet):
        table[list(classes.file_ignore)] = IGNORED
        table[list(classes.file_ids or range(len(classes)))] = np.arange(len(classes))
    else:
        table[:classes] = np.arange(min(classes, 256))
    table[[value for value in ignore if 0 <= value < 256]] = IGNORED
    if isinstance(classes, ClassSet) and classes.file_map:
        meant = {value: table[target] for value, target in classes.file_map if value < 256}
        table[list(meant)] = list(meant.values())
    return table


def with_map(classes: ClassSet, words: Sequence[str], ignore: Sequence[int] = ()) -> ClassSet:
    """The classes with the values of `--map VALUE:CLASS ...` read as other ones.

    CLASS is a name, or an id as label files store it. Raises ValueError in one line.
    """
    pairs = []
    for value, target in split_map(words, ignore):
        stored = classes.file_ids or tuple(range(len(classes)))
        if target in classes.names:
            pairs.append((value, stored[classes.names.index(target)]))
        elif target.isdigit() and int(target) in stored + classes.file_ignore:
            pairs.append((value, int(target)))
        else:
            raise ValueError(
                f"--map {value}:{target}: {target} is no class of {classes.name}; expected a name, "
                f"or an id of {_span(np.array(stored))} as label files store it"
            )
    return replace(classes, file_map=tuple(pairs)) if pairs else classes


def split_map(words: Sequence[str], ignore: Sequence[int] = ()) -> List[Tuple[int, str]]:
    """[(value, what it is read as)] of the words VALUE:CLASS; raises ValueError in one line."""
    targets = {}
    for word in words:
        value, mark, target = word.partition(":")
        if not (mark and value.isdigit() and target.strip()) or int(value) >= 1 << 32:
            raise ValueError(
                f"--map {word}: expected VALUE:CLASS, such as 255:1, VALUE of 0 or more"
            )
        if int(value) in targets:
            raise ValueError(f"--map names {value} twice; expected each value once")
        if int(value) in ignore:
            raise ValueError(f"{value} is given to --map and to --ignore; give it to one of them")
        targets[int(value)] = target.strip()
    return list(targets.items())


def class_ids(
    values: np.ndarray, numbering: Numbering, path: Path, census: Optional[Census] = None
) -> np.ndarray:
    """Integers [H, W] as stored -> uint8 class ids, 255 where nothing is known.

    census: counts the values. Raises DataError that names `path` and the unknown values with their
    numbers of pixels.
    """
    if values.dtype == np.uint8:
        histogram = np.bincount(values.ravel(), minlength=256)
        stored = np.flatnonzero(histogram)
        counts = histogram[stored]
    else:
        stored, counts = np.unique(values, return_counts=True)
    if census is not None:
        census.add(stored, counts)

    unknown = numbering.meaning(stored) < 0
    if unknown.any():
        classes = np.flatnonzero((numbering.table >= 0) & (numbering.table != IGNORED))
        suspicion = suspected(stored.tolist(), counted=stored.tolist())
        raise DataError(
            f"label {path} holds ids outside {_span(classes)}: "
            f"{fractions(stored[unknown], counts[unknown], values.size)}; ids found: "
            f"{fractions(stored, counts)}; correct it, or name the ids to be ignored (--ignore)"
            + (f"; {suspicion}" if suspicion else "")
        )
    return numbering.meaning(values).astype(np.uint8)


def _span(values: np.ndarray) -> str:
    if not values.size:
        return "the classes, all of which are ignored"
    gaps = values.size <= values[-1] - values[0]
    return f"{values[0]}..{values[-1]}{' (with gaps)' if gaps else ''}"
