"""The contact sheet: every image in its place, maps unsmoothed, any name, any Pillow."""

import glob
import os

import numpy as np
import pytest
from PIL import ImageFont

from jseg import contact_sheet as sheet
from jseg.contact_sheet import contact_sheet

DEJAVU = glob.glob("/usr/share/fonts/**/DejaVuSans.ttf", recursive=True)


def test_contact_sheet_places_every_image():
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    red, green, blue = [np.full((96, 128, 3), colour, np.uint8) for colour in colours]
    tall = np.full((100, 50, 3), 90, np.uint8)
    rows, names = [[red, green], [None, blue], [tall, None]], ["one", "two", "three"]
    sheet = contact_sheet(rows, ["label", "a result"], names, cell_width=64)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    for border in (sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]):
        assert (border == 255).all()
    for colour in colours:
        assert (sheet == colour).all(axis=-1).sum() == 64 * 48
    rows = {colour: np.argwhere((sheet == colour).all(axis=-1)).mean(axis=0) for colour in colours}
    assert rows[colours[0]][0] == rows[colours[1]][0] < rows[colours[2]][0]
    assert rows[colours[0]][1] < rows[colours[1]][1] == rows[colours[2]][1]
    assert (sheet == 90).all(axis=-1).sum() == 64 * 128
    assert (sheet.astype(int).sum(axis=-1) < 150).sum() > 50  # there is dark text


def test_contact_sheet_keeps_map_colours_and_survives_names():
    label = np.zeros((96, 128, 3), np.uint8)
    label[::2] = 200
    name = "\u98ce\u666f" + "x" * 300
    sheet = contact_sheet([[label]], ["label"], [name], cell_width=100)
    cell = sheet[-6 - 75 : -8, -100 - 8 : -8]
    assert set(np.unique(cell)) == {0, 200}
    assert sheet.shape[1] < 250
    assert contact_sheet([], ["a"], []).shape[2] == 3


def test_names_that_no_font_writes_become_numbers_beside_a_list(monkeypatch, capsys):
    """A character that shows as an empty box is not written, whatever the font says of itself."""
    monkeypatch.setattr(sheet, "_wide_fonts", list)
    names = ["plain", "\u98ce\u666f \u4e00", "\u98ce\u666f \u4e8c"]
    cell = np.zeros((12, 16, 3), np.uint8)
    ours = contact_sheet([[cell]] * 3, ["label"], names)
    assert np.array_equal(ours, contact_sheet([[cell]] * 3, ["label"], ["plain", "row 2", "row 3"]))
    contact_sheet([[cell]] * 3, ["label"], names)
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "the names of 2 of 3 rows" in text
    assert f"(row 2: {names[1]}; row 3: {names[2]})" in text


@pytest.mark.skipif(
    not DEJAVU, reason="no DejaVu font, which has what Pillow's own lacks, is on this machine"
)
def test_a_font_of_the_system_that_has_the_characters_is_taken(monkeypatch, capsys):
    rare, cell = "\u2200\u2203\u2297", np.zeros((12, 16, 3), np.uint8)  # mathematics
    monkeypatch.setattr(sheet, "_wide_fonts", list)
    assert sheet._lacks(sheet._font(12, rare), rare) > 0
    monkeypatch.setattr(sheet, "_wide_fonts", lambda: ["/nowhere.ttf", *DEJAVU])
    assert sheet._lacks(sheet._font(12, rare), rare) == 0
    ours = contact_sheet([[cell]], ["label"], [rare])
    assert capsys.readouterr().err == ""
    assert not np.array_equal(ours, contact_sheet([[cell]], ["label"], ["row 1"]))
    latin = sheet._font(12, "plain")
    assert latin.getname() == ImageFont.load_default(size=12).getname(), "Latin keeps its face"


def test_fonts_with_chinese_characters_are_found_by_their_names(tmp_path, monkeypatch):
    for name in (
        "a/DejaVuSans.ttf b/wqy-zenhei.ttc c/d/NotoSansCJK-Regular.ttc "
        "NotoSansCJK.txt DroidSansFallbackFull.ttf"
    ).split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sheet, "FONT_FOLDERS", (str(tmp_path), "/nowhere"))
    found = [os.path.basename(path) for path in sheet._wide_fonts.__wrapped__()]
    assert found == ["NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"]


def test_contact_sheet_refuses_mismatch_and_giants():
    cell = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="rows"):
        contact_sheet([[cell, cell]], ["one"], ["a"])
    with pytest.raises(ValueError, match="65535"):
        contact_sheet([[cell]] * 400, ["one"], ["a"] * 400)


def test_contact_sheet_with_the_bitmap_font(monkeypatch):
    load = ImageFont.load_default

    def old(*args, **options):
        if options:
            raise TypeError("no size")
        return load()

    monkeypatch.setattr(ImageFont, "load_default", old)
    assert contact_sheet([[np.zeros((12, 16, 3), np.uint8)]], ["label"], ["one"]).shape[2] == 3
