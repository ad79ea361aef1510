"""What a training step of FlowSeg sees: crops of images with their codes, by (seed, step), with
everything random drawn in NumPy.

Each random number belongs to a position of the global batch, so it is the same for any micro-batch,
any number of processes and any resume.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.flowseg.augment import augment, recolour
from jseg.flowseg.encoding import encode
from jseg.images import to_signed
from jseg.noise import generator
from jseg.training.sampling import BatchShards, positions

Batch = Tuple[Dict[str, object], float]  # arrays, weight
Load = Callable[[object], Tuple[np.ndarray, np.ndarray]]


class CropBatches:
    """Crops of size (width, height) from `examples`; load(example) gives (image uint8 [H, W, 3],
    label uint8 [H, W] of ids and 255).

    Called with a step, it yields this process's micro-batches as (batch, its weight: the fraction
    of the global batch). A batch has "images", float32 [b, 3, h, w] in [-1, 1]; "labels", uint8
    [b, h, w], 255 for none; "x1", float32 [b, 3, h, w], the codes, 0 without a label; "mask",
    float32 [b, 1, h, w], 1 with a label; "t", float32 [b], even in [0, 1); "noise", float32 [b, 3,
    h, w].

    codes: [N, 3]. scales: of `augment`. jitter: the strength of `recolour`, which has
    random numbers of its own, so the others are the same for any jitter. Images are read when they
    are needed: a data set need not fit into memory.
    """

    def __init__(
        self,
        examples: Sequence,
        load: Load,
        codes: np.ndarray,
        size: Tuple[int, int],
        division: BatchShards,
        seed: int,
        scales: Tuple[float, float] = (0.5, 2.0),
        jitter: float = 0.0,
    ):
        self.examples, self.load, self.codes = list(examples), load, codes
        self.size, self.division = size, division
        self.seed, self.scales, self.jitter = seed, scales, jitter

    def __call__(self, step: int) -> Iterator[Batch]:
        order = positions(len(self.examples), self.division.batch_size, step, self.seed)
        for part, weight in self.division.parts():
            yield self._batch(step, [(order[i], i) for i in part]), weight

    def first(self, count: int) -> Dict[str, object]:
        """The first `count` examples of step 0 as one micro-batch."""
        order = positions(len(self.examples), count, 0, self.seed)
        return self._batch(0, [(order[i], i) for i in range(count)])

    def _batch(self, step: int, places: Sequence[Tuple[int, int]]) -> Dict[str, object]:
        examples = [self._example(index, step, position) for index, position in places]
        images, labels, t, noise = (np.stack(column) for column in zip(*examples))
        x1, mask = encode(labels, self.codes, IGNORED)
        arrays = {"images": images, "labels": labels, "x1": x1, "mask": mask}
        return {**arrays, "t": t, "noise": noise}

    def _example(self, index: int, step: int, position: int):
        """(image, label, t, noise) at a position of the step's global batch."""
        rng, colours = (generator(self.seed, what, step, position) for what in ("crop", "colour"))
        pair = self.load(self.examples[index])
        image, label = augment(*pair, *self.size, rng, self.scales)
        t = np.float32(min(rng.random(), 1 - 2.0**-24))  # float32 would round the largest to 1
        noise = rng.standard_normal((3,) + label.shape, dtype=np.float32)
        return to_signed(recolour(image, colours, self.jitter)), label, t, noise
