"""What is asked of every input file, and the one line that says what is wrong with it: modes, sizes and ids, read once before any work.

Label files go through a table from stored values to classes, so a data set's own numbering works like 0, 1, 2, ...
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

import numpy as np

from jseg import images
from jseg.classes import IGNORED, ClassSet

SHOWN = 5
Classes = Union[int, ClassSet]
Check = Callable[[Path], List[str]]


class DataError(ValueError):
    """Input files that cannot be used; one line: what was given, what was expected, what to do."""


def check_files(groups: Sequence[Sequence[Tuple[Path, Check]]], progress: Optional[Callable[[int, int], None]] = None) -> List[str]:
    """Call check(path) once for every file of every group; one line per kind of remark that the checks return.

    `progress(done, total)` is called after each group. Raises DataError naming the first unusable file and how many more there are.
    """
    remarks: Dict[str, List[str]] = {}
    problems: List[Tuple[Path, str]] = []
    seen: Set[Path] = set()
    for done, group in enumerate(groups, start=1):
        for path, check in group:
            if path in seen:
                continue
            seen.add(path)
            try:
                for kind in check(path):
                    remarks.setdefault(kind, []).append(path.name)
            except ValueError as error:
                problems.append((path, str(error)))
        if progress:
            progress(done, len(groups))
    if problems:
        more = [path.name for path, _ in problems[1:]]
        raise DataError(problems[0][1] + (" (and %d more files with problems: %s)" % (len(more), some(more, False)) if more else ""))
    return ["%d %s (%s)" % (len(names), kind, some(names, False)) for kind, names in remarks.items()]


def label_table(classes: Classes, ignore: Sequence[int] = ()) -> np.ndarray:
    """int16 [256]: the class of every value in a label file, 255 for those that mean nothing is known, -1 for all others.

    classes: a number of classes, stored as 0, 1, 2, ..., or a ClassSet, stored in its data set's own numbering. `ignore` are values
    as stored, and win over classes.
    """
    table = np.full(256, -1, np.int16)
    if isinstance(classes, ClassSet):
        table[list(classes.file_ignore)] = IGNORED
        table[list(classes.file_ids or range(len(classes)))] = np.arange(len(classes))
    else:
        table[:classes] = np.arange(min(classes, 256))
    table[[value for value in ignore if 0 <= value < 256]] = IGNORED
    return table


def class_ids(label: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    """uint8 [H, W] as stored -> class ids, 255 where nothing is known; raises DataError that names `path` and its unknown values."""
    counts = np.bincount(label.ravel(), minlength=256)
    bad = [int(value) for value in np.flatnonzero(counts) if table[value] < 0]
    if bad:
        raise DataError("label %s holds ids outside %s: %s; ids found: %s; correct it, or name the ids to be ignored (--ignore)"
                        % (path, _span(np.flatnonzero((table >= 0) & (table != IGNORED))), histogram(counts, bad), histogram(counts)))
    return table[label].astype(np.uint8)


def check_label(path: Path, table: np.ndarray, width: int, height: int) -> List[str]:
    """Remarks on a label map that is to be read through `table` for pictures of width x height; raises ValueError if it cannot be."""
    label = images.read_label(path)
    _check_aspect("label", path, label.shape[1], label.shape[0], width, height)
    ids = class_ids(label, table, path)
    remarks = []
    if images.read_header(path).mode == "P":
        remarks.append("label maps have a palette; their indices are taken as class ids")
    if label.shape != (height, width):
        remarks.append("label maps of another size than %dx%d are resized with nearest" % (width, height))
    if (ids == IGNORED).any():
        remarks.append("label maps hold ignored ids, which condition nothing")
    return remarks


def check_picture(path: Path, what: str, width: int, height: int) -> List[str]:
    """Remarks on a picture, called `what`, that is to become width x height; raises ValueError if it cannot."""
    header = images.read_header(path)
    picture = images.read_picture(path)
    _check_aspect(what, path, picture.shape[1], picture.shape[0], width, height)
    remarks = []
    if picture.shape[:2] != (height, width):
        remarks.append("%ss of another size than %dx%d are resized" % (what, width, height))
    if header.mode != "RGB":
        remarks.append("%ss are not plain RGB and are converted" % what)
    if header.turned:
        remarks.append("%ss are turned as their EXIF orientation says" % what)
    return remarks


def same_aspect(width: int, height: int, target_width: int, target_height: int) -> bool:
    """Whether width x height is target_width x target_height scaled, up to rounding one side by less than a pixel."""
    return abs(width * target_height - height * target_width) < max(target_width, target_height)


def _check_aspect(what: str, path: Path, width: int, height: int, target_width: int, target_height: int) -> None:
    if not same_aspect(width, height, target_width, target_height):
        raise DataError("%s %s is %dx%d; expected %dx%d or the same aspect ratio, crop it first"
                        % (what, path, width, height, target_width, target_height))


def histogram(counts: np.ndarray, ids: Optional[Sequence[int]] = None) -> str:
    """'0 (41 %), 3 (20 %), 255 (2 %)' from the number of pixels per id: of `ids` or all, largest share first, at most twelve."""
    order = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value] and (ids is None or value in ids)]
    shares = []
    for value in order[:12]:
        percent = 100.0 * counts[value] / counts.sum()
        shares.append("%d (%s %%)" % (value, "%.0f" % percent if percent >= 1 else "<1"))
    return ", ".join(shares) + (" and %d more" % (len(order) - 12) if len(order) > 12 else "")


def _span(values: np.ndarray) -> str:
    if not values.size:
        return "the classes, all of which are ignored"
    gaps = values.size <= values[-1] - values[0]
    return "%d..%d%s" % (values[0], values[-1], " (with gaps)" if gaps else "")


def existing_folder(path: Union[str, Path], what: str) -> Path:
    """The path, if it is a folder; raises DataError calling it `what` (label folder, ...)."""
    folder = Path(path)
    if not folder.exists():
        raise DataError("%s %s does not exist; give an existing folder" % (what, folder))
    if not folder.is_dir():
        raise DataError("%s %s is a file; give a folder" % (what, folder))
    return folder


def visible_files(folder: Path, suffixes: Sequence[str] = (".png",)) -> List[Path]:
    """The files in a folder that have one of the suffixes, in any case, sorted by name; hidden files and folders do not count."""
    # A dangling link is kept: reading it later says what is wrong, skipping it would lose a file silently.
    return sorted(entry for entry in folder.iterdir()
                  if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and not entry.is_dir())


def name_key(text: str) -> str:
    """The form of a file name by which names are compared."""
    # The same name may come composed (Linux, JSON) or decomposed (macOS).
    return unicodedata.normalize("NFC", text)


def some(names: Sequence[str], count: bool = True) -> str:
    """'7 files (a, b, c, d, e, ...)', or only the first five names."""
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return "%d files (%s)" % (len(names), shown) if count and len(names) > 1 else shown
