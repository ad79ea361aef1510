"""Label maps that are probably not what was meant: masks, stretched ids, one class, instance maps;
and `--map`.
"""

import numpy as np
import pytest
from PIL import Image
from support.refusals import refusal

from jseg.data.census import Census
from jseg.data.classes import CLASS_SETS
from jseg.data.datasets import open_dataset
from jseg.data.examples import check_examples
from jseg.data.image_folder import find_examples
from jseg.data.numbering import Numbering, with_map
from jseg.images import save_image


def made(root, ids, count=6, mode="L", deep=0):
    """Images, and label maps that hold these ids alike, as 8-bit gray, 1 bit or a gray palette;
    `deep` in place of 2, in 16 bits.
    """
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        save_image(root / "images" / f"p{i}.jpg", np.full((12, 16, 3), 9 * i, np.uint8))
        label = Image.fromarray(np.resize(np.array(ids, np.uint8), (12, 16)))
        if deep:
            Image.fromarray(np.where(np.array(label) == 2, deep, label).astype(np.uint16)).save(
                root / "labels" / f"p{i}.png"
            )
            continue
        if mode == "P":
            label = label.point(lambda value: 255 - value).convert("P")
            label.putpalette([255 - i // 3 for i in range(768)])
        label.convert(mode).save(root / "labels" / f"p{i}.png")
    return root


MASK = "0 and 255: a black-and-white mask? save 0 and 1, or --map 255:1"


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("classes", [None, 2])
def test_black_and_white_masks_are_refused_with_the_remedy(tmp_path, mode, classes):
    root = made(tmp_path / "d", [0, 255], mode=mode)
    assert MASK in refusal(lambda: open_dataset(root, "folders", classes).check())
    assert MASK in refusal(
        lambda: check_examples(find_examples(root)[0], CLASS_SETS["landscape-29"], (), 16, 12)
    )


def test_deep_masks_are_masks(tmp_path):
    root = made(tmp_path / "d", [0, 1])
    for path in (root / "labels").iterdir():
        Image.fromarray((np.array(Image.open(path)) * 65535).astype(np.uint16)).save(path)
    assert "0 and 65535: a black-and-white mask? save 0 and 1, or --map 65535:1" in refusal(
        lambda: open_dataset(root, "folders")
    )
    data = open_dataset(root, "folders", mapped=["65535:1"])
    assert len(data.classes) == 2 and data.check()[1][-1].startswith("2 of 2 classes are present")
    assert set(np.unique(data.load(data.train[0])[1])) == {0, 1}
    assert "--ignore 65535" in refusal(
        lambda: open_dataset(made(tmp_path / "e", [0, 1, 2], deep=65535), "folders")
    )
    assert len(open_dataset(tmp_path / "e", "folders", ignore=(65535,)).classes) == 2


def test_what_a_person_ignores_on_purpose_is_no_suspicion(tmp_path):
    """test and score warn of a mask, for one class and void are a label map too."""
    root = made(tmp_path / "d", [0, 255])
    for ignore, lines in (((), [f"warning: the label maps hold {MASK}"]), ((255,), [])):
        census, numbering = Census(), Numbering.of(CLASS_SETS["landscape-29"], ignore)
        for path in (root / "labels").iterdir():
            numbering.read(path, census)
        assert census.warnings(numbering, named=ignore) == lines


def test_a_mask_of_one_bit_has_two_classes(tmp_path):
    data = open_dataset(made(tmp_path / "d", [0, 255], mode="1"), "folders")
    assert data.check()[1][-1] == "2 of 2 classes are present; 0.0 % of the pixels are ignored"


@pytest.mark.parametrize(
    "ids, words",
    [
        ([0, 127, 254], "--map 127:1 254:2"),
        ([0, 85, 170, 255], "--map 85:1 170:2 255:3"),
        ([0, 128], "--map 128:1"),
    ],
)
def test_stretched_ids_are_refused_where_classes_are_counted_and_told_where_they_are_unknown(
    tmp_path, ids, words
):
    root = made(tmp_path / "d", ids)
    assert words in refusal(lambda: open_dataset(root, "folders"))
    assert words in refusal(lambda: open_dataset(root, "folders", 2).check())
    assert len(open_dataset(root, "folders", mapped=words.split()[1:]).classes) == len(ids)


def test_hundreds_of_classes_are_refused_unless_they_are_given(tmp_path):
    root = made(tmp_path / "d", [0, 3, 77, 231])
    assert "232 classes counted" in refusal(lambda: open_dataset(root, "folders"))
    assert (
        open_dataset(root, "folders", 232).check()[1][-1].startswith("4 of 232 classes are present")
    )


@pytest.mark.parametrize(
    "ids, words", [([1], "one class alone remains (class 1)"), ([7], "all pixels are ignored")]
)
def test_what_teaches_nothing_is_refused_and_told_by_the_other_training(tmp_path, ids, words):
    root = made(tmp_path / "d", ids)
    assert words in refusal(lambda: open_dataset(root, "folders", 3, ignore=(7,)).check())
    _, notes = check_examples(find_examples(root)[0], CLASS_SETS["landscape-29"], (7,), 16, 12)
    assert any("warning" in note and words.split("(")[0] in note for note in notes)


def test_present_and_absent_classes_and_the_ignored_share_are_told(tmp_path):
    root = made(tmp_path / "d", [0, 1, 1, 3, 255, 255, 255, 255])
    assert open_dataset(root, "folders", 5).check()[1][1:] == [
        "3 of 5 classes are present, absent: class 2, class 4; 50.0 % of the pixels are ignored"
    ]


def test_map_reads_a_value_as_another_and_wins_over_ignored_ones(tmp_path):
    root = made(tmp_path / "d", [0, 255])
    data = open_dataset(root, "folders", mapped=["255:1"])
    assert set(np.unique(data.load(data.train[0])[1])) == {0, 1} and len(data.classes) == 2
    assert data.check()[1][-1] == "2 of 2 classes are present; 0.0 % of the pixels are ignored"
    named = with_map(CLASS_SETS["ade20k-150"], ["200:sky", "201:1", "202:0"])
    assert Numbering.of(named).table[[200, 201, 202, 203]].tolist() == [2, 0, 255, -1]
    assert (Numbering.of(named).table != Numbering.of(CLASS_SETS["ade20k-150"]).table).sum() == 3


@pytest.mark.parametrize(
    "words, ignore, message",
    [
        (["255"], (), "expected VALUE:CLASS"),
        (["4294967296:1"], (), "VALUE of 0 or more"),
        (["-1:1"], (), "VALUE of 0 or more"),
        (["x:1"], (), "expected VALUE:CLASS"),
        (["255:151"], (), "151 is no class of ade20k-150"),
        (["255:cloud"], (), "cloud is no class"),
        (["255:1", "255:2"], (), "255 twice"),
        (["255:1"], (255,), "to --map and to --ignore"),
    ],
)
def test_a_wrong_map_is_told_in_one_line(words, ignore, message):
    assert message in refusal(lambda: with_map(CLASS_SETS["ade20k-150"], words, ignore))
