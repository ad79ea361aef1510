"""Single trees, plants and boulders: where they stand, their shadows on the ground, and putting
them into the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

import cv2
import numpy as np

from jseg.landscapes import ids, plants
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.fractal import generator
from jseg.landscapes.paint import transmission
from jseg.landscapes.plan import Ground, Plan
from jseg.landscapes.terrain import FAR

KINDS = {
    "conifer": ("conifer", "conifer", "pine"),
    "broad": ("broad", "broad", "birch"),
    "mixed": ("conifer", "broad", "birch", "pine"),
    "birch": ("birch",),
    "poplar": ("poplar",),
    "pine": ("pine",),
    "bare": ("bare",),
}
LABELS = {
    "shrub": ids.PLANT,
    "bloom": ids.PLANT,
    "flower": ids.PLANT,
    "reed": ids.PLANT,
    "tuft": ids.GRASS,
    "boulder": ids.ROCK,
}

SOIL = (
    ids.GRASS,
    ids.TREE,
    ids.LAND,
    ids.EARTH,
    ids.HILL,
    ids.FIELD,
    ids.MOUNTAIN,
    ids.PLANT,
)  # where trees grow


@dataclass(frozen=True)
class Standing:
    """A sprite in the scene: kind, variant, tint, foot (x / z, z, ground height), height in metres,
    mirrored left to right.
    """

    kind: str
    variant: int
    tint: int
    slope: float
    z: float
    foot: float
    height: float
    flip: bool


class Foothold:
    """Reads the ground at scene points (X', z)."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def at(self, slope: np.ndarray, z: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """(row, column) of the nearest terrain sample."""
        grid = self.ground.grid
        row = np.clip(
            np.rint(np.interp(np.log(z), grid.v, np.arange(len(grid.v)))).astype(int),
            0,
            len(grid.v) - 1,
        )
        column = np.clip(
            np.rint(np.interp(slope, grid.x, np.arange(len(grid.x)))).astype(int),
            0,
            len(grid.x) - 1,
        )
        return row, column

    def height(self, slope: float, z: float) -> float:
        """Metres of the ground without canopy."""
        row, column = self.at(np.array([slope]), np.array([z]))
        return float(self.ground.base[row[0], column[0]])

    def shore(self, slope: float, z: float) -> float:
        """Distance at which the water begins, going away from the camera; `z` if there is none."""
        row, column = self.at(np.array([slope]), np.array([z]))
        wet = np.flatnonzero(self.ground.water[:, column[0]] > 0)
        return float(np.exp(self.ground.grid.v[wet[0]])) if len(wet) else z

    def dry(self, slope: float, z: float) -> bool:
        """Whether there is land at the point."""
        row, column = self.at(np.array([slope]), np.array([z]))
        return bool(self.ground.water[row[0], column[0]] <= 0)


def _candidates(
    rng: np.random.Generator, count: int, near: float, far: float, tan_half: float
) -> Dict[str, np.ndarray]:
    """All random numbers of `count` sprites, drawn whether or not the ground will take them."""
    u = rng.random((count, 7))
    return dict(
        z=np.exp(np.log(near) + (np.log(far) - np.log(near)) * u[:, 0]),
        slope=(u[:, 1] * 2 - 1) * tan_half * 1.12,
        size=u[:, 2],
        variant=(u[:, 3] * plants.VARIANTS).astype(int),
        tint=(u[:, 4] * 4).astype(int),
        kind=u[:, 5],
        flip=u[:, 6] < 0.5,
    )


def trees(plan: Plan, ground: Ground) -> List[Standing]:
    """The near trees of all forests, and the trees among the props."""
    foot, standing = Foothold(ground), []
    for forest in plan.forests:
        near, far = max(forest.near, plan.eye * 1.5, 12.0), min(forest.far, 560.0)
        if near < far:
            some = _candidates(
                generator(plan.seed, 41, forest.key), forest.single, near, far, plan.tan_half
            )
            rows, columns = foot.at(some["slope"], some["z"])
            kinds = KINDS[forest.kind]
            for i in np.flatnonzero(
                (ground.wood[rows, columns] > 0.35) & np.isin(ground.surface[rows, columns], SOIL)
            ):
                kind, height = (
                    kinds[int(some["kind"][i] * len(kinds))],
                    forest.height * (0.6 + 0.65 * some["size"][i]),
                )
                standing.append(
                    _standing(some, i, kind, float(ground.base[rows[i], columns[i]]), height)
                )
    for prop in plan.props:
        if prop.kind.startswith("tree:") and foot.dry(prop.x, prop.distance):
            rng = generator(plan.seed, 43, prop.key)
            variant, tint, flip = (
                int(rng.integers(plants.VARIANTS)),
                int(rng.integers(4)),
                bool(rng.random() < 0.5),
            )
            base = foot.height(prop.x, prop.distance)
            standing.append(
                Standing(prop.kind[5:], variant, tint, prop.x, prop.distance, base, prop.size, flip)
            )
    return standing


def _standing(
    some: Dict[str, np.ndarray], i: int, kind: str, foot: float, height: float
) -> Standing:
    """Candidate `i` as a sprite."""
    return Standing(
        kind,
        some["variant"][i],
        some["tint"][i],
        some["slope"][i],
        some["z"][i],
        foot,
        height,
        bool(some["flip"][i]),
    )


def small(plan: Plan, ground: Ground) -> List[Standing]:
    """Boulders, shrubs, flowers and grass tufts of the foreground."""
    foot, standing = Foothold(ground), []
    nearest = plan.eye / 0.62
    groups = (
        (
            "rock",
            plan.rocks,
            nearest,
            nearest * 14,
            (ids.GRASS, ids.EARTH, ids.SAND, ids.ROCK, ids.LAND, ids.HILL, *ids.OPEN_WATER),
        ),
        ("plant", plan.plants, nearest, nearest * 6, (ids.GRASS, ids.EARTH, ids.PLANT, ids.LAND)),
        (
            "tuft",
            plan.plants * 2 if plan.near_cover == ids.GRASS else 0,
            nearest,
            nearest * 4,
            (ids.GRASS,),
        ),
    )
    for number, (group, count, near, far, surfaces) in enumerate(groups):
        some = _candidates(generator(plan.seed, 47, number), count, near, far, plan.tan_half)
        rows, columns = foot.at(some["slope"], some["z"])
        fits = np.isin(ground.surface[rows, columns], surfaces) & (
            ground.water[rows, columns] < 0.5
        )
        for i in np.flatnonzero(fits):
            if group == "rock":
                kind, height = "boulder", (0.25 + 1.5 * some["size"][i] ** 4) * (0.5 + plan.eye / 9)
            elif group == "plant":
                kind = ("shrub", "bloom", "flower", "reed")[int(some["kind"][i] * 4)]
                height = (
                    {"shrub": 1.1, "bloom": 1.0, "flower": 0.7, "reed": 1.2}[kind]
                    * (0.6 + 0.8 * some["size"][i])
                    * (0.6 + plan.eye / 12)
                )
            else:
                kind, height = "tuft", (0.3 + 0.4 * some["size"][i]) * (0.6 + plan.eye / 10)
            standing.append(
                _standing(
                    some,
                    i,
                    kind,
                    max(float(ground.base[rows[i], columns[i]]), ground.level),
                    height,
                )
            )
    return standing


def shadows(canvas: Canvas, standing: List[Standing]) -> None:
    """Darken the ground where the sprites keep the sun off, in place."""
    view, style = canvas.view, canvas.style
    strength = style.sun.sum() / (style.sun.sum() + style.ambient.sum())
    sun = style.direction()
    layer = np.zeros(canvas.z.shape, np.uint8)
    reach = min(1 / np.tan(max(style.elevation, 0.05)), 2.2) if style.sun_seen > 0.15 else 0.0
    for item in standing:
        if item.kind in ("tuft", "flower", "reed") or item.height * view.focal / item.z < 3:
            continue
        wide = item.height * plants.shape(item.kind, item.variant, 0).aspect * 0.36
        x, z = item.slope * item.z, item.z
        tip = np.array(
            [x - sun[0] * reach * item.height, max(z - sun[2] * reach * item.height, z * 0.3)]
        )
        across = np.array([tip[1] - z, -(tip[0] - x)])
        across = across / max(np.hypot(*across), 1e-3) * wide if reach else np.array([wide, 0.0])
        corners = [
            np.array([x, z]) + across * 0.5,
            np.array([x, z]) - across * 0.5,
            tip - across,
            tip + across,
        ]
        if not reach:
            wide *= 0.7
            corners = [
                np.array([x + wide * np.cos(a), z + wide * 0.8 * np.sin(a)])
                for a in np.linspace(0, 5.6, 9)
            ]
        outline = [canvas.place(px, max(pz, 0.5), item.foot) for px, pz in corners]
        cv2.fillConvexPoly(
            layer, np.rint(np.array(outline) * 16 - 8).astype(np.int32), 255, cv2.LINE_AA, 4
        )
        column, row = canvas.place(x, z, item.foot)
        size = max(wide * view.focal / z, 1.0)
        cv2.ellipse(
            layer,
            (int(column * 16), int(row * 16)),
            (int(size * 16), int(size * 5)),
            0,
            0,
            360,
            255,
            -1,
            cv2.LINE_AA,
            4,
        )
    if not layer.any():
        return
    soft = cv2.GaussianBlur(layer, (0, 0), max(view.width / 300, 0.6)).astype(np.float32) / 255
    soft[canvas.label == ids.SKY] = 0
    kept = transmission(style, np.minimum(canvas.z_ground, FAR), canvas.height, canvas.mist_top)
    canvas.image *= 1 - soft[..., None] * ((0.25 + 0.45 * strength) * kept)


def draw(plan: Plan, canvas: Canvas, standing: List[Standing]) -> None:
    """Put the sprites into the image, far ones first."""
    view, lit = canvas.view, {}
    for item in sorted(standing, key=lambda one: -one.z):
        tall = item.height * view.focal / item.z
        if tall < 1.5:
            continue
        halvings = int(np.clip(np.floor(np.log2(plants.TALL / tall)), 0, 5))
        name = (item.kind, item.variant, halvings, item.tint)
        if name not in lit:
            lit[name] = plants.lit(*name[:3], canvas.style, item.tint, plan.wintry)
        colour, alpha = lit[name]
        column, row = canvas.place(item.slope * item.z, item.z, item.foot)
        rows, columns = (
            max(int(round(tall)), 2),
            max(int(round(tall * alpha.shape[1] / alpha.shape[0])), 1),
        )
        if row - rows > view.height or column + columns < 0 or column - columns > view.width:
            continue
        if item.flip:
            colour, alpha = colour[:, ::-1], alpha[:, ::-1]
        packed = cv2.resize(
            np.dstack((colour * alpha[..., None], alpha)),
            (columns, rows),
            interpolation=cv2.INTER_AREA if rows < alpha.shape[0] else cv2.INTER_CUBIC,
        )
        packed = np.clip(packed, 0, None)
        alpha = np.minimum(packed[..., 3], 1)
        colour = packed[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        canvas.blit(
            int(round(row)) - rows + max(int(tall * 0.02), 0),
            int(round(column - columns / 2)),
            colour,
            alpha,
            item.z * 0.985,
            LABELS.get(item.kind, ids.TREE),
            item.foot + item.height * 0.5,
        )
