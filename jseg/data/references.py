"""The reference photographs that the challenge's table names: where they are, or what their names
were probably meant to be.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Tuple

from jseg.data.folders import meant_folder, name_key, some
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES

COMPARED = 2000  # names at most that are compared with a missing one
Places = List[Tuple[Path, Dict[str, Path]]]  # folders, each with {key of the name: file}


def reference_places(img_path: Path) -> Places:
    """[(folder, {key of the name: file})] of the folders that may hold references, the best
    first.
    """
    folders = [img_path / "imgs", img_path, img_path / "images"]
    return [
        (place, {name_key(entry.name): entry for entry in place.iterdir() if not entry.is_dir()})
        for place in folders
        if place.is_dir()
    ]


def find_references(
    img_path: Path, places: Places, table_path: Path, wanted: Sequence[str]
) -> List[Path]:
    """The files of the wanted names, all in the folder that has most of them.

    Raises DataError naming those that are missing, with what was probably meant.
    """
    keys: Set[str] = {name_key(name) for name in wanted}
    # max keeps the first of equals.
    folder, present = max(places, key=lambda place: len(keys & set(place[1])))
    missing = [name for name in wanted if name_key(name) not in present]
    if missing:
        remedy = _remedy(img_path, present, missing, len(wanted))
        raise DataError(f"{folder} lacks {some(missing)}, which {table_path} names; {remedy}")
    return [present[name_key(name)] for name in wanted]


def _remedy(img_path: Path, present: Dict[str, Path], missing: Sequence[str], wanted: int) -> str:
    """What to do about missing references, of `wanted` ones, in a folder of `present` files."""
    first = missing[0]
    near = near_name(first, [entry.name for entry in present.values()])
    if near:
        return f"there is {near}, correct the entry or rename the file"
    garbled = _garbled(missing, present)
    if garbled:
        return garbled
    if len(missing) < wanted:
        return "add it or correct the entry"

    # All are missing: probably another folder was meant.
    meant = meant_folder(
        img_path, lambda place: (place / "imgs" / first).is_file() or (place / first).is_file()
    )
    if meant:
        return f"did you mean {meant}?"
    return (
        "add it or correct the entry" if wanted == 1 else "give the folder of the reference images"
    )


def _garbled(missing: Sequence[str], present: Dict[str, Path]) -> str:
    """What to do where an unpacker has read the files' names in another encoding; "" if none."""
    keys = {name_key(name) for name in missing}
    # Bytes may be left as they were, or be taken for those of the first PCs.
    readings = [
        (codec, encoding)
        for codec in ("utf-8", "cp437")
        for encoding in ("gb18030", "big5", "shift_jis")
    ]
    for entry in present.values():
        for codec, encoding in readings:
            try:
                meant = name_key(entry.name.encode(codec, "surrogateescape").decode(encoding))
            except UnicodeError:
                continue
            if meant in keys and name_key(entry.name) != meant:
                return (
                    f"{entry.name} there is {meant} in {encoding}: unpack the archive again with "
                    "that encoding, or rename the files"
                )
    return ""


def near_name(name: str, names: Sequence[str]) -> Optional[str]:
    """The one of the names that `name` was probably meant to be, None if none is near."""
    stem = Path(name).stem.lower()
    for other in sorted(names):
        if Path(other).stem.lower() == stem and Path(other).suffix.lower() in IMAGE_SUFFIXES:
            return other

    # Names that differ in a number are of different images, however near they look; 7 and 0007
    # are the same number.
    same = [other for other in names if _numbers(other) == _numbers(name)]
    plain = {_short_numbers(other): other for other in same[:COMPARED]}
    close = difflib.get_close_matches(_short_numbers(name), list(plain), n=1, cutoff=0.9)
    return plain[close[0]] if close else None


def _short_numbers(name: str) -> str:
    return re.sub(r"\d+", lambda digits: str(int(digits.group())), name)


def _numbers(name: str) -> List[int]:
    return [int(digits) for digits in re.findall(r"\d+", Path(name).stem)]
