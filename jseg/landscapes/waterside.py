"""Plans of scenes by the water: lake, shore, open sea, river, waterfront, waterfall, headland.

The order of the draws is part of a plan: another order is another scene for every seed.
"""

from __future__ import annotations

from typing import List

import numpy as np

from jseg.landscapes import ids
from jseg.landscapes.compose import Draw
from jseg.landscapes.plan import Basin, Plan, Prop, centre_of


def alpine_lake(d: Draw) -> Plan:
    eye = d.between(4, 16)
    wood = d.one("conifer", "conifer", "mixed")
    far = d.between(500, 1800)

    # A pier, a boat, a house on the far shore, a tree at the side.
    props: List[Prop] = []
    if d.chance(0.35):
        props.append(d.prop("pier", eye * 4.6, d.focus * 0.5, 0.9 + eye / 14, d.between(-0.3, 0.3)))
    if d.chance(0.45):
        at, x = d.between(9, 16) * eye, d.focus * d.between(0.3, 1.0)
        props.append(d.prop("boat", at, x, 1.2 + eye / 9, d.between(-0.8, 0.8)))
    if d.chance(0.3):
        props.append(d.prop("house", far * 1.06 + 30, -d.focus * 1.2, 1.6, d.between(-0.6, 0.6)))
    if d.chance(0.35):
        props.append(d.frame_tree(d.one("conifer", "pine"), eye))

    return Plan(
        "lake",
        d.seed,
        *d.view((0.52, 0.66), (0.46, 0.58)),
        eye,
        near_cover=d.one(ids.GRASS, ids.GRASS, ids.EARTH),
        far_cover=ids.GRASS,
        patches=((ids.EARTH, 0.15, 0.2),),
        banks=(d.between(0, 0.12), d.between(0, 0.12)),
        ranges=d.alps(d.between(6000, 11000), d.between(0.19, 0.32), d.count(1.5, 3.5)),
        basin=Basin(
            ids.LAKE,
            eye * d.between(2.6, 4.2),
            far,
            d.side * d.between(0, 0.7),
            d.between(0.1, 0.25),
            d.one(ids.ROCK, ids.SAND, ids.EARTH),
            d.between(0.3, 0.8),
            islands=d.one(0, 0, 0.5),
        ),
        forests=(
            d.wood(wood, far * 0.5, far * 4, d.between(0.45, 0.8), single=60),
            d.wood(wood, eye * 3, 160, d.between(0.15, 0.4), 0.3),
        ),
        props=tuple(props),
        rocks=d.count(8, 40),
        plants=d.count(10, 40),
    )


def seashore(d: Draw) -> Plan:
    # A boat, a ship far out, a person on the beach.
    eye = d.between(3, 22)
    props = []
    if d.chance(0.55):
        at, x = d.between(10, 28) * eye, d.focus * d.between(0.2, 1.2)
        props.append(d.prop("boat", at, x, 1.2 + eye / 12, d.between(-0.9, 0.9)))
    if d.chance(0.5):
        at, x = d.between(700, 2200), -d.focus * d.between(0.3, 1.4)
        props.append(d.prop("ship", at, x, 1.0, d.one(-1, 1) * d.between(0.0, 0.6)))
    if d.chance(0.4):
        at, x = eye * d.between(2.6, 3.4), d.between(-0.3, 0.3)
        props.append(d.prop("person", at, x, 1.05, d.between(-1, 1)))

    # Land across the water.
    ranges = ()
    if d.chance(0.75):
        peak = (d.side * d.between(0.45, 0.7), 1.0, d.between(0.15, 0.35))
        kind = d.one("alpine", "hill", "mesa")
        distance, height = d.between(1500, 5000), d.between(0.07, 0.18)
        ranges = (d.chain(kind, distance, height, (peak,), 0.0, (0.3, 0.3)),)
    shore = d.one(ids.SAND, ids.SAND, ids.SAND, ids.ROCK)
    return Plan(
        "shore",
        d.seed,
        *d.view((0.55, 0.68), (0.34, 0.52)),
        eye,
        near_cover=shore,
        far_cover=ids.GRASS,
        far_from=4000,
        patches=((ids.GRASS, 0.12, 0.25),) if shore == ids.SAND else (),
        bumps=0.35,
        ranges=ranges,
        basin=Basin(
            ids.SEA,
            eye * d.between(2.2, 4.5),
            None,
            -d.side * d.between(0.2, 2.2),
            d.between(0.08, 0.2),
            shore,
            1.6,
            6.0,
            d.one(0, 0, 0.4, 0.8),
        ),
        props=tuple(props),
        rocks=d.count(4, 50 if shore == ids.ROCK else 16),
        plants=d.count(0, 14),
    )


def open_sea(d: Draw) -> Plan:
    eye = d.between(5, 30)
    peaks = tuple(d.peak((-0.6, 0.6), (0.5, 1), (0.06, 0.2)) for _ in range(d.count(1, 4)))
    if d.chance(0.5):
        vessel = d.prop("ship", d.between(450, 1500), d.focus, 1.0, d.between(-0.7, 0.7))
    else:
        vessel = d.prop("boat", d.between(150, 400), d.focus, 3.0, d.between(-0.7, 0.7))
    railing = (d.railing(),) if d.chance(0.35) else ()
    tan_half, horizon = d.between(0.5, 0.62), d.one(d.between(0.32, 0.4), d.between(0.55, 0.64))
    kind, distance, height = d.one("alpine", "hill"), d.between(3000, 9000), d.between(0.04, 0.13)
    coast = d.chain(kind, distance, height, peaks, 0.0, (0.25, 0.25))
    near, tilt = d.one(0, eye * 1.9), d.side * d.between(0, 1.5)
    return Plan(
        "sea",
        d.seed,
        tan_half,
        horizon,
        eye,
        near_cover=ids.ROCK,
        bumps=0.6,
        ranges=(coast,),
        basin=Basin(ids.SEA, near, None, tilt, 0.15, ids.ROCK, 2.0, 8.0, d.one(0, 0.6)),
        props=(vessel, *railing),
        rocks=d.count(0, 30),
    )


def river_valley(d: Draw) -> Plan:
    eye = d.between(5, 26)
    wood = d.one("conifer", "mixed", "broad", "birch")
    width, near = eye * d.between(0.9, 2.3), (eye * 0.9, -d.side * d.between(0.05, 0.3))
    far = (d.between(1500, 3000), d.focus)
    river = d.ribbon(ids.RIVER, width, near, far, d.between(0.12, 0.3), d.between(1.4, 2.8))

    # A bridge where the river runs, a person, a tree at the side.
    props = []
    if d.chance(0.4):
        at = d.between(9, 16) * eye
        x = float(centre_of(river, np.log(at)))
        props.append(d.prop("bridge", at, x, river.width * d.between(1.3, 1.7)))
    if d.chance(0.35):
        props.append(d.prop("person", eye * 3.2, d.side * 0.2, 1.3))
    if d.chance(0.4):
        props.append(d.frame_tree("birch" if wood == "birch" else d.one("broad", "pine"), eye))
    if d.chance(0.65):
        ranges = d.alps(d.between(5000, 10000), d.between(0.16, 0.28), 2)
    else:
        ranges = d.hills(d.between(3000, 6000), d.between(0.09, 0.16), 3)

    return Plan(
        "river",
        d.seed,
        *d.view((0.52, 0.66), (0.38, 0.52)),
        eye,
        patches=((ids.EARTH, 0.12, 0.15), (ids.ROCK, 0.06, 0.1)),
        banks=(d.between(0.05, 0.25), d.between(0.05, 0.25)),
        ranges=ranges,
        ribbons=(river,),
        props=tuple(props),
        forests=(
            d.wood(wood, 150, 4000, d.between(0.4, 0.7), 0.12),
            d.wood(wood, eye * 4, 170, d.between(0.2, 0.5), 0.25, 90),
        ),
        rocks=d.count(25, 70),
        plants=d.count(10, 50),
    )


def waterfront(d: Draw) -> Plan:
    eye = d.between(3.5, 12)
    label = d.one(ids.RIVER, ids.LAKE, ids.SEA, ids.WATER)
    far = d.between(130, 300)
    span = far * 1.15

    # A row of houses along the water, a tower behind it.
    props, x = [], -0.62 * span
    while x < 0.62 * span:
        at, place = far * 1.12 + d.between(0, 14), x / (far * 1.12)
        props.append(d.prop("block", at, place, 1.0, d.between(-0.12, 0.12)))
        x += d.between(9, 15)
    kind, size = d.one("church", "castle"), d.between(1.2, 1.7)
    props.append(d.prop(kind, far * 1.35 + 16, d.focus, size, d.between(-0.3, 0.3)))

    # What is on the water.
    if d.chance(0.6):
        props.append(d.railing())
    if d.chance(0.6):
        for _ in range(d.count(1, 5)):
            at, x = far * d.between(0.3, 0.75), d.between(-0.5, 0.5)
            props.append(d.prop("boat", at, x, 1.5, d.between(-0.5, 0.5)))
    if d.chance(0.5):
        props.append(d.prop("bridge", far * 0.9, -d.focus * 1.6, far * 0.5))
    if d.chance(0.5):
        props.append(d.prop("quay", far * 1.02, 0.0, far / 140))

    return Plan(
        "waterfront",
        d.seed,
        *d.view((0.52, 0.64), (0.42, 0.55)),
        eye,
        near_cover=d.one(ids.GRASS, ids.EARTH, ids.ROAD),
        far_cover=ids.GRASS,
        far_from=90,
        ranges=d.hills(d.between(1200, 2500), d.between(0.09, 0.16), 2),
        basin=Basin(label, eye * d.between(1.6, 2.6), far, 0.0, 0.02, ids.EARTH, 0.3),
        props=tuple(props),
        forests=(d.wood("broad", far * 1.1, 2000, d.between(0.3, 0.6), single=50),),
        plants=d.count(0, 20),
    )


def waterfall(d: Draw) -> Plan:
    # A cliff at the focal point, mountains behind it.
    eye = d.between(4, 9)
    at = d.between(140, 220)
    peaks = ((d.focus, 1.0, 0.5), (-d.focus * 2, 0.9, 0.3))
    wood = d.one("conifer", "mixed")
    view = d.view((0.5, 0.6), (0.55, 0.66))
    mountains = d.chain("alpine", 4000, 0.3, peaks, 0.3)
    cliff = d.chain("mesa", at * 1.5, d.between(0.2, 0.3), peaks, 0.75, (0.3, 0.6), 2.2)
    label = d.one(ids.WATER, ids.RIVER)
    return Plan(
        "waterfall",
        d.seed,
        *view,
        eye,
        patches=((ids.ROCK, 0.2, 0.15),),
        bumps=0.6,
        banks=(0.15, 0.15),
        ranges=(mountains, cliff),
        basin=Basin(label, eye * 2.4, at * 0.95, d.side * 0.3, 0.2, ids.ROCK, 0.8),
        forests=(
            d.wood(wood, at * 1.3, 900, 0.75, single=40),
            d.wood(wood, eye * 4, 120, 0.35, 0.3, 60),
        ),
        waterfall=(d.focus, d.between(0.018, 0.05)),
        rocks=d.count(40, 80),
        plants=d.count(20, 60),
    )


def headland(d: Draw) -> Plan:
    # A lighthouse on its hill, a coast far behind.
    eye = d.between(12, 40)
    at = d.between(260, 420)
    view = d.view((0.52, 0.64), (0.38, 0.5))
    top = (d.side * 0.42, 1.0, 0.22)
    hill = d.chain("hill", at, (eye * 0.5) / at + 0.01, (top,), 0.0, (0.35, 0.35), 2.0)
    kind, distance, height = d.one("alpine", "hill"), d.between(5000, 9000), d.between(0.04, 0.1)
    coast = d.chain(kind, distance, height, ((-d.side * 0.3, 1.0, 0.3),), 0.0, (0.2, 0.2))
    tilt = -d.side * d.between(1.2, 2.4)
    props = ()
    if d.chance(0.75):
        lighthouse = d.prop("lighthouse", at, d.side * 0.42, 1.2)
        props = (lighthouse, d.prop("boat", at * 0.8, -d.side * 0.2, 3.0, 0.4))
    return Plan(
        "headland",
        d.seed,
        *view,
        eye,
        far_cover=ids.GRASS,
        swell=0.02,
        bumps=0.6,
        ranges=(hill, coast),
        basin=Basin(ids.SEA, eye * 2.4, None, tilt, 0.2, ids.ROCK, 2.5, 9.0, 0.3),
        props=props,
        plants=d.count(20, 50),
        rocks=d.count(20, 50),
    )
