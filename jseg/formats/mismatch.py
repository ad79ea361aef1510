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
    actual: Shapes,
    remedy: str = "",
    looks_like: Optional[LooksLike] = None,
    explain: Optional[Explain] = None,
) -> Optional[str]:
    """How the actual names and shapes differ from the expected ones, in one line with the remedy.

    None if they are equal. A single value may have shape () or (1,): Jittor knows only the second.
    Without a remedy one is guessed, with the help of callers who know the networks:
    looks_like(shapes) says which network these are, explain(expected, actual) what is wrong in the
    network's own words. Both may return None.
    """
    differences = _differences(expected, actual)
    if not differences:
        return None
    if remedy:
        return f"differs: {differences}; {remedy}"

    # The network's own words come first.
    explained = explain(expected, actual) if explain else None
    if explained:
        return f"does not fit the network: {explained}; {differences}"

    # Then the network that the file seems to hold, then the right names with others around them.
    text = f"does not fit the network: {differences}"
    if looks_like:
        wanted, resembled = looks_like(expected), looks_like(actual)
        if wanted and resembled and resembled != wanted:
            return (
                f"{text}; this looks like {resembled}, the network is {wanted}; give the file of "
                "that network"
            )
    if _only_prefixed(expected, actual):
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


def _differences(expected: Shapes, actual: Shapes) -> str:
    missing, unexpected = _missing(expected, actual), _missing(actual, expected)
    misshaped = [
        f"{name} is {list(actual[name])}, expected {list(expected[name])}"
        for name in _misshaped(expected, actual)
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (misshaped, "of another shape"))
    return "; ".join(f"{len(names)} {what} ({some(names)})" for names, what in kinds if names)


def _missing(expected: Shapes, actual: Shapes) -> List[str]:
    return [name for name in expected if name not in actual]


def _misshaped(expected: Shapes, actual: Shapes) -> List[str]:
    return [
        name
        for name, shape in expected.items()
        if name in actual and (tuple(actual[name]) or (1,)) != (tuple(shape) or (1,))
    ]


def _only_prefixed(expected: Shapes, actual: Shapes) -> bool:
    """Whether every array is there in its shape, though perhaps under a prefix or an old name."""
    unexpected, tails = _missing(actual, expected), set()
    for name in unexpected:
        parts = name.split(".", PREFIX_DEPTH)
        tails.update(".".join(parts[depth:]) for depth in range(1, len(parts)))
        tails.add(name.replace("quantize.embed.", "quantize.embedding."))
    complete = tails.issuperset(_missing(expected, actual))
    return bool(unexpected) and complete and not _misshaped(expected, actual)
