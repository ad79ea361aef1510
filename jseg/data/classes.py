"""Class names, palettes and ignored ids: landscape-29, ADE20K-150, COCO-Stuff-171, CamVid-11, or a
file of one's own.

Sources: the README of the official IIDM release (landscape ids 0..28); the ADE20K scene-parsing
challenge's objectInfo150; the COCO-Stuff label list (labels 1..182, eleven of them never annotated,
stored minus one); the SegNet tutorial (CamVid).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from jseg.data.class_files.reader import read_rows

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

    def said(self) -> str:
        """'11 classes of camvid-11: sky, building, pole, ...', how files store them and what is
        left out, in one line.
        """
        shown = ", ".join(self.names[:6]) + (", ..." if len(self) > 6 else "")
        stored = self.file_ids or tuple(range(len(self)))
        return (
            f"{len(self)} classes of {self.name}: {shown}"
            + (
                f"; stored as {_ranges(np.array(stored))}"
                if stored != tuple(range(len(self)))
                else ""
            )
            + "".join(f"; {remark}" for remark in self.remarks)
            + (
                "; train ids are read in *_labelTrainIds.png alone"
                if self.train_ids and self.train_ids != self.file_ids
                else ""
            )
        )

    def from_file_ids(self, label: np.ndarray) -> np.ndarray:
        """uint8 [H, W] as stored by the data set -> uint8 class ids 0..N-1, with `ignore[0]` where
        there is no class.

        Raises ValueError for values that the data set does not use.
        """
        table = np.full(256, -1, dtype=np.int64)
        table[list(self.file_ignore)] = self.ignore[0] if self.ignore else IGNORED
        table[list(self.file_ids or range(len(self)))] = np.arange(len(self))
        found = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
        unknown = [int(value) for value in found if table[value] < 0]
        if unknown:
            raise ValueError(
                f"label values {_listing(unknown)} are not used by {self.name}; expected its own "
                f"numbering ({_ranges(np.flatnonzero(table >= 0))})"
            )
        return table[label].astype(np.uint8)


def colorize(
    label: np.ndarray, classes: ClassSet, ignored: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """Integer [H, W] class ids -> uint8 [H, W, 3] in the classes' colours, `ignored` for their
    ignored ids and 255.

    Raises ValueError for any other id.
    """
    label = np.asarray(label)
    outside = (label < 0) | (label >= len(classes))
    unknown = sorted(set(np.unique(label[outside]).tolist()) - set(classes.ignore) - {IGNORED})
    if unknown:
        raise ValueError(
            f"ids {_listing(unknown)} are not classes of {classes.name}; expected "
            f"0..{len(classes) - 1}"
        )
    colours = np.concatenate([classes.palette, np.array([ignored], dtype=np.uint8)])
    return colours[np.where(outside, len(classes), label)]


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
    path = Path(path)
    rows, ignore, remarks, numbered = read_rows(path)
    if not 1 <= len(rows) <= 255:
        raise ValueError(f"{path} names {len(rows)} classes; expected 1 to 255")
    _check_distinct(path, [(row.place, row.name) for row in rows], "name")
    for what, index in (("colour", 2), ("id", 3), ("train id", 4)):
        given = [row for row in rows if row[index] is not None]
        if given and len(given) < len(rows):
            row = next(row for row in rows if row[index] is None)
            raise ValueError(
                f"{path}, {row.place}: class {row.name!r} has no {what} while others have; give "
                "all or none"
            )
        if what != "train id":  # several classes may be one to a training, and are refused there
            _check_distinct(path, [(row.place, row[index]) for row in given], what)

    # Ids as given, else in the order of the file.
    rows = [row._replace(id=place if row.id is None else row.id) for place, row in enumerate(rows)]
    rows.sort(key=lambda row: row.id)
    names, stored = tuple(row.name for row in rows), tuple(row.id for row in rows)
    coloured = rows[0].colour is not None
    palette = (
        np.array([row.colour for row in rows], dtype=np.uint8)
        if coloured
        else spread_palette(len(rows))
    )
    inside = [value for value in ignore if value in stored]
    if inside:
        raise ValueError(
            f"{path}: ignored id {inside[0]} is a class ({names[stored.index(inside[0])]}); "
            "expected other ids up to 255"
        )
    unknown = tuple(ignore) or tuple({IGNORED} - set(stored))
    plain = stored == tuple(range(len(rows)))
    train_ids = tuple(row.train_id for row in rows) if rows[0].train_id is not None else ()
    ignored = unknown if plain else (IGNORED,)
    return ClassSet(
        path.stem, names, palette, ignored, stored, unknown, (), numbered, train_ids, tuple(remarks)
    )


def spread_palette(count: int) -> np.ndarray:
    """uint8 [count, 3] of distinct, moderately saturated colours: a three-dimensional Kronecker
    sequence in hue, saturation, value.
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


def _table(text: str) -> Tuple[Tuple[str, ...], np.ndarray]:
    rows = [line.rsplit(None, 3) for line in text.strip().splitlines()]
    return tuple(row[0].strip() for row in rows), np.array(
        [[int(value) for value in row[1:]] for row in rows], dtype=np.uint8
    )


def _names(text: str) -> Tuple[str, ...]:
    return tuple(name.strip() for name in " ".join(text.split()).split(","))


def _set(
    name: str,
    names: Tuple[str, ...],
    palette: Optional[np.ndarray],
    ignore: int,
    file_ids: Sequence[int],
    file_ignore: int,
) -> ClassSet:
    palette = spread_palette(len(names)) if palette is None else palette
    palette.setflags(write=False)
    return ClassSet(name, names, palette, (ignore,), tuple(file_ids), (file_ignore,))


_LANDSCAPE = _table("""
    mountain   120 108 148
    sky        170 214 245
    water       84 164 206
    sea         22  96 168
    rock       150 146 138
    tree        34  96  46
    earth      134  94  58
    hill       132 150  84
    river       52 134 190
    sand       236 214 160
    land       176 140  92
    building   186  92  78
    grass      122 186  72
    plant       72 146  84
    person     236  64 122
    boat       250 250 240
    waterfall  204 234 238
    wall       198 178 164
    pier       110  72  44
    path       214 184 128
    lake        44 160 172
    bridge     112  64  96
    field      206 202  96
    road        92  92  98
    railing    160  60  40
    fence      190 130  50
    ship        60  50 110
    house      230 130  90
    other       40  40  40
""")

_ADE20K = _names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
    mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence,
    desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
    skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island,
    computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
    poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
    waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake,
    dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
    monitor, bulletin board, shower, radiator, glass, clock, flag
""")

_COCO_STUFF = _names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, parking meter,
    bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase,
    frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
    chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
    toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch,
    bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds,
    counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile,
    floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
    metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
    playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow,
    solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick,
    wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,
    window-other, wood
""")
COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

_CAMVID = _table("""
    sky         128 128 128
    building    128   0   0
    pole        192 192 128
    road        128  64 128
    pavement     60  40 222
    tree        128 128   0
    sign/symbol 192 128 128
    fence        64  64 128
    car          64   0 128
    pedestrian   64  64   0
    bicyclist     0 128 192
""")

CLASS_SETS = {
    "landscape-29": _set("landscape-29", _LANDSCAPE[0], _LANDSCAPE[1], 255, range(29), 255),
    "ade20k-150": _set("ade20k-150", _ADE20K, None, 255, range(1, 151), 0),
    "coco-stuff-171": _set(
        "coco-stuff-171",
        _COCO_STUFF,
        None,
        255,
        [i for i in range(182) if i not in COCO_STUFF_UNUSED],
        255,
    ),
    "camvid-11": _set("camvid-11", _CAMVID[0], _CAMVID[1], 11, range(11), 11),
}
