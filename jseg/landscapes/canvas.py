"""The image being painted: radiance, distance and label of every pixel, and the ways to put
things into it.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import cv2
import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid
from jseg.landscapes.paint import transmission
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import FAR, Sight, View

SUBPIXELS = 8  # polygon edges are measured on a grid this much finer


class Canvas:
    """`image` [H, W, 3] linear light, `z` [H, W] metres (infinite for sky), `label` [H, W] uint8,
    `cover` [H, W] opacity of things.

    `z_ground` and `label_ground` are those of the bare terrain, before anything stands on it.
    """

    def __init__(
        self,
        view: View,
        style: Style,
        sight: Sight,
        grid: Grid,
        surface: np.ndarray,
        sky: np.ndarray,
        haze: np.ndarray,
        glare: np.ndarray,
    ) -> None:
        self.view, self.style, self.haze, self.glare = view, style, haze, glare
        self.mist_top = max(45.0, 0.35 * view.eye)
        z = np.exp(np.interp(sight.place, np.arange(len(grid.v)), grid.v)).astype(np.float32)
        self.height = view.eye + z * view.tangents()[:, None]  # of the ground seen, metres
        self.z_ground = np.where(sight.sky, np.float32(np.inf), z)
        labels = np.where(sight.sky, ids.SKY, sight.read_nearest(surface))
        self.label_ground = labels.astype(np.uint8)
        self.z, self.label = self.z_ground.copy(), self.label_ground.copy()
        self.cover = np.zeros(z.shape, np.float32)
        self.image = sky.copy()

    def lay_ground(self, seen: np.ndarray) -> None:
        """Paint the ground [H, W, 3] with the air before it; water stays black until paint_water
        adds its light.
        """
        z = np.minimum(self.z_ground, FAR)
        ground = self.through_air(seen, 0, z, self.height)
        ground[np.isin(self.label_ground, ids.OPEN_WATER)] = 0
        land = self.label_ground != ids.SKY
        self.image[land] = ground[land]

    def place(self, x: float, z: float, height: float) -> Tuple[float, float]:
        """(column, row) of the world point (x metres, height, z metres)."""
        return self.view.column_of(x / z), self.view.row_of((height - self.view.eye) / z)

    def hazed(
        self, colour: np.ndarray, row: int, column: int, z: float, height: float
    ) -> np.ndarray:
        """`colour` [..., 3] as it looks from `z` metres at this place of the image."""
        place = (min(max(row, 0), self.view.height - 1), min(max(column, 0), self.view.width - 1))
        clear = transmission(self.style, z, height, self.mist_top, self.glare[place])
        return colour * clear + self.haze[place] * (1 - clear)

    def through_air(
        self, colour: np.ndarray, start: int, z: np.ndarray, height: np.ndarray
    ) -> np.ndarray:
        """Rows of colour [h, W, 3] from row `start` on, as they look through the air; `z` and
        `height` [h, W] metres.
        """
        clear = transmission(self.style, z, height, self.mist_top, self.glare[start:])
        return self.haze[start:] + (colour - self.haze[start:]) * clear

    def blit(
        self,
        row: int,
        column: int,
        colour: np.ndarray,
        alpha: np.ndarray,
        z: float,
        label: int,
        height: float = 5.0,
    ) -> None:
        """Lay a patch (colour [h, w, 3] not premultiplied, alpha [h, w]) at its upper left pixel,
        behind everything nearer than `z`.
        """
        top, left = max(row, 0), max(column, 0)
        bottom = min(row + alpha.shape[0], self.view.height)
        right = min(column + alpha.shape[1], self.view.width)
        if top >= bottom or left >= right:
            return

        # The part within the image that nothing nearer covers.
        inner = (slice(top - row, bottom - row), slice(left - column, right - column))
        outer = (slice(top, bottom), slice(left, right))
        seen = alpha[inner] * (self.z[outer] >= z)
        if not seen.any():
            return

        # Mixed into the image, with label and distance where it is more than half opaque.
        middle = (top + bottom) // 2, (left + right) // 2
        hazed = self.hazed(colour[inner], *middle, z, height)
        patch = self.image[outer]
        patch += (hazed - patch) * seen[..., None]
        cover = self.cover[outer]
        cover += (1 - cover) * seen
        mine = seen > 0.5
        self.label[outer][mine] = label
        self.z[outer][mine] = z

    def polygon(
        self,
        points: Sequence[Tuple[float, float]],
        colour: np.ndarray,
        z: float,
        label: int,
        height: float = 5.0,
    ) -> None:
        """Fill a polygon given as (column, row) points with one colour [3], antialiased."""
        self.polygon_set([points], colour, z, label, height)

    def polygon_set(
        self,
        contours: Sequence[Sequence[Tuple[float, float]]],
        colour: np.ndarray,
        z: float,
        label: int,
        height: float = 5.0,
    ) -> None:
        """Fill the even-odd inside of several outlines, so that later ones can be holes in the
        first.
        """
        outlines = [np.asarray(contour, np.float64) for contour in contours]
        every = np.concatenate(outlines)
        left, top = np.maximum(np.floor(every.min(axis=0)).astype(int) - 1, -2)
        beyond = np.ceil(every.max(axis=0)).astype(int) + 1
        right, bottom = np.minimum(beyond, (self.view.width + 2, self.view.height + 2))
        if right - left < 1 or bottom - top < 1:
            return

        # Drawn on the finer grid, with OpenCV's coordinates in sixteenths.
        size = right - left, bottom - top
        mask = np.zeros((size[1] * SUBPIXELS, size[0] * SUBPIXELS), np.uint8)
        points = [(outline - (left, top)) * SUBPIXELS * 16 - 8 for outline in outlines]
        points = [np.rint(outline).astype(np.int32) for outline in points]
        cv2.fillPoly(mask, points, 255, lineType=cv2.LINE_8, shift=4)
        alpha = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        patch = np.broadcast_to(np.asarray(colour, np.float32), alpha.shape + (3,))
        self.blit(top, left, patch, alpha, z, label, height)
