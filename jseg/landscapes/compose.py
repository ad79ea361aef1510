"""The composer's words: random decisions of one scene, ranges, woods and things placed about a
focal point near a third.
"""

from __future__ import annotations

from typing import Tuple

from jseg.landscapes.fractal import generator
from jseg.landscapes.plan import Forest, Prop, Range


class Draw:
    """Random decisions of one scene, with the words a composer needs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = generator(seed, 3)
        self.side = 1 if self.rng.random() < 0.5 else -1  # the side on which the focal point lies
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

    def alps(
        self, distance: float, height: float, layers: int = 2, floor: float = 0.3
    ) -> Tuple[Range, ...]:
        """A main range with its summit at the focal point and lower ranges before or behind it."""
        summit = (self.focus, 1.0, self.between(0.12, 0.26))
        others = [
            (
                self.focus - self.side * self.between(0.35, 0.75),
                self.between(0.45, 0.8),
                self.between(0.1, 0.25),
            ),
            (
                self.focus + self.side * self.between(0.2, 0.4),
                self.between(0.35, 0.65),
                self.between(0.1, 0.2),
            ),
        ]
        many = self.chance(0.45)  # a long crest of many peaks, or one mountain
        if many:
            others += [
                (self.between(-0.7, 0.7), self.between(0.6, 0.95), self.between(0.06, 0.16))
                for _ in range(4)
            ]
        ranges = [
            Range(
                "massif" if many else "alpine",
                distance,
                height * (0.9 if many else 1.0),
                (summit, *others),
                self.between(0.5, 0.7) if many else floor,
                front=self.between(0.32, 0.5),
                back=0.4,
                frequency=self.between(2.4, 4.2),
                key=self.key(),
            )
        ]
        for layer in range(1, layers):
            near = distance * 0.5**layer
            peaks = (
                (-self.side * self.between(0.4, 0.75), 1.0, self.between(0.2, 0.35)),
                (self.side * self.between(0.5, 0.8), self.between(0.5, 1.0), 0.2),
            )
            ranges.append(
                Range(
                    "alpine",
                    near,
                    height * self.between(0.5, 0.75) * 0.85**layer,
                    peaks,
                    self.between(0.05, 0.2),
                    front=0.3,
                    back=0.3,
                    frequency=self.between(2.6, 4.2),
                    key=self.key(),
                )
            )
        return tuple(ranges)

    def hills(self, distance: float, height: float, layers: int = 2) -> Tuple[Range, ...]:
        """Rounded chains, the farther ones higher."""
        chain = []
        for layer in range(layers):
            peaks = tuple(
                (self.between(-0.7, 0.7), self.between(0.6, 1.0), self.between(0.2, 0.45))
                for _ in range(2)
            )
            chain.append(
                Range(
                    "hill",
                    distance * 0.52**layer,
                    height * 0.78**layer,
                    peaks,
                    self.between(0.3, 0.5),
                    front=0.35,
                    back=0.35,
                    frequency=self.between(1.6, 2.6),
                    key=self.key(),
                )
            )
        return tuple(chain)

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
        return Forest(
            kind,
            near,
            far,
            amount,
            (self.focus, clear) if clear else (0.0, 0.0),
            height * self.between(0.85, 1.2),
            single,
            self.key(),
        )

    def prop(
        self, kind: str, distance: float, x: float, size: float = 1.0, turn: float = 0.0
    ) -> Prop:
        return Prop(kind, distance, x, size, turn, self.key())

    def railing(self) -> Prop:
        """The railing of the viewing place itself, across the foreground."""
        return self.prop("railing", self.between(2.5, 3.4), 0.0, 1.0, self.between(-0.1, 0.1))

    def frame_tree(self, kind: str, eye: float) -> Prop:
        """A large tree on the side away from the focal point, which frames the view."""
        distance = max(eye * 3.2, 14) * self.between(1.0, 1.4)
        return self.prop(
            "tree:" + kind,
            distance,
            -self.side * self.between(0.4, 0.52),
            distance * self.between(0.32, 0.5),
        )
