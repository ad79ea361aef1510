"""The one reader of text that people give: UTF-8, and one line that says so where it is not."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Iterator, List, Tuple

from jseg.files import DataError, PathLike

MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

# Encodings of East Asian text, by Python's codec, and the first bytes of their frequent characters.
EAST_ASIAN = (
    ("GBK", "gbk", 0xB0, 0xD7),
    ("Big5", "big5", 0xA4, 0xC6),
    ("Shift-JIS", "shift_jis", 0x88, 0x97),
    ("EUC-KR", "euc_kr", 0xB0, 0xC8),
)


def parse_json(text: str):
    """The data of a JSON text; ValueError also where a key stands twice in one object, of which one
    would be lost.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object"
        )
    return found


def read_text(path: PathLike, what: str = "") -> str:
    """The text of a UTF-8 file, without the marks at its beginning that Windows writes.

    what: what the file is, for messages ("stages file"). Raises DataError in one line for a folder
    and for bytes that are no UTF-8, with the encoding that they look like; OSError passes through.
    """
    path, named = Path(path), f"{what} {path}".strip()
    if path.is_dir():
        raise DataError(f"{named} is a folder; expected a text file in UTF-8")
    content = path.read_bytes()
    encoding = _other_encoding(content)
    if encoding:
        raise DataError(f"{named} is {encoding}; expected UTF-8, save it as UTF-8")
    return content.decode("utf-8").lstrip("\ufeff")


def other_readings(path: PathLike) -> Iterator[Tuple[str, str]]:
    """(encoding, text) of a file in other encodings than UTF-8 in which it is a text.

    Short names in GBK can be UTF-8 by chance: whoever knows what the text must hold can tell.
    """
    content = Path(path).read_bytes()
    for name, codec, _, _ in EAST_ASIAN:
        try:
            yield name, content.decode(codec)
        except UnicodeDecodeError:
            continue


def _other_encoding(content: bytes) -> str:
    """What the bytes seem to be where they are no UTF-8 text; "" for UTF-8."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return f"{name} text"

    # Every second byte of ASCII in UTF-16 is 0; so is many a byte of a file that is no text.
    if b"\0" in content:
        halves = [content[start::2].count(0) / (len(content) // 2 or 1) for start in (0, 1)]
        utf_16 = len(content) % 2 == 0 and max(halves) > 0.3 and min(halves) < 0.05
        return "UTF-16 text without its mark" if utf_16 else "not a text file (it has zero bytes)"

    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{content[error.start]:02x} in line {content[: error.start].count(10) + 1}"
        names = _east_asian(content)
        listed = ", ".join(names[:-1]) + " or " * (len(names) > 1) + "".join(names[-1:])
        looks = f"it looks like {listed}" if names else "perhaps an old Windows encoding"
        return f"not UTF-8 text ({place}; {looks})"
    return ""


def _east_asian(content: bytes) -> List[str]:
    """The encodings in which nearly all that is not ASCII are frequent characters.

    Where there is none, the first in which they are Chinese at least.
    """
    likely, possible = [], []
    for name, codec, first, last in EAST_ASIAN:
        try:
            foreign = [letter for letter in content.decode(codec) if ord(letter) > 127]
        except UnicodeDecodeError:
            continue
        marks = sum(map(_is_mark, foreign))
        letters = [letter for letter in foreign if not _is_mark(letter)]
        frequent = sum(first <= letter.encode(codec)[0] <= last for letter in letters)
        chinese = sum("\u4e00" <= letter <= "\u9fff" for letter in letters)
        if marks + frequent > 0.8 * len(foreign):
            likely.append(name)
        if marks + chinese > 0.8 * len(foreign):
            possible.append(name)
    return likely or possible[:1]


def _is_mark(letter: str) -> bool:
    """Whether a letter is East Asian punctuation, of full width or kana."""
    return "\u3000" <= letter <= "\u30ff" or "\uff00" <= letter <= "\uff5e"
