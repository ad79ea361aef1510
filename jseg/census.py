"""What all label maps of a data set hold together, and what of it is probably not what was meant."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

import numpy as np

from jseg.classes import IGNORED, ClassSet
from jseg.image_file import DataError

MOST_COUNTED = 200  # more classes than that are an instance map or a picture
SHOWN = 8


class Census:
    """Pixels per stored value of every label map that was read with it: {value: pixels}."""

    def __init__(self) -> None:
        self.pixels: Dict[int, int] = {}

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Values int [n] of one label map and their numbers of pixels [n]."""
        for value, count in zip(values.tolist(), counts.tolist()):
            self.pixels[value] = self.pixels.get(value, 0) + count

    def remarks(self, classes: ClassSet, table: np.ndarray, strict: bool) -> List[str]:
        """The line on classes and ignored pixels, and a warning where one is due.

        table: of `jseg.numbering.label_table`. Raises DataError for a mask of 0 and 255 and, if
        strict, where no class or one alone remains.
        """
        values = sorted(self.pixels)
        if not values:
            return []
        pixels = np.array([self.pixels[value] for value in values], np.float64)
        ids = table[values]
        present = sorted(set(ids[ids != IGNORED].tolist()))
        ignored = pixels[ids == IGNORED].sum() / pixels.sum()
        suspicion = "" if classes.file_map else suspected(values)
        if suspicion and len(present) < 2:
            raise DataError(f"the label maps hold {suspicion}")

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
        return lines + [f"warning: the label maps hold {suspicion}"] * bool(suspicion)

    def check_count(self, count: int, ignore: Sequence[int]) -> None:
        """Raises DataError where `count` classes, counted by the largest id, are hardly meant."""
        values = sorted(self.pixels)
        suspicion = suspected(values, [value for value in values if value not in ignore])
        if suspicion:
            raise DataError(f"the label maps hold {suspicion}")
        if count > MOST_COUNTED:
            raise DataError(
                f"{count} classes counted, by the largest id: the label maps are probably instance "
                f"maps or pictures; expected ids 0, 1, 2, ..., or give --classes {count} if these "
                f"are so many"
            )


def suspected(values: Sequence[int], counted: Optional[Sequence[int]] = None) -> str:
    """What stored values, sorted, seem to be where they are no ids: "0 and 255: ...", else "".

    counted: those of which the largest gives the number of classes, where nobody gave one.
    """
    values = list(values)
    top = values[-1] if values else 0
    if len(values) == 2 and values[0] == 0 and (
        top in (255, 65535) or (counted is not None and top >= 64)
    ):
        remedy = "save 0 and 1" + f", or --map {top}:1" * (top < 256)
        return f"0 and {top}: a black-and-white mask? {remedy}"
    if values == [255]:
        return "255 alone: a white mask? save 0 and 1, or --map 255:1"

    # Ids multiplied so that they fill the range of a gray image: 0 127 254, 0 85 170 255.
    steps = len(values) - 1
    even = all(abs(value - top * i / max(steps, 1)) <= 1 for i, value in enumerate(values))
    if steps >= 2 and 240 <= top <= 65535 and top // steps >= 8 and even:
        shown = " ".join(f"{value}:{i}" for i, value in enumerate(values[:4]) if i)
        mapping = f", or --map {shown}{' ...' * (steps > 3)}" * (top < 256)
        listed = ", ".join(map(str, values[:4])) + ", ..." * (steps > 3)
        return f"{listed}: ids stretched to gray levels? save 0 to {steps}{mapping}"
    return ""
