"""From light to a photograph: falling rain or snow, exposure, colour grade, tone curve, 8 bits."""

from __future__ import annotations

import cv2
import numpy as np

from jseg.landscapes.fractal import generator
from jseg.landscapes.style import Style
from jseg.landscapes.terrain import View

LUMA = np.float32([0.2126, 0.7152, 0.0722])


def _curve() -> np.ndarray:
    """Linear light 0..8 in 4096 steps of its square root to sRGB 0..1: straight below 0.55, a soft
    shoulder above.
    """
    light = np.linspace(0, np.sqrt(8), 4096) ** 2
    knee, room = 0.55, 0.45
    shoulder = knee + room * (1 - np.exp(-(light - knee) / (room * 1.15)))
    light = np.where(light < knee, light, shoulder)
    curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return curve.astype(np.float32)


CURVE = _curve()


def _falling(view: View, style: Style, image: np.ndarray) -> np.ndarray:
    """Streaks of rain, or flakes of snow."""
    rng = generator(style.seed, 71)
    layer = np.zeros(image.shape[:2], np.uint8)
    if style.drops > 0:
        slant = rng.uniform(-0.25, 0.25)
        for x, y, length in rng.random((260, 3)):
            start = np.array([x, y * 1.1 - 0.1]) * (view.width, view.height)
            stop = start + np.array([slant, 1.0]) * ((0.02 + 0.05 * length) * view.height)
            ends = [tuple(int(c * 16) for c in point) for point in (start, stop)]
            cv2.line(layer, *ends, 255, 1, cv2.LINE_AA, shift=4)
        blur, colour = max(view.width / 700, 0.3), style.horizon * 1.1
        strength = 0.16 * min(view.width / 400, 1)
    else:
        for x, y, size in rng.random((420, 3)):
            centre = int(x * view.width * 16), int(y * view.height * 16)
            radius = max(int((0.0009 + 0.0034 * size**6) * view.width * 16), 8)
            cv2.circle(layer, centre, radius, int(90 + 110 * size), -1, cv2.LINE_AA, shift=4)
        blur, colour = max(view.width / 600, 0.3), np.float32(0.92)
        strength = 0.75 * min(view.width / 300, 1)
    soft = cv2.GaussianBlur(layer, (0, 0), blur)[..., None] / np.float32(255)
    return image + (colour - image) * (soft * strength)


def smooth_edges(image: np.ndarray, label: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The image with one-pixel antialiasing where surfaces meet: there each pixel takes a part of
    its neighbours.
    """
    near = np.minimum(z, 1e5)
    steps = np.zeros(label.shape, bool)
    before, after, every = slice(None, -1), slice(1, None), slice(None)
    for first, second in (((before, every), (after, every)), ((every, before), (every, after))):
        one, other = near[first], near[second]
        apart = np.abs(one - other) > 0.25 * np.minimum(one, other)
        differs = (label[first] != label[second]) | apart
        steps[first] |= differs
        steps[second] |= differs
    soft = cv2.GaussianBlur(image, (3, 3), 0.6)
    return np.where(steps[..., None], soft, image)


def develop(image: np.ndarray, view: View, style: Style) -> np.ndarray:
    """Linear light [H, W, 3] to uint8 sRGB."""
    light = image
    if style.drops > 0 or style.flakes > 0:
        light = _falling(view, style, image)
    grey = (light @ LUMA)[..., None]
    light = np.clip(grey + (light - grey) * style.saturation, 0, 8)
    light *= np.exp(np.float32([style.warmth, 0, -style.warmth]))
    place = np.sqrt(np.clip(light, 0, 8)) * np.float32(4095 / np.sqrt(8))
    shown = np.take(CURVE, place.astype(np.int32))
    shown = shown + (style.contrast - 1) * (shown - 0.45) * 4 * shown * (1 - shown)
    return np.clip(shown * 255 + 0.5, 0, 255).astype(np.uint8)
