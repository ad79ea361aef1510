"""Built and floating things as flat-shaded faces: houses, towers, bridges, piers, boats, ships, fences, walls, people and a few others."""
from dataclasses import replace
from typing import Callable, Dict, List, Tuple

import numpy as np

from jseg.scenery import ids
from jseg.scenery.canvas import Canvas
from jseg.scenery.fractal import generator
from jseg.scenery.relief import Ground, Plan, Prop
from jseg.scenery.scatter import Foothold
from jseg.scenery.style import Style, linear

WALLS = ("e8e2d4", "d8c8a8", "c4b49a", "b89878", "e4d8c8", "9c7a58", "a8a29a")
ROOFS = ("8a4a38", "6b4a3c", "5a5a60", "9a5a40", "705c48", "484c54")
HULLS = ("a83c30", "e8e4dc", "2f5a7c", "3c6a4c", "c8a04c", "70442c")


class Model:
    """Faces in local metres (right, up, forward), turned and set down at a place."""

    def __init__(self, style: Style, prop: Prop, label: int) -> None:
        self.style, self.prop, self.label = style, prop, label
        self.faces: List[Tuple[np.ndarray, np.ndarray, float]] = []

    def face(self, points, colour, glow: float = 0.0) -> None:
        self.faces.append((np.asarray(points, np.float64), np.asarray(colour, np.float32), glow))

    def box(self, x: float, y: float, z: float, width: float, height: float, depth: float, colour) -> None:
        """A box standing on (x, y, z), its centre in x and z."""
        left, right, front, back, top = x - width / 2, x + width / 2, z - depth / 2, z + depth / 2, y + height
        self.face([(left, y, front), (right, y, front), (right, top, front), (left, top, front)], colour)
        self.face([(right, y, back), (left, y, back), (left, top, back), (right, top, back)], colour)
        self.face([(left, y, back), (left, y, front), (left, top, front), (left, top, back)], colour)
        self.face([(right, y, front), (right, y, back), (right, top, back), (right, top, front)], colour)
        self.face([(left, top, front), (right, top, front), (right, top, back), (left, top, back)], colour)

    def gable(self, y: float, width: float, depth: float, rise: float, roof, wall, x: float = 0.0, over: float = 0.4) -> None:
        """A ridge roof along x over a box of the given ground plan."""
        left, right, front, back = x - width / 2, x + width / 2, -depth / 2, depth / 2
        self.face([(left, y, front), (left, y + rise, 0), (left, y, back)], wall)
        self.face([(right, y, back), (right, y + rise, 0), (right, y, front)], wall)
        drop = rise * over / (depth / 2)
        self.face([(left - over, y - drop, front - over), (right + over, y - drop, front - over), (right + over, y + rise, 0), (left - over, y + rise, 0)], roof)
        self.face([(right + over, y - drop, back + over), (left - over, y - drop, back + over), (left - over, y + rise, 0), (right + over, y + rise, 0)], roof)

    def tube(self, x: float, y: float, z: float, foot: float, top: float, height: float, colour, sides: int = 10) -> None:
        """A tapered round tower."""
        angle = np.arange(sides + 1) * 2 * np.pi / sides
        for a, b in zip(angle, angle[1:]):
            self.face([(x + foot * np.cos(b), y, z + foot * np.sin(b)), (x + foot * np.cos(a), y, z + foot * np.sin(a)),
                       (x + top * np.cos(a), y + height, z + top * np.sin(a)), (x + top * np.cos(b), y + height, z + top * np.sin(b))], colour)

    def windows(self, x: float, y: float, front: float, width: float, rows: int, columns: int, storey: float = 2.8) -> None:
        """Dark panes on the front, warm ones in the dark hours."""
        dark = self.style.hour in ("dusk", "night", "sunset")
        rng = generator(self.prop.key, 61)
        for row in range(rows):
            for column in range(columns):
                centre = x + (column + 0.5) / columns * width - width / 2
                low = y + 1.0 + row * storey
                half = min(width / columns * 0.26, 0.6)
                shines = dark and rng.random() < 0.6
                self.face([(centre - half, low, front), (centre + half, low, front), (centre + half, low + 1.3, front), (centre - half, low + 1.3, front)],
                          linear("ffd080") if shines else linear("3a4450"), 1.3 if shines else 0.0)

    def draw(self, canvas: Canvas, base: float) -> None:
        """Put the faces into the picture, far ones first, those that look away left out."""
        prop, style, view = self.prop, self.style, canvas.view
        cosine, sine = np.cos(prop.turn), np.sin(prop.turn)
        origin = np.array([prop.x * prop.distance, base, prop.distance])
        sun, eye, ready = style.direction(), np.array([0.0, view.eye, 0.0]), []
        for points, colour, glow in self.faces:
            points = points * prop.size
            world = np.stack((points[:, 0] * cosine + points[:, 2] * sine, points[:, 1], -points[:, 0] * sine + points[:, 2] * cosine), axis=1) + origin
            normal = np.cross(world[1] - world[0], world[2] - world[0])
            length = np.linalg.norm(normal)
            if length < 1e-9 or world[:, 2].min() < 0.3:
                continue
            normal = -normal / length
            if normal @ (eye - world.mean(axis=0)) <= 0:
                continue
            lamp = style.sun * max(float(normal @ sun), 0.0) + style.ambient * (0.62 + 0.38 * normal[1])
            ready.append((np.linalg.norm(world.mean(axis=0) - eye), world, colour * lamp + colour * glow))
        for distance, world, colour in sorted(ready, key=lambda face: -face[0]):
            outline = [canvas.place(*point[[0, 2, 1]]) for point in world]
            canvas.polygon(outline, colour, prop.distance * 0.965 - 0.6 * prop.size, self.label, float(world[:, 1].mean()))


def _house(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.HOUSE)
    wall, roof = linear(WALLS[int(rng.integers(len(WALLS)))]), linear(ROOFS[int(rng.integers(len(ROOFS)))])
    width, depth, height = rng.uniform(8, 13), rng.uniform(6, 8), rng.uniform(3.0, 5.4)
    if style.season == "winter":
        roof = roof * 0.35 + np.float32([0.8, 0.83, 0.88]) * 0.65
    model.box(0, -1.5, 0, width, height + 1.5, depth, wall)
    model.gable(height, width, depth, rng.uniform(2.2, 3.6), roof, wall)
    model.windows(0, 0, -depth / 2 - 0.02, width, 1 if height < 4.6 else 2, int(width // 2.6))
    model.box(width * 0.25, height + 1.2, depth * 0.15, 0.8, 2.4, 0.8, wall * 0.7)
    return model


def _block(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A town house of several storeys."""
    model = Model(style, prop, ids.BUILDING)
    wall, roof = linear(WALLS[int(rng.integers(len(WALLS)))]), linear(ROOFS[int(rng.integers(len(ROOFS)))])
    width, storeys = rng.uniform(7, 13), int(rng.integers(3, 6))
    height = storeys * 2.9 + 0.6
    model.box(0, -2, 0, width, height + 2, 10, wall)
    if rng.random() < 0.75:
        model.gable(height, width, 10, rng.uniform(2.0, 3.5), roof, wall, over=0.2)
    model.windows(0, 0.2, -5.02, width, storeys, int(width // 2.2))
    return model


def _church(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.BUILDING)
    wall, roof = linear("e2dccb"), linear(ROOFS[int(rng.integers(len(ROOFS)))])
    model.box(0, -1.5, 0, 16, 8.5, 8, wall)
    model.gable(7, 16, 8, 4.5, roof, wall)
    model.box(-10, -1.5, 0, 5, 17.5, 5, wall)
    tip = (-10, 27, 0)
    for a, b in (((-12.8, -2.8), (-7.2, -2.8)), ((-7.2, -2.8), (-7.2, 2.8)), ((-7.2, 2.8), (-12.8, 2.8)), ((-12.8, 2.8), (-12.8, -2.8))):
        model.face([(a[0], 16, a[1]), (b[0], 16, b[1]), tip], roof)
    model.windows(0, 1.5, -4.02, 15, 1, 4)
    return model


def _lighthouse(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.BUILDING)
    for part, (low, high, code) in enumerate(((-2, 5, "efe9dd"), (5, 10, "a83c30"), (10, 15, "efe9dd"), (15, 19, "a83c30"))):
        model.tube(0, low, 0, 2.9 - 0.07 * low, 2.9 - 0.07 * high, high - low, linear(code))
    model.tube(0, 19, 0, 2.1, 2.1, 0.5, linear("33363c"))
    model.tube(0, 19.5, 0, 1.1, 1.1, 2.2, linear("ffe2a0") if style.hour in ("dusk", "night", "sunset") else linear("8fa4b0"))
    model.tube(0, 21.7, 0, 1.4, 0.1, 1.4, linear("8a3028"))
    return model


def _keep(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A castle: round towers and a wall between them."""
    model = Model(style, prop, ids.BUILDING)
    stone, roof = linear("a89c88"), linear(ROOFS[int(rng.integers(len(ROOFS)))])
    model.box(0, -3, 0, 22, 12, 12, stone)
    for x, z, radius, height in ((-12, -5, 3.4, 17), (12, -5, 3.0, 15), (3, 3, 4.2, 23), (-12, 6, 2.8, 14)):
        model.tube(x, -3, z, radius, radius * 0.94, height + 3, stone)
        model.tube(x, height, z, radius * 1.18, 0.05, radius * 2.2, roof)
    model.windows(0, 3.5, -6.02, 20, 1, 5)
    return model


def _boat(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A rowing boat, or a sailing boat when the key is even."""
    model = Model(style, prop, ids.BOAT)
    hull, deck = linear(HULLS[int(rng.integers(len(HULLS)))]), linear("8a6c4c")
    sails = prop.key % 2 == 0
    _hull(model, 6.0 if sails else 4.2, 1.9 if sails else 1.5, 0.95 if sails else 0.6, hull, deck)
    if sails:
        cloth = linear("f2ede2") if rng.random() < 0.7 else linear("b8543c")
        model.box(0.2, 0.8, 0, 0.14, 8.2, 0.14, linear("7a5c40"))
        for points in ([(0.1, 1.7, 0), (-2.9, 1.7, 0.1), (0.1, 8.6, 0)], [(0.4, 1.5, 0), (2.9, 1.2, 0), (0.35, 7.6, 0)]):
            model.face(points, cloth)
            model.face(points[::-1], cloth)
    else:
        for x in (-0.9, 0.5):
            model.box(x, 0.38, 0, 0.3, 0.06, 1.2, linear("b08c60"))
    return model


def _hull(model: Model, length: float, beam: float, height: float, hull, deck) -> None:
    """A pointed hull along x with sheer."""
    x = np.linspace(-0.5, 0.5, 9)
    half = beam / 2 * np.clip(1 - (np.abs(x) * 2) ** 2.4 * np.where(x < 0, 0.75, 1.0), 0.02, 1)
    top = height * (1 + 0.35 * (np.abs(x) * 2) ** 2)
    for i in range(8):
        a, b = i, i + 1
        for side in (-1, 1):
            quad = [(x[a] * length * 0.93, -0.1, side * half[a] * 0.7), (x[b] * length * 0.93, -0.1, side * half[b] * 0.7),
                    (x[b] * length, top[b], side * half[b]), (x[a] * length, top[a], side * half[a])]
            model.face(quad if side < 0 else quad[::-1], hull)
            model.face(quad[::-1] if side < 0 else quad, hull * 0.55)
    rim = [(x[i] * length, top[i] * 0.72, -half[i]) for i in range(9)] + [(x[i] * length, top[i] * 0.72, half[i]) for i in range(8, -1, -1)]
    model.face(rim, deck)


def _ship(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.SHIP)
    hull, white = linear(("2b3440", "7c2f28", "1f3d56")[int(rng.integers(3))]), linear("eceae4")
    _hull(model, 95, 15, 8, hull, linear("8a8478"))
    model.box(-30, 8, 0, 16, 12, 11, white)
    model.box(-31, 20, 0, 7, 5, 6, linear("c8803c"))
    if rng.random() < 0.6:
        for x in (-12, 0, 12, 24):
            model.box(x, 8, 0, 10, rng.uniform(3, 7), 11, linear(("a8503c", "4c6a84", "7c8a5c", "b89450")[int(rng.integers(4))]))
    else:
        model.box(5, 8, 0, 48, 5, 11, white)
        model.box(2, 13, 0, 40, 3, 9, white)
    model.box(34, 8, 0, 0.8, 12, 0.8, white)
    return model


def _person(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.PERSON)
    coat = linear(("b03a30", "2f4f7c", "d0a03c", "3c6a50", "50484c")[int(rng.integers(5))])
    for x in (-0.12, 0.12):
        model.box(x, 0, 0, 0.19, 0.85, 0.2, linear("343844"))
    model.box(0, 0.8, 0, 0.5, 0.66, 0.3, coat)
    for x in (-0.31, 0.31):
        model.box(x, 0.78, 0, 0.14, 0.62, 0.18, coat * 0.9)
    model.tube(0, 1.48, 0, 0.13, 0.15, 0.14, linear("b88a6c"), 6)
    model.tube(0, 1.62, 0, 0.16, 0.07, 0.16, linear("4a3626"), 6)
    return model


def _bale(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A round hay bale."""
    model = Model(style, prop, ids.OTHER)
    straw = linear("c8a860")
    angle = np.arange(13) * 2 * np.pi / 12
    ring = np.stack((0.8 * np.cos(angle), 0.8 + 0.8 * np.sin(angle)), axis=1)
    for (y0, h0), (y1, h1) in zip(ring, ring[1:]):
        model.face([(y0, h0, -0.7), (y1, h1, -0.7), (y1, h1, 0.7), (y0, h0, 0.7)], straw)
    model.face([(y, h, -0.7) for y, h in ring[:-1]], straw * 0.8)
    return model


def _turbine(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    model = Model(style, prop, ids.OTHER)
    white = linear("e8e8e6")
    model.tube(0, -2, 0, 1.8, 1.0, 62, white, 8)
    model.box(0, 59, -1, 2.6, 2.6, 6, white)
    start = rng.uniform(0, 2 * np.pi)
    for blade in range(3):
        along = np.array([np.cos(start + blade * 2.0944), np.sin(start + blade * 2.0944)])
        side = np.array([-along[1], along[0]])
        corners = [along * 1.2 - side * 0.7, along * 9 - side * 1.6, along * 31, along * 8 + side * 0.6, along * 1.2 + side * 0.7]
        points = [(corner[0], 60.3 + corner[1], -4.2) for corner in corners]
        model.face(points, white)
        model.face(points[::-1], white)
    return model


def _post(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A signpost."""
    model = Model(style, prop, ids.OTHER)
    wood = linear("7a6248")
    model.box(0, -0.2, 0, 0.14, 2.5, 0.14, wood)
    for y, side in ((2.0, 1), (1.65, -1)):
        model.face([(-0.2 * side, y, -0.09), (0.9 * side, y, -0.09), (1.05 * side, y + 0.13, -0.09), (0.9 * side, y + 0.26, -0.09),
                    (-0.2 * side, y + 0.26, -0.09)][::side], wood * 1.3)
    return model


def _pier(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A plank deck on posts, along local z."""
    model = Model(style, prop, ids.PIER)
    length, wood = 24.0, linear("8d7a62")
    for z in np.arange(0.5, length, 3.0):
        for x in (-0.95, 0.95):
            model.box(x, -2.0, z, 0.22, 3.3 if z > 1 else 2.7, 0.22, wood * 0.6)
    model.box(0, 0.45, length / 2, 2.1, 0.16, length, wood * 0.75)
    edges = np.linspace(0, length, 41)
    for near, far in zip(edges, edges[1:]):
        tone = 0.8 + 0.35 * rng.random()
        model.face([(-1.1, 0.64, near), (1.1, 0.64, near), (1.1, 0.64, far - 0.05), (-1.1, 0.64, far - 0.05)], wood * tone)
    return model


def _fence(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """Posts and two rails along local x."""
    model = Model(style, prop, ids.FENCE)
    wood = linear("8a7458") if rng.random() < 0.6 else linear("d8d4ca")
    for x in np.arange(-12, 12.1, 2.4):
        model.box(x, -0.4, 0, 0.16, 1.65, 0.16, wood)
    for y in (0.45, 0.95):
        model.box(0, y, 0, 24, 0.13, 0.07, wood * 0.92)
    return model


def _wall(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A dry stone wall along local x: courses of uneven stones."""
    model = Model(style, prop, ids.WALL)
    stone = linear("948a7c")
    model.box(0, -0.6, 0.02, 20, 1.6, 0.5, stone * 0.6)
    for course in range(5):
        x = -10 + 0.3 * (course % 2)
        while x < 9.8:
            width = min(rng.uniform(0.45, 1.0), 10 - x)
            low = -0.2 + course * 0.25 + rng.uniform(-0.01, 0.01)
            model.face([(x, low, -0.26), (x + width - 0.05, low, -0.26), (x + width - 0.06, low + 0.22, -0.26), (x + 0.02, low + 0.22, -0.26)],
                       stone * rng.uniform(0.75, 1.25))
            x += width
    return model


def _quay(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A long embankment wall along local x."""
    model = Model(style, prop, ids.WALL)
    stone = linear("9a9082")
    for x in np.arange(-100, 100, 8.0):
        model.box(x + 4, -1.5, 0, 7.9, 3.4, 1.0, stone * rng.uniform(0.85, 1.1))
    return model


def _railing(style: Style, prop: Prop, rng: np.random.Generator) -> Model:
    """A metal railing of a viewing place along local x."""
    model = Model(style, prop, ids.RAILING)
    metal = linear("40464c") if rng.random() < 0.6 else linear("c8ccd0")
    for x in np.arange(-9, 9.05, 0.6):
        model.box(x, -0.1, 0, 0.045 if round(x / 0.6) % 4 else 0.09, 1.15, 0.045, metal)
    for y, thick in ((1.02, 0.09), (0.12, 0.05)):
        model.box(0, y, 0, 18, thick, 0.07, metal)
    return model


def _bridge(canvas: Canvas, style: Style, prop: Prop, rng: np.random.Generator, level: float) -> None:
    """A stone bridge with round arches across the view; `size` is its span in metres."""
    stone = linear("a89880") if rng.random() < 0.7 else linear("9a9a98")
    span, arches = prop.size, max(int(prop.size // 16), 1)
    rise = span / arches * 0.36
    deck = level + rise + 1.6
    z, centre = prop.distance, prop.x * prop.distance
    sun = style.direction()
    def lamp(normal):
        return style.sun * max(float(np.dot(normal, sun)), 0.0) + style.ambient * (0.62 + 0.38 * normal[1])
    for back, shade in ((5.0, 0.5), (0.0, 1.0)):
        top = [(centre + part * span * 0.5, deck + 0.9 + 0.05 * span * (1 - part * part)) for part in np.linspace(-1.35, 1.35, 15)]
        outline = top + [(centre + span * 0.68, level - 2), (centre - span * 0.68, level - 2)]
        contours = [outline]
        for arch in range(arches):
            middle, half = centre + span * ((arch + 0.5) / arches - 0.5), span / arches * 0.43
            angle = np.linspace(0, np.pi, 17)
            contours.append([(middle + half * np.cos(a), level - 0.3 + rise * np.sin(a)) for a in angle])
        canvas.polygon_set([[canvas.place(x, z + back, y) for x, y in contour] for contour in contours], stone * lamp((0, 0, -1)) * shade,
                           (z + back) * 0.985, ids.BRIDGE)
    lip = [canvas.place(x, z - 0.3, y) for x, y in top] + [canvas.place(x, z - 0.3, y - 0.5) for x, y in top[::-1]]
    canvas.polygon(lip, stone * lamp((0, 0.5, -0.87)) * 1.15, z * 0.98, ids.BRIDGE)


MODELS: Dict[str, Callable] = {"house": _house, "block": _block, "church": _church, "lighthouse": _lighthouse, "castle": _keep, "boat": _boat,
                               "ship": _ship, "person": _person, "bale": _bale, "turbine": _turbine, "post": _post, "pier": _pier,
                               "fence": _fence, "wall": _wall, "quay": _quay, "railing": _railing}
AFLOAT = ("boat", "ship", "pier")
OVER_WATER = ("railing", "quay", "block", "church", "castle")


def draw(plan: Plan, canvas: Canvas, ground: Ground) -> None:
    """Put the plan's props (trees excepted) into the picture, far ones first."""
    foot = Foothold(ground)
    for prop in sorted(plan.props, key=lambda one: -one.distance):
        rng = generator(plan.seed, 53, prop.key)
        if prop.kind == "bridge":
            _bridge(canvas, canvas.style, prop, rng, ground.level)
        elif prop.kind in MODELS:
            if not foot.dry(prop.x, prop.distance) and prop.kind not in AFLOAT + OVER_WATER:
                continue
            if prop.kind == "pier":
                prop = replace(prop, distance=foot.shore(prop.x, prop.distance) - 1.5 * prop.size)
            base = ground.level if prop.kind in AFLOAT else max(foot.height(prop.x, prop.distance), ground.level)
            MODELS[prop.kind](canvas.style, prop, rng).draw(canvas, base)
