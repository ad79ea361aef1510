"""Which label map belongs to which image: equal names, or the endings that converters add to
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from jseg.data.classes import ClassSet
from jseg.data.examples import Example
from jseg.data.folders import by_stem, listing, some, visible_folders
from jseg.data.label_maps import LABEL_SUFFIXES
from jseg.data.versions import one_version
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES

EXPECTED = "expected one label map NAME.png for every image NAME.jpg"


def paired(
    images_place: Path,
    maps_place: Path,
    classes: Optional[ClassSet] = None,
    expected: str = EXPECTED,
) -> Tuple[List[Example], List[str]]:
    """(every image of a folder with its label map of another, sorted by stem; remarks).

    The remarks say what is left out, and which of several versions was taken. classes: as for
    `jseg.data.versions.one_version`. Raises DataError unless each image has a label map and the
    reverse, and for an empty folder, with what was `expected`.
    """
    images, left_images = by_stem(images_place, IMAGE_SUFFIXES)
    every_map, left_maps = by_stem(maps_place, LABEL_SUFFIXES)
    if not images:
        raise DataError(f"{holds_no(images_place, IMAGE_SUFFIXES)}; {expected}")
    if not every_map:
        raise DataError(f"{holds_no(maps_place, LABEL_SUFFIXES)}; {expected}")
    maps, other_versions = one_version(images, every_map, maps_place, classes)
    _check_partners(images_place, images, maps_place, maps)
    examples = [Example(stem, images[stem], maps[stem]) for stem in sorted(images)]
    return examples, left_images + left_maps + other_versions


def holds_no(place: Path, suffixes: Sequence[str]) -> str:
    """'PLACE holds no *.jpg, ..., but folders (a, b)', for an error."""
    patterns = listing([f"*{suffix}" for suffix in suffixes])
    return f"{place} holds no {patterns}{but_folders(place)}"


def but_folders(place: Path) -> str:
    """', but folders (a, b)', for an error; "" if there are none."""
    names = [child.name for child in visible_folders(place)]
    return f", but folders ({listing(names)})" if names else ""


def _check_partners(
    place: Path, images: Dict[str, Path], maps_place: Path, maps: Dict[str, Path]
) -> None:
    lonely_images = [images[stem].name for stem in sorted(set(images) - set(maps))]
    lonely_maps = [maps[stem].name for stem in sorted(set(maps) - set(images))]
    if len(lonely_images) == len(images):
        raise DataError(
            f"none of the {len(images)} images in {place} ({lonely_images[0]}) has a label "
            f"map of its name in {maps_place} ({lonely_maps[0]}); expected equal names apart from "
            "the suffix, rename them"
        )
    faults = []
    if lonely_images:
        faults.append(f"{maps_place} lacks the label map of {some(lonely_images)}")
    if lonely_maps:
        faults.append(f"{place} lacks the image of {some(lonely_maps)}")
    if faults:
        raise DataError(
            f"{' and '.join(faults)}; {EXPECTED}, add what is missing or remove the rest"
        )
