"""Aesthetic values that people bring, in CSV or JSON: one for every result."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Tuple

from jseg.counting import agreeing, counted
from jseg.data.folders import listing, name_key, some
from jseg.files import DataError, PathLike
from jseg.image_files.decoding import IMAGE_SUFFIXES
from jseg.text_file import other_readings, parse_json, read_text

# Headings of columns, in lower case.
NAMES = ("name", "names", "file", "filename", "file_name", "image", "image_name", "picture", "path")
NAMES += ("stem", "id", "image_id")
VALUES = ("value", "aesthetic", "score", "mean", "aesthetic_score", "aesthetics", "mean_score")
VALUES += ("mos", "prediction", "rating")
SPREADS = ("std", "stddev", "std_dev", "sd", "sem", "var", "variance")


def read_aesthetic(
    path: PathLike, stems: Sequence[str], top: float
) -> Tuple[Dict[str, float], List[str]]:
    """({stem: value} of a file with an aesthetic value, 0 to `top`, for every result; remarks).

    CSV: `name,value` a line, a heading allowed; with more columns, the heading must name the one
    with the values (VALUES). JSON (a name ending in .json): {"name": value, ...}. A name may have a
    suffix (.jpg). Remarks say which column was taken, and count values of no result. Raises
    DataError in one line, FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"--aesthetic {path} {problem}; expected a file of values, `name,value` a line"
        )

    # Every result needs a value; other values are not used.
    values, remarks = _values(path, read_text(path), top)
    keys = {name_key(stem): stem for stem in stems}
    missing = [stem for key, stem in keys.items() if key not in values]
    if missing:
        _check_encoding(path, top, set(keys))
        raise DataError(f"{path} has no value for {some(missing)}; expected one for every result")
    unused = [key for key in values if key not in keys]
    if unused:
        remarks.append(
            f"{len(unused)} of {counted(len(values), 'value[s]')} in {path} "
            f"{agreeing(len(unused), '[is|are] of no result and [is|are]')} not used "
            f"({listing(unused)})"
        )
    return {stem: values[key] for key, stem in keys.items()}, remarks


def _check_encoding(path: Path, top: float, keys: Set[str]) -> None:
    """Raise DataError where the file has all names in another encoding than UTF-8."""
    for encoding, text in other_readings(path):
        try:
            values, _ = _values(path, text, top)
        except DataError:
            continue
        if keys <= set(values):
            raise DataError(
                f"{path} is not UTF-8 text (it looks like {encoding}: read so, it has a value for "
                f"every result); expected UTF-8, save it as UTF-8"
            )


def _values(path: Path, text: str, top: float) -> Tuple[Dict[str, float], List[str]]:
    """({key of the name: value}, remarks) of a file's text."""
    try:
        if path.suffix.lower() == ".json":
            pairs, remarks = list(parse_json(text).items()), []
        else:
            pairs, remarks = _csv_pairs(path, text)
    except DataError:
        raise
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected `name,value` a line, or JSON "
            f'{{"name": value, ...}}'
        ) from None

    # A name stands for a result, with its suffix or without.
    values: Dict[str, float] = {}
    for name, value in pairs:
        key = name_key(_stem(str(name)))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= top:
            raise DataError(
                f"{path}: the value of {name} is {value}; expected 0 to {top:g} (--aesthetic_max)"
            )
        if key in values:
            raise DataError(f"{path} has two values for {key}; remove one")
        values[key] = float(value)
    return values, remarks


def _csv_pairs(path: Path, text: str) -> Tuple[List[Tuple[str, float]], List[str]]:
    """((name, value) of every row, remarks)."""
    lines = enumerate(csv.reader(text.splitlines()), 1)
    rows = [(number, [cell.strip() for cell in row]) for number, row in lines]
    rows = [(number, row) for number, row in rows if any(row)]
    name, value, remarks = _columns(path, rows)
    pairs: List[Tuple[str, float]] = []
    for number, row in rows:
        short = max(name, value) >= len(row)
        parsed = None if short else _number(row[value])
        if parsed is None and (number > 1 or short):
            shown = ",".join(row)[:60]
            raise DataError(f"{path}, line {number}: {shown}; expected `name,value`")
        if parsed is not None:
            pairs.append((row[name], parsed))
    return pairs, remarks


def _columns(path: Path, rows: Sequence[Tuple[int, List[str]]]) -> Tuple[int, int, List[str]]:
    """(column of the names, column of the values, remarks): the first two, or those that a heading
    names.
    """
    used = {place for _, row in rows for place, cell in enumerate(row) if cell}
    heading = [cell.lower().replace(" ", "_") for cell in rows[0][1]] if rows else []

    # Two columns need no heading, unless it says that the second is something else.
    if max(used, default=1) < 2 and not set(heading[1:2]) & set(SPREADS):
        return 0, 1, []
    names = [place for place, cell in enumerate(heading) if cell in NAMES] or [0]
    values = [place for place, cell in enumerate(heading) if cell in VALUES and place not in names]
    if len(values) != 1 or len(names) != 1:
        shown = ",".join(rows[0][1])[:60]
        raise DataError(
            f"{path} has {max(used) + 1} columns ({shown}); expected `name,value`, or a heading "
            f"with one column of {', '.join(VALUES[:4])} or the like; remove the others"
        )
    column, count = rows[0][1][values[0]], max(used) + 1
    remark = f"of the {count} columns in {path}, {column} is taken as the aesthetic value"
    return names[0], values[0], [remark]


def _number(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "." + suffix.lower() in IMAGE_SUFFIXES else name
