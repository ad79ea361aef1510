"""Cases that compute the same on the CPU and on the device: layers, kernels, networks, losses, each
with its gradients.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Dict, Iterator

import numpy as np

from jseg.flowseg import blocks as field_blocks
from jseg.flowseg import neural_field
from jseg.flowseg.encoding import class_codes, encode
from jseg.flowseg.field import training_loss
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.potential import correction
from jseg.flowseg.presets import NETWORKS
from jseg.ldm import blocks
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import diffusion_loss
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.ldm.vqgan_loss import autoencoder_loss
from jseg.nn import attention, convolution, group_norm, kernels, layers, rms_norm
from jseg.parity.gpu.comparing import compared, filled, of_function, of_module, random
from jseg.parity.gpu.records import Case, LeftOut
from jseg.runtime import jt
from jseg.training.optimizer import trainable


class Spade(layers.nn.Module):
    """A conditioned block that is given its maps, as the UNet gives it their scales and shifts."""

    def __init__(self, up: bool):
        self.block = blocks.SpadeResBlock(32, 64, 128, UNETS["tiny"], up=up)
        self.up = up

    def execute(self, x, y, embedding):
        above = convolution.upsample(y) if self.up else y
        return self.block.from_maps(y, above, embedding, x)


def layer_cases(target: str) -> Iterator[Case]:
    """The layers of both branches, with gradients."""
    for name, (make, *arrays) in {**_unet_layers(), **_field_layers()}.items():
        yield compared(name, target, of_module(make, *arrays))

    # Functions, with gradients of inputs.
    x, tokens = random(2, 32, 12, 16), [random(4, n, 16, seed=n) for n in (48, 40, 40)]
    attend = of_function(lambda q, k, v: layers.attention(q, k, v, 0.25), *tokens, wanted=(0, 1, 2))
    yield compared("attention, in chunks", target, _in_chunks(attend))
    yield compared("upsample", target, of_function(convolution.upsample, x, wanted=(0,)))
    yield compared("halve", target, of_function(blocks.halve, x, wanted=(0,)))


def _unet_layers() -> Dict[str, tuple]:
    """{name: (what makes a layer, its inputs)} of IIDM's networks."""
    nn, x, embedding = layers.nn, random(2, 32, 12, 16), random(2, 128, seed=1)
    config = UNETS["tiny"]
    maps = random(2, config.classes, 12, 16, seed=2)
    return {
        "convolution 3x3": (lambda: convolution.Conv3x3(32, 64), x),
        "convolution 3x3, stride 2": (lambda: nn.Conv2d(32, 64, 3, stride=2, padding=1), x),
        "linear": (lambda: nn.Linear(128, 64), embedding),
        "Pointwise": (lambda: layers.Pointwise(32, 48), x),
        "GroupNorm": (lambda: layers.GroupNorm(8, 32), x),
        "ResBlock": (lambda: blocks.ResBlock(32, 64, 128, config), x, embedding),
        "ResBlock, halving": (
            lambda: blocks.ResBlock(32, 32, 128, config, down=True),
            x,
            embedding,
        ),
        "SpadeResBlock": (lambda: Spade(False), x, maps, embedding),
        "SpadeResBlock, doubling": (lambda: Spade(True), x, maps, embedding),
        "AttentionBlock": (lambda: blocks.AttentionBlock(32, config), x),
    }


def _field_layers() -> Dict[str, tuple]:
    """The same of PixNerd."""
    tokens, condition, pixels = random(2, 12, 48), random(2, 48, seed=1), random(6, 64, 16)
    times, table = np.array([0.1, 0.9], np.float32), field_blocks.turn_tables(3, 4, 16)
    return {
        "RMSNorm": (lambda: field_blocks.RMSNorm(32), random(2, 12, 32)),
        "TimeEmbedding": (lambda: field_blocks.TimeEmbedding(64), times),
        "TransformerBlock": (
            lambda: field_blocks.TransformerBlock(48, 3),
            tokens,
            condition,
            *table,
        ),
        "PixelEmbedding": (lambda: neural_field.PixelEmbedding(16, 4, 8), random(6, 64, 3)),
        "FieldBlock": (
            lambda: neural_field.FieldBlock(48, 16, 2),
            pixels,
            random(6, 48, seed=1),
        ),
        "FinalLayer": (lambda: neural_field.FinalLayer(16), pixels),
    }


def _in_chunks(compute):
    def smaller():
        before, layers.ATTENTION_CHUNK_BYTES = layers.ATTENTION_CHUNK_BYTES, 4 * 40 * 4 * 10
        try:
            return compute()
        finally:
            layers.ATTENTION_CHUNK_BYTES = before

    return smaller


@contextlib.contextmanager
def compiled(name: str, on: bool = True):
    """Inside of the `with`, jseg.nn's operator of that name computes on every device, or its twin
    does.
    """
    before = kernels.FASTER
    kernels.FASTER = dict.fromkeys(("cpu", "cuda"), (name,) if on else ())
    try:
        yield
    finally:
        kernels.FASTER = before


def kernel_functions():
    """(operator's name, case's name, function, arrays, numbers of the inputs that have
    gradients).
    """
    x, maps = random(2, 64, 24, 32), [random(2, 64, 24, 32, seed=i) for i in (1, 2)]
    film, rows = [random(2, 64, 1, 1, seed=i) for i in (3, 4)], [random(64, seed=i) for i in (5, 6)]

    def norm(activate):
        return lambda x, s, t, *film: group_norm.group_norm(
            x, 32, 1e-5, s, t, film or None, activate
        )

    yield group_norm.NAME, "group norm", norm(False), [x, *rows], (0, 1, 2)
    yield group_norm.NAME, "group norm, SiLU", norm(True), [x, *rows], (0, 1, 2)
    yield group_norm.NAME, "group norm, FiLM, SiLU", norm(True), [x, *rows, *film], (0, 1, 2, 3, 4)
    yield group_norm.NAME, "group norm, SPADE, SiLU", norm(True), [x, *maps], (0, 1, 2)
    whole = [x, *maps, *film]
    yield group_norm.NAME, "group norm, SPADE, FiLM, SiLU", norm(True), whole, (0, 1, 2, 3, 4)
    for channels in (64, 72, 16):
        yield (
            attention.NAME,
            f"attention, heads of {channels}",
            lambda q, k, v, d=channels: layers.attention(q, k, v, d**-0.5),
            [random(6, n, channels, seed=n) for n in (200, 190, 190)],
            (0, 1, 2),
        )
    tokens = [random(4, 150, 128), random(4, 128, seed=1), random(4, 128, seed=2)]
    yield rms_norm.NAME, "RMS norm", field_blocks.rms_scaled, [tokens[0], rows[0].repeat(2)], (0, 1)
    yield rms_norm.NAME, "RMS norm, adaLN", field_blocks.rms_scaled, tokens, (0, 1, 2)


# A type's unit of rounding: 2^-p for significands of p bits.
UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def kernel_bound(kind: str) -> float:
    """How far an operator may lie from its float32 twin on the same inputs, which are exact in
    `kind`.

    In half precision the sums are float32, so what remains is one rounding of each result, and in
    the gradients that of the kept result (attention) and their own: 4 units leave room for both. In
    float32 the sums of up to 3072 terms in another order come on top: 168 units, 1e-5.
    """
    return 1e-5 if kind == "float32" else 4 * UNITS[kind]


def kernel_cases(target: str) -> Iterator[Case]:
    """Each operator in every type against its float32 twin on the CPU, forward and gradients."""

    def computation(name, function, arrays, wanted, kind, twin):
        def compute():
            with compiled(name, on=not twin):
                # Both sides get the same numbers, those that `kind` can hold.
                types = [kind if array.ndim > 1 else "float32" for array in arrays]
                variables = [jt.array(array).cast(dtype) for array, dtype in zip(arrays, types)]
                variables = [v.float32() for v in variables] if twin else variables
                if name == attention.NAME and not twin and not attention.tiled(variables[0]):
                    raise LeftOut(f"the CPU has no operator for attention in {kind}")
                y = function(*variables)
                factor = jt.array(random(*y.shape, seed=9)).cast(kind).cast(y.dtype).stop_grad()
                gradients = jt.grad(y * factor, [variables[i] for i in wanted])
                jt.sync([y, *gradients])
                return [y], gradients

        return compute

    for name, title, *function in kernel_functions():
        for kind in UNITS:
            compute = computation(name, *function, kind, twin=False)
            reference = computation(name, *function, kind, twin=True)
            yield compared(f"{title}, {kind}", target, compute, kernel_bound(kind), reference)

    x, codes = random(2, 3, 24, 40) * 0.6, class_codes(150).astype(np.float32)
    labels = np.random.default_rng(0).integers(-1, 150, (2, 24, 40)).astype(np.int32)
    for tau in (1.0, 0.5):
        yield compared(
            f"correction, tau {tau:g}",
            target,
            lambda tau=tau: (list(correction(x, labels, codes, tau)), []),
            1e-4,
        )


def network_cases(target: str) -> Iterator[Case]:
    unet, autoencoder, pixnerd = UNETS["small"], AUTOENCODERS["small"], NETWORKS["small"]
    t = np.array([600, 3], np.int32)
    labels = np.random.default_rng(0).integers(0, 29, (2, 48, 64))
    y = (labels[:, None] == np.arange(29).reshape(1, -1, 1, 1)).astype(np.float32)
    yield compared(
        "UNet small, 64x48", target, of_module(lambda: UNet(unet), random(2, 3, 48, 64), t, y)
    )
    times = np.array([0.3], np.float32)
    yield compared(
        "PixNerd small, 160x120",
        target,
        of_module(lambda: PixNerd(pixnerd), random(1, 3, 120, 160), times),
    )
    network = functools.lru_cache(maxsize=None)(lambda: filled(Autoencoder(autoencoder)))

    def codec():
        with jt.no_grad():
            z = network().encode(jt.array(np.tanh(random(1, 3, 64, 96))))
            return [z, network().decode(jt.array(random(1, 3, 16, 24)))], []

    yield compared("autoencoder small, 96x64", target, codec)


def loss_cases(target: str) -> Iterator[Case]:
    """The losses of the trainings, with the gradients of all parameters."""
    for name, compute in (
        ("diffusion loss, UNet tiny", _loss_of_unet),
        ("flow loss, PixNerd tiny", _loss_of_flow),
        ("autoencoder's loss, tiny", _loss_of_autoencoder),
    ):
        yield compared(name, target, compute, 5e-4)


def _with_gradients(network, losses):
    return list(losses.values()), jt.grad(losses["loss"], list(trainable(network).values()))


@functools.lru_cache(maxsize=None)
def _tiny(kind):
    """A tiny network, the same for both devices."""
    configs = {UNet: UNETS, PixNerd: NETWORKS, Autoencoder: AUTOENCODERS}
    return filled(kind(configs[kind]["tiny"]))


def _loss_of_unet():
    unet, labels = _tiny(UNet), np.random.default_rng(0).integers(0, 29, (2, 12, 16))
    losses = diffusion_loss(
        unet,
        Schedule(),
        random(2, 3, 12, 16),
        np.array([300, 640]),
        layers.one_hot(labels, 29),
        random(2, 3, 12, 16, seed=1),
    )
    return _with_gradients(unet, {name: v.mean() for name, v in losses.items()})


def _loss_of_flow():
    network, codes = _tiny(PixNerd), class_codes(11)
    labels = np.random.default_rng(0).integers(0, 11, (2, 32, 48)).astype(np.uint8)
    x1, mask = encode(labels, codes)
    batch = {
        "images": np.tanh(random(2, 3, 32, 48)),
        "labels": labels,
        "x1": x1,
        "mask": mask,
        "t": np.array([0.2, 0.8], np.float32),
        "noise": random(2, 3, 32, 48, seed=1),
    }
    return _with_gradients(network, training_loss(network, codes)(batch))


def _loss_of_autoencoder():
    network = _tiny(Autoencoder)
    batch = {"images": np.tanh(random(2, 3, 32, 48)), "step": 0}
    return _with_gradients(network, autoencoder_loss(network)(batch))
