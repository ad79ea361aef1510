"""Light of the ground: the sun with its cast shadows, sky light, and the air in between."""

from __future__ import annotations

import cv2
import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid, fbm
from jseg.landscapes.plan import Ground, Plan
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import View, sunlit

VEIL = 2.4  # optical depth that mist never exceeds
BLUE_FIRST = np.float32([0.86, 1.0, 1.18])  # air scatters blue light most


def light(style: Style, ground: Ground, normal: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Radiance [rows, columns, 3]: albedo under sun, sky and a little light from the ground."""
    shine = sunlit(ground.height, ground.grid, style.azimuth, style.elevation)
    sun = style.direction()
    facing = np.clip(normal @ sun, 0, None) * shine
    open_sky = (0.55 + 0.45 * normal[..., 1]) * _occlusion(ground)
    bounce = (1 - normal[..., 1]) * 0.12 * facing.mean()
    lamp = facing[..., None] * style.sun + open_sky[..., None] * style.ambient
    return colour * (lamp + bounce[..., None] * style.sun)


def _occlusion(ground: Ground) -> np.ndarray:
    """Valleys and gaps get less sky: height against its surroundings on the image's scale."""
    angle = ground.height / np.exp(ground.grid.v)[:, None]
    wide = cv2.blur(angle, (max(len(ground.grid.x) // 24, 3),) * 2)
    return np.clip(1 + (angle - wide) * 9, 0.55, 1.15)


def foliage(plan: Plan, view: View, label: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Leaf texture on the distant canopy, in the image plane, where crowns are too steep for the
    terrain's samples.
    """
    trees = label == ids.TREE
    if not trees.any():
        return seen
    rows = np.flatnonzero(trees.any(axis=1))
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    grid = Grid(-view.tangents()[part], view.columns())
    leaves = fbm(plan.seed * 31 + 99, grid, 60.0, 3, 0.8)
    seen[part] *= np.where(trees[part], np.clip(0.92 + 0.5 * leaves, 0.4, 1.5), 1)[..., None]
    return seen


def transmission(style: Style, z, height, mist_top: float, glare=1.0) -> np.ndarray:
    """Fraction of each colour's light, [..., 3], that passes `z` metres of air from `height`; low
    ground lies in the mist.

    `glare` multiplies the haze: towards the sun the air is brighter than its thickness.
    """
    above = np.maximum(height, 0)
    low = np.exp(-above / mist_top)
    # Mist thins out before it hides everything.
    veil = VEIL * (1 - np.exp(-style.mist * low * z * (1e-3 / VEIL)))
    depth = style.haze * glare * (0.35 + 0.65 * np.exp(-above / 900.0)) * z * 1e-3 + veil
    return np.exp(-np.asarray(depth, np.float32)[..., None] * BLUE_FIRST)
