"""One class as a file gives it: name, colour, ids; what a column or a key holds, by its heading."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

Colour = Tuple[int, int, int]

IGNORED = 255
HEX = re.compile(r"(?:#|0x)(?:[0-9a-f]{6}|[0-9a-f]{3})(?![0-9a-z])", re.I)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
BARE = re.compile(r"[0-9a-f]{6}", re.I)  # where a heading says that it is a colour
BRACKETS = re.compile(r"(?:rgba?)?\s*[(\[{]?([^()\[\]{}]*)[)\]}]?", re.I)

# Headings of columns and keys of objects: lower case, words joined by _.
HEADINGS = {
    "id": "id idx index ids value class_id label_id classid labelid pixel_value pixelvalue "
    "pixel_id "
    "gray grey gray_value grey_value gray_level class_value label_value class_index label_index "
    "编号 序号 类别编号 类别id 标签值 像素值 灰度值",
    "name": "name class label class_name label_name classname labelname names title "
    "名称 类别 类别名 类别名称 类名 标签名",
    "train": "trainid train_id trainids train_ids",
    "other": "ratio train val stuff category categoryid category_id catid cat_id hasinstances "
    "ignoreineval alpha a isthing supercategory parts actions count pixels frequency",
}
KINDS = {word: kind for kind, words in HEADINGS.items() for word in words.split()}
CHANNELS = {"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b"}
COLOURS = set(
    "color colour rgb hex palette colors colours hexcode hexcolor hexcolour colorcode colourcode "
    "html css 颜色 颜色值".split()
)
BESIDE_COLOURS = set(
    "value values code codes channel level band val 0 255 r g b class label".split()
)
OTHER_SPACES = {"bgr", "hsv", "hsl", "cmyk", "yuv"}


class Row(NamedTuple):
    """One class: where the file has it, its name, and its colour, id and train id if given.

    An id of -1 is in no label map; a train id of 255 means that the class is not trained on.
    """

    place: str
    name: str
    colour: Optional[Colour]
    id: Optional[int]
    train_id: Optional[int] = None


class ClassRows(NamedTuple):
    """What a file holds: classes in its order, ids at which nothing is known, remarks.

    numbered: whether the file gives ids, not train ids alone.
    """

    rows: List[Row]
    ignore: List[int]
    remarks: List[str]
    numbered: bool = False


def kind_of(heading: str) -> str:
    """What a heading says: "id", "name", "train", "r", "g", "b", "colour" or one of three others.

    "space": a colour, but not RGB; "other": known, and nothing is read from it; "?": not known.
    """
    word = re.sub(r"[^0-9a-z\u4e00-\u9fff]+", "_", heading.lower()).strip("_")
    if word in KINDS:
        return KINDS[word]
    parts = set(word.split("_"))
    if parts & OTHER_SPACES:
        return "space"

    # "Red Value", "color_r", "R (0-255)"; then "hex_code", "Color_Code (R,G,B)".
    channels = {CHANNELS[part] for part in parts if part in CHANNELS}
    if len(channels) == 1 and parts - COLOURS - BESIDE_COLOURS <= set(CHANNELS):
        return channels.pop()
    coloured = parts & COLOURS or {"r", "g", "b"} <= parts
    return "colour" if coloured and not parts - COLOURS - BESIDE_COLOURS else "?"


def is_number(word: object) -> bool:
    """Whether a word is a number or a colour of hexadecimal digits."""
    return isinstance(word, str) and bool(NUMBER.fullmatch(word) or HEX.fullmatch(word))


def level(path: Path, place: str, value: object, what: str, least: int = 0) -> int:
    """The value as a whole number from `least` to 255; raises ValueError naming the place."""
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if type(number) is not int or not least <= number <= 255:
        raise ValueError(f"{path}, {place}: {what} {value}; expected whole numbers 0..255")
    return number


def class_id(path: Path, place: str, value: object, what: str = "id") -> int:
    """An id 0..255, or -1; 7.0, as tables with gaps are saved, is 7."""
    text = str(value).strip()
    whole = re.fullmatch(r"[+-]?\d+\.0+", text) and not isinstance(value, bool)
    return level(path, place, int(float(text)) if whole else value, what, -1)


def colour_of(path: Path, place: str, value: object) -> Colour:
    """The colour of [R, G, B], "#rrggbb", "#rgb", "R, G, B", "rgb(R, G, B)" or {"r": R, ...}.

    A fourth number must be 255, which is opaque. Raises ValueError naming the place.
    """
    levels = value
    if isinstance(value, dict):
        kinds = {kind_of(str(key)): number for key, number in value.items()}
        levels = [kinds.get(channel) for channel in "rgb"]
    elif isinstance(value, str) and (HEX.fullmatch(value.strip()) or BARE.fullmatch(value.strip())):
        digits = re.sub("^(#|0x)", "", value.strip().lower())
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        levels = [int(digits[start : start + 2], 16) for start in (0, 2, 4)]
    elif isinstance(value, str):
        match = BRACKETS.fullmatch(value.strip())
        levels = re.split(r"[\s,;/]+", match[1].strip()) if match else []
    levels = list(levels) if isinstance(levels, (list, tuple)) else []

    opaque = len(levels) == 4 and str(levels[3]) in ("255", "1.0")
    if len(levels) != 3 and not opaque:
        raise ValueError(
            f"{path}, {place}: {json.dumps(value, ensure_ascii=False)[:60]} is no colour; "
            "expected R G B of 0..255 or #rrggbb"
        )
    return tuple(level(path, place, number, "colour") for number in levels[:3])
