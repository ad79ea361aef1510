"""The composer's words: random decisions of one scene, and ranges, woods and things placed about a
focal point near a third of the image.

Every word draws its random numbers after its arguments, in the order in which it is written: a
scene's plan is the sequence of its draws.
"""

from __future__ import annotations

from typing import List, Tuple

from jseg.landscapes.fractal import generator
from jseg.landscapes.plan import Forest, Prop, Range, Ribbon

Interval = Tuple[float, float]
Peak = Tuple[float, float, float]  # X', height factor, half width in X'


class Draw:
    """Random decisions of one scene, with the words a composer needs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = generator(seed, 3)
        self.side = 1 if self.rng.random() < 0.5 else -1  # the side on which the focal point lies
        self.focus = self.side * self.rng.uniform(0.14, 0.3)
        self.keys = 0

    def between(self, low: float, high: float) -> float:
        """A number of the interval."""
        return float(self.rng.uniform(low, high))

    def count(self, low: float, high: float) -> int:
        """A whole number from `low` on, below `high`."""
        return int(self.between(low, high))

    def chance(self, part: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < part)

    def one(self, *choices):
        """One of the choices, each as likely as the others."""
        return choices[int(self.rng.integers(len(choices)))]

    def key(self) -> int:
        """The next number for a part with random numbers of its own."""
        self.keys += 1
        return self.keys

    def view(self, tan_half: Interval, horizon: Interval) -> Tuple[float, float]:
        """(tan_half, horizon) of a plan, from two intervals."""
        return self.between(*tan_half), self.between(*horizon)

    def peak(self, place: Interval, height: Interval, width: Interval) -> Peak:
        """A peak from three intervals."""
        return self.between(*place), self.between(*height), self.between(*width)

    def chain(
        self,
        kind: str,
        distance: float,
        height: float,
        peaks: Tuple[Peak, ...],
        floor: float,
        extent: Interval = (Range.front, Range.back),
        frequency: float = Range.frequency,
    ) -> Range:
        """A range with a key of its own; `extent` is (front, back)."""
        front, back = extent
        return Range(kind, distance, height, peaks, floor, front, back, frequency, self.key())

    def alps(self, distance: float, height: float, layers: int = 2) -> Tuple[Range, ...]:
        """A main range with its summit at the focal point and lower ranges before or behind it."""
        peaks = [(self.focus, 1.0, self.between(0.12, 0.26))]
        for direction, away, tall, wide in (
            (-self.side, (0.35, 0.75), (0.45, 0.8), (0.1, 0.25)),
            (self.side, (0.2, 0.4), (0.35, 0.65), (0.1, 0.2)),
        ):
            away, tall, wide = self.peak(away, tall, wide)
            peaks.append((self.focus + direction * away, tall, wide))

        # A long crest of many peaks, or one mountain.
        if self.chance(0.45):
            peaks += [self.peak((-0.7, 0.7), (0.6, 0.95), (0.06, 0.16)) for _ in range(4)]
            kind, top, valley = "massif", height * 0.9, self.between(0.5, 0.7)
        else:
            kind, top, valley = "alpine", height, 0.3
        extent, steep = (self.between(0.32, 0.5), 0.4), self.between(2.4, 4.2)
        ranges = [self.chain(kind, distance, top, tuple(peaks), valley, extent, steep)]

        # The layers before it, one on either side of the focal point.
        for layer in range(1, layers):
            near = (-self.side * self.between(0.4, 0.75), 1.0, self.between(0.2, 0.35))
            far = (self.side * self.between(0.5, 0.8), self.between(0.5, 1.0), 0.2)
            top = height * self.between(0.5, 0.75) * 0.85**layer
            valley, steep = self.between(0.05, 0.2), self.between(2.6, 4.2)
            place = distance * 0.5**layer
            ranges.append(self.chain("alpine", place, top, (near, far), valley, (0.3, 0.3), steep))
        return tuple(ranges)

    def hills(self, distance: float, height: float, layers: int = 2) -> Tuple[Range, ...]:
        """Rounded chains, the farther ones higher."""
        chains = []
        for layer in range(layers):
            peaks = tuple(self.peak((-0.7, 0.7), (0.6, 1.0), (0.2, 0.45)) for _ in range(2))
            place, top = distance * 0.52**layer, height * 0.78**layer
            floor, steep = self.between(0.3, 0.5), self.between(1.6, 2.6)
            chains.append(self.chain("hill", place, top, peaks, floor, (0.35, 0.35), steep))
        return tuple(chains)

    def ribbon(
        self, label: int, width: float, near: Interval, far: Interval, bend: float, winds: float
    ) -> Ribbon:
        """A river, path or road that begins anywhere in its windings."""
        return Ribbon(label, width, near, far, bend, winds, self.between(0, 6.28))

    def wood(
        self,
        kind: str,
        near: float,
        far: float,
        amount: float,
        clear: float = 0.0,
        single: int = 70,
        height: float = 15.0,
    ) -> Forest:
        """A forest; `clear` is the half width about the focal point that it keeps free."""
        free = (self.focus, clear) if clear else (0.0, 0.0)
        tall = height * self.between(0.85, 1.2)
        return Forest(kind, near, far, amount, free, tall, single, self.key())

    def prop(
        self, kind: str, distance: float, x: float, size: float = 1.0, turn: float = 0.0
    ) -> Prop:
        """A thing on the ground."""
        return Prop(kind, distance, x, size, turn, self.key())

    def row(self, kind: str, distance: float, x: float, length: float) -> List[Prop]:
        """Two lengths of a fence or wall side by side, the second one farther out."""
        steps = (0, -self.side)
        return [self.prop(kind, distance, x + step * length / distance) for step in steps]

    def railing(self) -> Prop:
        """The railing of the viewing place itself, across the foreground."""
        return self.prop("railing", self.between(2.5, 3.4), 0.0, 1.0, self.between(-0.1, 0.1))

    def frame_tree(self, kind: str, eye: float) -> Prop:
        """A large tree on the side away from the focal point, which frames the view."""
        distance = max(eye * 3.2, 14) * self.between(1.0, 1.4)
        x = -self.side * self.between(0.4, 0.52)
        return self.prop("tree:" + kind, distance, x, distance * self.between(0.32, 0.5))
