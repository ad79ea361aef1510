"""A labelled contact sheet: rows of images under headings, for looking at many results at
once.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (30, 30, 30)
FEW_COLOURS = 200
# Where systems keep fonts, and parts of the names of those that have Chinese, Japanese and Korean
# characters.
FONT_FOLDERS = """
    /usr/share/fonts /usr/local/share/fonts /System/Library/Fonts /Library/Fonts
    ~/.local/share/fonts ~/.fonts
""".split()
FONT_NAMES = """
    notosanscjk notosanssc notoserifcjk sourcehansans wqy- wenquanyi droidsansfallback pingfang
    stheiti hiragino arphic uming ukai simhei simsun unifont
""".split()
LONGEST = 65535  # pixels of a side of a JPEG


def contact_sheet(
    rows: Sequence[Sequence[Optional[np.ndarray]]],
    headings: Sequence[str],
    row_names: Sequence[str],
    cell_width: int = 256,
) -> np.ndarray:
    """A labelled grid on white as uint8 [H, W, 3]: one row of uint8 [h, w, 3] images (None =
    blank) per name, one heading per column.

    Images are fitted into cells as wide as cell_width and as high as the row's tallest needs,
    aspect kept; few-coloured maps with nearest. Names that no font on this machine can write become
    the row's number, listed once with the names on standard error. Raises ValueError when rows,
    names and headings do not match or the sheet would exceed JPEG's 65535 pixels.
    """
    longest = max([len(row) for row in rows] or [0])
    if len(rows) != len(row_names) or longest > len(headings):
        raise ValueError(
            f"contact sheet: {len(rows)} rows of up to {longest} images; expected "
            f"{len(row_names)} rows of at most {len(headings)}, as named"
        )

    # Texts that fit, and where the cells begin.
    text_height = max(12, cell_width // 14)
    gutter, margin = max(2, cell_width // 40), max(8, cell_width // 16)
    font = _font(text_height, "".join([*row_names, *headings]))
    names = [_fitted(name, font, cell_width * 3 // 4) for name in _writable(row_names, font)]
    titles = [_fitted(heading, font, cell_width) for heading in headings]
    name_width = max([_text_width(name, font) for name in names] or [0])
    left, top = margin + name_width + margin * any(names), margin + 2 * text_height
    columns = [left + column * (cell_width + gutter) for column in range(len(titles))]

    heights = [_row_height(row, cell_width) for row in rows]
    width = left + len(titles) * (cell_width + gutter) - gutter + margin
    height = top + sum(heights) + max(len(rows) - 1, 0) * gutter + margin
    if max(width, height) > LONGEST:
        raise ValueError(
            f"contact sheet would be {width}x{height} pixels; expected at most {LONGEST}, show "
            f"fewer than {len(rows)} rows"
        )

    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for x, title in zip(columns, titles):
        start = x + (cell_width - _text_width(title, font)) // 2
        draw.text((start, margin), title, fill=INK, font=font)
    y = top
    for row, name, row_height in zip(rows, names, heights):
        draw.text((margin, y + (row_height - text_height) // 2), name, fill=INK, font=font)
        _paste_row(sheet, row, columns, y, cell_width, row_height)
        y += row_height + gutter
    return np.array(sheet)


def _paste_row(sheet: Image.Image, row, columns, y: int, cell_width: int, height: int) -> None:
    for x, image in zip(columns, row):
        if image is not None:
            cell = _scaled_into(image, cell_width, height)
            sheet.paste(cell, (x + (cell_width - cell.width) // 2, y + (height - cell.height) // 2))


def _row_height(row: Sequence[Optional[np.ndarray]], width: int) -> int:
    tallest = max([image.shape[0] / image.shape[1] for image in row if image is not None] or [0.75])
    return max(1, round(width * min(tallest, 2.0)))


def _scaled_into(image: np.ndarray, width: int, height: int) -> Image.Image:
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    packed = image.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    # A colour-coded map has few colours; smoothing would invent others along its edges.
    few = len(np.unique(packed)) <= FEW_COLOURS
    return Image.fromarray(image).resize(size, Image.NEAREST if few else Image.LANCZOS)


def _font(height: int, text: str) -> ImageFont.ImageFont:
    """Pillow's own font, or the first of the system's that has every character of `text` where that
    one has not.
    """
    try:
        own = ImageFont.load_default(size=height)
    except (TypeError, ImportError, OSError):
        # Pillow before 10.1, or built without FreeType: its one bitmap font.
        own = ImageFont.load_default()
    best, fewest = own, _lacks(own, text)
    for path in _wide_fonts() if fewest else ():
        try:
            font = ImageFont.truetype(path, height)
        except (ImportError, OSError):
            continue
        count = _lacks(font, text)
        if count < fewest:
            best, fewest = font, count
        if not fewest:
            break
    return best


@functools.lru_cache(maxsize=1)
def _wide_fonts() -> Sequence[str]:
    """Font files of the system that may have what Pillow's own lacks, the likeliest first."""
    ranked = []
    for folder in FONT_FOLDERS:
        for parent, _, names in os.walk(os.path.expanduser(folder)):
            for name in names:
                rank = _rank(name.lower())
                if rank is not None:
                    ranked.append((rank, os.path.join(parent, name)))
    return [path for _, path in sorted(ranked)]


def _rank(name: str) -> Optional[int]:
    """The place among FONT_NAMES of a file of that name; None for other fonts and other files."""
    if not name.endswith((".ttf", ".ttc", ".otf")):
        return None
    return next((rank for rank, part in enumerate(FONT_NAMES) if part in name), None)


def _lacks(font: ImageFont.ImageFont, text: str) -> int:
    """How many characters of the text the font has no glyph for: those that look like one that no
    font has.
    """

    def pixels(character: str) -> bytes:
        # The bitmap font has Latin-1 alone; no font has half a character.
        try:
            return bytes(font.getmask(character))
        except UnicodeEncodeError:
            return b"none"

    unknown = (b"none", pixels("\U0010fffe"))
    return sum(character != " " and pixels(character) in unknown for character in set(text))


def _writable(names: Sequence[str], font: ImageFont.ImageFont) -> Sequence[str]:
    """The names, those that the font cannot write as their rows' numbers, counted from 1 and listed
    on standard error.
    """
    unwritable = {number: name for number, name in enumerate(names, 1) if _lacks(font, name)}
    if unwritable:
        rows = "; ".join(f"row {number}: {name}" for number, name in unwritable.items())
        _say_once(
            f"no font here writes the names of {len(unwritable)} of {len(names)} rows of the sheet "
            f"({rows}); install one, such as fonts-noto-cjk"
        )
    return [
        f"row {number}" if number in unwritable else name for number, name in enumerate(names, 1)
    ]


@functools.lru_cache(maxsize=None)
def _say_once(line: str) -> None:
    print(f"jseg: {line}", file=sys.stderr)


def _text_width(text: str, font: ImageFont.ImageFont) -> int:
    return font.getmask(text).size[0] if text else 0


def _fitted(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """The text, its middle replaced by dots where it is wider than `width`; what the font cannot
    show becomes '?'.
    """
    text = "".join("?" if _lacks(font, character) else character for character in text)
    fitted, length = text, len(text)
    while _text_width(fitted, font) > width and length > 2:
        length -= 1
        fitted = text[: (length + 1) // 2] + "..." + text[len(text) - length // 2 :]
    return fitted
