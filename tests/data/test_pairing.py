"""Several versions of label maps in one folder: one is taken for all images, the rest is counted
and named.
"""

import numpy as np
import pytest
from support.refusals import refusal

from jseg.data.classes import load_classes
from jseg.data.datasets import open_dataset, training_part
from jseg.data.image_folder import find_examples
from jseg.images import save_image

CITY = ["_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtFine_color", "_gtFine_instanceIds"]


def write(root, endings, images="images", maps="labels", image_ending="", count=3):
    """Images p0, p1, ... and for each a label map per ending, all of them holding the ending's
    number and 255.
    """
    for i in range(count):
        for place in (images, maps):
            (root / place).mkdir(parents=True, exist_ok=True)
        save_image(root / images / f"p{i}{image_ending}.png", np.full((12, 16, 3), 9 * i, np.uint8))
        for number, ending in enumerate(endings):
            label = np.resize(np.array([number, number + 1, 255], np.uint8), (12, 16))
            save_image(root / maps / f"p{i}{ending}.png", label)
    return root


@pytest.mark.parametrize(
    "endings, taken, left",
    [
        (["_labelTrainIds", ""], "", "3 files (3 *_labelTrainIds)"),
        (CITY, CITY[0], "9 files (3 *_color, 3 *_instanceIds, 3 *_labelIds)"),
        (CITY[1:], CITY[1], "6 files (3 *_color, 3 *_instanceIds)"),
        (["_mask"], "_mask", None),
    ],
)
@pytest.mark.parametrize("image_ending", ["", "_leftImg8bit"])
def test_one_version_is_taken_and_the_rest_is_counted(tmp_path, endings, taken, left, image_ending):
    examples, notes = find_examples(write(tmp_path, endings, image_ending=image_ending))
    assert [example.label.name for example in examples] == [f"p{i}{taken}.png" for i in range(3)]
    assert len(notes) == 1 and (left in notes[0] if left else "left out" not in notes[0])


def test_equal_names_are_plain_and_need_no_word(tmp_path):
    examples, remarks = find_examples(write(tmp_path, ["_color"], image_ending="_color"))
    assert len(examples) == 3 and remarks == []


def test_the_version_that_most_images_have_is_taken_and_what_lacks_is_told(tmp_path):
    write(tmp_path, ["", "_labelIds"])
    (tmp_path / "labels/p1.png").unlink()
    assert {example.label.name for example in find_examples(tmp_path)[0]} == {
        f"p{i}_labelIds.png" for i in range(3)
    }
    (tmp_path / "labels/p2_labelIds.png").unlink()
    with pytest.raises(ValueError, match="lacks the label map of p1"):
        find_examples(tmp_path)


def test_instance_maps_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="_instanceIds files alone, which number instances"):
        find_examples(write(tmp_path, ["_gtFine_instanceIds"]))


@pytest.mark.parametrize(
    "endings, stored", [(["", "_labelTrainIds"], False), (["_labelTrainIds"], True)]
)
def test_coco_stuff_s_versions_have_their_own_numbering(tmp_path, endings, stored):
    write(tmp_path, endings, "images/train2017", "stuffthingmaps/train2017")
    data = open_dataset(tmp_path, "coco_stuff")
    table = data.numbering.table
    # The originals store 170 for the class that train ids call 159.
    assert table[[0, 12, 255]].tolist() == ([0, 12, 255] if stored else [0, 11, 255])
    assert (table[11] == 11) == stored
    assert any("from 0 to 170" in remark for remark in data.remarks) == stored
    assert training_part(tmp_path, "coco_stuff").classes.file_ids[11] == (11 if stored else 12)


# Train ids of a file of classes
# -------------------------------------------------------------------------------------

IDS, TRAIN = "_gtFine_labelIds", "_gtFine_labelTrainIds"
ROWS = [
    ("unlabeled", 0, 255),
    ("ego vehicle", 1, 255),
    ("pole", 2, 255),
    ("road", 3, 0),
    ("building", 4, 2),
    ("sidewalk", 5, 1),
    ("plate", -1, -1),
]


def city(root, versions, ids=(0, 3, 4, 5), train=(255, 0, 2, 1)):
    """Six images with label maps of the same classes in both numberings, one class a column."""
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
    for i in range(6):
        save_image(root / f"images/p{i}.png", np.full((8, 8, 3), 9 * i, np.uint8))
        for version in versions:
            label = np.resize(np.array(ids if version == IDS else train, np.uint8), (8, 8))
            save_image(root / f"labels/p{i}{version}.png", label)
    return root


def class_file(root, columns, rows=ROWS):
    lines = [
        ",".join(str(row[("name", "id", "trainId").index(column)]) for column in columns)
        for row in rows
    ]
    (root / "c.csv").write_text("\n".join([",".join(columns)] + lines))
    return load_classes(root / "c.csv")


def read(root, classes):
    """The names of the first label map's columns, None where nothing is known, as both trainings
    read them.
    """
    dataset = open_dataset(root, "folders", classes)
    dataset.check()
    label = dataset.load(dataset.train[0])[1]
    part = training_part(root, None, str(root / "c.csv"))
    train, chosen = part.examples, part.classes
    assert chosen.names == dataset.classes.names and chosen.file_ids == dataset.classes.file_ids
    assert train[0].label == dataset.train[0].label
    return [None if value == 255 else dataset.classes.names[value] for value in label[0, :4]]


SEEN = [None, "road", "building", "sidewalk"]


@pytest.mark.parametrize("versions", [[TRAIN], [IDS, TRAIN]])
@pytest.mark.parametrize("columns", [["name", "id", "trainId"], ["trainId", "name"]])
def test_train_ids_of_the_file_read_the_train_ids_of_the_label_maps(tmp_path, versions, columns):
    classes = class_file(city(tmp_path, versions), columns)
    assert read(tmp_path, classes) == SEEN
    data = open_dataset(tmp_path, "folders", classes)
    assert data.classes.names == ("road", "sidewalk", "building")
    said = (
        "read by the train ids of c, 3 classes; 3 have none and are ignored: unlabeled, ego "
        "vehicle, pole"
    )
    assert any(said in remark for remark in data.remarks) == ("id" in columns)


def test_train_ids_may_have_another_order_than_ids(tmp_path):
    classes = class_file(
        city(tmp_path, [TRAIN], train=(0, 1, 2, 3)),
        ["name", "id", "trainId"],
        [("building", 11, 0), ("road", 7, 1), ("wall", 12, 3), ("sidewalk", 8, 2)],
    )
    assert read(tmp_path, classes) == ["building", "road", "sidewalk", "wall"]


def test_train_ids_may_have_gaps(tmp_path):
    classes = class_file(
        city(tmp_path, [TRAIN], train=(0, 13, 255, 5)),
        ["name", "id", "trainId"],
        [("car", 26, 13), ("road", 7, 0), ("pole", 17, 5)],
    )
    assert read(tmp_path, classes) == ["road", "car", None, "pole"]
    assert open_dataset(tmp_path, "folders", classes).classes.file_ids == (0, 5, 13)


def test_label_ids_alone_are_read_by_the_ids(tmp_path):
    classes = class_file(city(tmp_path, [IDS]), ["name", "id", "trainId"])
    assert read(tmp_path, classes) == ["unlabeled", "road", "building", "sidewalk"]


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:]])
def test_label_ids_go_first_where_the_file_has_ids_alone(tmp_path, rows):
    classes = class_file(city(tmp_path, [IDS, TRAIN], ids=(1, 3, 4, 5)), ["name", "id"], rows)
    assert read(tmp_path, classes) == ["ego vehicle", "road", "building", "sidewalk"]
    assert any(
        "the label maps are NAME_labelIds.png, as c has ids and no train ids" in remark
        for remark in open_dataset(tmp_path, "folders", classes).remarks
    )


def test_ids_that_the_label_ids_go_beyond_are_train_ids(tmp_path):
    classes = class_file(
        city(tmp_path, [IDS, TRAIN], ids=(7, 11, 8, 11), train=(0, 2, 1, 2)),
        ["name", "id"],
        [("road", 0, 0), ("sidewalk", 1, 0), ("building", 2, 0)],
    )
    assert read(tmp_path, classes) == ["road", "building", "sidewalk", "building"]


ALL, NEEDED = "name id trainId", "; expected a column trainId"
TWICE, ALONE = [("road", 7, 0), ("parking", 9, 0)], "; expected *_labelTrainIds.png, or a column id"


@pytest.mark.parametrize(
    "versions, columns, rows, words",
    [
        ([TRAIN], "name id", ROWS, "which number others (unlabeled)" + NEEDED),
        ([TRAIN], "name id", ROWS[3:6], "which have gaps or begin later" + NEEDED),
        ([IDS], "name trainId", ROWS, "has train ids alone" + ALONE),
        ([TRAIN], ALL, TWICE, "train id 0 twice; expected a train id of its own"),
        ([TRAIN], ALL, [("road", 7, 255)], "no train id but 255"),
    ],
)
def test_train_ids_that_the_file_does_not_explain_are_refused(
    tmp_path, versions, columns, rows, words
):
    classes = class_file(city(tmp_path, versions), columns.split(), rows)
    for opened in (
        lambda: open_dataset(tmp_path, "folders", classes),
        lambda: training_part(tmp_path, None, str(tmp_path / "c.csv")),
    ):
        assert words in refusal(opened)


def test_two_numberings_are_refused(tmp_path):
    classes = class_file(city(tmp_path / "train", [TRAIN]), ["name", "id", "trainId"])
    city(tmp_path / "val", [IDS])
    with pytest.raises(ValueError, match="6 of 12 label maps are .*expected one numbering"):
        open_dataset(tmp_path, "folders", classes)


@pytest.mark.parametrize("text", ["road\nsidewalk\nbuilding", "0 road\n1 sidewalk\n2 building"])
def test_names_in_the_order_of_the_train_ids_need_no_column(tmp_path, text):
    (city(tmp_path, [TRAIN]) / "c.csv").write_text(text)
    assert read(tmp_path, load_classes(tmp_path / "c.csv")) == SEEN
