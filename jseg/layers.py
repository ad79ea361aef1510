"""Jittor parts used by more than one network, and those that Jittor lacks or computes inexactly.

GroupNorm here is two-pass (Jittor's E[x^2] - E[x]^2 loses four digits when the mean is ten times the spread), attention is
chunked and reaches the fast matrix products of each device, pointwise convolutions are matrix products, `zero` really zeroes.
"""
from __future__ import annotations

import numpy as np

from jseg.runtime import jt

nn = jt.nn

ATTENTION_CHUNK_BYTES = 32 << 20           # of one block of scores: 32 MB holds 682 queries of a 96x128 map


class GroupNorm(nn.Module):
    """Group normalisation with corrected two-pass statistics, float32. Parameters `weight`, `bias` [channels] if `affine`."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, affine: bool = True):
        if channels % groups:
            raise ValueError(f"GroupNorm: {channels} channels do not divide into {groups} groups; use a multiple of {groups}")
        self.groups, self.channels, self.eps = groups, channels, eps
        if affine:
            self.weight = jt.ones(channels)
            self.bias = jt.zeros(channels)
        self.affine = affine

    def execute(self, x):
        batch = x.shape[0]
        y = standardize(x.reshape(batch, self.groups, -1), self.eps).reshape(x.shape)                      # [B, C, ...]
        if not self.affine:
            return y
        shape = (1, self.channels) + (1,) * (x.ndim - 2)
        return y * self.weight.reshape(shape) + self.bias.reshape(shape)                                   # [B, C, ...]


def standardize(x, eps: float):
    """x [..., n] minus its mean over the last axis, divided by sqrt(variance + eps); two passes, the second corrects the first's mean."""
    centred = x - x.mean(-1, keepdims=True)
    rest = centred.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True) - rest * rest
    return (centred - rest) / jt.sqrt(variance + eps)


def silu(x):
    """x * sigmoid(x)."""
    return x * jt.sigmoid(x)


class SiLU(nn.Module):
    """x * sigmoid(x) as a module, for layouts whose numbering counts activations."""

    def execute(self, x):
        return silu(x)                                                                                     # [...]


class Pointwise(nn.Module):
    """A 1x1 convolution computed as matrix products: `weight` [out, in, 1] or [out, in, 1, 1] (`ndim` 3 or 4), `bias` [out]."""

    def __init__(self, channels_in: int, channels_out: int, ndim: int = 4):
        bound = 1.0 / np.sqrt(channels_in)
        self.weight = jt.init.uniform((channels_out, channels_in) + (1,) * (ndim - 2), "float32", -bound, bound)
        self.bias = jt.init.uniform((channels_out,), "float32", -bound, bound)

    def execute(self, x):
        batch, channels, height, width = x.shape
        weight = self.weight.reshape(-1, channels)                                                         # [O, C]
        if jt.flags.use_cuda:
            y = nn.conv2d(x, weight.reshape(-1, channels, 1, 1))                                           # [B, O, H, W]
        else:                              # on large maps oneDNN is slower at a 1x1 convolution than at the equal product
            flat = x.reshape(batch, channels, -1)                                                          # [B, C, HW]
            y = [jt.matmul(weight, flat[i]) for i in range(batch)]                                         # B times [O, HW]
            y = (y[0] if batch == 1 else jt.stack(y)).reshape(batch, -1, height, width)                    # [B, O, H, W]
        return y + self.bias.reshape(1, -1, 1, 1)

    def tokens(self, x):
        """The same map on rows: x [n, in] -> [n, out]."""
        return nn.matmul_transpose(x, self.weight.reshape(self.weight.shape[0], -1)) + self.bias


def to_tokens(x):
    """x [B, C, H, W] -> [B H W, C]."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height * width).transpose(0, 2, 1).reshape(-1, channels)


def from_tokens(tokens, batch: int, height: int, width: int):
    """tokens [B H W, C] -> [B, C, H, W]."""
    return tokens.reshape(batch, height * width, -1).transpose(0, 2, 1).reshape(batch, -1, height, width)


def attention(q, k, v, scale: float):
    """softmax(scale q k^T) v for q [n, L, D], k and v [n, M, D], n counting batch times heads -> [n, L, D].

    Queries go in chunks, so the scores never take more than `ATTENTION_CHUNK_BYTES` per head (CPU) or for all heads (CUDA).
    """
    q = q * scale
    rows = max(1, ATTENTION_CHUNK_BYTES // (4 * k.shape[1] * (q.shape[0] if jt.flags.use_cuda else 1)))
    if jt.flags.use_cuda:
        return _in_chunks(lambda part: _attend(nn.bmm_transpose(part, k), v, nn.bmm), q, rows, 1)
    # On the CPU only two-dimensional products reach oneDNN; batched ones are compiled as plain loops.
    return jt.stack([_in_chunks(lambda part: _attend(nn.matmul_transpose(part, k[i]), v[i], jt.matmul), q[i], rows, 0)
                     for i in range(q.shape[0])])


def _attend(scores, v, product):
    weights = jt.exp(scores - scores.max(-1, keepdims=True))
    return product(weights, v) / weights.sum(-1, keepdims=True)      # dividing afterwards saves a pass over the scores


def _in_chunks(compute, q, rows: int, axis: int):
    length = q.shape[axis]
    if length <= rows:
        return compute(q)
    parts = []
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        part = compute(q[:, start:stop] if axis else q[start:stop])
        if jt.flags.no_grad:
            part.sync()                    # else the lazy graph may hold every chunk's scores at once
        parts.append(part)
    return jt.concat(parts, dim=axis)


def timestep_table(timesteps: int, channels: int) -> np.ndarray:
    """Sinusoidal embeddings of t = 0 ... timesteps - 1, float32 [timesteps, channels]: cosines first, then sines (release order).

    Computed in float64, since fast-math sine and cosine on a GPU lose digits at t = 1000.
    """
    half = channels // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / half)
    phase = np.arange(timesteps)[:, None] * frequencies[None]
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1).astype(np.float32)


def one_hot(labels: np.ndarray, classes: int):
    """Integer label maps [B, H, W] -> float32 Var [B, classes, H, W]; ids outside 0 ... classes - 1 give an all-zero column."""
    labels = np.asarray(labels)
    return jt.array((labels[:, None] == np.arange(classes).reshape(1, -1, 1, 1)).astype(np.float32)).stop_grad()


def as_var(x):
    """x itself if it is a Var, else the array uploaded as one."""
    return x if isinstance(x, jt.Var) else jt.array(x)


def zero(module):
    """Set every parameter of `module` to zero and return it."""
    for parameter in module.parameters():
        parameter.assign(jt.zeros(parameter.shape))
    return module


def upsample(x):
    """Nearest-neighbour doubling of height and width: [B, C, H, W] -> [B, C, 2H, 2W]."""
    batch, channels, height, width = x.shape
    return x.reindex([batch, channels, 2 * height, 2 * width], ["i0", "i1", "i2/2", "i3/2"])


# Row p of _TAPS: which of a 3-tap kernel's entries fall on the earlier and on the later of the two source pixels that an output
# pixel of parity p sees after nearest doubling.
_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)          # [parity, source, tap]


def upsampled_conv(conv, x, padding: int = 1):
    """conv(upsample(x)) for a 3x3 convolution of padding 1: [B, C, H, W] -> [B, O, 2H, 2W], at 4/9 of its multiply-adds on the CPU.

    Doubled pixels are equal, so each output parity is a 2x2 convolution of x whose weights are sums of the nine.
    padding: zero rows added above and below here; 0 if x already carries one more row at each end (and H counts those in between).
    """
    if jt.flags.use_cuda:
        doubled = upsample(x)
        return nn.conv2d(doubled if padding else doubled[:, :, 1:-1], conv.weight, conv.bias, padding=(padding, 1))
    channels_out, channels = conv.weight.shape[:2]
    taps = np.einsum("pay,qbx->yxpqab", _TAPS, _TAPS).reshape(9, 16)
    weight = jt.matmul(conv.weight.reshape(-1, 9), jt.array(taps)).reshape(channels_out, channels, 4, 2, 2)
    weight = weight.permute(2, 0, 1, 3, 4).reshape(4 * channels_out, channels, 2, 2)
    y = nn.conv2d(x, weight, padding=(padding, 1))                                       # [B, 4 O, H + 1, W + 1]
    batch, _, height, width = y.shape
    y = y.reshape(batch, 4, channels_out, height, width)
    y = y.reindex([batch, channels_out, 2 * height - 2, 2 * width - 2], ["i0", "i2%2*2+i3%2", "i1", "i2/2+i2%2", "i3/2+i3%2"])
    return y + conv.bias.reshape(1, -1, 1, 1)
