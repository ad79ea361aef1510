"""A folder becomes a `Dataset`: examples to train and to validate on, classes, and what the values
in label files mean.

`jseg.data.layouts` says where the files are. Without a validation folder, every tenth example is
held out. Label maps are single-channel PNGs of the image's name; ids and ignored values are those
of `jseg.data.classes` (ADE20K: 1..150, 0 ignored; COCO-Stuff: 0..181 with gaps, 255 ignored;
CamVid: 0..10, 11 ignored), for `folders` 0, 1, 2, ... with 255 ignored. Every other value is an
error. Loaded, all are 0..N-1 and 255.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np

from jseg.counting import counted
from jseg.data.census import MOST_CLASSES, Census
from jseg.data.classes import CLASS_SETS, IGNORED, ClassSet, class_set, spread_palette
from jseg.data.examples import Example, check_examples_of_any_size, load_label
from jseg.data.folders import existing_folder
from jseg.data.label_maps import read_values
from jseg.data.layouts import (
    LAYOUTS,
    TRAIN,
    VAL,
    find_split,
    held_out,
    in_subfolders,
    layout_named,
)
from jseg.data.numbering import Numbering, split_map, with_map
from jseg.data.train_ids import with_train_ids
from jseg.files import DataError
from jseg.images import read_image


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to train on and to validate on, sorted by stem; their classes; what the values in
    label files mean; remarks on how they were found.
    """

    train: List[Example]
    val: List[Example]
    classes: ClassSet
    numbering: Numbering
    remarks: List[str]

    def load(self, example: Example) -> Tuple[np.ndarray, np.ndarray]:
        """(image uint8 [H, W, 3], label uint8 [H, W] of ids 0..N-1 and 255) in the image's size.

        Raises ImageError or DataError for files that were not there, or not like this, when they
        were checked.
        """
        image = read_image(example.image)
        return image, load_label(example, image.shape[1], image.shape[0], self.numbering)

    def check(self, least: int = 1) -> Tuple[Dataset, List[str]]:
        """Read every file once: (the data set with the digests of its files, remarks).

        least: the smallest width and height that the network takes, its patch. Raises DataError
        naming the first unusable file, with the numbers of pixels where ids are wrong, and how many
        more there are.
        """
        census = Census()
        examples, remarks = check_examples_of_any_size(
            self.train + self.val, self.numbering, census, least
        )
        count = len(self.train)
        checked = replace(self, train=examples[:count], val=examples[count:])
        return checked, remarks + census.remarks(self.classes, self.numbering, strict=True)


@dataclass(frozen=True, eq=False)
class TrainingPart:
    """The examples of a data set to train on, those of its validation folder, their classes, and
    remarks on how they were found.
    """

    examples: List[Example]
    val: List[Example]
    classes: ClassSet
    remarks: List[str]


def open_dataset(
    folder: Union[str, Path],
    layout: str,
    classes: Union[ClassSet, int, None] = None,
    ignore: Sequence[int] = (),
    mapped: Sequence[str] = (),
) -> Dataset:
    """The data set in `folder`, its files found and paired but not read.

    layout: a key of `LAYOUTS`. classes: for the layout "folders" a class set or a number; None
    counts them in the label maps, which reads them: the largest id and one. For the others a number
    that must be theirs. ignore: values in the label files that mean nothing is known, besides the
    data set's own. mapped: words VALUE:CLASS, as for `jseg.data.numbering.with_map`. Raises
    DataError in one line.
    """
    layout_named(layout)
    root = existing_folder(folder, "data folder")
    known = classes if isinstance(classes, ClassSet) else None
    train, remarks = find_split(root, layout, TRAIN, known)
    val, of_val = find_split(root, layout, VAL, known)
    remarks = remarks + of_val
    if not val:
        every = train
        train, val = held_out(every)
        of_all = f"of its {len(every)} examples [is|are] held out for validation"
        said = counted(len(val), of_all)
        said = said if len(every) > 1 else "its one example serves for both"
        remarks.append(f"{root} has no validation folder; {said}")

    if classes is None and LAYOUTS[layout].classes is None:
        number = _count(train + val, ignore, split_map(mapped, ignore))
        remarks.append(f"{number} classes counted in the label maps")
        stored = _numbered(number)
    else:
        stored = _class_set(layout, classes)
    trained, of_train_ids = with_train_ids(stored, train + val)
    chosen = with_map(trained, mapped, ignore)
    numbering = Numbering.of(chosen, ignore)
    return Dataset(train, val, chosen, numbering, remarks + of_train_ids)


def training_part(
    folder: Union[str, Path],
    layout: Optional[str],
    classes: Optional[str] = None,
    ignore: Sequence[int] = (),
    mapped: Sequence[str] = (),
) -> TrainingPart:
    """What to train on, for networks that need no validation, and a validation folder's examples.

    layout: None for images and label maps in `folder` itself. classes: a set's name or a file;
    None: the layout's own, else landscape-29. The rest as for `open_dataset`.
    """
    own = layout_named(layout).classes if layout else None
    chosen = class_set(classes or own or "landscape-29")
    if own and chosen is not CLASS_SETS[own]:
        raise DataError(
            f"--classes {classes} and --layout {layout}, whose classes are {own}; leave --classes "
            "out, or name another layout"
        )

    # Where a layout has a validation folder, its examples are not trained on.
    root = existing_folder(folder, "training folder")
    val: List[Example] = []
    if layout:
        train, remarks = find_split(root, layout, TRAIN, chosen)
        val, of_val = find_split(root, layout, VAL, chosen)
        remarks = remarks + of_val
    else:
        train, remarks = in_subfolders(root, root, None, chosen)
    trained, of_train_ids = with_train_ids(chosen, train + val)
    remarks = remarks + [chosen.summary()] + of_train_ids
    return TrainingPart(train, val, with_map(trained, mapped, ignore), remarks)


def _class_set(layout: str, classes: Union[ClassSet, int, None]) -> ClassSet:
    """The classes of a layout that has its own, else those that were given, as a set or number."""
    own = LAYOUTS[layout].classes
    if own is None:
        return classes if isinstance(classes, ClassSet) else _numbered(classes)
    given = classes if isinstance(classes, int) or classes is None else len(classes)
    if given is not None and given != len(CLASS_SETS[own]):
        raise DataError(
            f"{given} classes given, but layout {layout} has {len(CLASS_SETS[own])} ({own}); leave "
            "the number out, or use layout folders"
        )
    return CLASS_SETS[own]


def _numbered(count: int) -> ClassSet:
    """Classes 0, 1, 2, ... in colours that are made up."""
    if not 2 <= count <= MOST_CLASSES:
        raise DataError(f"{count} classes; expected 2 to {MOST_CLASSES}")
    names = tuple(f"class {i}" for i in range(count))
    return ClassSet(f"{count} classes", names, spread_palette(count))


def _count(
    examples: Sequence[Example], ignore: Sequence[int], mapped: Sequence[Tuple[int, str]]
) -> int:
    """One more than the largest id in the label maps that is not ignored, and 2 at least."""
    for value, target in mapped:
        if not target.isdigit():
            raise DataError(
                f"--map {value}:{target}: the classes are counted and have no names; give an id, "
                "or --classes"
            )

    # As `Numbering` will read them: what is mapped counts as what it is mapped to.
    table, unknown = {value: int(target) for value, target in mapped}, (*ignore, IGNORED)
    census = Census()
    for example in examples:
        label = read_values(example.label)
        census.note(example.label, label)
        values, counts = np.unique(label.values, return_counts=True)
        census.add(np.array([table.get(value, value) for value in values.tolist()]), counts)

    ids = [value for value in census.pixels if value not in unknown]
    if not ids:
        raise DataError(
            f"the {len(examples)} label maps beside {examples[0].image.parent} hold nothing but "
            "ignored ids; expected ids 0, 1, 2, ..."
        )
    census.check_readings()
    count = max(2, max(ids) + 1)
    census.check_count(count, unknown)
    return count
