"""Distant forests as crowns raised on the terrain: cones or domes in cells of the world, no smaller
than an image can show.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid, fbm, hash_unit, smoothstep
from jseg.landscapes.plan import Forest, Ground, Plan

CANOPY_FROM = 420.0  # metres; nearer trees are drawn one by one
REFERENCE_FOCAL = 430.0  # pixels; sets the least size of distant trees, at any image size
SLAB = 0.022  # depth of a row of crowns in ln z
TREELESS = (*ids.OPEN_WATER, ids.PATH, ids.ROAD, ids.SAND, ids.ROCK)


def _canopy(plan: Plan, forest: Forest, grid: Grid) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crowns as cones or domes in world cells: (metres, 0..1 within the crown, crown number)."""
    v, z = grid.v[:, None], np.exp(grid.v)[:, None]
    slab = np.floor(v / SLAB)
    middle = np.exp((slab + 0.5) * SLAB)
    spacing = np.maximum(forest.height * 0.28, 3.2 * middle / REFERENCE_FOCAL)
    across = z * grid.x / spacing + hash_unit(plan.seed + 7, slab, slab * 0) * 5
    cell = np.floor(across)
    crown = hash_unit(plan.seed + 8, slab, cell)
    jitter = hash_unit(plan.seed + 9, slab, cell)
    off_x = across - cell - 0.5 - 0.3 * (jitter - 0.5)
    off_v = v / SLAB - slab - 0.5
    radius = np.sqrt(off_x * off_x + 0.7 * off_v * off_v)
    tall = forest.height * (0.62 + 0.5 * crown)
    pointed = forest.kind in ("conifer", "mixed")
    if pointed:
        shape = np.clip(1 - 1.75 * radius, 0, 1)
    else:
        shape = np.sqrt(np.clip(1 - (1.75 * radius) ** 2, 0, 1))
    metres = tall * (0.25 + 0.75 * shape) * (1.0 if pointed else 0.75)
    return metres.astype(np.float32), shape.astype(np.float32), crown


def _forest_mask(plan: Plan, forest: Forest, grid: Grid) -> np.ndarray:
    """Fraction of trees 0..1, with ragged borders."""
    v = grid.v[:, None]
    noise = fbm(plan.seed * 3 + forest.key * 29, grid, 3.5, 5, 0.55)
    want = np.interp(forest.amount, (0, 0.25, 0.5, 0.75, 1), (1.2, 0.35, 0.0, -0.35, -1.2))
    if forest.clear[1] > 0:
        want = want + 1.6 * np.exp(-(((grid.x - forest.clear[0]) / forest.clear[1]) ** 2))
    near, far = np.log(forest.near), np.log(forest.far)
    mask = smoothstep(-0.05, 0.12, noise - want)
    mask = mask * smoothstep(near - 0.05, near + 0.1, v + 0.08 * noise)
    return mask * (v < far + 0.2 * noise)


def grow(plan: Plan, ground: Ground) -> None:
    """Raise the canopy of distant forests and remember where single trees may stand, in place."""
    grid = ground.grid
    z = np.exp(grid.v)[:, None]
    for forest in plan.forests:
        start, stop = np.searchsorted(grid.v, (np.log(forest.near) - 0.2, np.log(forest.far) + 0.2))
        part = grid.rows(int(start), int(stop))
        if len(part.v) < 3:
            continue
        rows = slice(int(start), int(stop))

        # Trees stand on soil that is not too steep, and not on mountains.
        free = ~np.isin(ground.surface[rows], TREELESS)
        base = ground.height[rows]
        along = np.gradient(base, axis=0) / np.gradient(part.v)[:, None] / z[rows]
        across = np.gradient(base, axis=1) / (part.x[1] - part.x[0]) / z[rows]
        low = (base - max(plan.eye - 60.0, 0.0)) / z[rows] < 0.16
        gentle = smoothstep(0.75, 0.5, np.hypot(along, across)) * low
        mask = _forest_mask(plan, forest, part) * free * gentle
        metres, within, crown = _canopy(plan, forest, part)
        thick = (mask > 0.5) & (part.v[:, None] > np.log(CANOPY_FROM))
        ground.height[rows] += np.where(thick, metres * mask, 0)
        ground.canopy[rows] = np.where(thick, within, ground.canopy[rows])
        ground.crown[rows] = np.where(thick, crown, ground.crown[rows])
        ground.surface[rows][thick] = ids.TREE
        ground.wood[rows] = np.maximum(ground.wood[rows], mask)
