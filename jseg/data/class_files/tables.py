"""Classes of a table with a heading, or of objects with keys; no column is dropped silently."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from jseg.data.class_files.rows import (
    BARE,
    NUMBER,
    Colour,
    Row,
    class_id,
    colour_of,
    is_number,
    kind_of,
)

DELIMITERS = "\t;,|"
TRIPLE_HEADING = re.compile(r"\(\s*r\s*,\s*g\s*,\s*b\s*\)", re.I)


class Heading(NamedTuple):
    """The delimiter of a table, None for spaces, and the headings of its columns."""

    mark: Optional[str]
    words: List[str]


def fields(line: str, mark: Optional[str]) -> List[str]:
    """The line's words, or what stands between marks without what only aligns it."""
    if mark is None:
        return line.split()
    cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
    return [cell.strip() for cell in cells if cell.strip() or mark != "\t"]


def heading_of(line: str, shared: Sequence[str]) -> Optional[Heading]:
    """The heading that a line is, None if it is none; shared: delimiters that all lines have."""
    plain_line = TRIPLE_HEADING.sub(" RGB", line)
    mark = shared[0] if shared else None
    if "," in shared and ";" not in plain_line.split(",")[0]:
        mark = "," if "\t" not in shared else mark
    words = fields(plain_line, mark)
    kinds = [kind_of(word) for word in words]
    if len(words) < 2 or "name" not in kinds or any(map(is_number, words)):
        return None
    plain = mark is None and ("?" in kinds or kinds.count("name") > 1 or set(kinds) == {"name"})
    return None if plain else Heading(mark, words)


def table_rows(
    path: Path, heading: Heading, lines: Sequence[Tuple[str, str]]
) -> Tuple[List[Row], List[str]]:
    """(the rows below a heading, the columns that are not used); ValueError in one line."""
    count, cells = len(heading.words), []
    kinds = [kind_of(word) for word in heading.words]
    for place, line in lines:
        words = fields(line, heading.mark)
        if heading.mark is None and len(words) > count:
            # A name of several words between columns of one word each.
            first = kinds.index("name")
            stop = len(words) - (count - 1 - first)
            words = words[:first] + [" ".join(words[first:stop])] + words[stop:]

        # As many cells as headings, then.
        if len(words) != count:
            raise ValueError(
                f"{path}, {place}: {line!r} has {len(words)} fields; expected {count}, as the "
                "heading"
            )
        cells.append([word or None for word in words])
    return rows_of(path, [place for place, _ in lines], heading.words, cells)


def rows_of(
    path: Path, places: Sequence[str], headings: Sequence[str], cells: Sequence[Sequence[object]]
) -> Tuple[List[Row], List[str]]:
    """(rows, headings not used) of a table with a row a class; None is an empty cell.

    Raises ValueError in one line for a class without name, for columns that contradict each other,
    and for a column that seems to hold ids or colours but is headed otherwise.
    """
    columns = {number: [row[number] for row in cells] for number in range(len(headings))}
    kinds = {number: kind_of(heading) for number, heading in enumerate(headings)}
    shown = {number: heading or f"column {number + 1}" for number, heading in enumerate(headings)}

    # Of two columns of names, one of numbers alone holds the ids: `label,class`, `name,label`.
    named = [number for number, kind in kinds.items() if kind == "name"]
    for number in named if len(named) > 1 else []:
        if all(map(_is_whole, columns[number])):
            kinds[number] = "id"
    named = [number for number in named if kinds[number] == "name"]
    named.sort(key=lambda number: "name" not in shown[number].lower())
    names = columns[named[0]] if named else [None] * len(places)
    for place, name, row in zip(places, names, cells):
        if not isinstance(name, str) or not name.strip():
            given = {shown[number]: cell for number, cell in enumerate(row) if cell is not None}
            raise ValueError(f"{path}, {place}: {str(given)[:80]} has no name; expected one")

    ids = _ids(path, places, columns, kinds, shown, "id")
    train = _ids(path, places, columns, kinds, shown, "train")
    colours, coloured = _colours(path, places, columns, kinds, shown)
    used = set(coloured) | {number for number in kinds if kinds[number] in ("id", "train")}
    left = [number for number in kinds if number not in used and number not in named[:1]]
    for number in left:
        _check_left(path, shown[number], kinds[number], columns[number], ids, colours)
    rows = [
        Row(place, name.strip(), colours[i], ids[i], train[i])
        for i, (place, name) in enumerate(zip(places, names))
    ]
    return rows, [shown[number] for number in left]


def _ids(
    path: Path,
    places: Sequence[str],
    columns: Dict[int, list],
    kinds: Dict[int, str],
    shown: Dict[int, str],
    kind: str,
) -> List[Optional[int]]:
    """The numbers of the column of ids or of train ids; several must agree."""
    there = [number for number in kinds if kinds[number] == kind]
    read = {
        number: [
            None if cell is None else class_id(path, place, cell, shown[number])
            for place, cell in zip(places, columns[number])
        ]
        for number in there
    }

    # A column that counts the rows says nothing beside another one.
    real = [number for number in there if read[number] != list(range(len(places)))]
    there = real or there
    for other in there[1:]:
        if read[other] != read[there[0]]:
            raise ValueError(
                f"{path}: {shown[there[0]]} and {shown[other]} both look like the ids of classes, "
                f"and differ; expected one column of ids, leave the other out"
            )
    numbers = read[there[0]] if there else [None] * len(places)
    return [255 if value == -1 and kind == "train" else value for value in numbers]


def _colours(
    path: Path,
    places: Sequence[str],
    columns: Dict[int, list],
    kinds: Dict[int, str],
    shown: Dict[int, str],
) -> Tuple[List[Optional[Colour]], List[int]]:
    """(a colour a row, the columns that they come from): one of colours, or three of channels."""
    sources: List[Tuple[List[int], list]] = []
    channels = {kinds[number]: number for number in kinds if kinds[number] in ("r", "g", "b")}
    if channels and len(channels) < 3:
        there = ", ".join(shown[number] for number in channels.values())
        raise ValueError(f"{path}: {there} without the rest of a colour; expected r, g and b")
    if channels:
        cells = [[columns[channels[channel]][i] for channel in "rgb"] for i in range(len(places))]
        empty = [all(value is None for value in row) for row in cells]
        sources.append(
            ([channels[c] for c in "rgb"], [None if e else c for e, c in zip(empty, cells)])
        )
    sources += [([number], columns[number]) for number in kinds if kinds[number] == "colour"]

    # Beside a column that is understood, words such as "gray" are not used.
    read, faults = [], []
    for numbers, cells in sources:
        try:
            values = [
                None if cell is None else colour_of(path, place, cell)
                for place, cell in zip(places, cells)
            ]
            read.append((numbers, values))
        except ValueError as error:
            faults.append(error)
    if faults and not read:
        raise faults[0]
    for numbers, values in read[1:]:
        if values != read[0][1]:
            raise ValueError(
                f"{path}: {shown[read[0][0][0]]} and {shown[numbers[0]]} give different colours; "
                f"expected one colour a class, leave one of them out"
            )
    used = [number for numbers, _ in read for number in numbers]
    return (read[0][1] if read else [None] * len(places)), used


def _check_left(
    path: Path,
    heading: str,
    kind: str,
    cells: Sequence[object],
    ids: Sequence[Optional[int]],
    colours: Sequence[Optional[Colour]],
) -> None:
    """Raises ValueError for a column not understood which holds what no other column gives."""
    if kind == "space":
        raise ValueError(
            f"{path}: {heading} holds colours, but not R G B; expected r, g, b or #rrggbb"
        )
    if kind != "?":
        return
    if not any(colour is not None for colour in colours) and all(map(_is_colour, cells)):
        raise ValueError(
            f"{path}: {heading} looks like colours; expected the heading color, or r,g,b"
        )

    # Numbers that only count the rows are the order that is taken anyway.
    if all(value is None for value in ids) and all(map(_is_whole, cells)):
        numbers = [int(str(cell)) for cell in cells]
        distinct = len(set(numbers)) == len(numbers) and 0 <= min(numbers) <= max(numbers) <= 255
        if distinct and numbers != list(range(len(numbers))):
            raise ValueError(
                f"{path}: {heading} holds numbers that may be the ids of the classes; expected the "
                f"heading id if they are the values in label files, else leave it out"
            )


def _is_whole(cell: object) -> bool:
    return type(cell) is int or (isinstance(cell, str) and bool(re.fullmatch(r"[+-]?\d+", cell)))


def _is_colour(cell: object) -> bool:
    if isinstance(cell, (str, int)) and (NUMBER.fullmatch(str(cell)) or BARE.fullmatch(str(cell))):
        return False
    try:
        colour_of(Path(), "", cell)
    except ValueError:
        return False
    return True
