"""One network out of a file that holds others: where its arrays are, and what is left out.

Nothing here knows a network; jseg/ldm/conversion.py and jseg/flowseg/conversion.py do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Tuple

Shapes = Mapping[str, Tuple[int, ...]]


@dataclass
class Extraction:
    """A network in a file: its configuration, its shapes, and for each of its names the file's."""

    config: object = None
    shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)
    sources: Dict[str, str] = field(default_factory=dict)
    renamed: List[Tuple[str, str]] = field(default_factory=list)
    reshaped: List[str] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)  # how many arrays were left out, by group

    def own_shapes(self, shapes: Shapes) -> Dict[str, Tuple[int, ...]]:
        """The file's `shapes` of this network's arrays, under the network's names."""
        return {own: tuple(shapes[name]) for own, name in self.sources.items()}

    def complete(self, config: object, layout: Shapes, shapes: Shapes) -> None:
        """Take over the configuration and its layout; note shapes that differ by trailing ones."""
        self.config, self.shapes = config, dict(layout)
        given = self.own_shapes(shapes)
        self.reshaped = [
            name
            for name, shape in self.shapes.items()
            if given.get(name, shape) != shape
            and _without_ones(given[name]) == _without_ones(shape)
        ]


def scopes(shapes: Shapes, mark: str) -> List[str]:
    """The prefixes in front of the name `mark`: a first stage's first, then by length."""
    names = [name for name in shapes if name == mark or name.endswith("." + mark)]
    prefixes = [name[: -len(mark)] for name in names]
    return sorted(
        prefixes, key=lambda scope: (not scope.endswith("first_stage_model."), len(scope), scope)
    )


def inside(shapes: Shapes, scope: str) -> Extraction:
    """The arrays under a prefix, by their names without it.

    The others are dropped, and counted by the first part of their names.
    """
    result = Extraction()
    for name in shapes:
        if name.startswith(scope):
            result.sources[name[len(scope) :]] = name
        else:
            result.dropped[name.split(".")[0] + (".*" if "." in name else "")] += 1
    if scope:
        result.renamed.append((f"{scope}*", "*"))
    return result


def _without_ones(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    shape = tuple(shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
