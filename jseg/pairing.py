"""Which label map belongs to which picture: equal names, or the endings that converters add to them.

Where a folder holds several versions of a label map (`a.png`, `a_labelTrainIds.png`, `a_color.png`,
`a_gtFine_instanceIds.png`), one version is taken for all pictures, and the rest is named.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from jseg.checks import LABEL_SUFFIXES, DataError, left_out, name_key, some, visible_files
from jseg.classes import IGNORED, ClassSet
from jseg.images import PICTURE_SUFFIXES

Notes = Optional[List[str]]

# In the order in which they are taken; instance maps hold no classes and are taken never.
TRAIN_IDS = "_labelTrainIds"
VERSIONS = ("", TRAIN_IDS, "_labelIds", "_labels", "_label", "_mask", "_seg", "_gt", "_L", "_color")
NEVER = ("_instanceIds", "_instanceTrainIds", "_instances", "_instance")
ENDING = re.compile(
    "(?P<base>.*?)(_gtFine|_gtCoarse)?(?P<version>%s)" % "|".join(VERSIONS[1:] + NEVER), re.I
)
PICTURE_ENDING = "_leftImg8bit"


@dataclass(frozen=True)
class Example:
    """A picture and its label map, or None where only pictures are wanted; stem is their name."""

    stem: str
    picture: Path
    label: Optional[Path] = None


def paired(pictures_place: Path, maps_place: Path, notes: Notes = None) -> List[Example]:
    """Every picture of a folder with its label map of another, sorted by stem.

    Which of several versions was taken, and what was left out, is appended to `notes`. Raises
    DataError unless each picture has a label map and the reverse, and for an empty folder.
    """
    expected = "expected one label map NAME.png for every picture NAME.jpg"
    pictures = by_stem(pictures_place, PICTURE_SUFFIXES, notes)
    maps = by_stem(maps_place, LABEL_SUFFIXES, notes)
    for found, place, what in (
        (pictures, pictures_place, "picture"),
        (maps, maps_place, "label map *.png"),
    ):
        if not found:
            raise DataError(f"{place} holds no {what}; {expected}")
    maps = one_version(pictures, maps, maps_place, notes)
    for found, others, place, what in (
        (pictures, maps, maps_place, "label map"),
        (maps, pictures, pictures_place, "picture"),
    ):
        lonely = [found[stem].name for stem in sorted(set(found) - set(others))]
        if lonely:
            raise DataError(
                f"{place} lacks the {what} of {some(lonely)}; {expected}, add what is missing or "
                f"remove the rest"
            )
    return [Example(stem, pictures[stem], maps[stem]) for stem in sorted(pictures)]


def one_version(
    pictures: Dict[str, Path], maps: Dict[str, Path], place: Path, notes: Notes = None
) -> Dict[str, Path]:
    """{stem of the picture: label map}: the version that most pictures have, the first of equals.

    Label maps of no picture keep their own stem.
    """
    bases = {_base(stem): stem for stem in pictures}
    versions: Dict[str, Dict[str, Path]] = {}
    rest: Dict[str, Path] = {}
    for stem, path in maps.items():
        picture, version = _belongs(stem, pictures, bases)
        if picture is None:
            rest[stem] = path
        else:
            versions.setdefault(version, {})[picture] = path

    # Instance maps and other versions beside the one that is taken are said, with their number.
    usable = [name for name in VERSIONS if name in versions]
    if not usable:
        instances = next(iter(versions), "")
        if instances:
            raise DataError(
                f"{place} holds {instances} files alone, which number instances; expected label "
                f"maps of class ids, such as NAME_labelTrainIds.png"
            )
        return maps
    chosen = max(usable, key=lambda name: len(versions[name]))  # max keeps the first of equals
    left = Counter({name: len(files) for name, files in versions.items() if name != chosen})
    if notes is not None and (chosen or left):
        parts = ", ".join(f"{count} *{name or '(no ending)'}" for name, count in left.items())
        notes.append(
            f"{place}: the label maps are {'NAME' + chosen}.png"
            + (f"; other versions of them are left out: {sum(left.values())} files ({parts})" if left else "")
        )
    return {**versions[chosen], **rest}


def _belongs(stem: str, pictures: Dict[str, Path], bases: Dict[str, str]) -> Tuple[Optional[str], str]:
    """(stem of the picture, version) of a label map's stem; (None, "") if it is of no picture."""
    if stem in pictures:
        return stem, ""
    if stem in bases:
        return bases[stem], ""
    found = ENDING.fullmatch(stem)
    if not found or found["base"] not in bases:
        return None, ""
    known = {name.lower(): name for name in VERSIONS + NEVER}
    return bases[found["base"]], known[found["version"].lower()]


def _base(stem: str) -> str:
    return stem[: -len(PICTURE_ENDING)] if stem.endswith(PICTURE_ENDING) else stem


def with_train_ids(classes: ClassSet, examples: Sequence[Example], notes: Notes = None) -> ClassSet:
    """The class set as *_labelTrainIds.png store it, 0 to N - 1 and 255, if these were taken."""
    count = sum(
        example.label is not None and example.label.stem.lower().endswith(TRAIN_IDS.lower())
        for example in examples
    )
    if not count or classes.file_ids == tuple(range(len(classes))):
        return classes
    if count < len(examples):
        raise DataError(
            f"{count} of {len(examples)} label maps are *{TRAIN_IDS}.png, the others are not; "
            f"expected one numbering, remove one kind"
        )
    if classes.file_ids and notes is not None:
        notes.append(
            f"*{TRAIN_IDS}.png count the classes of {classes.name} from 0 to {len(classes) - 1}, "
            f"255 being ignored"
        )
    return replace(
        classes, ignore=(IGNORED,), file_ids=tuple(range(len(classes))), file_ignore=(IGNORED,)
    )


def by_stem(
    place: Path, suffixes: Sequence[str], notes: Optional[List[str]] = None, usual: Sequence[str] = ()
) -> Dict[str, Path]:
    """{stem: file} of the visible files of these suffixes; DataError for two files of one stem.

    Lines on the files that are left out are appended to `notes`; usual: as of `left_out`.
    """
    found: Dict[str, Path] = {}
    for path in visible_files(place, suffixes):
        stem = name_key(path.stem)
        if stem in found:
            raise DataError(
                f"{place} holds both {found[stem].name} and {path.name}, which would be one "
                f"example; rename or remove one"
            )
        found[stem] = path
    if notes is not None:
        notes.extend(left_out(place, suffixes, usual))
    return found


def near_name(name: str, names: Sequence[str]) -> Optional[str]:
    """The one of the names that `name` was probably to be, None if none is near."""
    stem = Path(name).stem.lower()
    for candidate in sorted(names):
        if Path(candidate).stem.lower() == stem and Path(candidate).suffix.lower() in PICTURE_SUFFIXES:
            return candidate

    # Names that differ in a number are of different pictures, however near they look; 7 and 0007 are the same number.
    same = [candidate for candidate in names if _numbers(candidate) == _numbers(name)]
    plain = {_short_numbers(candidate): candidate for candidate in same[:2000]}
    close = difflib.get_close_matches(_short_numbers(name), list(plain), n=1, cutoff=0.9)
    return plain[close[0]] if close else None


def _short_numbers(name: str) -> str:
    return re.sub(r"\d+", lambda digits: str(int(digits.group())), name)


def _numbers(name: str) -> List[int]:
    return [int(digits) for digits in re.findall(r"\d+", Path(name).stem)]
