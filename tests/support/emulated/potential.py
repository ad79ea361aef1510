"""The distance potential of FlowSeg and its gradient."""

import itertools

import numpy as np
from support.emulated.cases import Case, Operator, close, normal

from jseg.flowseg import potential as module
from jseg.parity.cuda_emulation.device_types import rounded

EPS = 1e-2
SIZES = ((1, 1), (2, 255), (1, 256), (3, 257), (2, 1000))  # maps, pixels of a map


def cases(kind):
    rng = np.random.default_rng(0)
    return [
        case(rng, size, classes, tau)
        for size, classes, tau in itertools.product(SIZES, (1, 2, 19, 150), (1.0, 0.1, 2.0))
    ]


def case(rng, size, classes, tau):
    batch, pixels = size
    x = normal(rng, (batch, 3, pixels), spread=0.6)
    codes = rounded(rng.uniform(-1, 1, (classes, 3)), "float32")
    labels = rng.integers(-1, classes + 1, (batch, pixels))
    if pixels > 3:
        # a pixel at its own code, and some without a class, whose values may be no numbers
        labels[0, :4] = 0, -1, classes, 255
        x[0, :, 0], x[0, :, 1], x[0, :, 2] = codes[0], np.nan, np.inf
    known = (labels >= 0) & (labels < classes)
    own = np.arange(classes)[None, :, None] == labels[:, None]  # [B, N, P]

    # formulas (3) to (6), with 1 - p_y as a sum over the others
    offset = np.where(known[:, None], x, 0)[:, None] - codes[None, :, :, None]  # [B, N, 3, P]
    distance = (offset**2).sum(2) + EPS
    ratio = distance.min(1, keepdims=True) / distance
    p = ratio ** (1 / tau)
    p = p / p.sum(1, keepdims=True)
    weights = np.where(own, (p * ~own).sum(1, keepdims=True), -p) / distance
    gradient = 2 / tau * (weights[:, :, None] * offset).sum(1)
    phi = -np.log((p * own).sum(1) + ~known)
    sizes = np.abs(weights) * (1 + (2 + np.abs(np.log(ratio))) / tau)
    sizes = 2 / tau * (sizes[:, :, None] * np.abs(offset)).sum(1)
    size_of_phi = 1 + phi + (2 + np.abs(np.log(ratio)).max(1)) / tau

    outputs = [
        (x.shape, "float32", close(np.where(known[:, None], gradient, 0), 12, sizes)),
        (labels.shape, "float32", close(np.where(known, phi, 0), 4, size_of_phi)),
    ]
    inputs = [(x, "float32"), (labels, "int32"), (codes, "float32")]
    name = f"{size}, {classes} classes, tau {tau}"
    return Case(name, "forward", inputs, outputs, {"tau": tau, "eps": EPS})


OPERATOR = Operator(
    "jseg.flowseg.potential",
    module.CUDA_HEADER,
    {"forward": module.CUDA},
    cases,
    kinds=("float32",),
)
