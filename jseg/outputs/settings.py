"""Settings of earlier and of present work compared: which differ, and one text that says so."""

from __future__ import annotations

import json
from typing import Dict, Iterator, Mapping, Tuple

from jseg.files import PathLike
from jseg.outputs.places import OutputError

UNKNOWN = object()  # the default of a setting that an older record lacks and nobody can guess
WHEN_MISSING = {"precision": "float32"}  # what results without the setting were made with
NAMED, LONGEST = 4, 60  # differences in a message, and characters of a value


def plain(value):
    """The value as it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(value))


def compared(
    stored: Mapping[str, object], asked: Mapping[str, object], defaults: Mapping[str, object] = {}
) -> Dict[str, Tuple[object, object]]:
    """{setting: (value in `stored`, value in `asked`)} of those that differ.

    A setting that one side lacks has its value in `defaults` there; one with the default UNKNOWN is
    not compared. A setting without a default was off, as it is without its option.
    """
    before, now = {**defaults, **stored}, {**defaults, **asked}
    differences = {}
    for name in sorted(set(stored) | set(asked)):
        old, new = before.get(name), now.get(name)
        if UNKNOWN in (old, new) or _off(name, before, now):
            continue
        old, new = plain(old), plain(new)
        if any(_leaves(name, old, new)):
            differences[name] = old, new
    return differences


def said(differences: Mapping[str, Tuple[object, object]]) -> str:
    """What `compared` found, in words: "seed was 0, is 1; stages[1].guidance was 3.7, is 3.6"."""
    leaves = [leaf for name, pair in differences.items() for leaf in _leaves(name, *pair)]
    return "; ".join(
        f"{name} was {_short(old)}, is {_short(new)}" for name, old, new in leaves[:NAMED]
    )


def check_same(
    folder: PathLike, option: str, stored: Mapping[str, object], asked: Mapping[str, object]
) -> None:
    """Raise OutputError unless the results in `folder` were made with the settings asked for."""
    differences = compared(stored, asked)
    if differences:
        raise refusal(folder, option, differences)


def refusal(
    folder: PathLike, option: str, differences: Mapping[str, Tuple[object, object]]
) -> OutputError:
    """The error that results of other settings are in `folder`."""
    return OutputError(
        f"{folder} holds results of other settings ({said(differences)}); give another {option}, "
        "or the same settings to go on"
    )


def _leaves(name: str, old, new) -> Iterator[Tuple[str, object, object]]:
    """(dotted name, old, new) of every difference, as deep as both values have the same form."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            if not _off(key, old, new):
                yield from _leaves(f"{name}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new)):
            yield from _leaves(f"{name}[{number}]", *pair)
    elif old != new:
        yield name, old, new


def _off(name: str, *sides: Mapping) -> bool:
    """Whether one side lacks a setting that the other one has switched off."""
    return any(name not in side for side in sides) and not any(side.get(name) for side in sides)


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
