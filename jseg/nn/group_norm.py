"""Group norm, scale and shift, FiLM and SiLU in one operator: y = act((x_hat s + t) a + b).

x_hat is x [B, C, P] less its group's mean, over the root of its variance plus eps. s and t are a
number per channel (group norm's weight and bias) or maps of x's shape (SPADE, Park et al. 2019, eq.
1); a and b, a number per image and channel, are the time embedding's scale and shift in the
residual blocks of Dhariwal and Nichol 2021; act is SiLU or nothing. Layer norm and batch norm are
group norms of other shapes. Statistics are two-pass (Jittor's E[x^2] - E[x]^2 loses four digits
when the mean is ten times the spread), sums float32 or double, whatever the type of x. Kept for the
gradient are the inputs and three numbers per group:

    dz = dy sigma(z) (1 + z (1 - sigma(z))),   db = sum dz,   da = sum dz (x_hat s + t),
    dt = a dz,   ds = a dz x_hat,   u = a dz s,
    dx = r (u - mean(u) - x_hat mean(u x_hat)),   the means over the group.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from jseg.nn.group_norm_source import (
    CPU_BACKWARD,
    CPU_FORWARD,
    CPU_HEADER,
    CUDA_BACKWARD,
    CUDA_FORWARD,
    CUDA_HEADER,
    PIECE,
)
from jseg.nn.kernels import HALVES, Function, compiles
from jseg.runtime import jt

NAME = "group_norm"


def group_norm(
    x,
    groups: int,
    eps: float,
    scale=None,
    shift=None,
    film: Optional[Tuple[object, object]] = None,
    activate: bool = False,
):
    """act((x_hat scale + shift) film[0] + film[1]), of x's type and shape [B, C, ...].

    scale, shift: [C], or maps of x's shape, or of fewer images, the last one's for the images
    beyond; None: 1 and 0. film: two of [B, C] or [B, C, 1, ...]. activate: SiLU. Gradients of
    gradients are not supported.
    """
    batch, channels = x.shape[:2]
    rows = x.reshape(batch, channels, -1)  # [B, C, P]

    # s and t: one number per channel, or maps
    if scale is None:
        s, t = jt.ones((1, channels, 1)).stop_grad(), jt.zeros((1, channels, 1)).stop_grad()
    elif scale.ndim > 1:
        s, t = (v.reshape(v.shape[0], channels, -1) for v in (scale, shift))
    else:
        s, t = (_single(v).reshape(1, channels, 1) for v in (scale, shift))

    # a and b: a number per image and channel, or constants
    if film is None:
        a, b = jt.ones((1, 1)).stop_grad(), jt.zeros((1, 1)).stop_grad()
    else:
        a, b = (_single(v).reshape(batch, channels) for v in film)

    y = GroupNormFunction(groups, eps, activate)(rows, s, t, a, b)
    return y.reshape(x.shape)  # [B, C, ...]


def standardize(x, eps: float):
    """x [..., n] minus its mean over the last axis, over the root of its variance plus eps."""
    return group_norm(x.reshape(-1, 1, x.shape[-1]), 1, eps).reshape(x.shape)


def _single(v):
    """v, if it is of half precision as float32."""
    return v.float32() if str(v.dtype) in HALVES else v


class GroupNormFunction(Function):
    """(x [B, C, P], s and t [1, C, 1] or [n, C, P], n <= B, a and b [B, C] or [1, 1]) -> [B, C, P].

    The last of n maps serves the images from n on.
    """

    def __init__(self, groups: int, eps: float, activate: bool):
        self.data = {"groups": groups, "eps": eps, "activate": int(activate)}

    def execute(self, x, s, t, a, b):
        forward = compiled_forward if compiles(NAME, x) else plain_forward
        with jt.no_grad():
            y, statistics = forward(x, s, t, a, b, **self.data)
        self.keep(x, s, t, a, b, statistics)
        return y

    def grad(self, gradient):
        x, s, t, a, b, statistics = self.recall()
        backward = compiled_backward if compiles(NAME, x) else plain_backward
        with jt.no_grad():
            of_x, of_s, of_t, of_a, of_b = backward(
                gradient, x, s, t, a, b, statistics, **self.data
            )
            # What images share has the sum of their gradients; the constants have none.
            of_s, of_t = (_of_maps(v, s.shape[0]) for v in (of_s, of_t))
            if a.shape[1] < x.shape[1]:
                of_a = of_b = None
            return of_x.cast(x.dtype), of_s.cast(s.dtype), of_t.cast(t.dtype), of_a, of_b


def compiled_forward(x, s, t, a, b, **data):
    """(y [B, C, P], statistics [B groups, 3]: a first mean, what it lacks, 1 / sqrt(variance +
    eps)).
    """
    groups = x.shape[0] * data["groups"]
    pieces = -(-x.numel() // groups // PIECE)
    return jt.code(
        [x.shape, [groups, 3], [2 * groups * pieces]],
        [x.dtype, "float32", "float32"],
        [x, s, t, a, b],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_FORWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_FORWARD,
        data=data,
    )[:2]


def compiled_backward(gradient, x, s, t, a, b, statistics, **data):
    """Gradients, float32, of x [B, C, P], of s and t [B, C, 1] or [B, C, P], of a and b [B, C]."""
    batch, channels, pixels = x.shape
    like_s = [batch, channels, s.shape[2]]
    shapes = [x.shape, like_s, like_s, [batch, channels], [batch, channels], [2 * batch * channels]]
    return jt.code(
        shapes,
        ["float32"] * 6,
        [gradient, x, s, t, a, b, statistics],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_BACKWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_BACKWARD,
        data=data,
    )[:5]


def plain_forward(x, s, t, a, b, groups: int, eps: float, activate: int):
    """The twin of `compiled_forward`."""
    batch, channels, pixels = x.shape
    values = _single(x).reshape(batch * groups, -1)
    first = values.mean(-1, keepdims=True)
    centred = values - first
    rest = centred.mean(-1, keepdims=True)
    scale = 1 / jt.sqrt((centred * centred).mean(-1, keepdims=True) - rest * rest + eps)
    normal = ((centred - rest) * scale).reshape(x.shape)
    s, t = (_of_images(_single(v), batch) for v in (s, t))
    z = (normal * s + t) * _per_row(a) + _per_row(b)
    return (z * jt.sigmoid(z) if activate else z).cast(x.dtype), jt.concat([first, rest, scale], 1)


def plain_backward(gradient, x, s, t, a, b, statistics, groups: int, eps: float, activate: int):
    """The twin of `compiled_backward`."""
    batch, channels, pixels = x.shape
    grouped = [batch * groups, channels // groups * pixels]
    first, rest, scale = (statistics[:, i : i + 1] for i in range(3))
    normal = ((_single(x).reshape(grouped) - first - rest) * scale).reshape(x.shape)
    s, t = (_of_images(_single(v), batch) for v in (s, t))
    a, b, of_z = _per_row(a), _per_row(b), _single(gradient)
    m = normal * s + t

    # through the activation, FiLM, and scale and shift
    if activate:
        z = m * a + b
        sigma = jt.sigmoid(z)
        of_z = of_z * sigma * (1 + z * (1 - sigma))
    of_m = of_z * a
    of_s, of_t, u = of_m * normal, of_m, (of_m * s).reshape(grouped)

    # through the statistics
    x_hat = normal.reshape(grouped)
    slope = (u * x_hat).mean(-1, keepdims=True)
    of_x = scale * (u - u.mean(-1, keepdims=True) - x_hat * slope)

    if s.shape[2] < pixels:
        of_s, of_t = of_s.sum(2, keepdims=True), of_t.sum(2, keepdims=True)
    return of_x.reshape(x.shape), of_s, of_t, (of_z * m).sum(2), of_z.sum(2)


def _of_maps(gradients, count: int):
    """Gradients [B, C, P] of every image's map as those of `count` maps, the last of which is also
    that of all images beyond.
    """
    if count == gradients.shape[0]:
        return gradients
    last = gradients[count - 1 :].sum(0, keepdims=True)
    return last if count == 1 else jt.concat([gradients[: count - 1], last], 0)


def _of_images(maps, batch: int):
    """The map of every image, from `maps` [n, C, P]; the last one is also that of all beyond."""
    count = maps.shape[0]
    if count in (1, batch):
        return maps
    place = jt.array(np.minimum(np.arange(batch), count - 1).astype(np.int32))
    return maps.reindex([batch, *maps.shape[1:]], ["@e0(i0)", "i1", "i2"], extras=[place])


def _per_row(v):
    return v.reshape(v.shape[0], v.shape[1], 1)
