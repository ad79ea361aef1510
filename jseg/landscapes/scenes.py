"""The kinds of scene and how often each is drawn."""

from __future__ import annotations

from typing import Callable, Dict, Tuple

import numpy as np

from jseg.landscapes import inland, waterside
from jseg.landscapes.compose import Draw
from jseg.landscapes.fractal import generator
from jseg.landscapes.plan import Plan

KINDS: Dict[str, Tuple[float, Callable[[Draw], Plan]]] = {
    "lake": (1.7, waterside.alpine_lake),
    "shore": (1.3, waterside.seashore),
    "sea": (0.8, waterside.open_sea),
    "river": (1.2, waterside.river_valley),
    "meadow": (1.3, inland.meadow),
    "farm": (1.0, inland.farmland),
    "desert": (1.0, inland.desert),
    "pass": (0.8, inland.pass_road),
    "snow": (1.0, inland.snow),
    "waterfront": (0.7, waterside.waterfront),
    "forest": (0.9, inland.forest_path),
    "ridges": (0.5, inland.ridges),
    "waterfall": (0.45, waterside.waterfall),
    "headland": (0.7, waterside.headland),
}


def make_plan(seed: int, kind: str = "") -> Plan:
    """The geometry of a seed; `kind` forces one of KINDS."""
    rng = generator(seed, 2)
    names = list(KINDS)
    weights = np.array([KINDS[name][0] for name in names])
    drawn = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    return KINDS[kind or drawn][1](Draw(seed))
