"""Files of class names, colours and ids in the forms that people have, read as rows.

Text: `name R G B`, `id name`, `R G B name`, the same with commas, semicolons or tabs, with or
without a heading; `name:R,G,B::` (CVAT's labelmap.txt), `0: name`, `name: 0`; `#rrggbb` and
`(R, G, B)` as colours; GIMP palettes. JSON: lists of names or of objects, `{"0": "name"}`,
`{"name": 0}`, alone or as the entry classes, categories, labels, names, id2label or label2id.
Every line that is none of these is refused by its number.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from jseg.text_file import read_text

Colour = Tuple[int, int, int]

FORMS = "expected 'name R G B', 'id name', 'name,R,G,B', 'id,name,R,G,B' or 'name:R,G,B::'"
JSON_FORMS = (
    '{"classes": [["name", [R, G, B]], ...], "ignore": [255]}, a list of names, or {"0": "name"}'
)
HEX = re.compile(r"#[0-9a-fA-F]{6}(?![0-9a-zA-Z])")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
TRIPLE = re.compile(r"(?:rgb)?[(\[]\s*(\d+)\s*[,\s]\s*(\d+)\s*[,\s]\s*(\d+)\s*[)\]]", re.I)
LABELMAP = re.compile(
    r"([^:]+?)\s*:\s*(?:(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*)?(?::[^:]*:[^:]*)?", re.S
)
DELIMITERS = "\t;,|"
FULL_WIDTH = str.maketrans("，；：", ",;:")
UNKNOWN = ("ignore", "ignored", "void", "unlabeled", "unlabelled")  # as a name of id 255

# Headings of tables, in lower case; of the others, some are known and nothing is read from them.
COLUMNS = {
    "id": ("id", "idx", "index", "ids", "value", "class_id", "label_id", "classid", "labelid"),
    "name": ("name", "class", "label", "class_name", "label_name", "classname", "names"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
    "colour": ("color", "colour", "rgb", "hex", "color_rgb", "color_hex"),
}
OTHER_COLUMNS = (
    "ratio train val stuff trainid category categoryid catid hasinstances ignoreineval alpha a "
    "isthing supercategory parts actions"
).split()
LISTS = ("classes", "categories", "labels", "names", "items", "id2label", "label2id")


class Row(NamedTuple):
    """One class: where the file has it, its name, its colour and its id if they are given."""

    place: str
    name: str
    colour: Optional[Colour]
    id: Optional[int]


def read_rows(path: Path) -> Tuple[List[Row], List[int]]:
    """(rows in the order of the file, ids at which nothing is known); ValueError in one line."""
    text = read_text(path)
    if path.suffix.lower() == ".json":
        return _json_rows(path, text)
    lines = [(f"line {n}", line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and lines[0][1].strip() == "GIMP Palette":
        lines = [item for item in lines[1:] if not re.match(r"\s*(Name|Columns):", item[1])]
    lines = [(place, _hexed(_without_comment(line.translate(FULL_WIDTH)))) for place, line in lines]
    return _text_rows(path, [(place, line) for place, line in lines if line])


def _text_rows(path: Path, lines: Sequence[Tuple[str, str]]) -> Tuple[List[Row], List[int]]:
    shared = [mark for mark in DELIMITERS if lines and all(mark in line for _, line in lines)]
    columns = _columns(lines[0][1], shared) if lines else None
    rows: List[Row] = []
    ignore: List[int] = []
    for place, line in lines[1:] if columns else lines:
        words = line.replace(",", " ").split()
        if len(words) == 2 and words[0] == "ignore":
            ignore.append(level(path, place, words[1], "ignored id"))
            continue
        row = _of_columns(path, place, line, columns) if columns else _row(path, place, line, shared)
        if row.id == 255 and row.name.lower() in UNKNOWN:
            ignore.append(255)
        else:
            rows.append(row)
    return rows, ignore


def _without_comment(line: str) -> str:
    """The line up to the first # that begins no colour."""
    for mark in re.finditer("#", line):
        if not HEX.match(line, mark.start()):
            return line[: mark.start()].strip()
    return line.strip()


def _fields(line: str, mark: Optional[str]) -> List[str]:
    """The line's words, or what stands between marks without what only aligns it."""
    if mark is None:
        return line.split()
    cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
    return [cell.strip() for cell in cells if cell.strip() or mark != "\t"]


def _columns(line: str, shared: Sequence[str]) -> Optional[Tuple[Optional[str], List[str]]]:
    """(delimiter, what each column is) of a heading, None if the line is no heading."""
    mark = shared[0] if shared else None
    if "," in shared and ";" not in line.split(",")[0]:
        mark = "," if "\t" not in shared else mark
    known = {word: kind for kind, words in COLUMNS.items() for word in words}
    known.update({word: "" for word in OTHER_COLUMNS})
    words = [word.lower().replace(" ", "_") for word in _fields(line, mark)]
    kinds = [known.get(word, "?") for word in words]
    if len(kinds) < 2 or kinds.count("name") != 1 or (mark is None and "?" in kinds):
        return None
    return (mark, kinds) if set(kinds) - {"name", "?"} else None


def _of_columns(
    path: Path, place: str, line: str, columns: Tuple[Optional[str], List[str]]
) -> Row:
    mark, kinds = columns
    cells = _fields(line, mark)
    if mark is None and len(cells) > len(kinds):
        # A name of several words between columns of one word each.
        first, rest = kinds.index("name"), len(kinds) - 1 - kinds.index("name")
        stop = len(cells) - rest
        cells = cells[:first] + [" ".join(cells[first:stop])] + cells[stop:]
    if len(cells) != len(kinds):
        raise ValueError(
            f"{path}, {place}: {line!r} has {len(cells)} fields; expected {len(kinds)}, as the heading"
        )
    found: Dict[str, str] = dict(zip(kinds, cells))
    if not found["name"]:
        raise ValueError(f"{path}, {place}: {line!r} has no name")

    # A colour in one column, or in three.
    words = found.get("colour", "").replace(",", " ").split()
    if {"r", "g", "b"} <= set(kinds):
        words = [found[kind] for kind in "rgb"]
    number = level(path, place, found["id"], "id") if "id" in found else None
    return Row(place, found["name"], _colour(path, place, line, words) if any(words) else None, number)


def _row(path: Path, place: str, line: str, shared: Sequence[str]) -> Row:
    """A line without a heading."""
    labelled = LABELMAP.fullmatch(line)
    if labelled and ":" in line and (labelled[2] or line.count(":") >= 2):
        colour = _colour(path, place, line, labelled.groups()[1:]) if labelled[2] else None
        return Row(place, _named(path, place, line, labelled[1]), colour, None)
    named = re.fullmatch(r"([^:]*[^:\d\s][^:]*):\s*(\d+)\s*,?", line)
    if named:
        return Row(place, named[1].strip(" \"'"), None, level(path, place, named[2], "id"))
    numbered = re.fullmatch(r"[\"']?(\d+)[\"']?\s*:\s*(.+?)\s*,?", line)
    if numbered:
        # Words alone are one name, commas and all.
        rest = _split(numbered[2], ())
        words = not any(map(_is_number, rest))
        row = _of_fields(path, place, line, [numbered[2]] if words else rest)
        if row.id is not None:
            raise ValueError(f"{path}, {place}: {line!r} has two ids; {FORMS}")
        return row._replace(id=level(path, place, numbered[1], "id"))
    return _of_fields(path, place, line, _split(line, shared))


def _split(line: str, shared: Sequence[str]) -> List[str]:
    marks = list(shared) or [mark for mark in DELIMITERS if mark in line]
    fields: List[str] = []
    for field in _fields(line, marks[0] if marks else None):
        # "1 2 3" between two marks is a colour.
        words = field.replace(",", " ").split()
        fields += words if len(words) == 3 and all(map(_is_number, words)) else [field]
    return fields if marks else [field.strip("\"'") for field in fields]


def _of_fields(path: Path, place: str, line: str, fields: List[str]) -> Row:
    """id? colour? name colour?, each number in a field of its own."""
    spread = any(mark in line for mark in DELIMITERS)
    first, last = 0, len(fields)
    while first < last and _is_number(fields[first]):
        first += 1
    while last > first and _is_number(fields[last - 1]):
        last -= 1
    before, names, after = fields[:first], fields[first:last], fields[last:]
    if not names and len(before) == 4 and not after:
        names = [before[0]]  # id R G B: the id serves as the name
    name = " ".join(names)
    sizes = [sum(3 if HEX.fullmatch(word) else 1 for word in part) for part in (before, after)]
    if not name or (spread and len(names) > 1 and ":" not in line):
        what = "has no name" if not name else f"has {len(names)} names"
        raise ValueError(f"{path}, {place}: {line!r} {what}; {FORMS}")
    if sizes[0] not in (0, 1, 3, 4) or sizes[1] not in (0, 3) or (sizes[0] > 1 and sizes[1]):
        many = f"{sizes[1]} numbers after the name" if sizes[1] else f"{sizes[0]} numbers before it"
        raise ValueError(f"{path}, {place}: {line!r} has {many}; {FORMS}")
    number = level(path, place, before[0], "id") if sizes[0] in (1, 4) else None
    words = after or before[1 if number is not None else 0 :]
    colour = _colour(path, place, line, words) if words else None
    return Row(place, _named(path, place, line, name), colour, number)


def _named(path: Path, place: str, line: str, name: str) -> str:
    """The name, refused where a part of the line that is no name was taken into it."""
    name = name.strip().strip("\"'")
    if not name or re.search(r"[:=]\s*\d|::|\d\s*,\s*\d|^[{\[]|^[-*] |[}\]:=,{]$", name):
        raise ValueError(f"{path}, {place}: {line!r} is not understood; {FORMS}")
    return name


def _hexed(text: str) -> str:
    """`(170, 214, 245)` and the like as `#aad6f5`, one word."""

    def written(found) -> str:
        levels = [int(number) for number in found.groups()]
        return " #%02x%02x%02x" % tuple(levels) if max(levels) < 256 else found.group()

    return TRIPLE.sub(written, text)


def _is_number(word: str) -> bool:
    return bool(NUMBER.fullmatch(word) or HEX.fullmatch(word))


def _colour(path: Path, place: str, line: str, words: Sequence[str]) -> Colour:
    if len(words) == 1 and HEX.fullmatch(words[0]):
        return tuple(int(words[0][start : start + 2], 16) for start in (1, 3, 5))
    if len(words) != 3:
        raise ValueError(f"{path}, {place}: {line!r} has no colour R G B or #rrggbb; {FORMS}")
    return tuple(level(path, place, word, "colour") for word in words)


def _json_rows(path: Path, text: str) -> Tuple[List[Row], List[int]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    ignore = data.get("ignore", []) if isinstance(data, dict) else []
    if not isinstance(ignore, list):
        raise ValueError(f'{path}: "ignore" is {json.dumps(ignore)[:60]}; expected a list of ids')
    ignored = [level(path, '"ignore"', value, "ignored id") for value in ignore]

    # The classes themselves, or an entry that holds them.
    inner = data
    if isinstance(data, dict):
        there = [name for name in LISTS if isinstance(data.get(name), (list, dict))]
        inner = data[there[0]] if there else {k: v for k, v in data.items() if k != "ignore"}
    if isinstance(inner, dict):
        inner = [_of_pair(path, key, value) for key, value in inner.items()]
    if not isinstance(inner, list) or not inner:
        raise ValueError(f"{path}: no classes; expected {JSON_FORMS}")
    return [_of_item(path, f"class {index}", item) for index, item in enumerate(inner)], ignored


def _of_pair(path: Path, key: str, value: object) -> dict:
    """An entry id: name, name: id, name: colour or id: {"name": ...} as an object."""
    if key.strip().isdigit() and isinstance(value, (str, dict)):
        inner = {"name": value} if isinstance(value, str) else value
        return {**inner, "id": int(key)}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"name": key, "id": value}
    if isinstance(value, list) and len(value) == 3:
        return {"name": key, "color": value}
    raise ValueError(f"{path}: {json.dumps({key: value})[:80]} names no class; expected {JSON_FORMS}")


def _of_item(path: Path, place: str, item: object) -> Row:
    shown = f"{path}, {place}: got {json.dumps(item)[:60]}"
    if isinstance(item, dict):
        names = [key for key in item if key.lower() in COLUMNS["name"]]
        colours = [key for key in item if key.lower() in COLUMNS["colour"]]
        ids = [key for key in item if key.lower() in COLUMNS["id"]]
        name = item[names[0]] if names else None
        colour = item[colours[0]] if colours else None
        number = item[ids[0]] if ids else None
    elif isinstance(item, list) and len(item) == 2:
        (name, colour), number = item, None
    else:
        name, colour, number = item, None, None
    if isinstance(colour, str) and HEX.fullmatch(colour):
        colour = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    coloured = colour is None or (isinstance(colour, list) and len(colour) == 3)
    if not isinstance(name, str) or not name.strip() or not coloured:
        raise ValueError(f'{shown}; expected "name", ["name", [R, G, B]] or {{"id": 0, "name": ...}}')
    levels = colour and tuple(level(path, place, value, "colour") for value in colour)
    number = None if number is None else level(path, place, number, "id")
    return Row(place, name.strip(), levels, number)


def level(path: Path, place: str, value: object, what: str) -> int:
    """The value as a whole number 0..255; raises ValueError naming the place."""
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if type(number) is not int or not 0 <= number <= 255:
        raise ValueError(f"{path}, {place}: {what} {value}; expected whole numbers 0..255")
    return number
