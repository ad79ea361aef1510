"""Dropout whose masks are functions of where the training is, so that they can be drawn again.

Jittor's Dropout draws at every execution, so a recomputed block, a resumed run or another cut into
micro-batches meets other masks.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, NamedTuple

import numpy as np

from jseg.noise import generator
from jseg.runtime import jt


class Place(NamedTuple):
    """Where dropout is in a training: its next mask depends on these, and on the example's
    position, alone.
    """

    seed: int
    step: int
    start: int  # position within the global batch of this micro-batch's first example
    call: int  # masks drawn since then


_place = Place(0, 0, 0, 0)


def seed_dropout(seed: int, step: int, start: int = 0) -> None:
    """Begin the masks of a micro-batch: of optimisation step `step`, its first example at `start`
    of the global batch.
    """
    global _place
    _place = Place(seed, step, start, 0)


def dropout_place() -> Place:
    """Where the next mask will be drawn, for `replayed_dropout`."""
    return _place


@contextlib.contextmanager
def replayed_dropout(place: Place) -> Iterator[None]:
    """Inside of the `with`, masks are drawn once more from `place` on; afterwards they go on where
    they were.
    """
    global _place
    before, _place = _place, place
    try:
        yield
    finally:
        _place = before


class Dropout(jt.nn.Module):
    """In training, zeroes elements of x [B, ...] with probability p and divides the others by 1 -
    p.

    Masks are drawn in NumPy, per example, from (seed, step, position in the global batch, call):
    the same for any micro-batch, any number of processes, any resume, and when a block is computed
    again.
    """

    def __init__(self, p: float):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: got a probability of {p}; expected 0 to below 1")
        self.p = p

    def execute(self, x):
        if not self.p or not self.is_training():
            return x
        global _place
        place, _place = _place, _place._replace(call=_place.call + 1)
        draws = []
        for i in range(x.shape[0]):
            rng = generator(place.seed, "dropout", place.step, place.start + i, place.call)
            draws.append(rng.random(x.shape[1:], dtype=np.float32))
        mask = jt.array(np.stack(draws) >= self.p).float32()
        return x * mask * (1 / (1 - self.p))  # [B, ...]
