"""A network's names and shapes against a file's: every difference in one line, with what to do about it."""
from __future__ import annotations

from typing import Iterable, Mapping, Optional, Tuple

import numpy as np

from jseg.flowseg.state_dict import MARK as PIXNERD_MARK
from jseg.flowseg.state_dict import another_size
from jseg.ldm.state_dict import describe

LISTED = 6
PREFIX_DEPTH = 3


def mismatch(expected: Mapping[str, Tuple[int, ...]], given: Mapping[str, Tuple[int, ...]], remedy: str = "") -> Optional[str]:
    """How the names and shapes given differ from those expected, in one line with the remedy (guessed if ""); None if they are equal.

    A single value may have shape () or (1,): Jittor knows only the second.
    """
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    misshaped = ["%s is %s, expected %s" % (name, list(given[name]), list(shape)) for name, shape in expected.items()
                 if name in given and (tuple(given[name]) or (1,)) != (tuple(shape) or (1,))]
    found = [(missing, "missing"), (unexpected, "unexpected"), (misshaped, "of another shape")]
    if not any(names for names, _ in found):
        return None
    differences = "; ".join("%d %s (%s)" % (len(names), what, some(names)) for names, what in found if names)
    text = ("differs: " if remedy else "does not fit the network: ") + differences
    if remedy:
        return text + "; " + remedy
    sizes = another_size(expected, given)
    if sizes:
        return f"does not fit the network: {sizes}; {differences}"
    wanted, looks = (describe(shapes) or ("a PixNerd network" if PIXNERD_MARK in shapes else None) for shapes in (expected, given))
    if looks and wanted and looks != wanted:
        return text + "; this looks like %s, the network is %s; give the file of that network" % (looks, wanted)
    if unexpected and not misshaped and set(missing) <= _behind_prefixes(unexpected):
        return text + "; scripts/convert_weights.py takes a network out of a file with other names and arrays around it"
    return text + "; give the complete file of this network"


def some(names: Iterable[str]) -> str:
    """The names as a list that stays within a line."""
    names = list(names)
    more = ["and %d more" % (len(names) - LISTED)] if len(names) > LISTED else []
    return ", ".join(["%.120s" % name for name in names[:LISTED]] + more)


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
