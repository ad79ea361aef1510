"""The networks on the CPU and on the device: velocities and gradients, recompute, an image fed in,
samplers, the ODE's methods, an image segmented from a file.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Callable, Iterator

import numpy as np

from jseg.checkpoint import save
from jseg.flowseg import ode
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.samplers import SAMPLERS, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.parity.gpu.comparing import BOUND, compared, filled, of_module, random
from jseg.parity.gpu.records import Case, LeftOut
from jseg.runtime import device, jt

STEPS, GUIDANCE = 3, 3.5  # of flows and samplers
# Pixels whose class may differ: where two classes are almost equally likely, rounding decides.
DIFFERENT_PIXELS = 1e-2


def network_cases(target: str, size: str, folder: str) -> Iterator[Case]:
    """A case per network and way to run it; a release's networks have a group of their own."""
    name = "tiny" if size == "tiny" else "small"
    unet, field = UNETS[name], NETWORKS[name]
    inputs = _latents(unet)
    yield compared(f"UNet {name}", target, of_module(lambda: UNet(unet), *inputs))

    x, t = random(1, 3, field.height, field.width), np.array([0.3], np.float32)
    yield compared(f"PixNerd {name}", target, of_module(lambda: PixNerd(field), x, t))
    yield compared(f"autoencoder {name}", target, _codec(AUTOENCODERS[name]))

    # With recompute on the device and without it on the CPU; tiny networks from here on.
    tiny, tiny_field = UNETS["tiny"], NETWORKS["tiny"]
    x, t = random(2, 3, tiny_field.height, tiny_field.width), np.array([0.3, 0.8], np.float32)
    for title, make, arrays in (
        ("UNet tiny, recompute", lambda: UNet(tiny), _latents(tiny)),
        ("PixNerd tiny, recompute", lambda: PixNerd(tiny_field), (x, t)),
    ):
        plain, again = of_module(make, *arrays), of_module(_recomputing(make), *arrays)
        yield compared(title, target, again, reference=plain)

    image = np.tanh(random(*x.shape, seed=1))
    for source in ("noise", "image+noise"):
        seeing = dataclasses.replace(tiny_field, source=source)
        compute = of_module(lambda seeing=seeing: PixNerd(seeing), x, t, image)
        yield compared(f"PixNerd tiny, source {source}", target, compute)

    for sampler in SAMPLERS:
        yield compared(f"guided steps, {sampler}", target, _sampled(sampler, *_latents(tiny)))
    for method in ode.METHODS:
        yield compared(f"flow, {method}", target, _flow(method, x))
    yield from _segmenter_cases(target, os.path.join(folder, "stored.safetensors"))


def _latents(config):
    """(x, t, y) of two images, of at most 64x48 positions, to spare the CPU."""
    shape = (2, min(config.height, 48), min(config.width, 64))
    labels = np.random.default_rng(0).integers(0, config.classes, shape)
    y = (labels[:, None] == np.arange(config.classes).reshape(1, -1, 1, 1)).astype(np.float32)
    return random(2, 3, *shape[1:]), np.array([600, 3], np.int32), y


def _recomputing(make: Callable) -> Callable:
    def network():
        module = make()
        module.recompute = True
        return module

    return network


def _codec(config) -> Callable:
    network = functools.lru_cache(maxsize=None)(lambda: filled(Autoencoder(config)))

    def compute():
        with jt.no_grad():
            z = network().encode(jt.array(np.tanh(random(1, 3, 64, 96))))
            return [z, network().decode(jt.array(random(1, 3, 16, 24)))], []

    return compute


@functools.lru_cache(maxsize=None)
def _tiny_unet() -> UNet:
    network = filled(UNet(UNETS["tiny"]))
    network.eval()
    return network


def _sampled(sampler: str, x: np.ndarray, _, y: np.ndarray) -> Callable:
    """The end of guided steps of a tiny UNet."""

    def compute():
        predictor = guided(_tiny_unet(), jt.array(y), GUIDANCE)
        schedule, noise = Schedule("ddim50"), lambda index: random(*x.shape, seed=index)
        for end in SAMPLERS[sampler](predictor, jt.array(x), schedule, STEPS, noise=noise):
            pass
        return [end], []

    return compute


@functools.lru_cache(maxsize=None)
def _tiny_field() -> PixNerd:
    network = filled(PixNerd(NETWORKS["tiny"]))
    network.eval()
    return network


def _flow(method: str, x: np.ndarray) -> Callable:
    """The end of a flow through a tiny network."""

    def compute():
        for end in ode.METHODS[method](_tiny_field(), jt.array(x), STEPS):
            pass
        return [end], []

    return compute


def _segmenter_cases(target: str, path: str) -> Iterator[Case]:
    """An image larger than a window, segmented by a network from a file."""
    config = NETWORKS["tiny"]
    shape = (config.height * 3 // 2, config.width * 2, 3)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    def segmenter(where: str):
        try:
            from jseg.flowseg.predict import Segmenter
        except ImportError as error:
            raise LeftOut(f"{error.name} is not installed") from None
        if not os.path.exists(path):
            save(path, _tiny_field().state_dict(), config)
        return Segmenter.from_file(path, steps=STEPS, device=where, scale=None)

    def probabilities():
        where = "cuda" if jt.flags.use_cuda else "cpu"
        return [segmenter(where).probabilities(image)], []

    def labels():
        maps = [segmenter(where).segment(image) for where in ("cpu", target)]
        device(target)
        return {"difference": float((maps[0] != maps[1]).mean())}

    # Probabilities fall off with the square of distances: twice the error of the flow's end.
    yield compared("Segmenter, probabilities", target, probabilities, 2 * BOUND)
    yield Case("Segmenter, fraction of pixels of another class", labels, DIFFERENT_PIXELS)
