"""The parts of PixNerd's transformer over patches: embeddings, blocks, norms and turned attention.

Mirrors src/models/transformer/pixnerd_c2i.py of the official code (PixNerd, Wang et al. 2025, arXiv
2507.23268); state-dict names and numbers are its own. The order of work differs, exactly: norms'
weights and adaptive scales are multiplied first, queries and keys are normalised and turned in one
go. The blocks of the neural field are in `jseg.flowseg.neural_field`.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from jseg.flowseg import fused_block, fused_heads
from jseg.nn import rms_norm as fused_norm
from jseg.nn.kernels import HALVES, Function, compiles
from jseg.nn.layers import Linear, SiLU, attention, nn, silu
from jseg.runtime import jt

EPS = 1e-6  # of every RMS norm
SPAN = 16.0  # positions go from 0 to here along each axis, whatever the number of patches
TIME_CHANNELS, TIME_PERIOD = 256, 10.0


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
    b, a = (
        v if v is None or v.ndim < 2 else v.reshape([v.shape[0]] + [1] * (x.ndim - 2) + [-1])
        for v in (scale, shift)
    )  # [C] or [B, 1, ..., C]
    y = x / jt.sqrt((x * x).mean(-1, keepdims=True) + EPS) * b
    return y if a is None else y + a  # [..., C]


class PatchEmbedding(nn.Module):
    """A linear layer on the values of a patch."""

    def __init__(self, values: int, channels: int, bias: bool = True):
        self.proj = Linear(values, channels, bias=bias)

    def execute(self, rows):
        return self.proj(rows)  # [B, L, D]


class LabelEmbedding(nn.Module):
    """A vector for each class, and one more for the null class."""

    def __init__(self, classes: int, channels: int):
        self.classes = classes
        self.embedding_table = nn.Embedding(classes + 1, channels)

    def execute(self, labels, batch: int):
        """The embeddings [B, D] of class ids [B]; [1, D] for None, the null class.

        An array is checked, a Var is not. Raises ValueError for other ids.
        """
        table = self.embedding_table.weight
        if labels is None:
            return table[self.classes :]
        if isinstance(labels, jt.Var):
            return table[labels]

        ids = np.asarray(labels)
        integers = ids.shape == (batch,) and ids.dtype.kind in "iu"
        if not integers or ids.min() < 0 or ids.max() > self.classes:
            raise ValueError(
                f"PixNerd: got labels {ids.tolist()}; expected {batch} class ids, 0 to "
                f"{self.classes}"
            )
        return table[jt.array(ids.astype(np.int32))]


class TimeEmbedding(nn.Module):
    """Times [B] in [0, 1] -> [B, channels]: cosines and sines of periods up to 10, then two linear
    layers.
    """

    def __init__(self, channels: int):
        half = TIME_CHANNELS // 2
        frequencies = np.exp(-np.log(TIME_PERIOD) * np.arange(half) / half)
        self._frequencies = jt.array(frequencies.astype(np.float32).reshape(1, -1)).stop_grad()
        self.mlp = nn.Sequential(
            Linear(TIME_CHANNELS, channels), SiLU(), Linear(channels, channels)
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
        self.adaLN_modulation = nn.Sequential(Linear(channels, 6 * channels))

    def execute(self, s, condition, cosines, sines):
        if fused_block.fused(s):
            return fused_block.transformer_block(self, s, condition, cosines, sines, EPS)
        batch, _, channels = s.shape
        modulation = self.adaLN_modulation(condition).reshape(batch, 6, 1, channels)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = split(
            modulation.transpose(1, 0, 2, 3)
        )  # each [B, 1, D]
        h = _modulated(self.norm1, s, shift_1, scale_1)
        s = s + gate_1 * self.attn(h, cosines, sines)  # [B, L, D]
        h = _modulated(self.norm2, s, shift_2, scale_2)
        return s + gate_2 * self.mlp(h)  # [B, L, D]


def _modulated(norm: RMSNorm, s, shift, scale):
    """norm(s) (1 + scale) + shift, for scale and shift [B, 1, D]."""
    b, a = (v.reshape(v.shape[0], -1) for v in (scale, shift))  # [B, D]
    return rms_scaled(s, norm.weight * (1 + b), a)  # [B, L, D]


class Attention(nn.Module):
    """Self-attention whose queries and keys are normalised and turned by their patch's place (2-D
    RoPE).
    """

    def __init__(self, channels: int, heads: int):
        self.heads = heads
        self.qkv = Linear(channels, 3 * channels, bias=False)
        self.q_norm, self.k_norm = RMSNorm(channels // heads), RMSNorm(channels // heads)
        self.proj = Linear(channels, channels)

    def execute(self, s, cosines, sines):
        batch, length, channels = s.shape
        head = channels // self.heads
        q, k, v = self._turned_heads(self.qkv(s), cosines, sines)  # [B h, L, d]
        h = attention(q, k, v, head**-0.5).reshape(batch, self.heads, length, head)  # [B, h, L, d]
        return self.proj(h.transpose(0, 2, 1, 3).reshape(batch, length, channels))  # [B, L, D]

    def _turned_heads(self, qkv, cosines, sines):
        """Queries, keys and values [B h, L, d] of qkv [B, L, 3 D]."""
        weights = self.q_norm.weight, self.k_norm.weight
        if fused_heads.fused(qkv):
            return fused_heads.turned_heads(qkv, *weights, cosines, sines, EPS)
        batch, length, channels = qkv.shape
        head = channels // (3 * self.heads)
        qkv = qkv.reshape(batch, length, 3, self.heads, head)
        qk, v = split(qkv.permute(2, 0, 3, 1, 4), (2, 1))  # [2, B, h, L, d], [B, h, L, d]

        # Queries and keys are normalised and turned together.
        q, k = split(Turn()(rms_scaled(qk, jt.stack(weights)), cosines, sines))  # [B, h, L, d]
        return (x.reshape(batch * self.heads, length, head) for x in (q, k, v))


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases (SwiGLU)."""

    def __init__(self, channels: int, hidden: int):
        self.w1 = Linear(channels, hidden, bias=False)
        self.w3 = Linear(channels, hidden, bias=False)
        self.w2 = Linear(hidden, channels, bias=False)

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
    axes, last = [f"i{i}" for i in range(x.ndim - 1)], f"i{x.ndim - 1}"
    neighbour = x.reindex(list(x.shape), axes + [f"{last}/2*2+1-{last}%2"])  # 1 0 3 2 ...
    return (x * cosines + neighbour * sines).cast(x.dtype)  # [..., L, d]


def turn_tables(rows: int, columns: int, head: int) -> Tuple[np.ndarray, np.ndarray]:
    """Cosines and signed sines, float32 [rows columns, head], of the angles by which `Turn` turns a
    grid's patches, row by row (2-D RoPE).

    Each axis is stretched over [0, 16]; pairs of channels alternate between x and y, over head / 4
    frequencies.
    """
    frequencies = 10000.0 ** (-4 * np.arange(head // 4) / head)
    y, x = np.meshgrid(np.linspace(0, SPAN, rows), np.linspace(0, SPAN, columns), indexing="ij")
    angles = np.stack([v.reshape(-1, 1) * frequencies for v in (x, y)], -1)  # [L, head / 4, 2]
    angles = angles.reshape(rows * columns, -1).repeat(2, 1)  # [L, head]
    signs = np.tile([-1.0, 1.0], head // 2)
    return np.cos(angles).astype(np.float32), (np.sin(angles) * signs).astype(np.float32)


class Split(Function):
    """x [n, ...] in runs of its first axis; the gradient is one concatenation, without an array of
    zeros for every run.
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = sizes

    def execute(self, x):
        ends = np.cumsum(self.sizes).tolist()
        self.rest, self.kind = x.shape[1:], x.dtype
        with jt.no_grad():
            return [x[end - size : end] for size, end in zip(self.sizes, ends)]

    def grad(self, *gradients):
        with jt.no_grad():
            parts = [
                jt.zeros([size] + list(self.rest), self.kind) if gradient is None else gradient
                for size, gradient in zip(self.sizes, gradients)
            ]
            return jt.concat(parts, dim=0)


def split(x, sizes: Sequence[int] = ()):
    """Runs of x [n, ...] along its first axis, without sizes its n elements; a run of one loses the
    axis.
    """
    lengths = tuple(sizes) or (1,) * x.shape[0]
    return [
        part.reshape(part.shape[1:]) if length == 1 else part
        for part, length in zip(Split(lengths)(x), lengths)
    ]
