"""What the values in label files mean: a data set's own numbering -> the classes 0, 1, 2, ..."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.census import Census, suspected
from jseg.data.classes import CLASS_SETS, IGNORED, ClassSet
from jseg.data.label_maps import read_values, shares
from jseg.files import DataError

Classes = Union[int, ClassSet]


@dataclass(frozen=True, eq=False)
class Numbering:
    """What stored values mean: `table` int16 [256] (`label_table`), and the set whose colours
    count.

    far: {value: class or 255} of values outside of 0..255, by --ignore and --map.
    """

    table: np.ndarray
    classes: Optional[ClassSet] = None
    far: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, classes: Classes, ignore: Sequence[int] = ()) -> "Numbering":
        """From a class set or a number of classes, and the values that mean nothing is known.

        29 classes have the colours of landscape-29.
        """
        landscape = CLASS_SETS["landscape-29"]
        colours = (
            classes
            if isinstance(classes, ClassSet)
            else landscape
            if classes == len(landscape)
            else None
        )
        table = label_table(classes, ignore)
        far = {value: IGNORED for value in ignore if not 0 <= value < 256}
        mapped = classes.file_map if isinstance(classes, ClassSet) else ()
        far.update((value, int(table[target])) for value, target in mapped if value > 255)
        return cls(table, colours, far)

    @property
    def own_colours(self) -> bool:
        """Whether the colours are those of a file of classes, not of a set that ships."""
        known = CLASS_SETS.get(self.classes.name) if self.classes is not None else None
        return self.classes is not None and not (
            known and np.array_equal(known.palette, self.classes.palette)
        )

    @property
    def key(self) -> bytes:
        """What results depend on of it, but for colours."""
        far = "".join(f"{value}:{self.far[value]} " for value in sorted(self.far))
        return self.table.astype("<i2").tobytes() + far.encode("ascii")

    def meaning(self, values: np.ndarray) -> np.ndarray:
        """Integers of any shape as stored -> int16 class ids, 255 where nothing is known, -1 for
        values that mean nothing.
        """
        if values.dtype == np.uint8:
            return self.table[values]
        inside = (values >= 0) & (values < 256)
        ids = np.where(inside, self.table[np.where(inside, values, 0)], np.int16(-1))
        for value, meant in self.far.items():
            ids[values == value] = meant
        return ids

    def read(self, path: Path, census: Optional[Census] = None) -> Tuple[np.ndarray, List[str]]:
        """(class ids uint8 [H, W], 255 where nothing is known; what should be told) of a label map.

        census: is told what values the file holds. Raises ImageError or DataError in one line.
        """
        found = read_values(path, self.classes)
        if census is not None:
            census.note(path, found)
        return class_ids(found.values, self, path, census), [found.reading] if found.reading else []


def label_table(classes: Classes, ignore: Sequence[int] = ()) -> np.ndarray:
    """int16 [256]: the class of every stored value, 255 where nothing is known, -1 for all others.

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
    found = {}
    for word in words:
        value, mark, target = word.partition(":")
        if not (mark and value.isdigit() and target.strip()) or int(value) >= 1 << 32:
            raise ValueError(
                f"--map {word}: expected VALUE:CLASS, such as 255:1, VALUE of 0 or more"
            )
        if int(value) in found:
            raise ValueError(f"--map names {value} twice; expected each value once")
        if int(value) in ignore:
            raise ValueError(f"{value} is given to --map and to --ignore; give it to one of them")
        found[int(value)] = target.strip()
    return list(found.items())


def class_ids(
    values: np.ndarray, numbering: Numbering, path: Path, census: Optional[Census] = None
) -> np.ndarray:
    """Integers [H, W] as stored -> uint8 class ids, 255 where nothing is known.

    census: is told the values and their numbers of pixels. Raises DataError that names `path` and
    the unknown values with their shares.
    """
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    known = numbering.meaning(found) >= 0
    if census is not None:
        census.add(found, counts)
    if not known.all():
        suspicion = suspected(found.tolist(), counted=found.tolist())
        raise DataError(
            "label %s holds ids outside %s: %s; ids found: %s; correct it, or name the ids to be "
            "ignored (--ignore)%s"
            % (
                path,
                _span(np.flatnonzero((numbering.table >= 0) & (numbering.table != IGNORED))),
                shares(found[~known], counts[~known], values.size),
                shares(found, counts),
                f"; {suspicion}" if suspicion else "",
            )
        )
    return numbering.meaning(values).astype(np.uint8)


def histogram(counts: np.ndarray, ids: Optional[Sequence[int]] = None) -> str:
    """`shares` from the number of pixels per id: of `ids` or of all."""
    chosen = [value for value in np.flatnonzero(counts) if ids is None or value in ids]
    return shares(np.array(chosen, np.int64), counts[chosen], int(counts.sum()))


def _span(values: np.ndarray) -> str:
    if not values.size:
        return "the classes, all of which are ignored"
    gaps = values.size <= values[-1] - values[0]
    return f"{values[0]}..{values[-1]}{' (with gaps)' if gaps else ''}"
