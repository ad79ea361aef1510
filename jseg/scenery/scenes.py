"""Plans: a dozen kinds of landscape, each composed like a photograph (a horizon off the middle, a focal point near a third, depth in layers)."""
from typing import Callable, Dict, List, Tuple

import numpy as np

from jseg.scenery import ids
from jseg.scenery.fractal import generator
from jseg.scenery.relief import Basin, Forest, Plan, Prop, Range, Ribbon, centre_of


class Draw:
    """Random decisions of one scene, with the words a composer needs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = generator(seed, 3)
        self.side = 1 if self.rng.random() < 0.5 else -1       # the side on which the focal point lies
        self.focus = self.side * self.rng.uniform(0.14, 0.3)
        self.keys = 0

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def one(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def key(self) -> int:
        self.keys += 1
        return self.keys

    def alps(self, distance: float, height: float, layers: int = 2, floor: float = 0.3) -> Tuple[Range, ...]:
        """A main range with its summit at the focal point and lower ranges before or behind it."""
        summit = (self.focus, 1.0, self.between(0.12, 0.26))
        others = [(self.focus - self.side * self.between(0.35, 0.75), self.between(0.45, 0.8), self.between(0.1, 0.25)),
                  (self.focus + self.side * self.between(0.2, 0.4), self.between(0.35, 0.65), self.between(0.1, 0.2))]
        many = self.chance(0.45)                                # a long crest of many peaks, or one mountain
        if many:
            others += [(self.between(-0.7, 0.7), self.between(0.6, 0.95), self.between(0.06, 0.16)) for _ in range(4)]
        ranges = [Range("massif" if many else "alpine", distance, height * (0.9 if many else 1.0), (summit, *others), self.between(0.5, 0.7) if many else floor,
                        front=self.between(0.32, 0.5), back=0.4, frequency=self.between(2.4, 4.2), key=self.key())]
        for layer in range(1, layers):
            near = distance * 0.5 ** layer
            peaks = ((-self.side * self.between(0.4, 0.75), 1.0, self.between(0.2, 0.35)), (self.side * self.between(0.5, 0.8), self.between(0.5, 1.0), 0.2))
            ranges.append(Range("alpine", near, height * self.between(0.5, 0.75) * 0.85 ** layer, peaks, self.between(0.05, 0.2),
                                front=0.3, back=0.3, frequency=self.between(2.6, 4.2), key=self.key()))
        return tuple(ranges)

    def hills(self, distance: float, height: float, layers: int = 2) -> Tuple[Range, ...]:
        """Rounded chains, the farther ones higher."""
        chain = []
        for layer in range(layers):
            peaks = tuple((self.between(-0.7, 0.7), self.between(0.6, 1.0), self.between(0.2, 0.45)) for _ in range(2))
            chain.append(Range("hill", distance * 0.52 ** layer, height * 0.78 ** layer, peaks, self.between(0.3, 0.5), front=0.35, back=0.35,
                               frequency=self.between(1.6, 2.6), key=self.key()))
        return tuple(chain)

    def wood(self, kind: str, near: float, far: float, amount: float, clear: float = 0.0, single: int = 70, height: float = 15.0) -> Forest:
        return Forest(kind, near, far, amount, (self.focus, clear) if clear else (0.0, 0.0), height * self.between(0.85, 1.2), single, self.key())

    def prop(self, kind: str, distance: float, x: float, size: float = 1.0, turn: float = 0.0) -> Prop:
        return Prop(kind, distance, x, size, turn, self.key())

    def frame_tree(self, kind: str, eye: float) -> Prop:
        """A large tree on the side away from the focal point, which frames the view."""
        distance = max(eye * 3.2, 14) * self.between(1.0, 1.4)
        return self.prop("tree:" + kind, distance, -self.side * self.between(0.4, 0.52), distance * self.between(0.42, 0.6))


def _alpine_lake(d: Draw) -> Plan:
    eye = d.between(4, 16)
    wood = d.one("conifer", "conifer", "mixed")
    far = d.between(500, 1800)
    props: List[Prop] = []
    if d.chance(0.35):
        props.append(d.prop("pier", eye * 4.6, d.focus * 0.5, 0.9 + eye / 14, d.between(-0.3, 0.3)))
    if d.chance(0.45):
        props.append(d.prop("boat", d.between(9, 16) * eye, d.focus * d.between(0.3, 1.0), 1.2 + eye / 9, d.between(-0.8, 0.8)))
    if d.chance(0.3):
        props.append(d.prop("house", far * 1.06 + 30, -d.focus * 1.2, 1.6, d.between(-0.6, 0.6)))
    if d.chance(0.35):
        props.append(d.frame_tree(d.one("conifer", "pine"), eye))
    return Plan("lake", d.seed, d.between(0.52, 0.66), d.between(0.46, 0.58), eye, near_cover=d.one(ids.GRASS, ids.GRASS, ids.EARTH),
                far_cover=ids.GRASS, patches=((ids.EARTH, 0.15, 0.2),), banks=(d.between(0, 0.12), d.between(0, 0.12)),
                ranges=d.alps(d.between(6000, 11000), d.between(0.19, 0.32), int(d.between(1.5, 3.5))),
                basin=Basin(ids.LAKE, eye * d.between(2.6, 4.2), far, d.side * d.between(0, 0.7), d.between(0.1, 0.25), d.one(ids.ROCK, ids.SAND, ids.EARTH),
                            d.between(0.3, 0.8), islands=d.one(0, 0, 0.5)),
                forests=(d.wood(wood, far * 0.5, far * 4, d.between(0.45, 0.8), single=60), d.wood(wood, eye * 3, 160, d.between(0.15, 0.4), 0.3)),
                props=tuple(props), rocks=int(d.between(8, 40)), plants=int(d.between(10, 40)))


def _seashore(d: Draw) -> Plan:
    eye = d.between(3, 22)
    props = []
    if d.chance(0.55):
        props.append(d.prop("boat", d.between(10, 28) * eye, d.focus * d.between(0.2, 1.2), 1.2 + eye / 12, d.between(-0.9, 0.9)))
    if d.chance(0.5):
        props.append(d.prop("ship", d.between(1500, 3200), -d.focus * d.between(0.3, 1.4), 1.0, d.one(-1, 1) * d.between(0.0, 0.6)))
    if d.chance(0.4):
        props.append(d.prop("person", eye * d.between(2.6, 3.4), d.between(-0.3, 0.3), 1.05, d.between(-1, 1)))
    ranges: Tuple[Range, ...] = ()
    if d.chance(0.75):
        peaks = ((d.side * d.between(0.45, 0.7), 1.0, d.between(0.15, 0.35)),)
        ranges = (Range(d.one("alpine", "hill", "mesa"), d.between(1500, 5000), d.between(0.07, 0.18), peaks, 0.0, front=0.3, back=0.3, key=d.key()),)
    shore = d.one(ids.SAND, ids.SAND, ids.SAND, ids.ROCK)
    return Plan("shore", d.seed, d.between(0.55, 0.68), d.between(0.34, 0.52), eye, near_cover=shore, far_cover=ids.GRASS, far_from=4000,
                patches=((ids.GRASS, 0.12, 0.25),) if shore == ids.SAND else (), bumps=0.35, ranges=ranges,
                basin=Basin(ids.SEA, eye * d.between(2.2, 4.5), None, -d.side * d.between(0.2, 2.2), d.between(0.08, 0.2), shore, 1.6, 6.0, d.one(0, 0, 0.4, 0.8)),
                props=tuple(props), rocks=int(d.between(4, 50 if shore == ids.ROCK else 16)), plants=int(d.between(0, 14)))


def _open_sea(d: Draw) -> Plan:
    eye = d.between(5, 30)
    peaks = tuple((d.between(-0.6, 0.6), d.between(0.5, 1), d.between(0.06, 0.2)) for _ in range(int(d.between(1, 4))))
    props = [d.prop(d.one("boat", "ship"), d.between(300, 900), d.focus, 1.6, d.between(-0.7, 0.7))]
    props = [Prop(p.kind, p.distance * (3 if p.kind == "ship" else 0.5), p.x, p.size * (1 if p.kind == "ship" else 2.2), p.turn, p.key) for p in props]
    if d.chance(0.4):
        props.append(d.prop("railing", eye * 0.9 + 1.8, 0.0, 1 + eye / 24, d.between(-0.1, 0.1)))
        eye_props = tuple(Prop(p.kind, 4.2, 0.0, 1.0, p.turn, p.key) if p.kind == "railing" else p for p in props)
    else:
        eye_props = tuple(props)
    return Plan("sea", d.seed, d.between(0.5, 0.62), d.one(d.between(0.32, 0.4), d.between(0.55, 0.64)), eye, near_cover=ids.ROCK, bumps=0.6,
                ranges=(Range(d.one("alpine", "hill"), d.between(3000, 9000), d.between(0.04, 0.13), peaks, 0.0, front=0.25, back=0.25, key=d.key()),),
                basin=Basin(ids.SEA, d.one(0, eye * 1.9), None, d.side * d.between(0, 1.5), 0.15, ids.ROCK, 2.0, 8.0, d.one(0, 0.6)),
                props=eye_props, rocks=int(d.between(0, 30)))


def _river_valley(d: Draw) -> Plan:
    eye = d.between(5, 26)
    wood = d.one("conifer", "mixed", "broad", "birch")
    river = Ribbon(ids.RIVER, eye * d.between(0.9, 2.3), (eye * 0.9, -d.side * d.between(0.05, 0.3)), (d.between(1500, 3000), d.focus), d.between(0.12, 0.3),
                   d.between(1.4, 2.8), d.between(0, 6.28))
    props = []
    if d.chance(0.4):
        at = d.between(9, 16) * eye
        props.append(d.prop("bridge", at, float(centre_of(river, np.log(at))), river.width * d.between(1.3, 1.7)))
    if d.chance(0.35):
        props.append(d.prop("person", eye * 3.2, d.side * 0.2, 1.3))
    if d.chance(0.4):
        props.append(d.frame_tree(wood if wood in ("birch",) else d.one("broad", "pine"), eye))
    ranges = d.alps(d.between(5000, 10000), d.between(0.16, 0.28), 2) if d.chance(0.65) else d.hills(d.between(3000, 6000), d.between(0.09, 0.16), 3)
    return Plan("river", d.seed, d.between(0.52, 0.66), d.between(0.38, 0.52), eye, patches=((ids.EARTH, 0.12, 0.15), (ids.ROCK, 0.06, 0.1)),
                banks=(d.between(0.05, 0.25), d.between(0.05, 0.25)), ranges=ranges, ribbons=(river,), props=tuple(props),
                forests=(d.wood(wood, 150, 4000, d.between(0.4, 0.7), 0.12), d.wood(wood, eye * 4, 170, d.between(0.2, 0.5), 0.25, 90)),
                rocks=int(d.between(25, 70)), plants=int(d.between(10, 50)))


def _meadow(d: Draw) -> Plan:
    eye = d.between(2.2, 9)
    path = Ribbon(d.one(ids.PATH, ids.PATH, ids.ROAD), d.between(1.8, 3.6) * (0.6 + eye / 8), (eye * 0.8, -d.side * d.between(0.0, 0.25)),
                  (d.between(120, 500), d.focus), d.between(0.04, 0.14), d.between(1.0, 2.0), d.between(0, 6.28))
    props = [d.frame_tree(d.one("broad", "broad", "birch", "pine"), eye)] if d.chance(0.6) else []
    if d.chance(0.6):
        at = d.between(60, 140)
        props.append(d.prop("house", at, d.focus + 6.5 / at * d.side, 1.0, d.between(-0.7, 0.7)))
    if d.chance(0.55):
        at = eye * d.between(3.2, 5.5)
        props += [d.prop("fence", at, -d.side * 0.42 + side * 24 / at, 1.0, 0.0) for side in (0, -d.side)]
    if d.chance(0.3):
        props.append(d.prop("person", d.between(14, 30), d.focus * 0.5, 1.1))
    return Plan("meadow", d.seed, d.between(0.52, 0.66), d.between(0.42, 0.6), eye, patches=((ids.PLANT, 0.1, 0.12),) if d.chance(0.4) else (),
                swell=d.between(0.01, 0.045), ranges=d.hills(d.between(1500, 3500), d.between(0.07, 0.15), 3) if d.chance(0.6)
                else d.alps(d.between(6000, 10000), d.between(0.12, 0.22), 2), ribbons=(path,) if d.chance(0.75) else (), props=tuple(props),
                forests=(d.wood(d.one("broad", "mixed"), 130, 2500, d.between(0.3, 0.5), 0.1), d.wood(d.one("broad", "birch", "poplar"), 45, 160, 0.25, 0.2, 50)),
                plants=int(d.between(40, 110)), rocks=int(d.between(0, 12)))


def _farmland(d: Draw) -> Plan:
    eye = d.between(9, 34)
    road = Ribbon(d.one(ids.ROAD, ids.ROAD, ids.PATH), d.between(5, 7), (eye * 0.9, d.between(-0.25, 0.25)), (d.between(500, 1200), d.focus), d.between(0.04, 0.16),
                  d.between(1.2, 2.2), d.between(0, 6.28))
    village = d.between(240, 420)
    props = [d.prop("house", village * d.between(0.9, 1.3), d.focus + d.between(-0.16, 0.16), 1.15, d.between(-1, 1)) for _ in range(int(d.between(2, 8)))]
    if d.chance(0.5):
        props.append(d.prop("church", village * 1.15, d.focus, 1.0, d.between(-0.5, 0.5)))
    if d.chance(0.45):
        props += [d.prop("bale", eye * d.between(3, 8), d.between(-0.5, 0.5), 1.2, d.between(-1, 1)) for _ in range(int(d.between(3, 9)))]
    if d.chance(0.3):
        props += [d.prop("turbine", d.between(900, 1800), -d.side * d.between(0.1, 0.5), 1.0) for _ in range(int(d.between(2, 6)))]
    if d.chance(0.35):
        props += [d.prop("wall", eye * 3, -d.side * (0.3 + 0.34 * i), 1.6, 0.0) for i in range(2)]
    return Plan("farm", d.seed, d.between(0.5, 0.64), d.between(0.36, 0.5), eye, far_from=eye * d.between(2.5, 5), swell=d.between(0.008, 0.03), fields=True,
                ranges=d.hills(d.between(2000, 4500), d.between(0.06, 0.12), 2), ribbons=(road,), props=tuple(props),
                forests=(d.wood("broad", 160, 3000, d.between(0.22, 0.4)), d.wood(d.one("broad", "poplar"), 40, 260, d.between(0.15, 0.3), single=60)),
                plants=int(d.between(20, 60)))


def _desert(d: Draw) -> Plan:
    eye = d.between(5, 16)
    dunes = d.chance(0.5)
    peaks = ((d.focus, 1.0, d.between(0.1, 0.2)), (-d.focus * d.between(1.2, 2.2), d.between(0.5, 0.85), d.between(0.1, 0.22)))
    if dunes:
        ranges = (Range("alpine", 9000, d.between(0.04, 0.1), peaks, 0.3, key=d.key()),
                  Range("dune", 1500, d.between(0.08, 0.15), peaks, 0.55, front=0.7, back=0.6, frequency=d.between(1.6, 2.4), key=d.key()),
                  Range("dune", eye * 22, d.between(0.05, 0.1), ((-d.focus, 1.0, 0.4),), 0.6, front=0.9, back=0.7, frequency=d.between(1.3, 2.0), key=d.key()))
        return Plan("desert", d.seed, d.between(0.52, 0.66), d.between(0.4, 0.55), eye, near_cover=ids.SAND, far_cover=ids.SAND, bumps=0.25, ranges=ranges,
                    props=(d.prop("person", eye * 5, d.focus, 1.2),) if d.chance(0.3) else (), plants=int(d.between(0, 10)))
    ranges = (Range("mesa", d.between(5000, 9000), d.between(0.1, 0.2), peaks, 0.12, front=0.3, back=0.3, frequency=2.0, key=d.key()),
              Range("mesa", d.between(1800, 3000), d.between(0.1, 0.22), (peaks[1], (d.focus + 0.1 * d.side, 0.8, 0.14)), 0.0, front=0.25, back=0.25, key=d.key()))
    road = Ribbon(d.one(ids.ROAD, ids.PATH), 6.5, (eye * 0.8, d.between(-0.15, 0.15)), (1500, d.focus * 0.4), 0.03, 1.2, d.between(0, 6.28))
    return Plan("desert", d.seed, d.between(0.52, 0.66), d.between(0.42, 0.56), eye, near_cover=ids.EARTH, far_cover=d.one(ids.EARTH, ids.SAND, ids.LAND),
                far_from=d.between(40, 200), patches=((ids.SAND, 0.25, 0.25), (ids.ROCK, 0.08, 0.1)), ranges=ranges, ribbons=(road,) if d.chance(0.6) else (),
                props=tuple(d.prop("post", eye * 2.6, d.side * 0.25, 1.2) for _ in range(int(d.chance(0.3)))), plants=int(d.between(10, 40)), rocks=int(d.between(20, 60)))


def _pass_road(d: Draw) -> Plan:
    eye = d.between(3, 12)
    road = Ribbon(ids.ROAD, d.between(6, 8), (eye * 0.8, -d.side * d.between(0.0, 0.22)), (d.between(700, 1500), d.focus), d.between(0.06, 0.15), d.between(1.3, 2.2),
                  d.between(0, 6.28))
    props = [d.prop("wall", eye * 3.3, d.side * 0.45, 1.3, -d.side * 0.2)] if d.chance(0.4) else []
    if d.chance(0.4):
        props.append(d.prop("post", eye * 2.8, d.side * d.between(0.2, 0.35), 1.3))
    return Plan("pass", d.seed, d.between(0.54, 0.66), d.between(0.44, 0.56), eye, near_cover=d.one(ids.GRASS, ids.LAND), far_cover=ids.LAND, far_from=d.between(60, 300),
                patches=((ids.ROCK, 0.2, 0.14), (ids.EARTH, 0.12, 0.2)), bumps=0.7, swell=0.02, banks=(d.between(0.1, 0.35), d.between(0.1, 0.35)),
                ranges=d.alps(d.between(4000, 8000), d.between(0.22, 0.36), 3), ribbons=(road,), props=tuple(props),
                forests=(d.wood("conifer", 150, 1500, d.between(0.1, 0.35)),), rocks=int(d.between(20, 70)), plants=int(d.between(5, 30)))


def _snow(d: Draw) -> Plan:
    eye = d.between(3, 16)
    frozen = d.chance(0.4)
    props = [d.prop("house", d.between(50, 130), d.focus, 1.0, d.between(-0.7, 0.7))] if d.chance(0.6) else []
    if d.chance(0.5):
        props.append(d.frame_tree(d.one("conifer", "conifer", "bare"), eye))
    if d.chance(0.35):
        props += [d.prop("fence", eye * 3.5, -d.side * 0.4 + i * 24 / (eye * 3.5), 1.0) for i in (0, -d.side)]
    path = Ribbon(ids.PATH, 2.5, (eye * 0.8, -d.side * 0.1), (150, d.focus), 0.08, 1.6, d.between(0, 6.28))
    return Plan("snow", d.seed, d.between(0.52, 0.66), d.between(0.42, 0.58), eye, near_cover=ids.LAND, far_cover=ids.LAND, bumps=0.3, swell=d.between(0.01, 0.03),
                banks=(d.between(0, 0.15), d.between(0, 0.15)), ranges=d.alps(d.between(5000, 9000), d.between(0.17, 0.3), 2),
                basin=Basin(ids.LAKE, eye * 3.5, d.between(250, 700), d.side * 0.6, 0.15, ids.LAND, 0.5) if frozen else None,
                ribbons=(path,) if not frozen and d.chance(0.4) else (), props=tuple(props), wintry=True,
                forests=(d.wood("conifer", 120, 4000, d.between(0.4, 0.7), 0.1), d.wood(d.one("conifer", "conifer", "bare"), eye * 4, 150, d.between(0.2, 0.45), 0.25, 70)),
                rocks=int(d.between(0, 14)))


def _waterfront(d: Draw) -> Plan:
    eye = d.between(3.5, 12)
    label = d.one(ids.RIVER, ids.LAKE, ids.SEA, ids.WATER)
    far = d.between(130, 300)
    span = far * 1.15
    props, x = [], -0.62 * span
    while x < 0.62 * span:
        props.append(d.prop("block", far * 1.12 + d.between(0, 14), x / (far * 1.12), 1.0, d.between(-0.12, 0.12)))
        x += d.between(9, 15)
    props.append(d.prop(d.one("church", "castle"), far * 1.35 + 16, d.focus, d.between(1.2, 1.7), d.between(-0.3, 0.3)))
    if d.chance(0.6):
        props.append(d.prop("railing", max(eye * 0.75, 3.4), 0.0, 1.0, d.between(-0.08, 0.08)))
    if d.chance(0.6):
        props += [d.prop("boat", far * d.between(0.3, 0.75), d.between(-0.5, 0.5), 1.5, d.between(-0.5, 0.5)) for _ in range(int(d.between(1, 5)))]
    if d.chance(0.5):
        props.append(d.prop("bridge", far * 0.9, -d.focus * 1.6, far * 0.5))
    if d.chance(0.5):
        props.append(d.prop("quay", far * 1.02, 0.0, far / 140))
    return Plan("waterfront", d.seed, d.between(0.52, 0.64), d.between(0.42, 0.55), eye, near_cover=d.one(ids.GRASS, ids.EARTH, ids.ROAD), far_cover=ids.GRASS,
                far_from=90, ranges=d.hills(d.between(1200, 2500), d.between(0.09, 0.16), 2),
                basin=Basin(label, eye * d.between(1.6, 2.6), far, 0.0, 0.02, ids.EARTH, 0.3), props=tuple(props),
                forests=(d.wood("broad", far * 1.1, 2000, d.between(0.3, 0.6), single=50),), plants=int(d.between(0, 20)))


def _forest_path(d: Draw) -> Plan:
    eye = d.between(1.9, 4.5)
    wood = d.one("conifer", "broad", "mixed", "birch")
    path = Ribbon(ids.PATH, d.between(1.8, 3.2), (eye * 0.8, d.between(-0.1, 0.1)), (d.between(70, 140), d.focus * 0.3), d.between(0.02, 0.07), d.between(1.2, 2.2),
                  d.between(0, 6.28))
    return Plan("forest", d.seed, d.between(0.5, 0.6), d.between(0.46, 0.58), eye, near_cover=d.one(ids.GRASS, ids.EARTH), patches=((ids.PLANT, 0.14, 0.2), (ids.EARTH, 0.15, 0.15)),
                bumps=0.3, banks=(d.between(0, 0.3), d.between(0, 0.3)), ranges=d.hills(1800, 0.1, 1) if d.chance(0.5) else d.alps(7000, 0.18, 1), ribbons=(path,),
                forests=(d.wood(wood, 21, 2500, 0.68, 0.15, 210, 14),), plants=int(d.between(50, 120)), rocks=int(d.between(0, 20)),
                props=(d.prop("person", d.between(12, 25), d.focus * 0.1, 1.0),) if d.chance(0.3) else ())


def _ridges(d: Draw) -> Plan:
    eye = d.between(350, 800)
    ranges = []
    for layer in range(int(d.between(4, 7))):
        distance = 22000 * 0.62 ** layer
        peaks = tuple((d.between(-0.65, 0.65), d.between(0.7, 1.0), d.between(0.12, 0.3)) for _ in range(3))
        below = eye / distance
        ranges.append(Range("alpine", distance, (below + d.between(0.03, 0.1) - 0.03 * layer) * 1.9, peaks, d.between(0.5, 0.7), front=0.2, back=0.2,
                            frequency=d.between(2.6, 4.0), key=d.key()))
    return Plan("ridges", d.seed, d.between(0.45, 0.6), d.between(0.36, 0.5), eye, near_cover=ids.ROCK, far_cover=d.one(ids.GRASS, ids.LAND), far_from=300, ranges=tuple(ranges),
                forests=(Forest("conifer", 900, 6000, d.between(0.5, 0.75), (0.0, 0.0), 24.0, 0, d.key()),))


def _waterfall(d: Draw) -> Plan:
    eye = d.between(4, 9)
    at = d.between(140, 220)
    peaks = ((d.focus, 1.0, 0.5), (-d.focus * 2, 0.9, 0.3))
    wood = d.one("conifer", "mixed")
    return Plan("waterfall", d.seed, d.between(0.5, 0.6), d.between(0.55, 0.66), eye, patches=((ids.ROCK, 0.2, 0.15),), bumps=0.6,
                banks=(0.15, 0.15), ranges=(Range("alpine", 4000, 0.3, peaks, 0.3, key=d.key()),
                                            Range("mesa", at * 1.5, d.between(0.2, 0.3), peaks, 0.75, front=0.3, back=0.6, frequency=2.2, key=d.key())),
                basin=Basin(d.one(ids.WATER, ids.RIVER), eye * 2.4, at * 0.95, d.side * 0.3, 0.2, ids.ROCK, 0.8),
                forests=(d.wood(wood, at * 1.3, 900, 0.75, single=40), d.wood(wood, eye * 4, 120, 0.35, 0.3, 60)), waterfall=(d.focus, d.between(0.018, 0.05)),
                rocks=int(d.between(40, 80)), plants=int(d.between(20, 60)))


def _headland(d: Draw) -> Plan:
    eye = d.between(12, 40)
    lighthouse = d.between(260, 420)
    peaks = ((d.side * 0.42, 1.0, 0.22),)
    return Plan("headland", d.seed, d.between(0.52, 0.64), d.between(0.38, 0.5), eye, far_cover=ids.GRASS, swell=0.02, bumps=0.6,
                ranges=(Range("hill", lighthouse, (eye * 0.5) / lighthouse + 0.01, peaks, 0.0, front=0.35, back=0.35, frequency=2.0, key=d.key()),
                        Range(d.one("alpine", "hill"), d.between(5000, 9000), d.between(0.04, 0.1), ((-d.side * 0.3, 1.0, 0.3),), 0.0, front=0.2, back=0.2, key=d.key())),
                basin=Basin(ids.SEA, eye * 2.4, None, -d.side * d.between(1.2, 2.4), 0.2, ids.ROCK, 2.5, 9.0, 0.3),
                props=(d.prop("lighthouse", lighthouse, d.side * 0.42, 1.2), d.prop("boat", lighthouse * 0.8, -d.side * 0.2, 3.0, 0.4)) if d.chance(0.75) else (),
                plants=int(d.between(20, 50)), rocks=int(d.between(20, 50)))


KINDS: Dict[str, Tuple[float, Callable[[Draw], Plan]]] = {
    "lake": (1.7, _alpine_lake), "shore": (1.3, _seashore), "sea": (0.8, _open_sea), "river": (1.2, _river_valley), "meadow": (1.3, _meadow), "farm": (1.0, _farmland),
    "desert": (1.0, _desert), "pass": (0.8, _pass_road), "snow": (1.0, _snow), "waterfront": (0.7, _waterfront), "forest": (0.9, _forest_path),
    "ridges": (0.7, _ridges), "waterfall": (0.45, _waterfall), "headland": (0.7, _headland),
}


def make_plan(seed: int, kind: str = "") -> Plan:
    """The geometry of a seed; `kind` forces one of KINDS."""
    rng = generator(seed, 2)
    names = list(KINDS)
    weights = np.array([KINDS[name][0] for name in names])
    drawn = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return KINDS[kind or drawn][1](Draw(seed))
