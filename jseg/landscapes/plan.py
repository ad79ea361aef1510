"""What a scene is made of: the plan (a handful of numbers) and the terrain fields that are built
from it.

Angular sizes are elevation tangents, so a plan can be composed like an image: a range with height
0.2 rises 0.2 focal lengths above the horizon wherever it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.fractal import Grid


@dataclass(frozen=True)
class Range:
    """A mountain range, hill chain, row of mesas or dunes across the image."""

    kind: str  # "alpine", "massif", "hill", "mesa", "dune"
    distance: float  # metres to the crest
    height: float  # elevation tangent of the highest part
    peaks: Tuple[Tuple[float, float, float], ...]  # (X', height factor, half width in X')
    floor: float = 0.25  # height factor between the peaks
    front: float = 0.35  # extent towards the camera in ln z
    back: float = 0.5
    frequency: float = 3.2
    key: int = 1


@dataclass(frozen=True)
class Ribbon:
    """A river, path or road winding from the foreground into the distance."""

    label: int
    width: float  # metres
    near: Tuple[float, float]  # (distance, X')
    far: Tuple[float, float]
    bend: float  # amplitude of its windings in X'
    winds: float  # windings per unit of ln z
    phase: float = 0.0


@dataclass(frozen=True)
class Basin:
    """Standing water between two shores; `far` None: open to the horizon."""

    label: int
    near: float  # metres; 0: the water starts below the image
    far: Optional[float]
    tilt: float = 0.0  # the near shore runs away to one side, d ln z / dX'
    rough: float = 0.15  # bays, in ln z
    shore: int = ids.SAND
    shore_width: float = 0.5  # metres of height that the shore band climbs
    depth: float = 4.0
    islands: float = 0.0  # 0 none .. 1 many


@dataclass(frozen=True)
class Forest:
    """Trees on a part of the ground, thick ones as canopy far away and as single trees near."""

    kind: str  # "conifer", "broad", "mixed", "birch", "poplar"
    near: float
    far: float
    amount: float  # 0..1 of the area
    clear: Tuple[float, float] = (0.0, 0.0)  # (X', half width) kept free
    height: float = 16.0
    single: int = 60  # near trees drawn one by one
    key: int = 1


@dataclass(frozen=True)
class Prop:
    """A thing placed on the ground: its kind, distance, X', size factor, turn in radians."""

    kind: str
    distance: float
    x: float
    size: float = 1.0
    turn: float = 0.0
    key: int = 1


@dataclass(frozen=True)
class Plan:
    """The geometry of one scene."""

    kind: str
    seed: int
    tan_half: float
    horizon: float
    eye: float
    near_cover: int = ids.GRASS
    far_cover: int = ids.GRASS
    far_from: float = 150.0
    patches: Tuple[Tuple[int, float, float], ...] = ()  # (label, fraction, size in X')
    bumps: float = 0.4  # metres of small ground relief
    swell: float = 0.0  # rolling ground as an elevation tangent
    banks: Tuple[float, float] = (0.0, 0.0)  # rise of the ground to the left and right, as tangents
    ranges: Tuple[Range, ...] = ()
    basin: Optional[Basin] = None
    ribbons: Tuple[Ribbon, ...] = ()
    forests: Tuple[Forest, ...] = ()
    props: Tuple[Prop, ...] = ()
    fields: bool = False
    wintry: bool = False
    waterfall: Optional[Tuple[float, float]] = None  # (X', half width) on a mesa's face
    plants: int = 0
    rocks: int = 0


@dataclass
class Ground:
    """Terrain fields on the grid, all [rows, columns]."""

    grid: Grid
    height: np.ndarray  # metres, with canopy, before water fills it
    base: np.ndarray  # metres without canopy
    surface: np.ndarray  # uint8 label ids
    water: np.ndarray  # metres of water over the ground, 0 on land
    canopy: np.ndarray  # 0..1, height within the crowns; 0 outside forests
    crown: np.ndarray  # random number of the crown, 0..1
    wood: np.ndarray  # 0..1 fraction of trees that grow here (forest floor included)
    level: float = 0.0  # metres of the water's surface
    # Farm fields: number 0..1, furrow place and room to the border, metres.
    fields: Optional[Tuple[np.ndarray, np.ndarray, np.ndarray]] = None
    road_middle: Optional[np.ndarray] = None  # metres to the middle of the road


def centre_of(ribbon: Ribbon, v: np.ndarray) -> np.ndarray:
    """X' of the ribbon's middle at each v."""
    start, stop = np.log(ribbon.near[0]), np.log(ribbon.far[0])
    place = np.clip((v - start) / (stop - start), -0.5, 1.2)
    ease = place + 0.35 * place * (1 - place)
    line = ribbon.near[1] + (ribbon.far[1] - ribbon.near[1]) * ease
    swing = ribbon.bend * np.sin(ribbon.winds * (v - start) + ribbon.phase)
    return line + swing * np.clip(1.15 - place, 0.1, 1)
