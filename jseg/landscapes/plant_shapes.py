"""How plants and boulders grow: clouds of leaves or needles, each with a normal and a shade.

They are drawn into a depth buffer at a fixed size and without light.
"""

from __future__ import annotations

import cv2
import numpy as np

from jseg.landscapes.sprites import BARK, BLOOM, LEAF, STONE, TALL, WOOD, Points, Shape, unit_length


def _crown(
    points: Points,
    rng,
    lobes: np.ndarray,
    radii: np.ndarray,
    leaves: int,
    leaf: float,
    bloom: float = 0.0,
) -> None:
    """Leaves on and in a union of ellipsoids; those deep inside or low down are shaded."""
    surface = radii.prod(axis=1) ** (2 / 3)
    owner = rng.choice(len(lobes), size=leaves, p=surface / surface.sum())

    # Leaves hang in clumps.
    direction = unit_length(rng.normal(size=(leaves, 3)))
    clumps = leaves // 22 + 1
    clump = unit_length(rng.normal(size=(clumps, 3)))[rng.integers(clumps, size=leaves)]
    direction = unit_length(direction + 1.1 * clump)
    reach = (1 - 0.35 * rng.random(leaves) ** 1.6)[:, None]
    rough = 1 + 0.12 * rng.normal(size=(leaves, 1))
    position = lobes[owner] + direction * radii[owner] * reach * rough

    # Their normals lead out of the whole crown; those inside or low down get little light.
    inside = np.min(np.linalg.norm((position[:, None, :] - lobes) / radii, axis=2), axis=1)
    centre = (lobes * surface[:, None]).sum(axis=0) / surface.sum()
    extent = np.abs(lobes).max() + radii.max()
    outward = unit_length((position - centre) / extent + 0.8 * direction)
    normal = unit_length(outward + 0.45 * rng.normal(size=(leaves, 3)))
    low = (position[:, 1] - position[:, 1].min()) / max(np.ptp(position[:, 1]), 1e-6)
    shade = np.clip(0.25 + 0.75 * np.clip((inside - 0.45) / 0.5, 0, 1), 0, 1) * (0.55 + 0.45 * low)
    tone = np.clip(rng.normal(0.5, 0.2, leaves), 0, 1)
    flower = rng.random(leaves) < bloom
    points.add(position[~flower], normal[~flower], shade[~flower], tone[~flower], LEAF, leaf)
    if flower.any():
        bright = np.maximum(shade[flower], 0.7)
        points.add(position[flower], normal[flower], bright, tone[flower], BLOOM, leaf * 1.2)


def _columns(*columns: np.ndarray) -> np.ndarray:
    return np.stack(columns, axis=1)


def _broad(rng, slender: float = 1.0, trunk: int = WOOD) -> Shape:
    points = Points()
    count = int(rng.integers(5, 9))
    middle = rng.uniform(0.54, 0.6)
    angle = rng.uniform(0, 2 * np.pi, count)
    ring = rng.uniform(0.1, 0.26, count) * slender
    height = middle + rng.uniform(-0.2, 0.24, count)
    lobes = _columns(np.cos(angle) * ring, height, np.sin(angle) * ring)
    lobes[0] = (0, middle + 0.04, 0)
    radii = _columns(
        rng.uniform(0.13, 0.21, count) * slender,
        rng.uniform(0.12, 0.19, count),
        rng.uniform(0.13, 0.2, count) * slender,
    )
    radii[0] *= 1.45

    # A trunk that forks to every lobe.
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
    stack = [(np.zeros(3), np.array([rng.normal(0, 0.03), 0.3, 0.0]), 0.024, 0)]
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
            _branch(points, rng, angle, y, reach, part)
    return points.draw(0.29 * slender + 0.02)


def _branch(points: Points, rng, angle: float, y: float, reach: float, part: float) -> None:
    """Needles along a branch of a conifer at height `y`, `part` of the way up, that droops."""
    length = reach * rng.uniform(0.7, 1.12)
    count = max(int(length * 620), 12)
    along = rng.random(count) ** 0.75
    out = np.array([np.cos(angle), 0.0, np.sin(angle)])
    droop = (0.10 - 0.52 * along) * along * length * 1.6
    spread = 0.018 * (1 - 0.5 * along) * (0.4 + length / 0.2)
    scatter = rng.normal(size=(count, 3)) * spread[:, None] * np.array([1, 0.5, 1])
    position = out * (along * length)[:, None] + scatter
    position[:, 1] += y + droop

    rough = 0.35 * rng.normal(size=(count, 3))
    normal = unit_length(out * 0.9 + np.array([0, 0.55, 0]) + rough)
    above = np.clip((position[:, 1] - y - droop) / np.maximum(spread, 1e-4) + 0.5, 0, 1)
    shade = (0.1 + 0.9 * along**1.3) * (0.45 + 0.55 * above) * (0.7 + 0.3 * part)
    shade = shade * rng.uniform(0.75, 1.2)
    tone = np.clip(rng.normal(0.5, 0.22, count), 0, 1)
    points.add(position, normal, shade, tone, LEAF, 0.0036)


def _poplar(rng) -> Shape:
    points = Points()
    points.line(np.zeros(3), np.array([0.0, 0.9, 0.0]), 0.016, 0.004, WOOD, rng)
    y = np.linspace(0.16, 0.92, 11) + rng.normal(0, 0.01, 11)
    wide = 0.092 * np.sin(np.clip((y - 0.05) / 0.95, 0, 1) * np.pi) ** 0.6
    lobes = _columns(rng.normal(0, 0.012, 11), y, rng.normal(0, 0.012, 11))
    _crown(points, rng, lobes, _columns(wide, np.full(11, 0.075), wide), 8000, 0.0046)
    return points.draw(0.16)


def _shrub(rng, bloom: float = 0.0) -> Shape:
    points = Points()
    count = int(rng.integers(5, 9))
    lobes = _columns(
        rng.uniform(-0.5, 0.5, count), rng.uniform(0.25, 0.6, count), rng.uniform(-0.3, 0.3, count)
    )
    radii = _columns(
        rng.uniform(0.2, 0.34, count), rng.uniform(0.2, 0.36, count), rng.uniform(0.2, 0.3, count)
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
        bent = tall * along - 0.12 * abs(lean) * along**3
        position = _columns(foot + lean * along**1.8, bent, np.full(70, rng.normal(0, 0.1)))
        normal = np.tile(unit_length(np.array([[rng.normal(0, 0.5), 0.5, 0.8]])), (70, 1))
        points.add(position, normal, 0.3 + 0.7 * along, np.full(70, rng.random()), LEAF, 0.0055)
        if rng.random() < bloom:
            head = position[-1] + rng.normal(0, 0.016, (40, 3))
            upward = np.tile([[0, 0.8, 0.6]], (40, 1))
            points.add(head, upward, np.ones(40), np.full(40, rng.random()), BLOOM, 0.011)
    return points.draw(0.62)


def _boulder(rng) -> Shape:
    """A rock: a few planes cut from a rounded block, rough by noise."""
    size, width = TALL, 448
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(1, 0, size))
    across = np.linspace(-0.95, 0.95, 8) + rng.normal(0, 0.15, 8)
    planes = unit_length(_columns(across, rng.uniform(-0.05, 0.9, 8), rng.uniform(0.3, 0.9, 8)))
    distance = rng.uniform(0.52, 0.72, 8)

    def octave(weight, cells):
        values = rng.normal(size=cells).astype(np.float32)
        return weight * cv2.resize(values, (width, size), interpolation=cv2.INTER_CUBIC)

    cells = ((1.0, (12, 19)), (0.3, (34, 53)), (0.09, (90, 140)))
    noise = sum(octave(*one) for one in cells)
    cuts = [(d - n[0] * x * 0.8 - n[1] * y * 0.85) / n[2] for n, d in zip(planes, distance)]
    surface = np.stack(cuts).min(axis=0) + 0.03 * noise

    # Round at the edge, lit by its own slopes.
    round_part = 1 - (x / 0.97) ** 4 - (y / 0.97) ** 4
    alpha = ((surface > 0) & (round_part + 0.12 * noise > 0)).astype(np.float32)
    smooth = cv2.GaussianBlur(surface.astype(np.float32), (0, 0), 1.5)
    across, down = np.gradient(smooth, 2 / width, axis=1), np.gradient(smooth, 1 / size, axis=0)
    slopes = np.stack((-across, down, np.full_like(across, 1.0)), axis=2)
    normal = unit_length(slopes).astype(np.float32)
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
