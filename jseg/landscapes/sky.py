"""The sky: a three-stop gradient that warms towards the sun, sun or moon, stars, and clouds lit
from the sun's side.

Clouds are fractal densities in coordinates that shrink towards the horizon. Light inside a cloud
falls off with the density met on the way to the sun, measured by a few affine pulls of the image
towards the sun's place in it; thin edges near the sun scatter forward (a silver lining).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

import cv2
import numpy as np

from jseg.landscapes.fractal import Grid, displaced, fbm, generator
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import View


@dataclass(frozen=True)
class CloudKind:
    """Shape of one kind of cloud; `flatten` small = seen as a flat layer, large = upright heaps."""

    frequency: float
    stretch: float  # longer along x by this factor
    flatten: float
    octaves: int
    gain: float
    warp: float
    edge: float  # density range from nothing to full
    thickness: float  # optical depth of the full density


CLOUDS: Dict[str, CloudKind] = {
    "cirrus": CloudKind(1.5, 3.4, 0.06, 7, 0.62, 0.40, 1.10, 0.45),
    "cumulus": CloudKind(2.4, 1.3, 0.30, 7, 0.50, 0.08, 0.55, 2.0),
    "altocumulus": CloudKind(6.0, 1.7, 0.10, 6, 0.52, 0.10, 0.75, 1.0),
    "stratocumulus": CloudKind(2.0, 2.2, 0.12, 7, 0.54, 0.14, 0.85, 1.7),
    "stratus": CloudKind(1.2, 2.6, 0.08, 6, 0.48, 0.20, 1.50, 0.9),
    "storm": CloudKind(1.6, 1.7, 0.16, 7, 0.55, 0.18, 0.90, 2.6),
}


def toward_sun(view: View, style: Style) -> np.ndarray:
    """Cosine of the angle between each pixel's ray and the sun, [H, W]."""
    x, up = view.columns()[None, :], view.tangents()[:, None]
    sun = style.direction()
    return (x * sun[0] + up * sun[1] + sun[2]) / np.sqrt(1 + x * x + up * up)


def gradient(view: View, style: Style, cosine: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The cloudless sky without disc, [H, W, 3], for elevation tangents `up` [H, 1]; also the
    colour that haze takes.
    """
    up = np.clip(up, 0, None)
    low, high = np.exp(-up / 0.13), 1 - np.exp(-np.clip(up - 0.02, 0, None) / 0.75)
    weights = [low * (1 - high), (1 - low) * (1 - high), np.ones_like(low) * high]
    stops = (style.horizon, style.middle, style.zenith)
    base = sum(weight[:, :, None] * colour for weight, colour in zip(weights, stops))
    side = np.clip((1 + cosine) / 2, 0, 1)
    near = side**8
    warm = near * (0.35 + 0.65 * low) * (0.75 * style.sun_seen)
    sky = base * (0.86 + 0.2 * side[:, :, None] ** 2)
    return sky + (style.glow - sky) * np.clip(warm, 0, 0.9)[:, :, None]


def _sun_pixel(view: View, style: Style) -> Tuple[float, float]:
    """Where the sun stands in the image plane (column, row), pulled to a far point when it is
    beside or behind the camera.
    """
    sun = style.direction()
    depth = max(sun[2], 0.12)
    limit = 3.0
    x, up = np.clip(sun[0] / depth, -limit, limit), np.clip(sun[1] / depth, 0.0, limit)
    return float(view.column_of(x)), float(view.row_of(up))


def _density(view: View, style: Style, kind: CloudKind, scale: int) -> np.ndarray:
    """Cloud density from 0 to about 2 for the rows above the horizon, at 1 / scale of the
    image.
    """
    rows = max(int(np.ceil(view.horizon * view.height / scale)) + 2, 4)
    up = (view.horizon * view.height - (np.arange(rows) + 0.5) * scale) / view.focal
    up = np.clip(up, 0.0, None)
    columns = np.arange(int(np.ceil(view.width / scale)))
    x = ((columns + 0.5) * scale / view.width * 2 - 1) * view.tan_half

    # The layer's coordinates shrink towards the horizon.
    shift = generator(style.seed, 21).uniform(0, 50, 2)
    grid = Grid(
        (shift[0] - np.log(up + kind.flatten) * (0.55 + kind.flatten)).astype(np.float32),
        (shift[1] + x / kind.stretch).astype(np.float32),
    )
    key = 1000 + style.seed * 13
    shape = fbm(key, grid, kind.frequency, kind.octaves, kind.gain)
    pixels = kind.warp * view.focal / scale
    down, right = (fbm(key + salt, grid, kind.frequency * 1.3, 4) * pixels for salt in (5, 9))
    shape = displaced(shape, down * 0.5, right)
    if kind.flatten >= 0.3:  # heaps: billows on top of the shape
        shape = shape + 0.35 * (0.5 - np.abs(fbm(key + 17, grid, kind.frequency * 3.1, 4, 0.55)))
    threshold = np.interp(style.cover, (0, 0.25, 0.5, 0.75, 1), (1.2, 0.42, 0.12, -0.25, -0.9))
    rise = np.clip((shape - threshold) / kind.edge, 0, 2.5)
    # Smooth at the edge, linear in the thick.
    return rise * rise * (3 - 2 * np.minimum(rise, 1)) / np.maximum(rise, 1)


def clouds(view: View, style: Style, sky: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """The sky [H, W, 3] with this style's clouds over it."""
    kind = CLOUDS.get(style.cloud)
    if kind is None:
        return sky
    scale = 2 if view.width >= 384 else 1
    density = _density(view, style, kind, scale)
    rows, columns = density.shape
    sun_column, sun_row = (coordinate / scale for coordinate in _sun_pixel(view, style))

    # The density met on the way to the sun, by pulls of the image towards it.
    path = np.zeros_like(density)
    distance = max(np.hypot(sun_column - columns / 2, sun_row - rows / 2), columns * 0.25)
    for step in (0.008, 0.02, 0.04, 0.07):
        pull = min(step * view.focal / scale / distance * 1.2, 0.5)
        matrix = np.float32([[1 - pull, 0, pull * sun_column], [0, 1 - pull, pull * sun_row]])
        path += cv2.warpAffine(
            density,
            matrix,
            (columns, rows),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    path = cv2.GaussianBlur(path * 0.25, (0, 0), max(columns / 200, 0.6))
    light = np.exp(-kind.thickness * (0.3 * path + 0.4 * path * np.minimum(density, 1)))
    if scale > 1:
        size = columns * scale, rows * scale
        light, density = (
            cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR)[:, : view.width]
            for layer in (light, density)
        )

    # Light and dark of the clouds; the far ones fade into the sky.
    rows = min(len(density), view.height)
    light, density, clear = light[:rows, :, None], density[:rows], sky[:rows]
    up = np.clip(view.tangents()[:rows, None], 0, None)
    side = np.clip((1 + cosine[:rows]) / 2, 0, 1)
    forward = (0.62 + 0.55 * side**5 + 1.1 * side**60 * style.sun_seen)[:, :, None]
    lit = style.sun * 0.46 * forward + style.ambient * 0.66
    dark = style.ambient * 0.36 + style.middle * 0.22 + style.horizon * 0.18
    dark = dark * (0.6 if style.cloud == "storm" else 1.0)
    colour = dark + (lit - dark) * light
    far = np.exp(-up / 0.07)[:, :, None] * 0.75
    colour = colour + (clear - colour) * far
    opacity = (1 - np.exp(-2.2 * kind.thickness * density))[:, :, None] * (1 - 0.25 * far)
    result = sky.copy()
    result[:rows] = clear + (colour - clear) * opacity
    return result


def _disc(view: View, style: Style, sky: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Sun or moon with its halo."""
    angle = np.sqrt(np.clip(2 - 2 * cosine, 0, None))
    size = 0.021 if style.hour != "night" else 0.016
    halo = np.exp(-angle / 0.05) * 0.55 + np.exp(-angle / 0.18) * 0.22
    disc = np.clip((size - angle) * view.focal / 2 + 0.5, 0, 1)
    strength = style.sun_seen * (0.25 if style.hour == "night" else 1.0)
    bright = disc * min(style.sun_seen * 1.3, 1)
    lit = sky + style.glow * (halo * strength)[:, :, None]
    return lit + np.float32(1.6) * style.glow * bright[:, :, None]


def _stars(view: View, style: Style, sky: np.ndarray) -> np.ndarray:
    """Stars in scene cells, so that they keep their places at any size."""
    count = 260
    rng = generator(style.seed, 31)
    places, power = rng.random((count, 2)), rng.random(count) ** 3
    rows = (places[:, 0] * view.height * 0.8).astype(int)
    columns = (places[:, 1] * view.width).astype(int)
    above = rows < view.horizon * view.height
    bright = (0.2 + 0.8 * power[above]).astype(np.float32)
    layer = np.zeros(sky.shape[:2], np.float32)
    np.maximum.at(layer, (rows[above], columns[above]), bright)
    if view.width > 600:
        layer = cv2.GaussianBlur(layer, (0, 0), view.width / 900) * 3
    strength = style.stars * min((view.width / 512) ** 1.2, 1)
    return sky + layer[:, :, None] * np.float32([0.75, 0.8, 0.9]) * strength


def paint_sky(view: View, style: Style) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sky, haze, glare): the visible sky [H, W, 3] linear, what distant things fade into, and how
    much faster they do towards the sun.
    """
    cosine = toward_sun(view, style)
    up = view.tangents()[:, None]
    clear = gradient(view, style, cosine, up)
    if style.weather in ("rain", "storm"):
        haze = clear * 0.92
    else:
        haze = gradient(view, style, cosine, np.full_like(up, 0.015))
    sky = _stars(view, style, clear) if style.stars > 0 else clear
    sky = clouds(view, style, _disc(view, style, sky, cosine), cosine)
    low_sun = np.exp(-style.elevation / 0.35)
    return sky, haze, 1 + 3.0 * style.sun_seen * low_sun * np.clip((1 + cosine) / 2, 0, 1) ** 7
