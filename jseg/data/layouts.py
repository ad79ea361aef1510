"""Where data sets keep images and label maps: the layouts, and the examples of each split.

layout       training images and their label maps            validation
folders      images|imgs/, labels|annotations/,              val/, val_labels/
             in the folder or in its train/,
             or train/, train_labels/
camvid       train/images/, train/labels/,                   val/, valannot/, val_labels/
             or train/, trainannot/ (SegNet's),
             or train/, train_labels/ (Kaggle's)
landscape    imgs|images/, labels|annotations/,              val/
             in the folder or in its train/
ade20k       images/training/, annotations/training/         images/validation/,
                                                             annotations/validation/
coco_stuff   images/train2017/,                              .../val2017/
             stuffthingmaps|annotations/train2017/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from jseg.counting import agreeing, counted
from jseg.data.classes import ClassSet
from jseg.data.examples import Example
from jseg.data.folders import visible_files
from jseg.data.image_folder import IMAGE_FOLDERS, find_examples
from jseg.data.pairing import paired
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES

TRAIN, VAL = "train", "val"
HELD_OUT = 10  # without validation data, one example in so many is not trained on
Places = Dict[str, Tuple[Tuple[str, str], ...]]
Found = Tuple[List[Example], List[str]]  # examples and remarks


@dataclass(frozen=True)
class Layout:
    """A data set's class set by name (None: the user's), and where each split's files are.

    places: {split: folders of images and of label maps, by preference}. Where they name no split,
    images and label maps are in subfolders of a split's folder, as `jseg.data.image_folder` finds
    them.
    """

    classes: Optional[str]
    places: Places
    subfolders: bool = False


def _placed(*pairs: Tuple[str, str], train: str = TRAIN, val: str = VAL) -> Places:
    """Places whose `*` stands for the split's name."""
    return {
        split: tuple((images.replace("*", name), maps.replace("*", name)) for images, maps in pairs)
        for split, name in ((TRAIN, train), (VAL, val))
    }


LAYOUTS = {
    "folders": Layout(None, _placed(("*", "*_labels")), subfolders=True),
    "ade20k": Layout(
        "ade20k-150", _placed(("images/*", "annotations/*"), train="training", val="validation")
    ),
    "coco_stuff": Layout(
        "coco-stuff-171",
        _placed(
            ("images/*", "stuffthingmaps/*"),
            ("images/*", "annotations/*"),
            train="train2017",
            val="val2017",
        ),
    ),
    "camvid": Layout("camvid-11", _placed(("*", "*annot"), ("*", "*_labels")), subfolders=True),
    "landscape": Layout("landscape-29", _placed(), subfolders=True),
}


def layout_named(name: str) -> Layout:
    """The layout of that name; raises DataError where there is none."""
    if name not in LAYOUTS:
        raise DataError(f"layout is {name!r}; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def find_split(root: Path, layout: str, split: str, classes: Optional[ClassSet] = None) -> Found:
    """(the examples of one split, remarks); [] where there is no validation data.

    classes: as for `jseg.data.versions.one_version`. Raises DataError where a folder is missing.
    """
    known = layout_named(layout)
    for images, maps in known.places[split]:
        if (root / images).is_dir() and (root / maps).is_dir():
            return paired(root / images, root / maps, classes)
    if known.subfolders:
        return _split_of_subfolders(root, layout, split, classes)
    places = [place for pair in known.places[split] for place in pair]
    if split == VAL and not any((root / place).exists() for place in places):
        return [], []

    images, maps = known.places[split][0]
    missing = [place for place in (images, maps) if not (root / place).is_dir()]
    deeper = [child for child in sorted(root.iterdir()) if (child / images).is_dir()]
    hint = f"; did you mean {deeper[0]}?" if deeper else ", or name another layout"
    raise DataError(
        f"{root} lacks {' and '.join(missing)}; expected images in {images} and label maps in "
        f"{maps} (layout {layout}){hint}"
    )


def _split_of_subfolders(root: Path, layout: str, split: str, classes: Optional[ClassSet]) -> Found:
    if not (root / split).is_dir():
        return ([], []) if split == VAL else in_subfolders(root, root, layout, classes)
    above = [
        path
        for name in IMAGE_FOLDERS * (split == TRAIN)
        if (root / name).is_dir()
        for path in visible_files(root / name, IMAGE_SUFFIXES)
    ]
    examples, remarks = in_subfolders(root / split, root, layout, classes)
    if not above:
        return examples, remarks
    left = (
        f"{counted(len(above), 'image[s]')} in {above[0].parent} "
        f"{agreeing(len(above), '[is|are]')} left out, those in {split}/ are taken"
    )
    return examples, [left] + remarks


def in_subfolders(
    place: Path, root: Path, layout: Optional[str], classes: Optional[ClassSet]
) -> Found:
    """`find_examples` of a folder in the data set's; where that fails, the layout that the data set
    seems to have is named.
    """
    try:
        return find_examples(place, classes)
    except DataError as error:
        fitting = [
            (name, images, maps)
            for name, known in LAYOUTS.items()
            if name != layout
            for images, maps in known.places[TRAIN]
            if (root / images).is_dir() and (root / maps).is_dir()
        ]
        if not fitting:
            raise

        # The first places that fit, under the name of every layout that has them.
        _, images, maps = fitting[0]
        names = [f"--layout {name}" for name, *places in fitting if places == [images, maps]]
        raise DataError(
            f"{error}; {root} has {images}/ and {maps}/: give {' or '.join(names)}"
        ) from None


def held_out(examples: List[Example]) -> Tuple[List[Example], List[Example]]:
    """(to train on, to validate on): every tenth by stem, one at least.

    A single example serves for both.
    """
    if len(examples) == 1:
        return examples, examples
    val = examples[HELD_OUT - 1 :: HELD_OUT] or examples[-1:]
    stems = {example.stem for example in val}
    return [example for example in examples if example.stem not in stems], val
