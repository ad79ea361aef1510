"""What is asked of every input file, and the one line that says what is wrong with it.

Files are read and checked once, before any work. Label files go through a table from stored values
to classes, so a data set's own numbering works like 0, 1, 2, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.counting import counted
from jseg.data.census import Census
from jseg.data.classes import IGNORED
from jseg.data.folders import listing
from jseg.data.label_maps import COLOURS
from jseg.data.numbering import LabelReading, Numbering
from jseg.files import DataError
from jseg.image_files.decoding import ImageFile
from jseg.images import examine_image


@dataclass(frozen=True)
class CheckedFile:
    """What a check has learnt of an image or a label map.

    width and height are as seen. by_colour: of a label map, whether it is read by the colours of
    its class set.
    """

    sha256: str
    width: int
    height: int
    by_colour: bool = False

    @classmethod
    def of(cls, file: ImageFile, pixels: np.ndarray, by_colour: bool = False) -> CheckedFile:
        """From a file that was read and its pixels [H, W, ...]."""
        height, width = pixels.shape[:2]
        return cls(file.sha256, width, height, by_colour)


Check = Callable[[Path], Tuple[CheckedFile, List[str]]]


class FileChecks:
    """The checks of many files, each made once; remarks of one kind become one line."""

    def __init__(self) -> None:
        self._checked: Dict[Path, Optional[CheckedFile]] = {}
        self._names: Dict[str, List[str]] = {}  # of the files of each kind of remark
        self._faults: List[Tuple[Path, str]] = []

    def check(self, path: Path, check: Check) -> Optional[CheckedFile]:
        """The result of check(path), which returns (result, remarks); None for an unusable file."""
        if path not in self._checked:
            remarks: List[str] = []
            try:
                self._checked[path], remarks = check(path)
            except ValueError as error:
                self._checked[path] = None
                self._faults.append((path, str(error)))
            for kind in remarks:
                self._names.setdefault(kind, []).append(path.name)
        return self._checked[path]

    def remarks(self) -> List[str]:
        """One line per kind of remark, with the number of files where there are several.

        Raises DataError naming the first unusable file and how many more there are.
        """
        if self._faults:
            names = [path.name for path, _ in self._faults[1:]]
            more = f" (and {counted(len(names), 'more file[s]')} with problems: {listing(names)})"
            raise DataError(self._faults[0][1] + more * bool(names))
        return [
            f"{len(names)} {kind} ({listing(names)})" if len(names) > 1 else f"{kind} ({names[0]})"
            for kind, names in self._names.items()
        ]


def check_files(groups: Sequence[Sequence[Tuple[Path, Callable[[Path], List[str]]]]]) -> List[str]:
    """Call check(path), which returns remarks, once for every file of every group.

    Returns one line per kind of remark. Raises DataError as `FileChecks.remarks` does.
    """
    checks = FileChecks()
    for group in groups:
        for path, check in group:
            checks.check(path, lambda one: (None, check(one)))
    return checks.remarks()


def check_image(
    path: Path, what: str, width: int, height: int, fit: Optional[str] = None
) -> Tuple[CheckedFile, List[str]]:
    """Check an image, called `what`, that is to become width x height.

    fit: "crop" or "resize" where another aspect ratio is taken, "" where these options could be
    given. Raises ValueError for an image that cannot be used.
    """
    reading, remarks = examine_image(path, what), []
    image = CheckedFile.of(reading.file, reading.pixels)
    _check_aspect(what, path, image, reading.header.turned, width, height, fit)
    if (image.width, image.height) != (width, height):
        remarks.append(f"{what}s of another size than {width}x{height} are resized")
    if fit and not same_aspect(image.width, image.height, width, height):
        done = "cut to their middle of that aspect ratio" if fit == "crop" else "stretched"
        remarks.append(
            f"{what}s of another aspect ratio than {width}x{height} are {done}, with their label "
            f"maps (--fit {fit})"
        )
    return image, remarks + reading.remarks


def check_image_size(path: Path, least: int = 1) -> Tuple[CheckedFile, List[str]]:
    """Check an image of any size from `least` x `least` on; raises ValueError."""
    reading = examine_image(path)
    image = CheckedFile.of(reading.file, reading.pixels)
    if min(image.width, image.height) < least:
        raise DataError(
            f"image {path} is {image.width}x{image.height}; expected at least {least}x{least}, "
            "one patch of the network"
        )
    return image, reading.remarks


def check_label(
    path: Path,
    numbering: Numbering,
    width: int,
    height: int,
    census: Optional[Census] = None,
    fit: Optional[str] = None,
) -> Tuple[CheckedFile, List[str]]:
    """Check a label map that is to be read by `numbering` for images of width x height.

    census: counts its values. fit: as for `check_image`. Raises ValueError for a label map that
    cannot be used.
    """
    reading = numbering.read(path, census)
    label, remarks = _checked_label(reading), list(reading.remarks)
    _check_aspect("label", path, label, reading.label_map.header.turned, width, height, fit)
    if reading.ids.shape != (height, width):
        remarks.append(f"label maps of another size than {width}x{height} are resized with nearest")
    return label, remarks + remarks_on_ids(reading.ids, "condition nothing")


def check_label_of_image(
    path: Path, image: Optional[CheckedFile], numbering: Numbering, census: Census
) -> Tuple[CheckedFile, List[str]]:
    """Check a label map that is to be read in the size of its image, None if that is unusable.

    census: counts its values. Raises ValueError for a label map that cannot be used.
    """
    reading = numbering.read(path, census)
    label, remarks = _checked_label(reading), list(reading.remarks)
    if image is not None:
        check_shows_image(path, label, image)
        if reading.ids.shape != (image.height, image.width):
            remarks.append("label maps of another size than their image are resized with nearest")
    return label, remarks + remarks_on_ids(reading.ids)


def _checked_label(reading: LabelReading) -> CheckedFile:
    by_colour = reading.label_map.kind == COLOURS
    return CheckedFile.of(reading.label_map.file, reading.ids, by_colour)


def check_shows_image(path: Path, label: CheckedFile, image: CheckedFile) -> None:
    """Raise DataError unless a label map has its image's size or the same aspect ratio."""
    if not same_aspect(label.width, label.height, image.width, image.height):
        raise DataError(
            f"label {path} is {label.width}x{label.height}; expected {image.width}x{image.height}, "
            "its image's size, or the same aspect ratio"
        )


def remarks_on_ids(ids: np.ndarray, ignored: str = "") -> List[str]:
    """What should be said of a label map's class ids uint8 [H, W], 255 being ignored.

    This is what of it is not used, and what seems a mistake. ignored: what becomes of ignored
    pixels ("condition nothing"); "" where that is said elsewhere.
    """
    unknown = ids == IGNORED
    if unknown.all():
        return ["label maps hold nothing but ignored ids"]
    remarks = [f"label maps hold ignored ids, which {ignored}"] * bool(ignored and unknown.any())
    known = ids[~unknown]
    return remarks + ["label maps hold one class alone"] * bool((known == known[0]).all())


def same_aspect(width: int, height: int, target_width: int, target_height: int) -> bool:
    """Whether width x height is the target scaled, up to rounding one side by less than a pixel."""
    return abs(width * target_height - height * target_width) < max(target_width, target_height)


def _check_aspect(
    what: str,
    path: Path,
    file: CheckedFile,
    turned: bool,
    width: int,
    height: int,
    fit: Optional[str],
) -> None:
    if fit or same_aspect(file.width, file.height, width, height):
        return
    orientation = " as its EXIF orientation turns it" if turned else ""
    remedy = (
        "crop it first"
        if fit is None
        else "or give --fit crop (its middle is taken) or --fit resize (it is stretched)"
    )
    raise DataError(
        f"{what} {path} is {file.width}x{file.height}{orientation}; expected {width}x{height} or "
        f"the same aspect ratio, {remedy}"
    )
