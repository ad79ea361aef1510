"""A height field seen in perspective: sample rows that grow with distance, visibility, normals and
cast shadows.

Scene coordinates: x to the right, height up, z forward, in metres; the camera stands at height
`eye` above the datum and looks along z. A terrain grid has columns X' = x / z (one per image
column) and rows v = ln z, so that a lattice cell covers as much of the image near as far. Along
one image column visibility is a running maximum of the elevation tangent (height - eye) / z, as
in the "voxel space" renderers of the 1990s, here for all columns at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np

from jseg.landscapes.fractal import Grid

SURVEY_ROWS, SURVEY_COLUMNS = 360, 40
FAR = 30000.0  # metres; beyond it there is sky only
SOFTNESS = 0.06  # of a shadow's edge, as an elevation tangent


@dataclass(frozen=True)
class View:
    """The camera: `tan_half` is the tangent of half the horizontal angle, `horizon` the fraction of
    the height at which eye level lies.
    """

    width: int
    height: int
    tan_half: float
    horizon: float
    eye: float

    @property
    def focal(self) -> float:
        return self.width / (2 * self.tan_half)

    def columns(self) -> np.ndarray:
        """X' of the pixel columns' centres, [width]."""
        places = (np.arange(self.width) + 0.5) / self.width * 2 - 1
        return places.astype(np.float32) * np.float32(self.tan_half)

    def tangents(self) -> np.ndarray:
        """Elevation tangent of the pixel rows' centres, [height], falling."""
        below = self.horizon * self.height - np.arange(self.height) - 0.5
        return (below / self.focal).astype(np.float32)

    def row_of(self, tangent: np.ndarray) -> np.ndarray:
        """Row coordinate (pixel centres at .5) of an elevation tangent."""
        return self.horizon * self.height - tangent * self.focal

    def column_of(self, slope: np.ndarray) -> np.ndarray:
        """Column coordinate (pixel centres at .5) of X'."""
        return (slope / self.tan_half + 1) * 0.5 * self.width

    @property
    def nearest(self) -> float:
        """Distance at which level ground enters the image at its lower edge."""
        return max(self.eye, 0.5) / max((1 - self.horizon) * self.height / self.focal, 0.05)


def survey_grid(view: View) -> Grid:
    """A coarse grid, the same for every image size, on which to learn how steep the ground is."""
    columns = (np.arange(SURVEY_COLUMNS) + 0.5) / SURVEY_COLUMNS * 2 - 1
    return Grid(
        np.linspace(np.log(view.nearest * 0.6), np.log(FAR), SURVEY_ROWS).astype(np.float32),
        (columns * view.tan_half).astype(np.float32),
    )


def depth_grid(view: View, survey: Grid, height: np.ndarray) -> Grid:
    """Rows so dense that level ground gets about one per pixel row and slopes that face the camera
    nearly as many.

    `height` [rows, columns] in metres on the survey grid.
    """
    v = survey.v.astype(np.float64)
    angle = height / np.exp(v)[:, None]
    rise = np.clip(np.gradient(angle, v, axis=0), 0, None)

    # Steeper than most, not the one worst column; smoothed over 13 rows.
    steep = np.sort(rise, axis=1)[:, -SURVEY_COLUMNS // 6]
    steep = np.pad(np.maximum(steep, 0.04), 6, mode="edge")
    rise = np.convolve(steep, np.ones(13) / 13, mode="valid")
    density = view.focal * np.clip(view.eye * np.exp(-v) + 0.8 * rise, 0.05, 1.1)
    count = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(v))])
    places = np.interp(np.arange(0, count[-1], 1.0), count, v)
    return Grid(places.astype(np.float32), view.columns())


def first_reaching(levels: np.ndarray, rows: int) -> np.ndarray:
    """For each target row the index of the first sample that reaches it, [rows, columns] int;
    len(levels) where none does.

    `levels` [samples, columns]: the row coordinate of each sample, nearest first; a sample reaches
    every row whose centre lies below it.
    """
    samples, columns = levels.shape
    top = np.minimum.accumulate(levels, axis=0)
    above = np.clip(np.ceil(top - 0.5), 0, rows).astype(np.int32)  # rows that are still open
    flat = above * np.int32(columns) + np.arange(columns, dtype=np.int32)
    histogram = np.bincount(flat.ravel(), minlength=(rows + 1) * columns).reshape(rows + 1, columns)
    return samples - np.cumsum(histogram, axis=0)[:rows]


@dataclass(frozen=True)
class Sight:
    """What each pixel sees: `sky` [H, W] bool, and the terrain sample (column = pixel column) as a
    fractional row `place` [H, W].
    """

    sky: np.ndarray
    place: np.ndarray

    def read(self, field: np.ndarray) -> np.ndarray:
        """A terrain field [rows, W(, up to 4)] interpolated at every pixel."""
        height, width = self.place.shape
        columns = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
        return cv2.remap(
            field, columns, self.place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def read_nearest(self, field: np.ndarray) -> np.ndarray:
        """A terrain field of ids at the nearest sample."""
        rows = np.clip(np.floor(self.place + 0.5).astype(np.int32), 0, len(field) - 1)
        return np.take_along_axis(field, rows, axis=0)


def look(view: View, grid: Grid, height: np.ndarray) -> Sight:
    """Visibility of the height field [rows, columns] in metres."""
    z = np.exp(grid.v)[:, None]
    levels = view.row_of((height - view.eye) / z)
    index = first_reaching(levels, view.height)
    last = len(grid.v)
    sky = index >= last
    after = np.clip(index, 1, last - 1)
    level_before = np.take_along_axis(levels, after - 1, axis=0)
    level_after = np.take_along_axis(levels, after, axis=0)

    # Between the last sample that the ray passes and the first that it meets.
    centre = np.arange(view.height, dtype=np.float32)[:, None] + 0.5
    part = np.clip((level_before - centre) / np.maximum(level_before - level_after, 1e-4), 0, 1)
    return Sight(sky, (after - 1 + part).astype(np.float32))


def gradient(field: np.ndarray, grid: Grid) -> Tuple[np.ndarray, np.ndarray]:
    """d field / dv and d field / dX' by central differences."""
    padded = np.pad(field, ((1, 1), (0, 0)), mode="edge")
    v = np.pad(grid.v, 1, mode="edge")
    along = (padded[2:] - padded[:-2]) / (v[2:] - v[:-2])[:, None]
    padded = np.pad(field, ((0, 0), (1, 1)), mode="edge")
    x = np.pad(grid.x, 1, mode="edge")
    return along, (padded[:, 2:] - padded[:, :-2]) / (x[2:] - x[:-2])


def normals(height: np.ndarray, grid: Grid) -> np.ndarray:
    """Unit normals (x, up, z) of the height field, [rows, columns, 3]."""
    along, across = gradient(height, grid)
    inverse = np.exp(-grid.v)[:, None]
    slope_x = across * inverse
    slope_z = (along - across * grid.x) * inverse
    length = 1 / np.sqrt(1 + slope_x * slope_x + slope_z * slope_z)
    return np.stack((-slope_x * length, length, -slope_z * length), axis=2)


def sunlit(height: np.ndarray, grid: Grid, azimuth: float, elevation: float) -> np.ndarray:
    """Fraction of the sun that reaches each sample past the terrain, [rows, columns] in [0, 1].

    Marches towards the sun in steps proportional to the distance from the camera, which on this
    grid are the same for every sample of a row in v and of a column in X'.
    """
    z = np.exp(grid.v)[:, None]
    rise = max(np.tan(elevation), 0.03)
    block = np.full(height.shape, -1.0, np.float32)
    row_numbers, column_numbers = np.arange(len(grid.v)), np.arange(len(grid.x))
    for step in (0.008, 0.016, 0.028, 0.045, 0.07, 0.11, 0.17, 0.26, 0.4):
        away_v = grid.v + np.log(max(1 + step * np.cos(azimuth), 0.05))
        away_x = (grid.x + step * np.sin(azimuth)) / max(1 + step * np.cos(azimuth), 0.05)
        rows = np.rint(np.interp(away_v, grid.v, row_numbers)).astype(np.int32)
        columns = np.rint(np.interp(away_x, grid.x, column_numbers)).astype(np.int32)
        there = np.take(np.take(height, rows, axis=0), columns, axis=1)
        np.maximum(block, (there - height) / (z * step) - rise, out=block)
    return np.clip(1 - block / SOFTNESS, 0, 1)
