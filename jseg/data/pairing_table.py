"""label_to_img.json: which reference photograph belongs to which label map of the challenge."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from jseg.data.folders import meant_folder, name_key
from jseg.data.label_maps import LABEL_SUFFIXES
from jseg.files import DataError
from jseg.text_file import other_readings, read_text

NAME = "label_to_img.json"
EXPECTED = 'expected {"label.png": "reference.jpg", ...}'


def find_table(input_path: Path, folder: Path) -> Tuple[Path, List[str]]:
    """(the table's file, a remark where there are two) for the label maps in `folder`.

    Looked for in input_path, above the folder and in it. Raises DataError.
    """
    places: List[Path] = []
    for place in (input_path, folder.parent, folder):
        if place.resolve() not in [known.resolve() for known in places]:
            places.append(place)
    tables = [place / NAME for place in places if (place / NAME).is_file()]
    if not tables:
        meant = meant_folder(input_path, lambda place: (place / NAME).is_file())
        raise DataError(
            f"no {NAME} in {' or '.join(map(str, places))}; expected the file that pairs label "
            f"maps with references{f'; did you mean {meant}?' if meant else ''}"
        )
    remarks = [f"using {tables[0]}, not {tables[1]}"] if len(tables) > 1 else []
    return tables[0], remarks


def read_table(path: Path, fits: Callable[[Dict[str, str]], bool]) -> Dict[str, str]:
    """{stem of the label map: file name of the reference}.

    fits(table): whether all files are there by it. Raises DataError for a file that is no such
    table, and where it does not fit as UTF-8, but does in another encoding.
    """
    try:
        table = _parsed(path, read_text(path))
    except DataError:
        _check_encoding(path, fits)
        raise
    if not fits(table):
        _check_encoding(path, fits)
    return table


def _check_encoding(path: Path, fits: Callable[[Dict[str, str]], bool]) -> None:
    """Raise DataError where the table's bytes fit in another encoding than UTF-8."""
    for encoding, text in other_readings(path):
        try:
            table = _parsed(path, text)
        except DataError:
            continue
        if fits(table):
            raise DataError(
                f"{path} is not UTF-8 text (it looks like {encoding}: read so, all of its files "
                "are there); expected UTF-8, save it as UTF-8"
            )


class _Object(list):
    """A JSON object as its list of (key, value), so that a key that is there twice is seen."""


def _parsed(path: Path, text: str) -> Dict[str, str]:
    try:
        items = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {EXPECTED}") from None
    if not isinstance(items, _Object):
        raise DataError(f"{path} holds a {type(items).__name__}; {EXPECTED}")

    table: Dict[str, str] = {}
    for key, value in items:
        if not isinstance(value, str) or not _is_file_name(value):
            shown = json.dumps(value, ensure_ascii=False)[:80]
            shown = "a list or object" if isinstance(value, list) else shown
            raise DataError(
                f"{path}: the entry of {key!r:.80} is {shown}; expected a file name such as "
                '"reference.jpg"'
            )
        stem = name_key(_without_suffix(key))
        if stem in table:
            raise DataError(f"{path} has two entries for {stem}; remove one")
        table[stem] = value
    return table


def _is_file_name(text: str) -> bool:
    """Whether a text can be a file's name; letters, spaces and bytes of any encoding are fine."""
    controls = any(unicodedata.category(letter) == "Cc" for letter in text)
    return bool(text) and not controls and "/" not in text and "\\" not in text


def _without_suffix(name: str) -> str:
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in LABEL_SUFFIXES else name
