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
FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/.local/share/fonts",
    "~/.fonts",
)
FONT_NAMES = (
    "notosanscjk",
    "notosanssc",
    "notoserifcjk",
    "sourcehansans",
    "wqy-",
    "wenquanyi",
    "droidsansfallback",
    "pingfang",
    "stheiti",
    "hiragino",
    "arphic",
    "uming",
    "ukai",
    "simhei",
    "simsun",
    "unifont",
)


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
    the row's number, told once with the names on standard error. Raises ValueError when rows, names
    and headings do not match or the sheet would exceed JPEG's 65535 pixels.
    """
    if len(rows) != len(row_names) or any(len(row) > len(headings) for row in rows):
        raise ValueError(
            f"contact sheet: {len(rows)} rows of up to {max([len(row) for row in rows] or [0])} "
            f"images; expected {len(row_names)} rows of at most {len(headings)}, as named"
        )
    text_height, gutter, margin = (
        max(12, cell_width // 14),
        max(2, cell_width // 40),
        max(8, cell_width // 16),
    )
    font = _font(text_height, "".join([*row_names, *headings]))
    names = [_fitted(name, font, cell_width * 3 // 4) for name in _writable(row_names, font)]
    headings = [_fitted(heading, font, cell_width) for heading in headings]
    heights = [_row_height(row, cell_width) for row in rows]
    left = (
        margin
        + max([_text_width(name, font) for name in names] or [0])
        + (margin if any(names) else 0)
    )
    top = margin + 2 * text_height
    width = left + len(headings) * (cell_width + gutter) - gutter + margin
    height = top + sum(heights) + max(len(rows) - 1, 0) * gutter + margin
    if max(width, height) > 65535:
        raise ValueError(
            f"contact sheet would be {width}x{height} pixels; expected at most 65535, show fewer "
            f"than {len(rows)} rows"
        )
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    columns = [left + column * (cell_width + gutter) for column in range(len(headings))]
    for x, heading in zip(columns, headings):
        draw.text(
            (x + (cell_width - _text_width(heading, font)) // 2, margin),
            heading,
            fill=INK,
            font=font,
        )
    y = top
    for row, name, row_height in zip(rows, names, heights):
        draw.text((margin, y + (row_height - text_height) // 2), name, fill=INK, font=font)
        for x, image in zip(columns, row):
            if image is not None:
                cell = _scaled_into(image, cell_width, row_height)
                sheet.paste(
                    cell, (x + (cell_width - cell.width) // 2, y + (row_height - cell.height) // 2)
                )
        y += row_height + gutter
    return np.array(sheet)


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
    best, fewest = own, _lacking(own, text)
    for path in _wide_fonts() if fewest else ():
        try:
            font = ImageFont.truetype(path, height)
        except (ImportError, OSError):
            continue
        lacking = _lacking(font, text)
        if lacking < fewest:
            best, fewest = font, lacking
        if not fewest:
            break
    return best


@functools.lru_cache(maxsize=1)
def _wide_fonts() -> Sequence[str]:
    """Font files of the system that may have what Pillow's own lacks, the likeliest first."""
    found = []
    for folder in FONT_FOLDERS:
        for parent, _, names in os.walk(os.path.expanduser(folder)):
            found += [
                os.path.join(parent, name)
                for name in names
                if name.lower().endswith((".ttf", ".ttc", ".otf"))
            ]
    ranks = {
        path: next(
            (
                rank
                for rank, name in enumerate(FONT_NAMES)
                if name in os.path.basename(path).lower()
            ),
            None,
        )
        for path in found
    }
    return sorted(
        (path for path in found if ranks[path] is not None), key=lambda path: (ranks[path], path)
    )


def _lacking(font: ImageFont.ImageFont, text: str) -> int:
    """How many characters of the text the font has no glyph for: such a one looks like one that no
    font has.
    """

    def shown(character: str) -> bytes:
        try:
            return bytes(font.getmask(character))
        except (
            UnicodeEncodeError
        ):  # the bitmap font has Latin-1 alone; half a character no font has
            return b"none"

    unknown = (b"none", shown("\U0010fffe"))
    return sum(character != " " and shown(character) in unknown for character in set(text))


def _writable(names: Sequence[str], font: ImageFont.ImageFont) -> Sequence[str]:
    """The names, those that the font cannot write as their rows' numbers, counted from 1 and listed
    on standard error.
    """
    lacking = {number: name for number, name in enumerate(names, 1) if _lacking(font, name)}
    if lacking:
        told = "; ".join(f"row {number}: {name}" for number, name in lacking.items())
        _tell_once(
            f"no font here writes the names of {len(lacking)} of {len(names)} rows of the sheet "
            f"({told}); install one, such as fonts-noto-cjk"
        )
    return [f"row {number}" if number in lacking else name for number, name in enumerate(names, 1)]


@functools.lru_cache(maxsize=None)
def _tell_once(line: str) -> None:
    print(f"jseg: {line}", file=sys.stderr)


def _text_width(text: str, font: ImageFont.ImageFont) -> int:
    return font.getmask(text).size[0] if text else 0


def _fitted(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """The text, its middle replaced by dots where it is wider than `width`; what the font cannot
    show becomes '?'.
    """
    text = "".join("?" if _lacking(font, character) else character for character in text)
    kept = len(text)
    fitted = text
    while _text_width(fitted, font) > width and kept > 2:
        kept -= 1
        fitted = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return fitted
