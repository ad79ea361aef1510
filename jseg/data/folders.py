"""What a folder of input files holds, and what is left out of it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

from jseg.counting import agreeing, counted
from jseg.data.label_maps import LABEL_SUFFIXES, RARE_SUFFIXES
from jseg.files import DataError

SHOWN = 5  # names in a line
SEARCHED = 20_000  # files at most that are looked at below a folder
BESIDE = 50  # folders of one folder that are looked at for the one that was meant
# Photographs and drawings that Pillow alone does not open.
UNREADABLE_SUFFIXES = tuple(
    ".heic .heif .jxl .svg .pdf .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .exr .hdr".split()
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
    """The files in a folder that have one of the suffixes, in any case, sorted by name.

    Hidden files and folders do not count.
    """
    return [entry for entry in _visible(folder) if entry.suffix.lower() in suffixes]


def _visible(folder: Path) -> List[Path]:
    # A dangling link counts: reading it later says what is wrong, skipping it would lose a file
    # silently.
    entries = sorted(folder.iterdir())
    return [entry for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]


def visible_folders(folder: Path) -> List[Path]:
    """The folders in a folder that are not hidden, sorted by name."""
    entries = sorted(folder.iterdir())
    return [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def map_suffixes(folder: Path) -> Sequence[str]:
    """The suffixes of label maps in this folder: beside a PNG, a GIF or WebP is only a preview."""
    common = [suffix for suffix in LABEL_SUFFIXES if suffix not in RARE_SUFFIXES]
    return common if visible_files(folder, common) else LABEL_SUFFIXES


def by_stem(
    folder: Path, suffixes: Sequence[str], usual: Sequence[str] = ()
) -> Tuple[Dict[str, Path], List[str]]:
    """({stem: file} of the visible files of these suffixes, remarks on the files left out).

    usual: as for `left_out`. Raises DataError for two files of one stem.
    """
    files: Dict[str, Path] = {}
    taken = map_suffixes(folder) if suffixes is LABEL_SUFFIXES else suffixes
    for path in visible_files(folder, taken):
        stem = name_key(path.stem)
        if stem in files:
            raise DataError(
                f"{folder} holds both {files[stem].name} and {path.name}, which would be one "
                "example; rename or remove one"
            )
        files[stem] = path
    return files, left_out(folder, taken, usual)


def left_out(folder: Path, suffixes: Sequence[str], usual: Sequence[str] = ()) -> List[str]:
    """Remarks on what a folder holds and `visible_files` does not list.

    These are other visible files, and files of the suffixes in its folders. usual: names of files
    and folders of which nothing is said.
    """
    others = [
        entry.name
        for entry in _visible(folder)
        if entry.suffix.lower() not in suffixes and entry.name not in usual
    ]

    # Images that this Pillow cannot open come first, with what to do.
    unreadable = [name for name in others if Path(name).suffix.lower() in UNREADABLE_SUFFIXES]
    names = unreadable + [name for name in others if name not in unreadable]
    line = (
        f"{counted(len(others), 'other file[s]')} in {folder} "
        f"{agreeing(len(others), '[is|are]')} left out ({listing(names)})"
    )
    if unreadable:
        line += f"; {listing(unreadable)}: convert to JPEG or PNG to use them"
    return [line] * bool(others) + left_out_below(folder, suffixes, usual)


def left_out_below(folder: Path, suffixes: Sequence[str], usual: Sequence[str] = ()) -> List[str]:
    """One remark on the files of the suffixes in the folders of `folder`; [] if there are none.

    usual: names of folders that are passed over. At most about SEARCHED files are looked at, which
    is then said.
    """
    counts: Dict[str, int] = {}
    looked_at = 0
    for child in visible_folders(folder):
        if child.name in usual or looked_at > SEARCHED:
            continue
        for _, folders, names in os.walk(str(child)):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            visible = [name for name in names if not name.startswith(".")]
            wanted = sum(os.path.splitext(name)[1].lower() in suffixes for name in visible)
            counts[child.name] = counts.get(child.name, 0) + wanted
            looked_at += len(names)
            if looked_at > SEARCHED:
                break

    count, filled = sum(counts.values()), [f"{name}: {n}" for name, n in counts.items() if n]
    if not filled:
        return []
    least = " at least" if looked_at > SEARCHED else ""
    return [
        f"{counted(count, 'file[s]')}{least} in folders of {folder} "
        f"{agreeing(count, '[is|are]')} left out ({listing(filled)}); folders in it are not "
        "looked at"
    ]


def meant_folder(folder: Path, fits: Callable[[Path], bool]) -> Optional[Path]:
    """The folder that was probably meant, for which fits(folder) is true, or None.

    Looked for up to two levels below the folder that was given, then above it and beside it.
    """

    def below(place: Path) -> List[Path]:
        try:
            return visible_folders(place)
        except OSError:
            return []

    children = below(folder)
    grandchildren = [child for place in children[:BESIDE] for child in below(place)[:BESIDE]]
    above = [folder.resolve().parent, folder.resolve().parent.parent]
    beside = [child for place in above for child in below(place)[:BESIDE]]
    places = children + grandchildren + above + beside
    return next((place for place in places if place != folder.resolve() and fits(place)), None)


def name_key(text: str) -> str:
    """The form of a file name by which names are compared."""
    # The same name may come composed (Linux, JSON) or decomposed (macOS).
    return unicodedata.normalize("NFC", text)


def some(names: Sequence[str]) -> str:
    """'7 files (a, b, c, d, e, ...)', or the one name."""
    return f"{len(names)} files ({listing(names)})" if len(names) > 1 else listing(names)


def listing(names: Sequence[str]) -> str:
    """'a, b, c, d, e, ...': the first five names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
