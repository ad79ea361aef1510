"""Colour and light of the ground: albedo by surface, sun with cast shadows, sky light, and the air
in between.
"""

from __future__ import annotations

import cv2
import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid, carried, fbm, perlin, smoothstep, world_noise
from jseg.landscapes.palettes import SANDS, STONES, colours, linear
from jseg.landscapes.plan import Ground, Plan
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import View, sunlit

VEIL = 2.4  # optical depth that mist never exceeds
BLUE_FIRST = np.float32([0.86, 1.0, 1.18])  # air scatters blue light most


def _mix(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    return low + (high - low) * part[..., None]


def _between(colours: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Colours of a palette at positions 0..1 along it, interpolated."""
    place = np.clip(part, 0, 1) * (len(colours) - 1)
    return np.stack(
        [np.interp(place, np.arange(len(colours)), colours[:, channel]) for channel in range(3)],
        axis=-1,
    ).astype(np.float32)


def albedo(plan: Plan, style: Style, ground: Ground, normal: np.ndarray) -> np.ndarray:
    """Reflectance of every terrain sample, [rows, columns, 3] linear."""
    grid, surface, key = ground.grid, ground.surface, plan.seed * 31 + 7
    fine, broad = world_noise(key, grid, 3.0, 0.03, 1.0) * 0.8, fbm(key + 1, grid, 5.0, 5, 0.55)
    mottled = np.clip(0.5 + 0.35 * fine + 0.3 * broad, 0, 1)
    stone = colours(style.pick(STONES, 1))
    result = np.zeros(grid.shape + (3,), np.float32)
    for label in np.unique(surface):
        at = surface == label
        if label in ids.OPEN_WATER:
            result[at] = stone[1] * 0.6
        elif label == ids.MOUNTAIN:
            result[at] = _mountain(plan, style, ground, normal, stone, broad, at)
        elif label == ids.TREE:
            result[at] = _canopy(plan, style, ground, at)
        elif label == ids.FIELD:
            result[at] = _fields(style, ground, fine, at)
        elif label == ids.WATERFALL:
            result[at] = _falling_water(plan, grid)[at]
        elif label in (ids.GRASS, ids.HILL, ids.PLANT):
            result[at] = _green(
                int(label),
                style,
                _blades(key + 3, grid)[at],
                fine[at],
                broad[at],
                normal[..., 1][at],
            )
        elif label == ids.SAND:
            result[at] = (
                linear(style.pick(SANDS, 2))
                * (0.74 + 0.045 * fine + 0.06 * broad + 0.06 * _sand_ripples(plan, grid))[at][
                    :, None
                ]
            )
        else:
            result[at] = _bare(int(label), plan, stone, mottled[at], fine[at], broad[at])
    if plan.basin is not None:
        damp = smoothstep(0.55, 0.1, ground.base - ground.level + 0.15 * broad) * np.isin(
            surface, (ids.SAND, ids.EARTH)
        )
        result *= (1 - 0.42 * damp)[..., None]
    if ground.road_middle is not None:
        _lane_marks(ground, result)
    _winter(plan, style, ground, normal, broad, result)
    return result


def _green(
    label: int,
    style: Style,
    blades: np.ndarray,
    fine: np.ndarray,
    broad: np.ndarray,
    up: np.ndarray,
) -> np.ndarray:
    """Grass, hills with bare places where they are steep, low plants."""
    grass = style.palette("grass")
    if label == ids.HILL:
        bare = colours(style.pick(STONES, 1))[1:]
        return _between(
            np.vstack((grass * 0.75, bare * 0.7)),
            0.35 + 0.35 * broad + 0.15 * fine + 0.75 * (1 - up),
        )
    if label == ids.PLANT:
        return _between(style.palette("plant")[:1] * 0.8, fine) * (0.5 + 0.35 * blades)[:, None]
    return (
        _between(grass, 0.5 + 0.3 * fine + 0.45 * broad)
        * (0.62 + 0.24 * blades + 0.1 * broad)[:, None]
    )


def _bare(
    label: int,
    plan: Plan,
    stone: np.ndarray,
    mottled: np.ndarray,
    fine: np.ndarray,
    broad: np.ndarray,
) -> np.ndarray:
    """Rock, roads, open land (snow in wintry scenes, dry steppe elsewhere), paths and earth."""
    if label == ids.ROCK:
        return _between(stone[::-1], mottled) * (0.75 + 0.4 * mottled)[:, None]
    if label == ids.ROAD:
        return linear("77767a") * (0.9 + 0.15 * fine)[:, None]
    if label == ids.LAND and plan.wintry:
        return np.float32([0.66, 0.68, 0.72]) * (1 + 0.04 * fine + 0.07 * broad)[:, None]
    if label == ids.LAND:
        return _between(colours("9c8a5c b49c6a 857a50"), 0.5 + 0.3 * fine + 0.35 * broad)
    soil = "a08a68 b8a482 8d7a5c" if label == ids.PATH else "6b5440 8d7355 9c8a66"
    return _between(colours(soil), mottled)


def _blades(key: int, grid: Grid) -> np.ndarray:
    """Upright texture of grass and crops: world-sized octaves drawn out along the view, about [-1,
    1].
    """
    total = np.zeros(grid.shape, np.float32)
    z, pitch = np.exp(grid.v), grid.pitch()
    for octave in range(4, 11):
        frequency = 2.0**octave * 1.13
        length = z / frequency
        weight = (
            np.clip(np.log2(length / 0.02), 0, 1)
            * np.clip(np.log2(1.6 / length), 0, 1)
            * carried(pitch, frequency * 0.55)[:, 0]
        )
        active = np.flatnonzero(weight > 0.02)
        if len(active):
            part = slice(active[0], active[-1] + 1)
            total[part] += (
                perlin(
                    key + octave * 7919,
                    grid.rows(part.start, part.stop),
                    (frequency * 0.4, frequency),
                )
                * weight[part, None]
            )
    return np.clip(total, -1.5, 1.5)


def _sand_ripples(plan: Plan, grid: Grid) -> np.ndarray:
    """Wind ripples a hand wide, where the image can show them, about [-1, 1]."""
    z = np.exp(grid.v)[:, None]
    wave = 0.45 + 0.03 * z
    phase = (
        (z + 0.35 * z * grid.x) / wave * 2 * np.pi
        + 4.0 * perlin(plan.seed + 61, grid, 5.0)
        + 1.5 * perlin(plan.seed + 62, grid, 17.0)
    )
    return np.sin(phase) * np.clip(2.0 - 8.0 * grid.pitch()[:, None] * z / wave, 0, 1)


def _mountain(
    plan: Plan,
    style: Style,
    ground: Ground,
    normal: np.ndarray,
    stone: np.ndarray,
    broad: np.ndarray,
    at: np.ndarray,
) -> np.ndarray:
    """Rock in strata, scree and meadows below, snow above where it can lie."""
    grid = ground.grid
    angle = (ground.height / np.exp(grid.v)[:, None])[at]
    top = max(
        (item.height for item in plan.ranges if item.kind in ("alpine", "massif", "mesa")),
        default=0.2,
    )
    relative = angle / top
    steep = 1 - normal[..., 1][at]
    rough = fbm(plan.seed * 31 + 77, grid, 40.0, 4, 0.6)[at]
    noise = broad[at]
    strata = np.sin(relative * 46 + 5 * noise + 2.0 * rough) * 0.5 + 0.5
    mesa = any(item.kind == "mesa" for item in plan.ranges)
    colour = _between(
        stone[::-1], 0.5 + 0.42 * rough + 0.25 * noise + (0.5 if mesa else 0.2) * (strata - 0.5)
    )
    if plan.kind == "desert" and mesa:
        colour = colour * _mix(linear("b06a48") * 1.6, linear("d8a878") * 1.5, strata)
    else:
        green = (
            style.palette("grass").mean(axis=0) * 0.62 + style.palette("conifer").mean(axis=0) * 0.3
        )
        lush = smoothstep(0.62, 0.25, relative + 0.25 * noise + 0.12 * rough) * smoothstep(
            0.62, 0.3, steep
        )
        colour = _mix(colour, green, lush * (0.0 if plan.kind == "desert" else 0.85))
        line = 1.15 - 0.85 * style.snow
        lying = smoothstep(
            line - 0.1, line + 0.12, relative + 0.22 * noise + 0.1 * rough
        ) * smoothstep(0.66, 0.42, steep + 0.16 * rough)
        colour = _mix(
            colour, np.float32([0.76, 0.78, 0.83]), lying * (0.0 if plan.kind == "desert" else 1.0)
        )
    return colour


def _canopy(plan: Plan, style: Style, ground: Ground, at: np.ndarray) -> np.ndarray:
    """Crowns: a palette colour each, dark between them."""
    kinds = [forest.kind for forest in plan.forests]
    crown, within = ground.crown[at], ground.canopy[at]
    conifer, leaf = (
        _between(style.palette("conifer"), crown),
        _between(style.palette("leaf"), (crown * 7.3) % 1),
    )
    if all(kind == "conifer" for kind in kinds):
        colour = conifer
    elif "conifer" in kinds or "mixed" in kinds:
        colour = np.where((crown * 13.7 % 1 < 0.6)[:, None], conifer, leaf)
    else:
        colour = leaf
    return colour * (0.28 + 0.62 * within * (0.75 + 0.5 * crown))[:, None]


def _fields(style: Style, ground: Ground, fine: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Crops: each field its colour, with furrows where the image can show them."""
    number, phase, _ = (layer[at] for layer in ground.fields)
    z = np.broadcast_to(np.exp(ground.grid.v)[:, None], ground.grid.shape)[at]
    palette = style.palette("field")
    colour = palette[(number * len(palette) * 7).astype(int) % len(palette)]
    furrow = np.sin(phase * (2 * np.pi / 2.6)) * np.clip(1.6 - z / 240.0, 0, 1) * 0.16
    return colour * (0.78 + furrow + 0.1 * fine[at] + 0.15 * (number * 31 % 1 - 0.5))[:, None]


def _falling_water(plan: Plan, grid: Grid) -> np.ndarray:
    """White strands."""
    strands = perlin(plan.seed + 95, grid, (6.0, 220.0)) + 0.7 * perlin(
        plan.seed + 96, grid, (12.0, 110.0)
    )
    return np.float32([0.78, 0.84, 0.88]) * np.clip(0.8 + 0.3 * strands, 0.35, 1.1)[..., None]


def _lane_marks(ground: Ground, colour: np.ndarray) -> None:
    """A dashed centre line and pale edges on the road, in place."""
    middle = ground.road_middle
    z = np.exp(ground.grid.v)[:, None]
    half = np.maximum(
        0.09, 0.7 * z * (ground.grid.x[1] - ground.grid.x[0])
    )  # never thinner than the image can show
    paint = np.clip(1.5 - middle / half, 0, 1) * (0.09 / half) ** 0.5 * ((z / 9.0) % 1 < 0.5)
    colour += (linear("d8d4c8") - colour) * (paint * (ground.surface == ids.ROAD))[:, :, None]


def _winter(
    plan: Plan,
    style: Style,
    ground: Ground,
    normal: np.ndarray,
    broad: np.ndarray,
    colour: np.ndarray,
) -> None:
    """Snow on crowns, hills and fields in winter, in place; grass only gets a dusting, so that its
    class can still be seen.
    """
    if style.season != "winter":
        return
    deep = 1.0 if plan.wintry else 0.7 if style.weather == "snowfall" else 0.35
    amount = np.zeros(ground.grid.shape, np.float32)
    for label, share in (
        (ids.TREE, 0.45),
        (ids.HILL, 0.9),
        (ids.GRASS, 0.35),
        (ids.FIELD, 0.55),
        (ids.ROCK, 0.6),
        (ids.EARTH, 0.45),
        (ids.PATH, 0.35),
        (ids.ROAD, 0.2),
        (ids.SAND, 0.25),
    ):
        amount[ground.surface == label] = share * deep
    lying = (
        amount * smoothstep(-0.5, 0.3, broad + 0.5 * deep) * smoothstep(0.45, 0.8, normal[..., 1])
    )
    colour += (np.float32([0.84, 0.87, 0.92]) - colour) * lying[:, :, None]


def light(style: Style, ground: Ground, normal: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Radiance [rows, columns, 3]: albedo under sun, sky and a little light from the ground."""
    shine = sunlit(ground.height, ground.grid, style.azimuth, style.elevation)
    sun = style.direction()
    facing = np.clip(normal @ sun, 0, None) * shine
    open_sky = 0.55 + 0.45 * normal[..., 1]
    hollow = _occlusion(ground)
    bounce = (1 - normal[..., 1]) * 0.12
    lamp = (
        facing[..., None] * style.sun
        + (open_sky * hollow)[..., None] * style.ambient
        + (bounce * facing.mean())[..., None] * style.sun
    )
    return colour * lamp


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
    """Share of each colour's light, [..., 3], that comes through `z` metres of air from `height`;
    low ground lies in the mist.

    `glare` multiplies the haze: towards the sun the air is brighter than its thickness.
    """
    height = np.maximum(height, 0)
    low = np.exp(-height / mist_top)
    veil = VEIL * (
        1 - np.exp(-style.mist * low * z * (1e-3 / VEIL))
    )  # mist thins out before it hides everything
    depth = style.haze * glare * (0.35 + 0.65 * np.exp(-height / 900.0)) * z * 1e-3 + veil
    return np.exp(-np.asarray(depth, np.float32)[..., None] * BLUE_FIRST)
