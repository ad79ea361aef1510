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
from jseg.landscapes.sprites import TALL
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

# Where trees, boulders and plants stand.
SOIL = (ids.GRASS, ids.TREE, ids.LAND, ids.EARTH, ids.HILL, ids.FIELD, ids.MOUNTAIN, ids.PLANT)
STONY = (ids.GRASS, ids.EARTH, ids.SAND, ids.ROCK, ids.LAND, ids.HILL, *ids.OPEN_WATER)
GREEN = (ids.GRASS, ids.EARTH, ids.PLANT, ids.LAND)
PLANT_HEIGHTS = {"shrub": 1.1, "bloom": 1.0, "flower": 0.7, "reed": 1.2}  # metres


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
        row = np.interp(np.log(z), grid.v, np.arange(len(grid.v)))
        column = np.interp(slope, grid.x, np.arange(len(grid.x)))
        return np.rint(row).astype(int), np.rint(column).astype(int)

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
            rng = generator(plan.seed, 41, forest.key)
            some = _candidates(rng, forest.single, near, far, plan.tan_half)
            rows, columns = foot.at(some["slope"], some["z"])
            kinds = KINDS[forest.kind]
            grown = ground.wood[rows, columns] > 0.35
            for i in np.flatnonzero(grown & np.isin(ground.surface[rows, columns], SOIL)):
                kind = kinds[int(some["kind"][i] * len(kinds))]
                height = forest.height * (0.6 + 0.65 * some["size"][i])
                base = float(ground.base[rows[i], columns[i]])
                standing.append(_standing(some, i, kind, base, height))

    # Those that a composer has placed.
    for prop in plan.props:
        if prop.kind.startswith("tree:") and foot.dry(prop.x, prop.distance):
            rng = generator(plan.seed, 43, prop.key)
            variant, tint = int(rng.integers(plants.VARIANTS)), int(rng.integers(4))
            flip = bool(rng.random() < 0.5)
            place = prop.x, prop.distance
            kind = prop.kind[len("tree:") :]
            base = foot.height(*place)
            standing.append(Standing(kind, variant, tint, *place, base, prop.size, flip))
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
    tufts = plan.plants * 2 if plan.near_cover == ids.GRASS else 0
    groups = (
        ("rock", plan.rocks, nearest * 14, STONY),
        ("plant", plan.plants, nearest * 6, GREEN),
        ("tuft", tufts, nearest * 4, (ids.GRASS,)),
    )
    for number, (group, count, far, surfaces) in enumerate(groups):
        rng = generator(plan.seed, 47, number)
        some = _candidates(rng, count, nearest, far, plan.tan_half)
        rows, columns = foot.at(some["slope"], some["z"])
        fits = np.isin(ground.surface[rows, columns], surfaces)
        fits = fits & (ground.water[rows, columns] < 0.5)
        for i in np.flatnonzero(fits):
            kind, height = _small(group, plan.eye, some["kind"][i], some["size"][i])
            base = max(float(ground.base[rows[i], columns[i]]), ground.level)
            standing.append(_standing(some, i, kind, base, height))
    return standing


def _small(group: str, eye: float, kind: float, size: float) -> Tuple[str, float]:
    """(kind, height in metres) of a small thing by its random numbers; larger from a high eye."""
    if group == "rock":
        return "boulder", (0.25 + 1.5 * size**4) * (0.5 + eye / 9)
    if group == "tuft":
        return "tuft", (0.3 + 0.4 * size) * (0.6 + eye / 10)
    name = list(PLANT_HEIGHTS)[int(kind * len(PLANT_HEIGHTS))]
    return name, PLANT_HEIGHTS[name] * (0.6 + 0.8 * size) * (0.6 + eye / 12)


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

        # A slab from the foot away from the sun, or a round patch under a covered sky.
        wide = item.height * plants.shape(item.kind, item.variant, 0).aspect * 0.36
        x, z = item.slope * item.z, item.z
        if reach:
            away = sun[0] * reach * item.height, sun[2] * reach * item.height
            foot, tip = np.array([x, z]), np.array([x - away[0], max(z - away[1], z * 0.3)])
            across = np.array([tip[1] - z, -(tip[0] - x)])
            across = across / max(np.hypot(*across), 1e-3) * wide
            corners = [foot + across * 0.5, foot - across * 0.5, tip - across, tip + across]
        else:
            wide *= 0.7
            corners = [
                (x + wide * np.cos(a), z + wide * 0.8 * np.sin(a)) for a in np.linspace(0, 5.6, 9)
            ]
        outline = np.array([canvas.place(px, max(pz, 0.5), item.foot) for px, pz in corners])
        points = np.rint(outline * 16 - 8).astype(np.int32)
        cv2.fillConvexPoly(layer, points, 255, cv2.LINE_AA, shift=4)

        # Its foot stands in a small dark ellipse.
        column, row = canvas.place(x, z, item.foot)
        size = max(wide * view.focal / z, 1.0)
        centre, axes = (int(column * 16), int(row * 16)), (int(size * 16), int(size * 5))
        cv2.ellipse(layer, centre, axes, 0, 0, 360, 255, -1, cv2.LINE_AA, shift=4)
    if not layer.any():
        return
    soft = cv2.GaussianBlur(layer, (0, 0), max(view.width / 300, 0.6)).astype(np.float32) / 255
    soft[canvas.label == ids.SKY] = 0
    clear = transmission(style, np.minimum(canvas.z_ground, FAR), canvas.height, canvas.mist_top)
    canvas.image *= 1 - soft[..., None] * ((0.25 + 0.45 * strength) * clear)


def draw(plan: Plan, canvas: Canvas, standing: List[Standing]) -> None:
    """Put the sprites into the image, far ones first."""
    view, lit = canvas.view, {}
    for item in sorted(standing, key=lambda one: -one.z):
        tall = item.height * view.focal / item.z  # pixels
        if tall < 1.5:
            continue

        # A sprite is lit once, at the size next to the one it is drawn at.
        halvings = int(np.clip(np.floor(np.log2(TALL / tall)), 0, 5))
        name = (item.kind, item.variant, halvings, item.tint)
        if name not in lit:
            lit[name] = plants.lit(*name[:3], canvas.style, item.tint, plan.wintry)
        colour, alpha = lit[name]
        column, row = canvas.place(item.slope * item.z, item.z, item.foot)
        rows = max(int(round(tall)), 2)
        columns = max(int(round(tall * alpha.shape[1] / alpha.shape[0])), 1)
        if row - rows > view.height or column + columns < 0 or column - columns > view.width:
            continue
        if item.flip:
            colour, alpha = colour[:, ::-1], alpha[:, ::-1]

        # Resized with its colour premultiplied, and put a little into the ground.
        method = cv2.INTER_AREA if rows < alpha.shape[0] else cv2.INTER_CUBIC
        packed = np.dstack((colour * alpha[..., None], alpha))
        packed = np.clip(cv2.resize(packed, (columns, rows), interpolation=method), 0, None)
        alpha = np.minimum(packed[..., 3], 1)
        colour = packed[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        top, left = int(round(row)) - rows + max(int(tall * 0.02), 0), column - columns / 2
        label, middle = LABELS.get(item.kind, ids.TREE), item.foot + item.height * 0.5
        canvas.blit(top, int(round(left)), colour, alpha, item.z * 0.985, label, middle)
