"""InceptionV3 as FID uses it: 2048 features of an image (Szegedy et al. 2015, Heusel et al. 2017).
Weights come from the user.

Mirrors mseitzer/pytorch-fid (inception.py) on torchvision's Inception3, with its state-dict names,
so the public file pt_inception-2015-12-05-6726825d.pth fits: TensorFlow's graph of 2015, whose
average pools leave the padding out of the mean and whose last block pools the maximum where every
other has the mean. A network without these, torchvision's of ImageNet, gives other distances. All
weights are constants. Left out: the classifier `fc`, which FID does not use, and the auxiliary one.
"""

from __future__ import annotations

import functools
from typing import Iterable, Sequence, Tuple

import numpy as np

from jseg.checkpoint import CheckpointError, load, load_into
from jseg.nn.layers import as_var, nn
from jseg.runtime import jt

SIZE, FEATURES = 299, 2048
EPS = 1e-3  # of the batch norms
LEAST_SIZE = 75  # of the network's input; below, the last maps would be empty
PUBLIC = "pt_inception-2015-12-05-6726825d.pth"
LOGITS = 1008  # classes of TensorFlow's network; torchvision's has 1000


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm with stored statistics, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel, stride: int = 1, padding=0):
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride=stride, padding=padding, bias=False
        )
        self.bn = Norm(channels_out)

    def execute(self, x):
        return nn.relu(self.bn(self.conv(x)))  # [B, C_out, h, w]


class Norm(nn.Module):
    """A batch norm that never trains."""

    def __init__(self, channels: int):
        self.weight, self.bias = jt.ones(channels), jt.zeros(channels)
        self.running_mean, self.running_var = jt.zeros(channels), jt.ones(channels)

    def execute(self, x):
        scale = self.weight / jt.sqrt(self.running_var + EPS)
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)  # [B, C, H, W]


class MixedA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pooled mean."""

    def __init__(self, channels: int, pooled: int):
        self.branch1x1 = ConvNorm(channels, 64, 1)
        self.branch5x5_1 = ConvNorm(channels, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(channels, pooled, 1)

    def execute(self, x):
        return joined(
            self.branch1x1(x),
            chain(x, self.branch5x5_1, self.branch5x5_2),
            chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.branch_pool(mean_around(x)),
        )  # [B, 224 + pooled, H, W]


class MixedB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self, channels: int):
        self.branch3x3 = ConvNorm(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def execute(self, x):
        return joined(
            self.branch3x3(x),
            chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            halved(x),
        )  # [B, 480 + C, h, w]


class MixedC(nn.Module):
    """17x17: 1x1, 7x7 in two strokes, twice that, pooled mean."""

    def __init__(self, channels: int, inner: int):
        across, down = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = ConvNorm(channels, 192, 1)
        self.branch7x7_1 = ConvNorm(channels, inner, 1)
        self.branch7x7_2 = ConvNorm(inner, inner, **across)
        self.branch7x7_3 = ConvNorm(inner, 192, **down)
        self.branch7x7dbl_1 = ConvNorm(channels, inner, 1)
        self.branch7x7dbl_2 = ConvNorm(inner, inner, **down)
        self.branch7x7dbl_3 = ConvNorm(inner, inner, **across)
        self.branch7x7dbl_4 = ConvNorm(inner, inner, **down)
        self.branch7x7dbl_5 = ConvNorm(inner, 192, **across)
        self.branch_pool = ConvNorm(channels, 192, 1)

    def execute(self, x):
        double = chain(
            x,
            self.branch7x7dbl_1,
            self.branch7x7dbl_2,
            self.branch7x7dbl_3,
            self.branch7x7dbl_4,
            self.branch7x7dbl_5,
        )
        return joined(
            self.branch1x1(x),
            chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
            double,
            self.branch_pool(mean_around(x)),
        )  # [B, 768, H, W]


class MixedD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, channels: int):
        self.branch3x3_1 = ConvNorm(channels, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(channels, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def execute(self, x):
        return joined(
            chain(x, self.branch3x3_1, self.branch3x3_2),
            chain(
                x, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4
            ),
            halved(x),
        )  # [B, 512 + C, h, w]


class MixedE(nn.Module):
    """8x8: 1x1, 3x3 as two strokes side by side, the same behind a 3x3, and `pool`: the mean, in
    the last block the maximum.
    """

    def __init__(self, channels: int, pool):
        self.branch1x1 = ConvNorm(channels, 320, 1)
        self.branch3x3_1 = ConvNorm(channels, 384, 1)
        self.branch3x3dbl_1 = ConvNorm(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        for name in ("branch3x3_2", "branch3x3dbl_3"):
            setattr(self, name + "a", ConvNorm(384, 384, (1, 3), padding=(0, 1)))
            setattr(self, name + "b", ConvNorm(384, 384, (3, 1), padding=(1, 0)))
        self.branch_pool = ConvNorm(channels, 192, 1)
        self._pool = pool

    def execute(self, x):
        single, double = self.branch3x3_1(x), chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        return joined(
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self._pool(x)),
        )  # [B, 2048, H, W]


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
            for name in (
                "Conv2d_1a_3x3",
                "Conv2d_2a_3x3",
                "Conv2d_2b_3x3",
                "pool1",
                "Conv2d_3b_1x1",
                "Conv2d_4a_3x3",
                "pool2",
                "Mixed_5b",
                "Mixed_5c",
                "Mixed_5d",
                "Mixed_6a",
                "Mixed_6b",
                "Mixed_6c",
                "Mixed_6d",
                "Mixed_6e",
                "Mixed_7a",
                "Mixed_7b",
                "Mixed_7c",
            ):
                x = halved(x) if name.startswith("pool") else getattr(self, name)(x)
                x.sync()  # else the lazy graph may hold every layer's activations at once
                yield name, x


def chain(x, *layers):
    """x through the layers, one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def joined(*branches):
    """The branches' channels side by side."""
    return jt.concat(list(branches), dim=1)


def windows(x, stride: int, padding: int):
    """The 3x3 windows of x [B, C, H, W] -> [B, C, h, w, 3, 3], zero beyond the edges; not stored,
    but read where they are summed up.
    """
    batch, channels, height, width = x.shape
    rows, columns = ((n + 2 * padding - 3) // stride + 1 for n in (height, width))
    return x.reindex(
        [batch, channels, rows, columns, 3, 3],
        ["i0", "i1", f"i2*{stride}-{padding}+i4", f"i3*{stride}-{padding}+i5"],
        overflow_value=0,
    )


def halved(x):
    """The maximum of 3x3, every second place, none beyond the edges."""
    return windows(x, 2, 0).max((4, 5))


def maximum_around(x):
    """The maximum of 3x3 around each place of x, which has no value below zero: it comes from a
    ReLU.
    """
    return windows(x, 1, 1).max((4, 5))


def mean_around(x):
    """The mean of 3x3 around each place, of those within the map only; Jittor's own pool counts
    zeros beyond the edges.
    """
    return windows(x, 1, 1).sum((4, 5)) * jt.array(_shares(*map(int, x.shape[2:]))).stop_grad()


@functools.lru_cache(maxsize=8)
def _shares(height: int, width: int) -> np.ndarray:
    """One over the number of places within the map, for each place of mean_around."""
    rows, columns = (
        np.minimum(np.arange(n) + 2, n) - np.maximum(np.arange(n) - 1, 0) for n in (height, width)
    )
    return (1.0 / np.outer(rows, columns)).astype(np.float32).reshape(1, 1, height, width)


def prepared(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images uint8 [H, W, 3], of any sizes -> float32 [B, 3, 299, 299] in [-1, 1].

    Resized bilinearly without antialiasing, as pytorch-fid does.
    """
    found = np.empty((len(images), 3, SIZE, SIZE), np.float32)
    for place, image in zip(found, images):
        x = image.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        for axis in (1, 2):
            low, high, share = _taps(x.shape[axis])
            share = share[:, None] if axis == 1 else share
            x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
        place[:] = 2 * x - 1
    return found


@functools.lru_cache(maxsize=32)
def _taps(size: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of 299 places along a side of `size`: the two neighbours and the second one's share;
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
    try:
        load_into(
            inception,
            {
                name: array
                for name, array in arrays.items()
                if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
            },
        )
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    return inception
