"""Finding, pairing and checking the challenge's files: sorted, complete, and every fault told in
one line before any work.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.faults import all_of, cut, dangling, drawn, emptied, moved, removed, written

from jseg import images
from jseg.data.challenge import (
    batches,
    check_pairs,
    find_label_folder,
    find_pairs,
    load_pair,
)
from jseg.data.label_maps import fractions, read_label
from jseg.data.references import near_name
from jseg.data.validation import same_aspect
from jseg.files import DataError, sha256


def label_map(width=512, height=384, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 29, (6, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.NEAREST))


def photograph(width=512, height=384):
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [rows * 255 // height, columns * 255 // width, np.full_like(rows, 90)], axis=-1
    ).astype(np.uint8)


@pytest.fixture
def challenge(tmp_path):
    """A small challenge folder: three labels out of order, B board, references under train/imgs."""
    labels, references = tmp_path / "test" / "val_B_labels_resized", tmp_path / "train" / "imgs"
    labels.mkdir(parents=True)
    references.mkdir(parents=True)
    for number, stem in enumerate(["c", "a", "b.1"]):
        images.save_image(labels / (stem + ".png"), label_map(seed=number))
        images.save_image(references / (f"ref_{stem}.jpg"), photograph())
    write_table(tmp_path, {"c.png": "ref_c.jpg", "a.png": "ref_a.jpg", "b.1.png": "ref_b.1.jpg"})
    return tmp_path


def write_table(root, table, folder="test"):
    text = (
        table if isinstance(table, str) else json.dumps(table)
    )  # ASCII; a byte of no UTF-8 becomes an escape
    (root / folder / "label_to_img.json").write_text(text, encoding="utf-8")


def pairs_of(root):
    return find_pairs(root / "test", root / "train")[0]


def remarks_of(root):
    return find_pairs(root / "test", root / "train")[1]


def labels_of(root):
    return root / "test" / "val_B_labels_resized"


def listing(root):
    return sorted((str(path), path.lstat().st_size) for path in root.rglob("*"))


# -- finding ---------------------------------------------------------------------------------------


def test_pairs_are_complete_sorted_and_named_by_their_whole_stem(challenge):
    pairs, notes = find_pairs(challenge / "test", challenge / "train")
    # release: `name.split('.')[0]`, so b.1.png and b.2.png would both be written to b.jpg; here:
    # the whole stem.
    assert [pair.stem for pair in pairs] == ["a", "b.1", "c"]
    assert [pair.label.name for pair in pairs] == ["a.png", "b.1.png", "c.png"]
    assert [pair.reference.name for pair in pairs] == ["ref_a.jpg", "ref_b.1.jpg", "ref_c.jpg"]
    checked, remarks = check_pairs(pairs)
    assert notes == [] and remarks == []
    assert checked[0] == replace(
        pairs[0],
        label_sha256=sha256(pairs[0].label),
        reference_sha256=sha256(pairs[0].reference),
    )


def test_order_does_not_depend_on_the_file_system(challenge, monkeypatch):
    expected = pairs_of(challenge)
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=True)))
    assert pairs_of(challenge) == expected


@pytest.mark.parametrize(
    "clutter", [".DS_Store", "Thumbs.db", "._a.png", ".hidden.png", "notes.txt", "a.jpg"]
)
def test_clutter_is_skipped(challenge, clutter):
    (labels_of(challenge) / clutter).write_bytes(b"x")
    (labels_of(challenge) / "folder.png").mkdir()
    assert len(pairs_of(challenge)) == 3


@pytest.mark.parametrize("itself", [False, True])
def test_what_a_folder_of_label_maps_holds_besides_is_counted(challenge, itself):
    for name in ("a.gif", "d.gif", "e.npy", "notes.txt", "more/f.png", "more/deep/g.tif"):
        (labels_of(challenge) / name).parent.mkdir(parents=True, exist_ok=True)
        (labels_of(challenge) / name).write_bytes(b"x")
    given = labels_of(challenge) if itself else challenge / "test"
    pairs, remarks = find_pairs(given, challenge / "train")
    assert len(pairs) == 3
    assert remarks == [
        f"2 other files in {labels_of(challenge)} are left out (e.npy, notes.txt)",
        f"2 files in folders of {labels_of(challenge)} are left out (more: 2); folders in it are "
        "not looked at",
        f"2 files beside the label maps in {labels_of(challenge)} are left out (a.gif, d.gif)",
    ]


def test_a_label_map_may_be_a_gif_where_the_table_names_it(challenge):
    labels = labels_of(challenge)
    Image.fromarray(read_label(labels / "a.png")).save(labels / "a.gif")
    (labels / "a.png").unlink()
    assert [pair.label.name for pair in pairs_of(challenge)] == ["a.gif", "b.1.png", "c.png"]


def test_references_beside_their_folders_go_before_those_in_images(challenge):
    """As many in both: what lies in the given folder itself was always taken."""
    place = challenge / "more"
    for folder in (place, place / "images"):
        folder.mkdir()
        for path in (challenge / "train" / "imgs").iterdir():
            shutil.copy(str(path), str(folder))
    assert {pair.reference.parent for pair in find_pairs(challenge / "test", place)[0]} == {place}


def test_a_label_map_of_a_rare_kind_that_the_table_does_not_name_is_told(challenge):
    labels = labels_of(challenge)
    for path in labels.glob("*.png"):
        path.rename(path.with_suffix(".gif"))
    (challenge / "test" / "label_to_img.json").write_text('{"y.png": "a.jpg"}')
    with pytest.raises(DataError, match="has no entry for 3 files"):
        pairs_of(challenge)


def test_a_folder_is_not_proposed_for_itself(challenge):
    """A table without its label maps: the folder fits but for what it lacks."""
    alone = challenge / "alone"
    alone.mkdir()
    shutil.copy(str(challenge / "test" / "label_to_img.json"), str(alone))
    with pytest.raises(DataError) as error:
        find_label_folder(alone)
    assert "nor any label map" in str(error.value)
    assert f"did you mean {alone}?" not in str(error.value)


def test_label_maps_beside_their_folder_are_counted(challenge):
    images.save_image(challenge / "test/z.png", label_map())
    assert len(pairs_of(challenge)) == 3
    assert remarks_of(challenge) == [
        f"1 label map in {challenge / 'test'} itself is left out, those in val_B_labels_resized "
        "are taken (z.png)"
    ]


def test_label_folder_may_be_given_itself_or_be_the_a_board(challenge):
    for references in (challenge / "train", challenge / "train" / "imgs"):
        pairs, _ = find_pairs(labels_of(challenge), references)
        assert [pair.stem for pair in pairs] == ["a", "b.1", "c"]
    a_board = challenge / "test" / "val_A_labels_resized"
    labels_of(challenge).rename(a_board)
    assert find_label_folder(challenge / "test") == (a_board, [])
    labels_of(challenge).mkdir()
    assert find_label_folder(challenge / "test") == (a_board, [])  # an empty B does not count


def test_both_boards_mean_b_and_it_is_said_once(challenge):
    a_board = challenge / "test" / "val_A_labels_resized"
    a_board.mkdir()
    images.save_image(a_board / "z.png", label_map())
    assert len(pairs_of(challenge)) == 3
    assert remarks_of(challenge) == [
        f"{challenge / 'test'} holds both val_B_labels_resized and val_A_labels_resized; using "
        "val_B_labels_resized, the 1 label map of val_A_labels_resized is left out"
    ]


def test_table_beside_or_inside_the_label_folder(challenge):
    table = challenge / "test" / "label_to_img.json"
    inside = labels_of(challenge) / "label_to_img.json"
    table.rename(inside)
    assert len(pairs_of(challenge)) == 3
    assert len(find_pairs(labels_of(challenge), challenge / "train")[0]) == 3
    shutil.copy(str(inside), str(table))
    inside.write_text("{}")
    assert len(pairs_of(challenge)) == 3  # the one in input_path counts
    assert remarks_of(challenge) == [f"using {table}, not {inside}"]


def test_table_keys_with_or_without_suffix_and_with_byte_order_mark(challenge):
    text = json.dumps(
        {"c": "ref_c.jpg", "a.PNG": "ref_a.jpg", "b.1": "ref_b.1.jpg", "unused.png": "x.jpg"}
    )
    (challenge / "test" / "label_to_img.json").write_text(text, encoding="utf-8-sig")
    names = [pair.reference.name for pair in pairs_of(challenge)]
    assert names == ["ref_a.jpg", "ref_b.1.jpg", "ref_c.jpg"]
    (remark,) = remarks_of(challenge)
    assert "1 of 4 entries" in remark


def test_composed_and_decomposed_names_are_the_same(challenge):
    images.save_image(labels_of(challenge) / "fe\u0301e.png", label_map())
    images.save_image(challenge / "train" / "imgs" / "e\u0301.png", photograph())
    write_table(
        challenge,
        {"c": "ref_c.jpg", "a": "ref_a.jpg", "b.1": "ref_b.1.jpg", "f\u00e9e.png": "\u00e9.png"},
    )
    assert pairs_of(challenge)[-1].reference.name == "e\u0301.png"


@pytest.mark.parametrize(
    "name",
    [
        "\u56fe\u3000\u7247",
        "a\u202fb",
        "a\u00a0b",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u200f\u05d0",
        "\ue000",
        b"\xc4\xe3".decode("utf-8", "surrogateescape"),
    ],
)
def test_a_reference_may_have_every_name_that_a_file_can_have(challenge, name):
    images.save_image(challenge / "train/imgs/new.jpg", photograph())
    (challenge / "train/imgs/new.jpg").rename(challenge / f"train/imgs/{name}.jpg")
    write_table(challenge, {"c": "ref_c.jpg", "a": f"{name}.jpg", "b.1": "ref_b.1.jpg"})
    assert pairs_of(challenge)[0].reference == challenge / f"train/imgs/{name}.jpg"


@pytest.mark.parametrize("place", ["imgs", "images", "."])
def test_references_are_taken_from_the_place_that_has_them(challenge, place):
    if place != "imgs":
        (challenge / "train/imgs").rename(challenge / "spare")
        for empty in ("imgs", "images"):
            (challenge / "train" / empty).mkdir()
        for path in list((challenge / "spare").iterdir()):
            path.rename(challenge / "train" / place / path.name)
    assert {pair.reference.parent for pair in pairs_of(challenge)} == {challenge / "train" / place}


# Short names in these encodings are valid UTF-8 by chance.
@pytest.mark.parametrize(
    "text, encoding, said",
    [
        ("\u56fe\u7247", "gbk", "GBK"),
        ("\u5a92\u7247", "gbk", "GBK"),
        ("\u860b", "big5", "Big5"),
        ("\uff84\uff71", "shift_jis", "Shift-JIS"),
    ],
)
@pytest.mark.parametrize("where", ["references", "label maps"])
def test_a_table_in_another_encoding_that_is_utf_8_by_chance_is_told_by_its_files(
    challenge, text, encoding, said, where
):
    text.encode(encoding).decode("utf-8")
    table = {"c.png": "ref_c.jpg", "a.png": "ref_a.jpg", "b.1.png": "ref_b.1.jpg"}
    if where == "references":
        (challenge / "train/imgs/ref_a.jpg").rename(challenge / f"train/imgs/{text}.jpg")
        table["a.png"] = text + ".jpg"
    else:
        (labels_of(challenge) / "a.png").rename(labels_of(challenge) / f"{text}.png")
        table[text + ".png"] = table.pop("a.png")
    (challenge / "test/label_to_img.json").write_bytes(
        json.dumps(table, ensure_ascii=False).encode(encoding)
    )
    with pytest.raises(
        DataError,
        match=f"it looks like {said}: read so, all of its files are there.; expected UTF-8, save "
        "it as UTF-8",
    ):
        pairs_of(challenge)


@pytest.mark.parametrize(
    "text, encoding", [("\u98ce\u666f", "gbk"), ("\u5716", "big5"), ("\u5c71", "shift_jis")]
)
def test_a_table_in_another_encoding_is_called_by_that_in_which_its_files_are_there(
    challenge, text, encoding
):
    (challenge / "train/imgs/ref_a.jpg").rename(challenge / f"train/imgs/{text}.jpg")
    table = {"c.png": "ref_c.jpg", "a.png": text + ".jpg", "b.1.png": "ref_b.1.jpg"}
    (challenge / "test/label_to_img.json").write_bytes(
        json.dumps(table, ensure_ascii=False).encode(encoding)
    )
    said = {"gbk": "GBK", "big5": "Big5", "shift_jis": "Shift-JIS"}[encoding]
    words = f"it looks like {said}: read so, all of its files are there"
    with pytest.raises(DataError, match=words):
        pairs_of(challenge)
    (challenge / f"train/imgs/{text}.jpg").unlink()
    with pytest.raises(DataError, match="not UTF-8 text .byte 0x"):
        pairs_of(challenge)


@pytest.mark.parametrize("codec", ["utf-8", "cp437"])
@pytest.mark.parametrize("encoding", ["gb18030", "big5"])
def test_names_that_an_unpacker_has_garbled_are_recognized(challenge, codec, encoding):
    text = "\u98a8"
    garbled = text.encode(encoding).decode(codec, "surrogateescape")
    (challenge / "train/imgs/ref_a.jpg").rename(challenge / f"train/imgs/{garbled}.jpg")
    write_table(challenge, {"c": "ref_c.jpg", "a": f"{text}.jpg", "b.1": "ref_b.1.jpg"})
    with pytest.raises(DataError) as error:
        pairs_of(challenge)
    assert f"lacks {text}.jpg" in str(error.value)
    assert f"{garbled}.jpg there is {text}.jpg in {encoding}: unpack the archive again" in str(
        error.value
    )


def test_one_reference_may_serve_many_labels(challenge, monkeypatch):
    write_table(challenge, {"c": "ref_c.jpg", "a": "ref_c.jpg", "b.1": "ref_c.jpg"})
    pairs = pairs_of(challenge)
    read = []
    original = images.examine_image
    monkeypatch.setattr(
        "jseg.data.validation.examine_image",
        lambda path, *what: read.append(path) or original(path, *what),
    )
    check_pairs(pairs)
    assert len(read) == 1


# -- checking and loading --------------------------------------------------------------------------


def test_other_sizes_and_modes_are_told_once_each(challenge):
    references = challenge / "train" / "imgs"
    images.save_image(labels_of(challenge) / "a.png", label_map(128, 96))
    images.save_image(labels_of(challenge) / "c.png", label_map(1024, 768))
    Image.fromarray(photograph(1024, 768)).convert("L").save(references / "ref_a.jpg")
    Image.fromarray(photograph(683, 512)).convert("CMYK").save(references / "ref_c.jpg")
    _, notes = check_pairs(pairs_of(challenge))
    assert [note[0] for note in notes] == ["2", "2", "r", "r"]
    assert not any("\n" in note for note in notes)
    assert any("label maps of another size" in note and "a.png, c.png" in note for note in notes)
    assert any("converted: L (" in note for note in notes)
    assert any("converted: CMYK (" in note for note in notes)


def test_loading_keeps_the_size_of_labels(challenge):
    label = label_map(1024, 768) // 2
    label[:2, :2] = 28
    images.save_image(labels_of(challenge) / "a.png", label)
    pair = pairs_of(challenge)[0]
    loaded, reference = load_pair(pair, 512, 384, ignore=(3, 5))
    assert loaded.dtype == np.uint8 and loaded.shape == (768, 1024)
    assert np.array_equal(loaded == 255, (label == 3) | (label == 5)) and (loaded == 255).any()
    assert np.array_equal(loaded[loaded != 255], label[loaded != 255])
    assert np.array_equal(reference, images.read_image(pair.reference))
    small = load_pair(pair, 256, 192)
    assert small[1].shape == (192, 256, 3) and 255 not in small[0]


def test_ignored_ids_are_allowed_and_told(challenge):
    label = label_map().copy()
    label[:10] = 255
    images.save_image(labels_of(challenge) / "a.png", label)
    _, notes = check_pairs(pairs_of(challenge), ignore=(255, 200))
    assert len(notes) == 1 and "ignored ids" in notes[0] and "a.png" in notes[0]


def test_palette_labels_are_read_by_index_and_told(challenge):
    label = Image.fromarray(label_map())
    label.putpalette(list(range(255, -1, -1)) * 3)
    label.save(labels_of(challenge) / "a.png")
    _, notes = check_pairs(pairs_of(challenge))
    assert len(notes) == 1 and "palette" in notes[0] and "a.png" in notes[0]
    assert np.array_equal(load_pair(pairs_of(challenge)[0], 512, 384)[0], label_map())


def test_fractions_read_as_a_sentence():
    counts = np.bincount([0] * 41 + [3] * 20 + [255] * 2 + [7] * 37, minlength=256)
    ids = np.flatnonzero(counts)
    assert fractions(ids, counts[ids]) == "0 (41 %), 7 (37 %), 3 (20 %), 255 (2 %)"
    many = np.ones(256, int)
    many[4] = 100000
    line = fractions(np.arange(256), many)
    assert line.startswith("4 (100 %), 0 (<1 %)") and line.endswith("and 244 more")


@pytest.mark.parametrize(
    "size, same",
    [
        ((512, 384), True),
        ((128, 96), True),
        ((1024, 768), True),
        ((430, 318), False),
        ((430, 322), True),
        ((430, 323), True),
        ((683, 512), True),
        ((384, 512), False),
        ((512, 383), False),
        ((512, 512), False),
        ((4, 4), False),
        ((1, 1), True),
        ((1920, 1080), False),
    ],
)
def test_aspect_ratio_up_to_rounding(size, same):
    assert same_aspect(*size, 512, 384) == same


def test_batches_cover_every_item_once():
    # release: exact count, drop_last and endless loops for these numbers; here: every item once, in
    # order.
    for count in (0, 1, 4, 5, 6, 999, 1000, 1001):
        parts = batches(list(range(count)), 5)
        assert sum(parts, []) == list(range(count)) and all(len(part) == 5 for part in parts[:-1])
    with pytest.raises(ValueError, match="1 or more"):
        batches([1], 0)


# -- malformed inputs ------------------------------------------------------------------------------


def relabelled(ids, pixels):
    """The first pixels of a label map have those ids in turn."""
    label = label_map().copy()
    label.flat[:pixels] = np.resize(ids, pixels)
    return drawn("test/val_B_labels_resized/b.1.png", label)


def table(content):
    return lambda root: write_table(root, content)


def renamed_reference(name):
    return moved("train/imgs/ref_a.jpg", f"train/imgs/{name}")


LABELS, REFERENCES, TABLE = "test/val_B_labels_resized", "train/imgs", "test/label_to_img.json"
TWO_FAULTS = all_of(cut(f"{REFERENCES}/ref_c.jpg", 3000), cut(f"{LABELS}/a.png", 200))
# What the one line holds, and what was done to a sound folder.
MALFORMED = {
    "b.1.png | outside 0..28: 29 (<1 %); ids found: ": relabelled(29, pixels=1),
    "b.1.png | outside 0..28: 29 (12 %), 255 (12 %); ids found": relabelled(
        np.repeat([29, 255], 256), pixels=96 * 512
    ),
    "a.png | outside 0..28: 29 (<1 %), 30 | 215 more; ids found: 0 (<1 %) | and 244 more;": drawn(
        f"{LABELS}/a.png", np.resize(np.arange(256, dtype=np.uint8), (384, 512))
    ),
    "a.png | colour-coded | 8-bit single-channel": drawn(f"{LABELS}/a.png", photograph()),
    "a.png | outside 0..28: 3 | more; ids found: 3": drawn(
        f"{LABELS}/a.png", (label_map() + 300).astype(np.uint16)
    ),
    "a.png | truncated": cut(f"{LABELS}/a.png", 200),
    "a.png | 0 bytes": cut(f"{LABELS}/a.png", 0),
    "a.png | does not exist": dangling(f"{LABELS}/a.png"),
    "a.png | 512x512 | 512x384 | crop": drawn(f"{LABELS}/a.png", label_map(512, 512)),
    "ref_a.jpg | 300x400 | 512x384": drawn(f"{REFERENCES}/ref_a.jpg", photograph(300, 400)),
    "ref_c.jpg | truncated | copy": cut(f"{REFERENCES}/ref_c.jpg", 3000),
    "ref_c.jpg | not an image": written(f"{REFERENCES}/ref_c.jpg", "<html>"),
    "a.png | 1 more file | ref_c.jpg": TWO_FAULTS,
    "label_to_img.json | no entry for a.png": table({"c": "ref_c.jpg", "b.1": "ref_c.jpg"}),
    "3 files (a.png, b.1.png, c.png)": table({}),
    "lacks ref_a.jpg | label_to_img.json": removed(f"{REFERENCES}/ref_a.jpg"),
    "lacks ref_a.jpg | there is ref_a.png": renamed_reference("ref_a.png"),
    "there is Ref_a.JPG": renamed_reference("Ref_a.JPG"),
    "lacks 3 files | ref_a.jpg, ref_b.1.jpg, ref_c.jpg": emptied(REFERENCES),
    "no label_to_img.json | test": removed(TABLE),
    "label_to_img.json | not valid JSON | line 2": table('{"a": "b"\n "c"}'),
    "UTF-16 | save it as UTF-8": written(TABLE, b"\xff\xfe{}"),
    "not valid JSON": table("[" * 100000),
    "holds a list | expected": table(["a.png"]),
    "'a.png' is 3 | file name": table({"a.png": 3}),
    "'a.png' is a list or object": table({"a.png": {"x": 1}}),
    "'a.png' is \"\"": table({"a.png": ""}),
    "../x.jpg | file name": table({"a.png": "../x.jpg"}),
    '"x\\ny.jpg" | file name': table({"a.png": "x\ny.jpg"}),
    "'a.png' is \"x | file name": table({"a.png": "x\x7fy.jpg"}),
    "'a.png' is \"imgs | file name": table({"a.png": "imgs\\x.jpg"}),
    "two entries for a": table('{"a.png": "ref_a.jpg", "a.png": "ref_c.jpg"}'),
    "label_to_img.json has two entries for a": table({"a": "ref_a.jpg", "a.png": "ref_a.jpg"}),
    "a.PNG | a.png | one result": drawn(f"{LABELS}/a.PNG", label_map()),
    "val_B_labels_resized | no PNG": emptied(LABELS),
    "val_B_labels_resized | neither": moved(LABELS, "test/labels"),
    "label folder | does not exist": moved("test", "other"),
    "label folder | is a file": all_of(moved("test", "other"), written("test", "x")),
    "reference folder | does not exist": moved("train", "other"),
    "reference folder | is a file": all_of(moved("train", "other"), written("train", "x")),
}


@pytest.mark.parametrize("words", MALFORMED)
def test_malformed_inputs_give_one_line_and_touch_nothing(challenge, words):
    MALFORMED[words](challenge)
    before = listing(challenge)
    with pytest.raises(DataError) as error:
        check_pairs(pairs_of(challenge))
    message = str(error.value)
    assert "\n" not in message and len(message) < 900
    assert [word for word in words.split(" | ") if word not in message] == [], message
    assert listing(challenge) == before


def test_many_faults_name_five_and_count_all(challenge):
    write_table(challenge, {f"x{i}": "y.jpg" for i in range(3)})
    for number in range(20):
        images.save_image(labels_of(challenge) / (f"n{number:02d}.png"), label_map(8, 6))
    with pytest.raises(DataError) as error:
        pairs_of(challenge)
    assert "23 files (a.png, b.1.png, c.png, n00.png, n01.png, ...)" in str(error.value)


def test_parent_folder_gets_a_hint(challenge):
    with pytest.raises(DataError, match="did you mean .*test"):
        find_label_folder(challenge)


# -- the folder that was meant ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, meant",
    [
        (".", "test"),
        ("..", "root/test"),
        ("train", "test"),
        ("train/imgs", "test"),
        ("other", "test"),
    ],
)
def test_the_folder_of_label_maps_that_was_probably_meant_is_named(tmp_path, given, meant):
    root = tmp_path / "root"
    for name in ("test/val_B_labels_resized", "train/imgs", "other"):
        (root / name).mkdir(parents=True)
    images.save_image(root / "test/val_B_labels_resized/a.png", label_map())
    write_table(root, {"a.png": "ref.jpg"})
    with pytest.raises(DataError, match=rf"did you mean .*{meant}\?"):
        find_pairs(root / given, root / "train")


def test_label_maps_without_their_table_name_the_folder_beside(challenge):
    (challenge / "train/labels").mkdir()
    images.save_image(challenge / "train/labels/a.png", label_map())
    with pytest.raises(DataError, match=r"no label_to_img.json in .*did you mean .*test\?"):
        find_pairs(challenge / "train/labels", challenge / "train")


@pytest.mark.parametrize("given, meant", [(".", "train"), ("test", "train")])
def test_the_folder_of_references_that_was_probably_meant_is_named(challenge, given, meant):
    with pytest.raises(DataError, match=rf"lacks 3 files .*did you mean .*{meant}\?"):
        find_pairs(challenge / "test", challenge / given)


@pytest.mark.parametrize(
    "wanted, there, near",
    [
        ("style_0004.jpg", ["style_0005.jpg", "style_0003.jpg"], None),
        ("IMG_2041.jpg", ["IMG_2014.jpg", "IMG_2042.jpg"], None),
        ("a10b2.jpg", ["a10b3.jpg", "a11b2.jpg"], None),
        ("style_7.jpg", ["style_0007.jpg"], "style_0007.jpg"),
        ("mountain_12.jpg", ["mountan_12.jpg", "mountain_13.jpg"], "mountan_12.jpg"),
        ("lake side.jpg", ["lake_side.jpg"], "lake_side.jpg"),
        ("style_0004.jpg", ["style_0004.png", "style_0005.jpg"], "style_0004.png"),
    ],
)
def test_names_that_differ_in_a_number_are_not_near(wanted, there, near):
    assert near_name(wanted, there) == near
