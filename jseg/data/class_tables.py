"""Names and colours of the class sets that ship.

Sources: the README of the official IIDM release (landscape ids 0..28); the ADE20K scene-parsing
challenge's objectInfo150; the COCO-Stuff label list (labels 1..182, eleven of them never annotated,
stored minus one); the SegNet tutorial (CamVid).
"""

from __future__ import annotations

from typing import Tuple

import numpy as np


def _table(text: str) -> Tuple[Tuple[str, ...], np.ndarray]:
    """(names, colours uint8 [N, 3]) of lines NAME R G B."""
    rows = [line.rsplit(None, 3) for line in text.strip().splitlines()]
    colours = [[int(value) for value in row[1:]] for row in rows]
    return tuple(row[0].strip() for row in rows), np.array(colours, np.uint8)


def _names(text: str) -> Tuple[str, ...]:
    return tuple(name.strip() for name in " ".join(text.split()).split(","))


LANDSCAPE, LANDSCAPE_COLOURS = _table("""
    mountain   120 108 148
    sky        170 214 245
    water       84 164 206
    sea         22  96 168
    rock       150 146 138
    tree        34  96  46
    earth      134  94  58
    hill       132 150  84
    river       52 134 190
    sand       236 214 160
    land       176 140  92
    building   186  92  78
    grass      122 186  72
    plant       72 146  84
    person     236  64 122
    boat       250 250 240
    waterfall  204 234 238
    wall       198 178 164
    pier       110  72  44
    path       214 184 128
    lake        44 160 172
    bridge     112  64  96
    field      206 202  96
    road        92  92  98
    railing    160  60  40
    fence      190 130  50
    ship        60  50 110
    house      230 130  90
    other       40  40  40
""")

CAMVID, CAMVID_COLOURS = _table("""
    sky         128 128 128
    building    128   0   0
    pole        192 192 128
    road        128  64 128
    pavement     60  40 222
    tree        128 128   0
    sign/symbol 192 128 128
    fence        64  64 128
    car          64   0 128
    pedestrian   64  64   0
    bicyclist     0 128 192
""")

ADE20K = _names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
    person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa,
    shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter, sand,
    sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
    pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower,
    book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight,
    booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator,
    ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
    plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
    ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen,
    blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen,
    plate, monitor, bulletin board, shower, radiator, glass, clock, flag
""")

COCO_STUFF = _names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
    hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
    zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
    ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
    glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
    dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book,
    clock, vase, scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch, bridge,
    building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
    clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-
    marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit,
    furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-
    stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic,
    platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
    shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other,
    table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
    wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-
    other, wood
""")
COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # numbers that no label file has
