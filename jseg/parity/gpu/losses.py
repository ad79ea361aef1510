"""The losses of the trainings on the CPU and on the device, with the gradients of all parameters,
and what an optimiser step does with them.
"""

from __future__ import annotations

import functools
from typing import Iterator

import numpy as np

from jseg.flowseg.dinov2 import Dinov2, Dinov2Config
from jseg.flowseg.encoding import class_codes
from jseg.flowseg.field import training_loss as flow_training_loss
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.flowseg.repa import Alignment
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import training_loss
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.ldm.vqgan_loss import autoencoder_loss
from jseg.parity.gpu.comparing import compared, filled, random
from jseg.parity.gpu.records import Case
from jseg.runtime import jt
from jseg.training.optimizer import EMA, AdamW, trainable

LOSS_BOUND = 5e-4  # the layers' bound, and a loss is one number of many that cancel
STEP_BOUND = 1e-5  # element by element, nothing is added up
OPTIMIZER_STEPS = 3


def loss_cases(target: str) -> Iterator[Case]:
    """A case per loss, and one of the optimiser and the moving average."""
    for name, compute in (
        ("diffusion loss, UNet tiny", _loss_of_unet),
        ("flow loss, PixNerd tiny", _loss_of_flow),
        ("autoencoder's loss, tiny", _loss_of_autoencoder),
        ("flow loss with REPA, PixNerd tiny", _loss_with_alignment),
    ):
        yield compared(name, target, compute, LOSS_BOUND)
    yield compared(f"AdamW and EMA, {OPTIMIZER_STEPS} steps", target, _optimizer_steps, STEP_BOUND)


@functools.lru_cache(maxsize=None)
def _tiny(kind):
    """A tiny network, the same for both devices."""
    configs = {UNet: UNETS, PixNerd: NETWORKS, Autoencoder: AUTOENCODERS}
    return filled(kind(configs[kind]["tiny"]))


def latent_batch(config, start: int = 0, count: int = 2):
    """`count` examples of a UNet's training from number `start` on; each depends on its number
    alone.
    """
    examples = range(start, start + count)
    shape = (3, config.height, config.width)
    draws = [np.random.default_rng(i).integers(0, config.classes, shape[1:]) for i in examples]
    return {
        "z": np.stack([random(*shape, seed=i) for i in examples]),
        "t": np.array([300 + 340 * (i % 2) for i in examples]),
        "labels": np.stack(draws),
        "noise": np.stack([random(*shape, seed=1000 + i) for i in examples]),
        "seed": 0,
        "step": 0,
        "start": start,
    }


def crop_batch(config, count: int = 2):
    """`count` examples of FlowSeg's training."""
    shape = (count, config.height, config.width)
    labels = np.random.default_rng(0).integers(0, config.labels, shape).astype(np.uint8)
    images = np.random.default_rng(1).integers(0, 256, (count, 3, *shape[1:]))
    return {
        "images": images.astype(np.uint8),
        "labels": labels,
        "t": np.linspace(0.2, 0.8, count).astype(np.float32),
        "noise": random(count, 3, *shape[1:], seed=1),
    }


def _with_gradients(losses, *modules):
    parameters = [p for module in modules for p in trainable(module).values()]
    return list(losses.values()), jt.grad(losses["loss"], parameters)


def _loss_of_unet():
    unet = _tiny(UNet)
    losses = training_loss(unet, Schedule())(latent_batch(unet.config))
    return _with_gradients(losses, unet)


def _loss_of_flow():
    network = _tiny(PixNerd)
    loss = flow_training_loss(network, class_codes(network.config.labels))
    return _with_gradients(loss(crop_batch(network.config)), network)


def _loss_of_autoencoder():
    network = _tiny(Autoencoder)
    batch = {"images": np.tanh(random(2, 3, 32, 48)), "step": 0}
    return _with_gradients(autoencoder_loss(network)(batch), network)


@functools.lru_cache(maxsize=None)
def _tiny_alignment() -> Alignment:
    """Of PixNerd's tokens with those of a small DINOv2 that sees the same patches."""
    field = NETWORKS["tiny"]
    encoder = Dinov2(Dinov2Config(width=24, depth=1, heads=3, patch=7, grid=3))
    for name, v in encoder.state_dict().items():
        v.assign(jt.array(random(*v.shape, seed=len(name)) * np.float32(0.2)))
    return filled(
        Alignment(encoder, field.hidden_size, field.patch, encoder_width=24, encoder_patch=7)
    )


def _loss_with_alignment():
    network, alignment = _tiny(PixNerd), _tiny_alignment()
    codes = class_codes(network.config.labels)
    loss = flow_training_loss(network, codes, alignment=alignment)
    return _with_gradients(loss(crop_batch(network.config)), network, alignment)


def _optimizer_steps():
    """Parameters, moments and averages after steps along given gradients."""
    shapes = {"weight": (64, 48), "bias": (64,)}
    parameters = {name: jt.array(random(*shape)) for name, shape in shapes.items()}
    optimizer = AdamW(parameters, 1e-2, weight_decay=0.1)
    averages = EMA(parameters, 0.9)
    for step in range(1, OPTIMIZER_STEPS + 1):
        gradients = {n: jt.array(random(*shape, seed=step)) for n, shape in shapes.items()}
        optimizer.step(gradients)
        averages.update(step)
    results = [parameters, optimizer.first, optimizer.second, averages.values]
    return [v for variables in results for v in variables.values()], []
