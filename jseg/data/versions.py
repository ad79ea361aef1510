"""Several versions of a label map in one folder: one is taken for all images, the rest is named.

Converters put endings behind the image's name: `a.png`, `a_labelTrainIds.png`, `a_color.png`,
`a_gtFine_instanceIds.png`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from jseg.counting import counted
from jseg.data.classes import ClassSet
from jseg.data.label_maps import read_values
from jseg.files import DataError

# In the order in which they are taken; instance maps hold no classes and are never taken.
TRAIN_IDS = "_labelTrainIds"
LABEL_IDS = "_labelIds"
VERSIONS = ("", TRAIN_IDS, LABEL_IDS, "_labels", "_label", "_mask", "_seg", "_gt", "_L", "_color")
NEVER = ("_instanceIds", "_instanceTrainIds", "_instances", "_instance")
ENDING = re.compile(
    f"(?P<base>.*?)(_gtFine|_gtCoarse)?(?P<version>{'|'.join(VERSIONS[1:] + NEVER)})", re.I
)
IMAGE_ENDING = "_leftImg8bit"
READ_AHEAD = 50  # label maps that are read to see whether a file's ids are those of *_labelIds.png


def one_version(
    images: Dict[str, Path],
    maps: Dict[str, Path],
    place: Path,
    classes: Optional[ClassSet] = None,
) -> Tuple[Dict[str, Path], List[str]]:
    """({stem of the image: label map} of one version, a remark on the others).

    It is the version that most images have, the first of equals. Where `classes` come from a file
    with ids and without train ids, *_labelIds.png go before *_labelTrainIds.png. Label maps of no
    image keep their own stem. Raises DataError where there are instance maps alone.
    """
    versions, rest = _by_version(images, maps)
    usable = [name for name in VERSIONS if name in versions]
    if not usable and versions:
        raise DataError(
            f"{place} holds {next(iter(versions))} files alone, which number instances; expected "
            "label maps of class ids, such as NAME_labelTrainIds.png"
        )
    if not usable:
        return maps, []

    # max keeps the first of equals.
    chosen = max(usable, key=lambda name: len(versions[name]))
    by_ids = chosen == TRAIN_IDS and classes is not None and _by_label_ids(classes, versions)
    chosen = LABEL_IDS if by_ids else chosen
    left = {name: len(files) for name, files in versions.items() if name != chosen}
    remark = f"{place}: the label maps are NAME{chosen}.png"
    if by_ids:
        remark += f", as {classes.name} has ids and no train ids"
    if left:
        parts = ", ".join(f"{count} *{name or '(no ending)'}" for name, count in left.items())
        files = counted(sum(left.values()), "file[s]")
        remark += f"; other versions of them are left out: {files} ({parts})"
    return {**versions[chosen], **rest}, [remark] * bool(chosen or left)


def _by_version(
    images: Dict[str, Path], maps: Dict[str, Path]
) -> Tuple[Dict[str, Dict[str, Path]], Dict[str, Path]]:
    """({version: {stem of the image: label map}}, {stem: label map of no image})."""
    bases = {_base(stem): stem for stem in images}
    versions: Dict[str, Dict[str, Path]] = {}
    rest: Dict[str, Path] = {}
    for stem, path in maps.items():
        image, version = _belongs(stem, images, bases)
        if image is None:
            rest[stem] = path
        else:
            versions.setdefault(version, {})[image] = path
    return versions, rest


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
    match = ENDING.fullmatch(stem)
    if not match or match["base"] not in bases:
        return None, ""
    known = {name.lower(): name for name in VERSIONS + NEVER}
    return bases[match["base"]], known[match["version"].lower()]


def _base(stem: str) -> str:
    return stem[: -len(IMAGE_ENDING)] if stem.endswith(IMAGE_ENDING) else stem
