"""What all label maps of a data set hold together, and what of it is probably not what was
meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED, ClassSet
from jseg.data.label_maps import COLOURS, GRAY, GRAYS, INDICES, LOW, LabelMap
from jseg.files import DataError

MOST_CLASSES = 255
MOST_COUNTED = 200  # more classes than that are an instance map or an image
SHOWN = 8


class Census:
    """Pixels per stored value of every label map that was read with it: {value: pixels}; and how
    they were read.
    """

    def __init__(self) -> None:
        self.pixels: Dict[int, int] = {}
        self.kinds: Dict[str, List[str]] = {}  # files that hold more than zeros, by kind of reading
        self.places: Dict[
            Tuple[int, ...], Tuple[int, str]
        ] = {}  # colour -> (its index, in which file)
        self.moved: List[str] = []  # palettes of grays whose index is another number

    def note(self, path: Path, found: LabelMap) -> None:
        """How one label map was read. Raises DataError where its palette contradicts an earlier
        one's.
        """
        if found.values.any():
            self.kinds.setdefault(found.kind, []).append(path.name)
        if found.kind == GRAYS and any(
            colour[0] != index for index, colour in found.entries.items()
        ):
            self.moved.append(path.name)
        if found.kind != INDICES:
            return

        # Optimisers of PNG files put the entries of a palette in an order of their own, file by
        # file.
        for index, colour in found.entries.items():
            place, name = self.places.setdefault(colour, (index, path.name))
            if place != index:
                raise DataError(
                    f"label {path} has the colour {colour} at index {index} of its palette, "
                    f"{name} at {place}: their palettes were put in another order, so indices are "
                    "no ids; save the maps as 8-bit gray, or give the class set of these colours "
                    "(--classes)"
                )

    def check_readings(self) -> List[str]:
        """A warning where gray maps of few bits are among others; DataError where grays and colours
        are.
        """
        if self.moved and INDICES in self.kinds:
            raise DataError(
                f"{len(self.moved)} label maps have palettes of grays alone ({self.moved[0]}), "
                f"others of colours ({self.kinds[INDICES][0]}): one numbering cannot be meant by "
                "both; save all maps as 8-bit gray"
            )
        lines = []
        if COLOURS in self.kinds and INDICES in self.kinds:
            lines.append(
                "warning: some label maps are in the classes' colours "
                f"({self.kinds[COLOURS][0]}), others have another palette, whose indices are "
                f"taken as ids ({self.kinds[INDICES][0]})"
            )
        low, others = self.kinds.get(LOW, []), self.kinds.get(GRAY, []) + self.kinds.get(GRAYS, [])
        if not (low and others):
            return lines
        return lines + [
            f"warning: {len(low)} label maps are gray of 1, 2 or 4 bits ({low[0]}) beside others "
            f"of 8 ({others[0]}): their stored values are taken as ids, 1 for what a viewer shows "
            "as white or 17; if a program has made the files smaller, save them with 8 bits"
        ]

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Values int [n] of one label map and their numbers of pixels [n]."""
        for value, count in zip(values.tolist(), counts.tolist()):
            self.pixels[value] = self.pixels.get(value, 0) + count

    def warnings(self, numbering, strict: bool = False, named: Sequence[int] = ()) -> List[str]:
        """What is probably not meant of the maps, where single classes are no fault.

        named: values that a person gave to be ignored, which are meant. Raises DataError, if
        strict, for a mask of 0 and 255 of which one class alone remains.
        """
        values = sorted(self.pixels)
        mapped = numbering.classes is not None and numbering.classes.file_map
        meant = mapped or bool(values) and values[-1] in named
        suspicion = "" if meant else suspected(values)
        if suspicion and strict:
            ids = numbering.meaning(np.array(values))
            if len(set(ids[ids != IGNORED].tolist())) < 2:
                raise DataError(f"the label maps hold {suspicion}")
        lines = [f"warning: the label maps hold {suspicion}"] * bool(suspicion)
        return lines + self.check_readings()

    def remarks(self, classes: ClassSet, numbering, strict: bool) -> List[str]:
        """The line on classes and ignored pixels, and a warning where one is due.

        numbering: the `jseg.data.numbering.Numbering` they were read by. Raises DataError for a
        mask of 0 and 255 and, if strict, where no class or one alone remains.
        """
        values = sorted(self.pixels)
        if not values:
            return []
        pixels = np.array([self.pixels[value] for value in values], np.float64)
        ids = numbering.meaning(np.array(values))
        present = sorted(set(ids[ids != IGNORED].tolist()))
        ignored = pixels[ids == IGNORED].sum() / pixels.sum()
        warnings = self.warnings(numbering, strict=True)

        # What there is, then what is wrong with it.
        absent = [classes.names[i] for i in range(len(classes)) if i not in present]
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        line = (
            f"{len(present)} of {len(classes)} classes are present"
            + (f", absent: {', '.join(absent[:SHOWN])}{more}" if absent else "")
            + f"; {100 * ignored:.1f} % of the pixels are ignored"
        )
        wrong = ""
        if not present:
            wrong = "all pixels are ignored"
        elif len(present) == 1:
            wrong = f"one class alone remains ({classes.names[present[0]]})"
        if wrong and strict:
            raise DataError(
                f"the label maps teach nothing: {wrong}, values in the files: "
                f"{', '.join(map(str, values[:SHOWN]))}; expected two classes or more, correct the "
                f"files, or name other classes (--classes, --ignore, --map)"
            )
        lines = [line] + [f"warning: of the label maps, {wrong}"] * bool(wrong)
        return lines + warnings

    def check_count(self, count: int, ignore: Sequence[int]) -> None:
        """Raises DataError where `count` classes, counted by the largest id, are hardly meant."""
        values = sorted(self.pixels)
        suspicion = suspected(values, [value for value in values if value not in ignore])
        if suspicion:
            raise DataError(f"the label maps hold {suspicion}")
        if count > MOST_CLASSES:
            raise DataError(
                f"the label maps hold ids up to {count - 1}; expected 0 to {MOST_CLASSES - 1}: "
                f"name what is no class (--ignore {count - 1}) or save ids 0, 1, 2, ..."
            )
        if count > MOST_COUNTED:
            raise DataError(
                f"{count} classes counted, by the largest id: the label maps are probably instance "
                f"maps or images; expected ids 0, 1, 2, ..., or give --classes {count} if these "
                f"are so many"
            )


def suspected(values: Sequence[int], counted: Optional[Sequence[int]] = None) -> str:
    """What stored values, sorted, seem to be where they are no ids: "0 and 255: ...", else "".

    counted: those of which the largest gives the number of classes, where nobody gave one.
    """
    values = list(values)
    top = values[-1] if values else 0
    if (
        len(values) == 2
        and values[0] == 0
        and (top in (255, 65535) or (counted is not None and top >= 64))
    ):
        return f"0 and {top}: a black-and-white mask? save 0 and 1, or --map {top}:1"
    if values == [255]:
        return "255 alone: a white mask? save 0 and 1, or --map 255:1"

    # Ids multiplied so that they fill the range of a gray image: 0 127 254, 0 85 170 255.
    steps = len(values) - 1
    even = all(abs(value - top * i / max(steps, 1)) <= 1 for i, value in enumerate(values))
    if steps >= 2 and 240 <= top <= 65535 and top // steps >= 8 and even:
        shown = " ".join(f"{value}:{i}" for i, value in enumerate(values[:4]) if i)
        mapping = f", or --map {shown}{' ...' * (steps > 3)}"
        listed = ", ".join(map(str, values[:4])) + ", ..." * (steps > 3)
        return f"{listed}: ids stretched to gray levels? save 0 to {steps}{mapping}"
    return ""
