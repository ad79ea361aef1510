"""The layers of both branches on the CPU and on the device, with the gradients of parameters and
inputs.
"""

from __future__ import annotations

from typing import Dict, Iterator

import numpy as np

from jseg.flowseg import blocks as field_blocks
from jseg.flowseg import neural_field
from jseg.ldm import blocks
from jseg.ldm.presets import UNETS
from jseg.nn import attention, chunks, convolution, layers
from jseg.parity.gpu.comparing import compared, of_function, of_module, random
from jseg.parity.gpu.operators import compiled
from jseg.parity.gpu.records import Case
from jseg.runtime import jt


class Spade(layers.nn.Module):
    """A conditioned block that is given its maps, as the UNet gives it their scales and shifts."""

    def __init__(self, up: bool):
        self.block = blocks.SpadeResBlock(32, 64, 128, UNETS["tiny"], up=up)
        self.up = up

    def execute(self, x, y, embedding):
        above = convolution.upsample(y) if self.up else y
        return self.block.from_maps(y, above, embedding, x)


class Turned(layers.nn.Module):
    """A transformer block with the tables of a 3x4 grid of patches, which are constants."""

    def __init__(self):
        self.block = field_blocks.TransformerBlock(48, 3)

    def execute(self, tokens, condition):
        tables = (jt.array(table).stop_grad() for table in field_blocks.turn_tables(3, 4, 16))
        return self.block(tokens, condition, *tables)


def layer_cases(target: str) -> Iterator[Case]:
    """A case per layer."""
    for name, (make, *arrays) in {**unet_layers(), **field_layers()}.items():
        yield compared(name, target, of_module(make, *arrays))

    # Functions, with gradients of inputs.
    x, tokens = random(2, 32, 12, 16), [random(4, n, 16, seed=n) for n in (48, 40, 40)]
    attend = of_function(lambda q, k, v: layers.attention(q, k, v, 0.25), *tokens, wanted=(0, 1, 2))
    yield compared("attention, in chunks", target, _in_chunks(attend))
    yield compared("upsample", target, of_function(convolution.upsample, x, wanted=(0,)))
    yield compared("halve", target, of_function(blocks.halve, x, wanted=(0,)))


def unet_layers() -> Dict[str, tuple]:
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


def field_layers() -> Dict[str, tuple]:
    """The same of PixNerd."""
    pixels, condition = random(6, 64, 16), random(6, 48, seed=1)
    return {
        "RMSNorm": (lambda: field_blocks.RMSNorm(32), random(2, 12, 32)),
        "TimeEmbedding": (
            lambda: field_blocks.TimeEmbedding(64),
            np.array([0.1, 0.9], np.float32),
        ),
        "TransformerBlock": (Turned, random(2, 12, 48), random(2, 48, seed=1)),
        "PixelEmbedding": (lambda: neural_field.PixelEmbedding(16, 4, 8), random(6, 64, 3)),
        "FieldBlock": (lambda: neural_field.FieldBlock(48, 16, 2), pixels, condition),
        "FinalLayer": (lambda: neural_field.FinalLayer(16), pixels),
    }


def _in_chunks(compute):
    """compute() without the operator, and with scores that come in chunks of ten queries."""

    def smaller():
        before = dict(chunks.ATTENTION_CHUNK_BYTES)
        chunks.ATTENTION_CHUNK_BYTES.update(cpu=4 * 40 * 4 * 10, cuda=4 * 40 * 4 * 10)
        try:
            with compiled(attention.NAME, on=False):
                return compute()
        finally:
            chunks.ATTENTION_CHUNK_BYTES.update(before)

    return smaller
