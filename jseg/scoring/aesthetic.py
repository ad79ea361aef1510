"""Aesthetic values that people bring: CSV or JSON, the column that is meant, one value for every result."""
from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Tuple

from jseg import images
from jseg.checks import DataError, name_key, some
from jseg.text_file import other_readings, read_text

# Headings of columns, in lower case.
NAMES = ("name", "names", "file", "filename", "file_name", "image", "image_name", "picture", "path", "stem", "id", "image_id")
VALUES = ("value", "aesthetic", "score", "mean", "aesthetic_score", "aesthetics", "mean_score", "mos", "prediction", "rating")
SPREADS = ("std", "stddev", "std_dev", "sd", "sem", "var", "variance")


def read_aesthetic(path, stems: Sequence[str], top: float, notes: Optional[List[str]] = None) -> Dict[str, float]:
    """{stem: value} of a file with an aesthetic value, 0 to `top`, for every result; others are not used, with a note.

    CSV: `name,value` a line, a heading allowed; of more columns, the heading must tell which is meant (VALUES); JSON (a name ending in
    .json): {"name": value, ...}. A name may have a suffix (.jpg). Raises DataError in one line, FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError("--aesthetic %s %s; expected a file of values, `name,value` a line" % (path, "is a folder" if path.is_dir()
                                                                                                       else "does not exist"))
    said: List[str] = []
    found = _values(path, read_text(path), top, said)
    wanted = {name_key(stem): stem for stem in stems}
    missing = [stem for key, stem in wanted.items() if key not in found]
    if missing:
        _check_encoding(path, top, set(wanted))
        raise DataError("%s has no value for %s; expected one for every result" % (path, some(missing)))
    if notes is not None:
        notes.extend(said)
        unused = [key for key in found if key not in wanted]
        notes.extend([f"{len(unused)} of {len(found)} values in {path} are of no result and are not used ({some(unused, False)})"]
                     * bool(unused))
    return {stem: found[key] for key, stem in wanted.items()}


def _check_encoding(path: Path, top: float, wanted: Set[str]) -> None:
    """Raise DataError where names are missing of a file read as UTF-8, but none of the same bytes in another encoding."""
    for encoding, text in other_readings(path):
        try:
            found = _values(path, text, top, [])
        except DataError:
            continue
        if wanted <= set(found):
            raise DataError(f"{path} is not UTF-8 text (it looks like {encoding}: read so, it has a value for every result); expected "
                            f"UTF-8, save it as UTF-8")


def _values(path: Path, text: str, top: float, said: List[str]) -> Dict[str, float]:
    """{key of the name: value} of the text of a file of aesthetic values; what should be told is appended to `said`."""
    try:
        pairs = list(json.loads(text).items()) if path.suffix.lower() == ".json" else _csv_pairs(path, text, said)
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("%s cannot be read (%s); expected `name,value` a line, or JSON {\"name\": value, ...}" % (path, error)) from None
    found: Dict[str, float] = {}
    for name, value in pairs:
        key = name_key(_stem(str(name)))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
            raise DataError("%s: the value of %s is %s; expected 0 to %g (--aesthetic_max)" % (path, name, value, top))
        if key in found:
            raise DataError("%s has two values for %s; remove one" % (path, key))
        found[key] = float(value)
    return found


def _csv_pairs(path: Path, text: str, said: List[str]) -> List[Tuple[str, float]]:
    rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(text.splitlines()), 1)]
    rows = [(number, row) for number, row in rows if any(row)]
    name, value = _columns(path, rows, said)
    pairs: List[Tuple[str, float]] = []
    for number, row in rows:
        found = _number(row[value]) if max(name, value) < len(row) else None
        if found is None and (number > 1 or max(name, value) >= len(row)):
            raise DataError("%s, line %d: %s; expected `name,value`" % (path, number, ",".join(row)[:60]))
        if found is not None:
            pairs.append((row[name], found))
    return pairs


def _columns(path: Path, rows: Sequence[Tuple[int, List[str]]], said: List[str]) -> Tuple[int, int]:
    """The columns of the names and of the values: the first two, or what a heading says of more."""
    used = {place for _, row in rows for place, cell in enumerate(row) if cell}
    heading = [cell.lower().replace(" ", "_") for cell in rows[0][1]] if rows else []
    if max(used, default=1) < 2 and not set(heading[1:2]) & set(SPREADS):
        return 0, 1
    names = [place for place, cell in enumerate(heading) if cell in NAMES] or [0]
    values = [place for place, cell in enumerate(heading) if cell in VALUES and place not in names]
    if len(values) != 1 or len(names) != 1:
        shown = ",".join(rows[0][1])[:60]
        raise DataError(f"{path} has {max(used) + 1} columns ({shown}); expected `name,value`, or a heading with one column of {VALUES[0]}, "
                        f"{', '.join(VALUES[1:4])} or the like; remove the others")
    said.append(f"of the {max(used) + 1} columns in {path}, {rows[0][1][values[0]]} is taken as the aesthetic value")
    return names[0], values[0]


def _number(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "." + suffix.lower() in images.PICTURE_SUFFIXES else name
