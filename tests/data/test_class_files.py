"""Files of classes in the forms that people have: names, colours and ids, or the line that is
refused.
"""

import json

import pytest
from support.refusals import refusal

from jseg.data.classes import load_classes
from jseg.data.numbering import label_table

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
    "a trailing comma": "sky,1,2,3,\ncalm sea,4,5,6,",
    "opaque": "sky 1 2 3 255\ncalm sea 4 5 6 255",
    "QGIS": "0,1,2,3,255,sky\n1,4,5,6,255,calm sea",
    "FreeSurfer": "0 sky 1 2 3 0\n1 calm sea 4 5 6 0",
    "id after the name": "sky 0 1 2 3\ncalm sea 1 4 5 6",
    "0x": "sky 0x010203\ncalm sea 0X040506",
    "colons": "sky: 1, 2, 3\ncalm sea: #040506",
    "equal signs": "sky = (1, 2, 3)\ncalm sea = 4 5 6",
    "a Markdown table": "| id | name | colour |\n|---|:--|---|\n| 0 | sky | #010203 |\n"
    "| 1 | calm sea | 4 5 6 |",
    "Excel's separator": "sep=;\nid;name;colour\n0;sky;1,2,3\n1;calm sea;4,5,6",
    "a pandas index": ",name,id,colour\n0,sky,0.0,#010203\n1,calm sea,1.0,#040506",
    "ADE20K's colours": 'Idx,Color_Code (R,G,B),Color_Code(hex),Color,Name\n0,"(1, 2, '
    '3)",#010203,black,sky\n1,"(4, 5, 6)",#040506,black,calm sea',
    "hex_code": "id,name,hex_code\n0,sky,#010203\n1,calm sea,#040506",
    "hexcode": "name,hexcode\nsky,#010203\ncalm sea,#040506",
    "palette": "name;palette\nsky;1 2 3\ncalm sea;4 5 6",
    "Red Value": "name,Red Value,Green Value,Blue Value\nsky,1,2,3\ncalm sea,4,5,6",
    "color_r": "color_r\tcolor_g\tcolor_b\tclass name\n1\t2\t3\tsky\n4\t5\t6\tcalm sea",
    "Chinese headings": "编号,名称,颜色\n0,sky,#010203\n1,calm sea,#040506",
    "mmsegmentation": "CLASSES = ('sky', 'calm sea')\nPALETTE = [[1, 2, 3], [4, 5, 6]]",
    "a program of lists": "import numpy as np\nVOC_CLASSES = ['sky', 'calm sea']\nVOC_COLORMAP = "
    "np.array([[1, 2, 3], [4, 5, 6]])",
    "id and hexadecimal behind": "sky,0,#010203\ncalm sea,1,#040506",
    "hexadecimal without #": "name,color\nsky,010203\ncalm sea,040506",
    "a Markdown table without frame": "name | colour\n---|:--\nsky | #010203\ncalm sea | #040506",
    "YAML's objects": "classes:\n  - name: sky\n    color: [1, 2, 3]\n"
    "  - color: '#040506'\n    name: calm sea",
    "METAINFO": "METAINFO = dict(\n    classes=('sky', 'calm sea'),\n"
    "    palette=[[1, 2, 3], [4, 5, 6]])",
    "YAML": "nc: 2\nnames: [sky, calm sea]\npalette:\n  - [1, 2, 3]\n  - [4, 5, 6]",
    "JSON in a text file": '[["sky", [1, 2, 3]], ["calm sea", "#040506"]]',
    "JSON a line": '{"name": "sky", "color": [1, 2, 3]}\n'
    '{"name": "calm sea", "color": [4, 5, 6, 255]}',
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
    "id)": "0) sky\n1） calm sea",
    "(id)": "(0) sky\n[1] calm sea",
    "id、": "0、sky\n1、calm sea",
    "id.": "0. sky\n1.calm sea",
    "id -": "0 - sky\n1 - calm sea",
    "id=name": "0=sky\n1 = calm sea",
    "name=id": "sky=0\ncalm sea = 1",
    "name id": "sky 0\ncalm sea 1",
    "name,id": "sky,0\ncalm sea,1",
    "name tab id": "sky\t0\ncalm sea\t1",
    "commas at the end": "0,sky,\n1,calm sea,",
    "a list": "- sky\n- calm sea",
    "YAML's names": "# data\nnames:\n- sky\n- 'calm sea'\n",
    "YAML's ids": "path: x\nnames:\n  1: calm sea\n  0: sky\nnc: 2\n",
    "a Python list": "['sky', 'calm sea']",
    "a Python mapping": "{0: 'sky', 1: 'calm sea'}",
    "id -1": "0 sky\n1 calm sea\n-1 licence plate",
    "labelme": "__ignore__\nsky\ncalm sea",
    "label,class": "label,class\n1,calm sea\n0,sky",
    "train ids alone": "trainId,name\n1,calm sea\n255,pole\n0,sky\n-1,plate",
    "ignore=255": "sky\ncalm sea\nignore=255",
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
    assert classes.names == ("sky", "calm sea") and classes.file_ids == (0, 1)
    assert classes.ignore == (255,)


WATER = {"id": 1, "name": "calm sea", "supercategory": "water"}


@pytest.mark.parametrize(
    "content",
    [
        ["sky", "calm sea"],
        {"0": "sky", "1": "calm sea"},
        {"calm sea": 1, "sky": 0},
        {"id2label": {"0": "sky", "1": "calm sea"}},
        {"categories": [WATER, {"id": 0, "name": "sky"}]},
        [{"name": "sky", "color": "#010203"}, {"name": "calm sea", "color": [4, 5, 6]}],
    ],
)
def test_json_of_other_programs_is_read(tmp_path, content):
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert load_classes(tmp_path / "c.json").names == ("sky", "calm sea")


@pytest.mark.parametrize(
    "table",
    [
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.2\t11664\t1172\t1\twall\n"
        "2\t0.1\t6046\t612\t1\tbuilding, edifice\n4\t0.1\t6\t6\t1\tsky\n",
        'Idx,Ratio,Train,Val,Stuff,Name\n1,0.2,11664,1172,1,wall\n2,0.1,6046,612,1,"building, '
        'edifice"\n4,0.1,6,6,1,sky\n',
    ],
)
def test_ids_with_gaps_are_those_of_the_label_files(tmp_path, table):
    (tmp_path / "c.txt").write_text(table)
    classes = load_classes(tmp_path / "c.txt")
    assert classes.names == ("wall", "building, edifice", "sky") and classes.file_ids == (1, 2, 4)
    assert label_table(classes)[:6].tolist() == [-1, 0, 1, -1, 2, -1]
    assert label_table(classes)[255] == 255
    assert (
        classes.summary()
        == "3 classes of c: wall, building, edifice, sky; stored as 1..2, 4; columns not used: "
        "Ratio, Train, Val, Stuff"
    )


def test_255_may_be_a_class(tmp_path):
    (tmp_path / "c.txt").write_text("0 background\n255 road\n")
    assert label_table(load_classes(tmp_path / "c.txt"))[[0, 255]].tolist() == [0, 1]


NO_FORM = (
    "sky:1,2,3:a | sky=1=2 | sky,1,2 | sky,1,2,3,9 | sky: | -- sky | { | 0 sky 1 2 3 4 | 7 | "
    "0 0 0 0 0 0 0 sky | sky,sea,1,2,3 | 256 sky | sky,1,2,256 | -2 sky | sky 1.5 | 0/sky | "
    "0> sky | 0 -> sky | 3-wheeler | sky 0xabcde | sky->1 | 0) sky:1,2,3:: | <sky> | 0 <sky> | "
    "sky#blue | sky# blue | C#D 1 2 3 | 0 1 sky | sky, sea | - sky\nsea 1 2 3 | sky 1 2 3 blue | "
    "class 0: sky | ① sky | sky aabb01"
)


@pytest.mark.parametrize("line", NO_FORM.split(" | "))
def test_a_line_of_no_form_is_refused_by_its_number(tmp_path, line):
    (tmp_path / "c.txt").write_text("# mine\n" + line + "\n")
    assert "line 2" in refusal(load_classes, tmp_path / "c.txt")


@pytest.mark.parametrize(
    "text, words",
    [
        ("0 sky\nsea", "line 2: class 'sea' has no id"),
        ("0 sky\n0 sea", "line 2: id 0 is already taken"),
    ],
)
def test_ids_are_given_to_all_and_once(tmp_path, text, words):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_classes(tmp_path / "c.txt")


# What is beside the classes
# -----------------------------------------------------------------------------------------

NAMES, COLOURS = ["sky", "calm sea"], [[1, 2, 3], [4, 5, 6]]
BESIDE = {
    "palette": {"classes": NAMES, "palette": COLOURS},
    "capitals": {"CLASSES": NAMES, "PALETTE": COLOURS},
    "a flat palette": {"classes": NAMES, "palette": [1, 2, 3, 4, 5, 6]},
    "a palette by id": {
        "id2label": {"2": "calm sea", "0": "sky"},
        "palette": [[1, 2, 3], [9, 9, 9], [4, 5, 6]],
    },
    "colors": {"names": NAMES, "colors": ["#010203", "4,5,6"]},
    "id2color": {
        "id2label": {"1": "calm sea", "0": "sky"},
        "label2id": {"sky": 0, "calm sea": 1},
        "id2color": {"0": [1, 2, 3], "1": [4, 5, 6]},
    },
    "colours by name": {"classes": NAMES, "colors": {"calm sea": [4, 5, 6], "sky": [1, 2, 3]}},
    "ids": {"names": ["calm sea", "sky"], "ids": [8, 7], "colors": ["#040506", "#010203"]},
    "r, g, b": [dict(name="sky", r=1, g=2, b=3), dict(name="calm sea", R=4, G=5, B=6)],
    "a colour of keys": [
        {"name": "sky", "color": {"r": 1, "g": 2, "b": 3}},
        {"name": "calm sea", "rgb": "rgb(4, 5, 6)"},
    ],
    "palette of a class": [
        {"title": "sky", "palette": [1, 2, 3]},
        {"title": "calm sea", "palette": [4, 5, 6]},
    ],
    "id: [name, colour]": {"0": ["sky", [1, 2, 3]], "1": ["calm sea", [4, 5, 6]]},
    "name: {...}": {
        "sky": {"id": 3, "color": "#010203"},
        "calm sea": {"id": 4, "color": "#040506"},
    },
    "class_names": {"class_names": NAMES, "class_colors": COLOURS, "ignore": None},
    "lists of id, name, colour": [[3, "sky", [1, 2, 3]], [4, "calm sea", [4, 5, 6]]],
    "an empty list beside": {"classes": [], "categories": list(zip(NAMES, COLOURS))},
}
IDS_BESIDE = {
    "a palette by id": (0, 2),
    "ids": (7, 8),
    "name: {...}": (3, 4),
    "lists of id, name, colour": (3, 4),
}


@pytest.mark.parametrize("form", sorted(BESIDE))
def test_colours_and_ids_of_json_are_read_wherever_they_stand(tmp_path, form):
    (tmp_path / "c.json").write_text(json.dumps(BESIDE[form]))
    classes = load_classes(tmp_path / "c.json")
    assert tuple(zip(classes.names, map(tuple, classes.palette.tolist()))) == TWO
    assert classes.file_ids == IDS_BESIDE.get(form, (0, 1))


@pytest.mark.parametrize(
    "name, text",
    [
        ("c.json", '{"0": "sky", "1": "sea", "255": "ignore"}'),
        (
            "c.json",
            '[{"id": 0, "name": "sky"}, {"id": 1, "name": "sea"}, {"id": 255, "name": "void"}]',
        ),
        ("c.txt", "0 sky\n1 sea\n255 unlabeled"),
        ("c.csv", "id,name\n0,sky\n1,sea\n255,Ignored"),
    ],
)
def test_nothing_is_known_at_255_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    classes = load_classes(tmp_path / name)
    assert classes.names == ("sky", "sea") and classes.file_ids == (0, 1)
    assert classes.file_ignore == classes.ignore == (255,)


@pytest.mark.parametrize(
    "key, value, ignored",
    [
        ("ignore", 9, (9,)),
        ("ignore_index", 9, (9,)),
        ("ignore_label", [9, 8], (9, 8)),
        ("ignore_index", -100, (255,)),
        ("ignore_index", 2, (2,)),
    ],
)
def test_ignored_ids_of_json_are_read_under_their_names(tmp_path, key, value, ignored):
    (tmp_path / "c.json").write_text(
        json.dumps({"classes": ["sky", "sea", "void"][: 3 if value == 2 else 2], key: value})
    )
    classes = load_classes(tmp_path / "c.json")
    assert classes.names == ("sky", "sea") and classes.file_ignore == ignored
    assert (value == -100) == any("-100" in remark for remark in classes.remarks)


def test_an_ignored_id_of_a_class_that_is_no_void_is_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"classes": ["sky", "sea"], "ignore_index": 0}')
    with pytest.raises(ValueError, match=r"ignored id 0 is a class \(sky\)"):
        load_classes(tmp_path / "c.json")


def test_labelme_s_first_line_is_no_class(tmp_path):
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nsky\ntree\n")
    classes = load_classes(tmp_path / "labels.txt")
    assert classes.names == ("_background_", "sky", "tree")
    assert label_table(classes)[[0, 1, 2, 255]].tolist() == [0, 1, 2, 255]
    assert "__ignore__ is no class" in classes.summary()


def test_a_word_that_ends_in_a_hash_is_a_name_and_a_short_colour_is_none_of_a_comment(tmp_path):
    (tmp_path / "c.txt").write_text(
        "C# 1 2 3\nF#,4,5,6 # add\nsky #abc\nsea 7 8 9 #bad\n# tree\n#fed is a comment\n"
    )
    classes = load_classes(tmp_path / "c.txt")
    assert classes.names == ("C#", "F#", "sky", "sea") and classes.palette.tolist()[2:] == [
        [170, 187, 204],
        [7, 8, 9],
    ]
    (tmp_path / "c.txt").write_text("#add sky\n#112233 sea\n#444 tree")
    assert load_classes(tmp_path / "c.txt").names == ("sky", "sea", "tree")


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("c.csv", "id,name,note\n0,sky,x\n1,sea,y", "columns not used: note"),
        ("c.csv", "code,name\n0,sky\n1,sea", "columns not used: code"),
        ("c.csv", "name,id,\nsky,0,a\nsea,1,b", "columns not used: column 3"),
        (
            "c.json",
            '{"info": {}, "categories": [{"id": 0, "name": "sky", "isthing": 0}]}',
            "not used: info; not used of the classes: isthing",
        ),
        ("c.yaml", "nc: 1\ntrain: images/train\nnames: [sky]", "not used: nc, train"),
        ("c.txt", "sky 1 2 3 255", "the fourth level (alpha) is not used"),
        ("c.txt", "0 sky\n-1 licence plate", "of id -1, which no label map holds: licence plate"),
        ("c.csv", "name,id,trainId\nsky,5,0", "train ids are read in *_labelTrainIds.png alone"),
        ("c.csv", "name,trainId\nsky,0\npole,255", "no train id: pole"),
    ],
)
def test_what_is_not_used_of_a_file_is_said(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    assert load_classes(tmp_path / name).summary().endswith("; " + words)


# What the one line holds, and the text of the file.
CSV = {
    "No. holds numbers that may be the ids": "No.,name\n3,sky\n4,sea",
    "paint looks like colours; expected the heading color": "name,paint\nsky,#010203\nsea,#040506",
    "color_bgr holds colours, but not R G B": "name,color_bgr\nsky,#010203\nsea,#040506",
    "r, g without the rest of a colour": "name,r,g\nsky,1,2\nsea,3,4",
    "r and hex give different colours": "name,r,g,b,hex\nsky,1,2,3,#040506",
    "id and value both look like the ids": "id,value,name\n1,7,sky\n2,9,sea",
}
JSON = {
    "tints looks like colours; expected the key palette": (
        '{"classes": ["sky", "sea"], "tints": [[1, 2, 3], [4, 5, 6]]}'
    ),
    "tint looks like colours": (
        '[{"name": "sky", "tint": "#010203"}, {"name": "sea", "tint": "#040506"}]'
    ),
    "pixel holds numbers that may be the ids": (
        '[{"name": "sky", "pixel": 7}, {"name": "sea", "pixel": 9}]'
    ),
    "1 entry of color beside 2 classes": '{"classes": ["sky", "sea"], "palette": [[1, 2, 3]]}',
    "with the classes and beside them": '{"classes": [["sky", [1, 2, 3]]], "palette": [[4, 5, 6]]}',
    "classes and categories, which name different classes": (
        '{"classes": ["sky"], "categories": ["sea"]}'
    ),
    '"0" is given twice': '{"0": "sky", "0": "sea"}',
    "begins with a number": '["0: sky", "1: sea"]',
    "colour 0.1; expected whole numbers": '[{"name": "sky", "color": [0.1, 0.2, 0.3]}]',
    "is no colour": '[{"name": "sky", "color": [1, 2, 3, 128]}]',
    "name different classes": '{"thing_classes": ["sky"], "stuff_classes": ["sea"]}',
}
TEXT = {
    '"0" is given twice': '{"0": "sky", "0": "sea"}',
    "begins with a number, as all names do": "0/sky\n1/sea",
    "names 0 classes": "#abc sky",
    "names no class": "A = ['sky']\nCLASSES = ['sea', A]",
    "line 2: __ignore__ is no class": "sky\n__ignore__",
    "line 1: __ignore__ is no class": "0 __ignore__\n1 sky",
}
REFUSED = [
    *(("c.csv", CSV[words], words) for words in CSV),
    *(("c.json", JSON[words], words) for words in JSON),
    *(("c.txt", TEXT[words], words) for words in TEXT),
    ("c.yaml", "names:\n  - {name: sky}\n  sea", "is not understood"),
    ("c.xml", '<labels><label name="sky"/></labels>', "looks like XML"),
    ("c.txt", "CLASSES = tuple(open('x'))", "not understood"),
    ("c.txt", "CLASSES = ['sky']\nCLASSES += ['sea']", "not understood"),
    ("c.txt", "CLASSES = ['sky']\nCLASSES.append('sea')", "not understood"),
]


@pytest.mark.parametrize("name, text, words", REFUSED)
def test_what_cannot_be_read_safely_is_refused_in_one_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    line = refusal(load_classes, tmp_path / name)
    assert words in line and str(tmp_path / name) in line


MARKED = (
    "3-wheeler | 24/7 shop | 50% grass | a=b | sky (120) | n01 tench | 4x4 | U.S. road | 3d model"
)


@pytest.mark.parametrize("name", MARKED.split(" | "))
def test_marks_within_names_are_theirs(tmp_path, name):
    (tmp_path / "c.txt").write_text(
        f"sky\n{name}" if name != "3d model" else f"sky,1,2,3\n{name},4,5,6"
    )
    assert load_classes(tmp_path / "c.txt").names == ("sky", name)


def test_the_labels_of_cityscapes_scripts_are_read(tmp_path):
    (tmp_path / "labels.py").write_text('''"""Labels."""
from collections import namedtuple
Label = namedtuple("Label", ["name", "id", "trainId", "category", "color"])
labels = [
    #      name           id  trainId category  color
    Label("unlabeled"   ,  0,  255,   "void",   (0, 0, 0)),
    Label("road"        ,  7,    0,   "flat",   (128, 64, 128)),
    Label("car"         , 26,   13,   "vehicle", (0, 0, 142)),
    Label("licence plate", -1,  -1,   "vehicle", (0, 0, 143)),
]
name2label = {label.name: label for label in labels}
def ids(): pass
''')
    classes = load_classes(tmp_path / "labels.py")
    assert classes.names == ("unlabeled", "road", "car") and classes.file_ids == (0, 7, 26)
    assert classes.train_ids == (255, 0, 13)
    assert classes.palette.tolist()[1] == [128, 64, 128]
    assert classes.remarks == (
        "not used: name2label",
        "not used of the classes: category",
        "of id -1, which no label map holds: licence plate",
    )
