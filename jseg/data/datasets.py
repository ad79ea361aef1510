"""Where data sets keep images and label maps, and how their label files number the classes: a
folder becomes a `Dataset`.

    layout       training images and their label maps                              validation
    folders      images|imgs/, labels|annotations/, in the folder or in its train/,  val/, val_labels/
                 or train/, train_labels/
    camvid       train/images/, train/labels/, or train/, trainannot/ (SegNet's),    val/, valannot/, val_labels/
                 or train/, train_labels/ (Kaggle's)
    landscape    imgs|images/, labels|annotations/, in the folder or in its train/   val/
    ade20k       images/training/, annotations/training/                             images/validation/, annotations/validation/
    coco_stuff   images/train2017/, stuffthingmaps|annotations/train2017/            .../val2017/

Without a validation folder, every tenth example is held out. Label maps are single-channel PNGs of
the image's name; ids and ignored values are those of `jseg.data.classes` (ADE20K: 1..150, 0
ignored; COCO-Stuff: 0..181 with gaps, 255 ignored; CamVid: 0..10, 11 ignored), for `folders` 0, 1,
2, ... with 255 ignored. Every value that is neither is an error. Loaded, all are 0..N-1 and 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.census import MOST_CLASSES, Census
from jseg.data.classes import CLASS_SETS, IGNORED, ClassSet, class_set, spread_palette
from jseg.data.image_folder import IMAGE_FOLDERS, Example, find_examples, load_label
from jseg.data.label_maps import read_values
from jseg.data.numbering import split_map, with_map
from jseg.data.pairing import paired, with_train_ids
from jseg.data.validation import (
    Numbering,
    check_files,
    existing_folder,
    remarks_on_ids,
    same_aspect,
    visible_files,
)
from jseg.files import DataError
from jseg.image_files.decoding import IMAGE_SUFFIXES, read_header
from jseg.images import examine_image, read_image

TRAIN, VAL = "train", "val"
HELD_OUT = 10  # without validation data, one example in so many is not trained on


@dataclass(frozen=True)
class Layout:
    """A data set's class set by name (None: the user's), and where each split's images and label
    maps are, by preference.

    Where the places name no split, images and label maps are in subfolders of a split's folder,
    as `jseg.data.image_folder` finds them.
    """

    classes: Optional[str]
    places: Dict[str, Tuple[Tuple[str, str], ...]]
    subfolders: bool = False


def _placed(
    *pairs: Tuple[str, str], train: str = TRAIN, val: str = VAL
) -> Dict[str, Tuple[Tuple[str, str], ...]]:
    return {
        split: tuple((images % name, maps % name) for images, maps in pairs)
        for split, name in ((TRAIN, train), (VAL, val))
    }


LAYOUTS = {
    "folders": Layout(None, _placed(("%s", "%s_labels")), subfolders=True),
    "ade20k": Layout(
        "ade20k-150", _placed(("images/%s", "annotations/%s"), train="training", val="validation")
    ),
    "coco_stuff": Layout(
        "coco-stuff-171",
        _placed(
            ("images/%s", "stuffthingmaps/%s"),
            ("images/%s", "annotations/%s"),
            train="train2017",
            val="val2017",
        ),
    ),
    "camvid": Layout("camvid-11", _placed(("%s", "%sannot"), ("%s", "%s_labels")), subfolders=True),
    "landscape": Layout("landscape-29", _placed(), subfolders=True),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to train on and to validate on, sorted by stem; their classes; what the values in
    label files mean.
    """

    train: List[Example]
    val: List[Example]
    classes: ClassSet
    numbering: Numbering

    def load(self, example: Example) -> Tuple[np.ndarray, np.ndarray]:
        """(image uint8 [H, W, 3], label uint8 [H, W] of ids 0..N-1 and 255) in the image's own
        size.

        Raises ImageError or DataError for files that were not there, or not like this, when they
        were checked.
        """
        image = read_image(example.image)
        return image, load_label(example, image.shape[1], image.shape[0], self.numbering)

    def check(
        self, least: int = 1, progress: Optional[Callable[[int, int], None]] = None
    ) -> List[str]:
        """Read every file once; what the user should be told, one line per kind of remark.

        least: the smallest width and height that the network takes, its patch. `progress(done,
        total)` is called after each example. Raises DataError naming the first unusable file, with
        a histogram where ids are wrong, and how many more there are.
        """
        size = partial(_check_size, least=least)
        census = Census()
        label = partial(_check_label, numbering=self.numbering, census=census)
        remarks = check_files(
            [
                [(e.image, size), (e.label, partial(label, example=e))]
                for e in self.train + self.val
            ],
            progress,
        )
        return remarks + census.remarks(self.classes, self.numbering, strict=True)


def open_dataset(
    folder: Union[str, Path],
    layout: str,
    classes: Union[ClassSet, int, None] = None,
    ignore: Sequence[int] = (),
    notes: Optional[List[str]] = None,
    mapped: Sequence[str] = (),
) -> Dataset:
    """The data set in `folder`, its files found and paired but not read.

    layout: a key of `LAYOUTS`. classes: for the layout "folders" a class set or a number; None
    counts them in the label maps, which reads them: the largest id and one. For the others a number
    that must be theirs. ignore: values in the label files that mean nothing is known, besides the
    data set's own. mapped: words VALUE:CLASS, of `jseg.data.numbering.with_map`. What the user
    should be told is appended to `notes`. Raises DataError in one line.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    notes = [] if notes is None else notes
    root = existing_folder(folder, "data folder")
    known = classes if isinstance(classes, ClassSet) else None
    train, val = (_split(root, layout, split, notes, known) for split in (TRAIN, VAL))
    if not val:
        every = train
        train, val = _held_out(every)
        held = f"{len(val)} of its {len(every)} examples are held out for validation"
        notes.append(
            f"{root} has no validation folder; "
            f"{held if len(every) > 1 else 'its one example serves for both'}"
        )
    classes = _class_set(layout, classes, train + val, ignore, notes, mapped)
    classes = with_map(with_train_ids(classes, train + val, notes), mapped, ignore)
    return Dataset(train, val, classes, Numbering.of(classes, ignore))


def training_part(
    folder: Union[str, Path],
    layout: Optional[str],
    classes: Optional[str] = None,
    ignore: Sequence[int] = (),
    notes: Optional[List[str]] = None,
    mapped: Sequence[str] = (),
) -> Tuple[List[Example], ClassSet]:
    """(the examples to train on, their classes) for networks that need no validation: all that is
    not a validation folder's.

    layout: None for images and label maps in `folder` itself. classes: a set's name or a file;
    None: the layout's own, else landscape-29. The rest as of `open_dataset`.
    """
    notes = [] if notes is None else notes
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    own = LAYOUTS[layout].classes if layout else None
    chosen = class_set(classes or own or "landscape-29")
    if own and chosen is not CLASS_SETS[own]:
        raise DataError(
            f"--classes {classes} and --layout {layout}, whose classes are {own}; leave --classes "
            "out, or name another layout"
        )

    # Where a layout has a validation folder, its examples are not trained on, which is said.
    root = existing_folder(folder, "training folder")
    train = (
        _split(root, layout, TRAIN, notes, chosen)
        if layout
        else _in_subfolders(root, root, None, notes, chosen)
    )
    val = _split(root, layout, VAL, [], chosen) if layout else []
    if val:
        notes.append(f"the {len(val)} examples of the validation folder are left out")
    notes.append(chosen.said())
    return train, with_map(with_train_ids(chosen, train, notes), mapped, ignore)


def _split(
    root: Path, layout: str, split: str, notes: List[str], classes: Optional[ClassSet] = None
) -> List[Example]:
    """The examples of one split; [] where there is no validation data."""
    known = LAYOUTS[layout]
    for images, maps in known.places[split]:
        if (root / images).is_dir() and (root / maps).is_dir():
            return paired(root / images, root / maps, notes, classes)
    if known.subfolders and split == VAL and not (root / split).is_dir():
        return []
    if known.subfolders:
        if not (root / split).is_dir():
            return _in_subfolders(root, root, layout, notes, classes)
        above = [
            path
            for name in IMAGE_FOLDERS * (split == TRAIN)
            if (root / name).is_dir()
            for path in visible_files(root / name, IMAGE_SUFFIXES)
        ]
        if above:
            notes.append(
                f"{len(above)} images in {above[0].parent} are left out, those in {split}/ are "
                "taken"
            )
        return _in_subfolders(root / split, root, layout, notes, classes)
    if split == VAL and not any(
        (root / place).exists() for places in known.places[split] for place in places
    ):
        return []
    images, maps = known.places[split][0]
    deeper = [child for child in sorted(root.iterdir()) if (child / images).is_dir()]
    raise DataError(
        f"{root} lacks "
        f"{' and '.join(place for place in (images, maps) if not (root / place).is_dir())}; "
        f"expected images in {images} and label maps in {maps} (layout "
        f"{layout}){'; did you mean %s?' % deeper[0] if deeper else ', or name another layout'}"
    )


def _in_subfolders(
    place: Path, root: Path, layout: Optional[str], notes: List[str], classes: Optional[ClassSet]
) -> List[Example]:
    """`find_examples` of a folder in the data set's; where that fails, the layout that the data set
    has is named.
    """
    try:
        return find_examples(place, notes=notes, classes=classes)
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
        _, images, maps = fitting[0]
        names = [f"--layout {name}" for name, *places in fitting if places == [images, maps]]
        raise DataError(
            f"{error}; {root} has {images}/ and {maps}/: give {' or '.join(names)}"
        ) from None


def _held_out(examples: List[Example]) -> Tuple[List[Example], List[Example]]:
    """(to train on, to validate on): every tenth by stem, one at least; both are the one example
    where there is no other.
    """
    if len(examples) == 1:
        return examples, examples
    val = examples[HELD_OUT - 1 :: HELD_OUT] or examples[-1:]
    stems = {example.stem for example in val}
    return [example for example in examples if example.stem not in stems], val


def _class_set(
    layout: str,
    classes: Union[ClassSet, int, None],
    examples: Sequence[Example],
    ignore: Sequence[int],
    notes: List[str],
    mapped: Sequence[str] = (),
) -> ClassSet:
    own = LAYOUTS[layout].classes
    if own is not None:
        if classes is not None and (classes if isinstance(classes, int) else len(classes)) != len(
            CLASS_SETS[own]
        ):
            raise DataError(
                f"{classes if isinstance(classes, int) else len(classes)} classes given, but "
                f"layout {layout} has {len(CLASS_SETS[own])} ({own}); leave the number out, or "
                "use layout folders"
            )
        return CLASS_SETS[own]
    if isinstance(classes, ClassSet):
        return classes
    if classes is None:
        classes = _count(examples, ignore, split_map(mapped, ignore))
        notes.append(f"{classes} classes counted in the label maps")
    if not 2 <= classes <= MOST_CLASSES:
        raise DataError(f"{classes} classes; expected 2 to {MOST_CLASSES}")
    return ClassSet(
        f"{classes} classes",
        tuple(f"class {i}" for i in range(classes)),
        spread_palette(classes),
    )


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
    table, unknown = (
        dict((value, int(target)) for value, target in mapped),
        tuple(ignore) + (IGNORED,),
    )
    census = Census()
    for example in examples:
        label = read_values(example.label)
        census.note(example.label, label)
        values, counts = np.unique(label.values, return_counts=True)
        census.add(np.array([table.get(value, value) for value in values.tolist()]), counts)
    found = [value for value in census.pixels if value not in unknown]
    if not found:
        raise DataError(
            f"the {len(examples)} label maps beside {examples[0].image.parent} hold nothing but "
            "ignored ids; expected ids 0, 1, 2, ..."
        )
    census.check_readings()
    count = max(2, max(found) + 1)
    census.check_count(count, unknown)
    return count


def _check_size(path: Path, least: int) -> List[str]:
    image, remarks = examine_image(path)
    height, width = image.shape[:2]
    if min(height, width) < least:
        raise DataError(
            f"image {path} is {width}x{height}; expected at least {least}x{least}, one patch of "
            "the network"
        )
    return remarks


def _check_label(path: Path, example: Example, numbering: Numbering, census: Census) -> List[str]:
    header = read_header(example.image)
    ids, reading = numbering.read(path, census)
    height, width = ids.shape
    if not same_aspect(width, height, header.width, header.height):
        raise DataError(
            f"label {path} is {width}x{height}; expected {header.width}x{header.height}, its "
            "image's size, or the same aspect ratio"
        )
    resized = (width, height) != (header.width, header.height)
    remarks = ["label maps of another size than their image are resized with nearest"] * resized
    return reading + remarks + remarks_on_ids(ids)
