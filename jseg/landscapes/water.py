"""Water: mirrored scenery broken by ripples, the body's own colour, the sun's glitter, shallow
shores and foam.

What a water pixel mirrors is found in the finished image: seen from the mirrored camera, a point
at distance z moves up by 2 (eye - level) / z in elevation tangent, so the first pixel of the column
that reaches the mirrored ray is its reflection.
"""

from __future__ import annotations

from typing import Tuple

import cv2
import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.fractal import Grid, fbm, smoothstep, world_noise
from jseg.landscapes.palettes import FRESH_WATERS, WATERS, colours
from jseg.landscapes.plan import Ground, Plan
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import FAR, first_reaching

# How much of the wind ruffles the water, and the least that does.
ROUGHNESS = {
    ids.SEA: (1.0, 0.25),
    ids.RIVER: (0.8, 0.15),
    ids.LAKE: (0.5, 0.02),
    ids.WATER: (0.35, 0.02),
}


def _main_run(wet: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """First and last row of each column's longest unbroken stretch of water, [W] each (0, -1 where
    there is none).
    """
    rows, columns = wet.shape
    numbers = np.arange(rows, dtype=np.int32)[:, None]
    # Where the stretch that holds this row began.
    begin = np.maximum.accumulate(np.where(wet, -1, numbers), axis=0) + 1
    length = np.where(wet, numbers - begin + 1, 0)
    last = length.argmax(axis=0)
    first = begin[last, np.arange(columns)]
    none = length.max(axis=0) == 0
    return np.where(none, 0, first), np.where(none, -1, last)


def _mirrored(canvas: Canvas, wet: np.ndarray, level: float) -> np.ndarray:
    """The image as the water mirrors it, [H, W, 3]: row j holds what the ray mirrored at row j of
    the image meets.
    """
    view = canvas.view
    rows, columns = wet.shape
    numbers = np.arange(rows)[:, None]
    tangent = view.tangents()[:, None]
    first, last = _main_run(wet)
    nearest = np.where(last >= 0, canvas.z_ground[np.maximum(last, 0), np.arange(columns)], np.inf)

    # A point is hidden below the water, behind its near shore, or by being water itself.
    source = (tangent + 2 * (view.eye - level) / canvas.z) * view.focal
    thing = (canvas.cover > 0.5) & (numbers <= last)
    hidden = ~((numbers < first) | thing) | (canvas.z < nearest) | (wet & (canvas.cover <= 0.5))
    levels = np.where(hidden, 4.0 * rows, rows - source)[::-1]
    index = rows - 1 - first_reaching(levels.astype(np.float32), rows)
    target = np.rint(rows - numbers[:, 0] - 1 + view.horizon * rows)
    index = np.take(index, np.clip(target, 0, rows - 1).astype(np.int64), axis=0)

    # Where nothing reaches the ray: what stands the same height above the horizon.
    plain = np.rint(2 * view.horizon * rows - 1 - numbers).astype(np.int64)
    index = np.clip(np.where(index < np.minimum(numbers, rows), index, plain), 0, rows - 1)
    return np.take_along_axis(canvas.image, index[..., None], axis=0)


def _ripples(
    plan: Plan, canvas: Canvas, level: float, start: int, rough: float
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wave slopes towards the camera and sideways, and a broad pattern of wind, for the rows from
    `start` down.
    """
    view = canvas.view
    v = np.log((view.eye - level) / np.maximum(-view.tangents()[start:], 1e-4)).astype(np.float32)
    grid = Grid(v[::-1].copy(), view.columns())
    key = plan.seed * 53 + 11
    at_sea = plan.basin is not None and plan.basin.label == ids.SEA
    longest = 2.0 + 14.0 * rough if at_sea else 1.2 + 4.0 * rough
    along = world_noise(key, grid, longest, 0.12, 0.92)[::-1]
    sideways = world_noise(key + 1, grid, longest, 0.12, 0.92)[::-1] * 0.5
    wind = fbm(key + 2, Grid(grid.v * 1.0, grid.x * 0.35), 2.5, 5, 0.55)[::-1]
    return along, sideways, wind


def _glitter(
    style: Style, view, start: int, along: np.ndarray, sideways: np.ndarray, spread: float
) -> np.ndarray:
    """Fraction of facets that mirror the sun into the camera, [rows, W]."""
    sun = style.direction()
    x, up = view.columns()[None, :], view.tangents()[start:, None]
    norm = 1 / np.sqrt(1 + x * x + up * up)
    half_x, half_up, half_z = sun[0] - x * norm, sun[1] - up * norm, sun[2] - norm
    half_up = np.maximum(half_up, 1e-3)
    miss_x = half_x / half_up * 0.8 + sideways * spread * 5
    miss_z = half_z / half_up + along * spread * 5
    miss = miss_x**2 + miss_z**2
    return np.exp(-miss / (2 * (spread * 1.6 + 0.012) ** 2))


def _sun_in_sight(canvas: Canvas) -> float:
    """Fraction of sky about the sun's place in the image, 1 where the sun is outside of it: what
    hides the sun also hides its glitter.
    """
    view, sun = canvas.view, canvas.style.direction()
    if sun[2] < 0.1:
        return 1.0
    reach = max(view.width / 60, 1.0)

    def around(place):
        return slice(max(int(place - reach), 0), max(int(place + reach) + 1, 0))

    row, column = view.row_of(sun[1] / sun[2]), view.column_of(sun[0] / sun[2])
    window = canvas.label[around(row), around(column)]
    return float((window == ids.SKY).mean()) if window.size else 1.0


def paint_water(
    plan: Plan, style: Style, canvas: Canvas, ground: Ground, depth: np.ndarray, bed: np.ndarray
) -> None:
    """Colour every water pixel of the canvas, in place.

    `depth` [H, W] metres of water (0 on land), `bed` [H, W, 3] what is seen of the ground below.
    """
    view, level = canvas.view, ground.level
    wet = np.isin(canvas.label_ground, ids.OPEN_WATER)
    if not wet.any():
        return
    start = int(wet.any(axis=1).argmax())
    label = int(np.bincount(canvas.label_ground[wet], minlength=29).argmax())
    part, least = ROUGHNESS[label]
    rough = least + part * style.wind

    # Waves, with cat's paws: ruffled and smooth patches.
    slope = 0.012 + 0.05 * rough
    along, sideways, wind = _ripples(plan, canvas, level, start, rough)
    calm = 0.55 + 0.45 * smoothstep(-0.25, 0.35, wind)
    along, sideways = along * calm, sideways * calm
    reflected = _reflected(canvas, wet, level, start, along, sideways, slope, rough > 0.05)

    # The flatter the view, the more of it (Fresnel's law by Schlick), else the water itself.
    up = -view.tangents()[start:, None]
    facing = np.clip(up / np.sqrt(1 + up * up) + along * slope * 1.2 + slope, 0, 1)
    fresnel = (0.03 + 0.97 * (1 - facing) ** 5)[..., None]
    if label in (ids.LAKE, ids.WATER):
        fresnel = fresnel**0.8
    body = _body(style, label, depth[start:, :, None], bed[start:], along)
    water = body + (reflected - body) * fresnel

    # The sun's glitter, foam, and the air before it all.
    glint = _glitter(style, view, start, along, sideways, slope * 2.2 + 0.02)
    strength = 1.5 * min(style.sun_seen * 1.2, 1.0) * _sun_in_sight(canvas)
    water = water + (glint * (0.25 + 0.75 * fresnel[..., 0]) * strength)[..., None] * style.sun
    water = _foam(plan, style, canvas, label, start, depth, along, water, rough)
    z = np.minimum(canvas.z_ground[start:], FAR)
    water = canvas.through_air(water, start, z, np.zeros_like(z))
    open_part = (wet[start:] * (1 - canvas.cover[start:]))[..., None]
    canvas.image[start:] += water * open_part


def _reflected(
    canvas: Canvas,
    wet: np.ndarray,
    level: float,
    start: int,
    along: np.ndarray,
    sideways: np.ndarray,
    slope: float,
    blurred: bool,
) -> np.ndarray:
    """What the rows from `start` down mirror, [rows, W, 3], broken by the waves."""
    focal, (rows, columns) = canvas.view.focal, wet.shape
    mirrored = _mirrored(canvas, wet, level)
    if blurred:
        mirrored = cv2.blur(mirrored, (1, 1 + 2 * int(round(slope * focal * 0.35))))
    shift = 2 * slope * focal
    map_x = np.arange(columns, dtype=np.float32) + sideways * shift * 0.6
    lower = np.arange(start, rows, dtype=np.float32)[:, None]
    map_y = lower + np.abs(along) * shift * 0.8 + along * shift * 0.5
    return cv2.remap(
        mirrored,
        map_x.astype(np.float32),
        np.clip(map_y, start, rows - 1).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _body(
    style: Style, label: int, depth: np.ndarray, bed: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Light from below the surface, [rows, W, 3]: the water's own colour, and the bed where it is
    shallow.
    """
    deep, shallow = colours(style.pick(WATERS if label == ids.SEA else FRESH_WATERS, 3))
    lamp = style.ambient * 0.9 + style.sun * (0.25 + 0.45 * max(np.sin(style.elevation), 0))
    body = (deep + (shallow - deep) * np.exp(-depth / 2.2)) * lamp * (1 + 0.25 * along[..., None])
    clear = np.exp(-depth * np.float32([2.2, 1.3, 1.0]))
    return body + (bed * np.float32([0.8, 0.9, 0.85]) - body) * clear * 0.85


def _foam(
    plan: Plan,
    style: Style,
    canvas: Canvas,
    label: int,
    start: int,
    depth: np.ndarray,
    along: np.ndarray,
    water: np.ndarray,
    rough: float,
) -> np.ndarray:
    """Surf along the sea's shore, white caps in wind, riffles in rivers."""
    view = canvas.view
    v = np.log(view.eye / np.maximum(-view.tangents()[start:], 1e-4)).astype(np.float32)
    grid = Grid(v[::-1].copy(), view.columns())
    key = plan.seed * 59 + 5
    lace = world_noise(key, grid, 6.0, 0.15, 0.9)[::-1]
    white = (style.ambient * 0.75 + style.sun * (0.2 + 0.4 * np.sin(style.elevation))) * 0.95
    d = depth[start:]
    if label == ids.SEA:
        # The last of a wave on the sand, rollers before it, white caps in wind.
        swash = smoothstep(0.35, 0.0, d + 0.22 * lace) * (d > 0)
        rolls = np.zeros_like(d)
        for number, place in enumerate((0.45, 0.85, 1.35)):
            wobble = 0.16 * fbm(key + 3 + number, grid, 3.0, 4)[::-1]
            roll = smoothstep(0.11, 0.02, np.abs(d - place - wobble))
            roll = roll * smoothstep(-0.1, 0.7, lace + 0.1) * (0.85 - 0.2 * number)
            rolls = np.maximum(rolls, roll)
        crests = world_noise(key + 9, grid, 1.5, 0.1, 0.95)[::-1]
        caps = smoothstep(1.0, 1.5, along + 0.7 * crests) * smoothstep(0.55, 1.2, rough)
        amount = np.maximum(np.maximum(swash, rolls * min(0.3 + rough, 1.0)), caps)
    elif label == ids.RIVER:
        # Where the river runs over stones.
        riffle = world_noise(key + 7, Grid(grid.v, grid.x * 0.5), 1.6, 0.08, 1.0)[::-1]
        where = smoothstep(0.0, 0.6, fbm(key + 8, grid, 3.0, 3)[::-1]) * 0.8
        where = where + smoothstep(0.5, 0.05, d)
        broken = smoothstep(0.5, 1.7, riffle + 0.4 * along) * where * (0.25 + 0.6 * rough)
        amount = broken + smoothstep(0.1, 0.0, d + 0.08 * lace) * 0.25
    else:
        amount = smoothstep(0.06, 0.0, d + 0.04 * lace) * 0.15
    return water + (white - water) * np.clip(amount, 0, 1)[..., None]
