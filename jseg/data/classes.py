"""Class names, palettes and ignored ids: landscape-29, ADE20K-150, COCO-Stuff-171, CamVid-11, or a
file of one's own.

`jseg.data.class_tables` has the names of the sets that ship, and their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data import class_tables
from jseg.data.class_files.reader import read_rows
from jseg.data.class_files.rows import Row

IGNORED = 255


@dataclass(frozen=True, eq=False)
class ClassSet:
    """Names and colours of N classes.

    palette is uint8 [N, 3] RGB, all rows distinct; ignore are the ids never scored and never
    trained on, besides 255. file_ids says which value the data set's own label files use for each
    class, file_ignore which values mean "no class"; they differ from 0..N-1 and `ignore` for ADE20K
    (0 = other, 1..150) and COCO-Stuff (0..181 with gaps). file_map are further values that stand
    for one of these (`--map`). Of a file's set, numbered says that the file gives ids (not train
    ids alone), train_ids what *_labelTrainIds.png store for each class (255: nothing), () where the
    file does not say, and remarks what of the file is not used.
    """

    name: str
    names: Tuple[str, ...]
    palette: np.ndarray
    ignore: Tuple[int, ...] = (IGNORED,)
    file_ids: Tuple[int, ...] = ()
    file_ignore: Tuple[int, ...] = (IGNORED,)
    file_map: Tuple[Tuple[int, int], ...] = ()  # (value, the stored value that it is read as)
    numbered: bool = False
    train_ids: Tuple[int, ...] = ()
    remarks: Tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def summary(self) -> str:
        """One line: '11 classes of camvid-11: sky, building, pole, ...', and how files store them.

        It ends with what of a file of classes is not used.
        """
        plain = tuple(range(len(self)))
        stored = self.file_ids or plain
        shown = ", ".join(self.names[:6]) + (", ..." if len(self) > 6 else "")
        parts = [f"{len(self)} classes of {self.name}: {shown}"]
        if stored != plain:
            parts.append(f"stored as {_ranges(np.array(stored))}")
        parts += self.remarks
        if self.train_ids and self.train_ids != self.file_ids:
            parts.append("train ids are read in *_labelTrainIds.png alone")
        return "; ".join(parts)


def colorize(
    label: np.ndarray, classes: ClassSet, ignored: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """Integer [H, W] class ids -> uint8 [H, W, 3] in the classes' colours.

    Their ignored ids and 255 become the colour `ignored`. Raises ValueError for any other id.
    """
    ids = np.asarray(label)
    outside = (ids < 0) | (ids >= len(classes))
    unknown = sorted(set(np.unique(ids[outside]).tolist()) - set(classes.ignore) - {IGNORED})
    if unknown:
        raise ValueError(
            f"ids {_listing(unknown)} are not classes of {classes.name}; expected "
            f"0..{len(classes) - 1}"
        )
    colours = np.concatenate([classes.palette, np.array([ignored], dtype=np.uint8)])
    index = np.where(outside, len(classes), ids)
    return colours.take(index, axis=0)  # at three times the speed of colours[index]


def class_set(name_or_path: Union[str, Path]) -> ClassSet:
    """The class set of that name, or else the one described by that file."""
    if str(name_or_path) in CLASS_SETS:
        return CLASS_SETS[str(name_or_path)]
    if not Path(name_or_path).exists():
        raise ValueError(
            f"no class set or file {name_or_path}; expected one of {', '.join(CLASS_SETS)}, or a "
            "file of names and colours"
        )
    return load_classes(name_or_path)


def load_classes(path: Union[str, Path]) -> ClassSet:
    """Read a class set from a file in one of the forms of `jseg.data.class_files.reader`.

    Without any colours, colours are made up. Ids that are given are honoured: classes are put in
    their order, and label files are read by them. Raises ValueError naming the file and the line.
    """
    file = Path(path)
    unsorted, ignore, remarks, numbered = read_rows(file)
    _check_rows(file, unsorted)

    # Ids as given, else in the order of the file.
    ids = [place if row.id is None else row.id for place, row in enumerate(unsorted)]
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    rows, stored = [unsorted[place] for place in order], tuple(ids[place] for place in order)
    names = tuple(row.name for row in rows)
    for value in ignore:
        if value in stored:
            raise ValueError(
                f"{file}: ignored id {value} is a class ({names[stored.index(value)]}); expected "
                "other ids up to 255"
            )

    coloured, with_train_ids = rows[0].colour is not None, rows[0].train_id is not None
    colours = np.array([row.colour for row in rows], np.uint8) if coloured else None
    unknown = tuple(ignore) or tuple({IGNORED} - set(stored))
    return ClassSet(
        name=file.stem,
        names=names,
        palette=spread_palette(len(rows)) if colours is None else colours,
        ignore=unknown if stored == tuple(range(len(rows))) else (IGNORED,),
        file_ids=stored,
        file_ignore=unknown,
        numbered=numbered,
        train_ids=tuple(row.train_id for row in rows) if with_train_ids else (),
        remarks=tuple(remarks),
    )


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """Raise ValueError unless a file names 1 to 255 classes with distinct and complete columns."""
    if not 1 <= len(rows) <= 255:
        raise ValueError(f"{path} names {len(rows)} classes; expected 1 to 255")
    _check_distinct(path, [(row.place, row.name) for row in rows], "name")

    # A column is complete or empty; its entries are distinct.
    for what, column in (("colour", "colour"), ("id", "id"), ("train id", "train_id")):
        values = [(row.place, getattr(row, column)) for row in rows]
        missing = [row for row in rows if getattr(row, column) is None]
        if len(missing) == len(rows):
            continue
        if missing:
            raise ValueError(
                f"{path}, {missing[0].place}: class {missing[0].name!r} has no {what} while others "
                "have; give all or none"
            )
        if what != "train id":  # several classes may be one to a training, which refuses it
            _check_distinct(path, values, what)


def spread_palette(count: int) -> np.ndarray:
    """uint8 [count, 3] of distinct, moderately saturated colours.

    They are a three-dimensional Kronecker sequence in hue, saturation and value.
    """
    steps = np.arange(count)[:, None] * np.array([0.6710436, 0.5497005, 0.8191725]) + 0.89
    hue, saturation, value = (steps % 1.0).T
    saturation, value = 0.35 + 0.6 * saturation, 0.45 + 0.5 * value
    sector = (hue[:, None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    rgb = value[:, None] * (
        1.0 - saturation[:, None] * np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    )
    return np.rint(rgb * 255.0).astype(np.uint8)


def _check_distinct(path: Path, items: Sequence[tuple], what: str) -> None:
    seen = {}
    for place, item in items:
        if item in seen:
            raise ValueError(
                f"{path}, {place}: {what} {item} is already taken by {seen[item]}; make it "
                "different"
            )
        seen[item] = place


def _listing(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown if len(values) <= 8 else f"{shown} and {len(values) - 8} more"


def _ranges(values: np.ndarray) -> str:
    groups = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(
        str(group[0]) if len(group) == 1 else f"{group[0]}..{group[-1]}" for group in groups
    )


def _shipped(
    name: str,
    names: Tuple[str, ...],
    palette: Optional[np.ndarray] = None,
    ignore: int = IGNORED,
    file_ids: Optional[Sequence[int]] = None,
    file_ignore: int = IGNORED,
) -> ClassSet:
    """A set that ships, stored as 0, 1, 2, ... and in colours that are made up where none are
    given.
    """
    colours = spread_palette(len(names)) if palette is None else palette
    colours.setflags(write=False)
    stored = tuple(range(len(names)) if file_ids is None else file_ids)
    return ClassSet(name, names, colours, (ignore,), stored, (file_ignore,))


_COCO_STUFF_IDS = [i for i in range(182) if i not in class_tables.COCO_STUFF_UNUSED]
CLASS_SETS = {
    known.name: known
    for known in (
        _shipped("landscape-29", class_tables.LANDSCAPE, class_tables.LANDSCAPE_COLOURS),
        _shipped("ade20k-150", class_tables.ADE20K, file_ids=range(1, 151), file_ignore=0),
        _shipped("coco-stuff-171", class_tables.COCO_STUFF, file_ids=_COCO_STUFF_IDS),
        _shipped(
            "camvid-11",
            class_tables.CAMVID,
            class_tables.CAMVID_COLOURS,
            ignore=11,
            file_ignore=11,
        ),
    )
}
