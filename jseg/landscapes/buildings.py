"""Things built on the ground: houses, a church, a lighthouse, a castle, piers, fences, walls,
railings and bridges.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.model import Model
from jseg.landscapes.palettes import linear
from jseg.landscapes.plan import Prop
from jseg.landscapes.style import Style

WALLS = ("e8e2d4", "d8c8a8", "c4b49a", "b89878", "e4d8c8", "9c7a58", "a8a29a")
ROOFS = ("8a4a38", "6b4a3c", "5a5a60", "9a5a40", "705c48", "484c54")


def drawn(rng: np.random.Generator, codes: Sequence[str]) -> np.ndarray:
    """The colour of one of the codes, linear."""
    return linear(codes[int(rng.integers(len(codes)))])


def house(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.HOUSE)
    wall, roof = drawn(rng, WALLS), drawn(rng, ROOFS)
    width, depth, height = rng.uniform(8, 13), rng.uniform(6, 8), rng.uniform(3.0, 5.4)
    if style.season == "winter":
        roof = roof * 0.35 + np.float32([0.8, 0.83, 0.88]) * 0.65
    model.box(0, -1.5, 0, width, height + 1.5, depth, wall)
    model.gable(height, width, depth, rng.uniform(2.2, 3.6), roof, wall)
    model.windows(0, 0, -depth / 2 - 0.02, width, 1 if height < 4.6 else 2, int(width // 2.6))
    model.box(width * 0.25, height + 1.2, depth * 0.15, 0.8, 2.4, 0.8, wall * 0.7)
    return model


def block(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A town house of several storeys."""
    model = Model(style, prop, ids.BUILDING)
    wall, roof = drawn(rng, WALLS), drawn(rng, ROOFS)
    width, storeys = rng.uniform(7, 13), int(rng.integers(3, 6))
    height = storeys * 2.9 + 0.6
    model.box(0, -2, 0, width, height + 2, 10, wall)
    if rng.random() < 0.75:
        model.gable(height, width, 10, rng.uniform(2.0, 3.5), roof, wall, over=0.2)
    model.windows(0, 0.2, -5.02, width, storeys, int(width // 2.2))
    return model


def church(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.BUILDING)
    wall, roof = linear("e2dccb"), drawn(rng, ROOFS)
    model.box(0, -1.5, 0, 16, 8.5, 8, wall)
    model.gable(7, 16, 8, 4.5, roof, wall)
    model.box(-10, -1.5, 0, 5, 17.5, 5, wall)
    corners = [(-12.8, 16, -2.8), (-7.2, 16, -2.8), (-7.2, 16, 2.8), (-12.8, 16, 2.8)]
    for a, b in zip(corners, corners[1:] + corners[:1]):
        model.face([a, b, (-10, 27, 0)], roof)
    model.windows(0, 1.5, -4.02, 15, 1, 4)
    return model


def lighthouse(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.BUILDING)
    white, red = "efe9dd", "a83c30"
    for low, high, code in ((-2, 5, white), (5, 10, red), (10, 15, white), (15, 19, red)):
        model.tube(0, low, 0, 2.9 - 0.07 * low, 2.9 - 0.07 * high, high - low, linear(code))
    model.tube(0, 19, 0, 2.1, 2.1, 0.5, linear("33363c"))
    lamp = "ffe2a0" if style.hour in ("dusk", "night", "sunset") else "8fa4b0"
    model.tube(0, 19.5, 0, 1.1, 1.1, 2.2, linear(lamp))
    model.tube(0, 21.7, 0, 1.4, 0.1, 1.4, linear("8a3028"))
    return model


def keep(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A castle: round towers and a wall between them."""
    model = Model(style, prop, ids.BUILDING)
    stone, roof = linear("a89c88"), drawn(rng, ROOFS)
    model.box(0, -3, 0, 22, 12, 12, stone)
    for x, z, radius, height in (
        (-12, -5, 3.4, 17),
        (12, -5, 3.0, 15),
        (3, 3, 4.2, 23),
        (-12, 6, 2.8, 14),
    ):
        model.tube(x, -3, z, radius, radius * 0.94, height + 3, stone)
        model.tube(x, height, z, radius * 1.18, 0.05, radius * 2.2, roof)
    model.windows(0, 3.5, -6.02, 20, 1, 5)
    return model


def pier(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A plank deck on posts, along local z."""
    model = Model(style, prop, ids.PIER)
    length, wood = 24.0, linear("8d7a62")
    for z in np.arange(0.5, length, 3.0):
        for x in (-0.95, 0.95):
            model.box(x, -2.0, z, 0.22, 3.3 if z > 1 else 2.7, 0.22, wood * 0.6)
    model.box(0, 0.45, length / 2, 2.1, 0.16, length, wood * 0.75)
    edges = np.linspace(0, length, 41)
    for near, far in zip(edges, edges[1:]):
        tone, end = 0.8 + 0.35 * rng.random(), far - 0.05
        corners = [(-1.1, near), (1.1, near), (1.1, end), (-1.1, end)]
        model.face([(x, 0.64, z) for x, z in corners], wood * tone)
    return model


def fence(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """Posts and two rails along local x."""
    model = Model(style, prop, ids.FENCE)
    wood = linear("8a7458") if rng.random() < 0.6 else linear("d8d4ca")
    for x in np.arange(-12, 12.1, 2.4):
        model.box(x, -0.4, 0, 0.16, 1.65, 0.16, wood)
        if x < 11.9:
            for y in (0.45, 0.95):
                model.box(x + 1.2, y, 0, 2.4, 0.13, 0.07, wood * 0.92)
    return model


def wall(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A dry stone wall along local x: courses of uneven stones."""
    model = Model(style, prop, ids.WALL)
    stone = linear("a89e90")
    for start in np.arange(-8, 8, 1.0):
        model.box(start + 0.5, -0.6, 0.02, 1.0, 1.5, 0.5, stone * 0.6)
        for course in range(4):
            x = start
            while x < start + 0.95:
                width = min(rng.uniform(0.3, 0.6), start + 1 - x)
                low = -0.12 + course * 0.25 + rng.uniform(-0.02, 0.02)
                corners = [
                    (x, low),
                    (x + width - 0.04, low),
                    (x + width - 0.05, low + 0.22),
                    (x + 0.02, low + 0.21),
                ]
                tone = rng.uniform(0.75, 1.3)
                model.face([(px, py, -0.26) for px, py in corners], stone * tone)
                x += width
        height, tone = rng.uniform(0.08, 0.2), rng.uniform(0.85, 1.2)
        model.box(start + 0.5, 0.88, 0, 0.96, height, 0.6, stone * tone)
    return model


def quay(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A long embankment wall along local x."""
    model = Model(style, prop, ids.WALL)
    stone = linear("9a9082")
    for x in np.arange(-100, 100, 8.0):
        model.box(x + 4, -1.5, 0, 7.9, 3.4, 1.0, stone * rng.uniform(0.85, 1.1))
    return model


def railing(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A metal railing of a viewing place along local x."""
    model = Model(style, prop, ids.RAILING)
    metal = linear("40464c") if rng.random() < 0.6 else linear("c8ccd0")
    for x in np.arange(-4.2, 4.25, 0.42):
        model.box(x, -0.1, 0, 0.045 if round(x / 0.42) % 5 else 0.09, 1.15, 0.045, metal)
    for y, thick in ((1.02, 0.09), (0.12, 0.05)):
        model.box(0, y, 0, 8.4, thick, 0.07, metal)
    return model


def bridge(
    canvas: Canvas, style: Style, prop: Prop, rng: np.random.Generator, level: float
) -> None:
    """A stone bridge with round arches across the view; `size` is its span in metres."""
    stone = linear("a89880") if rng.random() < 0.7 else linear("9a9a98")
    span, arches = prop.size, max(int(prop.size // 16), 1)
    rise = span / arches * 0.36
    deck = level + rise + 1.6
    z, centre = prop.distance, prop.x * prop.distance
    sun = style.direction()

    def lamp(normal):
        direct = style.sun * max(float(np.dot(normal, sun)), 0.0)
        return direct + style.ambient * (0.62 + 0.38 * normal[1])

    # The far side in shadow, then the near one; the arches are holes.
    for back, shade in ((5.0, 0.5), (0.0, 1.0)):
        top = [
            (centre + part * span * 0.5, deck + 0.9 + 0.05 * span * (1 - part * part))
            for part in np.linspace(-1.35, 1.35, 15)
        ]
        outline = top + [(centre + span * 0.68, level - 2), (centre - span * 0.68, level - 2)]
        contours = [outline]
        for arch in range(arches):
            middle, half = centre + span * ((arch + 0.5) / arches - 0.5), span / arches * 0.43
            angle = np.linspace(0, np.pi, 17)
            contours.append(
                [(middle + half * np.cos(a), level - 0.3 + rise * np.sin(a)) for a in angle]
            )
        canvas.polygon_set(
            [[canvas.place(x, z + back, y) for x, y in contour] for contour in contours],
            stone * lamp((0, 0, -1)) * shade,
            (z + back) * 0.985,
            ids.BRIDGE,
        )
    lip = [canvas.place(x, z - 0.3, y) for x, y in top]
    lip += [canvas.place(x, z - 0.3, y - 0.5) for x, y in top[::-1]]
    canvas.polygon(lip, stone * lamp((0, 0.5, -0.87)) * 1.15, z * 0.98, ids.BRIDGE)
