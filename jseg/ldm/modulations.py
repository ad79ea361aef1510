"""The SPADE modulations of guided steps: of the label maps and, behind them, of the null map; kept
for all steps, or computed again at every step.

They depend on neither x nor t, so a stage computes them once, 388 MB per label map at release size.
Kept in full, a guided step has those of its label maps and, once for all of them, the null map's.
The null map's are the same at every position that does not touch the border: nine positions stand
for all of them, so they cost neither work nor memory until they are laid out behind a label map's.

With little memory (`low`) the modulations of large maps are computed again in every step, block by
block. A byte of any modulation stands for 290 to 304 multiply-adds, so what is kept is decided by
their speed: small maps convolve slowest and hold the least (docs/benchmarks.md, "Memory of a guided
step").
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from jseg.ldm.blocks import LabelMaps, Modulation, SpadeResBlock
from jseg.runtime import jt

Modulations = Tuple[Modulation, Modulation]  # of both norms of a block
KEPT_POSITIONS = 24 * 32  # of the largest map whose modulations are kept with little memory
BORDER = 3  # a side of the null map whose inner position has no border beside it


class WithNull(NamedTuple):
    """The modulations of one block for guidance: those of the label maps and, behind them, those of
    the null map, once; group norm takes the last for all images beyond.
    """

    kept: Modulations  # each [B + 1, C, h, w]

    @property
    def batch(self) -> int:
        return 2 * (self.kept[0][0].shape[0] - 1)


class OnDemand(NamedTuple):
    """The modulations of one block, computed where the block runs and dropped behind it."""

    block: SpadeResBlock
    maps: LabelMaps
    null: Optional[Modulations] = None  # the null map's nine positions, for guidance

    @property
    def batch(self) -> int:
        return self.maps.map_in.shape[0] * (1 if self.null is None else 2)

    def modulations(self) -> Modulations:
        """Those of the label maps, then for guidance those of the null map, once."""
        modulations = self.block.condition(*self.maps)
        return modulations if self.null is None else _stacked(modulations, self.null)


def conditions(unet, y, low: bool = False) -> List:
    """What `UNet.decode` takes for the one-hot maps y [B, classes, h, w]: a block's modulations, or
    with `low` for large maps `OnDemand`.
    """
    entries = []
    for block, maps in zip(unet.conditioned_blocks(), unet.label_maps(y)):
        height, width = maps.map_out.shape[2:]
        again = low and height * width > KEPT_POSITIONS
        entries.append(OnDemand(block, maps) if again else block.condition(*maps))
    return entries


def with_null(unet, y, conditional: List) -> List:
    """The same with the null map behind the label maps: for decoding both branches at once."""
    entries = []
    for block, maps, entry in zip(unet.conditioned_blocks(), unet.label_maps(y), conditional):
        null = block.condition(*(_null_map(m) for m in maps))
        again = isinstance(entry, OnDemand)
        entries.append(entry._replace(null=null) if again else WithNull(_stacked(entry, null)))
    return entries


def variables(entries) -> List:
    """All Vars that the entries hold."""
    if isinstance(entries, jt.Var):
        return [entries]
    if isinstance(entries, OnDemand):
        return variables([entries.maps, entries.null or ()])
    return [v for entry in entries for v in variables(entry)]


def _null_map(label_map):
    """The all-zero map [1, classes, h, w] of a map's size, cut to three positions a side."""
    _, classes, height, width = label_map.shape
    return jt.zeros((1, classes, min(height, BORDER), min(width, BORDER)), label_map.dtype)


def _stacked(modulations: Modulations, null: Modulations) -> Modulations:
    """The modulations of label maps [B, C, h, w] and the null map's, laid out, behind them:
    [B + 1, C, h, w].
    """

    def pair(ours, theirs):
        return tuple(jt.concat([a, _whole_map(b, a.shape)], dim=0) for a, b in zip(ours, theirs))

    return tuple(pair(ours, theirs) for ours, theirs in zip(modulations, null))


def _whole_map(positions, shape):
    """Nine positions [1, C, 3, 3] as a map [1, C, h, w]: corners, edges and the inside."""
    rows, columns = (_nearest(side) for side in shape[2:])
    formulas = ["0", "i1", "@e0(i2)", "@e1(i3)"]
    return positions.reindex([1, *shape[1:]], formulas, extras=[rows, columns])


def _nearest(side: int):
    """Which of three positions stands for each of `side`: the first, the last, or the inner one."""
    places = np.minimum(np.arange(side), 1)
    places[-1] = min(side, BORDER) - 1
    return jt.array(places.astype(np.int32))
