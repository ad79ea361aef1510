"""A labelled contact sheet: rows of pictures under headings, for looking at many results at once."""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (30, 30, 30)
FEW_COLOURS = 200


def contact_sheet(rows: Sequence[Sequence[Optional[np.ndarray]]], headings: Sequence[str], row_names: Sequence[str],
                  cell_width: int = 256) -> np.ndarray:
    """A labelled grid on white as uint8 [H, W, 3]: one row of uint8 [h, w, 3] pictures (None = blank) per name, one heading per column.

    Pictures are fitted into cells as wide as cell_width and as high as the row's tallest needs, aspect kept; few-coloured maps with
    nearest. Raises ValueError when rows, names and headings do not match or the sheet would exceed JPEG's 65535 pixels.
    """
    if len(rows) != len(row_names) or any(len(row) > len(headings) for row in rows):
        raise ValueError("contact sheet: %d rows of up to %d pictures; expected %d rows of at most %d, as named"
                         % (len(rows), max([len(row) for row in rows] or [0]), len(row_names), len(headings)))
    text_height, gutter, margin = max(12, cell_width // 14), max(2, cell_width // 40), max(8, cell_width // 16)
    font = _font(text_height)
    names = [_fitted(name, font, cell_width * 3 // 4) for name in row_names]
    headings = [_fitted(heading, font, cell_width) for heading in headings]
    heights = [_row_height(row, cell_width) for row in rows]
    left = margin + max([_text_width(name, font) for name in names] or [0]) + (margin if any(names) else 0)
    top = margin + 2 * text_height
    width = left + len(headings) * (cell_width + gutter) - gutter + margin
    height = top + sum(heights) + max(len(rows) - 1, 0) * gutter + margin
    if max(width, height) > 65535:
        raise ValueError("contact sheet would be %dx%d pixels; expected at most 65535, show fewer than %d rows"
                         % (width, height, len(rows)))
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    columns = [left + column * (cell_width + gutter) for column in range(len(headings))]
    for x, heading in zip(columns, headings):
        draw.text((x + (cell_width - _text_width(heading, font)) // 2, margin), heading, fill=INK, font=font)
    y = top
    for row, name, row_height in zip(rows, names, heights):
        draw.text((margin, y + (row_height - text_height) // 2), name, fill=INK, font=font)
        for x, picture in zip(columns, row):
            if picture is not None:
                cell = _scaled_into(picture, cell_width, row_height)
                sheet.paste(cell, (x + (cell_width - cell.width) // 2, y + (row_height - cell.height) // 2))
        y += row_height + gutter
    return np.array(sheet)


def _row_height(row: Sequence[Optional[np.ndarray]], width: int) -> int:
    tallest = max([picture.shape[0] / picture.shape[1] for picture in row if picture is not None] or [0.75])
    return max(1, round(width * min(tallest, 2.0)))


def _scaled_into(picture: np.ndarray, width: int, height: int) -> Image.Image:
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    packed = picture.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    # A colour-coded map has few colours; smoothing would invent others along its edges.
    few = len(np.unique(packed)) <= FEW_COLOURS
    return Image.fromarray(picture).resize(size, Image.NEAREST if few else Image.LANCZOS)


def _font(height: int) -> ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size=height)
    except (TypeError, ImportError, OSError):
        # Pillow before 10.1, or built without FreeType: its one bitmap font.
        return ImageFont.load_default()


def _text_width(text: str, font: ImageFont.ImageFont) -> int:
    return font.getmask(text).size[0] if text else 0


def _fitted(text: str, font: ImageFont.ImageFont, width: int) -> str:
    """The text, its middle replaced by dots where it is wider than `width`; what the font cannot show becomes '?'."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    kept = len(text)
    fitted = text
    while _text_width(fitted, font) > width and kept > 2:
        kept -= 1
        fitted = text[:(kept + 1) // 2] + "..." + text[len(text) - kept // 2:]
    return fitted
