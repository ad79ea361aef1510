"""Text files that people write: read as UTF-8, or refused in one line that names the encoding."""

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
    """The data of a JSON text; raises ValueError also where an object has a key twice."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs):
    values = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key!r} stands twice in one object")
        values[key] = value
    return values


def read_text(path: PathLike, what: str = "") -> str:
    """The text of a UTF-8 file, without the marks that Windows writes at its beginning.

    what: what the file is, for messages ("stages file"). Raises DataError for a folder, and for
    bytes that are not UTF-8, with the encoding that they look like; OSError passes through.
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
    """(encoding, text) for each encoding but UTF-8 in which the file is a text.

    Short names in GBK can be valid UTF-8 by chance; only who knows what the text must say can tell.
    """
    content = Path(path).read_bytes()
    for name, codec, _, _ in EAST_ASIAN:
        try:
            yield name, content.decode(codec)
        except UnicodeDecodeError:
            continue


def _other_encoding(content: bytes) -> str:
    """What the bytes seem to be if they are not UTF-8 text, else ""."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return f"{name} text"

    # Every second byte of ASCII in UTF-16 is 0. Files that are no text have zero bytes, too.
    if b"\0" in content:
        halves = [content[start::2].count(0) / (len(content) // 2 or 1) for start in (0, 1)]
        utf_16 = len(content) % 2 == 0 and max(halves) > 0.3 and min(halves) < 0.05
        return "UTF-16 text without its mark" if utf_16 else "not a text file (it has zero bytes)"

    try:
        content.decode("utf-8")
        return ""
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        place = f"byte 0x{content[error.start]:02x} in line {line}"

    # The encoding is a guess.
    *others, last = _east_asian(content) or [""]
    names = f"{', '.join(others)} or {last}" if others else last
    looks = f"it looks like {names}" if names else "perhaps an old Windows encoding"
    return f"not UTF-8 text ({place}; {looks})"


def _east_asian(content: bytes) -> List[str]:
    """The encodings in which nearly all letters beyond ASCII are frequent ones.

    If there is none, the first encoding in which they are at least Chinese.
    """
    likely, possible = [], []
    for name, codec, first, last in EAST_ASIAN:
        try:
            foreign = [letter for letter in content.decode(codec) if ord(letter) > 127]
        except UnicodeDecodeError:
            continue

        # Punctuation counts for every encoding.
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
