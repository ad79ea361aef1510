"""What all label maps of a data set hold together, and what of it is probably not what was
meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.counting import agreeing, counted
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.label_maps import COLOURS, GRAY, GRAYS, INDICES, LOW, LabelMap
from jseg.files import DataError

MOST_CLASSES = 255
MOST_COUNTED = 200  # more classes than that are an instance map or an image
SHOWN = 8
Colour = Tuple[int, ...]


class Census:
    """How many pixels have each stored value in all label maps that were read with it, and how the
    maps were read.

    pixels: {value: pixels}.
    """

    def __init__(self) -> None:
        self.pixels: Dict[int, int] = {}
        self._names: Dict[str, List[str]] = {}  # of maps with more than zeros, by kind of reading
        self._places: Dict[Colour, Tuple[int, str]] = {}  # {colour: (its index, in which file)}
        self._moved: List[str] = []  # palettes of grays whose index is another number

    def note(self, path: Path, label_map: LabelMap) -> None:
        """Count one label map by how it was read.

        Raises DataError where its palette contradicts an earlier one's.
        """
        if label_map.values.any():
            self._names.setdefault(label_map.kind, []).append(path.name)
        entries = label_map.entries.items()
        if label_map.kind == GRAYS and any(colour[0] != index for index, colour in entries):
            self._moved.append(path.name)
        if label_map.kind != INDICES:
            return

        # Optimisers of PNG files order the entries of a palette anew, file by file.
        for index, colour in entries:
            place, name = self._places.setdefault(colour, (index, path.name))
            if place != index:
                raise DataError(
                    f"label {path} has the colour {colour} at index {index} of its palette, "
                    f"{name} at {place}: their palettes were put in another order, so indices are "
                    "no ids; save the maps as 8-bit gray, or give the class set of these colours "
                    "(--classes)"
                )

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Count the values int [n] of one label map by their numbers of pixels [n]."""
        for value, count in zip(values.tolist(), counts.tolist()):
            self.pixels[value] = self.pixels.get(value, 0) + count

    def check_readings(self) -> List[str]:
        """Warnings where the maps were read in ways that hardly go together.

        Raises DataError where palettes of grays are beside palettes of colours.
        """
        names = self._names
        if self._moved and INDICES in names:
            raise DataError(
                f"{counted(len(self._moved), 'label map[s] [has a palette|have palettes]')} of "
                f"grays alone ({self._moved[0]}), others of colours ({names[INDICES][0]}): one "
                "numbering cannot be meant by both; save all maps as 8-bit gray"
            )

        # These may be meant.
        lines = []
        if COLOURS in names and INDICES in names:
            lines.append(
                f"warning: some label maps are in the classes' colours ({names[COLOURS][0]}), "
                "others have another palette, whose indices are taken as ids "
                f"({names[INDICES][0]})"
            )
        low, others = names.get(LOW, []), names.get(GRAY, []) + names.get(GRAYS, [])
        if low and others:
            lines.append(
                f"warning: {counted(len(low), 'label map[s] [is|are]')} gray of 1, 2 or 4 bits "
                f"({low[0]}) beside others of 8 ({others[0]}): their stored values are taken as "
                "ids, 1 for what a viewer shows as white or 17; if a program has made the files "
                "smaller, save them with 8 bits"
            )
        return lines

    def warnings(self, numbering, strict: bool = False, named: Sequence[int] = ()) -> List[str]:
        """What of the maps is probably not meant, where a single class is no fault.

        numbering: the `jseg.data.numbering.Numbering` they were read by. named: values that a
        person gave to be ignored, which are meant. Raises DataError, if strict, for a mask of 0 and
        255 of which one class alone remains.
        """
        values = sorted(self.pixels)
        mapped = numbering.classes is not None and numbering.classes.file_map
        meant = mapped or (values and values[-1] in named)
        suspicion = "" if meant else suspected(values)
        if suspicion and strict and len(self._present(numbering)) < 2:
            raise DataError(f"the label maps hold {suspicion}")
        lines = [f"warning: the label maps hold {suspicion}"] * bool(suspicion)
        return lines + self.check_readings()

    def remarks(self, classes: ClassSet, numbering, strict: bool) -> List[str]:
        """The line on classes and ignored pixels, and warnings where some are due.

        numbering: as for `warnings`. Raises DataError for a mask of 0 and 255 and, if strict, where
        no class or one alone remains.
        """
        if not self.pixels:
            return []
        warnings = self.warnings(numbering, strict=True)
        values = sorted(self.pixels)
        pixels = np.array([self.pixels[value] for value in values], np.float64)
        unknown = numbering.meaning(np.array(values)) == IGNORED
        ignored = 100 * pixels[unknown].sum() / pixels.sum()

        # What there is.
        present = self._present(numbering)
        absent = [name for i, name in enumerate(classes.names) if i not in present]
        line = (
            f"{len(present)} of {len(classes)} classes {agreeing(len(present), '[is|are]')} present"
        )
        if absent:
            more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
            line += f", absent: {', '.join(absent[:SHOWN])}{more}"
        lines = [f"{line}; {ignored:.1f} % of the pixels are ignored"]

        # What is wrong with it.
        if len(present) < 2:
            one = [f"one class alone remains ({classes.names[i]})" for i in present]
            wrong = one[0] if one else "all pixels are ignored"
            if strict:
                raise DataError(
                    f"the label maps teach nothing: {wrong}, values in the files: "
                    f"{', '.join(map(str, values[:SHOWN]))}; expected two classes or more, correct "
                    "the files, or name other classes (--classes, --ignore, --map)"
                )
            lines.append(f"warning: of the label maps, {wrong}")
        return lines + warnings

    def _present(self, numbering) -> List[int]:
        """The classes that have pixels, ascending."""
        ids = numbering.meaning(np.array(sorted(self.pixels)))
        return sorted(set(ids[ids != IGNORED].tolist()))

    def check_count(self, count: int, ignore: Sequence[int]) -> None:
        """Raise DataError where `count` classes, counted by the largest id, are hardly meant."""
        values = sorted(self.pixels)
        suspicion = suspected(values, [value for value in values if value not in ignore])
        if suspicion:
            raise DataError(f"the label maps hold {suspicion}")

        # More than can be stored, and more than anyone names.
        if count > MOST_CLASSES:
            raise DataError(
                f"the label maps hold ids up to {count - 1}; expected 0 to {MOST_CLASSES - 1}: "
                f"name what is no class (--ignore {count - 1}) or save ids 0, 1, 2, ..."
            )
        if count > MOST_COUNTED:
            raise DataError(
                f"{count} classes counted, by the largest id: the label maps are probably instance "
                f"maps or images; expected ids 0, 1, 2, ..., or give --classes {count} if these "
                "are so many"
            )


def suspected(values: Sequence[int], counted: Optional[Sequence[int]] = None) -> str:
    """What stored values, sorted, seem to be where they are no ids: "0 and 255: ...", else "".

    counted: those of which the largest gives the number of classes, where nobody gave one.
    """
    shown = list(values)
    top, steps = (shown[-1] if shown else 0), len(shown) - 1
    if shown == [0, top] and (top in (255, 65535) or (counted is not None and top >= 64)):
        return f"0 and {top}: a black-and-white mask? save 0 and 1, or --map {top}:1"
    if shown == [255]:
        return "255 alone: a white mask? save 0 and 1, or --map 255:1"

    # Ids multiplied so that they fill the range of a gray image: 0 127 254, 0 85 170 255.
    even = all(abs(value - top * i / max(steps, 1)) <= 1 for i, value in enumerate(shown))
    if steps < 2 or not even or not 240 <= top <= 65535 or top // steps < 8:
        return ""
    first = ", ".join(map(str, shown[:4])) + ", ..." * (steps > 3)
    mapping = " ".join(f"{value}:{i}" for i, value in enumerate(shown[:4]) if i)
    return (
        f"{first}: ids stretched to gray levels? save 0 to {steps}, or --map {mapping}"
        + " ..." * (steps > 3)
    )
