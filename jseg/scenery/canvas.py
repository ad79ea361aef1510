"""The picture being painted: radiance, distance and label of every pixel, and the ways to put things into it."""
from typing import Sequence, Tuple

import cv2
import numpy as np

from jseg.scenery.style import Style
from jseg.scenery.terrain import View

SUBPIXELS = 4                                                # polygon edges are measured on a grid this much finer


class Canvas:
    """`picture` [H, W, 3] linear light, `z` [H, W] metres (infinite for sky), `label` [H, W] uint8, `cover` [H, W] opacity of things."""

    def __init__(self, view: View, style: Style, picture: np.ndarray, z: np.ndarray, label: np.ndarray, haze: np.ndarray, air) -> None:
        self.view, self.style = view, style
        self.picture, self.z, self.label, self.haze, self._air = picture, z, label, haze, air
        self.cover = np.zeros(z.shape, np.float32)
        self.label_ground, self.z_ground = label.copy(), z.copy()            # before anything stands on it

    def place(self, x: float, z: float, height: float) -> Tuple[float, float]:
        """(column, row) of the world point (x metres, height, z metres)."""
        return self.view.column_of(x / z), self.view.row_of((height - self.view.eye) / z)

    def hazed(self, colour: np.ndarray, row: int, column: int, z: float, height: float) -> np.ndarray:
        """`colour` [..., 3] as it looks from `z` metres at this place of the picture."""
        row, column = min(max(row, 0), self.view.height - 1), min(max(column, 0), self.view.width - 1)
        shape = colour.shape[:-1]
        return self._air(colour, self.haze[row, column], np.full(shape, z, np.float32), np.full(shape, height, np.float32))

    def blit(self, row: int, column: int, colour: np.ndarray, alpha: np.ndarray, z: float, label: int, height: float = 5.0) -> None:
        """Lay a patch (colour [h, w, 3] not premultiplied, alpha [h, w]) at its upper left pixel, behind everything nearer than `z`."""
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + alpha.shape[0], self.view.height), min(column + alpha.shape[1], self.view.width)
        if top >= bottom or left >= right:
            return
        inner = (slice(top - row, bottom - row), slice(left - column, right - column))
        outer = (slice(top, bottom), slice(left, right))
        seen = alpha[inner] * (self.z[outer] >= z)
        if not seen.any():
            return
        colour = self.hazed(colour[inner], (top + bottom) // 2, (left + right) // 2, z, height)
        patch = self.picture[outer]
        patch += (colour - patch) * seen[..., None]
        cover = self.cover[outer]
        cover += (1 - cover) * seen
        mine = seen > 0.5
        self.label[outer][mine] = label
        self.z[outer][mine] = z

    def polygon(self, points: Sequence[Tuple[float, float]], colour: np.ndarray, z: float, label: int, height: float = 5.0) -> None:
        """Fill a polygon given as (column, row) points with one colour [3], antialiased."""
        self.polygon_set([points], colour, z, label, height)

    def polygon_set(self, contours: Sequence[Sequence[Tuple[float, float]]], colour: np.ndarray, z: float, label: int, height: float = 5.0) -> None:
        """Fill the even-odd inside of several outlines, so that later ones can be holes in the first."""
        outlines = [np.asarray(contour, np.float64) for contour in contours]
        every = np.concatenate(outlines)
        left, top = np.maximum(np.floor(every.min(axis=0)).astype(int) - 1, -2)
        right, bottom = np.minimum(np.ceil(every.max(axis=0)).astype(int) + 1, (self.view.width + 2, self.view.height + 2))
        if right - left < 1 or bottom - top < 1:
            return
        mask = np.zeros(((bottom - top) * SUBPIXELS, (right - left) * SUBPIXELS), np.uint8)
        shifted = [np.rint((outline - (left, top)) * SUBPIXELS * 16 - 8).astype(np.int32) for outline in outlines]
        cv2.fillPoly(mask, shifted, 255, lineType=cv2.LINE_8, shift=4)
        alpha = cv2.resize(mask, (right - left, bottom - top), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        patch = np.broadcast_to(np.asarray(colour, np.float32), alpha.shape + (3,))
        self.blit(top, left, patch, alpha, z, label, height)
