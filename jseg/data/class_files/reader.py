"""Files of class names, colours and ids in the forms that people have, read as rows.

Text: `name R G B`, `id name`, `name id`, `R G B name`, the same with commas, semicolons or tabs,
with or without a heading; a fourth level that is opaque; `name:R,G,B::` (CVAT's labelmap.txt), `0:
name`, `0) name`, `0=name`, `name: 0`, `- name`; `#rrggbb`, `#rgb`, `0xrrggbb`, `(R, G, B)` as
colours; GIMP palettes; labelme's labels.txt. JSON, Python's and YAML's lists:
`jseg.data.class_files.nested`. Every line that is none of these is refused by its number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Sequence, Tuple

from jseg.data.class_files.literals import literal, parsed
from jseg.data.class_files.nested import data_rows
from jseg.data.class_files.rows import (
    HEX,
    IGNORED,
    ClassRows,
    Colour,
    Row,
    class_id,
    colour_of,
    is_number,
    level,
)
from jseg.data.class_files.tables import DELIMITERS, fields, heading_of, table_rows
from jseg.text_file import read_text

FORMS = "expected 'name R G B', 'id name', 'name,R,G,B', 'id,name,R,G,B' or 'name:R,G,B::'"
TRIPLE = re.compile(r"(?:rgb)?[(\[]\s*(\d+)\s*[,\s]\s*(\d+)\s*[,\s]\s*(\d+)\s*[)\]]", re.I)
LABELMAP = re.compile(r"([^:]+?)\s*:\s*(?:(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*)?(?::[^:]*:[^:]*)?", re.S)
NUMBERED = re.compile(
    r"[(\[（]?[\"']?(\d+)[\"']?(?:\s*[):=\]、）．]|\s*\.(?!\d)|\s+-\s(?=\s*\D))\s*(.+?)\s*,?"
)
NAMED_ID = re.compile(r"(?:([^:]*[^:\d\s][^:]*):|([^:=]*[^:=\d\s][^:=]*)=)\s*(-?\d+)\s*,?")
NAMED_COLOUR = re.compile(r"([^:=]*[^:=\d\s][^:=]*)[:=]\s*([^:=]+?)\s*,?")
# 24/7 and 3-wheeler are names, 0/sky and 1/tree hardly.
NUMBER_IN_NAME = re.compile(r"\d+[-/.&+'%]")
LEADING = re.compile(r"\s*#(?=[a-f]*\d)([0-9a-f]{6}|[0-9a-f]{3})\s+\S", re.I)
IGNORE = re.compile(r"ignore\s*[\s,:=]\s*([+-]?[\d.]+)", re.I)
NOT_A_NAME = re.compile(
    r"[:=]\s*\d|::|\d\s*,\s*\d|^[{\[<>)\]=、）|/\\~;,.!?+&]|^[-*]+[\s>]|^\d+(?![-/.&+'%])\s*[^\w\s]"
    r"|[}\]:=,{]$|(^|\s)0x[0-9a-f]+$|[-=]>|^\w+\s*=\s*\w*[\[({]"
    r"|(^|\s)\d+\s+\d+\s+\d+(\s|$)|\d\s*[:=]|^[①-⑳]|\s(?=[a-f]*\d)[0-9a-f]{6}$",
    re.I,
)
FULL_WIDTH = {**str.maketrans("，；：", ",;:"), 0x200B: None, 0xFEFF: None}  # and what has no width
UNKNOWN = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "__ignore__")  # at id 255
LABELME = "__ignore__"  # labelme's first line, of id -1


def read_rows(path: Path) -> ClassRows:
    """Rows in the order of the file, ids at which nothing is known, and what of it is not used.

    Raises ValueError in one line for what is not understood.
    """
    text = read_text(path)
    if path.suffix.lower() == ".json":
        return _settled(path, data_rows(path, parsed(path, text)))
    if re.match(r"\s*<[?!\w]", text):
        raise ValueError(f"{path} looks like XML; {FORMS}, a name or class a line")
    data = literal(path, text)
    return _settled(path, _text_rows(path, text) if data is None else data_rows(path, data))


def _settled(path: Path, content: ClassRows) -> ClassRows:
    """The rows without those that are no classes: nothing is known there, or no map has them."""
    rows, ignore, remarks = list(content.rows), list(content.ignore), list(content.remarks)
    numbered = any(row.id is not None for row in rows)
    if rows and rows[0].name == LABELME and rows[0].id in (None, -1, IGNORED):
        ignore.append(IGNORED)
        remarks.append(f"{LABELME} is no class, 255 is ignored")
        rows = rows[1:]
    later = [row for row in rows if row.name == LABELME and row.id not in (-1, IGNORED, *ignore)]
    if later:
        raise ValueError(
            f"{path}, {later[0].place}: {LABELME} is no class, as labelme has it in the first line,"
            f" without an id; expected it there, or another name"
        )

    # A file of train ids alone is numbered by them, where some are none.
    if rows and all(row.id is None and row.train_id is not None for row in rows):
        left = [row.name for row in rows if row.train_id == IGNORED]
        rows = [row._replace(id=row.train_id) for row in rows if row.train_id != IGNORED]
        remarks += [f"no train id: {', '.join(left)}"] * bool(left)
    absent = [row.name for row in rows if row.id == -1]
    rows = [row for row in rows if row.id != -1]
    remarks += [f"of id -1, which no label map holds: {', '.join(absent)}"] * bool(absent)

    # What is named unknown, at 255 or at an ignored id.
    ids = [place if row.id is None else row.id for place, row in enumerate(rows)]
    unknown = [
        (number == IGNORED or number in ignore) and row.name.lower() in UNKNOWN
        for number, row in zip(ids, rows)
    ]
    if any(unknown):
        ignore += [number for number, no in zip(ids, unknown) if no]
        places = [place for place, no in enumerate(unknown) if not no]
        # Where only the last ones go, the order of the others is still their ids.
        counted = places == list(range(len(places)))
        rows = [rows[place] if counted else rows[place]._replace(id=ids[place]) for place in places]
    return ClassRows(rows, list(dict.fromkeys(ignore)), remarks, numbered)


def _text_rows(path: Path, text: str) -> ClassRows:
    lines = [(f"line {n}", line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and lines[0][1].strip() == "GIMP Palette":
        lines = [item for item in lines[1:] if not re.match(r"\s*(Name|Columns):", item[1])]
    if lines and re.fullmatch(r"sep=.", lines[0][1].strip()):
        lines = lines[1:]
    lines = [(place, line.translate(FULL_WIDTH)) for place, line in lines]
    lead = any(LEADING.match(line) for _, line in lines)
    lines = [(place, _hexed(_without_comment(path, place, line, lead))) for place, line in lines]
    lines = _unframed([(place, line) for place, line in lines if line])

    # Ids to be ignored have lines of their own in every form.
    shared = [mark for mark in DELIMITERS if lines and all(mark in line for _, line in lines)]
    heading = heading_of(lines[0][1], shared) if lines else None
    lines = lines[1:] if heading else lines
    ignored = {place: IGNORE.fullmatch(line) for place, line in lines}
    ignore = [
        level(path, place, match[1], "ignored id") for place, match in ignored.items() if match
    ]
    lines = [(place, line) for place, line in lines if not ignored[place]]
    if heading:
        rows, left = table_rows(path, heading, lines)
        return ClassRows(rows, ignore, [f"columns not used: {', '.join(left)}"] * bool(left))

    fourth = _fourth([_split(line, shared) for _, line in lines])
    rows = [_row(path, place, line, shared, fourth) for place, line in lines]
    if rows and all(row.id is None and NUMBER_IN_NAME.match(row.name) for row in rows):
        raise ValueError(
            f"{path}, {rows[0].place}: {rows[0].name!r} begins with a number, as all names do; if "
            f"these are ids, write them as in `0: sky`; {FORMS}"
        )
    return ClassRows(rows, ignore, ["the fourth level (alpha) is not used"] * (fourth == "alpha"))


def _without_comment(path: Path, place: str, line: str, lead: bool) -> str:
    """The line up to the first # that begins a comment: none of a colour or, as in C#, of a name.

    lead: whether lines of the file begin with colours, so that #add and #bad are such.
    """
    for mark in re.finditer("#", line):
        before, after = line[: mark.start()], line[mark.end() :]
        colour = HEX.match(line, mark.start())
        short = bool(colour) and len(colour[0]) == 4
        coloured = any(is_number(word) for word in re.split(r"[\s,;|]+", before)[1:])
        if colour and not (short and (coloured or not (before.strip() or lead))):
            continue

        # A # in a word is a part of it, as in C#, or a comment without its space.
        if before[-1:].isalpha():
            if re.match(r"\s*($|[,;|\t]|[:=]|[\d(#\[])", after):
                continue
            raise ValueError(
                f"{path}, {place}: {line.strip()!r} has # in a word; expected a space before a "
                f"comment"
            )
        return before.strip()
    return line.strip()


def _unframed(lines: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
    """The lines without what all of them begin or end with: - of a list, | of a table, commas."""
    texts = [line for _, line in lines]
    if texts and all(len(line) > 1 and line[0] == line[-1] == "|" for line in texts):
        lines = [
            (place, line[1:-1].strip()) for place, line in lines if re.search(r"[^|\s:-]", line)
        ]
    elif texts and all("|" in line for line in texts):
        lines = [(place, line) for place, line in lines if re.search(r"[^|\s:-]", line)]
    elif texts and all(re.match(r"[-*•]\s+\S", line) for line in texts):
        lines = [(place, line[1:].strip()) for place, line in lines]

    # Marks behind every line, but for the last one.
    for mark in ",;":
        if lines and all(line.endswith(mark) for _, line in lines[:-1] or lines):
            lines = [
                (place, line[:-1].strip() if line.endswith(mark) else line) for place, line in lines
            ]
    return [(place, line) for place, line in lines if line]


def _fourth(parts: Sequence[List[str]]) -> str:
    """What four numbers of all lines are: "alpha" R G B A, "id" id R G B, "" where that is open."""
    split = [_around(words) for words in parts]
    if not split or len({(len(before), len(after)) for before, _, after in split}) > 1:
        return ""
    before, after = len(split[0][0]), len(split[0][2])
    if (before, after) not in ((0, 4), (1, 4), (5, 0), (4, 0)) or not all(
        names for _, names, _ in split
    ):
        return ""

    # A level that is the same everywhere, 255 or 0, is alpha; numbers 0, 1, 2, ... are ids.
    numbers = [four for first, _, last in split for four in [last or first]]
    firsts = [int(four[0]) if four[0].isdigit() else -1 for four in numbers]
    opaque = {four[-1] for four in numbers} in ({"255"}, {"0"})
    if before == 4:
        return "alpha" if numbers[0][-1] == "255" and opaque and firsts != sorted(firsts) else ""
    counted = before == 0 and len(firsts) > 1 and sorted(firsts) == list(range(len(firsts)))
    return "" if opaque == counted else "alpha" if opaque else "id"


def _row(path: Path, place: str, line: str, shared: Sequence[str], fourth: str) -> Row:
    """A line without a heading."""
    labelled = LABELMAP.fullmatch(line)
    if labelled and ":" in line and (labelled[2] or line.count(":") >= 2):
        levels = labelled.groups()[1:]
        colour = colour_of(path, place, levels) if labelled[2] else None
        return Row(place, _named(path, place, line, labelled[1]), colour, None)

    # name: id, name: colour, id: the rest, else a field for each.
    named = NAMED_ID.fullmatch(line)
    if named:
        number = class_id(path, place, named[3])
        return Row(place, _named(path, place, line, named[1] or named[2]), None, number)
    coloured = NAMED_COLOUR.fullmatch(line)
    words = _split(coloured[2], ()) if coloured else []
    if words and all(map(is_number, words)) and _size(words) == 3:
        return Row(place, _named(path, place, line, coloured[1]), _colour(path, place, words), None)
    numbered = NUMBERED.fullmatch(line)
    if numbered:
        # Words alone are one name, commas and all.
        rest = _split(numbered[2], ())
        words = rest if any(map(is_number, rest)) else [numbered[2]]
        row = _of_fields(path, place, line, words, fourth)
        if row.id is not None:
            raise ValueError(f"{path}, {place}: {line!r} has two ids; {FORMS}")
        return row._replace(id=class_id(path, place, numbered[1]))
    return _of_fields(path, place, line, _split(line, shared), fourth)


def _split(line: str, shared: Sequence[str]) -> List[str]:
    marks = list(shared) or [mark for mark in DELIMITERS if mark in line]
    words: List[str] = []
    for field in fields(line, marks[0] if marks else None):
        # "1 2 3" between two marks is a colour.
        parts = field.replace(",", " ").split()
        words += parts if len(parts) in (3, 4) and all(map(is_number, parts)) else [field]
    return words if marks else [word.strip("\"'") for word in words]


def _around(words: Sequence[str]) -> Tuple[List[str], List[str], List[str]]:
    """(numbers before the name, its words, numbers after it)."""
    first, last = 0, len(words)
    while first < last and is_number(words[first]):
        first += 1
    while last > first and is_number(words[last - 1]):
        last -= 1
    return list(words[:first]), list(words[first:last]), list(words[last:])


def _size(words: Sequence[str]) -> int:
    return sum(3 if HEX.fullmatch(word) else 1 for word in words)


def _colour(path: Path, place: str, words: Sequence[str]) -> Colour:
    return colour_of(path, place, words[0] if len(words) == 1 else list(words))


def _of_fields(path: Path, place: str, line: str, words: Sequence[str], fourth: str) -> Row:
    """id? colour? name id? colour?, each number in a field of its own."""
    spread = any(mark in line for mark in DELIMITERS)
    before, names, after = _around(words)
    if not names and len(before) == 4 and not after:
        names = [before[0]]  # id R G B: the id serves as the name
    name = " ".join(names)
    if not name or (spread and len(names) > 1 and ":" not in line):
        what = "has no name" if not name else f"has {len(names)} names"
        raise ValueError(f"{path}, {place}: {line!r} {what}; {FORMS}")

    # Without alpha there are an id and a colour, each once.
    if len(after) == 2 and HEX.fullmatch(after[1]) and not HEX.fullmatch(after[0]) and not before:
        before, after = after[:1], after[1:]
    after = after[:-1] if fourth == "alpha" and _size(after) == 4 else after
    before = before[:-1] if fourth == "alpha" and _size(before) in (4, 5) else before
    sizes = (_size(before), _size(after))
    ids = before[: sizes[0] in (1, 4)] + after[: sizes[1] == 1 or fourth == "id"]
    levels = before[sizes[0] in (1, 4) :] + after[sizes[1] == 1 or fourth == "id" :]
    most = 4 if fourth == "id" else 3
    wrong = sizes[0] not in (0, 1, 3, 4) or sizes[1] not in (0, 1, most)
    if wrong or len(ids) > 1 or (sizes[0] > 1 and sizes[1]):
        many = f"{sizes[1]} numbers after the name" if sizes[1] else f"{sizes[0]} numbers before it"
        raise ValueError(f"{path}, {place}: {line!r} has {many}; {FORMS}")
    number = class_id(path, place, ids[0]) if ids else None
    colour = _colour(path, place, levels) if levels else None
    return Row(place, _named(path, place, line, name), colour, number)


def _named(path: Path, place: str, line: str, name: str) -> str:
    """The name, refused where a part of the line that is no name was taken into it."""
    name = name.strip().strip("\"'").strip()
    if not name or NOT_A_NAME.search(name):
        raise ValueError(f"{path}, {place}: {line!r} is not understood; {FORMS}")
    return name


def _hexed(text: str) -> str:
    """`(170, 214, 245)` and the like as `#aad6f5`, one word."""

    def hexadecimal(match: re.Match) -> str:
        levels = [int(number) for number in match.groups()]
        digits = "".join(f"{number:02x}" for number in levels)
        return f" #{digits}" if max(levels) < 256 else match.group()

    return TRIPLE.sub(hexadecimal, text)
