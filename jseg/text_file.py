"""The one reader of text that people give: UTF-8, and one line that says so where it is not."""

from __future__ import annotations

import codecs
from pathlib import Path

from jseg.atomic import PathLike

MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class DataError(ValueError):
    """Input files that cannot be used; one line: what was given, what was expected, what to do."""


def read_text(path: PathLike, what: str = "") -> str:
    """The text of a UTF-8 file, without the mark at its beginning that Windows writes.

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
    return content.decode("utf-8-sig")


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
        place = f"byte 0x{content[error.start]:02x} in line {content[:error.start].count(10) + 1}"
        looks = "it looks like GBK" if _is_chinese(content) else "perhaps an old Windows encoding"
        return f"not UTF-8 text ({place}; {looks})"
    return ""


def _is_chinese(content: bytes) -> bool:
    """Whether all bytes beyond ASCII are pairs of GBK's common characters."""
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return False
    foreign = [letter for letter in text if ord(letter) > 127]
    common = sum("\u4e00" <= letter <= "\u9fff" or "\u3000" <= letter <= "\u303f" or "\uff00" <=
                 letter <= "\uffef" for letter in foreign)
    return common > 0.8 * len(foreign)
