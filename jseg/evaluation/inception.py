"""InceptionV3 as FID uses it: 2048 features of an image (Szegedy et al. 2015, Heusel et al. 2017).

Weights come from the user.

Mirrors mseitzer/pytorch-fid (inception.py) on torchvision's Inception3, with its state-dict names,
so the public file pt_inception-2015-12-05-6726825d.pth fits: TensorFlow's graph of 2015, whose
average pools leave the padding out of the mean and whose last block pools the maximum where every
other has the mean. torchvision's network of ImageNet has neither and gives other distances. All
weights are constants. There is no classifier `fc`, which FID does not use, and no auxiliary one.
"""

from __future__ import annotations

import functools
from typing import Iterable, Sequence, Tuple

import numpy as np

from jseg.checkpoint import CheckpointError, load, load_into
from jseg.evaluation.inception_blocks import (
    ConvNorm,
    MixedA,
    MixedB,
    MixedC,
    MixedD,
    MixedE,
    halved,
    maximum_around,
    mean_around,
)
from jseg.nn.layers import as_var, nn
from jseg.runtime import jt

SIZE, FEATURES = 299, 2048
LEAST_SIZE = 75  # of the network's input; below, the last maps would be empty
PUBLIC = "pt_inception-2015-12-05-6726825d.pth"
LAYERS = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 pool1 Conv2d_3b_1x1 Conv2d_4a_3x3 pool2 "
    "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e "
    "Mixed_7a Mixed_7b Mixed_7c"
).split()
LOGITS = 1008  # classes of TensorFlow's network; torchvision's has 1000


class Inception(nn.Module):
    """inception(images [B, 3, 299, 299] in [-1, 1], as from `prepared`) -> features [B, 2048],
    the means of the last maps.

    No gradient passes. Raises ValueError for other shapes.
    """

    def __init__(self):
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            MixedA(channels, pooled) for channels, pooled in ((192, 32), (256, 64), (288, 64))
        )
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (
            MixedC(768, inner) for inner in (128, 160, 160, 192)
        )
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, mean_around), MixedE(2048, maximum_around)
        for parameter in self.parameters():
            parameter.stop_grad()

    def execute(self, images):
        for _, x in self.layers(images):
            pass
        return x.mean((2, 3))  # [B, 2048]

    def layers(self, images) -> Iterable[Tuple[str, object]]:
        """(name, activations [B, C, h, w]) of every layer in turn, of images [B, 3, H, W] with H
        and W at least 75.
        """
        x = as_var(images)
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < LEAST_SIZE:
            raise ValueError(
                f"Inception: images of shape {list(x.shape)}; expected [B, 3, {SIZE}, {SIZE}] "
                "in [-1, 1]"
            )
        with jt.no_grad():
            for name in LAYERS:
                x = halved(x) if name.startswith("pool") else getattr(self, name)(x)
                x.sync()  # else the lazy graph may hold every layer's activations at once
                yield name, x


def prepared(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images uint8 [H, W, 3], of any sizes -> float32 [B, 3, 299, 299] in [-1, 1].

    Resized bilinearly without antialiasing, as pytorch-fid does.
    """
    batch = np.empty((len(images), 3, SIZE, SIZE), np.float32)
    for place, image in zip(batch, images):
        x = image.astype(np.float32).transpose(2, 0, 1) / np.float32(255)  # [3, H, W]
        low, high, weight = _taps(x.shape[1])
        x = x.take(low, 1) * (1 - weight[:, None]) + x.take(high, 1) * weight[:, None]
        low, high, weight = _taps(x.shape[2])
        x = x.take(low, 2) * (1 - weight) + x.take(high, 2) * weight
        place[:] = 2 * x - 1
    return batch


@functools.lru_cache(maxsize=32)
def _taps(size: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of 299 places along a side of `size`: both neighbours and the second one's weight;
    pixels are areas, edges repeat.
    """
    at = np.maximum((np.arange(SIZE) + 0.5) * (size / SIZE) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def load_inception(path) -> Inception:
    """The network with the weights of the public pt_inception-2015-12-05-6726825d.pth, in any
    format that `jseg.checkpoint` reads.

    Raises CheckpointError in one line for torchvision's network of ImageNet, which is another, and
    for other files; FileNotFoundError.
    """
    arrays = load(path, weights="model")
    if "Mixed_7c.branch_pool.conv.weight" not in arrays:
        raise CheckpointError(
            f"{path} holds no InceptionV3 (no Mixed_7c.branch_pool.conv.weight); expected the "
            f"public {PUBLIC}"
        )
    logits = arrays["fc.weight"].shape[0] if "fc.weight" in arrays else LOGITS
    if logits != LOGITS or any(name.startswith("AuxLogits.") for name in arrays):
        raise CheckpointError(
            f"{path} holds torchvision's InceptionV3 ({logits} classes), which gives other "
            f"distances than FID's of {LOGITS}; expected the public {PUBLIC}"
        )
    inception = Inception()
    unused = [n for n in arrays if n.startswith("fc.") or n.endswith(".num_batches_tracked")]
    try:
        load_into(inception, {n: array for n, array in arrays.items() if n not in unused})
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    return inception
