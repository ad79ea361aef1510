"""Geometry of a scene: from a plan (a handful of numbers) to the height field and the surface of every terrain sample.

Angular sizes are elevation tangents, so a plan can be composed like a picture: a range with height 0.2 rises 0.2 focal lengths above the
horizon wherever it stands.
"""
from dataclasses import dataclass, field
from typing import Optional, Tuple

import numpy as np

from jseg.scenery import ids
from jseg.scenery.fractal import Grid, carried, displaced, fbm, hash_unit, perlin, ridged, smoothstep, world_noise

CANOPY_FROM = 420.0                                          # metres; nearer trees are drawn one by one
DRY = -1e6                                                   # a water level below everything: no water in the scene
REFERENCE_FOCAL = 430.0                                      # pixels; sets the least size of distant trees, at any picture size


@dataclass(frozen=True)
class Range:
    """A mountain range, hill chain, row of mesas or dunes across the picture."""
    kind: str                                                # "alpine", "massif", "hill", "mesa", "dune"
    distance: float                                          # metres to the crest
    height: float                                            # elevation tangent of the highest part
    peaks: Tuple[Tuple[float, float, float], ...]            # (X', height factor, half width in X')
    floor: float = 0.25                                      # height factor between the peaks
    front: float = 0.35                                      # extent towards the camera in ln z
    back: float = 0.5
    frequency: float = 3.2
    key: int = 1


@dataclass(frozen=True)
class Ribbon:
    """A river, path or road winding from the foreground into the distance."""
    label: int
    width: float                                             # metres
    near: Tuple[float, float]                                # (distance, X')
    far: Tuple[float, float]
    bend: float                                              # amplitude of its windings in X'
    winds: float                                             # windings per unit of ln z
    phase: float = 0.0


@dataclass(frozen=True)
class Basin:
    """Standing water between two shores; `far` None: open to the horizon."""
    label: int
    near: float                                              # metres; 0: the water starts below the picture
    far: Optional[float]
    tilt: float = 0.0                                        # the near shore runs away to one side, d ln z / dX'
    rough: float = 0.15                                      # bays, in ln z
    shore: int = ids.SAND
    shore_width: float = 0.5                                 # metres of height that the shore band climbs
    depth: float = 4.0
    islands: float = 0.0                                     # 0 none .. 1 many


@dataclass(frozen=True)
class Forest:
    """Trees on a part of the ground, thick ones as canopy far away and as single trees near."""
    kind: str                                                # "conifer", "broad", "mixed", "birch", "poplar"
    near: float
    far: float
    amount: float                                            # 0..1 of the area
    clear: Tuple[float, float] = (0.0, 0.0)                  # (X', half width) kept free
    height: float = 16.0
    single: int = 60                                         # near trees drawn one by one
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
    patches: Tuple[Tuple[int, float, float], ...] = ()       # (label, share, size in X')
    bumps: float = 0.4                                       # metres of small ground relief
    swell: float = 0.0                                       # rolling ground as an elevation tangent
    banks: Tuple[float, float] = (0.0, 0.0)                  # rise of the ground to the left and right, as tangents
    ranges: Tuple[Range, ...] = ()
    basin: Optional[Basin] = None
    ribbons: Tuple[Ribbon, ...] = ()
    forests: Tuple[Forest, ...] = ()
    props: Tuple[Prop, ...] = ()
    fields: bool = False
    wintry: bool = False
    waterfall: Optional[Tuple[float, float]] = None          # (X', half width) on a mesa's face
    plants: int = 0
    rocks: int = 0


@dataclass
class Ground:
    """Terrain fields on the grid, all [rows, columns]."""
    grid: Grid
    height: np.ndarray                                       # metres, with canopy, before water fills it
    base: np.ndarray                                         # metres without canopy
    surface: np.ndarray                                      # uint8 label ids
    water: np.ndarray                                        # metres of water over the ground, 0 on land
    canopy: np.ndarray                                       # 0..1, height within the crowns; 0 outside forests
    crown: np.ndarray                                        # random number of the crown, 0..1
    wood: np.ndarray                                         # 0..1 share of trees that grow here (forest floor included)
    alpine: np.ndarray                                       # 0..1 how far the sample belongs to a mountain
    masks: dict = field(default_factory=dict)
    level: float = 0.0


def _range_height(plan: Plan, item: Range, grid: Grid) -> np.ndarray:
    """Metres that one range adds, on the rows it reaches."""
    key = plan.seed * 101 + item.key * 17
    v, x = grid.v[:, None], grid.x
    lateral = np.full(len(x), item.floor, np.float32)
    wobble = fbm(key + 3, Grid(np.zeros(1, np.float32), x), 5.0, 4)[0]
    for place, height, width in item.peaks:
        lateral = np.maximum(lateral, height * np.exp(-(np.abs(x - place + 0.02 * wobble) / width) ** 1.25))
    lateral = lateral * (1 + 0.18 * wobble)
    offset = v - np.log(item.distance)
    envelope = np.where(offset < 0, np.exp(-(offset / item.front) ** 2), np.exp(-(offset / item.back) ** 2)).astype(np.float32)
    top = item.distance * item.height
    shape = envelope * lateral
    if item.kind == "hill":
        rolling = fbm(key, grid, item.frequency, 6, 0.42)
        return top * shape * (0.8 + 0.42 * rolling)
    if item.kind == "dune":
        sway = fbm(key, grid, item.frequency * 0.55, 3, 0.4)
        wave = v * item.frequency * 1.15 + x * (0.9 if key % 2 else -0.9) + 1.1 * sway
        part = wave - np.floor(wave)
        crest = np.where(part < 0.72, part / 0.72, (1 - part) / 0.28)          # a gentle windward side, a steep lee
        crest = crest * crest * (3 - 2 * crest) * 0.35 + crest * 0.65
        return top * shape * (0.15 + 0.75 * crest * (0.75 + 0.5 * fbm(key + 2, grid, item.frequency * 0.8, 2)))
    pixels_v, pixels_x = 1 / np.maximum(np.gradient(grid.v), 1e-4)[:, None], 1 / (x[1] - x[0])
    push_v, push_x = fbm(key + 31, grid, item.frequency * 0.9, 4), fbm(key + 37, grid, item.frequency * 0.9, 4)
    if item.kind == "mesa":
        mass = shape * (0.85 + 0.5 * fbm(key, grid, item.frequency, 6, 0.5))
        steps = 0.0
        for low, share in ((0.22, 0.35), (0.45, 0.4), (0.72, 0.25)):
            steps = steps + share * smoothstep(low, low + 0.08, mass)
        return top * (0.85 * steps + 0.22 * mass) * (envelope > 0.02)
    crest = ridged(key, grid, item.frequency, 9)
    crest = displaced(crest, push_v * 0.07 * pixels_v, push_x * 0.07 * pixels_x)
    broad = fbm(key + 51, grid, item.frequency * 0.6, 3)
    if item.kind == "massif":
        return top * (0.75 * envelope * (0.45 + 0.55 * lateral) * (0.25 + 0.85 * crest) + 0.35 * shape * crest + 0.16 * envelope * broad)
    return top * shape * (0.28 + 0.66 * crest + 0.22 * broad)


def centre_of(ribbon: Ribbon, v: np.ndarray) -> np.ndarray:
    """X' of the ribbon's middle at each v."""
    start, stop = np.log(ribbon.near[0]), np.log(ribbon.far[0])
    place = np.clip((v - start) / (stop - start), -0.5, 1.2)
    ease = place + 0.35 * place * (1 - place)
    line = ribbon.near[1] + (ribbon.far[1] - ribbon.near[1]) * ease
    return line + ribbon.bend * np.sin(ribbon.winds * (v - start) + ribbon.phase) * np.clip(1.15 - place, 0.1, 1)


def _ribbon_mask(plan: Plan, ribbon: Ribbon, grid: Grid, edge: np.ndarray) -> np.ndarray:
    """Signed room inside the ribbon in half widths: 1 at the middle, 0 at the edge, negative outside."""
    v = grid.v[:, None]
    half = ribbon.width / 2 * np.exp(-v)
    distance = np.abs(grid.x - centre_of(ribbon, v)) / half
    inside = 1 - distance + {ids.ROAD: 0.05, ids.PATH: 0.25}.get(ribbon.label, 0.4) * edge
    ends = (v > np.log(ribbon.far[0])) | (v < np.log(ribbon.near[0]))
    return np.where(ends, -9.0, inside).astype(np.float32)


def _cells(plan: Plan, grid: Grid) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Farm fields: (cell number 0..1, furrow phase, nearness to a border) in world coordinates on turned, jittered strips."""
    z = np.exp(grid.v)[:, None]
    turn = 0.35 + 0.5 * float(hash_unit(plan.seed, np.array([3]), np.array([4]))[0])
    east, north = z * grid.x, z + 0 * grid.x
    bend = (3 + 0.03 * z) * perlin(plan.seed + 5, grid, 1.3)
    across = (east * np.cos(turn) - north * np.sin(turn)) + bend
    along = (east * np.sin(turn) + north * np.cos(turn)) + bend
    strip = np.floor(along / 95.0)
    width = 70 + 90 * hash_unit(plan.seed + 1, strip, strip * 0)
    place = across / width + hash_unit(plan.seed + 2, strip, strip * 0) * 9
    cell = np.floor(place)
    number = hash_unit(plan.seed + 3, strip, cell)
    border = np.minimum(np.abs(place - cell - 0.5) * width - width / 2, 0) * -1
    border = np.minimum(border, 95.0 * (0.5 - np.abs(along / 95.0 - strip - 0.5)))
    phase = np.where(number > 0.5, across, along)
    return number, phase.astype(np.float32), border.astype(np.float32)


def _canopy(plan: Plan, forest: Forest, grid: Grid) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crowns as cones or domes in world cells: (metres, 0..1 within the crown, crown number)."""
    v, z = grid.v[:, None], np.exp(grid.v)[:, None]
    slab = np.floor(v / 0.022)
    middle = np.exp((slab + 0.5) * 0.022)
    spacing = np.maximum(forest.height * 0.28, 3.2 * middle / REFERENCE_FOCAL)
    across = z * grid.x / spacing + hash_unit(plan.seed + 7, slab, slab * 0) * 5
    cell = np.floor(across)
    crown = hash_unit(plan.seed + 8, slab, cell)
    jitter = hash_unit(plan.seed + 9, slab, cell)
    off_x = across - cell - 0.5 - 0.3 * (jitter - 0.5)
    off_v = v / 0.022 - slab - 0.5
    radius = np.sqrt(off_x * off_x + 0.7 * off_v * off_v)
    tall = forest.height * (0.62 + 0.5 * crown)
    pointed = forest.kind in ("conifer", "mixed")
    shape = np.clip(1 - 1.75 * radius, 0, 1) if pointed else np.sqrt(np.clip(1 - (1.75 * radius) ** 2, 0, 1))
    return (tall * (0.25 + 0.75 * shape) * (1.0 if pointed else 0.75)).astype(np.float32), shape.astype(np.float32), crown


def _forest_mask(plan: Plan, forest: Forest, grid: Grid) -> np.ndarray:
    """Share of trees 0..1, with ragged borders."""
    v = grid.v[:, None]
    noise = fbm(plan.seed * 3 + forest.key * 29, grid, 3.5, 5, 0.55)
    want = np.interp(forest.amount, (0, 0.25, 0.5, 0.75, 1), (1.2, 0.35, 0.0, -0.35, -1.2))
    if forest.clear[1] > 0:
        want = want + 1.6 * np.exp(-((grid.x - forest.clear[0]) / forest.clear[1]) ** 2)
    mask = smoothstep(-0.05, 0.12, noise - want)
    return mask * smoothstep(np.log(forest.near) - 0.05, np.log(forest.near) + 0.1, v + 0.08 * noise) * (v < np.log(forest.far) + 0.2 * noise)


def build(plan: Plan, grid: Grid) -> Ground:
    """Height field and surfaces of a plan on a grid."""
    v, z = grid.v[:, None], np.exp(grid.v)[:, None]
    seed = plan.seed * 1009
    height = plan.bumps * world_noise(seed + 1, grid, 40.0, 0.3, 0.5)
    if plan.swell:
        height += plan.swell * z * fbm(seed + 2, grid, 2.2, 4, 0.4) * smoothstep(np.log(plan.eye * 2.5), np.log(plan.eye * 14), v)
    left, right = plan.banks
    if left or right:
        side = left * np.clip(-grid.x - 0.12, 0, 1) ** 1.4 + right * np.clip(grid.x - 0.12, 0, 1) ** 1.4
        height += side * z * (1 + 0.35 * fbm(seed + 3, grid, 3.0, 5)) * smoothstep(np.log(6.0), np.log(40.0), v)
    ground = _surfaces(plan, grid, height, seed)
    return ground


def _surfaces(plan: Plan, grid: Grid, height: np.ndarray, seed: int) -> Ground:
    v = grid.v[:, None]
    patch_noise = fbm(seed + 11, grid, 6.0, 5, 0.55)
    surface = np.where(v + 0.3 * patch_noise < np.log(plan.far_from), plan.near_cover, plan.far_cover).astype(np.uint8)
    alpine = np.zeros(grid.shape, np.float32)
    masks, risen = {}, np.zeros(grid.shape, np.float32)
    if plan.fields:
        masks["cells"] = _cells(plan, grid)
        surface[(v + 0.1 * patch_noise > np.log(plan.far_from)) & (masks["cells"][2] > 3.0)] = ids.FIELD
    for number, (label, share, size) in enumerate(plan.patches):
        noise = fbm(seed + 200 + 31 * number, grid, 1 / size, 5, 0.55)
        surface[noise > np.interp(share, (0, 0.25, 0.5, 1), (1.2, 0.3, 0.0, -1.2))] = label
    for item in plan.ranges:
        start = int(np.searchsorted(grid.v, np.log(item.distance) - 2.4 * item.front))
        part = grid.rows(start, len(grid.v))
        if len(part.v) < 4:
            continue
        rise = _range_height(plan, item, part)
        low = height[start:]
        belongs = smoothstep(0.008, 0.03, rise / np.exp(part.v)[:, None] + 0.012 * patch_noise[start:])
        height[start:] = np.maximum(low, low * (1 - 0.6 * belongs) + rise)
        np.maximum(risen[start:], rise, out=risen[start:])
        label = {"hill": ids.HILL, "dune": ids.SAND}.get(item.kind, ids.MOUNTAIN)
        taken = (belongs > 0.5) & (rise > low * 0.6)
        surface[start:][taken] = label
        if label == ids.MOUNTAIN:
            alpine[start:] = np.where(taken, belongs, alpine[start:])
        if item.kind == "mesa" and plan.waterfall is not None:
            _pour(plan, part, height[start:], surface[start:], rise > 0.12 * rise.max())
    flows = any(ribbon.label in ids.OPEN_WATER for ribbon in plan.ribbons)
    level = -0.8 if plan.basin is not None or flows else DRY
    height = np.maximum(height, level + 0.1)
    water_label = ids.WATER
    if plan.basin is not None:
        height = np.maximum(_fill_basin(plan, plan.basin, grid, height, surface, level, seed), level - 3.0 + risen * 1.1)
        water_label = plan.basin.label
    for number, ribbon in enumerate(plan.ribbons):
        room = _ribbon_mask(plan, ribbon, grid, fbm(seed + 300 + number, grid, 9.0, 4))
        if ribbon.label in ids.OPEN_WATER:
            dip = smoothstep(-0.8, 0.5, room) * smoothstep(0.02, 0.006, risen / np.exp(v))
            height = height * (1 - dip) + (level - 1.2) * dip
            bank = (room > -0.75) & (dip > 0.01)
            surface[bank] = np.where(patch_noise[bank] > 0.05, ids.ROCK, ids.EARTH if plan.near_cover != ids.LAND else ids.LAND)
            water_label = ribbon.label
        else:
            mine = (room > 0) & (alpine < 0.6) & (height > level)
            surface[mine] = ribbon.label
            masks["ribbon", ribbon.label] = room
    water = np.clip(level - height, 0, None)
    wet = water > 0
    if wet.any():
        surface[wet] = water_label
    return _grow_forests(plan, Ground(grid, height, height.copy(), surface, water, np.zeros_like(water), np.zeros_like(water), np.zeros_like(water), alpine,
                                      masks, level))


def _pour(plan: Plan, grid: Grid, height: np.ndarray, surface: np.ndarray, high: np.ndarray) -> None:
    """A waterfall down the face of a cliff, wider towards its foot, and its stream on the edge above, in place."""
    place, half = plan.waterfall
    z = np.exp(grid.v)[:, None]
    steep = np.gradient(height, axis=0) / np.gradient(grid.v)[:, None] / z
    wander = 0.35 * perlin(plan.seed + 91, grid, 9.0) + 0.25 * perlin(plan.seed + 92, grid, 23.0)
    surface[(np.abs(grid.x - place) < half * (1 + wander)) & high & (steep > 0.3)] = ids.WATERFALL


def _fill_basin(plan: Plan, basin: Basin, grid: Grid, height: np.ndarray, surface: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Lower the ground between the shores and give the shores their cover (in place); the new height is returned."""
    v = grid.v[:, None]
    bays = basin.rough * (fbm(seed + 21, grid, 4.0, 5, 0.5) + 0.6 * fbm(seed + 22, Grid(grid.v * 0, grid.x), 2.2, 2)[:1])
    near = np.full_like(grid.x, -9.0) if basin.near <= 0 else np.log(basin.near) + basin.tilt * grid.x
    room = (v - near) + bays
    if basin.far is not None:
        room = np.minimum(room, (np.log(basin.far) - v) + 0.5 * bays)
    if basin.islands > 0:
        isle = fbm(seed + 23, grid, 2.6, 6, 0.48) - np.interp(basin.islands, (0, 1), (0.6, 0.3))
        room = np.where(v > np.log(max(basin.near, 20.0) * 2.2), np.minimum(room, -isle * 2), room)
    dip = smoothstep(-0.12, 0.16, room)
    bottom = level - basin.depth * np.clip(room * 1.6, 0, 1) - 0.05
    lowered = height * (1 - dip) + bottom * dip + (1 - dip) * 0.15
    band = (lowered < level + basin.shore_width) & (lowered >= level - 0.4) & (dip > 0.02)
    surface[band & (surface != ids.MOUNTAIN) & (surface != ids.HILL)] = basin.shore
    return lowered.astype(np.float32)


def _grow_forests(plan: Plan, ground: Ground) -> Ground:
    """Raise the canopy of distant forests and remember where single trees may stand."""
    grid = ground.grid
    z = np.exp(grid.v)[:, None]
    for forest in plan.forests:
        start, stop = np.searchsorted(grid.v, (np.log(forest.near) - 0.2, np.log(forest.far) + 0.2))
        part = grid.rows(int(start), int(stop))
        if len(part.v) < 3:
            continue
        rows = slice(int(start), int(stop))
        free = ~np.isin(ground.surface[rows], (*ids.OPEN_WATER, ids.PATH, ids.ROAD, ids.SAND, ids.ROCK))
        steep = ground.height[rows] / z[rows] < 0.16 + 0.04 * hash_unit(plan.seed, np.arange(1), np.arange(1))[0]
        mask = _forest_mask(plan, forest, part) * free * steep
        metres, within, crown = _canopy(plan, forest, part)
        thick = (mask > 0.5) & (part.v[:, None] > np.log(CANOPY_FROM))
        ground.height[rows] += np.where(thick, metres * mask, 0)
        ground.canopy[rows] = np.where(thick, within, ground.canopy[rows])
        ground.crown[rows] = np.where(thick, crown, ground.crown[rows])
        ground.surface[rows][thick] = ids.TREE
        ground.wood[rows] = np.maximum(ground.wood[rows], mask)
    return ground
