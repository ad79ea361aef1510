"""Data sets' folders and numbering: every layout made small, its ids and ignored values, and every
fault in one line.
"""

import numpy as np
import pytest
from support.faults import all_of, cut, drawn, emptied, moved, new_folder, removed, written
from support.refusals import refusal

from jseg.data.class_tables import COCO_STUFF_UNUSED
from jseg.data.classes import CLASS_SETS
from jseg.data.datasets import open_dataset, training_part
from jseg.data.layouts import LAYOUTS
from jseg.files import DataError, sha256
from jseg.images import save_image

SIZES = [(24, 18), (18, 24), (20, 20)]
PLACES = {
    "folders": ("train/images", "train/labels", "val/images", "val/labels"),
    "ade20k": (
        "images/training annotations/training images/validation annotations/validation"
    ).split(),
    "coco_stuff": (
        "images/train2017 stuffthingmaps/train2017 images/val2017 stuffthingmaps/val2017"
    ).split(),
    "camvid": ("train/images", "train/labels", "val/images", "val/labels"),
    "landscape": ("train/imgs", "train/labels", "val/imgs", "val/labels"),
}
STORED = {
    "folders": [0, 1, 6, 255],
    "ade20k": [0, 1, 150],
    "coco_stuff": [0, 10, 12, 181, 255],
    "camvid": [0, 10, 11],
    "landscape": [0, 28, 255],
}
LOADED = {
    "folders": [0, 1, 6, 255],
    "ade20k": [255, 0, 149],
    "coco_stuff": [0, 10, 11, 170, 255],
    "camvid": [0, 10, 255],
    "landscape": [0, 28, 255],
}


def write(root, images, maps, ids, count=3, prefix="p"):
    rng = np.random.default_rng(len(images))
    for i in range(count):
        width, height = SIZES[i % 3]
        for place in (images, maps):
            (root / place).mkdir(parents=True, exist_ok=True)
        label = np.resize(np.array(ids, np.uint8), (height, width))
        save_image(
            root / images / f"{prefix}{i}.jpg",
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        )
        save_image(root / maps / f"{prefix}{i}.png", label)


@pytest.fixture(params=sorted(LAYOUTS))
def made(request, tmp_path):
    layout = request.param
    places = PLACES[layout]
    write(tmp_path, places[0], places[1], STORED[layout], prefix="t")
    write(tmp_path, places[2], places[3], STORED[layout], count=2, prefix="v")
    return layout, tmp_path


# -- folders and numbering -------------------------------------------------------------------------


def test_every_layout_is_found_and_its_ids_become_classes(made):
    layout, root = made
    data = open_dataset(root, layout)
    assert [e.stem for e in data.train] == ["t0", "t1", "t2"] and [e.stem for e in data.val] == [
        "v0",
        "v1",
    ]
    classes = len(LOADED[layout]) - 1
    ignored = {"folders": 25.0, "coco_stuff": 19.9, "ade20k": 33.4}.get(layout, 33.3)
    checked, (line,) = data.check(16)
    assert [e.stem for e in checked.train] == [e.stem for e in data.train]
    assert checked.val[0].image_sha256 == sha256(data.val[0].image)
    assert line.startswith(f"{classes} of {len(data.classes)} classes are present, absent: ")
    assert line.endswith(f"; {ignored} % of the pixels are ignored")
    assert data.remarks == (["7 classes counted in the label maps"] if layout == "folders" else [])
    image, label = data.load(data.val[1])
    assert image.shape == (24, 18, 3) and label.shape == (24, 18) and label.dtype == np.uint8
    assert (label == np.resize(np.array(LOADED[layout], np.uint8), (24, 18))).all()


@pytest.mark.parametrize(
    "layout, count", [("ade20k", 150), ("coco_stuff", 171), ("camvid", 11), ("landscape", 29)]
)
def test_every_stored_value_is_a_class_ignored_or_refused(layout, count, tmp_path):
    write(tmp_path, PLACES[layout][0], PLACES[layout][1], STORED[layout])
    table = open_dataset(tmp_path, layout).numbering.table
    assert sorted(table[(table >= 0) & (table < 255)]) == list(range(count))
    stored = [value for value in range(256) if table[value] >= 0]
    expected = {
        "ade20k": range(151),
        "camvid": range(12),
        "landscape": [*range(29), 255],
        "coco_stuff": [i for i in [*range(182), 255] if i not in COCO_STUFF_UNUSED],
    }[layout]
    assert stored == list(expected)
    assert table[{"ade20k": 0, "camvid": 11}.get(layout, 255)] == 255
    assert (
        np.diff(table[[value for value in stored if table[value] < 255]]) == 1
    ).all()  # classes keep the files' order


def test_other_places_are_understood(tmp_path):
    write(tmp_path / "a", "train", "trainannot", [0, 11])
    write(tmp_path / "a", "val", "valannot", [3], count=1)
    assert (
        len(open_dataset(tmp_path / "a", "camvid").train),
        len(open_dataset(tmp_path / "a", "camvid").val),
    ) == (3, 1)
    write(tmp_path / "b", "images/train2017", "annotations/train2017", [0, 181])
    write(tmp_path / "b", "images/val2017", "annotations/val2017", [90 + 1], count=1)
    for layout in ("camvid", "folders"):
        write(tmp_path / layout, "train", "train_labels", [0, 1])
        write(tmp_path / layout, "val", "val_labels", [1, 0], count=1)
        for path in [*(tmp_path / layout).glob("*_labels/*.png")]:
            path.rename(path.with_name(path.stem + "_L.png"))
        data = open_dataset(tmp_path / layout, layout)
        assert [(e.stem, e.label.name) for e in data.train + data.val] == [
            (f"p{i}", f"p{i}_L.png") for i in (0, 1, 2, 0)
        ]
        assert sum("the label maps are NAME_L.png" in remark for remark in data.remarks) == 2
    assert open_dataset(tmp_path / "b", "coco_stuff").check()[1][:1] == [
        "label maps hold one class alone (p0.png)"
    ]


@pytest.mark.parametrize("layout", ["folders", "camvid", "landscape", "ade20k"])
def test_without_validation_data_every_tenth_example_is_held_out(layout, tmp_path):
    images, maps = ("imgs", "labels") if layout != "ade20k" else PLACES[layout][:2]
    write(tmp_path, images, maps, [1, 2], count=25)
    data = open_dataset(tmp_path, layout)
    stems = sorted(f"p{i}" for i in range(25))
    assert [e.stem for e in data.val] == stems[9::10]
    assert [e.stem for e in data.train] == [stem for stem in stems if stem not in stems[9::10]]
    assert "no validation folder; 2 of its 25 examples" in data.remarks[0]


@pytest.mark.parametrize("count, train, val", [(1, 1, 1), (2, 1, 1), (9, 8, 1), (10, 9, 1)])
def test_a_few_examples_can_be_held_out_of_too(count, train, val, tmp_path):
    write(tmp_path, "images", "labels", [0, 1], count=count)
    data = open_dataset(tmp_path, "folders")
    assert (len(data.train), len(data.val)) == (train, val)


# -- classes of one's own --------------------------------------------------------------------------


def test_classes_of_folders_are_given_or_counted(tmp_path):
    write(tmp_path, "images", "labels", [0, 4, 9])
    assert len(open_dataset(tmp_path, "folders").classes) == 10
    assert len(open_dataset(tmp_path, "folders", ignore=(9,)).classes) == 5
    assert len(open_dataset(tmp_path, "folders", classes=40).classes) == 40
    coloured = open_dataset(tmp_path, "folders", classes=CLASS_SETS["camvid-11"])
    assert coloured.classes.names[0] == "sky" and len(coloured.check()[1]) == 1
    assert (
        len(np.unique(open_dataset(tmp_path, "folders", classes=255).classes.palette, axis=0))
        == 255
    )
    with_nine = open_dataset(tmp_path, "folders", classes=5)
    assert "ids outside 0..4: 9 (33 %); ids found: 0 (33 %), 4 (33 %), 9 (33 %)" in refusal(
        with_nine.check
    )
    ignoring = open_dataset(tmp_path, "folders", classes=5, ignore=(9,))
    assert ignoring.check()[1][0].startswith(
        "2 of 5 classes are present, absent: class 1, class 2, class 3; 33.3 %"
    )
    assert set(np.unique(ignoring.load(ignoring.val[0])[1])) == {0, 4, 255}


def test_a_wrong_number_of_classes_is_refused(tmp_path):
    write(tmp_path, *PLACES["ade20k"][:2], [0, 1])
    assert "151 classes given, but layout ade20k has 150 (ade20k-150)" in refusal(
        open_dataset, tmp_path, "ade20k", classes=151
    )
    assert "171 classes given" in refusal(
        open_dataset, tmp_path, "ade20k", classes=CLASS_SETS["coco-stuff-171"]
    )
    assert len(open_dataset(tmp_path, "ade20k", classes=150).classes) == 150
    write(tmp_path, "images", "labels", [255])
    assert "nothing but ignored ids" in refusal(open_dataset, tmp_path / ".", "folders")
    for count in (1, 256):
        assert f"{count} classes; expected 2 to 255" in refusal(
            open_dataset, tmp_path, "folders", classes=count
        )


# -- faults ----------------------------------------------------------------------------------------


def relabelled(ids, shape=(18, 24)):
    return drawn("annotations/training/p0.png", np.resize(np.array(ids, np.uint8), shape))


IMAGES, MAPS = "images/training", "annotations/training"
COLOURED = np.eye(18, 24, dtype=np.uint8)[..., None] * np.array([9, 8, 7], np.uint8)
# What the one line holds, and what was done to a sound folder.
FAULTS = {
    "data folder | does not exist": moved(".", "../moved"),
    "lacks images/training and annotations/training | ade20k": all_of(
        moved(".", "../in"), new_folder(".")
    ),
    "did you mean | ADE?": all_of(moved(".", "../in"), new_folder("."), moved("../in", "ADE")),
    "lacks annotations/training;": moved("annotations", "labels"),
    "training holds no *.jpg, *.jpeg": emptied(IMAGES),
    "training holds no *.png": emptied(MAPS),
    "annotations | lacks the label map of p1.jpg": removed(f"{MAPS}/p1.png"),
    "images | lacks the image of p1.png": removed(f"{IMAGES}/p1.jpg"),
    "both p1.jpg and p1.png": written(f"{IMAGES}/p1.png", "x"),
    "lacks annotations/validation": new_folder("images/validation"),
    "p0.png | outside 1..150: 151 (25 %) | 1 (75 %) | --ignore": relabelled([1, 1, 1, 151]),
    "p0.png is 18x18 | 24x18 | its image's size": relabelled([1], (18, 18)),
    "p0.png | colour-coded": drawn(f"{MAPS}/p0.png", COLOURED),
    "p0.jpg is 20x15 | at least 16x16 | patch": drawn(f"{IMAGES}/p0.jpg", COLOURED[:15, :20] * 0),
    "p0.jpg | truncated": cut(f"{IMAGES}/p0.jpg", 200),
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_one_line(tmp_path, words):
    root = tmp_path / "data"
    write(root, *PLACES["ade20k"][:2], [0, 150])
    FAULTS[words](root)
    message = refusal(lambda: open_dataset(root, "ade20k").check(16))
    assert [word for word in words.split(" | ") if word not in message] == [], message


def test_unknown_layouts_name_the_known_ones(tmp_path):
    assert "folders, ade20k, coco_stuff, camvid, landscape" in refusal(
        open_dataset, tmp_path, "cityscapes"
    )


ADE20K = "has images/training/ and annotations/training/: give --layout ade20k"
COCO = "has images/train2017/ and stuffthingmaps/train2017/: give --layout coco_stuff"


@pytest.mark.parametrize(
    "layout, given, said",
    [
        ("ade20k", "folders", ADE20K),
        ("ade20k", "landscape", "give --layout ade20k"),
        ("ade20k", None, "give --layout ade20k"),
        ("coco_stuff", "folders", COCO),
    ],
)
def test_a_data_set_of_another_layout_names_it(tmp_path, layout, given, said):
    write(tmp_path, *PLACES[layout][:2], [0, 1])
    call = open_dataset if given else training_part
    assert said in refusal(call, tmp_path, given)


def test_images_above_the_training_folder_are_counted(tmp_path):
    write(tmp_path, "train/imgs", "train/labels", [0, 1])
    write(tmp_path, "imgs", "labels", [0, 1], count=2)
    data = open_dataset(tmp_path, "landscape")
    assert len(data.train) == 2
    assert (
        data.remarks[0]
        == f"2 images in {tmp_path / 'imgs'} are left out, those in train/ are taken"
    )


def test_folders_that_are_complete_are_taken_whatever_else_is_there(tmp_path):
    write(tmp_path, "images", "labels", [0, 1])
    for name in ("images/training", "annotations/training"):
        (tmp_path / name).mkdir(parents=True)
    assert len(training_part(tmp_path, None).examples) == 3
    assert len(open_dataset(tmp_path, "folders").train) == 2


def test_what_is_unusual_is_told(tmp_path):
    write(tmp_path, "images", "labels", [0, 1])
    save_image(tmp_path / "labels/p0.png", np.full((36, 48), 255, np.uint8))
    save_image(tmp_path / "images/p1.png", np.full((24, 18), 7, np.uint8))
    (tmp_path / "images/p1.jpg").unlink()
    data = open_dataset(tmp_path, "folders", classes=2)
    _, remarks = data.check(16)
    assert [line for line in sorted(remarks) if line[0] != "2"] == [
        "images are not plain RGB and are converted: L (p1.png)",
        "images are of one colour (p1.png)",
        "label maps hold nothing but ignored ids (p0.png)",
        "label maps of another size than their image are resized with nearest (p0.png)",
    ]
    assert len(remarks) == 5
    image, label = data.load(data.train[0])
    assert image.shape == (18, 24, 3) and label.shape == (18, 24)


def test_files_are_not_read_when_they_are_found(tmp_path):
    write(tmp_path, "train/images", "train/labels", [0, 1])
    (tmp_path / "train/images/p0.jpg").write_bytes(b"no image")
    assert len(open_dataset(tmp_path, "camvid").train) == 2
    with pytest.raises(DataError):
        open_dataset(tmp_path, "camvid").check()
