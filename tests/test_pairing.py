"""Several versions of label maps in one folder: one is taken for all pictures, the rest is counted and named."""

import numpy as np
import pytest

from jseg import images
from jseg.examples import find_examples
from jseg.flowseg.layouts import open_dataset, training_part

CITY = ["_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtFine_color", "_gtFine_instanceIds"]


def write(root, endings, pictures="images", maps="labels", picture_ending="", count=3):
    """Pictures p0, p1, ... and for each a label map per ending, all of them holding the ending's number and 255."""
    for i in range(count):
        for place in (pictures, maps):
            (root / place).mkdir(parents=True, exist_ok=True)
        images.save_picture(root / pictures / f"p{i}{picture_ending}.png", np.full((12, 16, 3), 9 * i, np.uint8))
        for number, ending in enumerate(endings):
            label = np.resize(np.array([number, number + 1, 255], np.uint8), (12, 16))
            images.save_picture(root / maps / f"p{i}{ending}.png", label)
    return root


@pytest.mark.parametrize("endings, taken, left", [
    (["_labelTrainIds", ""], "", "3 files (3 *_labelTrainIds)"),
    (CITY, CITY[0], "9 files (3 *_color, 3 *_instanceIds, 3 *_labelIds)"),
    (CITY[1:], CITY[1], "6 files (3 *_color, 3 *_instanceIds)"),
    (["_mask"], "_mask", None)])
@pytest.mark.parametrize("picture_ending", ["", "_leftImg8bit"])
def test_one_version_is_taken_and_the_rest_is_counted(tmp_path, endings, taken, left, picture_ending):
    notes = []
    examples = find_examples(write(tmp_path, endings, picture_ending=picture_ending), notes=notes)
    assert [example.label.name for example in examples] == [f"p{i}{taken}.png" for i in range(3)]
    assert len(notes) == 1 and (left in notes[0] if left else "left out" not in notes[0])


def test_equal_names_are_plain_and_need_no_word(tmp_path):
    notes = []
    write(tmp_path, ["_color"], picture_ending="_color")
    assert len(find_examples(tmp_path, notes=notes)) == 3 and notes == []


def test_the_version_that_most_pictures_have_is_taken_and_what_lacks_is_told(tmp_path):
    write(tmp_path, ["", "_labelIds"])
    (tmp_path / "labels/p1.png").unlink()
    assert {example.label.name for example in find_examples(tmp_path)} == {f"p{i}_labelIds.png" for i in range(3)}
    (tmp_path / "labels/p2_labelIds.png").unlink()
    with pytest.raises(ValueError, match="lacks the label map of p1"):
        find_examples(tmp_path)


def test_instance_maps_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="_instanceIds files alone, which number instances"):
        find_examples(write(tmp_path, ["_gtFine_instanceIds"]))


@pytest.mark.parametrize("endings, stored", [(["", "_labelTrainIds"], False), (["_labelTrainIds"], True)])
def test_coco_stuff_s_versions_have_their_own_numbering(tmp_path, endings, stored):
    write(tmp_path, endings, "images/train2017", "stuffthingmaps/train2017")
    notes = []
    table = open_dataset(tmp_path, "coco_stuff", notes=notes).table
    # The originals store 170 for the class that train ids call 159.
    assert table[[0, 12, 255]].tolist() == ([0, 12, 255] if stored else [0, 11, 255])
    assert (table[11] == 11) == stored and any("from 0 to 170" in note for note in notes) == stored
    assert training_part(tmp_path, "coco_stuff")[1].file_ids[11] == (11 if stored else 12)
