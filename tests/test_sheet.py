"""The contact sheet: every picture in its place, maps unsmoothed, any name, any Pillow."""

import numpy as np
import pytest
from PIL import ImageFont

from jseg.sheet import contact_sheet


def test_contact_sheet_places_every_picture():
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    red, green, blue = [np.full((96, 128, 3), colour, np.uint8) for colour in colours]
    tall = np.full((100, 50, 3), 90, np.uint8)
    sheet = contact_sheet([[red, green], [None, blue], [tall, None]], ["label", "a result"], ["one", "two", "three"], cell_width=64)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert (sheet[0] == 255).all() and (sheet[-1] == 255).all() and (sheet[:, 0] == 255).all() and (sheet[:, -1] == 255).all()
    for colour, count in zip(colours, (64 * 48,) * 3):
        assert (sheet == colour).all(axis=-1).sum() == count
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
    cell = sheet[-6 - 75:-8, -100 - 8:-8]
    assert set(np.unique(cell)) == {0, 200}
    assert sheet.shape[1] < 250
    assert contact_sheet([], ["a"], []).shape[2] == 3


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
