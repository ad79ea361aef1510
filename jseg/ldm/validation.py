"""The losses of the UNet and of the autoencoder on images that are held out of their training."""

from __future__ import annotations

import hashlib
from typing import Callable, Dict, Mapping, Optional

import numpy as np

from jseg.images import to_signed
from jseg.ldm.dataset import ImageBatches
from jseg.ldm.latents import Latents
from jseg.ldm.schedule import TIMESTEPS
from jseg.noise import generator
from jseg.runtime import jt
from jseg.training.log import Means

PROTOCOL = 1  # counted up whenever the same network would get another loss
TIMES = 4  # of an image of the UNet's, each with noise of its own


class HeldOutLoss:
    """The mean loss over batches that are always the same, with dropout off.

    Called with stop() -> bool it gives {"loss", further means}, or None as soon as stop() is true.
    batch(i): the i-th of `count`. measured: what the loss depends on beside the network.
    """

    smaller_is_better = True

    def __init__(
        self,
        module,
        loss: Callable[[object], Mapping],
        count: int,
        batch: Callable[[int], Mapping],
        measured: Mapping[str, object],
    ):
        self.module, self.loss, self.count, self.batch = module, loss, count, batch
        self.measured = {"protocol": PROTOCOL, "examples": count, **measured}

    def __call__(self, stop: Callable[[], bool] = lambda: False) -> Optional[Dict[str, float]]:
        means = Means()
        self.module.eval()
        try:
            for number in range(self.count):
                if stop():
                    return None
                with jt.no_grad():
                    terms = self.loss(self.batch(number))
                    means.add({name: float(value.item()) for name, value in terms.items()})
        finally:
            self.module.train()
        return means.take()


def unet_validation(unet, loss: Callable, latents: Latents, seed: int) -> HeldOutLoss:
    """The UNet's loss on latents that it is not trained on, TIMES timesteps for each image.

    The timesteps of all images together lie evenly, so that the mean depends little on chance.
    """
    z, labels = latents.z[::2], latents.labels[::2]  # those that are not mirrored

    def batch(i: int) -> Dict[str, object]:
        place = (np.arange(TIMES) + (i + 0.5) / len(z)) / TIMES  # [TIMES] in (0, 1)
        shape = (TIMES,) + z.shape[1:]
        return {
            "z": np.broadcast_to(z[i], shape).astype(np.float32),
            "labels": np.broadcast_to(labels[i], (TIMES,) + labels.shape[1:]).copy(),
            "t": (place * TIMESTEPS).astype(np.int64),
            "noise": generator(seed, "validation", i).standard_normal(shape, dtype=np.float32),
            "seed": seed,
            "step": 0,
            "start": 0,
        }

    measured = {"times": TIMES, "seed": seed, "data": latents.digest}
    return HeldOutLoss(unet, loss, len(z), batch, measured)


def autoencoder_validation(autoencoder, loss: Callable, images: ImageBatches) -> HeldOutLoss:
    """The autoencoder's loss, without a discriminator's, on images that it is not trained on.

    `images` are the held-out ones; each has the place and mirroring that its number gives it.
    """

    def crop(i: int) -> np.ndarray:
        return images.image(i, generator(images.seed, "validation", i), images.crop)

    def batch(i: int) -> Dict[str, object]:
        return {"images": to_signed(crop(i))[None], "step": 0}

    count, digest = len(images.paths), hashlib.sha256()
    for i in range(count):
        digest.update(crop(i).tobytes())
    return HeldOutLoss(autoencoder, loss, count, batch, {"data": digest.hexdigest()})
