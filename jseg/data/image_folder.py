"""Find the examples of a training folder: images, and label maps of the same names.

Layout (the challenge's training set): `folder/imgs/*.jpg` and `folder/labels/*.png`, paired by
stem. Mirrors the lists that data_preprocess.py of the release makes, without its traps: sorted
order, whole stems, every fault named before any work.
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

from jseg.counting import agreeing, counted
from jseg.data.classes import ClassSet
from jseg.data.examples import Example
from jseg.data.folders import by_stem, existing_folder, left_out_below, listing, visible_files
from jseg.data.label_maps import LABEL_SUFFIXES
from jseg.data.pairing import but_folders, holds_no, paired
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES
from jseg.outputs.origin import images_alone

IMAGE_FOLDERS = ("imgs", "images")
LABEL_FOLDERS = ("labels", "annotations")
LAYOUT = (
    "expected imgs/*.jpg (or images/) and labels/*.png (or annotations/), one label map of the "
    "same name for every image"
)


def find_examples(
    folder: Union[str, Path], classes: Optional[ClassSet] = None
) -> Tuple[List[Example], List[str]]:
    """(all examples of a training folder, sorted by stem; remarks).

    The remarks name two image folders and files that are left out: there, in `folder` itself and in
    its other folders. classes: as for `jseg.data.versions.one_version`. Raises DataError in one
    line for a missing or empty folder, for images without label map and label maps without image
    (all counted, the first five named), and for two files of one stem.
    """
    root = existing_folder(folder, "training folder")
    place, one_of_images = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES)
    maps_place, one_of_maps = _subfolder(root, LABEL_FOLDERS, LABEL_SUFFIXES)
    if place is None or maps_place is None:
        names = LABEL_FOLDERS if place else IMAGE_FOLDERS
        raise DataError(
            f"{root} has no folder {' or '.join(names)}{but_folders(root)}; "
            f"{LAYOUT}{_hint(root, names)}"
        )
    examples, remarks = paired(place, maps_place, classes, LAYOUT)
    return examples, one_of_images + one_of_maps + _in_the_root(root, place) + remarks


def find_images(folder: Union[str, Path]) -> Tuple[List[Example], List[str]]:
    """(all images of a folder as examples without label maps, sorted by stem; remarks).

    They are in imgs/ or images/, or in `folder` itself. Label maps are not looked at, and what a
    command of ours wrote beside its results (a contact sheet) is left out. Remarks and errors as
    for `find_examples`.
    """
    root = existing_folder(folder, "training folder")
    place, remarks = image_place(root)
    images, left = by_stem(place, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS)
    if not images:
        raise DataError(
            f"{holds_no(place, IMAGE_SUFFIXES)}; expected images in it, in imgs/ or in "
            f"images/{_hint(root)}"
        )
    results, by_products = images_alone(list(images.values()))
    examples = [Example(stem, images[stem]) for stem in sorted(images) if images[stem] in results]
    return examples, remarks + left + by_products


def image_place(root: Path) -> Tuple[Path, List[str]]:
    """(where the images of a folder are, remarks on what is left out in it).

    That is imgs/ or images/ in it, or the folder itself. A folder that holds no image does not
    count where another does.
    """
    place, remarks = _subfolder(root, IMAGE_FOLDERS, IMAGE_SUFFIXES)
    if place is None:
        return root, remarks
    if not visible_files(place, IMAGE_SUFFIXES) and visible_files(root, IMAGE_SUFFIXES):
        return root, remarks + [f"{place} holds no images; those in {root} itself are taken"]
    below = left_out_below(root, IMAGE_SUFFIXES, IMAGE_FOLDERS + LABEL_FOLDERS)
    return place, remarks + _in_the_root(root, place) + below


def _in_the_root(root: Path, place: Path) -> List[str]:
    """One remark on the images in `root` itself, where those of its folder `place` are taken."""
    names = [path.name for path in visible_files(root, IMAGE_SUFFIXES)]
    remark = (
        f"{counted(len(names), 'image[s]')} in {root} itself "
        f"{agreeing(len(names), '[is|are]')} left out, those in {place.name}/ are taken "
        f"({listing(names)})"
    )
    return [remark] * bool(names)


def _subfolder(
    root: Path, names: Sequence[str], suffixes: Sequence[str]
) -> Tuple[Optional[Path], List[str]]:
    """(the first of the named folders in `root` that has such files, else the first that is there;
    a remark where two have some).
    """
    places = [root / name for name in names if (root / name).is_dir()]
    if len(places) < 2:
        return (places or [None])[0], []
    filled = [place for place in places if visible_files(place, suffixes)]
    if len(filled) < 2:
        return (filled or places)[0], []
    one, other = filled[:2]
    count = len(visible_files(other, suffixes))
    return one, [
        f"{root} holds both {one.name} and {other.name}; using {one.name}, "
        f"{counted(count, 'file[s]')} of {other.name} {agreeing(count, '[is|are]')} left out"
    ]


def _hint(root: Path, names: Sequence[str] = IMAGE_FOLDERS) -> str:
    """What to do where the names are in capitals, or one level too high or too low."""
    children = [child for child in sorted(root.iterdir()) if child.is_dir()]
    for child in children:
        if child.name not in names and child.name.lower() in names:
            return f"; rename {child.name} to {child.name.lower()}"
    for child in children + [root.resolve().parent]:
        if any((child / name).is_dir() for name in IMAGE_FOLDERS):
            return f"; did you mean {child}?"
    return ""
