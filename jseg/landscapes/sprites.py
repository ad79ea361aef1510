"""A plant as a cloud of points and the unlit image ("sprite") that is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Tuple

import numpy as np

TALL = 288  # pixels from foot to top of a sprite at its full size
LEAF, WOOD, BLOOM, STONE, BARK = range(5)  # what a point is made of


@dataclass(frozen=True)
class Shape:
    """An unlit plant: alpha [h, w], normal [h, w, 3] (x, up, towards the camera), shade and tone
    [h, w] in 0..1, fraction of each material.
    """

    alpha: np.ndarray
    normal: np.ndarray
    shade: np.ndarray
    tone: np.ndarray
    material: np.ndarray  # [h, w, 5]
    aspect: float  # width / height


class Points:
    """Points of a plant under construction: positions in units of its height (x right, y up, z
    towards the camera).
    """

    def __init__(self) -> None:
        self.parts: List[Tuple[np.ndarray, ...]] = []

    def add(
        self,
        position: np.ndarray,
        normal: np.ndarray,
        shade: np.ndarray,
        tone: np.ndarray,
        material: int,
        size: float,
    ) -> None:
        """Put points [n, 3] with their normals in."""
        count = len(position)
        shade, tone = np.broadcast_to(shade, count), np.broadcast_to(tone, count)
        parts = np.full(count, material), np.full(count, size)
        self.parts.append((position, normal, shade, tone, *parts))

    def line(
        self,
        start: np.ndarray,
        stop: np.ndarray,
        thick_start: float,
        thick_stop: float,
        material: int,
        rng,
    ) -> None:
        """A stem: a tapered tube of points."""
        length = np.linalg.norm(stop - start)
        count = max(int(length * 1100 * (1 + 130 * thick_start)), 6)
        along = rng.random(count)
        around = rng.uniform(-1, 1, count)
        radius = thick_start + (thick_stop - thick_start) * along
        position = start + (stop - start) * along[:, None]
        position[:, 0] += around * radius
        normal = np.stack((around, np.full(count, 0.15), np.sqrt(1 - around**2)), axis=1)
        tone, size = 0.35 + 0.3 * rng.random(count), min(0.0046, max(0.0024, thick_stop))
        self.add(position, normal, 0.75, tone, material, size)

    def draw(self, half_width: float) -> Shape:
        """The image of the points, the nearer ones before the others."""
        columns = [np.concatenate(column) for column in zip(*self.parts)]
        order = np.argsort(columns[0][:, 2], kind="stable")
        position, normal, shade, tone, material, size = (column[order] for column in columns)
        height, width = TALL, int(np.ceil(2 * half_width * TALL / 32) * 32)
        rows = (height - 1) - position[:, 1] * (height - 4)
        columns = width / 2 + position[:, 0] * (height - 4)

        # The number of the point that is seen in each pixel, -1 where there is none.
        front = np.full((height, width), -1, np.int64)
        rank = np.arange(len(position))
        for radius in np.unique(size):
            mine = size == radius
            for down, right in _disc(radius * TALL):
                row = np.rint(rows[mine] + down).astype(int)
                column = np.rint(columns[mine] + right).astype(int)
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                np.maximum.at(front, (row[inside], column[inside]), rank[mine][inside])
        alpha = (front >= 0).astype(np.float32)
        front = np.maximum(front, 0)
        return Shape(
            alpha,
            normal[front].astype(np.float32),
            shade[front].astype(np.float32),
            tone[front].astype(np.float32),
            np.eye(5, dtype=np.float32)[material[front]],
            width / height,
        )


def _disc(radius: float) -> Iterator[Tuple[int, int]]:
    """The pixels of a disc about its centre."""
    reach = int(np.ceil(radius))
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down * down + right * right <= radius**2 + 0.3:
                yield down, right


def unit_length(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
