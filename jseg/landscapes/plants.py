"""Trees, shrubs, reeds and boulders as small lit images ("sprites").

A plant is a cloud of some thousand leaves or needles, each with a normal, a depth and a shade; they
are drawn into a depth buffer once per process, at a fixed size and without light. A scene lights
the few plants it uses in its own season and sun, and draws them smaller.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, Tuple

import cv2
import numpy as np

from jseg.landscapes.fractal import generator
from jseg.landscapes.sprites import BARK, BLOOM, LEAF, STONE, TALL, WOOD, Points, Shape, unit_length
from jseg.landscapes.style import STONES, Style, colours


def _crown(
    points: Points,
    rng,
    lobes: np.ndarray,
    radii: np.ndarray,
    leaves: int,
    leaf: float,
    material: int = LEAF,
    bloom: float = 0.0,
) -> None:
    """Leaves on and in a union of ellipsoids; those deep inside or low down are shaded."""
    share = radii.prod(axis=1) ** (2 / 3)
    owner = rng.choice(len(lobes), size=leaves, p=share / share.sum())
    direction = unit_length(rng.normal(size=(leaves, 3)))
    clump = unit_length(rng.normal(size=(leaves // 22 + 1, 3)))[
        rng.integers(leaves // 22 + 1, size=leaves)
    ]
    direction = unit_length(direction + 1.1 * clump)
    reach = 1 - 0.35 * rng.random(leaves) ** 1.6
    position = lobes[owner] + direction * radii[owner] * reach[:, None] * (
        1 + 0.12 * rng.normal(size=(leaves, 1))
    )
    inside = np.min(np.linalg.norm((position[:, None, :] - lobes) / radii, axis=2), axis=1)
    centre, extent = (
        (lobes * share[:, None]).sum(axis=0) / share.sum(),
        np.abs(lobes).max() + radii.max(),
    )
    outward = unit_length((position - centre) / extent + 0.8 * direction)
    normal = unit_length(outward + 0.45 * rng.normal(size=(leaves, 3)))
    low = (position[:, 1] - position[:, 1].min()) / max(np.ptp(position[:, 1]), 1e-6)
    shade = np.clip(0.25 + 0.75 * np.clip((inside - 0.45) / 0.5, 0, 1), 0, 1) * (0.55 + 0.45 * low)
    tone = np.clip(rng.normal(0.5, 0.2, leaves), 0, 1)
    flower = rng.random(leaves) < bloom
    points.add(position[~flower], normal[~flower], shade[~flower], tone[~flower], material, leaf)
    if flower.any():
        points.add(
            position[flower],
            normal[flower],
            np.maximum(shade[flower], 0.7),
            tone[flower],
            BLOOM,
            leaf * 1.2,
        )


def _broad(rng, slender: float = 1.0, trunk: int = WOOD) -> Shape:
    points = Points()
    count = int(rng.integers(5, 9))
    middle = rng.uniform(0.54, 0.6)
    angle = rng.uniform(0, 2 * np.pi, count)
    ring = rng.uniform(0.1, 0.26, count) * slender
    lobes = np.stack(
        (np.cos(angle) * ring, middle + rng.uniform(-0.2, 0.24, count), np.sin(angle) * ring),
        axis=1,
    )
    lobes[0] = (0, middle + 0.04, 0)
    radii = np.stack(
        (
            rng.uniform(0.13, 0.21, count) * slender,
            rng.uniform(0.12, 0.19, count),
            rng.uniform(0.13, 0.2, count) * slender,
        ),
        axis=1,
    )
    radii[0] *= 1.45
    lean = rng.normal(0, 0.02)
    foot, fork = np.array([0.0, 0.0, 0.0]), np.array([lean, middle - 0.2, 0.0])
    points.line(foot, fork, 0.026 * slender**0.5, 0.018, trunk, rng)
    for lobe in lobes:
        points.line(fork, lobe * np.array([0.9, 1, 0.5]), 0.012, 0.004, trunk, rng)
    _crown(points, rng, lobes, radii, 10500, 0.0046)
    return points.draw(0.44 * slender + 0.02)


def _bare(rng) -> Shape:
    """A tree without leaves: branches that fork a few times."""
    points = Points()
    stack = [(np.array([0.0, 0.0, 0.0]), np.array([rng.normal(0, 0.03), 0.3, 0.0]), 0.024, 0)]
    while stack:
        start, reach, thick, depth = stack.pop()
        stop = start + reach
        points.line(start, stop, thick, thick * 0.68, WOOD, rng)
        if depth < 6:
            for _ in range(2 + (depth in (1, 2))):
                turn = rng.normal(0, 0.42 + 0.03 * depth, 2)
                length = np.linalg.norm(reach) * rng.uniform(0.62, 0.86)
                side = unit_length(reach) + np.array([turn[0], 0.1, turn[1] * 0.5])
                stack.append((stop, unit_length(side) * length, thick * 0.62, depth + 1))
    return points.draw(0.5)


def _conifer(rng, slender: float = 1.0) -> Shape:
    points = Points()
    points.line(np.zeros(3), np.array([0.0, 0.965, 0.0]), 0.017, 0.001, WOOD, rng)
    tiers = int(rng.integers(17, 24))
    base = rng.uniform(0.05, 0.14)
    for tier in range(tiers):
        part = (tier + rng.uniform(0, 0.6)) / tiers
        y = base + (0.985 - base) * part
        reach = 0.215 * slender * (1 - part) ** 0.82 * rng.uniform(0.78, 1.18) + 0.006
        for angle in rng.uniform(0, 2 * np.pi, 13 if part < 0.75 else 8):
            length = reach * rng.uniform(0.7, 1.12)
            count = max(int(length * 620), 12)
            along = rng.random(count) ** 0.75
            out = np.array([np.cos(angle), 0.0, np.sin(angle)])
            droop = (0.10 - 0.52 * along) * along * length * 1.6
            spread = 0.018 * (1 - 0.5 * along) * (0.4 + length / 0.2)
            position = out * (along * length)[:, None] + rng.normal(size=(count, 3)) * spread[
                :, None
            ] * np.array([1, 0.5, 1])
            position[:, 1] += y + droop
            normal = unit_length(
                out * 0.9 + np.array([0, 0.55, 0]) + 0.35 * rng.normal(size=(count, 3))
            )
            above = np.clip((position[:, 1] - y - droop) / np.maximum(spread, 1e-4) + 0.5, 0, 1)
            shade = (
                (0.1 + 0.9 * along**1.3)
                * (0.45 + 0.55 * above)
                * (0.7 + 0.3 * part)
                * rng.uniform(0.75, 1.2)
            )
            points.add(
                position, normal, shade, np.clip(rng.normal(0.5, 0.22, count), 0, 1), LEAF, 0.0036
            )
    return points.draw(0.29 * slender + 0.02)


def _poplar(rng) -> Shape:
    points = Points()
    points.line(np.zeros(3), np.array([0.0, 0.9, 0.0]), 0.016, 0.004, WOOD, rng)
    y = np.linspace(0.16, 0.92, 11) + rng.normal(0, 0.01, 11)
    wide = 0.092 * np.sin(np.clip((y - 0.05) / 0.95, 0, 1) * np.pi) ** 0.6
    lobes = np.stack((rng.normal(0, 0.012, 11), y, rng.normal(0, 0.012, 11)), axis=1)
    _crown(points, rng, lobes, np.stack((wide, np.full(11, 0.075), wide), axis=1), 8000, 0.0046)
    return points.draw(0.16)


def _shrub(rng, bloom: float = 0.0) -> Shape:
    points = Points()
    count = int(rng.integers(5, 9))
    lobes = np.stack(
        (
            rng.uniform(-0.5, 0.5, count),
            rng.uniform(0.25, 0.6, count),
            rng.uniform(-0.3, 0.3, count),
        ),
        axis=1,
    )
    radii = np.stack(
        (
            rng.uniform(0.2, 0.34, count),
            rng.uniform(0.2, 0.36, count),
            rng.uniform(0.2, 0.3, count),
        ),
        axis=1,
    )
    _crown(points, rng, lobes, radii, 13000, 0.0075, bloom=bloom)
    return points.draw(0.9)


def _tuft(rng, blades: int, spread: float, bloom: float) -> Shape:
    """Grass blades or reeds that bend over, some with a flower."""
    points = Points()
    for _ in range(blades):
        foot, lean = rng.normal(0, 0.10 * spread), rng.normal(0, 0.3 * spread)
        tall = rng.uniform(0.45, 0.98)
        along = np.linspace(0, 1, 70)
        position = np.stack(
            (
                foot + lean * along**1.8,
                tall * along - 0.12 * abs(lean) * along**3,
                np.full(70, rng.normal(0, 0.1)),
            ),
            axis=1,
        )
        normal = np.tile(unit_length(np.array([[rng.normal(0, 0.5), 0.5, 0.8]])), (70, 1))
        points.add(position, normal, 0.3 + 0.7 * along, np.full(70, rng.random()), LEAF, 0.0055)
        if rng.random() < bloom:
            head = position[-1] + rng.normal(0, 0.016, (40, 3))
            points.add(
                head,
                np.tile([[0, 0.8, 0.6]], (40, 1)),
                np.ones(40),
                np.full(40, rng.random()),
                BLOOM,
                0.011,
            )
    return points.draw(0.62)


def _boulder(rng) -> Shape:
    """A rock: a few planes cut from a rounded block, rough by noise."""
    size, width = TALL, 448
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(1, 0, size))
    planes = unit_length(
        np.stack(
            (
                np.linspace(-0.95, 0.95, 8) + rng.normal(0, 0.15, 8),
                rng.uniform(-0.05, 0.9, 8),
                rng.uniform(0.3, 0.9, 8),
            ),
            axis=1,
        )
    )
    distance = rng.uniform(0.52, 0.72, 8)
    noise = sum(
        weight
        * cv2.resize(
            rng.normal(size=cells).astype(np.float32), (width, size), interpolation=cv2.INTER_CUBIC
        )
        for weight, cells in ((1.0, (12, 19)), (0.3, (34, 53)), (0.09, (90, 140)))
    )
    depth = np.stack(
        [(d - n[0] * x * 0.8 - n[1] * y * 0.85) / n[2] for n, d in zip(planes, distance)]
    )
    surface = depth.min(axis=0) + 0.03 * noise
    round_part = 1 - (x / 0.97) ** 4 - (y / 0.97) ** 4
    alpha = ((surface > 0) & (round_part + 0.12 * noise > 0)).astype(np.float32)
    smooth = cv2.GaussianBlur(surface.astype(np.float32), (0, 0), 1.5)
    across, down = np.gradient(smooth, 2 / width, axis=1), np.gradient(smooth, 1 / size, axis=0)
    normal = unit_length(np.stack((-across, down, np.full_like(across, 1.0)), axis=2)).astype(
        np.float32
    )
    shade = np.clip(0.45 + 0.6 * y + 0.1 * noise, 0.2, 1).astype(np.float32)
    tone = np.clip(0.5 + 0.22 * noise, 0, 1).astype(np.float32)
    material = np.zeros((size, width, 5), np.float32)
    material[..., STONE] = 1
    return Shape(alpha, normal, shade, tone, material, width / size)


MAKERS = {
    "broad": lambda rng: _broad(rng),
    "birch": lambda rng: _broad(rng, 0.62, BARK),
    "bare": _bare,
    "conifer": lambda rng: _conifer(rng),
    "pine": lambda rng: _conifer(rng, 1.35),
    "poplar": _poplar,
    "shrub": lambda rng: _shrub(rng),
    "bloom": lambda rng: _shrub(rng, 0.12),
    "tuft": lambda rng: _tuft(rng, 46, 1.0, 0.0),
    "flower": lambda rng: _tuft(rng, 40, 1.1, 0.5),
    "reed": lambda rng: _tuft(rng, 30, 0.45, 0.2),
    "boulder": _boulder,
}
VARIANTS = 4


@lru_cache(maxsize=None)
def shape(kind: str, variant: int, halvings: int) -> Shape:
    """An unlit plant, averaged down `halvings` times; made once per process."""
    if halvings == 0:
        return MAKERS[kind](generator(sorted(MAKERS).index(kind), variant, 401))
    finer = shape(kind, variant, halvings - 1)

    def half(layer: np.ndarray) -> np.ndarray:
        rows, columns = layer.shape[0] // 2, layer.shape[1] // 2
        return (
            layer.reshape(rows, 2, columns, 2, -1)
            .mean(axis=(1, 3))
            .reshape((rows, columns) + layer.shape[2:])
        )

    alpha = half(finer.alpha)
    whole = np.maximum(alpha, 1e-4)
    flat = (half(layer * finer.alpha) / whole for layer in (finer.shade, finer.tone))
    deep = [
        half(layer * finer.alpha[..., None]) / whole[..., None]
        for layer in (finer.normal, finer.material)
    ]
    return Shape(alpha, deep[0], *flat, deep[1], finer.aspect)


def _palettes(kind: str, style: Style, wintry: bool) -> Dict[int, np.ndarray]:
    leaf = style.palette(
        "conifer"
        if kind in ("conifer", "pine")
        else "plant"
        if kind in ("flower", "bloom")
        else "leaf"
    )
    if kind in ("tuft", "reed"):
        leaf = style.palette("grass")
    if kind in ("flower", "bloom"):
        leaf = np.stack((leaf[0] * 0.9, leaf[0] * 1.1))
    return {
        LEAF: leaf,
        WOOD: colours(("4a3a2c", "6b5644")),
        BLOOM: style.palette("plant")[1:],
        STONE: colours(style.pick(STONES, 1)),
        BARK: colours(("b8b4ac", "e0dcd2")),
    }


def lit(
    kind: str, variant: int, halvings: int, style: Style, tint: int = 0, wintry: bool = False
) -> Tuple[np.ndarray, np.ndarray]:
    """(colour [h, w, 3] linear, alpha [h, w]) of a plant in this style's season and light; `tint`
    picks the leaf colour.
    """
    plant = shape(kind, variant, halvings)
    sun = style.direction() * np.float32([1, 1, -1])  # sprites look towards the camera
    palettes = _palettes(kind, style, wintry)
    colour = np.zeros(plant.normal.shape, np.float32)
    for material, palette in palettes.items():
        share = plant.material[..., material]
        if share.any():
            first, second = palette[tint % len(palette)], palette[(tint * 5 + 1) % len(palette)]
            mixed = (
                first
                + (second - first) * (plant.tone * (0.35 if material == LEAF else 1.0))[..., None]
            )
            colour += mixed * (share * (0.55 + 0.4 * plant.tone))[..., None]
    if style.season == "winter" and kind not in ("tuft", "flower", "reed"):
        upward = cv2.blur(plant.normal[..., 1] * plant.shade, (5, 5))
        white = np.clip(upward * 3.0 - 0.55, 0, 1) * (0.8 if wintry else 0.3)
        colour += (np.float32([0.82, 0.85, 0.9]) - colour) * white[..., None]
    facing = plant.normal @ sun
    through = (
        0.25 * np.clip(-facing, 0, 1) * (plant.material[..., LEAF])
    )  # leaves let some light through
    direct = np.clip(0.85 * facing + 0.15, 0, None) * (0.3 + 0.9 * plant.shade) + through
    sky = (0.15 + 0.95 * plant.shade) * (0.66 + 0.34 * plant.normal[..., 1])
    return colour * (direct[..., None] * style.sun + sky[..., None] * style.ambient), plant.alpha
