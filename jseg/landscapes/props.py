"""The plan's things: boats, ships, people and a few others, and putting these and the buildings
into the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict

import numpy as np

from jseg.landscapes import buildings, ids
from jseg.landscapes.buildings import drawn
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.fractal import generator
from jseg.landscapes.model import Model
from jseg.landscapes.palettes import linear
from jseg.landscapes.plan import Ground, Plan, Prop
from jseg.landscapes.scatter import Foothold
from jseg.landscapes.style import Style

HULLS = ("a83c30", "e8e4dc", "2f5a7c", "3c6a4c", "c8a04c", "70442c")
SHIPS = ("2b3440", "7c2f28", "1f3d56")
CONTAINERS = ("a8503c", "4c6a84", "7c8a5c", "b89450")
COATS = ("b03a30", "2f4f7c", "d0a03c", "3c6a50", "50484c")


def _boat(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A rowing boat, or a sailing boat when the key is even."""
    model = Model(style, prop, ids.BOAT)
    hull, deck = drawn(rng, HULLS), linear("8a6c4c")
    sails = prop.key % 2 == 0
    _hull(model, 6.0 if sails else 4.2, 1.9 if sails else 1.5, 0.95 if sails else 0.6, hull, deck)
    if sails:
        cloth = linear("f2ede2") if rng.random() < 0.7 else linear("b8543c")
        model.box(0.2, 0.8, 0, 0.14, 8.2, 0.14, linear("7a5c40"))
        for points in (
            [(0.1, 1.7, 0), (-2.9, 1.7, 0.1), (0.1, 8.6, 0)],
            [(0.4, 1.5, 0), (2.9, 1.2, 0), (0.35, 7.6, 0)],
        ):
            model.face(points, cloth)
            model.face(points[::-1], cloth)
    else:
        for x in (-0.9, 0.5):
            model.box(x, 0.38, 0, 0.3, 0.06, 1.2, linear("b08c60"))
    return model


def _hull(model: Model, length: float, beam: float, height: float, hull, deck) -> None:
    """A pointed hull along x with sheer."""
    x = np.linspace(-0.5, 0.5, 9)
    half = beam / 2 * np.clip(1 - (np.abs(x) * 2) ** 2.4 * np.where(x < 0, 0.75, 1.0), 0.02, 1)
    top = height * (1 + 0.35 * (np.abs(x) * 2) ** 2)
    for i in range(8):
        a, b = i, i + 1
        for side in (-1, 1):
            quad = [
                (x[a] * length * 0.93, -0.1, side * half[a] * 0.7),
                (x[b] * length * 0.93, -0.1, side * half[b] * 0.7),
                (x[b] * length, top[b], side * half[b]),
                (x[a] * length, top[a], side * half[a]),
            ]
            model.face(quad if side < 0 else quad[::-1], hull)
            model.face(quad[::-1] if side < 0 else quad, hull * 0.55)
    right = [(x[i] * length, top[i] * 0.72, -half[i]) for i in range(9)]
    left = [(x[i] * length, top[i] * 0.72, half[i]) for i in range(8, -1, -1)]
    model.face(right + left, deck)


def _ship(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.SHIP)
    hull, white = drawn(rng, SHIPS), linear("eceae4")
    _hull(model, 95, 15, 8, hull, linear("8a8478"))
    model.box(-30, 8, 0, 16, 12, 11, white)
    model.box(-31, 20, 0, 7, 5, 6, linear("c8803c"))
    if rng.random() < 0.6:
        for x in (-12, 0, 12, 24):
            model.box(x, 8, 0, 10, rng.uniform(3, 7), 11, drawn(rng, CONTAINERS))
    else:
        model.box(5, 8, 0, 48, 5, 11, white)
        model.box(2, 13, 0, 40, 3, 9, white)
    model.box(34, 8, 0, 0.8, 12, 0.8, white)
    return model


def _person(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.PERSON)
    coat = drawn(rng, COATS)
    for x in (-0.12, 0.12):
        model.box(x, 0, 0, 0.19, 0.85, 0.2, linear("343844"))
    model.box(0, 0.8, 0, 0.5, 0.66, 0.3, coat)
    for x in (-0.31, 0.31):
        model.box(x, 0.78, 0, 0.14, 0.62, 0.18, coat * 0.9)
    model.tube(0, 1.48, 0, 0.13, 0.15, 0.14, linear("b88a6c"), 6)
    model.tube(0, 1.62, 0, 0.16, 0.07, 0.16, linear("4a3626"), 6)
    return model


def _bale(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A round hay bale."""
    model = Model(style, prop, ids.OTHER)
    straw = linear("c8a860")
    angle = np.arange(13) * 2 * np.pi / 12
    ring = np.stack((0.8 * np.cos(angle), 0.8 + 0.8 * np.sin(angle)), axis=1)
    for (y0, h0), (y1, h1) in zip(ring, ring[1:]):
        model.face([(y0, h0, -0.7), (y1, h1, -0.7), (y1, h1, 0.7), (y0, h0, 0.7)], straw)
    model.face([(y, h, -0.7) for y, h in ring[:-1]], straw * 0.8)
    return model


def _turbine(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.OTHER)
    white = linear("e8e8e6")
    model.tube(0, -2, 0, 1.8, 1.0, 62, white, 8)
    model.box(0, 59, -1, 2.6, 2.6, 6, white)
    start = rng.uniform(0, 2 * np.pi)
    for blade in range(3):
        along = np.array([np.cos(start + blade * 2.0944), np.sin(start + blade * 2.0944)])
        side = np.array([-along[1], along[0]])
        corners = [
            along * 1.2 - side * 0.7,
            along * 9 - side * 1.6,
            along * 31,
            along * 8 + side * 0.6,
            along * 1.2 + side * 0.7,
        ]
        points = [(corner[0], 60.3 + corner[1], -4.2) for corner in corners]
        model.face(points, white)
        model.face(points[::-1], white)
    return model


def _post(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A signpost."""
    model = Model(style, prop, ids.OTHER)
    wood = linear("7a6248")
    model.box(0, -0.2, 0, 0.14, 2.5, 0.14, wood)
    for y, side in ((2.0, 1), (1.65, -1)):
        arrow = [(-0.2, 0), (0.9, 0), (1.05, 0.13), (0.9, 0.26), (-0.2, 0.26)]
        corners = [(x * side, y + up, -0.09) for x, up in arrow]
        model.face(corners[::side], wood * 1.3)
    return model


MODELS: Dict[str, Callable] = {
    "house": buildings.house,
    "block": buildings.block,
    "church": buildings.church,
    "lighthouse": buildings.lighthouse,
    "castle": buildings.keep,
    "boat": _boat,
    "ship": _ship,
    "person": _person,
    "bale": _bale,
    "turbine": _turbine,
    "post": _post,
    "pier": buildings.pier,
    "fence": buildings.fence,
    "wall": buildings.wall,
    "quay": buildings.quay,
    "railing": buildings.railing,
}
STANDING = 1.65  # metres of the photographer's eye above the viewing place
AFLOAT = ("boat", "ship", "pier")
OVER_WATER = ("railing", "quay", "block", "church", "castle")


def draw(plan: Plan, canvas: Canvas, ground: Ground) -> None:
    """Put the plan's props (trees excepted) into the image, far ones first."""
    foot = Foothold(ground)
    for prop in sorted(plan.props, key=lambda one: -one.distance):
        rng = generator(plan.seed, 53, prop.key)
        if prop.kind == "bridge":
            buildings.bridge(canvas, canvas.style, prop, rng, ground.level)
        elif prop.kind in MODELS:
            if not foot.dry(prop.x, prop.distance) and prop.kind not in AFLOAT + OVER_WATER:
                continue
            if prop.kind == "pier":
                prop = replace(prop, distance=foot.shore(prop.x, prop.distance) - 1.5 * prop.size)
            if prop.kind == "railing":
                base = canvas.view.eye - STANDING
            elif prop.kind in AFLOAT:
                base = ground.level
            else:
                base = max(foot.height(prop.x, prop.distance), ground.level)
            drape = foot if prop.kind in ("wall", "fence") else None
            MODELS[prop.kind](canvas.style, prop, rng).draw(canvas, base, drape)
