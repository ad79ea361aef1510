"""Plans of scenes on dry land: meadow, farmland, desert, mountain pass, snow, forest, ridges.

The order of the draws is part of a plan: another order is another scene for every seed.
"""

from __future__ import annotations

from typing import Tuple

from jseg.landscapes import ids
from jseg.landscapes.compose import Draw, Peak
from jseg.landscapes.plan import Basin, Forest, Plan


def meadow(d: Draw) -> Plan:
    # A path to the focal point.
    eye = d.between(2.2, 9)
    label, width = d.one(ids.PATH, ids.PATH, ids.ROAD), d.between(1.8, 3.6) * (0.6 + eye / 8)
    near = (eye * 0.8, -d.side * d.between(0.0, 0.25))
    far = (d.between(120, 500), d.focus)
    path = d.ribbon(label, width, near, far, d.between(0.04, 0.14), d.between(1.0, 2.0))

    # A tree at the side, a house, a fence, a person.
    props = [d.frame_tree(d.one("broad", "broad", "birch", "pine"), eye)] if d.chance(0.6) else []
    if d.chance(0.6):
        at = d.between(60, 140)
        props.append(d.prop("house", at, d.focus + 6.5 / at * d.side, 1.0, d.between(-0.7, 0.7)))
    if d.chance(0.55):
        props += d.row("fence", eye * d.between(3.2, 5.5), -d.side * 0.42, 24)
    if d.chance(0.3):
        props.append(d.prop("person", d.between(14, 30), d.focus * 0.5, 1.1))

    return Plan(
        "meadow",
        d.seed,
        *d.view((0.52, 0.66), (0.42, 0.6)),
        eye,
        patches=((ids.PLANT, 0.1, 0.12),) if d.chance(0.4) else (),
        swell=d.between(0.01, 0.045),
        ranges=(
            d.hills(d.between(1500, 3500), d.between(0.07, 0.15), 3)
            if d.chance(0.6)
            else d.alps(d.between(6000, 10000), d.between(0.12, 0.22), 2)
        ),
        ribbons=(path,) if d.chance(0.75) else (),
        props=tuple(props),
        forests=(
            d.wood(d.one("broad", "mixed"), 130, 2500, d.between(0.3, 0.5), 0.1),
            d.wood(d.one("broad", "birch", "poplar"), 45, 160, 0.25, 0.2, 50),
        ),
        plants=d.count(40, 110),
        rocks=d.count(0, 12),
    )


def farmland(d: Draw) -> Plan:
    eye = d.between(9, 34)
    label, width = d.one(ids.ROAD, ids.ROAD, ids.PATH), d.between(5, 7)
    near = (eye * 0.9, d.between(-0.25, 0.25))
    far = (d.between(500, 1200), d.focus)
    road = d.ribbon(label, width, near, far, d.between(0.04, 0.16), d.between(1.2, 2.2))

    # A village about its church.
    village, props = d.between(240, 420), []
    for _ in range(d.count(2, 8)):
        at, x = village * d.between(0.9, 1.3), d.focus + d.between(-0.16, 0.16)
        props.append(d.prop("house", at, x, 1.15, d.between(-1, 1)))
    if d.chance(0.5):
        props.append(d.prop("church", village * 1.15, d.focus, 1.0, d.between(-0.5, 0.5)))

    # What stands in the fields.
    if d.chance(0.45):
        for _ in range(d.count(3, 9)):
            at, x = eye * d.between(3, 8), d.between(-0.5, 0.5)
            props.append(d.prop("bale", at, x, 1.2, d.between(-1, 1)))
    if d.chance(0.3):
        for _ in range(d.count(2, 6)):
            props.append(d.prop("turbine", d.between(900, 1800), -d.side * d.between(0.1, 0.5)))
    if d.chance(0.35):
        at = eye * 3.2
        props += [d.prop("wall", at, -d.side * (0.3 + (9.0 + 16.0 * i) / at)) for i in range(2)]

    return Plan(
        "farm",
        d.seed,
        *d.view((0.5, 0.64), (0.36, 0.5)),
        eye,
        far_from=eye * d.between(2.5, 5),
        swell=d.between(0.008, 0.03),
        fields=True,
        ranges=d.hills(d.between(2000, 4500), d.between(0.06, 0.12), 2),
        ribbons=(road,),
        props=tuple(props),
        forests=(
            d.wood("broad", 160, 3000, d.between(0.22, 0.4)),
            d.wood(d.one("broad", "poplar"), 40, 260, d.between(0.15, 0.3), single=60),
        ),
        plants=d.count(20, 60),
    )


def desert(d: Draw) -> Plan:
    """Dunes, or table mountains over a stony plain."""
    eye = d.between(5, 16)
    main = (d.focus, 1.0, d.between(0.1, 0.2))
    other = (-d.focus * d.between(1.2, 2.2), d.between(0.5, 0.85), d.between(0.1, 0.22))
    return _dunes(d, eye, (main, other)) if d.chance(0.5) else _tables(d, eye, (main, other))


def _dunes(d: Draw, eye: float, peaks: Tuple[Peak, ...]) -> Plan:
    near = ((-d.focus, 1.0, 0.4),)
    mountains = d.chain("alpine", 9000, d.between(0.04, 0.1), peaks, 0.3)
    height, steep = d.between(0.08, 0.15), d.between(1.6, 2.4)
    dunes = d.chain("dune", 1500, height, peaks, 0.55, (0.7, 0.6), steep)
    height, steep = d.between(0.05, 0.1), d.between(1.3, 2.0)
    front = d.chain("dune", eye * 22, height, near, 0.6, (0.9, 0.7), steep)
    props = (d.prop("person", eye * 5, d.focus, 1.2),) if d.chance(0.3) else ()
    return Plan(
        "desert",
        d.seed,
        *d.view((0.52, 0.66), (0.4, 0.55)),
        eye,
        near_cover=ids.SAND,
        far_cover=ids.SAND,
        bumps=0.25,
        ranges=(mountains, dunes, front),
        props=props,
        plants=d.count(0, 10),
    )


def _tables(d: Draw, eye: float, peaks: Tuple[Peak, ...]) -> Plan:
    near = (peaks[1], (d.focus + 0.1 * d.side, 0.8, 0.14))
    distance, height = d.between(5000, 9000), d.between(0.1, 0.2)
    far_mesas = d.chain("mesa", distance, height, peaks, 0.12, (0.3, 0.3), 2.0)
    distance, height = d.between(1800, 3000), d.between(0.1, 0.22)
    near_mesas = d.chain("mesa", distance, height, near, 0.0, (0.25, 0.25))
    label, start = d.one(ids.ROAD, ids.PATH), (eye * 0.8, d.between(-0.15, 0.15))
    road = d.ribbon(label, 6.5, start, (1500, d.focus * 0.4), 0.03, 1.2)
    return Plan(
        "desert",
        d.seed,
        *d.view((0.52, 0.66), (0.42, 0.56)),
        eye,
        near_cover=ids.EARTH,
        far_cover=d.one(ids.EARTH, ids.SAND, ids.LAND),
        far_from=d.between(40, 200),
        patches=((ids.SAND, 0.25, 0.25), (ids.ROCK, 0.08, 0.1)),
        ranges=(far_mesas, near_mesas),
        ribbons=(road,) if d.chance(0.6) else (),
        props=(d.prop("post", eye * 2.6, d.side * 0.25, 1.2),) if d.chance(0.3) else (),
        plants=d.count(10, 40),
        rocks=d.count(20, 60),
    )


def pass_road(d: Draw) -> Plan:
    eye = d.between(3, 12)
    width, near = d.between(6, 8), (eye * 0.8, -d.side * d.between(0.0, 0.22))
    far = (d.between(700, 1500), d.focus)
    road = d.ribbon(ids.ROAD, width, near, far, d.between(0.06, 0.15), d.between(1.3, 2.2))

    # A wall and a post beside the road.
    props = []
    if d.chance(0.4):
        at = eye * 3.6
        props.append(d.prop("wall", at, d.side * (0.2 + 8.0 / at), 1.0, -d.side * 0.25))
    if d.chance(0.4):
        props.append(d.prop("post", eye * 2.8, d.side * d.between(0.2, 0.35), 1.3))

    return Plan(
        "pass",
        d.seed,
        *d.view((0.54, 0.66), (0.44, 0.56)),
        eye,
        near_cover=d.one(ids.GRASS, ids.LAND),
        far_cover=ids.LAND,
        far_from=d.between(60, 300),
        patches=((ids.ROCK, 0.2, 0.14), (ids.EARTH, 0.12, 0.2)),
        bumps=0.7,
        swell=0.02,
        banks=(d.between(0.1, 0.35), d.between(0.1, 0.35)),
        ranges=d.alps(d.between(4000, 8000), d.between(0.22, 0.36), 3),
        ribbons=(road,),
        props=tuple(props),
        forests=(d.wood("conifer", 150, 1500, d.between(0.1, 0.35)),),
        rocks=d.count(20, 70),
        plants=d.count(5, 30),
    )


def snow(d: Draw) -> Plan:
    eye = d.between(3, 16)
    # A frozen lake or a path; a house, a tree at the side, a fence.
    frozen, props = d.chance(0.4), []
    if d.chance(0.6):
        props.append(d.prop("house", d.between(50, 130), d.focus, 1.0, d.between(-0.7, 0.7)))
    if d.chance(0.5):
        props.append(d.frame_tree(d.one("conifer", "conifer", "bare"), eye))
    if d.chance(0.35):
        props += d.row("fence", eye * 3.5, -d.side * 0.4, 24)
    path = d.ribbon(ids.PATH, 2.5, (eye * 0.8, -d.side * 0.1), (150, d.focus), 0.08, 1.6)
    return Plan(
        "snow",
        d.seed,
        *d.view((0.52, 0.66), (0.42, 0.58)),
        eye,
        near_cover=ids.LAND,
        far_cover=ids.LAND,
        bumps=0.3,
        swell=d.between(0.01, 0.03),
        banks=(d.between(0, 0.15), d.between(0, 0.15)),
        ranges=d.alps(d.between(5000, 9000), d.between(0.17, 0.3), 2),
        basin=Basin(ids.LAKE, eye * 3.5, d.between(250, 700), d.side * 0.6, 0.15, ids.LAND, 0.5)
        if frozen
        else None,
        ribbons=(path,) if not frozen and d.chance(0.4) else (),
        props=tuple(props),
        wintry=True,
        forests=(
            d.wood("conifer", 120, 4000, d.between(0.4, 0.7), 0.1),
            d.wood(d.one("conifer", "conifer", "bare"), eye * 4, 150, d.between(0.2, 0.45), 0.25),
        ),
        rocks=d.count(0, 14),
    )


def forest_path(d: Draw) -> Plan:
    eye = d.between(1.9, 4.5)
    wood = d.one("conifer", "broad", "mixed", "birch")
    width, near = d.between(1.8, 3.2), (eye * 0.8, d.between(-0.1, 0.1))
    far = (d.between(70, 140), d.focus * 0.3)
    path = d.ribbon(ids.PATH, width, near, far, d.between(0.02, 0.07), d.between(1.2, 2.2))
    return Plan(
        "forest",
        d.seed,
        *d.view((0.5, 0.6), (0.46, 0.58)),
        eye,
        near_cover=d.one(ids.GRASS, ids.EARTH),
        patches=((ids.PLANT, 0.14, 0.2), (ids.EARTH, 0.15, 0.15)),
        bumps=0.3,
        banks=(d.between(0, 0.3), d.between(0, 0.3)),
        ranges=d.hills(1800, 0.1, 1) if d.chance(0.5) else d.alps(7000, 0.18, 1),
        ribbons=(path,),
        forests=(d.wood(wood, 21, 2500, 0.68, 0.15, 210, 14),),
        plants=d.count(50, 120),
        rocks=d.count(0, 20),
        props=(d.prop("person", d.between(12, 25), d.focus * 0.1, 1.0),) if d.chance(0.3) else (),
    )


def ridges(d: Draw) -> Plan:
    """From a high place over chain behind chain."""
    eye = d.between(350, 800)
    count, ranges = d.count(4, 7), []
    for layer in range(count):
        distance = 24000 * 0.6**layer
        peaks = tuple(d.peak((-0.65, 0.65), (0.75, 1.0), (0.1, 0.25)) for _ in range(3))
        # Above the horizon at the back, below it in front.
        crest = d.between(0.05, 0.09) - 0.11 * layer / count
        kind = "massif" if layer < 2 and d.chance(0.4) else "alpine"
        height = (eye / distance + crest) * 1.3
        floor, steep = d.between(0.35, 0.6), d.between(2.6, 4.0)
        ranges.append(d.chain(kind, distance, height, peaks, floor, (0.2, 0.2), steep))
    return Plan(
        "ridges",
        d.seed,
        *d.view((0.45, 0.6), (0.36, 0.48)),
        eye,
        near_cover=ids.ROCK,
        far_cover=d.one(ids.GRASS, ids.GRASS, ids.LAND),
        far_from=300,
        ranges=tuple(ranges),
        forests=(Forest("conifer", 900, 9000, d.between(0.5, 0.75), (0.0, 0.0), 24.0, 0, d.key()),),
    )
