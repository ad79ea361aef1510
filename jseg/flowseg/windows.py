"""Windows over an image that is larger than a network takes: where they lie, and how their
probabilities are joined and resized.

A network knows images at the size of its training crops: PixNerd stretches its positions over [0,
16] on any grid. So an image is scaled until it covers one window, and windows slide along what is
longer. Class probabilities, never codes, are averaged where windows overlap, each window weighing
less towards its edges; only as many rows as a window has are in memory at a time. The paper does
not say how images of other sizes are segmented; this is ours.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from jseg.flowseg.likeliest import Neighbours, interpolated, neighbours

Size = Tuple[int, int]  # width, height
Place = Tuple[int, int]  # left, top
Band = Tuple[int, np.ndarray]  # first row, and probabilities [N, rows, width]
Combine = Callable[[np.ndarray, Neighbours, Neighbours], np.ndarray]
STRIP_VALUES = 1 << 24  # numbers that are resized at a time


def scaled_size(size: Size, window: Size, scale: Optional[float] = 1.0) -> Size:
    """The size at which an image is segmented: `scale` times the smallest that covers a window.

    None: its own, if that covers a window.
    """
    cover = max(window[0] / size[0], window[1] / size[1])
    factor = max(cover, 1.0) if scale is None else cover * scale
    return max(window[0], round(size[0] * factor)), max(window[1], round(size[1] * factor))


def starts(length: int, window: int, overlap: float) -> List[int]:
    """Where windows begin on an axis: evenly, from its beginning to its end.

    Neighbours have at least the fraction `overlap` of a window in common.
    """
    if length <= window:
        return [0]
    count = 1 + math.ceil((length - window) / max(1.0, window * (1 - overlap)) - 1e-9)
    return [int(place) for place in np.rint(np.linspace(0, length - window, count))]


def taper(window: Size) -> np.ndarray:
    """Weights float32 [h, w] of a window's pixels, falling towards its edges on both axes, above 0
    everywhere.
    """
    across, down = (
        np.minimum(np.arange(length) + 1, length - np.arange(length)) / length for length in window
    )
    return np.outer(down, across).astype(np.float32)


def bands(
    size: Size,
    window: Size,
    overlap: float,
    predict: Callable[[List[Place]], Iterable[np.ndarray]],
) -> Iterator[Band]:
    """(first row, probabilities [N, rows, width]) of an image of `size`, in runs of rows from its
    top to its bottom.

    predict(places) gives the probabilities [N, h, w] of the windows at the places, one after the
    other.
    """
    width, height = window
    lefts, tops = (starts(length, side, overlap) for length, side in zip(size, window))
    weights = taper(window)
    total: Optional[np.ndarray] = None  # of weighted probabilities [N, height, width]
    divisor = np.zeros((height, size[0]), np.float32)  # of weights
    for top, next_top in zip(tops, tops[1:] + [tops[-1] + height]):
        for left, probabilities in zip(lefts, predict([(left, top) for left in lefts])):
            if total is None:
                total = np.zeros((probabilities.shape[0], height, size[0]), np.float32)
            total[:, :, left : left + width] += probabilities * weights
            divisor[:, left : left + width] += weights

        # Rows above the next windows are complete; the others move up.
        rows = next_top - top
        yield top, total[:, :rows] / divisor[:rows]
        total[:, : height - rows] = total[:, rows:].copy()
        divisor[: height - rows] = divisor[rows:].copy()
        total[:, height - rows :], divisor[height - rows :] = 0, 0


def resized(
    source: Iterable[Band], size: Size, target: Size, combine: Combine = interpolated
) -> Iterator[Band]:
    """The bands of an image of `size` as strips of one of `target`, bilinearly, pixel centres on
    pixel centres.

    combine(rows, down, across) makes a strip, by default its probabilities.
    """
    if combine is interpolated and tuple(size) == tuple(target):
        yield from source
        return
    down, across = neighbours(size[1], target[1]), neighbours(size[0], target[0])
    rows, first, done = None, 0, 0  # rows of the source from `first` on; rows of the target so far
    for _, band in source:
        rows = band if rows is None else np.concatenate([rows, band], axis=1)
        strip = max(1, STRIP_VALUES // (rows.shape[0] * max(size[0], target[0])))

        # Strips of all rows of the target that lie between rows of the source.
        ready = int(np.searchsorted(down.after, first + rows.shape[1], side="left"))
        while done < ready:
            part = slice(done, min(done + strip, ready))
            yield done, combine(rows, down.part(part, first), across)
            done = part.stop

        # Rows of the source that nothing needs any more.
        if done < target[1]:
            passed = min(int(down.before[done]) - first, rows.shape[1])
            rows, first = rows[:, passed:].copy(), first + passed
