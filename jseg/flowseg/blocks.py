"""The parts of PixNerd: transformer blocks over patches, and the neural field that computes each
patch's pixels from its token.

Mirrors src/models/transformer/pixnerd_c2i.py of the official code (PixNerd, Wang et al. 2025, arXiv
2507.23268); state-dict names and numbers are its own. The order of work differs, exactly: a pixel's
place is embedded once for all patches, norms' weights and adaptive scales are multiplied first,
queries and keys are normalised and turned in one go.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from jseg.nn import rms_norm as fused_norm
from jseg.nn.kernels import HALVES, Function, compiles, products
from jseg.nn.layers import SiLU, attention, nn, silu
from jseg.runtime import jt

EPS = 1e-6  # of every RMS norm
SPAN = 16.0  # positions go from 0 to here along each axis, whatever the number of patches
TIME_CHANNELS, TIME_PERIOD = 256, 10.0
# a generated column shorter than this is divided by it, as torch.nn.functional.normalize does
SMALLEST_NORM = 1e-12


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-6) over the last axis, times `weight`."""

    def __init__(self, channels: int):
        self.weight = jt.ones(channels)

    def execute(self, x):
        return rms_scaled(x, self.weight)  # [..., C]


def rms_scaled(x, scale, shift=None):
    """x [..., C] over the root of its mean square along the last axis, times scale, plus shift:
    each [C], or [B, C] for x [B, ..., C].
    """
    if compiles(fused_norm.NAME, x) or str(x.dtype) in HALVES:
        return fused_norm.rms_norm(x, EPS, scale, shift)  # [..., C]
    scale, shift = (
        v if v is None or v.ndim < 2 else v.reshape([v.shape[0]] + [1] * (x.ndim - 2) + [-1])
        for v in (scale, shift)
    )
    y = x / jt.sqrt((x * x).mean(-1, keepdims=True) + EPS) * scale
    return y if shift is None else y + shift  # [..., C]


class TimeEmbedding(nn.Module):
    """Times [B] in [0, 1] -> [B, channels]: cosines and sines of periods up to 10, then two linear
    layers.
    """

    def __init__(self, channels: int):
        half = TIME_CHANNELS // 2
        frequencies = np.exp(-np.log(TIME_PERIOD) * np.arange(half) / half)
        self._frequencies = jt.array(frequencies.astype(np.float32).reshape(1, -1)).stop_grad()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_CHANNELS, channels), SiLU(), nn.Linear(channels, channels)
        )

    def table(self, t):
        """[B, 256], cosines first."""
        phase = t.reshape(-1, 1) * self._frequencies
        return jt.concat([jt.cos(phase), jt.sin(phase)], dim=1)

    def execute(self, t):
        return self.mlp(self.table(t))  # [B, D]


class TransformerBlock(nn.Module):
    """Self-attention and a gated MLP over patches, scaled, shifted and gated by the condition (time
    and class).
    """

    def __init__(self, channels: int, heads: int):
        self.norm1, self.attn = RMSNorm(channels), Attention(channels, heads)
        self.norm2, self.mlp = RMSNorm(channels), FeedForward(channels, int(2 * (4 * channels) / 3))
        self.adaLN_modulation = nn.Sequential(nn.Linear(channels, 6 * channels))

    def execute(self, s, condition, cosines, sines):
        batch, _, channels = s.shape
        modulation = (
            self.adaLN_modulation(condition).reshape(batch, 6, 1, channels).transpose(1, 0, 2, 3)
        )
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = split(modulation)  # each [B, 1, D]
        s = s + gate_1 * self.attn(
            _modulated(self.norm1, s, shift_1, scale_1), cosines, sines
        )  # [B, L, D]
        return s + gate_2 * self.mlp(_modulated(self.norm2, s, shift_2, scale_2))  # [B, L, D]


def _modulated(norm: RMSNorm, s, shift, scale):
    return rms_scaled(
        s, norm.weight * (1 + scale.reshape(scale.shape[0], -1)), shift.reshape(shift.shape[0], -1)
    )


class Attention(nn.Module):
    """Self-attention whose queries and keys are normalised and turned by their patch's place (2-D
    RoPE).
    """

    def __init__(self, channels: int, heads: int):
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_norm, self.k_norm = RMSNorm(channels // heads), RMSNorm(channels // heads)
        self.proj = nn.Linear(channels, channels)

    def execute(self, s, cosines, sines):
        batch, length, channels = s.shape
        head = channels // self.heads
        qkv = (
            self.qkv(s).reshape(batch, length, 3, self.heads, head).permute(2, 0, 3, 1, 4)
        )  # [3, B, h, L, d]
        qk, v = split(qkv, (2, 1))
        weights = jt.stack([self.q_norm.weight, self.k_norm.weight])  # [2, d]
        q, k = split(Turn()(rms_scaled(qk, weights), cosines, sines))  # [B, h, L, d]
        q, k, v = (x.reshape(batch * self.heads, length, head) for x in (q, k, v))
        h = attention(q, k, v, head**-0.5).reshape(batch, self.heads, length, head)  # [B, h, L, d]
        return self.proj(h.transpose(0, 2, 1, 3).reshape(batch, length, channels))  # [B, L, D]


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases (SwiGLU)."""

    def __init__(self, channels: int, hidden: int):
        self.w1, self.w3 = (
            nn.Linear(channels, hidden, bias=False),
            nn.Linear(channels, hidden, bias=False),
        )
        self.w2 = nn.Linear(hidden, channels, bias=False)

    def execute(self, x):
        return self.w2(silu(self.w1(x)) * self.w3(x))  # [B, L, D]


class Turn(Function):
    """Neighbouring channels of x [..., L, d] as points of a plane, each turned by its angle; tables
    of `turn_tables`.
    """

    def execute(self, x, cosines, sines):
        self.keep(cosines, sines)
        with jt.no_grad():
            return _turned(x, cosines, sines)  # [..., L, d]

    def grad(self, gradient):
        cosines, sines = self.recall()
        with jt.no_grad():
            return _turned(gradient, cosines, -sines), None, None  # the inverse turn


def _turned(x, cosines, sines):
    axes = [f"i{i}" for i in range(x.ndim - 1)]
    return (
        x * cosines
        + x.reindex(list(x.shape), axes + [f"i{x.ndim - 1}/2*2+1-i{x.ndim - 1}%2"]) * sines
    )


def turn_tables(rows: int, columns: int, head: int) -> Tuple[np.ndarray, np.ndarray]:
    """Cosines and signed sines, float32 [rows columns, head], of the turns of a grid's patches, row
    by row.

    Each axis is stretched over [0, 16]; pairs of channels alternate between x and y, over head / 4
    frequencies.
    """
    frequencies = 10000.0 ** (-4 * np.arange(head // 4) / head)
    y, x = np.meshgrid(np.linspace(0, SPAN, rows), np.linspace(0, SPAN, columns), indexing="ij")
    angles = np.stack(
        [x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies], axis=-1
    ).reshape(rows * columns, -1)
    signs = np.tile([-1.0, 1.0], head // 2)
    return np.cos(angles).repeat(2, 1).astype(np.float32), (
        np.sin(angles).repeat(2, 1) * signs
    ).astype(np.float32)


class PixelEmbedding(nn.Module):
    """Colours [n, p^2, 3] of patches -> [n, p^2, X]: a linear layer on colours and the pixel's
    place, known by products of cosines.
    """

    def __init__(self, channels: int, frequencies: int, patch: int):
        self._places = jt.array(place_table(patch, frequencies)).stop_grad()
        self.embedder = nn.Sequential(nn.Linear(3 + frequencies**2, channels))

    def execute(self, colours):
        weight = self.embedder[0].weight
        places = (
            nn.matmul_transpose(self._places, weight[:, 3:]) + self.embedder[0].bias
        )  # [p^2, X]
        return nn.matmul_transpose(colours, weight[:, :3]) + places  # [n, p^2, X]


def place_table(patch: int, frequencies: int) -> np.ndarray:
    """float32 [patch^2, frequencies^2]: cos(pi f_a x) cos(pi f_b y) / (1 + f_a f_b) at column 8 a +
    b, for x and y in [0, 1].

    paper: whole frequencies and no denominator; official code, and here: frequencies from 0 to
    their number, evenly.
    """
    f, u = np.linspace(0, frequencies, frequencies), np.linspace(0, 1, patch)
    cosines = np.cos(np.pi * u[:, None] * f)  # [patch, F]
    table = (
        cosines[None, :, :, None] * cosines[:, None, None, :] / (1 + f[:, None] * f)
    )  # [y, x, a, b]
    return table.reshape(patch**2, frequencies**2).astype(np.float32)


class FieldBlock(nn.Module):
    """A residual two-layer MLP on the pixels of each patch, whose weights are computed from the
    patch's token.
    """

    def __init__(self, width: int, channels: int, ratio: int):
        self.ratio = ratio
        self.param_generator1 = nn.Sequential(nn.Linear(width, 2 * channels**2 * ratio))
        self.norm = RMSNorm(channels)

    def execute(self, x, s):
        n, _, channels = x.shape
        hidden = channels * self.ratio
        first, second = split(
            self.param_generator1(s).reshape(n, 2, channels * hidden).transpose(1, 0, 2)
        )
        first, second = (
            unit_columns(first.reshape(n, channels, hidden)),
            unit_columns(second.reshape(n, hidden, channels)),
        )
        return x + batched_product(
            silu(batched_product(self.norm(x), first)), second
        )  # [n, p^2, X]


def unit_columns(weights):
    """weights [n, a, b], each column [n, :, b] divided by its length."""
    return weights / jt.sqrt(
        jt.maximum((weights * weights).sum(1, keepdims=True), np.float32(SMALLEST_NORM**2))
    )


class FinalLayer(nn.Module):
    """A norm and a linear layer to colours, which starts at zero."""

    def __init__(self, channels: int):
        self.norm, self.linear = RMSNorm(channels), nn.Linear(channels, 3)

    def execute(self, x):
        return self.linear(self.norm(x))  # [n, p^2, 3]


class BatchedProduct(Function):
    """a [n, L, K] times b [n, K, M] -> [n, L, M]."""

    def execute(self, a, b):
        self.keep(a, b)
        return products(a, b)

    def grad(self, gradient):
        a, b = self.recall()
        return products(gradient, b, transpose_b=True), products(a, gradient, transpose_a=True)


def batched_product(a, b):
    """a [n, L, K] times b [n, K, M], with gradients by the same fast products."""
    return BatchedProduct()(a, b)


class Split(Function):
    """x [n, ...] in runs of its first axis; the gradient is put together once, and not one array of
    zeros per run.
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = sizes

    def execute(self, x):
        ends = np.cumsum(self.sizes).tolist()
        self.rest = x.shape[1:]
        with jt.no_grad():
            return [x[end - size : end] for size, end in zip(self.sizes, ends)]

    def grad(self, *gradients):
        with jt.no_grad():
            return jt.concat(
                [
                    jt.zeros([size] + list(self.rest)) if g is None else g
                    for size, g in zip(self.sizes, gradients)
                ],
                dim=0,
            )


def split(x, sizes: Sequence[int] = ()):
    """Runs of x [n, ...] along its first axis; without sizes its n elements [...]; a run of one
    loses the axis.
    """
    sizes = tuple(sizes) or (1,) * x.shape[0]
    return [
        part.reshape(part.shape[1:]) if size == 1 else part
        for part, size in zip(Split(sizes)(x), sizes)
    ]
