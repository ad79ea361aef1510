"""A network's names and shapes against a file's: every difference in one line, with a remedy."""

from __future__ import annotations

from typing import Callable, Iterable, List, Mapping, Optional, Tuple

import numpy as np

LISTED = 6
PREFIX_DEPTH = 3

Shapes = Mapping[str, Tuple[int, ...]]
LooksLike = Callable[[Shapes], Optional[str]]
Explain = Callable[[Shapes, Shapes], Optional[str]]


def mismatch(
    expected: Shapes,
    given: Shapes,
    remedy: str = "",
    looks_like: Optional[LooksLike] = None,
    explain: Optional[Explain] = None,
) -> Optional[str]:
    """How the given names and shapes differ from the expected ones, in one line with the remedy.

    None if they are equal. A single value may have shape () or (1,): Jittor knows only the second.
    Without a remedy one is guessed, with the help of callers who know the networks:
    looks_like(shapes) says which network these are, explain(expected, given) what is wrong in the
    network's own words. Both may return None.
    """
    differences = _differences(expected, given)
    if not differences:
        return None
    if remedy:
        return f"differs: {differences}; {remedy}"

    # The network's own words come first.
    explained = explain(expected, given) if explain else None
    if explained:
        return f"does not fit the network: {explained}; {differences}"

    # Then the network that the file seems to hold, then the right names with others around them.
    text = f"does not fit the network: {differences}"
    if looks_like:
        wanted, found = looks_like(expected), looks_like(given)
        if wanted and found and found != wanted:
            return (
                f"{text}; this looks like {found}, the network is {wanted}; give the file of that "
                "network"
            )
    if _only_prefixed(expected, given):
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


def _differences(expected: Shapes, given: Shapes) -> str:
    missing, unexpected = _missing(expected, given), _missing(given, expected)
    misshaped = [
        f"{name} is {list(given[name])}, expected {list(expected[name])}"
        for name in _misshaped(expected, given)
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (misshaped, "of another shape"))
    return "; ".join(f"{len(names)} {what} ({some(names)})" for names, what in kinds if names)


def _missing(expected: Shapes, given: Shapes) -> List[str]:
    return [name for name in expected if name not in given]


def _misshaped(expected: Shapes, given: Shapes) -> List[str]:
    return [
        name
        for name, shape in expected.items()
        if name in given and (tuple(given[name]) or (1,)) != (tuple(shape) or (1,))
    ]


def _only_prefixed(expected: Shapes, given: Shapes) -> bool:
    """Whether every array is there in its shape, though perhaps under a prefix or an old name."""
    unexpected, tails = _missing(given, expected), set()
    for name in unexpected:
        parts = name.split(".", PREFIX_DEPTH)
        tails.update(".".join(parts[depth:]) for depth in range(1, len(parts)))
        tails.add(name.replace("quantize.embed.", "quantize.embedding."))
    complete = tails.issuperset(_missing(expected, given))
    return bool(unexpected) and complete and not _misshaped(expected, given)
