"""What the CPU computes by operators without CUDA source, against what computes it on the device:
Jittor's convolutions and the twins.

On the CPU itself, for a trial, the operators are held against their twins.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator

import numpy as np

from jseg.flowseg import likeliest
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.ldm import strips
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.halo import with_halo
from jseg.ldm.nearest_entry import nearest_entry
from jseg.ldm.presets import AUTOENCODERS
from jseg.nn import convolution, layers, precision
from jseg.parity.gpu.comparing import Parts, compared, filled, gradients_of, of_function, random
from jseg.parity.gpu.operators import compiled
from jseg.parity.gpu.records import Case
from jseg.runtime import device, jt

# Winograd's algorithms, ours and cuDNN's, add and subtract numbers larger than the result: their
# errors are some ten times those of a plain sum.
CONVOLUTION = 1e-4
PASS = 1e-5  # one pass over an array
NETWORK = 1e-4
STRIP_BYTES = 1 << 16  # a few rows of a tiny decoder's maps


def fallback_cases(target: str) -> Iterator[Case]:
    """A case per operator that only the CPU has."""
    for name, compute in _convolutions():
        yield _beside_operator(name, target, compute, CONVOLUTION)
    yield _beside_operator("strip with its neighbours' rows", target, _strip, PASS)
    yield _differing("nearest entries of a codebook", target, _entries)
    yield _differing("likeliest classes", target, _classes)
    yield _differing("rounding to bfloat16", target, _rounded)
    yield _beside_operator("PixNerd tiny, fused blocks and field", target, _field, NETWORK)
    yield _beside_operator("decode in strips, tiny", target, _decoded_in_strips, NETWORK)


def _rounded() -> np.ndarray:
    """By our operator on the CPU, by Jittor's cast on CUDA."""
    x = jt.array(random(5000))
    if jt.flags.use_cuda:
        return x.cast("bfloat16").float32().numpy()
    return precision.rounded(x, "bfloat16").numpy()


@contextlib.contextmanager
def _without_operators(target: str) -> Iterator[None]:
    """Inside of the `with`, the CPU has no operators either; other devices stay as they are."""
    with compiled(on=False) if target == "cpu" else contextlib.nullcontext():
        yield


def _beside_operator(name: str, target: str, compute: Callable[[], Parts], bound: float) -> Case:
    """compute() on the device, against the CPU's operators."""

    def elsewhere():
        with _without_operators(target):
            return compute()

    return compared(name, target, elsewhere, bound, compute)


def _differing(name: str, target: str, compute: Callable[[], np.ndarray]) -> Case:
    """compute() on the device: the fraction of numbers that the CPU's operators give otherwise."""

    def both():
        device("cpu")
        expected = compute()
        device(target)
        with _without_operators(target):
            return {"difference": float((compute() != expected).mean())}

    return Case(name, both, 0.0)


def _convolutions():
    """3x3 convolutions with a bias and their gradients: of a large and of the smallest maps, of a
    doubled one, with padding in one direction; and of one pixel.
    """
    for title, (channels, outputs, side), doubled, padding in (
        ("3x3", (32, 64, 24), False, (1, 1)),
        ("3x3, 8x8 pixels, 256 channels", (256, 256, 8), False, (1, 1)),
        ("3x3, doubled", (32, 32, 12), True, (1, 1)),
        ("3x3, inner rows", (32, 32, 12), False, (0, 1)),
        ("3x3, inner rows, doubled", (32, 32, 12), True, (-1, 1)),
    ):
        x = random(1, channels, side, side)
        weight = random(outputs, channels, 3, 3, seed=1) / np.float32(3 * channels**0.5)

        def function(x, weight, bias, doubled=doubled, padding=padding):
            return convolution.conv3x3(x, weight, bias, padding, doubled)

        arrays = (x, weight, random(outputs, seed=2))
        yield f"convolution {title}", of_function(function, *arrays, wanted=(0, 1, 2))

    network = filled(layers.Pointwise(32, 48))

    def pointwise():
        x = jt.array(random(2, 32, 12, 16))
        y = network(x)
        return [y], gradients_of(y, [x, network.weight, network.bias])

    yield "convolution 1x1", pointwise


def _strip():
    """Strips in the middle and at both ends of a map, normalised and activated."""
    with jt.no_grad():
        parts = [jt.array(random(1, 32, 6, 16, seed=i)) for i in range(3)]
        coefficients = jt.array(random(3, 1, 32, seed=5))
        return [with_halo(parts, i, coefficients, 1, 1, right=i % 2) for i in range(3)], []


def _entries():
    """The nearest entries of rows that are not near the middle between two."""
    entries = random(256, 3, seed=1)
    z = entries[np.random.default_rng(0).integers(0, 256, 500)] + 0.02 * random(500, 3)
    distances = np.sort(((z[:, None].astype(np.float64) - entries) ** 2).sum(2), 1)
    clear = distances[:, 1] - distances[:, 0] > 1e-3
    return nearest_entry(jt.array(z[clear].astype(np.float32)), jt.array(entries)).numpy()


def _classes():
    """The likeliest classes of enlarged probabilities."""
    rows = np.random.default_rng(0).random((11, 12, 16)).astype(np.float32)
    down, across = likeliest.neighbours(12, 30), likeliest.neighbours(16, 50)
    return likeliest.likeliest(rows, down, across)


def _field():
    """A velocity without gradient, as at inference."""
    config = NETWORKS["tiny"]
    network = filled(PixNerd(config))
    network.eval()
    with jt.no_grad():
        x = random(2, 3, config.height, config.width)
        return [network(jt.array(x), jt.array(np.array([0.3, 0.8], np.float32)))], []


def _decoded_in_strips():
    network = filled(Autoencoder(AUTOENCODERS["tiny"]))
    before, strips.STRIP_BYTES = strips.STRIP_BYTES, dict.fromkeys(("cpu", "cuda"), STRIP_BYTES)
    try:
        with jt.no_grad():
            return [network.decode(jt.array(random(1, 3, 16, 24)))], []
    finally:
        strips.STRIP_BYTES = before
