"""Flat-shaded faces: boxes, roofs and tubes in local metres, turned, set down in the scene and put
into the image.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

import numpy as np

from jseg.landscapes.canvas import Canvas
from jseg.landscapes.fractal import generator
from jseg.landscapes.palettes import linear
from jseg.landscapes.plan import Prop
from jseg.landscapes.scatter import Foothold
from jseg.landscapes.style import Style

Paint = np.ndarray  # reflectance [3]


class Model:
    """Faces in local metres (right, up, forward), turned and set down at a place."""

    def __init__(self, style: Style, prop: Prop, label: int) -> None:
        self.style, self.prop, self.label = style, prop, label
        self.faces: List[Tuple[np.ndarray, np.ndarray, float]] = []

    def face(self, points, colour, glow: float = 0.0) -> None:
        self.faces.append((np.asarray(points, np.float64), np.asarray(colour, np.float32), glow))

    def box(
        self, x: float, y: float, z: float, width: float, height: float, depth: float, colour
    ) -> None:
        """A box standing on (x, y, z), its centre in x and z."""
        left, right, front, back, top = (
            x - width / 2,
            x + width / 2,
            z - depth / 2,
            z + depth / 2,
            y + height,
        )
        self.face(
            [(left, y, front), (right, y, front), (right, top, front), (left, top, front)], colour
        )
        self.face(
            [(right, y, back), (left, y, back), (left, top, back), (right, top, back)], colour
        )
        self.face(
            [(left, y, back), (left, y, front), (left, top, front), (left, top, back)], colour
        )
        self.face(
            [(right, y, front), (right, y, back), (right, top, back), (right, top, front)], colour
        )
        self.face(
            [(left, top, front), (right, top, front), (right, top, back), (left, top, back)], colour
        )

    def gable(
        self,
        y: float,
        width: float,
        depth: float,
        rise: float,
        roof,
        wall,
        x: float = 0.0,
        over: float = 0.4,
    ) -> None:
        """A ridge roof along x over a box of the given ground plan."""
        left, right, front, back = x - width / 2, x + width / 2, -depth / 2, depth / 2
        self.face([(left, y, front), (left, y + rise, 0), (left, y, back)], wall)
        self.face([(right, y, back), (right, y + rise, 0), (right, y, front)], wall)
        drop = rise * over / (depth / 2)
        self.face(
            [
                (left - over, y - drop, front - over),
                (right + over, y - drop, front - over),
                (right + over, y + rise, 0),
                (left - over, y + rise, 0),
            ],
            roof,
        )
        self.face(
            [
                (right + over, y - drop, back + over),
                (left - over, y - drop, back + over),
                (left - over, y + rise, 0),
                (right + over, y + rise, 0),
            ],
            roof,
        )

    def tube(
        self,
        x: float,
        y: float,
        z: float,
        foot: float,
        top: float,
        height: float,
        colour,
        sides: int = 10,
    ) -> None:
        """A tapered round tower."""
        angle = np.arange(sides + 1) * 2 * np.pi / sides
        for a, b in zip(angle, angle[1:]):
            self.face(
                [
                    (x + foot * np.cos(b), y, z + foot * np.sin(b)),
                    (x + foot * np.cos(a), y, z + foot * np.sin(a)),
                    (x + top * np.cos(a), y + height, z + top * np.sin(a)),
                    (x + top * np.cos(b), y + height, z + top * np.sin(b)),
                ],
                colour,
            )

    def windows(
        self,
        x: float,
        y: float,
        front: float,
        width: float,
        rows: int,
        columns: int,
        storey: float = 2.8,
    ) -> None:
        """Dark panes on the front, warm ones in the dark hours."""
        dark = self.style.hour in ("dusk", "night", "sunset")
        rng = generator(self.prop.key, 61)
        for row in range(rows):
            for column in range(columns):
                centre = x + (column + 0.5) / columns * width - width / 2
                low = y + 1.0 + row * storey
                half = min(width / columns * 0.26, 0.6)
                shines = dark and rng.random() < 0.6
                self.face(
                    [
                        (centre - half, low, front),
                        (centre + half, low, front),
                        (centre + half, low + 1.3, front),
                        (centre - half, low + 1.3, front),
                    ],
                    linear("ffd080") if shines else linear("3a4450"),
                    1.3 if shines else 0.0,
                )

    def draw(self, canvas: Canvas, base: float, drape: Optional[Foothold] = None) -> None:
        """Put the faces into the image, far ones first, those that look away left out; with
        `drape` each follows the ground below it.
        """
        prop, style, view = self.prop, self.style, canvas.view
        cosine, sine = np.cos(prop.turn), np.sin(prop.turn)
        origin = np.array([prop.x * prop.distance, base, prop.distance])
        sun, eye, ready = style.direction(), np.array([0.0, view.eye, 0.0]), []
        for points, colour, glow in self.faces:
            points = points * prop.size
            world = (
                np.stack(
                    (
                        points[:, 0] * cosine + points[:, 2] * sine,
                        points[:, 1],
                        -points[:, 0] * sine + points[:, 2] * cosine,
                    ),
                    axis=1,
                )
                + origin
            )
            if drape is not None:
                middle = world.mean(axis=0)
                world[:, 1] += (
                    drape.height(middle[0] / max(middle[2], 0.5), max(middle[2], 0.5)) - base
                )
            normal = np.cross(world[1] - world[0], world[2] - world[0])
            length = np.linalg.norm(normal)
            if length < 1e-9 or world[:, 2].min() < 0.3:
                continue
            normal = -normal / length
            if normal @ (eye - world.mean(axis=0)) <= 0:
                continue
            lamp = style.sun * max(float(normal @ sun), 0.0) + style.ambient * (
                0.62 + 0.38 * normal[1]
            )
            ready.append(
                (np.linalg.norm(world.mean(axis=0) - eye), world, colour * lamp + colour * glow)
            )
        for distance, world, colour in sorted(ready, key=lambda face: -face[0]):
            outline = [canvas.place(*point[[0, 2, 1]]) for point in world]
            canvas.polygon(
                outline,
                colour,
                prop.distance * 0.965 - 0.6 * prop.size,
                self.label,
                float(world[:, 1].mean()),
            )
