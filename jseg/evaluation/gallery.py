"""A gallery: one HTML file with small images and numbers in rows, sorted by a click on a column's
head.

Images are embedded as JPEG; the page's own policy forbids it to load anything from a network.
"""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass
from typing import BinaryIO, Iterable, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from jseg.files import PathLike, write_atomic

WIDTH, QUALITY = 160, 80  # of the embedded images
KINDS = ("text", "number", "image", "map")
Cell = Union[str, float, np.ndarray, None]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
table { border-collapse: collapse; }
td, th { padding: .3rem .6rem; text-align: left; vertical-align: middle; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
#rows thead th { position: sticky; top: 0; background: #f3f3f3; }
#rows tbody tr { border-top: 1px solid #ddd; }
#rows button { font: inherit; font-weight: bold; color: #036; }
#rows button { border: 0; padding: 0; background: none; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
img { display: block; }
"""
# `order` gives the order of the rows and can be run without a page; what is not known comes last
# either way.
SCRIPT = """
function order(values, numeric, down) {
  const places = values.map((value, place) => place), sign = down ? -1 : 1;
  const known = places.filter(place => values[place] !== null);
  const unknown = places.filter(place => values[place] === null);
  const compare = numeric
    ? (a, b) => values[a] - values[b]
    : (a, b) => String(values[a]).localeCompare(values[b]);
  known.sort((a, b) => sign * compare(a, b) || a - b);
  return known.concat(unknown);
}
if (typeof document !== "undefined") {
  const body = document.querySelector("#rows tbody"), first = Array.from(body.rows);
  document.querySelectorAll("#rows th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const numeric = head.dataset.kind === "number";
      const values = first.map(row => {
        const text = row.cells[column].dataset.value;
        return text === undefined ? null : numeric ? Number(text) : text;
      });
      document.querySelectorAll("#rows th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      order(values, numeric, down).forEach(place => body.appendChild(first[place]));
    };
  });
}
"""


@dataclass(frozen=True)
class Column:
    """A column of the gallery."""

    name: str  # its heading
    kind: str = "number"  # one of KINDS; "map": an image of few colours
    digits: int = 3  # shown of numbers
    about: str = ""  # a longer word on it

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"gallery: column {self.name!r} is of kind {self.kind!r}; expected one of "
                f"{', '.join(KINDS)}"
            )


def write_gallery(
    path: PathLike,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    facts: Sequence[Tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the page, whole or not at all; rows are taken one at a time, so they may be made on the
    way.

    A cell is a text, a number, an image uint8 [h, w, 3], or None where there is nothing; `facts`
    are (name, value) lines above the rows. Raises ValueError for a row of another length; OSError
    (disk full) passes through.
    """

    def write(file: BinaryIO) -> None:
        def put(text: str) -> None:
            file.write(text.encode("utf-8", "xmlcharrefreplace"))

        put(_opening(title, columns, facts, notes))
        for number, row in enumerate(rows, 1):
            if len(row) != len(columns):
                raise ValueError(
                    f"gallery: row {number} has {len(row)} cells; expected {len(columns)}, one a "
                    "column"
                )

            # The row's first text names its images.
            pairs = list(zip(columns, row))
            texts = (str(cell) for column, cell in pairs if column.kind == "text" and cell)
            name = next(texts, f"row {number}")
            cells = "".join(_cell(column, cell, name) for column, cell in pairs)
            put(f"<tr>{cells}</tr>\n")
        put(f"</tbody>\n</table>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")

    write_atomic(path, write)


def _opening(
    title: str, columns: Sequence[Column], facts: Sequence[Tuple[str, str]], notes: Sequence[str]
) -> str:
    """The page as far as the first row."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n',
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        f"<h1>{_escaped(title)}</h1>\n",
    ]
    if facts:
        lines = (f"<tr><th>{_escaped(n)}</th><td>{_escaped(v)}</td></tr>\n" for n, v in facts)
        parts += ["<table>\n", *lines, "</table>\n"]
    if notes:
        parts += ["<ul>\n", *(f"<li>{_escaped(note)}</li>\n" for note in notes), "</ul>\n"]
    heads = "".join(map(_head, columns))
    parts.append(f'<table id="rows">\n<thead>\n<tr>{heads}</tr>\n</thead>\n<tbody>\n')
    return "".join(parts)


def _head(column: Column) -> str:
    about = f' title="{_escaped(column.about)}"' if column.about else ""
    if column.kind in ("image", "map"):
        return f"<th{about}>{_escaped(column.name)}</th>"
    return (
        f'<th data-kind="{column.kind}"{about}>'
        f'<button type="button">{_escaped(column.name)}</button></th>'
    )


def _cell(column: Column, cell: Cell, name: str) -> str:
    if cell is None or isinstance(cell, float) and math.isnan(cell):
        return "<td></td>"
    if column.kind == "number":
        shown = f"{cell:.{column.digits}f}"
        return f'<td class="number" data-value="{float(cell)!r}">{shown}</td>'
    if column.kind == "text":
        return f'<td data-value="{_escaped(str(cell))}">{_escaped(str(cell))}</td>'
    data, width, height = thumbnail(cell, column.kind == "map")
    alt = f"{_escaped(column.name)} of {_escaped(name)}"
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
    return f'<td><img alt="{alt}" width="{width}" height="{height}" src="{source}"></td>'


def thumbnail(image: np.ndarray, few_colours: bool = False) -> Tuple[bytes, int, int]:
    """(JPEG, width, height) of an image uint8 [h, w, 3], no wider than WIDTH; few colours are
    resized with nearest.
    """
    pil = Image.fromarray(image)
    width = min(WIDTH, pil.width)
    size = width, max(1, round(pil.height * width / pil.width))
    if size != pil.size:
        pil = pil.resize(size, Image.NEAREST if few_colours else Image.LANCZOS)
    file = io.BytesIO()
    pil.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue(), size[0], size[1]


def _escaped(text: str) -> str:
    # A file name that is no text comes with lone surrogates, which no page may hold.
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))
