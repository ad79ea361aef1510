"""Plans of scenes on dry land: meadow, farmland, desert, mountain pass, snow, forest, ridges."""

from __future__ import annotations

from typing import Tuple

from jseg.landscapes import ids
from jseg.landscapes.compose import Draw
from jseg.landscapes.plan import Basin, Forest, Plan, Range, Ribbon

Peaks = Tuple[Tuple[float, float, float], ...]


def meadow(d: Draw) -> Plan:
    eye = d.between(2.2, 9)
    path = Ribbon(
        d.one(ids.PATH, ids.PATH, ids.ROAD),
        d.between(1.8, 3.6) * (0.6 + eye / 8),
        (eye * 0.8, -d.side * d.between(0.0, 0.25)),
        (d.between(120, 500), d.focus),
        d.between(0.04, 0.14),
        d.between(1.0, 2.0),
        d.between(0, 6.28),
    )
    props = [d.frame_tree(d.one("broad", "broad", "birch", "pine"), eye)] if d.chance(0.6) else []
    if d.chance(0.6):
        at = d.between(60, 140)
        props.append(d.prop("house", at, d.focus + 6.5 / at * d.side, 1.0, d.between(-0.7, 0.7)))
    if d.chance(0.55):
        at = eye * d.between(3.2, 5.5)
        props += [
            d.prop("fence", at, -d.side * 0.42 + side * 24 / at, 1.0, 0.0) for side in (0, -d.side)
        ]
    if d.chance(0.3):
        props.append(d.prop("person", d.between(14, 30), d.focus * 0.5, 1.1))
    return Plan(
        "meadow",
        d.seed,
        d.between(0.52, 0.66),
        d.between(0.42, 0.6),
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
        plants=int(d.between(40, 110)),
        rocks=int(d.between(0, 12)),
    )


def farmland(d: Draw) -> Plan:
    eye = d.between(9, 34)
    road = Ribbon(
        d.one(ids.ROAD, ids.ROAD, ids.PATH),
        d.between(5, 7),
        (eye * 0.9, d.between(-0.25, 0.25)),
        (d.between(500, 1200), d.focus),
        d.between(0.04, 0.16),
        d.between(1.2, 2.2),
        d.between(0, 6.28),
    )
    village = d.between(240, 420)
    props = [
        d.prop(
            "house",
            village * d.between(0.9, 1.3),
            d.focus + d.between(-0.16, 0.16),
            1.15,
            d.between(-1, 1),
        )
        for _ in range(int(d.between(2, 8)))
    ]
    if d.chance(0.5):
        props.append(d.prop("church", village * 1.15, d.focus, 1.0, d.between(-0.5, 0.5)))
    if d.chance(0.45):
        props += [
            d.prop("bale", eye * d.between(3, 8), d.between(-0.5, 0.5), 1.2, d.between(-1, 1))
            for _ in range(int(d.between(3, 9)))
        ]
    if d.chance(0.3):
        props += [
            d.prop("turbine", d.between(900, 1800), -d.side * d.between(0.1, 0.5), 1.0)
            for _ in range(int(d.between(2, 6)))
        ]
    if d.chance(0.35):
        props += [
            d.prop("wall", eye * 3.2, -d.side * (0.3 + (9.0 + 16.0 * i) / (eye * 3.2)), 1.0, 0.0)
            for i in range(2)
        ]
    return Plan(
        "farm",
        d.seed,
        d.between(0.5, 0.64),
        d.between(0.36, 0.5),
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
        plants=int(d.between(20, 60)),
    )


def desert(d: Draw) -> Plan:
    """Dunes, or table mountains over a stony plain."""
    eye = d.between(5, 16)
    peaks = (
        (d.focus, 1.0, d.between(0.1, 0.2)),
        (-d.focus * d.between(1.2, 2.2), d.between(0.5, 0.85), d.between(0.1, 0.22)),
    )
    return _dunes(d, eye, peaks) if d.chance(0.5) else _tables(d, eye, peaks)


def _dunes(d: Draw, eye: float, peaks: Peaks) -> Plan:
    near = ((-d.focus, 1.0, 0.4),)
    ranges = (
        Range("alpine", 9000, d.between(0.04, 0.1), peaks, 0.3, key=d.key()),
        Range(
            "dune",
            1500,
            d.between(0.08, 0.15),
            peaks,
            0.55,
            front=0.7,
            back=0.6,
            frequency=d.between(1.6, 2.4),
            key=d.key(),
        ),
        Range(
            "dune",
            eye * 22,
            d.between(0.05, 0.1),
            near,
            0.6,
            front=0.9,
            back=0.7,
            frequency=d.between(1.3, 2.0),
            key=d.key(),
        ),
    )
    props = (d.prop("person", eye * 5, d.focus, 1.2),) if d.chance(0.3) else ()
    return Plan(
        "desert",
        d.seed,
        d.between(0.52, 0.66),
        d.between(0.4, 0.55),
        eye,
        near_cover=ids.SAND,
        far_cover=ids.SAND,
        bumps=0.25,
        ranges=ranges,
        props=props,
        plants=int(d.between(0, 10)),
    )


def _tables(d: Draw, eye: float, peaks: Peaks) -> Plan:
    near = (peaks[1], (d.focus + 0.1 * d.side, 0.8, 0.14))
    ranges = (
        Range(
            "mesa",
            d.between(5000, 9000),
            d.between(0.1, 0.2),
            peaks,
            0.12,
            front=0.3,
            back=0.3,
            frequency=2.0,
            key=d.key(),
        ),
        Range(
            "mesa",
            d.between(1800, 3000),
            d.between(0.1, 0.22),
            near,
            0.0,
            front=0.25,
            back=0.25,
            key=d.key(),
        ),
    )
    road = Ribbon(
        d.one(ids.ROAD, ids.PATH),
        6.5,
        (eye * 0.8, d.between(-0.15, 0.15)),
        (1500, d.focus * 0.4),
        0.03,
        1.2,
        d.between(0, 6.28),
    )
    return Plan(
        "desert",
        d.seed,
        d.between(0.52, 0.66),
        d.between(0.42, 0.56),
        eye,
        near_cover=ids.EARTH,
        far_cover=d.one(ids.EARTH, ids.SAND, ids.LAND),
        far_from=d.between(40, 200),
        patches=((ids.SAND, 0.25, 0.25), (ids.ROCK, 0.08, 0.1)),
        ranges=ranges,
        ribbons=(road,) if d.chance(0.6) else (),
        props=(d.prop("post", eye * 2.6, d.side * 0.25, 1.2),) if d.chance(0.3) else (),
        plants=int(d.between(10, 40)),
        rocks=int(d.between(20, 60)),
    )


def pass_road(d: Draw) -> Plan:
    eye = d.between(3, 12)
    road = Ribbon(
        ids.ROAD,
        d.between(6, 8),
        (eye * 0.8, -d.side * d.between(0.0, 0.22)),
        (d.between(700, 1500), d.focus),
        d.between(0.06, 0.15),
        d.between(1.3, 2.2),
        d.between(0, 6.28),
    )
    props = (
        [d.prop("wall", eye * 3.6, d.side * (0.2 + 8.0 / (eye * 3.6)), 1.0, -d.side * 0.25)]
        if d.chance(0.4)
        else []
    )
    if d.chance(0.4):
        props.append(d.prop("post", eye * 2.8, d.side * d.between(0.2, 0.35), 1.3))
    return Plan(
        "pass",
        d.seed,
        d.between(0.54, 0.66),
        d.between(0.44, 0.56),
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
        rocks=int(d.between(20, 70)),
        plants=int(d.between(5, 30)),
    )


def snow(d: Draw) -> Plan:
    eye = d.between(3, 16)
    frozen = d.chance(0.4)
    props = (
        [d.prop("house", d.between(50, 130), d.focus, 1.0, d.between(-0.7, 0.7))]
        if d.chance(0.6)
        else []
    )
    if d.chance(0.5):
        props.append(d.frame_tree(d.one("conifer", "conifer", "bare"), eye))
    if d.chance(0.35):
        props += [
            d.prop("fence", eye * 3.5, -d.side * 0.4 + i * 24 / (eye * 3.5), 1.0)
            for i in (0, -d.side)
        ]
    path = Ribbon(
        ids.PATH, 2.5, (eye * 0.8, -d.side * 0.1), (150, d.focus), 0.08, 1.6, d.between(0, 6.28)
    )
    return Plan(
        "snow",
        d.seed,
        d.between(0.52, 0.66),
        d.between(0.42, 0.58),
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
            d.wood(
                d.one("conifer", "conifer", "bare"), eye * 4, 150, d.between(0.2, 0.45), 0.25, 70
            ),
        ),
        rocks=int(d.between(0, 14)),
    )


def forest_path(d: Draw) -> Plan:
    eye = d.between(1.9, 4.5)
    wood = d.one("conifer", "broad", "mixed", "birch")
    path = Ribbon(
        ids.PATH,
        d.between(1.8, 3.2),
        (eye * 0.8, d.between(-0.1, 0.1)),
        (d.between(70, 140), d.focus * 0.3),
        d.between(0.02, 0.07),
        d.between(1.2, 2.2),
        d.between(0, 6.28),
    )
    return Plan(
        "forest",
        d.seed,
        d.between(0.5, 0.6),
        d.between(0.46, 0.58),
        eye,
        near_cover=d.one(ids.GRASS, ids.EARTH),
        patches=((ids.PLANT, 0.14, 0.2), (ids.EARTH, 0.15, 0.15)),
        bumps=0.3,
        banks=(d.between(0, 0.3), d.between(0, 0.3)),
        ranges=d.hills(1800, 0.1, 1) if d.chance(0.5) else d.alps(7000, 0.18, 1),
        ribbons=(path,),
        forests=(d.wood(wood, 21, 2500, 0.68, 0.15, 210, 14),),
        plants=int(d.between(50, 120)),
        rocks=int(d.between(0, 20)),
        props=(d.prop("person", d.between(12, 25), d.focus * 0.1, 1.0),) if d.chance(0.3) else (),
    )


def ridges(d: Draw) -> Plan:
    """From a high place over chain behind chain."""
    eye = d.between(350, 800)
    count = int(d.between(4, 7))
    ranges = []
    for layer in range(count):
        distance = 24000 * 0.6**layer
        peaks = tuple(
            (d.between(-0.65, 0.65), d.between(0.75, 1.0), d.between(0.1, 0.25)) for _ in range(3)
        )
        crest = (
            d.between(0.05, 0.09) - 0.11 * layer / count
        )  # above the horizon at the back, below it in front
        ranges.append(
            Range(
                "massif" if layer < 2 and d.chance(0.4) else "alpine",
                distance,
                (eye / distance + crest) * 1.3,
                peaks,
                d.between(0.35, 0.6),
                front=0.2,
                back=0.2,
                frequency=d.between(2.6, 4.0),
                key=d.key(),
            )
        )
    return Plan(
        "ridges",
        d.seed,
        d.between(0.45, 0.6),
        d.between(0.36, 0.48),
        eye,
        near_cover=ids.ROCK,
        far_cover=d.one(ids.GRASS, ids.GRASS, ids.LAND),
        far_from=300,
        ranges=tuple(ranges),
        forests=(Forest("conifer", 900, 9000, d.between(0.5, 0.75), (0.0, 0.0), 24.0, 0, d.key()),),
    )
