"""A network's names and shapes against a file's: every difference in one line, with what to do
about it.
"""

from __future__ import annotations

from typing import Callable, Iterable, Mapping, Optional, Tuple

import numpy as np

LISTED = 6
PREFIX_DEPTH = 3

Shapes = Mapping[str, Tuple[int, ...]]
Describe = Callable[[Shapes], Optional[str]]
Explain = Callable[[Shapes, Shapes], Optional[str]]


def mismatch(
    expected: Shapes,
    given: Shapes,
    remedy: str = "",
    describe: Optional[Describe] = None,
    explain: Optional[Explain] = None,
) -> Optional[str]:
    """How the names and shapes given differ from those expected, in one line with the remedy; None
    if they are equal.

    A single value may have shape () or (1,): Jittor knows only the second. Without a remedy it is
    guessed, also with what whoever knows the networks hands in: describe(shapes), which network
    these look like; explain(expected, given), what is wrong in the network's own words. Both may
    return None.
    """
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    misshaped = [
        f"{name} is {list(given[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in given and (tuple(given[name]) or (1,)) != (tuple(shape) or (1,))
    ]
    found = [(missing, "missing"), (unexpected, "unexpected"), (misshaped, "of another shape")]
    if not any(names for names, _ in found):
        return None
    differences = "; ".join(
        f"{len(names)} {what} ({some(names)})" for names, what in found if names
    )
    if remedy:
        return f"differs: {differences}; {remedy}"

    # What the network says itself, then which network the file seems to be, then names around the
    # right ones.
    explained = explain(expected, given) if explain else None
    if explained:
        return f"does not fit the network: {explained}; {differences}"
    text = f"does not fit the network: {differences}"
    wanted, looks = (describe(shapes) if describe else None for shapes in (expected, given))
    if looks and wanted and looks != wanted:
        return (
            f"{text}; this looks like {looks}, the network is {wanted}; give the file of that "
            "network"
        )
    if unexpected and not misshaped and set(missing) <= _behind_prefixes(unexpected):
        return (
            f"{text}; scripts/convert_weights.py takes a network out of a file with other names "
            "and arrays around it"
        )
    return f"{text}; give the complete file of this network"


def some(names: Iterable[str]) -> str:
    """The names as a list that stays within a line."""
    names = list(names)
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([name[:120] for name in map(str, names[:LISTED])] + more)


def shape_of(value) -> Tuple[int, ...]:
    """The shape of an array, number or Jittor Var as a tuple of int."""
    return tuple(int(n) for n in (value.shape if hasattr(value, "shape") else np.shape(value)))


def _behind_prefixes(names: Iterable[str]) -> set:
    tails = set()
    for name in names:
        parts = name.split(".", PREFIX_DEPTH)
        tails.update(".".join(parts[depth:]) for depth in range(1, len(parts)))
        tails.add(name.replace("quantize.embed.", "quantize.embedding."))
    return tails
