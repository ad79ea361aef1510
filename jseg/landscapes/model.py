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
        """A flat face, its corners to the right as seen from its front; `glow` is its own light."""
        self.faces.append((np.asarray(points, np.float64), np.asarray(colour, np.float32), glow))

    def box(
        self, x: float, y: float, z: float, width: float, height: float, depth: float, colour
    ) -> None:
        """A box standing on (x, y, z), its centre in x and z."""
        left, right, top = x - width / 2, x + width / 2, y + height
        front, back = z - depth / 2, z + depth / 2
        corners = [(left, front), (right, front), (right, back), (left, back)]
        for a, b in ((0, 1), (2, 3), (3, 0), (1, 2)):
            (xa, za), (xb, zb) = corners[a], corners[b]
            self.face([(xa, y, za), (xb, y, zb), (xb, top, zb), (xa, top, za)], colour)
        self.face([(px, top, pz) for px, pz in corners], colour)

    def gable(
        self, y: float, width: float, depth: float, rise: float, roof, wall, over: float = 0.4
    ) -> None:
        """A ridge roof along x over a box of the given ground plan."""
        left, right, front, back = -width / 2, width / 2, -depth / 2, depth / 2
        self.face([(left, y, front), (left, y + rise, 0), (left, y, back)], wall)
        self.face([(right, y, back), (right, y + rise, 0), (right, y, front)], wall)

        # Both sides of the roof, which hangs over the walls.
        eaves, ridge = y - rise * over / (depth / 2), y + rise
        for a, b, edge in (
            (left - over, right + over, front - over),
            (right + over, left - over, back + over),
        ):
            self.face([(a, eaves, edge), (b, eaves, edge), (b, ridge, 0), (a, ridge, 0)], roof)

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
        low = [(x + foot * np.cos(a), y, z + foot * np.sin(a)) for a in angle]
        high = [(x + top * np.cos(a), y + height, z + top * np.sin(a)) for a in angle]
        for i in range(sides):
            self.face([low[i + 1], low[i], high[i], high[i + 1]], colour)

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
                half = min(width / columns * 0.26, 0.6)
                left, right = centre - half, centre + half
                low = y + 1.0 + row * storey
                high = low + 1.3
                corners = [(left, low), (right, low), (right, high), (left, high)]
                shines = dark and rng.random() < 0.6
                colour, glow = (linear("ffd080"), 1.3) if shines else (linear("3a4450"), 0.0)
                self.face([(px, py, front) for px, py in corners], colour, glow)

    def draw(self, canvas: Canvas, base: float, drape: Optional[Foothold] = None) -> None:
        """Put the faces into the image, far ones first, those that look away left out; with
        `drape` each follows the ground below it.
        """
        prop, style, view = self.prop, self.style, canvas.view
        origin = np.array([prop.x * prop.distance, base, prop.distance])
        sun, eye, ready = style.direction(), np.array([0.0, view.eye, 0.0]), []
        for points, colour, glow in self.faces:
            world = self._turned(points) + origin
            if drape is not None:
                middle = world.mean(axis=0)
                z = max(middle[2], 0.5)
                world[:, 1] += drape.height(middle[0] / z, z) - base

            # Faces that are behind the camera, look away or have no area are not seen.
            normal = np.cross(world[1] - world[0], world[2] - world[0])
            length = np.linalg.norm(normal)
            if length < 1e-9 or world[:, 2].min() < 0.3:
                continue
            normal = -normal / length
            if normal @ (eye - world.mean(axis=0)) <= 0:
                continue
            lamp = style.sun * max(float(normal @ sun), 0.0)
            lamp = lamp + style.ambient * (0.62 + 0.38 * normal[1])
            distance = np.linalg.norm(world.mean(axis=0) - eye)
            ready.append((distance, world, colour * lamp + colour * glow))
        for distance, world, colour in sorted(ready, key=lambda face: -face[0]):
            outline = [canvas.place(*point[[0, 2, 1]]) for point in world]
            z, height = prop.distance * 0.965 - 0.6 * prop.size, float(world[:, 1].mean())
            canvas.polygon(outline, colour, z, self.label, height)

    def _turned(self, points: np.ndarray) -> np.ndarray:
        """Local points [n, 3] at the prop's size and turn."""
        cosine, sine = np.cos(self.prop.turn), np.sin(self.prop.turn)
        right, up, forward = (points * self.prop.size).T
        x, z = right * cosine + forward * sine, -right * sine + forward * cosine
        return np.stack((x, up, z), axis=1)
