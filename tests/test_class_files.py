"""Files of classes in the forms that people have: names, colours and ids, or the line that is refused."""

import json

import pytest

from jseg.classes import load_classes
from jseg.numbering import label_table

TWO = (("sky", (1, 2, 3)), ("calm sea", (4, 5, 6)))
FORMS = {
    "CVAT": "# label:color_rgb:parts:actions\nsky:1,2,3::\ncalm sea:4,5,6::\n",
    "CVAT with parts": "sky:1,2,3:sun,cloud:\ncalm sea:4,5,6::drift\n",
    "commas": "sky,1,2,3\ncalm sea,4,5,6",
    "commas and spaces": "sky, 1, 2, 3\ncalm sea, 4, 5, 6",
    "semicolons": "sky;1;2;3\ncalm sea;4;5;6",
    "bars": "sky|1|2|3\ncalm sea|4|5|6",
    "tabs": "sky\t\t1\t2\t3\ncalm sea\t4\t5\t6",
    "spaces": "sky 1 2 3\ncalm sea 4 5 6",
    "colour first": "1 2 3\tsky\n4 5 6\tcalm sea",
    "a heading": "id,name,r,g,b\n0,sky,1,2,3\n1,calm sea,4,5,6",
    "a heading in another order": "name;id;red;green;blue\nsky;0;1;2;3\ncalm sea;1;4;5;6",
    "a heading between spaces": "id name r g b\n0 sky 1 2 3\n1 calm sea 4 5 6",
    "hexadecimal": "sky #010203\ncalm sea #040506  # blue",
    "hexadecimal and commas": "sky,#010203\ncalm sea,#040506",
    "brackets": "sky (1, 2, 3)\ncalm sea rgb(4,5,6)",
    "quotes": '"sky",1,2,3\n"calm sea",4,5,6',
    "full width": "sky，1，2，3\ncalm sea，4，5，6",
    "GIMP": "GIMP Palette\nName: mine\nColumns: 2\n#\n  1   2   3\tsky\n  4   5   6\tcalm sea\n",
    "id and colour": "0 sky 1 2 3\n1 calm sea 4 5 6",
}
IDS = {
    "id name": "0 sky\n1 calm sea",
    "id: name": "0: sky\n1: calm sea",
    "name: id": "sky: 0\ncalm sea: 1",
    "id,name": "0,sky\n1,calm sea",
    "out of order": "1 calm sea\n0 sky",
    "a void": "0 sky\n1 calm sea\n255 void",
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_names_and_colours_are_read_from_every_form(tmp_path, form):
    (tmp_path / "c.txt").write_text(FORMS[form], encoding="utf-8")
    classes = load_classes(tmp_path / "c.txt")
    assert tuple(zip(classes.names, map(tuple, classes.palette.tolist()))) == TWO
    assert classes.file_ids == (0, 1) and classes.file_ignore == (255,)


@pytest.mark.parametrize("form", sorted(IDS))
def test_names_and_ids_are_read_from_every_form(tmp_path, form):
    (tmp_path / "c.txt").write_text(IDS[form])
    classes = load_classes(tmp_path / "c.txt")
    assert classes.names == ("sky", "calm sea") and classes.file_ids == (0, 1) and classes.ignore == (255,)


@pytest.mark.parametrize("content", [
    ["sky", "calm sea"], {"0": "sky", "1": "calm sea"}, {"calm sea": 1, "sky": 0}, {"id2label": {"0": "sky", "1": "calm sea"}},
    {"categories": [{"id": 1, "name": "calm sea", "supercategory": "water"}, {"id": 0, "name": "sky"}]},
    [{"name": "sky", "color": "#010203"}, {"name": "calm sea", "color": [4, 5, 6]}]])
def test_json_of_other_programs_is_read(tmp_path, content):
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert load_classes(tmp_path / "c.json").names == ("sky", "calm sea")


@pytest.mark.parametrize("table", [
    "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.2\t11664\t1172\t1\twall\n2\t0.1\t6046\t612\t1\tbuilding, edifice\n4\t0.1\t6\t6\t1\tsky\n",
    "Idx,Ratio,Train,Val,Stuff,Name\n1,0.2,11664,1172,1,wall\n2,0.1,6046,612,1,\"building, edifice\"\n4,0.1,6,6,1,sky\n"])
def test_ids_with_gaps_are_those_of_the_label_files(tmp_path, table):
    (tmp_path / "c.txt").write_text(table)
    classes = load_classes(tmp_path / "c.txt")
    assert classes.names == ("wall", "building, edifice", "sky") and classes.file_ids == (1, 2, 4)
    assert label_table(classes)[:6].tolist() == [-1, 0, 1, -1, 2, -1] and label_table(classes)[255] == 255
    assert classes.said() == "3 classes of c: wall, building, edifice, sky; stored as 1..2, 4; columns not used: Ratio, Train, Val, Stuff"


def test_255_may_be_a_class(tmp_path):
    (tmp_path / "c.txt").write_text("0 background\n255 road\n")
    assert label_table(load_classes(tmp_path / "c.txt"))[[0, 255]].tolist() == [0, 1]


@pytest.mark.parametrize("line", [
    "sky:1,2,3:a", "sky=1=2", "sky,1,2", "sky,1,2,3,9", "sky:", "-- sky", "{", "0 sky 1 2 3 4", "7", "0 0 0 0 0 0 0 sky",
    "sky,sea,1,2,3", "256 sky", "sky,1,2,256", "-2 sky", "sky 1.5", "0/sky", "0> sky", "0 -> sky", "3-wheeler", "sky 0xabcde", "sky->1",
    "0) sky:1,2,3::", "<sky>", "0 <sky>", "sky#blue", "sky# blue", "C#D 1 2 3", "0 1 sky", "sky, sea", "- sky\nsea 1 2 3"])
def test_a_line_of_no_form_is_refused_by_its_number(tmp_path, line):
    (tmp_path / "c.txt").write_text("# mine\n" + line + "\n")
    with pytest.raises(ValueError, match="line 2") as error:
        load_classes(tmp_path / "c.txt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text, words", [
    ("0 sky\nsea", "line 2: class 'sea' has no id"), ("0 sky\n0 sea", "line 2: id 0 is already taken")])
def test_ids_are_given_to_all_and_once(tmp_path, text, words):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_classes(tmp_path / "c.txt")
