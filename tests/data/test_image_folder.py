"""Training folders: every image with its label map, in an order that nothing can change, every
fault in one line before any work.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.faults import all_of, cut, dangling, drawn, emptied, moved, new_folder, removed
from support.refusals import refusal

from jseg.data.classes import CLASS_SETS, load_classes
from jseg.data.examples import (
    Example,
    check_examples,
    contents_of,
    load_image,
    load_label,
    with_digests,
)
from jseg.data.image_folder import find_examples, find_images
from jseg.data.numbering import Numbering
from jseg.files import sha256
from jseg.images import read_image, save_image

STEMS = ["c", "a", "b.1"]


def image(width=64, height=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def label_map(width=64, height=48, seed=0, ids=29):
    return np.random.default_rng(seed).integers(0, ids, (height, width), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A training folder in the challenge's layout: three examples, made out of order."""
    folder = tmp_path / "train"
    for name in ("imgs", "labels"):
        (folder / name).mkdir(parents=True)
    for seed, stem in enumerate(STEMS):
        save_image(folder / "imgs" / (stem + ".jpg"), image(seed=seed))
        save_image(folder / "labels" / (stem + ".png"), label_map(seed=seed))
    return folder


def stems(examples):
    return [example.stem for example in examples]


# -- finding ---------------------------------------------------------------------------------------


def test_examples_are_complete_sorted_and_paired_by_their_whole_stem(folder):
    examples = find_examples(folder)[0]
    # release: the order of os.listdir, and `name.split('.')[0]`, so that b.1.jpg is paired with
    # b.png; here: sorted, whole stems.
    assert stems(examples) == ["a", "b.1", "c"]
    assert [example.image for example in examples] == [
        folder / "imgs" / name for name in ("a.jpg", "b.1.jpg", "c.jpg")
    ]
    assert [example.label for example in examples] == [
        folder / "labels" / name for name in ("a.png", "b.1.png", "c.png")
    ]
    checked, remarks = check_examples(examples, 29, (), 64, 48)
    assert remarks == [] and [example.stem for example in checked] == ["a", "b.1", "c"]
    assert checked[0].image_sha256 == sha256(examples[0].image)
    assert checked[0].label_sha256 == sha256(examples[0].label) and not checked[0].by_colour
    assert checked[0].pixels == 64 * 48
    assert with_digests(examples[0], Numbering.of(29)) == checked[0]


def test_order_is_that_of_the_stems_not_of_the_file_names(folder):
    save_image(folder / "imgs" / "a-1.jpg", image())
    save_image(folder / "labels" / "a-1.png", label_map())
    assert sorted(path.name for path in (folder / "imgs").iterdir())[:2] == ["a-1.jpg", "a.jpg"]
    assert (
        stems(find_examples(folder)[0]) == stems(find_images(folder)[0]) == ["a", "a-1", "b.1", "c"]
    )


def test_order_does_not_depend_on_the_file_system(folder, monkeypatch):
    expected = find_examples(folder)[0]
    iterdir = Path.iterdir
    for reverse in (False, True):
        monkeypatch.setattr(
            Path,
            "iterdir",
            lambda self, reverse=reverse: iter(sorted(iterdir(self), reverse=reverse)),
        )
        assert find_examples(folder)[0] == expected


@pytest.mark.parametrize(
    "clutter", [".DS_Store", "Thumbs.db", "._a.png", ".hidden.jpg", "notes.txt"]
)
def test_clutter_is_skipped(folder, clutter):
    for name in ("imgs", "labels"):
        (folder / name / clutter).write_bytes(b"x")
        (folder / name / "folder.png").mkdir()
    assert stems(find_examples(folder)[0]) == stems(find_images(folder)[0]) == ["a", "b.1", "c"]


def test_other_folder_names_and_suffixes(folder):
    (folder / "imgs").rename(folder / "images")
    (folder / "labels").rename(folder / "annotations")
    (folder / "images" / "a.jpg").rename(folder / "images" / "a.JPEG")
    save_image(folder / "images" / "d.png", image())
    save_image(folder / "annotations" / "d.png", label_map())
    assert [
        example.image.name for example in find_examples(folder)[0]
    ] == "a.JPEG b.1.jpg c.jpg d.png".split()


def test_two_image_folders_are_named_and_an_empty_one_does_not_count(folder):
    (folder / "images").mkdir()
    examples, remarks = find_examples(folder)
    assert len(examples) == 3 and remarks == []
    (folder / "imgs").rename(folder / "spare")
    (folder / "imgs").mkdir()
    for path in (folder / "spare").iterdir():
        path.rename(folder / "images" / path.name)
    examples, remarks = find_examples(folder)
    assert examples[0].image.parent.name == "images" and remarks == []
    for name in STEMS:
        save_image(folder / "imgs" / f"{name}.png", image())
    examples, remarks = find_examples(folder)
    assert examples[0].image.parent.name == "imgs"
    assert len(remarks) == 1 and "both imgs and images; using imgs, 3 files" in remarks[0]


def test_images_alone_are_found_in_imgs_or_directly(folder):
    found = find_images(folder)[0]
    assert stems(found) == ["a", "b.1", "c"] and {example.label for example in found} == {None}
    assert [example.image for example in find_images(folder / "imgs")[0]] == [
        example.image for example in found
    ]


def test_composed_and_decomposed_names_are_the_same(folder):
    save_image(folder / "imgs" / "fe\u0301e.jpg", image())
    save_image(folder / "labels" / "f\u00e9e.png", label_map())
    example = find_examples(folder)[0][-1]
    assert example.stem == "f\u00e9e" and example.image.exists() and example.label.exists()


# -- faults ----------------------------------------------------------------------------------------


def test_contents_count_where_the_size_says_nothing(tmp_path):
    """Uncompressed files keep their size whatever they show; of others the size is enough."""
    found = []
    for ids in (0, 1):
        for name, suffix in (("a", ".bmp"), ("b", ".png")):
            Image.fromarray(np.full((4, 4), ids, np.uint8)).save(tmp_path / (name + suffix))
        found.append(
            contents_of(
                [
                    Example("a", tmp_path / "a.jpg", tmp_path / "a.bmp"),
                    Example("b", tmp_path / "b.png"),
                ]
            )
        )
    assert found[0] != found[1] and contents_of([Example("b", tmp_path / "b.png")]) == ""


def test_previews_beside_label_maps_are_left_out(folder):
    for stem in "ac":
        (folder / "labels" / f"{stem}.webp").write_bytes(b"x")
        (folder / "labels" / f"{stem}_vis.gif").write_bytes(b"x")
    examples, remarks = find_examples(folder)
    assert len(examples) == 3
    assert any("4 other files in" in remark and "a.webp" in remark for remark in remarks)


def rename_all(place, pattern):
    return lambda folder: [
        path.rename(path.with_name(pattern % path.stem))
        for path in list((folder / place).iterdir())
    ]


# What the one line holds, and what was done to a sound folder.
FAULTS = {
    "training folder | does not exist": moved(".", "../moved"),
    "has no folder imgs or images | expected imgs/*.jpg": moved("imgs", "photos"),
    "has no folder labels or annotations | labels/*.png": moved("labels", "maps"),
    "imgs or images, but folders (Imgs, labels) | rename Imgs to imgs": moved("imgs", "Imgs"),
    "no folder labels | rename Labels to labels": moved("labels", "Labels"),
    "imgs holds no *.jpg, *.jpeg | expected": emptied("imgs"),
    "labels holds no *.png | expected": emptied("labels"),
    "labels holds no *.png": rename_all("labels", "%s.npy"),
    "but folders (train)": all_of(emptied("imgs"), new_folder("imgs/train")),
    "labels lacks the label map of a.jpg | one label map": removed("labels/a.png"),
    "imgs lacks the image of c.png | remove": removed("imgs/c.jpg"),
    "label map of a.jpg and | image of c.png": removed("imgs/c.jpg", "labels/a.png"),
    "none of the 3 images | (a.jpg) | (a_X.png) | rename": rename_all("labels", "%s_X.png"),
    "both a.jpg and a.png | remove one": drawn("imgs/a.png", image()),
    "a.png | outside 0..28: 29 (100 %) | --ignore": drawn("labels/a.png", label_map() * 0 + 29),
    "a.png | colour-coded": drawn("labels/a.png", image()),
    "c.jpg | truncated": cut("imgs/c.jpg", 300),
    "c.jpg | does not exist": dangling("imgs/c.jpg"),
    "image | 64x64 | 64x48 | crop": drawn("imgs/a.jpg", image(64, 64)),
    "label | 64x64 | 64x48 | crop": drawn("labels/a.png", label_map(64, 64)),
    "a.png | 1 more file | c.jpg": all_of(drawn("labels/a.png", image()), dangling("imgs/c.jpg")),
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_one_line_that_names_it_and_changes_nothing(folder, words):
    FAULTS[words](folder)
    before = sorted(str(path) for path in folder.parent.rglob("*"))
    message = refusal(lambda: check_examples(find_examples(folder)[0], 29, (), 64, 48))
    assert [word for word in words.split(" | ") if word not in message] == [], message
    assert sorted(str(path) for path in folder.parent.rglob("*")) == before


def test_many_faults_name_five_and_count_all(folder):
    for number in range(12):
        (folder / "imgs" / (f"n{number:02d}.jpg")).write_bytes(b"x")
    assert "12 files (n00.jpg, n01.jpg, n02.jpg, n03.jpg, n04.jpg, ...)" in refusal(
        find_examples, folder
    )


def test_images_alone_have_their_own_words(folder):
    emptied("imgs")(folder)
    assert "expected images in it" in refusal(find_images, folder)
    assert "does not exist" in refusal(find_images, folder / "nowhere")


def test_images_alone_in_a_folder_in_capitals_are_pointed_at(folder):
    (folder / "imgs").rename(folder / "Images")
    message = refusal(find_images, folder)
    assert "but folders (Images, labels)" in message and message.endswith("rename Images to images")


def test_the_parent_folder_gets_a_hint(folder):
    assert f"did you mean {folder}?" in refusal(find_examples, folder.parent)
    assert f"did you mean {folder}?" in refusal(find_examples, folder / "imgs")


# -- ids -------------------------------------------------------------------------------------------


def test_what_is_unusual_is_told_once_per_kind(folder):
    save_image(folder / "imgs" / "a.jpg", image(128, 96))
    save_image(folder / "imgs" / "c.jpg", image(32, 24))
    save_image(
        folder / "labels" / "a.png", np.where(label_map() == 3, 255, label_map()).astype(np.uint8)
    )
    _, notes = check_examples(find_examples(folder)[0], 29, (255,), 64, 48)
    assert len(notes) == 2
    assert any(
        note.startswith("2 images of another size") and "a.jpg, c.jpg" in note for note in notes
    )
    assert any("ignored ids" in note and "(a.png)" in note for note in notes)


# As stored -> as trained. ADE20K stores 0 for "no class" and 1..150; COCO-Stuff 0..181 with gaps;
# CamVid 0..10, 11 for "no class".
STORED = {
    "ade20k-150": ([0, 1, 150], [255, 0, 149], 151, "outside 1..150: 151 (100 %)"),
    "coco-stuff-171": (
        [0, 12, 181, 255],
        [0, 11, 170, 255],
        11,
        "outside 0..181 (with gaps): 11 (100 %)",
    ),
    "camvid-11": ([0, 10, 11], [0, 10, 255], 12, "outside 0..10: 12 (100 %)"),
    "landscape-29": ([0, 28, 255], [0, 28, 255], 29, "outside 0..28: 29 (100 %)"),
}


@pytest.mark.parametrize("name", sorted(STORED))
def test_ids_are_read_as_the_data_set_stores_them(folder, name):
    stored, trained, unknown, words = STORED[name]
    columns = np.arange(64) % len(stored)
    save_image(folder / "labels" / "a.png", np.tile(np.array(stored, np.uint8)[columns], (48, 1)))
    example = find_examples(folder)[0][0]
    check_examples([example], CLASS_SETS[name], (), 64, 48)
    label = load_label(example, 64, 48, Numbering.of(CLASS_SETS[name]))
    assert label.dtype == np.uint8
    assert np.array_equal(label, np.tile(np.array(trained)[columns], (48, 1)))
    save_image(folder / "labels" / "a.png", np.full((48, 64), unknown, np.uint8))
    assert words in refusal(check_examples, [example], CLASS_SETS[name], (), 64, 48)
    assert words in refusal(load_label, example, 16, 12, Numbering.of(CLASS_SETS[name]))
    assert check_examples([example], CLASS_SETS[name], (unknown,), 64, 48)[1]
    numbering = Numbering.of(CLASS_SETS[name], (unknown,))
    assert (load_label(example, 16, 12, numbering) == 255).all()


def test_a_file_of_classes_and_a_class_that_is_ignored(folder):
    (folder / "classes.txt").write_text("ground\nsky\nignore 7\n")
    save_image(folder / "labels" / "a.png", np.tile(np.array([0, 1, 7, 1], np.uint8), (48, 16)))
    example, classes = find_examples(folder)[0][0], load_classes(folder / "classes.txt")
    check_examples([example], classes, (), 64, 48)
    label = load_label(example, 64, 48, Numbering.of(classes, (0,)))
    assert label[0, :4].tolist() == [255, 1, 255, 1]
    save_image(folder / "labels" / "a.png", np.full((48, 64), 3, np.uint8))
    assert "the classes, all of which are ignored" in refusal(
        check_examples, [example], 2, (0, 1), 64, 48
    )


# -- loading ---------------------------------------------------------------------------------------


def test_labels_go_straight_to_the_latent_s_size_as_in_the_release(folder):
    stored = label_map(512, 384)
    save_image(folder / "labels" / "a.png", stored)
    save_image(folder / "imgs" / "a.jpg", image(512, 384))
    example = find_examples(folder)[0][0]
    label = load_label(example, 128, 96, Numbering.of(256, (3, 5)))
    # release: `label.resize((128, 96), Image.NEAREST)`
    expected = np.array(Image.fromarray(stored).resize((128, 96), Image.NEAREST))
    assert np.array_equal(label, np.where(np.isin(expected, (3, 5)), 255, expected))
    assert (label == 255).any()
    shown = load_image(example, 256, 192)
    assert shown.dtype == np.uint8 and shown.shape == (192, 256, 3)
    assert np.array_equal(load_image(example, 512, 384), read_image(example.image))


def test_without_a_label_map_nothing_is_known(folder):
    label = load_label(Example("a", folder / "imgs" / "a.jpg"), 16, 12, Numbering.of(29))
    assert label.shape == (12, 16) and label.dtype == np.uint8 and (label == 255).all()


# -- another aspect ratio --------------------------------------------------------------------------


def test_another_aspect_ratio_names_the_two_options_and_each_is_taken_and_said(folder):
    save_image(folder / "imgs" / "a.jpg", image(48, 48))
    save_image(folder / "labels" / "a.png", label_map(24, 24))
    examples = find_examples(folder)[0]
    message = refusal(lambda: check_examples(examples, 29, (), 64, 48, fit=""))
    assert "48x48" in message and "--fit crop" in message and "--fit resize" in message
    for fit, words in (("crop", "cut to their middle"), ("resize", "stretched")):
        _, notes = check_examples(examples, 29, (), 64, 48, fit=fit)
        assert any(
            words in note and note.startswith("images ") and "(a.jpg)" in note for note in notes
        )
    save_image(folder / "labels" / "a.png", label_map(64, 48))
    assert "expected 48x48, its image's size" in refusal(
        lambda: check_examples(examples, 29, (), 64, 48, fit="crop")
    )


@pytest.mark.parametrize("width, height", [(48, 48), (90, 30)])
def test_fit_takes_the_middle_or_all_of_image_and_label_map_alike(folder, width, height):
    stored = label_map(width, height)
    save_image(folder / "imgs" / "a.png", np.repeat(stored[..., None] * 8, 3, axis=2))
    (folder / "imgs" / "a.jpg").unlink()
    save_image(folder / "labels" / "a.png", stored)
    example, numbering = find_examples(folder)[0][0], Numbering.of(29)
    # 4 : 3 of 48x48 is 48x36, of 90x30 is 40x30.
    middle = stored[6:42] if width == 48 else stored[:, 25:65]
    size = middle.shape[::-1]
    assert np.array_equal(load_label(example, *size, numbering, "crop"), middle)
    assert np.array_equal(load_image(example, *size, "crop")[..., 0] // 8, middle)
    stretched = np.array(Image.fromarray(stored).resize((16, 12), Image.NEAREST))
    assert np.array_equal(load_label(example, 16, 12, numbering, "resize"), stretched)
