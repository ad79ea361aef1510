"""Blocks of InceptionV3 (Szegedy et al. 2015) with its state-dict names; inputs [B, C, H, W]."""

from __future__ import annotations

import functools

import numpy as np

from jseg.nn.convolution import Conv3x3
from jseg.nn.layers import nn
from jseg.runtime import jt

EPS = 1e-3  # of the batch norms


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm with stored statistics, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel, stride: int = 1, padding=0):
        if kernel == 3 and stride == 1:
            self.conv = Conv3x3(channels_in, channels_out, padding, bias=False)
        else:
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


def chain(x, *layers):
    """x through the layers, one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def joined(*branches):
    """The branches' channels side by side."""
    return jt.concat(list(branches), dim=1)


def windows(x, stride: int, padding: int):
    """The 3x3 windows of x [B, C, H, W] -> [B, C, h, w, 3, 3], zero beyond the edges; they are not
    stored, but read where they are summed.
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
    weights = jt.array(_mean_weights(*map(int, x.shape[2:]))).stop_grad()
    return windows(x, 1, 1).sum((4, 5)) * weights


@functools.lru_cache(maxsize=8)
def _mean_weights(height: int, width: int) -> np.ndarray:
    """One over the number of places within the map, for each place of mean_around."""
    rows, columns = (
        np.minimum(np.arange(n) + 2, n) - np.maximum(np.arange(n) - 1, 0) for n in (height, width)
    )
    return (1.0 / np.outer(rows, columns)).astype(np.float32).reshape(1, 1, height, width)
