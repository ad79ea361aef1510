"""Geometry of a scene: from a plan to the height field and the surface of every terrain sample."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import (
    Grid,
    displaced,
    fbm,
    hash_unit,
    perlin,
    ridged,
    smoothstep,
    world_noise,
)
from jseg.landscapes.plan import Basin, Ground, Plan, Range, Ribbon, centre_of
from jseg.landscapes.woods import grow

DRY = -1e6  # a water level below everything: no water in the scene
LEVEL = -0.8  # metres; the water level of scenes that have water
FOOT = 0.004  # fraction of a range's height at which its foot ends
# A mesa's cliffs: where they begin, and their fraction of the height.
STEPS = ((0.22, 0.35), (0.45, 0.4), (0.72, 0.25))
STRIP = 95.0  # metres; depth of a row of farm fields


def _range_height(plan: Plan, item: Range, grid: Grid) -> np.ndarray:
    """Metres that one range adds, on the rows it reaches."""
    key = plan.seed * 101 + item.key * 17
    x, offset = grid.x, grid.v[:, None] - np.log(item.distance)
    lateral = np.full(len(x), item.floor, np.float32)
    wobble = fbm(key + 3, Grid(np.zeros(1, np.float32), x), 5.0, 4)[0]
    for place, height, width in item.peaks:
        away = np.abs(x - place + 0.02 * wobble) / width
        lateral = np.maximum(lateral, height * np.exp(-(away**1.25)))
    lateral = lateral * (1 + 0.18 * wobble)
    bell = np.exp(-((offset / np.where(offset < 0, item.front, item.back)) ** 2))
    envelope = np.clip((bell - FOOT) / (1 - FOOT), 0, 1).astype(np.float32)
    return item.distance * item.height * SHAPES[item.kind](item, key, grid, envelope, lateral)


def _hill(
    item: Range, key: int, grid: Grid, envelope: np.ndarray, lateral: np.ndarray
) -> np.ndarray:
    return envelope * lateral * (0.8 + 0.42 * fbm(key, grid, item.frequency, 6, 0.42))


def _dune(
    item: Range, key: int, grid: Grid, envelope: np.ndarray, lateral: np.ndarray
) -> np.ndarray:
    """Slanting waves with a gentle windward side and a steep lee."""
    sway = fbm(key, grid, item.frequency * 0.55, 3, 0.4)
    slant = 1.7 if item.key % 2 else -1.7
    wave = item.frequency * (0.7 * grid.v[:, None] + slant * grid.x) + 1.2 * sway
    part = wave - np.floor(wave)
    part = 1 - part if item.key % 2 else part
    crest = np.where(part < 0.72, part / 0.72, (1 - part) / 0.28)
    crest = crest * crest * (3 - 2 * crest) * 0.35 + crest * 0.65
    uneven = 0.75 + 0.5 * fbm(key + 2, grid, item.frequency * 0.8, 2)
    return envelope * lateral * (0.15 + 0.75 * crest * uneven)


def _mesa(
    item: Range, key: int, grid: Grid, envelope: np.ndarray, lateral: np.ndarray
) -> np.ndarray:
    mass = envelope * lateral * (0.85 + 0.5 * fbm(key, grid, item.frequency, 6, 0.5))
    cliffs = sum(part * smoothstep(low, low + 0.08, mass) for low, part in STEPS)
    return (0.85 * cliffs + 0.22 * mass) * (envelope > 0.02)


def _crests(item: Range, key: int, grid: Grid) -> Tuple[np.ndarray, np.ndarray]:
    """Warped ridged noise and broad shapes under it."""
    down = 0.07 / np.maximum(np.gradient(grid.v), 1e-4)[:, None]
    right = 0.07 / (grid.x[1] - grid.x[0])
    push_v, push_x = (fbm(key + salt, grid, item.frequency * 0.9, 4) for salt in (31, 37))
    crest = displaced(ridged(key, grid, item.frequency, 9), push_v * down, push_x * right)
    return crest, fbm(key + 51, grid, item.frequency * 0.6, 3)


def _alpine(
    item: Range, key: int, grid: Grid, envelope: np.ndarray, lateral: np.ndarray
) -> np.ndarray:
    crest, broad = _crests(item, key, grid)
    return envelope * lateral * (0.28 + 0.66 * crest + 0.22 * broad)


def _massif(
    item: Range, key: int, grid: Grid, envelope: np.ndarray, lateral: np.ndarray
) -> np.ndarray:
    crest, broad = _crests(item, key, grid)
    body = 0.75 * (0.45 + 0.55 * lateral) * (0.25 + 0.85 * crest)
    return envelope * (body + 0.35 * lateral * crest + 0.16 * broad)


SHAPES = {"hill": _hill, "dune": _dune, "mesa": _mesa, "alpine": _alpine, "massif": _massif}
RANGE_LABELS = {"hill": ids.HILL, "dune": ids.SAND}  # the others are mountains


def _ribbon_mask(plan: Plan, ribbon: Ribbon, grid: Grid, edge: np.ndarray) -> np.ndarray:
    """Signed room inside the ribbon in half widths: 1 at the middle, 0 at the edge, negative
    outside.
    """
    v = grid.v[:, None]
    half = ribbon.width / 2 * np.exp(-v)
    distance = np.abs(grid.x - centre_of(ribbon, v)) / half
    inside = 1 - distance + {ids.ROAD: 0.05, ids.PATH: 0.25}.get(ribbon.label, 0.4) * edge
    ends = (v > np.log(ribbon.far[0])) | (v < np.log(ribbon.near[0]))
    return np.where(ends, -9.0, inside).astype(np.float32)


def _cells(plan: Plan, grid: Grid) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Farm fields: (cell number 0..1, furrow phase, nearness to a border) in world coordinates on
    turned, jittered strips.
    """
    z = np.exp(grid.v)[:, None]
    turn = 0.35 + 0.5 * float(hash_unit(plan.seed, np.array([3]), np.array([4]))[0])
    east, north = z * grid.x, z + 0 * grid.x
    bend = (3 + 0.03 * z) * perlin(plan.seed + 5, grid, 1.3)
    across = (east * np.cos(turn) - north * np.sin(turn)) + bend
    along = (east * np.sin(turn) + north * np.cos(turn)) + bend
    strip = np.floor(along / STRIP)
    width = 70 + 90 * hash_unit(plan.seed + 1, strip, strip * 0)
    place = across / width + hash_unit(plan.seed + 2, strip, strip * 0) * 9
    cell = np.floor(place)
    number = hash_unit(plan.seed + 3, strip, cell)
    border = np.minimum(np.abs(place - cell - 0.5) * width - width / 2, 0) * -1
    border = np.minimum(border, STRIP * (0.5 - np.abs(along / STRIP - strip - 0.5)))
    phase = np.where(number > 0.5, across, along)
    return number, phase.astype(np.float32), border.astype(np.float32)


def build(plan: Plan, grid: Grid) -> Ground:
    """Height field and surfaces of a plan on a grid."""
    seed = plan.seed * 1009
    nothing = np.zeros(grid.shape, np.float32)
    ground = Ground(
        grid=grid,
        height=_gentle(plan, grid, seed),
        base=nothing,
        surface=nothing,
        water=nothing,
        canopy=nothing.copy(),
        crown=nothing.copy(),
        wood=nothing.copy(),
        level=DRY,
    )
    patch_noise = fbm(seed + 11, grid, 6.0, 4, 0.5)
    _cover(plan, ground, patch_noise, seed)
    risen = _raise_ranges(plan, ground, patch_noise)
    _let_water_in(plan, ground, patch_noise, risen, seed)
    grow(plan, ground)
    return ground


def _gentle(plan: Plan, grid: Grid, seed: int) -> np.ndarray:
    """Small bumps, rolling ground and rising sides, metres."""
    v, z = grid.v[:, None], np.exp(grid.v)[:, None]
    height = plan.bumps * world_noise(seed + 1, grid, 40.0, 0.3, 0.5)
    if plan.swell:
        rolling = plan.swell * z * fbm(seed + 2, grid, 2.2, 4, 0.4)
        height += rolling * smoothstep(np.log(plan.eye * 2.5), np.log(plan.eye * 14), v)
    left, right = plan.banks
    if left or right:
        rise_left, rise_right = (np.clip(x - 0.12, 0, 1) ** 1.4 for x in (-grid.x, grid.x))
        side = left * rise_left + right * rise_right
        bank = side * z * (1 + 0.35 * fbm(seed + 3, grid, 3.0, 5))
        height += bank * smoothstep(np.log(6.0), np.log(40.0), v)
    return height


def _cover(plan: Plan, ground: Ground, patch_noise: np.ndarray, seed: int) -> None:
    """What lies on the level ground: near and far cover, fields, patches."""
    grid, v = ground.grid, ground.grid.v[:, None]
    border = np.log(plan.far_from)
    near = v + 0.3 * patch_noise < border
    surface = np.where(near, plan.near_cover, plan.far_cover).astype(np.uint8)
    if plan.fields:
        ground.fields = _cells(plan, grid)
        surface[(v + 0.1 * patch_noise > border) & (ground.fields[2] > 3.0)] = ids.FIELD
    for number, (label, fraction, size) in enumerate(plan.patches):
        noise = fbm(seed + 200 + 31 * number, grid, 1 / size, 4, 0.42)
        surface[noise > np.interp(fraction, (0, 0.25, 0.5, 1), (1.2, 0.3, 0.0, -1.2))] = label
    ground.surface = surface


def _raise_ranges(plan: Plan, ground: Ground, patch_noise: np.ndarray) -> np.ndarray:
    """Put the ranges on the ground, in place; the metres that they rise."""
    grid, risen = ground.grid, np.zeros(ground.grid.shape, np.float32)
    for item in plan.ranges:
        first = np.log(item.distance) - item.front * np.sqrt(-np.log(FOOT))
        start = int(np.searchsorted(grid.v, first))
        part = grid.rows(start, len(grid.v))
        if len(part.v) < 4:
            continue
        rise, low = _range_height(plan, item, part), ground.height[start:]
        angle = rise / np.exp(part.v)[:, None]
        ragged = 0.012 * patch_noise[start:] * np.clip(angle * 100, 0, 1)
        belongs = smoothstep(0.008, 0.03, angle + ragged)
        taken = (belongs > 0.5) & (rise > low * 0.6)
        ground.height[start:] = np.maximum(low, low * (1 - 0.6 * belongs) + rise)
        np.maximum(risen[start:], rise, out=risen[start:])
        ground.surface[start:][taken] = RANGE_LABELS.get(item.kind, ids.MOUNTAIN)
        if item.kind == "mesa" and plan.waterfall is not None:
            high = rise > 0.12 * rise.max()
            _pour(plan, part, ground.height[start:], ground.surface[start:], high)
    return risen


def _let_water_in(
    plan: Plan, ground: Ground, patch_noise: np.ndarray, risen: np.ndarray, seed: int
) -> None:
    """Basin and ribbons: lower the ground, lay paths and roads, and fill what lies below the level
    with water, in place.
    """
    grid, v, surface = ground.grid, ground.grid.v[:, None], ground.surface
    water_label = plan.basin.label if plan.basin is not None else ids.WATER
    if plan.basin is not None or any(ribbon.label in ids.OPEN_WATER for ribbon in plan.ribbons):
        ground.level = LEVEL
    height = np.maximum(ground.height, ground.level + 0.1)

    # Mountains and hills stand out of a basin; rivers end at their feet.
    if plan.basin is not None:
        bottom = _fill_basin(plan.basin, ground, height, seed)
        height = np.maximum(bottom, ground.level - 3.0 + risen * 1.1)
    for number, ribbon in enumerate(plan.ribbons):
        room = _ribbon_mask(plan, ribbon, grid, fbm(seed + 300 + number, grid, 9.0, 4))
        if ribbon.label in ids.OPEN_WATER:
            dip = smoothstep(-0.8, 0.5, room) * smoothstep(0.02, 0.006, risen / np.exp(v))
            height = height * (1 - dip) + (ground.level - 1.2) * dip
            bank = (room > -0.75) & (dip > 0.01)
            surface[bank] = np.where(patch_noise[bank] > 0.05, ids.ROCK, ids.EARTH)
            water_label = ribbon.label
        else:
            surface[(room > 0) & (surface != ids.MOUNTAIN) & (height > ground.level)] = ribbon.label
            if ribbon.label == ids.ROAD:
                ground.road_middle = np.abs(grid.x - centre_of(ribbon, v)) * np.exp(v)

    # All that lies below the level is water.
    ground.height, ground.base = height, height.copy()
    ground.water = np.clip(ground.level - height, 0, None).astype(np.float32)
    surface[ground.water > 0] = water_label


def _pour(
    plan: Plan, grid: Grid, height: np.ndarray, surface: np.ndarray, high: np.ndarray
) -> None:
    """A waterfall down the face of a cliff, wider towards its foot, and its stream on the edge
    above, in place.
    """
    place, half = plan.waterfall
    z = np.exp(grid.v)[:, None]
    steep = np.gradient(height, axis=0) / np.gradient(grid.v)[:, None] / z
    wander = 0.35 * perlin(plan.seed + 91, grid, 9.0) + 0.25 * perlin(plan.seed + 92, grid, 23.0)
    surface[(np.abs(grid.x - place) < half * (1 + wander)) & high & (steep > 0.3)] = ids.WATERFALL


def _fill_basin(basin: Basin, ground: Ground, height: np.ndarray, seed: int) -> np.ndarray:
    """Lower the ground between the shores and give the shores their cover (in place); the new
    height is returned.
    """
    grid, surface, level = ground.grid, ground.surface, ground.level
    v = grid.v[:, None]
    wide = fbm(seed + 22, Grid(grid.v * 0, grid.x), 2.2, 2)[:1]
    bays = basin.rough * (fbm(seed + 21, grid, 4.0, 5, 0.5) + 0.6 * wide)
    if basin.near <= 0:
        near = np.full_like(grid.x, -9.0)
    else:
        near = np.log(basin.near) + basin.tilt * grid.x
    room = (v - near) + bays
    if basin.far is not None:
        room = np.minimum(room, (np.log(basin.far) - v) + 0.5 * bays)
    if basin.islands > 0:
        isle = fbm(seed + 23, grid, 2.6, 6, 0.48) - np.interp(basin.islands, (0, 1), (0.6, 0.3))
        room = np.where(v > np.log(max(basin.near, 20.0) * 2.2), np.minimum(room, -isle * 2), room)
    dip = smoothstep(-0.12, 0.16, room)
    bottom = level - basin.depth * np.clip(room * 1.6, 0, 1) - 0.05
    lowered = height * (1 - dip) + bottom * dip + (1 - dip) * 0.15
    band = (lowered < level + basin.shore_width) & (lowered >= level - 0.4) & (dip > 0.02)
    surface[band & (surface != ids.MOUNTAIN) & (surface != ids.HILL)] = basin.shore
    return lowered.astype(np.float32)
