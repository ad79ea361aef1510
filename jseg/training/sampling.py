"""Which examples a training step takes, as a function of (seed, step) alone: resuming needs to
remember nothing but the step.

Every epoch is a permutation of its own, drawn from (seed, epoch); a batch goes on into the next
epoch where one ends, so nothing is dropped and no batch is smaller. A global batch is cut by
position into a part for every process, and that into micro-batches.

release: the data set's order is a stream that starts anew with every start of the program, and the
last partial batch is dropped.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

import numpy as np

from jseg.noise import generator


def positions(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Indices int64 [batch_size] into `count` examples of optimisation step `step`, counted from 0.

    Raises ValueError when there is no example.
    """
    if count < 1 or batch_size < 1 or step < 0:
        raise ValueError(
            f"order: {count} examples, batches of {batch_size}, step {step}; expected at least "
            "one example, 1 and 0"
        )
    first = step * batch_size
    slots = np.arange(first, first + batch_size)
    return np.array(
        [_permutation(count, seed, int(slot) // count)[int(slot) % count] for slot in slots],
        np.int64,
    )


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(count)


def evenly(count: int, number: Optional[int] = None) -> np.ndarray:
    """At most `number` indices int64 [n] into `count` examples, evenly chosen; None: all."""
    size = count if number is None else min(number, count)
    return np.unique(np.linspace(0, count - 1, size).astype(np.int64))


def micro_batches(
    batch_size: int, micro_batch: int, rank: int = 0, world: int = 1
) -> List[Tuple[int, int]]:
    """(start, stop) within the global batch of every micro-batch of this process: at most
    `micro_batch` examples each.

    The processes' parts of the batch follow one another, their sizes differ by one example at most,
    and so do those of the micro-batches of a process: none waits for another that computes twice as
    much. With one micro-batch a process, `world` processes add the same gradients as one process
    does. Raises ValueError when a process would have none: it would only wait for the others.
    """
    if batch_size < 1 or micro_batch < 1:
        raise ValueError(
            f"a batch of {batch_size} in micro-batches of {micro_batch}; expected 1 or more"
        )
    if batch_size < world:
        raise ValueError(
            f"a batch of {batch_size} for {world} processes; expected at least one example each: "
            f"give --batch_size {world} or more, or start {batch_size} processes at most"
        )
    first, last = _cut(0, batch_size, world)[rank]
    return _cut(first, last, -(-(last - first) // micro_batch))


def _cut(start: int, stop: int, count: int) -> List[Tuple[int, int]]:
    """`count` consecutive parts of start ... stop whose sizes differ by one at most."""
    edges = [start + (stop - start) * number // count for number in range(count + 1)]
    return list(zip(edges, edges[1:]))


@dataclass(frozen=True)
class BatchShards:
    """How a global batch is cut: see `micro_batches`."""

    batch_size: int
    micro_batch: int
    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, options, rank: int, world: int) -> "BatchShards":
        """From the options of a training command; without --micro_batch, every process computes its
        part of the batch at once.
        """
        part = max(1, -(-options.batch_size // world))
        return cls(options.batch_size, min(options.micro_batch or part, part), rank, world)

    def parts(self) -> Iterator[Tuple[range, float]]:
        """Positions within the global batch and their fraction of it, for every micro-batch of
        this process.
        """
        for start, stop in micro_batches(self.batch_size, self.micro_batch, self.rank, self.world):
            yield range(start, stop), (stop - start) / self.batch_size
