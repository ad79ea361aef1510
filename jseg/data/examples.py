"""An image with its label map: checked once, loaded in the size that a network takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np

from jseg.data.census import Census
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.label_maps import COLOURS
from jseg.data.numbering import Classes, Numbering
from jseg.data.validation import (
    CheckedFile,
    FileChecks,
    check_image,
    check_image_size,
    check_label,
    check_label_of_image,
    check_shows_image,
)
from jseg.files import sha256
from jseg.images import read_image, resize_image, resize_label

SIZED = (".bmp", ".tif", ".tiff", ".pgm", ".pbm", ".pnm", ".ppm", ".tga", ".npy")


@dataclass(frozen=True)
class Example:
    """An image and its label map, or None where only images are wanted; stem is their name.

    image_sha256, label_sha256: of the bytes that a check has read, in hexadecimal; "" before.
    pixels: of the image, 0 before the check. by_colour: whether the check has read the label map by
    the colours of the class set.
    """

    stem: str
    image: Path
    label: Optional[Path] = None
    image_sha256: str = ""
    label_sha256: str = ""
    pixels: int = field(default=0, compare=False)
    by_colour: bool = False

    def checked(
        self, image: Optional[CheckedFile], label: Optional[CheckedFile] = None
    ) -> "Example":
        """The example with what checks have learnt of its files."""
        return replace(
            self,
            image_sha256=image.sha256 if image else "",
            label_sha256=label.sha256 if label else "",
            pixels=image.width * image.height if image else 0,
            by_colour=bool(label and label.by_colour),
        )


def check_examples(
    examples: Sequence[Example],
    classes: Classes,
    ignore: Sequence[int],
    width: int,
    height: int,
    fit: Optional[str] = None,
) -> Tuple[List[Example], List[str]]:
    """Read every file once: (the examples with their digests, one remark per kind).

    classes: a number of classes, stored as 0, 1, 2, ..., or a ClassSet, stored as its data set
    does. ignore: values in the label files that mean nothing is known. Both files must have the
    aspect ratio of width x height, unless `fit` ("crop", "resize"; "": the error names these) says
    how others are fitted; a label map then has its image's. Raises DataError naming the first
    unusable file and how many more there are.
    """
    census, numbering, checks = Census(), Numbering.of(classes, ignore), FileChecks()
    check_one = partial(check_image, what="image", width=width, height=height, fit=fit)

    def check_map(path: Path, image: Optional[CheckedFile]) -> Tuple[CheckedFile, List[str]]:
        label, remarks = check_label(path, numbering, width, height, census, fit)
        if fit and image:
            check_shows_image(path, label, image)
        return label, remarks

    checked = []
    for example in examples:
        image = checks.check(example.image, check_one)
        label = None
        if example.label:
            label = checks.check(example.label, partial(check_map, image=image))
        checked.append(example.checked(image, label))

    remarks = checks.remarks()
    if isinstance(classes, ClassSet):
        return checked, remarks + census.remarks(classes, numbering, strict=False)
    return checked, remarks + census.warnings(numbering)


def check_examples_of_any_size(
    examples: Sequence[Example], numbering: Numbering, census: Census, least: int
) -> Tuple[List[Example], List[str]]:
    """As `check_examples`, for label maps that are read in their images' sizes.

    least: the smallest width and height of an image. census: counts the values of the label maps.
    """
    checks, checked = FileChecks(), []
    for example in examples:
        image = checks.check(example.image, partial(check_image_size, least=least))
        check_map = partial(check_label_of_image, image=image, numbering=numbering, census=census)
        checked.append(example.checked(image, checks.check(example.label, check_map)))
    return checked, checks.remarks()


def check_images(examples: Sequence[Example], least: int = 1) -> Tuple[List[Example], List[str]]:
    """As `check_examples`, for images alone, of any size from `least` x `least` on."""
    checks = FileChecks()
    check_one = partial(check_image_size, least=least)
    checked = [example.checked(checks.check(example.image, check_one)) for example in examples]
    return checked, checks.remarks()


def with_digests(example: Example, numbering: Numbering) -> Example:
    """The example with the digests that a check would give it; unless it has some, files are read.

    A label map is only decoded where its colours are not those of a set that ships: nobody else
    needs to know whether it is read by them.
    """
    if example.image_sha256:
        return example
    digest = sha256(example.image)
    if example.label is None:
        return replace(example, image_sha256=digest)
    if not numbering.own_colours:
        return replace(example, image_sha256=digest, label_sha256=sha256(example.label))
    label_map = numbering.read(example.label).label_map
    return replace(
        example,
        image_sha256=digest,
        label_sha256=label_map.file.sha256,
        by_colour=label_map.kind == COLOURS,
    )


def load_image(example: Example, width: int, height: int, fit: str = "") -> np.ndarray:
    """The example's image as uint8 [height, width, 3]; `fit` as for `fit_image`."""
    return fit_image(read_image(example.image), width, height, fit)


def load_label(
    example: Example, width: int, height: int, numbering: Numbering, fit: str = ""
) -> np.ndarray:
    """The example's label map as uint8 [height, width] of class ids; all 255 if it has none.

    It goes from its own size straight to width x height with NEAREST, as in the release. fit: as
    for `fit_image`.
    """
    if example.label is None:
        return np.full((height, width), IGNORED, np.uint8)
    return fit_label(numbering.read(example.label).ids, width, height, fit)


def fit_image(image: np.ndarray, width: int, height: int, fit: str = "") -> np.ndarray:
    """uint8 [H, W, 3] -> [height, width, 3].

    fit "crop": of its middle, in that aspect ratio; else of all of it.
    """
    return resize_image(middle(image, width, height) if fit == "crop" else image, width, height)


def fit_label(label: np.ndarray, width: int, height: int, fit: str = "") -> np.ndarray:
    """uint8 [H, W] of class ids -> [height, width]; `fit` as for `fit_image`."""
    return resize_label(middle(label, width, height) if fit == "crop" else label, width, height)


def middle(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """The largest part [h, w, ...] of the aspect ratio width : height, from the middle of an array
    [H, W, ...].
    """
    own_height, own_width = array.shape[:2]
    new_width = min(own_width, max(1, round(own_height * width / height)))
    new_height = min(own_height, max(1, round(own_width * height / width)))
    left, top = (own_width - new_width) // 2, (own_height - new_height) // 2
    return array[top : top + new_height, left : left + new_width]


def contents_of(examples: Sequence[Example]) -> str:
    """SHA-256 in hex of those files of the examples whose size says nothing of their pixels.

    These are the files whose pixels are stored as they are; "" if there are none.
    """
    files = [
        (path, digest)
        for example in examples
        for path, digest in (
            (example.image, example.image_sha256),
            (example.label, example.label_sha256),
        )
        if path and Path(path).suffix.lower() in SIZED
    ]
    digests = "".join(digest or sha256(path) for path, digest in files if Path(path).is_file())
    return hashlib.sha256(digests.encode("ascii")).hexdigest() if digests else ""
