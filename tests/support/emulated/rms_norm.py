"""RMS norm: y = q x s + b with q = (mean(x^2) + eps)^(-1/2)."""

import itertools

import numpy as np
from support.emulated.cases import Case, Operator, close, normal

from jseg.nn import rms_norm as module

EPS = 1e-6
SIZES = ((3, 70, 24), (1, 1, 1), (2, 64, 128), (2, 65, 129), (1, 130, 7), (1, 3, 1025), (2, 5, 64))
WIDE = ((2, 9, 2000), (1, 9, 3073), (1, 2, module.WIDEST))  # two warps, one, the most


def cases(kind):
    rng = np.random.default_rng(0)
    chosen = []
    for size, own_scale, shifts in itertools.product(SIZES, (False, True), (False, True)):
        if size[2] == 1 and not shifts:
            continue  # one shift for one channel is a shift
        chosen += case(rng, kind, size, own_scale, shifts)
    for size in WIDE:
        chosen += case(rng, kind, size, True, True)
    # Squares of these have no place in float16, and their sums no digits in bfloat16.
    large = {"float32": 1e15, "float16": 8e3, "bfloat16": 1e15}[kind]
    return chosen + case(rng, kind, SIZES[0], False, True, large)


def case(rng, kind, size, own_scale, shifts, spread=1):
    # Images that share a scale are one sequence, as rms_norm has it.
    count, length, channels = size if own_scale else (1, size[0] * size[1], size[2])
    shape = (count, length, channels)
    x, g = normal(rng, shape, kind, spread=spread), normal(rng, shape, kind)
    s = normal(rng, (count, channels), mean=1)
    b = normal(rng, (count, channels)) if shifts else np.zeros((1, 1))
    q = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)
    x_hat = x * q
    y = x_hat * s[:, None] + (b[:, None] if shifts else 0)
    terms = np.abs(x_hat * s[:, None]) + (np.abs(b[:, None]) if shifts else 0)

    gs = g * s[:, None]
    slope = (gs * x_hat).mean(-1, keepdims=True)
    size_of_slope = np.abs(gs * x_hat).mean(-1, keepdims=True)
    of_x = q * (gs - x_hat * slope)
    sizes_of_x = q * (np.abs(gs) + np.abs(x_hat) * size_of_slope)
    run = module.cuda_run(count * length)
    runs = -(-length // run)
    of_s, sizes_of_s = (v.sum(1) for v in (g * x_hat, np.abs(g * x_hat)))
    of_b, sizes_of_b = (v.sum(1) for v in (g, np.abs(g)))

    name = (
        f"{kind} {size} of {spread:g}, scale {'of each' if own_scale else 'of all'}, shift {shifts}"
    )
    forward = [
        (shape, kind, close(y, 8, terms, kind)),
        (shape[:2], "float32", close(q[..., 0], 6, q[..., 0])),
    ]
    backward = [
        (shape, "float32", close(of_x, 10, sizes_of_x)),
        (of_s.shape, "float32", close(of_s, 16, sizes_of_s)),
        (of_b.shape, "float32", close(of_b, 16, sizes_of_b)),
        ((count, runs, 2, channels), "float32", None),
    ]
    f, pair = "float32", [(x, kind), (s, "float32")]
    return [
        Case(name, "forward", pair + [(b, f)], forward, {"eps": EPS}),
        Case(name, "backward", [(g, kind), *pair, (q[..., 0], f)], backward, {"run": run}),
    ]


OPERATOR = Operator(
    "jseg.nn.rms_norm",
    module.CUDA_HEADER,
    {"forward": module.CUDA_FORWARD, "backward": module.CUDA_BACKWARD},
    cases,
)
