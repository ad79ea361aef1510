"""Text in another encoding is refused in one line that names it, wherever people give text."""

import pytest

from jseg.data.classes import load_classes
from jseg.data.pairing_table import read_table
from jseg.evaluation.aesthetic import read_aesthetic
from jseg.ldm.pipelines import load_pipeline
from jseg.text_file import read_text

TEXTS = {
    "classes.txt": ("天空 1 2 3\n大海 4 5 6\n", load_classes),
    "classes.json": ('{"0": "天空", "1": "大海"}', load_classes),
    "label_to_img.json": ('{"图.png": "风格.jpg"}', lambda path: read_table(path, lambda _: True)),
    "stages.json": (
        '{"stages": [{"guidance": 2.0, "respacing": "ddim10", "start_index": 2, "名字": 1}]}',
        load_pipeline,
    ),
    "values.csv": ("天空风景,0.5\n", lambda path: read_aesthetic(path, ["天空风景"], 1.0)),
}
ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32": "UTF-32",
    "gbk": "GBK",
}


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("name", sorted(TEXTS))
def test_text_in_another_encoding_is_named_in_one_line(tmp_path, name, encoding):
    text, reader = TEXTS[name]
    (tmp_path / name).write_text(text, encoding=encoding)
    with pytest.raises(ValueError) as error:
        reader(tmp_path / name)
    message = str(error.value)
    assert str(tmp_path / name) in message and ENCODINGS[encoding] in message
    assert message.endswith("save it as UTF-8")
    assert "\n" not in message


def test_utf_8_is_read_with_its_mark_and_without(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a").write_text("天空 é", encoding=encoding)
        assert read_text(tmp_path / "a") == "天空 é"


def test_a_mark_that_was_written_twice_is_no_part_of_the_text(tmp_path):
    (tmp_path / "label_to_img.json").write_text('\ufeff\ufeff{"a.png": "b.jpg"}', encoding="utf-8")
    assert read_table(tmp_path / "label_to_img.json", lambda _: True) == {"a": "b.jpg"}


@pytest.mark.parametrize(
    "text, encoding, looks",
    [
        ("\u5929\u7a7a\uff0c\u5927\u6d77\uff0c\u8349\u5730", "gbk", "GBK"),
        ("\u5929\u7a7a \u8349\u5730 \u6d77\u6d0b \u5c71\u8108 \u6cb3\u6d41", "big5", "Big5"),
        ("\u7a7a \u6d77 \u5c71 \u8349\u306e\u91ce", "shift_jis", "Shift-JIS"),
        ("\ud558\ub298 \ubc14\ub2e4", "euc_kr", "EUC-KR"),
    ],
)
def test_an_east_asian_encoding_is_called_by_its_name(tmp_path, text, encoding, looks):
    (tmp_path / "a").write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match=f"it looks like .*{looks}.*; expected UTF-8") as error:
        read_text(tmp_path / "a")
    assert encoding == "gbk" or "like GBK)" not in str(error.value)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1")
    for path, words in ((tmp_path / "a", "not a text file"), (tmp_path, "is a folder")):
        with pytest.raises(ValueError, match=words):
            read_text(path)
    (tmp_path / "a").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="byte 0xe9 in line 1; perhaps an old Windows encoding"):
        read_text(tmp_path / "a")
