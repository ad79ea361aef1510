"""What a training step sees: examples by (seed, step) with everything random about them drawn in
NumPy.

Each draw belongs to a position of the global batch, so it is the same for any micro-batch, any
number of processes and any resume. A batches object called with a step gives this process's
micro-batches as (batch, share of the global batch).
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
        self.paths, self.size, self.crop, self.division, self.seed = (
            list(paths),
            size,
            crop,
            division,
            seed,
        )

    def __call__(self, step: int) -> Iterator[Batch]:
        order = positions(len(self.paths), self.division.batch_size, step, self.seed)
        for part, share in self.division.parts():
            images = [
                self.image(order[i], generator(self.seed, "crop", step, i), self.crop) for i in part
            ]
            yield (
                {"images": np.stack([to_signed(image) for image in images]), "step": step},
                share,
            )

    def first(self, count: int) -> Dict[str, object]:
        """`count` examples of step 0 as one micro-batch."""
        return next(
            ImageBatches(self.paths, self.size, self.crop, BatchShards(count, count), self.seed)(0)
        )[0]

    def image(self, index: int, rng: np.random.Generator, crop: Tuple[int, int]) -> np.ndarray:
        """uint8 [height, width, 3] of crop = (width, height): image `index`, its place and
        mirroring drawn from `rng`.
        """
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        scale = max(self.size[0] / width, self.size[1] / height)
        image = resize_image(
            image,
            max(self.size[0], round(width * scale)),
            max(self.size[1], round(height * scale)),
        )
        left = rng.integers(image.shape[1] - crop[0] + 1)
        top = rng.integers(image.shape[0] - crop[1] + 1)
        image = image[top : top + crop[1], left : left + crop[0]]
        return image[:, ::-1] if rng.integers(2) else image


class LatentBatches:
    """Latents with their label maps, timesteps and noise for the UNet.

    Batch: {"z": float32 [b, 3, h, w], "labels": uint8 [b, h, w] (255: nothing is known), "t": int64
    [b], "noise": float32 [b, 3, h, w], "seed", "step", "start": where dropout begins (the position
    of the first)}. `drop`: the probability that a whole label map is withheld, for guidance. Mirror
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
        self.latents, self.labels, self.division, self.seed, self.drop = (
            latents,
            labels,
            division,
            seed,
            drop,
        )

    def __call__(self, step: int) -> Iterator[Batch]:
        order = positions(len(self.latents), self.division.batch_size, step, self.seed)
        for part, share in self.division.parts():
            chosen = order[part.start : part.stop]
            draws = [self._drawn(step, i) for i in part]
            labels = np.stack(
                [
                    np.full_like(self.labels[index], IGNORED) if dropped else self.labels[index]
                    for index, (_, dropped, _) in zip(chosen, draws)
                ]
            )
            yield (
                {
                    "z": np.stack([self.latents[index] for index in chosen]).astype(np.float32),
                    "labels": labels,
                    "t": np.array([t for t, _, _ in draws], np.int64),
                    "noise": np.stack([noise for _, _, noise in draws]),
                    "seed": self.seed,
                    "step": step,
                    "start": part.start,
                },
                share,
            )

    def first(self, count: int) -> Dict[str, object]:
        """The first `count` examples of step 0 as one micro-batch."""
        return next(
            LatentBatches(
                self.latents, self.labels, BatchShards(count, count), self.seed, self.drop
            )(0)
        )[0]

    def _drawn(self, step: int, position: int):
        rng = generator(self.seed, "noise", step, position)
        t, dropped = int(rng.integers(TIMESTEPS)), bool(rng.random() < self.drop)
        return t, dropped, rng.standard_normal(self.latents.shape[1:], dtype=np.float32)
