"""What a training step of FlowSeg sees: crops of images with their label maps, by (seed, step),
with everything random drawn in NumPy.

Each random number belongs to a position of the global batch, so it is the same for any micro-batch,
any number of processes and any resume.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.flowseg.augment import augment, recolour
from jseg.flowseg.encoding import check_labels
from jseg.noise import generator
from jseg.training.sampling import BatchShards, positions

Batch = Tuple[Dict[str, object], float]  # arrays, weight
Load = Callable[[object], Tuple[np.ndarray, np.ndarray]]


class CropBatches:
    """Crops of size (width, height) from `examples`; load(example) gives (image uint8 [H, W, 3],
    label uint8 [H, W] of ids and 255).

    Called with a step, it yields this process's micro-batches as (batch, its weight: the fraction
    of the global batch). A batch has "images", uint8 [b, 3, h, w]; "labels", uint8 [b, h, w], 255
    for none; "t", float32 [b], even in [0, 1); and with `noise`, for a source that has some,
    "noise", float32 [b, 3, h, w]. Bytes are what a device gets; the loss makes codes of them there.

    classes: the number of them. scales: of `augment`. jitter: the strength of `recolour`, which has
    random numbers of its own, so the others are the same for any jitter. Images are read when they
    are needed: a data set need not fit into memory. Raises ValueError for labels outside the
    classes.
    """

    def __init__(
        self,
        examples: Sequence,
        load: Load,
        classes: int,
        size: Tuple[int, int],
        division: BatchShards,
        seed: int,
        scales: Tuple[float, float] = (0.5, 2.0),
        jitter: float = 0.0,
        noise: bool = True,
    ):
        self.examples, self.load, self.classes = list(examples), load, classes
        self.size, self.division = size, division
        self.seed, self.scales, self.jitter, self.noise = seed, scales, jitter, noise

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
        names = ("images", "labels", "t", "noise")
        batch = {name: np.stack(column) for name, column in zip(names, zip(*examples))}
        counts = batch["labels"] != IGNORED
        check_labels("CropBatches", batch["labels"], self.classes, counts)
        return batch

    def _example(self, index: int, step: int, position: int) -> Tuple:
        """(image [3, h, w], label, t and, where there is some, noise) at a position of the step's
        global batch.
        """
        rng, colours = (generator(self.seed, what, step, position) for what in ("crop", "colour"))
        pair = self.load(self.examples[index])
        image, label = augment(*pair, *self.size, rng, self.scales)
        image = recolour(image, colours, self.jitter).transpose(2, 0, 1)

        # The noise is drawn last: whether it is changes no other number.
        t = np.float32(min(rng.random(), 1 - 2.0**-24))  # float32 would round the largest to 1
        if not self.noise:
            return image, label, t
        return image, label, t, rng.standard_normal((3,) + label.shape, dtype=np.float32)
