"""Colour of the ground: the albedo of every terrain sample by its surface."""

from __future__ import annotations

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid, carried, fbm, perlin, smoothstep, world_noise
from jseg.landscapes.palettes import SANDS, STONES, colours, linear
from jseg.landscapes.plan import Ground, Plan
from jseg.landscapes.style import Style

# How much snow lies on a surface in deep winter. Grass only gets a dusting, so that its class can
# still be seen.
SNOW_COVER = {
    ids.TREE: 0.45,
    ids.HILL: 0.9,
    ids.GRASS: 0.35,
    ids.FIELD: 0.55,
    ids.ROCK: 0.6,
    ids.EARTH: 0.45,
    ids.PATH: 0.35,
    ids.ROAD: 0.2,
    ids.SAND: 0.25,
}


def _mix(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    return low + (high - low) * part[..., None]


def _between(palette: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Colours of a palette at positions 0..1 along it, interpolated."""
    numbers = np.arange(len(palette))
    place = np.clip(part, 0, 1) * (len(palette) - 1)
    channels = [np.interp(place, numbers, palette[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


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
            blades, up = _blades(key + 3, grid)[at], normal[..., 1][at]
            result[at] = _green(int(label), style, blades, fine[at], broad[at], up)
        elif label == ids.SAND:
            tone = 0.74 + 0.045 * fine + 0.06 * broad + 0.06 * _sand_ripples(plan, grid)
            result[at] = linear(style.pick(SANDS, 2)) * tone[at][:, None]
        else:
            result[at] = _bare(int(label), plan, stone, mottled[at], fine[at], broad[at])

    # What lies on it: water at the shore, paint on the road, snow.
    if plan.basin is not None:
        soil = np.isin(surface, (ids.SAND, ids.EARTH))
        damp = smoothstep(0.55, 0.1, ground.base - ground.level + 0.15 * broad) * soil
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
        place = 0.35 + 0.35 * broad + 0.15 * fine + 0.75 * (1 - up)
        return _between(np.vstack((grass * 0.75, bare * 0.7)), place)
    if label == ids.PLANT:
        return _between(style.palette("plant")[:1] * 0.8, fine) * (0.5 + 0.35 * blades)[:, None]
    tone = 0.62 + 0.24 * blades + 0.1 * broad
    return _between(grass, 0.5 + 0.3 * fine + 0.45 * broad) * tone[:, None]


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
        band = np.clip(np.log2(length / 0.02), 0, 1) * np.clip(np.log2(1.6 / length), 0, 1)
        weight = band * carried(pitch, frequency * 0.55)[:, 0]
        active = np.flatnonzero(weight > 0.02)
        if len(active):
            start, stop = active[0], active[-1] + 1
            rows, stretched = grid.rows(start, stop), (frequency * 0.4, frequency)
            noise = perlin(key + octave * 7919, rows, stretched)
            total[start:stop] += noise * weight[start:stop, None]
    return np.clip(total, -1.5, 1.5)


def _sand_ripples(plan: Plan, grid: Grid) -> np.ndarray:
    """Wind ripples a hand wide, where the image can show them, about [-1, 1]."""
    z = np.exp(grid.v)[:, None]
    wave = 0.45 + 0.03 * z
    phase = (z + 0.35 * z * grid.x) / wave * 2 * np.pi
    phase = phase + 4.0 * perlin(plan.seed + 61, grid, 5.0)
    phase = phase + 1.5 * perlin(plan.seed + 62, grid, 17.0)
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
    tall = [item.height for item in plan.ranges if item.kind in ("alpine", "massif", "mesa")]
    relative = angle / max(tall, default=0.2)
    steep = 1 - normal[..., 1][at]
    rough = fbm(plan.seed * 31 + 77, grid, 40.0, 4, 0.6)[at]
    noise = broad[at]

    # Bare rock; in the desert, table mountains in bands.
    strata = np.sin(relative * 46 + 5 * noise + 2.0 * rough) * 0.5 + 0.5
    mesa = any(item.kind == "mesa" for item in plan.ranges)
    bands = (0.5 if mesa else 0.2) * (strata - 0.5)
    rock = _between(stone[::-1], 0.5 + 0.42 * rough + 0.25 * noise + bands)
    desert = plan.kind == "desert"
    if desert and mesa:
        return rock * _mix(linear("b06a48") * 1.6, linear("d8a878") * 1.5, strata)

    # Meadows below, where it is not too steep.
    green = style.palette("grass").mean(axis=0) * 0.62 + style.palette("conifer").mean(axis=0) * 0.3
    low = smoothstep(0.62, 0.25, relative + 0.25 * noise + 0.12 * rough)
    lush = low * smoothstep(0.62, 0.3, steep)
    colour = _mix(rock, green, lush * (0.0 if desert else 0.85))

    # Snow above the snow line, where it can lie.
    line = 1.15 - 0.85 * style.snow
    high = smoothstep(line - 0.1, line + 0.12, relative + 0.22 * noise + 0.1 * rough)
    lying = high * smoothstep(0.66, 0.42, steep + 0.16 * rough)
    return _mix(colour, np.float32([0.76, 0.78, 0.83]), lying * (0.0 if desert else 1.0))


def _canopy(plan: Plan, style: Style, ground: Ground, at: np.ndarray) -> np.ndarray:
    """Crowns: a palette colour each, dark between them."""
    kinds = [forest.kind for forest in plan.forests]
    crown, within = ground.crown[at], ground.canopy[at]
    conifer = _between(style.palette("conifer"), crown)
    leaf = _between(style.palette("leaf"), (crown * 7.3) % 1)
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
    fine = perlin(plan.seed + 96, grid, (12.0, 110.0))
    strands = perlin(plan.seed + 95, grid, (6.0, 220.0)) + 0.7 * fine
    return np.float32([0.78, 0.84, 0.88]) * np.clip(0.8 + 0.3 * strands, 0.35, 1.1)[..., None]


def _lane_marks(ground: Ground, colour: np.ndarray) -> None:
    """A dashed centre line and pale edges on the road, in place."""
    middle = ground.road_middle
    z = np.exp(ground.grid.v)[:, None]
    # Never thinner than the image can show.
    half = np.maximum(0.09, 0.7 * z * (ground.grid.x[1] - ground.grid.x[0]))
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
    """Snow on crowns, hills and fields in winter, in place."""
    if style.season != "winter":
        return
    deep = 1.0 if plan.wintry else 0.7 if style.weather == "snowfall" else 0.35
    amount = np.zeros(ground.grid.shape, np.float32)
    for label, cover in SNOW_COVER.items():
        amount[ground.surface == label] = cover * deep
    lying = amount * smoothstep(-0.5, 0.3, broad + 0.5 * deep)
    lying = lying * smoothstep(0.45, 0.8, normal[..., 1])
    colour += (np.float32([0.84, 0.87, 0.92]) - colour) * lying[:, :, None]
