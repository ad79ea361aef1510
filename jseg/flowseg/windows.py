"""Windows over an image that is larger than a network takes: where they lie, and how what they
give is joined and resized.

A network knows images at the size of its training crops: PixNerd stretches its positions over [0,
16] on any grid. So an image is scaled until it covers one window, and windows slide along what is
longer. Class probabilities, never codes, are averaged where windows overlap, each window counting
less towards its edges; only as many rows as a window has are in memory at a time. The paper does
not say how images of other sizes are segmented; this is ours.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Iterator, List, Optional, Tuple

import numpy as np

Size = Tuple[int, int]  # width, height
Band = Tuple[int, np.ndarray]  # first row, and probabilities [N, rows, width]
STRIP_VALUES = 1 << 24  # numbers that are resized at a time


def scaled_size(size: Size, window: Size, scale: Optional[float] = 1.0) -> Size:
    """The size at which an image is segmented: `scale` times the smallest that covers a window;
    None: its own, if that covers one.
    """
    cover = max(window[0] / size[0], window[1] / size[1])
    factor = max(cover, 1.0) if scale is None else cover * scale
    return max(window[0], round(size[0] * factor)), max(window[1], round(size[1] * factor))


def starts(length: int, window: int, overlap: float) -> List[int]:
    """Where windows begin on an axis: evenly, from its beginning to its end, neighbours sharing at
    least that part of a window.
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
    predict: Callable[[List[Tuple[int, int]]], Iterable[np.ndarray]],
) -> Iterator[Band]:
    """(first row, probabilities [N, rows, width]) from the top of an image of `size` to its
    bottom, in runs that together are all rows.

    predict(places) gives the probabilities [N, h, w] of the windows whose (left, top) are listed,
    in turn.
    """
    lefts, tops = (starts(length, one, overlap) for length, one in zip(size, window))
    weights = taper(window)
    held: Optional[np.ndarray] = None
    counted = np.zeros((window[1], size[0]), np.float32)
    for number, top in enumerate(tops):
        for left, found in zip(lefts, predict([(left, top) for left in lefts])):
            if held is None:
                held = np.zeros((found.shape[0], window[1], size[0]), np.float32)
            held[:, :, left : left + window[0]] += found * weights
            counted[:, left : left + window[0]] += weights
        rows = tops[number + 1] - top if number + 1 < len(tops) else window[1]
        yield top, held[:, :rows] / counted[:rows]
        held[:, : window[1] - rows], counted[: window[1] - rows] = (
            held[:, rows:].copy(),
            counted[rows:].copy(),
        )
        held[:, window[1] - rows :], counted[window[1] - rows :] = 0, 0


def resized(given: Iterable[Band], size: Size, target: Size) -> Iterator[Band]:
    """Bands of an image of `size` as bands of one of `target`, bilinearly, pixel centres on pixel
    centres; they come in strips.
    """
    if tuple(size) == tuple(target):
        yield from given
        return
    left, right, across = _neighbours(size[0], target[0])
    upper, lower, down = _neighbours(size[1], target[1])
    held, first, done = None, 0, 0
    for _, band in given:
        held = band if held is None else np.concatenate([held, band], axis=1)
        strip = max(1, STRIP_VALUES // (held.shape[0] * max(size[0], target[0])))
        ready = int(np.searchsorted(lower, first + held.shape[1], side="left"))
        while done < ready:
            rows = slice(done, min(done + strip, ready))
            share = down[rows, None]
            found = (
                held[:, upper[rows] - first] * (1 - share) + held[:, lower[rows] - first] * share
            )
            yield done, found[:, :, left] * (1 - across) + found[:, :, right] * across
            done = rows.stop
        if done < target[1]:
            passed = min(
                int(upper[done]) - first, held.shape[1]
            )  # rows that nothing needs any more
            held, first = held[:, passed:].copy(), first + passed


def _neighbours(length: int, target: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every new pixel of an axis, the two old ones around its centre and the second one's
    share.
    """
    centres = np.clip((np.arange(target) + 0.5) * (length / target) - 0.5, 0, length - 1)
    before = np.floor(centres).astype(np.intp)
    return before, np.minimum(before + 1, length - 1), (centres - before).astype(np.float32)
