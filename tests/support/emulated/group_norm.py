"""Group norm, scale and shift, FiLM and SiLU: y = act((x_hat s + t) a + b)."""

import itertools

import numpy as np
from scipy.special import expit
from support.emulated.cases import Case, Operator, close, normal

from jseg.nn import group_norm_source as source

EPS = 1e-5
PIECE = source.PIECE
SMALL = ((2, 6, 63, 2), (1, 4, 1, 2), (2, 8, 1, 8), (3, 4, 257, 4))  # B, C, P, groups
# two values more than a piece; a piece; more groups than threads of a block; several pieces
LARGE = ((1, 2, PIECE // 2 + 1, 1), (1, 2, PIECE // 2, 1), (300, 1, 3, 1), (1, 2, 20011, 2))


def cases(kind):
    rng = np.random.default_rng(0)
    maps, film, activate = ("no", "one", "each"), (False, True), (False, True)
    chosen = list(itertools.product(SMALL[:1], maps, film, activate))
    if kind == "float32":
        chosen += itertools.product(SMALL[1:], maps, film, activate)
        chosen += itertools.product(LARGE[:2], maps, (True,), (True,))
    chosen += itertools.product(SMALL[1:] + LARGE[:1], ("one",), (True,), (True,))
    chosen += itertools.product(LARGE[2:], ("each",), (False,), (True,))
    chosen += [(SMALL[3], "two", True, True)]  # for three images: the last map serves two
    # means whose squares have no place in float16, and no digits in bfloat16
    large_mean = {"float32": 1e3, "float16": 300, "bfloat16": 8}[kind]
    chosen += [(size, "no", False, False, large_mean) for size in ((2, 6, 63, 2), LARGE[3])]
    # rows: one group each
    chosen += [((6, 1, n, 1), "no", False, False) for n in (1, 48, 5000)]
    return [c for args in chosen for c in case(rng, kind, *args)]


def case(rng, kind, size, maps, film, activate, mean_of_x=3):
    batch, channels, pixels, groups = size
    shape, of_s = (batch, channels, pixels), "float32" if maps == "no" else kind
    x, g = normal(rng, shape, kind, mean_of_x), normal(rng, shape, kind)
    images = {"each": batch, "two": 2}.get(maps, 1)
    like = (images, channels, 1 if maps == "no" else pixels)
    own_s, own_t = (normal(rng, like, of_s, mean) for mean in (1, 0))
    s, t = (v[np.minimum(np.arange(batch), images - 1)] for v in (own_s, own_t))
    a, b = (np.ones((1, 1)), np.zeros((1, 1)))
    if film:
        a, b = (normal(rng, (batch, channels), mean=mean) for mean in (1, 0))

    # forward
    grouped = x.reshape(batch * groups, -1)
    mean = grouped.mean(1, keepdims=True)
    r = 1 / np.sqrt(grouped.var(1, keepdims=True) + EPS)
    x_hat = ((grouped - mean) * r).reshape(shape)
    a3, b3 = (np.broadcast_to(v, (batch, channels))[..., None] for v in (a, b))
    m = x_hat * s + t
    z = m * a3 + b3
    y = z * expit(z) if activate else z
    # The mean of a piece is a float32: half a unit of it is lost.
    size_of_mean = np.repeat(np.abs(mean) * r, channels // groups).reshape(batch, channels, 1)
    sizes_of_y = (np.abs(x_hat) + 1 + size_of_mean / 8) * np.abs(s) + np.abs(t)
    sizes_of_y = sizes_of_y * np.abs(a3) + np.abs(b3)
    first = mean.astype(np.float32).astype(np.float64)
    statistics = np.concatenate([first, mean - first, r], 1)
    pieces = -(-grouped.shape[1] // PIECE)

    # backward
    sizes_of_x_hat = np.abs(x_hat) + 1
    sizes_of_m = sizes_of_x_hat * np.abs(s) + np.abs(t)
    sizes_of_z = sizes_of_m * np.abs(a3) + np.abs(b3)
    sigma = expit(z)
    dz = g * sigma * (1 + z * (1 - sigma)) if activate else g
    sizes_of_dz = np.abs(g) * (1 + sizes_of_z * activate)
    xg, size_of_xg = (v.reshape(grouped.shape) for v in (x_hat, sizes_of_x_hat))
    u, size_of_u = (
        (v * w).reshape(grouped.shape) for v, w in ((dz, a3 * s), (sizes_of_dz, np.abs(a3 * s)))
    )
    of_x = r * (u - u.mean(1, keepdims=True) - xg * (u * xg).mean(1, keepdims=True))
    sizes_of_x = size_of_u + size_of_u.mean(1, keepdims=True)
    sizes_of_x = r * (sizes_of_x + size_of_xg * (size_of_u * size_of_xg).mean(1, keepdims=True))
    terms = [dz * a3 * x_hat, dz * a3, dz * m, dz]
    sizes = [np.abs(a3) * sizes_of_dz * sizes_of_x_hat, np.abs(a3) * sizes_of_dz]
    sizes += [sizes_of_dz * sizes_of_m, sizes_of_dz]
    small = s.shape[2] < pixels or pixels == 1
    for i in range(4):
        if small or i > 1:
            terms[i], sizes[i] = (v.sum(2, keepdims=i < 2) for v in (terms[i], sizes[i]))

    name = f"{kind} {size} of mean {mean_of_x}, maps {maps}, FiLM {film}, SiLU {activate}"
    data = {"groups": groups, "eps": EPS, "activate": int(activate)}
    f, norm_inputs = (
        "float32",
        [(x, kind), (own_s, of_s), (own_t, of_s), (a, "float32"), (b, "float32")],
    )
    forward = [
        (shape, kind, close(y, 8, sizes_of_y, kind)),
        (statistics.shape, f, None),
        ((2 * batch * groups * pieces,), f, None),
    ]
    backward = [(shape, f, close(of_x.reshape(shape), 4, sizes_of_x.reshape(shape)))]
    backward += [(v.shape, f, close(v, 4, size)) for v, size in zip(terms, sizes)]
    backward += [((2 * batch * channels,), f, None)]
    return [
        Case(name, "forward", norm_inputs, forward, data),
        Case(name, "backward", [(g, kind), *norm_inputs, (statistics, f)], backward, data),
    ]


OPERATOR = Operator(
    "jseg.nn.group_norm",
    source.CUDA_HEADER,
    {"forward": source.CUDA_FORWARD, "backward": source.CUDA_BACKWARD},
    cases,
)
