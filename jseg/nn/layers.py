"""Jittor parts used by more than one network, and those that Jittor lacks or computes inexactly.

GroupNorm is two-pass (`jseg.nn.group_norm`), attention is chunked and reaches the fast matrix
products of each device, pointwise convolutions are matrix products, `zero` really zeroes. Attention
and pointwise convolutions bring their own gradients: Jittor's, of slices, fill a whole array with
zeros for every slice.
"""

from __future__ import annotations

import numpy as np

from jseg.nn import attention as tiles
from jseg.nn import im2col, precision
from jseg.nn.chunks import queries_at_a_time
from jseg.nn.dropout import Dropout
from jseg.nn.group_norm import group_norm, standardize
from jseg.nn.kernels import HALVES, Function, products
from jseg.runtime import jt

__all__ = ["Dropout", "group_norm", "standardize"]

nn = jt.nn


class GroupNorm(nn.Module):
    """Group normalisation with corrected two-pass statistics, float32.

    Parameters: `weight` and `bias` [channels], if `affine`.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, affine: bool = True):
        if channels % groups:
            raise ValueError(
                f"GroupNorm: {channels} channels do not divide into {groups} groups; use a "
                f"multiple of {groups}"
            )
        self.groups, self.channels, self.eps = groups, channels, eps
        if affine:
            self.weight = jt.ones(channels)
            self.bias = jt.zeros(channels)
        self.affine = affine

    def execute(self, x, film=None, activate: bool = False, modulation=None):
        """The norm of x [B, C, ...], then, as in residual blocks, times film[0] plus film[1], each
        [B, C, 1, ...], then SiLU.

        modulation: (scale, shift) maps of x's shape in place of the parameters, as in SPADE.
        """
        own = (self.weight, self.bias) if self.affine else (None, None)
        scale, shift = modulation or own
        return group_norm(x, self.groups, self.eps, scale, shift, film, activate)  # [B, C, ...]


def silu(x):
    """x * sigmoid(x), computed in float32 if x is of half precision."""
    if str(x.dtype) in HALVES:
        return silu(x.float32()).cast(x.dtype)
    return x * jt.sigmoid(x)


class SiLU(nn.Module):
    """x * sigmoid(x) as a module, for layouts whose numbering counts activations."""

    def execute(self, x):
        return silu(x)  # [...]


class ReLU(nn.Module):
    """The larger of x and 0."""

    def execute(self, x):
        if str(x.dtype) in HALVES:  # of which Jittor's CPU code for ReLU does not compile
            return nn.relu(x.float32()).cast(x.dtype)
        return nn.relu(x)


class Linear(nn.Linear):
    """x [..., in] -> [..., out]: `weight` [out, in] and, if `bias`, `bias` [out]."""

    def execute(self, x):
        return linear(x, self.weight, self.bias)


def linear(x, weight, bias=None):
    """x [..., in] times weight [out, in], plus bias [..., out], in the precision of products."""
    return precision.result(nn.matmul_transpose(*precision.operands(x, weight)), bias)


class Pointwise(nn.Module):
    """A 1x1 convolution computed as matrix products: `weight` [out, in, 1] or [out, in, 1, 1]
    (`ndim` 3 or 4), `bias` [out].
    """

    def __init__(self, channels_in: int, channels_out: int, ndim: int = 4):
        bound = 1.0 / np.sqrt(channels_in)
        self.weight = jt.init.uniform(
            (channels_out, channels_in) + (1,) * (ndim - 2), "float32", -bound, bound
        )
        self.bias = jt.init.uniform((channels_out,), "float32", -bound, bound)

    def execute(self, x):
        weight = self.weight.reshape(*self.weight.shape[:2], 1, 1)  # [O, C, 1, 1]
        if x.ndim != 4 or x.shape[1] != weight.shape[1]:
            raise ValueError(
                f"Pointwise: got {list(x.shape)}; expected [B, {weight.shape[1]}, H, W]"
            )
        if jt.flags.use_cuda:
            y = nn.conv2d(*precision.operands(x, weight))
            return precision.result(y, self.bias.reshape(1, -1, 1, 1))  # [B, O, H, W]
        x, weight = precision.operands(x, weight)
        return precision.result(_Pointwise()(weight, x, self.bias))  # [B, O, H, W]

    def tokens(self, x):
        """The same map on rows: x [n, in] -> [n, out]."""
        return linear(x, self.weight.reshape(self.weight.shape[0], -1), self.bias)


class _Pointwise(Function):
    """weight [O, C, 1, 1] times each of x [B, C, H, W], plus bias [O] -> [B, O, H, W]."""

    def execute(self, weight, x, bias):
        self.keep(weight, x)
        with jt.no_grad():
            if im2col.faster(x, weight):
                return im2col.convolve(x, weight, bias=bias)  # [B, O, H, W]

            # On large maps oneDNN is slower at a 1x1 convolution than at the equal product.
            y = products(_rows(weight), _pixels(x)).reshape(x.shape[0], -1, *x.shape[2:])
            return y + bias.reshape(1, -1, 1, 1)

    def grad(self, gradient):
        weight, x = self.recall()
        with jt.no_grad():
            of_x = products(_rows(weight), _pixels(gradient), transpose_a=True)  # [B, C, H W]
            of_weight = products(_pixels(gradient), _pixels(x), transpose_b=True, total=True)
            return of_weight.reshape(weight.shape), of_x.reshape(x.shape), gradient.sum((0, 2, 3))


def _pixels(x):
    """x [B, C, H, W] -> [B, C, H W]."""
    return x.reshape(*x.shape[:2], -1)


def _rows(weight):
    """weight [O, C, 1, 1] -> [1, O, C]."""
    return weight.reshape(1, *weight.shape[:2])


def to_tokens(x):
    """x [B, C, H, W] -> [B H W, C]."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height * width).transpose(0, 2, 1).reshape(-1, channels)


def from_tokens(tokens, batch: int, height: int, width: int):
    """tokens [B H W, C] -> [B, C, H, W]."""
    x = tokens.reshape(batch, height * width, -1).transpose(0, 2, 1)  # [B, C, H W]
    return x.reshape(batch, -1, height, width)


def attention(q, k, v, scale: float):
    """softmax(scale q k^T) v for q [n, L, D], k and v [n, M, D], n counting batch times heads ->
    [n, L, D].

    In tiles (`jseg.nn.attention`) where that was measured to be faster; else queries go in chunks,
    whose scores never take more than the device's `chunks.ATTENTION_CHUNK_BYTES`. Only q, k, v and
    the result, and in tiles a number per query, are kept for the gradient, which computes the
    scores again. The softmax is float32 whatever q is. Gradients of gradients are not supported.
    """
    q, k, v = precision.operands(q, k, v)
    function = _TiledAttention if tiles.tiled(q) else _Attention
    return precision.result(function(scale)(q, k, v))


class _TiledAttention(Function):
    def __init__(self, scale: float):
        self.scale = scale

    def execute(self, q, k, v):
        with jt.no_grad():
            out, sums = tiles.forward(q, k, v, self.scale)
        self.keep(q, k, v, out, sums)
        return out  # [n, L, D]

    def grad(self, gradient):
        q, k, v, out, sums = self.recall()
        with jt.no_grad():
            gradients = tiles.backward(gradient, q, k, v, out, sums, self.scale)
            return tuple(of_x.cast(x.dtype) for of_x, x in zip(gradients, (q, k, v)))


class _Attention(Function):
    def __init__(self, scale: float):
        self.scale = scale

    def execute(self, q, k, v):
        parts, chunks, settles = [], _chunks(k, q), jt.flags.no_grad
        with jt.no_grad():
            for (q_i,) in chunks:
                # Dividing afterwards saves a pass over the scores.
                weights = _weights(q_i * self.scale, k)
                sums = weights.sum(-1, keepdims=True)
                parts.append((products(weights.cast(v.dtype), v) / sums).cast(v.dtype))

                # Else the lazy graph may hold every chunk's scores at once.
                if settles and len(chunks) > 1:
                    parts[-1].sync()
            out = _joined(parts)
        self.keep(q, k, v, out)
        return out  # [n, L, D]

    def grad(self, gradient):
        """With P the softmax, the gradient of the scores is P (dO v^T - rowsum(dO O))."""
        q, k, v, out = self.recall()
        of_q, of_k, of_v = [], 0, 0
        with jt.no_grad():
            for q_i, out_i, g_i in _chunks(k, q, out, gradient.cast(q.dtype)):
                weights = _weights(q_i * self.scale, k)
                weights = weights / weights.sum(-1, keepdims=True)
                of_weights = products(g_i, v, transpose_b=True)
                of_scores = weights * (of_weights - (g_i * out_i).sum(-1, keepdims=True))

                of_scores, weights = of_scores.cast(q.dtype), weights.cast(q.dtype)
                of_q.append(products(of_scores, k) * self.scale)
                of_k = of_k + products(of_scores, q_i, transpose_a=True)
                of_v = of_v + products(weights, g_i, transpose_a=True)
            return _joined(of_q), of_k * self.scale, of_v


def _weights(q, k):
    """exp of the scores q k^T [n, L, M], less the largest of each row; float32 unless q is
    float64.
    """
    scores = products(q, k, transpose_b=True)
    scores = scores.float32() if str(scores.dtype) in HALVES else scores
    return jt.exp(scores - scores.max(-1, keepdims=True))


def _chunks(k, *tensors):
    """The tensors [n, L, D] in runs of queries whose scores against k keep to the budget."""
    length = tensors[0].shape[1]
    device = "cuda" if jt.flags.use_cuda else "cpu"
    rows = queries_at_a_time(k.shape[0], k.shape[1], device)
    if length <= rows:
        return [tensors]
    return [
        tuple(x[:, start : min(start + rows, length)] for x in tensors)
        for start in range(0, length, rows)
    ]


def _joined(parts):
    return parts[0] if len(parts) == 1 else jt.concat(parts, dim=1)


def timestep_table(timesteps: int, channels: int) -> np.ndarray:
    """Sinusoidal embeddings of t = 0 ... timesteps - 1, float32 [timesteps, channels]: cosines
    first, then sines (release order).

    Computed in float64, since fast-math sine and cosine on a GPU lose digits at t = 1000.
    """
    half = channels // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / half)
    phase = np.arange(timesteps)[:, None] * frequencies[None]
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32)


def one_hot(labels: np.ndarray, classes: int):
    """Integer label maps [B, H, W] -> float32 Var [B, classes, H, W]; ids outside 0 ... classes - 1
    give an all-zero column.
    """
    maps = np.asarray(labels)
    ids = np.where((maps >= 0) & (maps < classes), maps, -1).astype(np.int32)
    columns = jt.array(np.arange(classes, dtype=np.int32)).reshape(1, -1, 1, 1)
    return (jt.array(ids).unsqueeze(1) == columns).float32().stop_grad()


def as_var(x):
    """x itself if it is a Var, else the array uploaded as one."""
    return x if isinstance(x, jt.Var) else jt.array(x)


def zero(module):
    """Set every parameter of `module` to zero and return it."""
    for parameter in module.parameters():
        parameter.assign(jt.zeros(parameter.shape))
    return module
