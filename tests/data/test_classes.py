"""Class names in their published order, file numbering with gaps, palettes, and files of one's
own.
"""

import json

import numpy as np
import pytest
from support.refusals import refusal

from jseg.data.classes import CLASS_SETS, class_set, colorize, load_classes, spread_palette

SIZES = {"landscape-29": 29, "ade20k-150": 150, "coco-stuff-171": 171, "camvid-11": 11}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_sets_are_complete_and_distinct(name):
    classes = CLASS_SETS[name]
    assert len(classes) == len(classes.names) == len(set(classes.names)) == SIZES[name]
    assert classes.palette.shape == (SIZES[name], 3) and classes.palette.dtype == np.uint8
    palette = np.concatenate([classes.palette, [[0, 0, 0]]]).astype(int)
    distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1) + 1e3 * np.eye(
        len(palette)
    )
    assert distance.min() >= (30 if SIZES[name] < 30 else 18)
    assert len(classes.file_ids) == SIZES[name]
    assert not set(classes.file_ids) & set(classes.file_ignore)
    assert all(value >= len(classes) for value in classes.ignore)
    with pytest.raises(ValueError):
        classes.palette[0, 0] = 1


def test_landscape_order_is_the_challenge_table():
    table = (
        "mountain sky water sea rock tree earth hill river sand land building grass plant person "
        "boat waterfall wall pier path lake bridge field road railing fence ship house other"
    )
    assert CLASS_SETS["landscape-29"].names == tuple(table.split())
    colours = dict(
        zip(CLASS_SETS["landscape-29"].names, CLASS_SETS["landscape-29"].palette.astype(int))
    )
    assert colours["sky"].sum() > colours["water"].sum() > colours["sea"].sum()
    assert colours["sea"].argmax() == 2
    assert colours["tree"].argmax() == colours["grass"].argmax() == 1


def listed(text):
    """{number: name} of "0 wall, 2 sky"."""
    entries = (entry.partition(" ") for entry in text.split(", "))
    return {int(number): name for number, _, name in entries}


PUBLISHED = {
    "ade20k-150": "0 wall, 2 sky, 4 tree, 16 mountain, 21 water, 26 sea, 60 river, 128 lake, "
    "149 flag",
    "coco-stuff-171": "0 person, 10 fire hydrant, 11 stop sign, 79 toothbrush, 80 banner, 170 wood",
    "camvid-11": "0 sky, 3 road, 5 tree, 8 car, 10 bicyclist",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_positions(name):
    places = listed(PUBLISHED[name])
    assert {index: CLASS_SETS[name].names[index] for index in places} == places


def test_coco_stuff_file_numbers():
    classes = CLASS_SETS["coco-stuff-171"]
    by_file_id = dict(zip(classes.file_ids, classes.names))
    # Label numbers of the COCO-Stuff list are one more than the values stored in the files.
    labels = listed(
        "1 person, 13 stop sign, 27 backpack, 31 handbag, 46 wine glass, 67 dining table, "
        "70 toilet, 72 tv, 84 book, 90 toothbrush, 92 banner, 106 clouds, 124 grass, 135 mountain, "
        "148 river, 155 sea, 157 sky-other, 169 tree, 178 water-other, 182 wood"
    )
    assert {label: by_file_id[label - 1] for label in labels} == labels
    assert sorted(set(range(182)) - set(by_file_id)) == [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]


def test_ade20k_and_camvid_file_numbers():
    ade20k, camvid = CLASS_SETS["ade20k-150"], CLASS_SETS["camvid-11"]
    assert ade20k.file_ids == tuple(range(1, 151)) and ade20k.file_ignore == (0,)
    assert camvid.file_ids == tuple(range(11)) and camvid.file_ignore == camvid.ignore == (11,)


def test_colorize():
    classes = CLASS_SETS["camvid-11"]
    label = np.array([[0, 10], [11, 255]], np.uint8)
    image = colorize(label, classes, ignored=(1, 2, 3))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[128, 128, 128], [0, 128, 192]], [[1, 2, 3], [1, 2, 3]]]
    assert np.array_equal(colorize(label.astype(np.int64), classes, (1, 2, 3)), image)
    for bad in (12, 254):
        with pytest.raises(ValueError, match=str(bad)):
            colorize(np.full((2, 2), bad, np.uint8), classes)


def test_spread_palette_is_a_prefix_and_distinct():
    palette = spread_palette(255)
    assert len(np.unique(palette, axis=0)) == 255
    assert np.array_equal(spread_palette(7), palette[:7])
    assert palette.max(axis=1).min() > 100


def test_text_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(
        "# my classes\nsky 160 205 245\ngreen grass 10 200 30  # comment\n\nignore 9\n",
        encoding="utf-8-sig",
    )
    classes = load_classes(path)
    assert classes.name == "mine" and classes.names == ("sky", "green grass")
    assert classes.palette.tolist() == [[160, 205, 245], [10, 200, 30]] and classes.ignore == (9,)
    assert class_set(path).names == classes.names
    assert class_set("camvid-11") is CLASS_SETS["camvid-11"]
    path.write_text("sky\ngrass\n")
    assert np.array_equal(load_classes(path).palette, spread_palette(2))
    assert load_classes(path).ignore == (255,)


def test_json_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"classes": [["sky", [1, 2, 3]], ["sea", [4, 5, 6]]], "ignore": [2]})
    )
    classes = load_classes(path)
    assert classes.names == ("sky", "sea") and classes.palette.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert classes.ignore == (2,)
    path.write_text(json.dumps({"classes": ["sky", "sea"]}))
    assert load_classes(path).names == ("sky", "sea")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("c.txt", "sky 1 2 3\nsea 1 2", ["line 2", "R G B"]),
        ("c.txt", "sky 1 2 3 4", ["line 1", "4 numbers"]),
        ("c.txt", "sky 1 2 300", ["line 1", "300", "0..255"]),
        ("c.txt", "sky 1 2 3.5", ["line 1", "3.5"]),
        ("c.txt", "sky 1 2 3\nsea", ["line 2", "no colour"]),
        ("c.txt", "sky 1 2 3\nsea 1 2 3", ["line 2", "colour", "line 1"]),
        ("c.txt", "sky 1 2 3\nsky 4 5 6", ["line 2", "name", "line 1"]),
        ("c.txt", "sky 1 2 3\nignore 0", ["ignored id 0", "sky"]),
        ("c.txt", "# nothing", ["0 classes"]),
        ("c.txt", "\n".join(f"c{i} x" for i in range(256)), ["256 classes"]),
        ("c.txt", b"\xff\xfe\x00", ["UTF-8"]),
        ("c.json", "{", ["not valid JSON"]),
        ("c.json", "[1]", ["class 0"]),
        ("c.json", '{"classes": [["sky", [1, 2]]]}', ["class 0"]),
        ("c.json", '{"classes": [["sky", [1, 2, true]]]}', ["class 0", "0..255"]),
        ("c.json", '{"classes": [3]}', ["class 0"]),
        ("c.json", '{"classes": ["sky"], "ignore": "3"}', ["ignore", "an id 0..255 or a list"]),
    ],
)
def test_malformed_files_are_explained_in_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal(load_classes, path)
    assert [word for word in [str(path), *words] if word not in line] == [], line


def test_unknown_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="landscape-29, ade20k-150"):
        class_set("ade20k")
