"""Which label map belongs to which image: equal names, or the endings that converters add to
them.

Where a folder holds several versions of a label map (`a.png`, `a_labelTrainIds.png`, `a_color.png`,
`a_gtFine_instanceIds.png`), one version is taken for all images, and the rest is named.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED, ClassSet
from jseg.data.label_maps import read_values
from jseg.data.validation import (
    LABEL_SUFFIXES,
    left_out,
    map_suffixes,
    name_key,
    some,
    visible_files,
)
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES

Notes = Optional[List[str]]

# In the order in which they are taken; instance maps hold no classes and are taken never.
TRAIN_IDS = "_labelTrainIds"
LABEL_IDS = "_labelIds"
VERSIONS = ("", TRAIN_IDS, LABEL_IDS, "_labels", "_label", "_mask", "_seg", "_gt", "_L", "_color")
NEVER = ("_instanceIds", "_instanceTrainIds", "_instances", "_instance")
ENDING = re.compile(
    f"(?P<base>.*?)(_gtFine|_gtCoarse)?(?P<version>{'|'.join(VERSIONS[1:] + NEVER)})", re.I
)
IMAGE_ENDING = "_leftImg8bit"

UNTRAINED = (
    "unlabeled",
    "unlabelled",
    "void",
    "ignore",
    "ego vehicle",
    "out of roi",
)  # no train id
READ_AHEAD = 50  # label maps that are asked whether a file's ids may be those of *_labelIds.png


@dataclass(frozen=True)
class Example:
    """An image and its label map, or None where only images are wanted; stem is their name."""

    stem: str
    image: Path
    label: Optional[Path] = None


def paired(
    images_place: Path, maps_place: Path, notes: Notes = None, classes: Optional[ClassSet] = None
) -> List[Example]:
    """Every image of a folder with its label map of another, sorted by stem.

    classes: as of `one_version`. Which of several versions was taken, and what was left out, is
    appended to `notes`. Raises DataError unless each image has a label map and the reverse, and
    for an empty folder.
    """
    expected = "expected one label map NAME.png for every image NAME.jpg"
    images = by_stem(images_place, IMAGE_SUFFIXES, notes)
    maps = by_stem(maps_place, LABEL_SUFFIXES, notes)
    for found, place, what in (
        (images, images_place, "image"),
        (maps, maps_place, "label map *.png"),
    ):
        if not found:
            raise DataError(f"{place} holds no {what}; {expected}")
    maps = one_version(images, maps, maps_place, notes, classes)
    for found, others, place, what in (
        (images, maps, maps_place, "label map"),
        (maps, images, images_place, "image"),
    ):
        lonely = [found[stem].name for stem in sorted(set(found) - set(others))]
        if lonely:
            raise DataError(
                f"{place} lacks the {what} of {some(lonely)}; {expected}, add what is missing or "
                f"remove the rest"
            )
    return [Example(stem, images[stem], maps[stem]) for stem in sorted(images)]


def one_version(
    images: Dict[str, Path],
    maps: Dict[str, Path],
    place: Path,
    notes: Notes = None,
    classes: Optional[ClassSet] = None,
) -> Dict[str, Path]:
    """{stem of the image: label map}: the version that most images have, the first of equals.

    Where `classes` come from a file with ids and without train ids, *_labelIds.png go before
    *_labelTrainIds.png. Label maps of no image keep their own stem.
    """
    bases = {_base(stem): stem for stem in images}
    versions: Dict[str, Dict[str, Path]] = {}
    rest: Dict[str, Path] = {}
    for stem, path in maps.items():
        image, version = _belongs(stem, images, bases)
        if image is None:
            rest[stem] = path
        else:
            versions.setdefault(version, {})[image] = path

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
    by_ids = chosen == TRAIN_IDS and classes is not None and _by_label_ids(classes, versions)
    chosen = LABEL_IDS if by_ids else chosen
    left = Counter({name: len(files) for name, files in versions.items() if name != chosen})
    if notes is not None and (chosen or left):
        parts = ", ".join(f"{count} *{name or '(no ending)'}" for name, count in left.items())
        notes.append(
            f"{place}: the label maps are {'NAME' + chosen}.png"
            + (f", as {classes.name} has ids and no train ids" if by_ids else "")
            + (
                f"; other versions of them are left out: {sum(left.values())} files ({parts})"
                if left
                else ""
            )
        )
    return {**versions[chosen], **rest}


def _by_label_ids(classes: ClassSet, versions: Dict[str, Dict[str, Path]]) -> bool:
    """Whether a file's ids, without train ids beside them, are those of *_labelIds.png."""
    maps = versions.get(LABEL_IDS, {})
    if not classes.numbered or classes.train_ids or len(maps) < len(versions[TRAIN_IDS]):
        return False

    # 0 to N - 1 may as well be train ids: then some *_labelIds.png hold others.
    stored = set(classes.file_ids) | set(classes.file_ignore)
    if classes.file_ids != tuple(range(len(classes))):
        return True
    first = [maps[stem] for stem in sorted(maps)[:READ_AHEAD]]
    return all(
        set(np.unique(read_values(path, classes).values).tolist()) <= stored for path in first
    )


def _belongs(
    stem: str, images: Dict[str, Path], bases: Dict[str, str]
) -> Tuple[Optional[str], str]:
    """(stem of the image, version) of a label map's stem; (None, "") if it is of no image."""
    if stem in images:
        return stem, ""
    if stem in bases:
        return bases[stem], ""
    found = ENDING.fullmatch(stem)
    if not found or found["base"] not in bases:
        return None, ""
    known = {name.lower(): name for name in VERSIONS + NEVER}
    return bases[found["base"]], known[found["version"].lower()]


def _base(stem: str) -> str:
    return stem[: -len(IMAGE_ENDING)] if stem.endswith(IMAGE_ENDING) else stem


def with_train_ids(classes: ClassSet, examples: Sequence[Example], notes: Notes = None) -> ClassSet:
    """The class set as *_labelTrainIds.png store it, if these were taken; 255 is ignored.

    A file of classes says which train id each of its classes has; those of none are left out, which
    is appended to `notes`. A built-in set, and names without ids, count from 0. Raises DataError in
    one line where a file has ids alone, where several classes share a train id, and for label maps
    of two numberings.
    """
    stems = [example.label.stem.lower() for example in examples if example.label is not None]
    count = sum(stem.endswith(TRAIN_IDS.lower()) for stem in stems)
    by_id = sum(stem.endswith(LABEL_IDS.lower()) for stem in stems)
    plain = classes.file_ids == tuple(range(len(classes)))
    if by_id and classes.train_ids and not classes.numbered:
        raise DataError(
            f"{by_id} label maps are *{LABEL_IDS}.png, and {classes.name} has train ids alone; "
            f"expected *{TRAIN_IDS}.png, or a column id in the file of classes"
        )
    if not count or (plain and not classes.numbered):
        return classes
    one_reading = classes.train_ids == classes.file_ids or (plain and not classes.train_ids)
    if count < len(examples) and (by_id or not one_reading):
        raise DataError(
            f"{count} of {len(examples)} label maps are *{TRAIN_IDS}.png, the others are not; "
            f"expected one numbering, remove one kind"
        )

    if classes.train_ids:
        return _by_train_ids(classes, notes)
    if classes.numbered:
        # 0 to N - 1 may be meant as train ids, but these have no class for what is not labelled.
        untrained = [name for name in classes.names if name.lower() in UNTRAINED]
        if plain and not untrained:
            return classes
        why = f"which number others ({untrained[0]})" if plain else "which have gaps or begin later"
        raise DataError(
            f"the label maps are *{TRAIN_IDS}.png, and {classes.name} has ids alone, {why}; "
            f"expected a column trainId in the file of classes (255: none), or *{LABEL_IDS}.png"
        )
    if classes.file_ids and notes is not None:
        notes.append(
            f"*{TRAIN_IDS}.png count the classes of {classes.name} from 0 to {len(classes) - 1}, "
            f"255 being ignored"
        )
    return replace(
        classes, ignore=(IGNORED,), file_ids=tuple(range(len(classes))), file_ignore=(IGNORED,)
    )


def _by_train_ids(classes: ClassSet, notes: Notes) -> ClassSet:
    """The classes that have a train id, in its order, stored by it."""
    kept = [place for place, number in enumerate(classes.train_ids) if number != IGNORED]
    kept.sort(key=lambda place: classes.train_ids[place])
    numbers = tuple(classes.train_ids[place] for place in kept)
    shared = [
        place
        for place, other in zip(kept[1:], kept)
        if classes.train_ids[place] == classes.train_ids[other]
    ]
    if shared or not kept:
        what = f"train id {classes.train_ids[shared[0]]} twice" if shared else "no train id but 255"
        raise DataError(
            f"the label maps are *{TRAIN_IDS}.png, and {classes.name} has {what}; expected a train "
            f"id of its own for every class that is trained on, 255 for the others"
        )
    left = [name for name, number in zip(classes.names, classes.train_ids) if number == IGNORED]
    if notes is not None and classes.train_ids != classes.file_ids:
        notes.append(
            f"*{TRAIN_IDS}.png are read by the train ids of {classes.name}, {len(kept)} classes"
            + (f"; {len(left)} have none and are ignored: {some(left, False)}" if left else "")
        )
    return replace(
        classes,
        names=tuple(classes.names[place] for place in kept),
        palette=classes.palette[kept],
        ignore=(IGNORED,),
        file_ids=numbers,
        file_ignore=(IGNORED,),
        train_ids=numbers,
    )


def by_stem(
    place: Path,
    suffixes: Sequence[str],
    notes: Optional[List[str]] = None,
    usual: Sequence[str] = (),
) -> Dict[str, Path]:
    """{stem: file} of the visible files of these suffixes; DataError for two files of one stem.

    Lines on the files that are left out are appended to `notes`; usual: as of `left_out`.
    """
    found: Dict[str, Path] = {}
    suffixes = map_suffixes(place) if suffixes is LABEL_SUFFIXES else suffixes
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
        if (
            Path(candidate).stem.lower() == stem
            and Path(candidate).suffix.lower() in IMAGE_SUFFIXES
        ):
            return candidate

    # Names that differ in a number are of different images, however near they look; 7 and 0007
    # are the same number.
    same = [candidate for candidate in names if _numbers(candidate) == _numbers(name)]
    plain = {_short_numbers(candidate): candidate for candidate in same[:2000]}
    close = difflib.get_close_matches(_short_numbers(name), list(plain), n=1, cutoff=0.9)
    return plain[close[0]] if close else None


def _short_numbers(name: str) -> str:
    return re.sub(r"\d+", lambda digits: str(int(digits.group())), name)


def _numbers(name: str) -> List[int]:
    return [int(digits) for digits in re.findall(r"\d+", Path(name).stem)]
