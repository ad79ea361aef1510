"""Exact convolution and normalisation of large feature maps in horizontal strips.

A map [B, C, H, W] is held as a list of strips [B, C, h_i, W] (one strip when it is small, or when
gradients are wanted). A 3x3 convolution borrows one row from each neighbour and a group norm
gathers its statistics over all strips, so the numbers are those of the whole map; only the memory
differs: no whole-map copy exists for a layer's input, output and oneDNN's own reordered buffers at
once. Lists are consumed: entries become None as soon as nobody needs them.
"""

from __future__ import annotations

from typing import Iterator, List, Optional

import numpy as np

from jseg.ldm.halo import with_halo
from jseg.nn import precision
from jseg.nn.kernels import moments
from jseg.nn.layers import nn
from jseg.runtime import jt

STRIP_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}


def split(x, channels: int, multiple: int = 1) -> List:
    """x [B, c, H, W] as strips whose [B, channels, h, W] float32 version is about STRIP_BYTES, h a
    multiple of `multiple`.
    """
    batch, _, height, width = x.shape
    budget = STRIP_BYTES["cuda" if jt.flags.use_cuda else "cpu"]
    rows = max(1, budget // (4 * batch * channels * width * multiple)) * multiple
    if rows >= height or not jt.flags.no_grad:
        return [x]
    return [settle(x[:, :, start : min(start + rows, height)]) for start in range(0, height, rows)]


def join(strips: List):
    """The whole map [B, C, H, W] of `strips`."""
    return strips[0] if len(strips) == 1 else jt.concat(strips, dim=2)


def settle(x):
    """Compute x now if no gradient will be asked for: a lazy graph would keep every strip's
    intermediates alive.
    """
    if jt.flags.no_grad:
        x.sync()
    return x


def convolve(conv, strips: List, norm=None, skip: Optional[List] = None) -> Iterator:
    """3x3 convolution (padding 1) of silu(norm(map)), or of the map if there is no norm, a strip at
    a time, each yielded before it is settled.

    skip: strips that are added to the results; consumed as well.
    """
    skip = skip or [None] * len(strips)
    if len(strips) == 1:
        yield conv(norm(strips[0], activate=True) if norm else strips[0], skip[0])
        return
    coefficients = normalization(norm, strips) if norm else None
    for i in range(len(strips)):
        yield conv.inner_rows(with_halo(strips, i, coefficients), skip[i])
        skip[i] = None
        if i > 0:
            strips[i - 1] = None
    strips[-1] = None


def downsample(conv, strips: List) -> List:
    """Stride-2 3x3 convolution of a map padded by one zero row below and one zero column on the
    right (the VQ-GAN rule).
    """
    out = []
    for i in range(len(strips)):
        x = with_halo(strips, i, above=0, right=1)  # [B, C, h + 1, W + 1]
        y = nn.conv2d(*precision.operands(x, conv.weight), stride=2)
        out.append(settle(precision.result(y, conv.bias.reshape(1, -1, 1, 1))))
        strips[i] = None
    return out


def double(conv, strips: List) -> List:
    """Nearest-neighbour doubling, then a 3x3 convolution; strips are cut first so that those that
    come out keep to the budget.
    """
    channels = strips[0].shape[1]
    pieces = []
    for i, strip in enumerate(strips):
        pieces += split(strip, 4 * channels)  # four times the pixels come out
        strips[i] = strip = None

    if len(pieces) == 1:
        return [settle(conv.doubled(pieces[0]))]
    out = []
    for i in range(len(pieces)):
        rows = with_halo(pieces, i)
        out.append(settle(conv.inner_rows_doubled(rows)))  # [B, C, 2h, 2W]
        if i > 0:
            pieces[i - 1] = None
    return out


def normalization(norm, strips: List):
    """Coefficients [3, B, C], for `with_halo`, of `norm` with its statistics over all strips.

    Every channel of every strip gives its mean and variance, which are put together after Chan et
    al. 1983.
    """
    batch, channels = strips[0].shape[:2]
    heights = np.array([strip.shape[2] for strip in strips])
    weights = (heights / heights.sum()).astype(np.float32)
    weights = jt.array(weights.reshape(-1, 1, 1, 1))

    # Of every strip and channel, then of the groups over all strips.
    means, variances = (
        jt.stack(list(values)).reshape(len(strips), batch, norm.groups, -1)
        for values in zip(*(moments(strip.reshape(batch * channels, -1)) for strip in strips))
    )  # [strips, B, G, C / G]
    mean = (means * weights).sum(0).mean(-1, keepdims=True)  # [B, G, 1]
    spread = means - mean.unsqueeze(0)
    variance = ((variances + spread * spread) * weights).sum(0).mean(-1, keepdims=True)

    # Per channel, with the norm's weight in the scale.
    like_groups = (1, norm.groups, channels // norm.groups)
    shift = mean.expand(batch, *like_groups[1:])  # [B, G, C / G]
    scale = norm.weight.reshape(like_groups) / jt.sqrt(variance + norm.eps)
    bias = norm.bias.reshape(like_groups).expand(shift.shape)
    coefficients = jt.stack([v.reshape(batch, channels) for v in (shift, scale, bias)])
    return settle(coefficients.cast(strips[0].dtype))
