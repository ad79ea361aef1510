"""What is asked of every input file, and the one line that says what is wrong with it: modes, sizes
and ids, read once before any work.

Label files go through a table from stored values to classes, so a data set's own numbering works
like 0, 1, 2, ...
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

import numpy as np

from jseg.data.census import Census
from jseg.data.classes import IGNORED
from jseg.data.label_maps import LABEL_SUFFIXES, RARE_SUFFIXES
from jseg.data.numbering import Classes, Numbering, class_ids, histogram, label_table  # noqa: F401  one door for checks
from jseg.files import DataError
from jseg.image_files.decoding import read_header
from jseg.images import examine_image

SHOWN = 5
SEARCHED = 20_000  # files at most that are looked at below a folder
# Photographs and drawings that Pillow alone does not open.
UNREADABLE_SUFFIXES = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".pdf",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".orf",
    ".rw2",
    ".raf",
    ".exr",
    ".hdr",
)
Check = Callable[[Path], List[str]]


def check_files(
    groups: Sequence[Sequence[Tuple[Path, Check]]],
    progress: Optional[Callable[[int, int], None]] = None,
) -> List[str]:
    """Call check(path) once for every file of every group; one line per kind of remark that the
    checks return.

    `progress(done, total)` is called after each group. Raises DataError naming the first unusable
    file and how many more there are.
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
        raise DataError(
            problems[0][1]
            + (f" (and {len(more)} more files with problems: {some(more, False)})" if more else "")
        )
    return [f"{len(names)} {kind} ({some(names, False)})" for kind, names in remarks.items()]


def check_label(
    path: Path,
    numbering: Numbering,
    width: int,
    height: int,
    census: Optional[Census] = None,
    fit: Optional[str] = None,
) -> List[str]:
    """Remarks on a label map that is to be read by `numbering` for images of width x height;
    raises ValueError if it cannot be.

    census: is told its values. fit: "crop" or "resize" where another aspect ratio is taken, ""
    where these options could be given.
    """
    ids, remarks = numbering.read(path, census)
    _check_aspect("label", path, ids.shape[1], ids.shape[0], width, height, fit)
    if ids.shape != (height, width):
        remarks.append(f"label maps of another size than {width}x{height} are resized with nearest")
    return remarks + remarks_on_ids(ids, "condition nothing")


def remarks_on_ids(ids: np.ndarray, ignored: str = "") -> List[str]:
    """What should be told of a label map's class ids uint8 [H, W], 255 being ignored: what of it is
    not used, and what seems a mistake.

    ignored: what becomes of ignored pixels ("condition nothing"); "" where that is told elsewhere.
    """
    unknown = ids == IGNORED
    if unknown.all():
        return ["label maps hold nothing but ignored ids"]
    remarks = [f"label maps hold ignored ids, which {ignored}"] * bool(ignored and unknown.any())
    known = ids[ids != IGNORED]
    return remarks + ["label maps hold one class alone"] * bool((known == known[0]).all())


def check_image(
    path: Path, what: str, width: int, height: int, fit: Optional[str] = None
) -> List[str]:
    """Remarks on an image, called `what`, that is to become width x height; raises ValueError if
    it cannot. fit: as of `check_label`.
    """
    image, remarks = examine_image(path, what)
    _check_aspect(what, path, image.shape[1], image.shape[0], width, height, fit)
    if fit and not same_aspect(image.shape[1], image.shape[0], width, height):
        done = "cut to their middle of that aspect ratio" if fit == "crop" else "stretched"
        remarks.insert(
            0,
            f"{what}s of another aspect ratio than {width}x{height} are {done}, with their label "
            f"maps (--fit {fit})",
        )
    if image.shape[:2] != (height, width):
        remarks.insert(0, f"{what}s of another size than {width}x{height} are resized")
    return remarks


def same_aspect(width: int, height: int, target_width: int, target_height: int) -> bool:
    """Whether width x height is target_width x target_height scaled, up to rounding one side by
    less than a pixel.
    """
    return abs(width * target_height - height * target_width) < max(target_width, target_height)


def _check_aspect(
    what: str,
    path: Path,
    width: int,
    height: int,
    target_width: int,
    target_height: int,
    fit: Optional[str] = None,
) -> None:
    if not fit and not same_aspect(width, height, target_width, target_height):
        turned = " as its EXIF orientation turns it" if read_header(path).turned else ""
        remedy = (
            "crop it first"
            if fit is None
            else "or give --fit crop (its middle is taken) or --fit resize (it is stretched)"
        )
        raise DataError(
            f"{what} {path} is {width}x{height}{turned}; expected {target_width}x{target_height} "
            f"or the same aspect ratio, {remedy}"
        )


def existing_folder(path: Union[str, Path], what: str) -> Path:
    """The path, if it is a folder; raises DataError calling it `what` (label folder, ...)."""
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{what} {folder} does not exist; give an existing folder")
    if not folder.is_dir():
        raise DataError(f"{what} {folder} is a file; give a folder")
    return folder


def visible_files(folder: Path, suffixes: Sequence[str] = LABEL_SUFFIXES) -> List[Path]:
    """The files in a folder that have one of the suffixes, in any case, sorted by name; hidden
    files and folders do not count.
    """
    # A dangling link is kept: reading it later says what is wrong, skipping it would lose a file
    # silently.
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in suffixes
        and not entry.name.startswith(".")
        and not entry.is_dir()
    )


def map_suffixes(folder: Path) -> Sequence[str]:
    """Those of LABEL_SUFFIXES that are label maps in this folder: beside PNG and the like a GIF or
    WebP is a preview.
    """
    common = [suffix for suffix in LABEL_SUFFIXES if suffix not in RARE_SUFFIXES]
    return common if visible_files(folder, common) else LABEL_SUFFIXES


def left_out(folder: Path, suffixes: Sequence[str], usual: Sequence[str] = ()) -> List[str]:
    """Lines on what a folder holds and `visible_files` does not list.

    These are other visible files, and files of the suffixes in its folders. usual: names of files
    and folders of which nothing is said.
    """
    others = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() not in suffixes
        and not entry.name.startswith(".")
        and not entry.is_dir()
        and entry.name not in usual
    )

    # Names of images that this Pillow cannot open come first, with what to do.
    closed = [name for name in others if Path(name).suffix.lower() in UNREADABLE_SUFFIXES]
    remedy = f"; {some(closed, False)}: convert to JPEG or PNG to use them" if closed else ""
    rest = [name for name in others if name not in closed]
    lines = (
        f"{len(others)} other files in {folder} are left out ({some(closed + rest, False)}){remedy}"
    )
    return [lines] * bool(others) + deeper(folder, suffixes, usual)


def deeper(folder: Path, suffixes: Sequence[str], usual: Sequence[str] = ()) -> List[str]:
    """One line on the files of the suffixes in the folders of `folder`; [] if there are none.

    usual: names of folders that are passed over. At most about SEARCHED files are looked at, which
    is then said.
    """
    found: Dict[str, int] = {}
    looked = 0
    for child in sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and entry.name not in usual
    ):
        if child.name.startswith("."):
            continue
        for _, folders, names in os.walk(str(child)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            wanted = sum(
                os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")
                for name in names
            )
            found[child.name] = found.get(child.name, 0) + wanted
            looked += len(names)
            if looked > SEARCHED:
                break
        if looked > SEARCHED:
            break

    # Each folder with its number.
    counts = [f"{name}: {count}" for name, count in found.items() if count]
    least = " at least" if looked > SEARCHED else ""
    total = f"{sum(found.values())} files{least} in folders of {folder} are left out"
    return [f"{total} ({some(counts, False)}); folders in it are not looked at"] if counts else []


def name_key(text: str) -> str:
    """The form of a file name by which names are compared."""
    # The same name may come composed (Linux, JSON) or decomposed (macOS).
    return unicodedata.normalize("NFC", text)


def some(names: Sequence[str], count: bool = True) -> str:
    """'7 files (a, b, c, d, e, ...)', or only the first five names."""
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} files ({shown})" if count and len(names) > 1 else shown
