"""Find, pair, check and load the folders that networks are trained on: images, and label maps of
the same names.

Layout (the challenge's training set): `folder/imgs/*.jpg` and `folder/labels/*.png`, paired by
stem. Mirrors the lists that data_preprocess.py of the release makes, without its traps: sorted
order, whole stems, every fault told before any work.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.census import Census
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.pairing import Example, by_stem, one_version
from jseg.data.validation import (
    LABEL_SUFFIXES,
    SHOWN,
    Classes,
    Numbering,
    check_files,
    check_image,
    check_label,
    deeper,
    existing_folder,
    same_aspect,
    some,
    visible_files,
)
from jseg.files import DataError, sha256
from jseg.image_files.decoding import IMAGE_SUFFIXES, read_header
from jseg.images import read_image, resize_image, resize_label
from jseg.outputs.origin import images_alone

IMAGE_FOLDERS = ("imgs", "images")
LABEL_FOLDERS = ("labels", "annotations")
SIZED = (".bmp", ".tif", ".tiff", ".pgm", ".pbm", ".pnm", ".ppm", ".tga", ".npy")
LAYOUT = (
    "expected imgs/*.jpg (or images/) and labels/*.png (or annotations/), one label map of the "
    "same name for every image"
)
Notes = Optional[List[str]]


def find_examples(
    folder: Union[str, Path],
    labels: bool = True,
    notes: Notes = None,
    classes: Optional[ClassSet] = None,
) -> List[Example]:
    """All examples of a training folder, sorted by stem.

    With labels=False, images directly in `folder` will do, label maps are not looked at, and what
    a command of ours wrote beside its results (a contact sheet) is left out. classes: as of
    `jseg.data.pairing.one_version`. What the user should be
    told (two image folders, files that are left out, there, in `folder` itself and in its other
    folders) is appended to `notes`. Raises DataError in one line for a missing or empty folder, for
    images without label map and label maps without image (all counted, the first five named),
    and for two files of one stem.
    """
    root = existing_folder(folder, "training folder")
    if not labels:
        place = image_place(root, notes)
        images = by_stem(place, IMAGE_SUFFIXES, notes, IMAGE_FOLDERS + LABEL_FOLDERS)
        if not images:
            raise DataError(
                f"{_without(place, IMAGE_SUFFIXES)}; expected images in it, in imgs/ or in "
                f"images/{_hint(root)}"
            )
        alone, remarks = images_alone(list(images.values()))
        if notes is not None:
            notes += remarks
        return [Example(stem, images[stem]) for stem in sorted(images) if images[stem] in alone]
    place = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES, notes)
    maps_place = _subfolder(root, LABEL_FOLDERS, LABEL_SUFFIXES, notes)
    if place is None or maps_place is None:
        names = LABEL_FOLDERS if place else IMAGE_FOLDERS
        raise DataError(
            f"{root} has no folder {' or '.join(names)}{_but_folders(root)}; "
            f"{LAYOUT}{_hint(root, names)}"
        )
    images, maps = (
        by_stem(place, IMAGE_SUFFIXES, notes),
        by_stem(maps_place, LABEL_SUFFIXES, notes),
    )
    for found, where, suffixes in (
        (images, place, IMAGE_SUFFIXES),
        (maps, maps_place, LABEL_SUFFIXES),
    ):
        if not found:
            raise DataError(f"{_without(where, suffixes)}; {LAYOUT}")
    if notes is not None:
        notes.extend(_of_the_root(root, place))
    maps = one_version(images, maps, maps_place, notes, classes)
    _check_partners(place, images, maps_place, maps)
    return [Example(stem, images[stem], maps[stem]) for stem in sorted(images)]


def check_examples(
    examples: Sequence[Example],
    classes: Classes,
    ignore: Sequence[int],
    width: int,
    height: int,
    progress: Optional[Callable[[int, int], None]] = None,
    fit: Optional[str] = None,
) -> List[str]:
    """Read every file once; what the user should be told, one line per kind of remark.

    classes: a number of classes, stored as 0, 1, 2, ..., or a ClassSet, stored as its data set
    does. ignore: values in the label files that mean nothing is known. Both files must have the
    aspect ratio of width x height, unless `fit` ("crop", "resize"; "": the error names these) says
    how others are fitted; a label map then has its image's. `progress(done, total)` is called
    after each example. Raises DataError naming the first unusable file and how many more there are.
    """
    census, numbering = Census(), Numbering.of(classes, ignore)
    label = partial(
        check_label, numbering=numbering, width=width, height=height, census=census, fit=fit
    )
    image = partial(check_image, what="image", width=width, height=height, fit=fit)
    remarks = check_files(
        [
            [(e.image, image)]
            + [(e.label, partial(_check_map, example=e, check=label, fit=fit))] * bool(e.label)
            for e in examples
        ],
        progress,
    )
    return remarks + (
        census.remarks(classes, numbering, strict=False)
        if isinstance(classes, ClassSet)
        else census.warnings(numbering)
    )


def _check_map(
    path: Path, example: Example, check: Callable[[Path], List[str]], fit: Optional[str]
) -> List[str]:
    """Remarks on a label map; where both are fitted, it must show what its image shows."""
    remarks = check(path)
    if fit:
        label, image = read_header(path), read_header(example.image)
        if not same_aspect(label.width, label.height, image.width, image.height):
            raise DataError(
                f"label {path} is {label.width}x{label.height}; expected "
                f"{image.width}x{image.height}, its image's size, or the same aspect ratio"
            )
    return remarks


def load_example(
    example: Example,
    width: int,
    height: int,
    latent_width: int,
    latent_height: int,
    ignore: Sequence[int] = (),
    classes: Classes = 256,
) -> Tuple[np.ndarray, np.ndarray]:
    """(image uint8 [height, width, 3], label uint8 [latent_height, latent_width] of class ids) of
    a checked example.

    The label goes from its own size straight to the latent's with NEAREST, as in the release; 255
    where nothing is known. Raises ImageError or DataError for files that were not there, or not
    like this, when they were checked.
    """
    return load_image(example, width, height), load_label(
        example, latent_width, latent_height, Numbering.of(classes, ignore)
    )


def load_image(example: Example, width: int, height: int, fit: str = "") -> np.ndarray:
    """The example's image as uint8 [height, width, 3]; fit "crop": its middle of that aspect
    ratio, else all of it.
    """
    image = read_image(example.image)
    return resize_image(middle(image, width, height) if fit == "crop" else image, width, height)


def load_label(
    example: Example, width: int, height: int, numbering: Numbering, fit: str = ""
) -> np.ndarray:
    """The example's label map as uint8 [height, width] of class ids, read by `numbering`; all 255
    if it has none.

    fit: as of `load_image`.
    """
    if example.label is None:
        return np.full((height, width), IGNORED, np.uint8)
    label, _ = numbering.read(example.label)
    return resize_label(middle(label, width, height) if fit == "crop" else label, width, height)


def contents_of(examples: Sequence[Example]) -> str:
    """SHA-256 in hex of the files of these examples whose size says nothing of their pixels, stored
    as they are; "" if there are none.
    """
    files = [
        path
        for example in examples
        for path in (example.image, example.label)
        if path and Path(path).suffix.lower() in SIZED
    ]
    digests = "".join(sha256(path) for path in files if Path(path).is_file())
    return hashlib.sha256(digests.encode("ascii")).hexdigest() if digests else ""


def middle(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """The largest part [h, w, ...] of an array [H, W, ...] that has the aspect ratio width :
    height, from its middle.
    """
    own_height, own_width = array.shape[:2]
    new_width = min(own_width, max(1, round(own_height * width / height)))
    new_height = min(own_height, max(1, round(own_width * height / width)))
    left, top = (own_width - new_width) // 2, (own_height - new_height) // 2
    return array[top : top + new_height, left : left + new_width]


def image_place(root: Path, notes: Notes = None) -> Path:
    """Where the images of a folder are, if label maps are not wanted: imgs/ or images/ in it, or
    the folder itself.

    A folder that holds no image does not count where another does. What is left out in `root` is
    appended to `notes`.
    """
    place = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES, notes)
    if place is None:
        return root
    if not visible_files(place, IMAGE_SUFFIXES) and visible_files(root, IMAGE_SUFFIXES):
        if notes is not None:
            notes.append(f"{place} holds no images; those in {root} itself are taken")
        return root
    if notes is not None:
        notes.extend(
            _of_the_root(root, place) + deeper(root, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS)
        )
    return place


def _of_the_root(root: Path, place: Path) -> List[str]:
    """One line on the images that lie in `root` itself, where those of its folder `place` are
    taken; [] if none.
    """
    names = [path.name for path in visible_files(root, IMAGE_SUFFIXES)]
    return [
        f"{len(names)} images in {root} itself are left out, those in {place.name}/ are taken "
        f"({some(names, False)})"
    ] * bool(names)


def _subfolder(
    root: Path, names: Sequence[str], suffixes: Sequence[str], notes: Notes
) -> Optional[Path]:
    """The first of the named folders in `root` that has such files, else the first that is
    there.
    """
    there = [root / name for name in names if (root / name).is_dir()]
    filled = (
        [place for place in there if visible_files(place, suffixes)] if len(there) > 1 else there
    )
    if len(filled) > 1 and notes is not None:
        one, other = filled[:2]
        notes.append(
            f"{root} holds both {one.name} and {other.name}; using {one.name}, the "
            f"{len(visible_files(other, suffixes))} files of {other.name} are left out"
        )
    return (filled or there or [None])[0]


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
            f"{' and '.join(faults)}; expected one label map NAME.png for every image NAME.jpg, "
            "add what is missing or remove the rest"
        )


def _without(place: Path, suffixes: Sequence[str]) -> str:
    patterns = ", ".join("*" + suffix for suffix in suffixes[:SHOWN]) + (
        ", ..." if len(suffixes) > SHOWN else ""
    )
    return f"{place} holds no {patterns}{_but_folders(place)}"


def _but_folders(place: Path) -> str:
    folders = sorted(
        child.name for child in place.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    return f", but folders ({some(folders, False)})" if folders else ""


def _hint(root: Path, names: Sequence[str] = IMAGE_FOLDERS) -> str:
    # The names in capitals, or one level too high, or too low.
    children = sorted(root.iterdir())
    for child in children:
        if child.is_dir() and child.name not in names and child.name.lower() in names:
            return f"; rename {child.name} to {child.name.lower()}"
    for child in children + [root.resolve().parent]:
        if any((child / name).is_dir() for name in IMAGE_FOLDERS):
            return f"; did you mean {child}?"
    return ""
