"""The page as a browser reads it: one file, no address in it, images inside, and the order of its
sorting.
"""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jseg.evaluation import gallery
from jseg.evaluation.gallery import Column, thumbnail, write_gallery

COLUMNS = [
    Column("name", "text"),
    Column("map", "map"),
    Column("image", "image"),
    Column("score", digits=2, about="a <b>"),
]


class Page(HTMLParser):
    """Tags in order; headings and rows of the sorted table; open tags balance."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(dict(attributes))
        elif tag == "img":
            self.rows[-1][-1]["img"] = dict(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def image(height=96, width=320):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def page(tmp_path):
    rows = [
        ["b & <i>", image(), image(20, 30), 0.12345],
        ['a"', None, image(), None],
        ["c", image(), None, float("nan")],
    ]
    write_gallery(
        tmp_path / "page.html",
        "Title <x>",
        COLUMNS,
        iter(rows),
        [("FID", "12 <3>")],
        ["a note & more"],
    )
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_it_asks_nothing_of_any_network(page):
    found = Page(page)
    assert not re.search(r"https?:|//\w|@import|url\(", page.split("base64")[0])
    for _, attributes in found.tags:
        assert (
            "href" not in attributes
            and attributes.get("src", "data:").startswith("data:image/jpeg;base64,")
            or "src" not in attributes
        )
    (policy,) = [
        a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")
    assert not any(a.get("src") for tag, a in found.tags if tag == "script")


def test_cells_hold_images_texts_and_exact_numbers(page):
    found = Page(page)
    head, rows = found.rows[1], found.rows[2:]
    assert [cell.get("data-kind") for cell in head] == ["text", None, None, "number"]
    assert head[3]["title"] == "a <b>"
    assert [tag for tag, _ in found.tags].count("button") == 2, "images are no order"
    assert [row[0]["data-value"] for row in rows] == ["b & <i>", 'a"', "c"]
    assert [row[3].get("data-value") for row in rows] == ["0.12345", None, None]
    assert "0.12" in found.text
    assert "Title <x>" in found.text and "12 <3>" in found.text and "a note & more" in found.text
    assert rows[0][1]["img"]["alt"] == "map of b & <i>" and "img" not in rows[1][1]
    for cell, size in ((rows[0][1], (160, 48)), (rows[0][2], (30, 20))):
        data = base64.b64decode(cell["img"]["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert image.size == size == (int(cell["img"]["width"]), int(cell["img"]["height"]))


def test_thumbnails_are_small_and_look_alike():
    gradient = np.repeat(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], 480, 0).repeat(
        3, 2
    )
    data, width, height = thumbnail(gradient)
    assert (width, height) == (160, 120) and len(data) < 4000
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(np.asarray(image).astype(int) - gradient[::4, 1::4]).max() < 12


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_order_of_the_rows():
    cases = [
        ([3, None, 1, 2], True, False),
        ([3, None, 1, 2], True, True),
        (["b", "a", None, "b"], False, False),
        ([10, 9, -1], True, False),
    ]
    code = (
        gallery.SCRIPT
        + f"\nconsole.log(JSON.stringify({json.dumps(cases)}.map(c => order(...c))));"
    )
    found = json.loads(
        subprocess.run(["node", "-e", code], capture_output=True, check=True, text=True).stdout
    )
    assert found == [[2, 3, 0, 1], [0, 3, 2, 1], [1, 0, 3, 2], [2, 1, 0]]


def test_nothing_is_left_of_a_page_that_failed(tmp_path):
    with pytest.raises(ValueError, match="row 2 has 1 cells; expected 4"):
        write_gallery(tmp_path / "page.html", "t", COLUMNS, [["a", None, None, 1.0], ["b"]])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="kind 'colour'"):
        Column("x", "colour")


def test_names_that_are_no_text_do_not_break_the_page(tmp_path):
    write_gallery(tmp_path / "page.html", "t", COLUMNS, [["\udce4", None, None, 1.0]])
    assert 'data-value="?"' in (tmp_path / "page.html").read_text(encoding="utf-8")
