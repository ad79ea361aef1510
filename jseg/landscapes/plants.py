"""Trees, shrubs, reeds and boulders as small lit images ("sprites").

A plant is grown once per process (plant_shapes.py). A scene lights the few plants it uses in its
own season and sun, and draws them smaller.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, Tuple

import cv2
import numpy as np

from jseg.landscapes.fractal import generator
from jseg.landscapes.palettes import STONES, colours
from jseg.landscapes.plant_shapes import MAKERS
from jseg.landscapes.sprites import BARK, BLOOM, LEAF, STONE, WOOD, Shape
from jseg.landscapes.style import Style

SNOW = np.float32([0.82, 0.85, 0.9])
VARIANTS = 4


@lru_cache(maxsize=None)
def shape(kind: str, variant: int, halvings: int) -> Shape:
    """An unlit plant, averaged down `halvings` times; made once per process."""
    if halvings == 0:
        return MAKERS[kind](generator(sorted(MAKERS).index(kind), variant, 401))
    finer = shape(kind, variant, halvings - 1)

    def half(layer: np.ndarray) -> np.ndarray:
        rows, columns = layer.shape[0] // 2, layer.shape[1] // 2
        means = layer.reshape(rows, 2, columns, 2, -1).mean(axis=(1, 3))
        return means.reshape((rows, columns) + layer.shape[2:])

    # All layers count as much as the leaves cover.
    alpha = half(finer.alpha)
    whole = np.maximum(alpha, 1e-4)
    shade, tone = (half(layer * finer.alpha) / whole for layer in (finer.shade, finer.tone))
    normal, material = (
        half(layer * finer.alpha[..., None]) / whole[..., None]
        for layer in (finer.normal, finer.material)
    )
    return Shape(alpha, normal, shade, tone, material, finer.aspect)


LEAVES = {
    "conifer": "conifer",
    "pine": "conifer",
    "flower": "plant",
    "bloom": "plant",
    "tuft": "grass",
    "reed": "grass",
}


def _palettes(kind: str, style: Style) -> Dict[int, np.ndarray]:
    """The colours of each material, [n, 3] linear."""
    leaf = style.palette(LEAVES.get(kind, "leaf"))
    if kind in ("flower", "bloom"):
        leaf = np.stack((leaf[0] * 0.9, leaf[0] * 1.1))
    return {
        LEAF: leaf,
        WOOD: colours("4a3a2c 6b5644"),
        BLOOM: style.palette("plant")[1:],
        STONE: colours(style.pick(STONES, 1)),
        BARK: colours("b8b4ac e0dcd2"),
    }


def lit(
    kind: str, variant: int, halvings: int, style: Style, tint: int = 0, wintry: bool = False
) -> Tuple[np.ndarray, np.ndarray]:
    """(colour [h, w, 3] linear, alpha [h, w]) of a plant in this style's season and light; `tint`
    picks the leaf colour.
    """
    plant = shape(kind, variant, halvings)
    colour = np.zeros(plant.normal.shape, np.float32)
    for material, palette in _palettes(kind, style).items():
        weight = plant.material[..., material]
        if weight.any():
            first, second = palette[tint % len(palette)], palette[(tint * 5 + 1) % len(palette)]
            spread = plant.tone * (0.35 if material == LEAF else 1.0)
            mixed = first + (second - first) * spread[..., None]
            colour += mixed * (weight * (0.55 + 0.4 * plant.tone))[..., None]

    # Snow lies on what looks upward.
    if style.season == "winter" and kind not in ("tuft", "flower", "reed"):
        upward = cv2.blur(plant.normal[..., 1] * plant.shade, (5, 5))
        white = np.clip(upward * 3.0 - 0.55, 0, 1) * (0.8 if wintry else 0.3)
        colour += (SNOW - colour) * white[..., None]

    # Sprites look towards the camera; leaves let some light through.
    facing = plant.normal @ (style.direction() * np.float32([1, 1, -1]))
    through = 0.25 * np.clip(-facing, 0, 1) * plant.material[..., LEAF]
    direct = np.clip(0.85 * facing + 0.15, 0, None) * (0.3 + 0.9 * plant.shade) + through
    sky = (0.15 + 0.95 * plant.shade) * (0.66 + 0.34 * plant.normal[..., 1])
    return colour * (direct[..., None] * style.sun + sky[..., None] * style.ambient), plant.alpha
