"""What a training step sees: examples by (seed, step) with everything random about them drawn in
NumPy.

Each draw belongs to a position of the global batch, so it is the same for any micro-batch, any
number of processes and any resume. A batches object called with a step gives this process's
micro-batches as (batch, weight), the weight being its fraction of the global batch.
"""

from __future__ import annotations

from typing import Dict, Iterator, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.images import read_image, resize_image, to_signed
from jseg.ldm.schedule import TIMESTEPS
from jseg.noise import generator
from jseg.training.sampling import BatchShards, positions

Batch = Tuple[Dict[str, object], float]


class ImageBatches:
    """Images for the autoencoder: scaled to cover width x height, then cropped to crop_width x
    crop_height and mirrored at random.

    Batch: {"images": float32 [b, 3, crop_height, crop_width] in [-1, 1], "step": int}. Images
    are read when they are needed.
    """

    def __init__(
        self,
        paths: Sequence,
        size: Tuple[int, int],
        crop: Tuple[int, int],
        division: BatchShards,
        seed: int,
    ):
        self.paths, self.division, self.seed = list(paths), division, seed
        self.size, self.crop = size, crop

    def __call__(self, step: int) -> Iterator[Batch]:
        order = positions(len(self.paths), self.division.batch_size, step, self.seed)
        for part, weight in self.division.parts():
            draws = [generator(self.seed, "crop", step, i) for i in part]
            images = [self.image(order[i], rng, self.crop) for i, rng in zip(part, draws)]
            batch = {"images": np.stack([to_signed(image) for image in images]), "step": step}
            yield batch, weight

    def first(self, count: int) -> Dict[str, object]:
        """`count` examples of step 0 as one micro-batch."""
        division = BatchShards(count, count)
        batches = ImageBatches(self.paths, self.size, self.crop, division, self.seed)
        return next(batches(0))[0]

    def image(self, index: int, rng: np.random.Generator, crop: Tuple[int, int]) -> np.ndarray:
        """uint8 [height, width, 3] of crop = (width, height): image `index`, its place and
        mirroring drawn from `rng`.
        """
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        scale = max(self.size[0] / width, self.size[1] / height)
        width, height = (
            max(least, round(side * scale)) for least, side in zip(self.size, (width, height))
        )
        image = resize_image(image, width, height)

        left = rng.integers(image.shape[1] - crop[0] + 1)
        top = rng.integers(image.shape[0] - crop[1] + 1)
        image = image[top : top + crop[1], left : left + crop[0]]
        return image[:, ::-1] if rng.integers(2) else image


class LatentBatches:
    """Latents with their label maps, timesteps and noise for the UNet.

    Batch: {"z": float32 [b, 3, h, w], "labels": uint8 [b, h, w] (255: nothing is known), "t": int64
    [b], "noise": float32 [b, 3, h, w], "seed", "step", "start": the position of the first, where
    dropout begins}. drop: the probability that a whole label map is withheld, for guidance. Mirror
    images are examples of their own, as in the release.
    """

    def __init__(
        self,
        latents: np.ndarray,
        labels: np.ndarray,
        division: BatchShards,
        seed: int,
        drop: float = 0.2,
    ):
        self.latents, self.labels, self.division = latents, labels, division
        self.seed, self.drop = seed, drop

    def __call__(self, step: int) -> Iterator[Batch]:
        order = positions(len(self.latents), self.division.batch_size, step, self.seed)
        for part, weight in self.division.parts():
            indices = order[part.start : part.stop]
            t, dropped, noise = zip(*(self._draws(step, i) for i in part))

            # A label map that is withheld says nothing anywhere.
            labels = np.stack([self.labels[index] for index in indices])
            labels[np.array(dropped)] = IGNORED
            batch = {
                "z": np.stack([self.latents[index] for index in indices]).astype(np.float32),
                "labels": labels,
                "t": np.array(t, np.int64),
                "noise": np.stack(noise),
                "seed": self.seed,
                "step": step,
                "start": part.start,
            }
            yield batch, weight

    def first(self, count: int) -> Dict[str, object]:
        """The first `count` examples of step 0 as one micro-batch."""
        division = BatchShards(count, count)
        batches = LatentBatches(self.latents, self.labels, division, self.seed, self.drop)
        return next(batches(0))[0]

    def _draws(self, step: int, position: int):
        """(timestep, whether the label map is withheld, noise) of a position."""
        rng = generator(self.seed, "noise", step, position)
        t, dropped = int(rng.integers(TIMESTEPS)), bool(rng.random() < self.drop)
        return t, dropped, rng.standard_normal(self.latents.shape[1:], dtype=np.float32)
