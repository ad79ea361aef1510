"""Classes out of nested data, such as JSON: what is beside them is read, or named as not used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from jseg.counting import counted
from jseg.data.class_files.literals import LISTS
from jseg.data.class_files.rows import ClassRows, class_id, colour_of, kind_of
from jseg.data.class_files.tables import rows_of

FORMS = (
    '{"classes": [["name", [R, G, B]], ...], "ignore": [255]}, a list of names, or {"0": "name"}'
)
SPELLING = dict(name="name", id="id", train="trainid", colour="color", r="r", g="g", b="b")
PALETTES = (
    "palette colors colours color_map colour_map colormap colourmap id2color id2colour label2color "
    "class_colors class_colours label_colors label_colours rgb"
).split()
IDS = ("ids", "id", "class_ids", "label_ids", "values")
TRAIN_IDS = ("trainids", "train_ids", "trainid", "train_id")
IGNORES = (
    "ignore ignored ignore_index ignore_indices ignore_label ignore_labels ignore_id ignore_ids "
    "ignore_value ignore_values"
).split()


def data_rows(path: Path, data: object) -> ClassRows:
    """The classes that parsed data hold; ValueError in one line."""
    inner = _inner(data)
    beside: Dict[str, object] = {}
    remarks: List[str] = []
    if isinstance(inner, dict):
        inner, beside, unused = _split(path, inner)
        remarks += [f"not used: {', '.join(unused)}"] * bool(unused)
    ignore, negative = _ignored(path, beside.pop("ignore", []))
    remarks += negative

    # Objects of what is known of each class, as rows of a table.
    if isinstance(inner, dict):
        items = [_same_keys(_of_pair(path, key, value)) for key, value in inner.items()]
    elif isinstance(inner, list):
        items = [_of_item(path, f"class {number}", item) for number, item in enumerate(inner)]
    else:
        items = []
    if not items:
        raise ValueError(f"{path}: no classes; expected {FORMS}")
    for what, values in beside.items():
        _spread(path, what, values, items, isinstance(inner, list))
    headings = list(dict.fromkeys(key for item in items for key in item))
    places = [f"class {number}" for number in range(len(items))]
    rows, left = rows_of(
        path, places, headings, [[item.get(key) for key in headings] for item in items]
    )
    remarks += [f"not used of the classes: {', '.join(left)}"] * bool(left)
    return ClassRows(rows, ignore, remarks)


def _inner(data: object) -> object:
    """The entry of an object that alone holds the classes, such as METAINFO, else the object."""
    if isinstance(data, dict) and not any(_word(str(key)) in LISTS for key in data):
        nested = [
            value
            for value in data.values()
            if isinstance(value, dict) and any(_word(str(key)) in LISTS for key in value)
        ]
        if len(nested) == 1:
            return nested[0]
    return data


def _split(path: Path, data: dict) -> Tuple[object, Dict[str, object], List[str]]:
    """(the classes, {"color", "id", "trainid", "ignore": what is beside them}, unused keys)."""
    filled = {key: value for key, value in data.items() if value is not None}
    listed = [key for key in filled if _word(str(key)) in LISTS and filled[key]]
    lists = [key for key in listed if _holds_names(filled[key])]
    lists = lists or [key for key in listed if isinstance(filled[key], list)][:1]

    # What is beside the classes, by its key and its form.
    kinds = {key: _kind_beside(key, value, lists) for key, value in filled.items()}
    beside: Dict[str, object] = {}
    for key, kind in kinds.items():
        if kind and kind in beside:
            raise ValueError(
                f"{path}: {key} and another entry both give the {kind}; expected one of them"
            )
        if kind:
            beside[kind] = filled[key]
    others = [key for key in filled if not kinds[key] and _word(str(key)) not in beside]
    rest = {key: filled[key] for key in others}
    if not lists:
        return rest, beside, []

    # What two lists of classes say must agree: id2label and label2id.
    names = [_names(filled[key]) for key in lists]
    if any(other != names[0] for other in names[1:]):
        raise ValueError(
            f"{path} has {' and '.join(map(str, lists))}, which name different classes; "
            f"expected one list"
        )

    # Colours under a key that says nothing of them.
    unused = [key for key in rest if key not in lists]
    for key in unused:
        value = rest[key]
        if not isinstance(value, list) or len(value) != len(filled[lists[0]]):
            continue
        if all(isinstance(item, list) and len(item) == 3 for item in value):
            raise ValueError(f"{path}: {key} looks like colours; expected the key palette")
    return filled[lists[0]], beside, [str(key) for key in unused]


def _kind_beside(key, value, lists: Sequence) -> str:
    """What an entry beside the `lists` of classes says of them: "color", "id", "trainid" or
    "ignore"; "" for any other.
    """
    word = _word(str(key))
    numbers = isinstance(value, list) and value and all(type(item) is int for item in value)
    if word in IGNORES and (lists or isinstance(value, (int, list))):
        return "ignore"
    if lists and word in PALETTES and isinstance(value, (list, dict)):
        return "color"
    if lists and numbers and key not in lists and word in IDS + ("labels",):
        return "id"
    return "trainid" if lists and numbers and word in TRAIN_IDS else ""


def _word(key: str) -> str:
    """A key in lower case; class_names and VOC_CLASSES are names and classes, so with palettes."""
    word = key.lower().replace(" ", "_")
    last = word.rpartition("_")[2]
    whole = word in IGNORES + PALETTES or last not in [*LISTS, *PALETTES]
    return word if whole else last


def _holds_names(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and not all(type(item) is int for item in value)
    )


def _names(value: object) -> List[str]:
    """The names in a list or mapping of classes, sorted."""
    if isinstance(value, dict):
        keys = [str(key) for key in value]
        given = value.values() if all(re.fullmatch(r"-?\d+", key) for key in keys) else keys
    else:
        given = value
    return sorted(_name_in(item) for item in given)


def _name_in(item: object) -> str:
    if isinstance(item, dict):
        named = [str(value) for key, value in item.items() if kind_of(str(key)) == "name"]
        return named[0] if named else ""
    return str(item[0] if isinstance(item, list) and item else item)


def _ignored(path: Path, value: object) -> Tuple[List[int], List[str]]:
    """(the ignored ids of a number or a list, a remark on negative ones, which are in no label
    map).
    """
    values = value if isinstance(value, list) else [value]
    if not all(type(item) is int and item <= 255 for item in values):
        raise ValueError(
            f'{path}, "ignore": {json.dumps(value)[:60]}; expected an id 0..255 or a list of ids'
        )
    below = [str(item) for item in values if item < 0]
    remarks = [f"ignored id {', '.join(below)}, which no label map holds"] * bool(below)
    return list(dict.fromkeys(item for item in values if item >= 0)), remarks


def _spread(path: Path, what: str, values: object, items: List[dict], listed: bool) -> None:
    """Give each class what a list or mapping beside them has for it: by id, else in order."""
    count = len(items)

    # R G B R G B ... in one list.
    flat = isinstance(values, list) and all(type(level) is int for level in values)
    if what == "color" and values and flat:
        values = [values[start : start + 3] for start in range(0, len(values), 3)]

    # Which entry is whose.
    ids = [item.get("id") for item in items]
    numbered = all(type(value) is int for value in ids)
    if isinstance(values, dict):
        entries = [
            values.get(str(item.get("id", place)), values.get(item.get("name")))
            for place, item in enumerate(items)
        ]
    elif len(values) == count and (listed or not numbered or ids == sorted(ids)):
        entries = list(values)
    elif what == "color" and numbered and 0 <= min(ids) and max(ids) < len(values):
        entries = [values[number] for number in ids]
    elif what == "color" and not numbered and len(values) == 256:
        entries = list(values[:count])
    else:
        raise ValueError(
            f"{path}: {counted(len(values), 'entr[y|ies]')} of {what} beside {count} "
            "classes; expected one a class"
        )

    for item, value in zip(items, entries):
        if any(kind_of(key) == kind_of(what) for key in item):
            raise ValueError(
                f"{path}: {what} is given with the classes and beside them; expected one of both"
            )
        item[what] = value


def _of_pair(path: Path, key: str, value: object) -> dict:
    """An entry id: name, name: id, name: colour, id: [name, colour] or id: {"name": ...}."""
    numbered = bool(re.fullmatch(r"-?\d+", key.strip()))
    if numbered and isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return {"id": int(key), "name": value[0], "color": value[1]}
    if numbered and isinstance(value, (str, dict)):
        return {**({"name": value} if isinstance(value, str) else value), "id": int(key)}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"name": key, "id": class_id(path, json.dumps(key), value)}

    # The key is the name, unless an object has one; what is left is a colour.
    if isinstance(value, dict):
        named = any(kind_of(str(inner)) == "name" for inner in value)
        return dict(value) if named else {"name": key, **value}
    try:
        return {"name": key, "color": list(colour_of(path, key, value))}
    except ValueError:
        shown = json.dumps({key: value}, ensure_ascii=False)[:80]
        raise ValueError(f"{path}: {shown} names no class; expected {FORMS}") from None


def _same_keys(item: dict) -> dict:
    """The object with one spelling of each key that is understood: objects may differ in it."""
    kinds = {key: kind_of(key) for key in item}
    once = {
        key: SPELLING[kind]
        for key, kind in kinds.items()
        if kind in SPELLING and list(kinds.values()).count(kind) == 1
    }
    return {once.get(key, key): value for key, value in item.items()}


def _of_item(path: Path, place: str, item: object) -> dict:
    if isinstance(item, dict):
        return _same_keys({str(key): value for key, value in item.items() if value is not None})

    # ["name", [R, G, B]], with an id before or behind the name.
    parts = list(item) if isinstance(item, list) and 2 <= len(item) <= 3 else [item]
    numbers = [part for part in parts if type(part) is int] if len(parts) > 1 else []
    parts = [part for part in parts if part not in numbers] if len(numbers) == 1 else parts
    name, colour = (parts + [None])[:2] if len(parts) <= 2 else (item, None)
    if len(numbers) > 1:
        name = item

    # A name is text, and no id is hidden in it.
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{path}, {place}: got {json.dumps(item, ensure_ascii=False)[:60]}; "
            f'expected "name", ["name", [R, G, B]] or {{"id": 0, "name": ...}}'
        )
    if re.match(r"\s*\d+\s*[:=)）、]\s*\S", name):
        raise ValueError(
            f'{path}, {place}: {name!r} begins with a number; expected {{"0": "name"}}'
        )

    known = {"id": numbers[0] if numbers else None, "name": name, "color": colour}
    return {key: value for key, value in known.items() if value is not None}
