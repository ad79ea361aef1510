"""Whether a machine's memory suffices to keep all modulations of a guided step.

The answer changes no number: with little memory, those of large maps are computed again at every
step (jseg/ldm/modulations.py). It is found from the networks' configurations, without Jittor.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from jseg.configs import AutoencoderConfig, UNetConfig
from jseg.ldm.state_dict import Shapes, autoencoder_shapes, unet_shapes
from jseg.machine.free_memory import free_bytes

MODES = ("auto", "full", "low")
FLOAT = 4  # bytes
# What a guided step takes of resident memory beyond the weights and the modulations, for each of
# `channels` at each position of the latent. benchmarks/low_memory.py: 200 at release size with one
# thread, Python and its libraries included; the rest is a margin, for threads and free blocks.
STEP_BYTES = 300


class Choice(NamedTuple):
    low: bool
    reason: str  # half a sentence: what is free and what would be needed

    @property
    def remark(self) -> str:
        """The line for a user whose machine has less than what full needs."""
        return (
            f"memory: {self.reason} to keep everything, so some is computed again at every step: "
            "slower, the same images (--memory full keeps it all)"
        )


def choose(
    mode: str,
    unet: UNetConfig,
    batch: int,
    device: str = "cpu",
    autoencoder: Optional[AutoencoderConfig] = None,
) -> Choice:
    """Whether to compute modulations again, for `batch` label maps at a time.

    mode: "full" or "low" as asked; "auto" takes low where the CPU's free memory is less than what
    full needs. autoencoder: given where the networks are not loaded yet. Raises ValueError for
    another mode.
    """
    if check_mode(mode) != "auto":
        return Choice(mode == "low", f"--memory {mode}")
    if device == "cuda":
        return Choice(False, "the GPU's memory is not asked")
    needed = step_bytes(unet, batch)
    if autoencoder is not None:
        needed += FLOAT * (_size(unet_shapes(unet)) + _size(autoencoder_shapes(autoencoder)))
    free = free_bytes()
    if free is None:
        return Choice(False, "this system does not tell how much memory is free")
    low = free < needed
    return Choice(low, f"{free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB would be needed")


def check_mode(mode: str) -> str:
    """The mode; raises ValueError for none of MODES."""
    if mode not in MODES:
        raise ValueError(f"memory {mode!r}: expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return mode


def step_bytes(config: UNetConfig, batch: int) -> int:
    """What a guided step that keeps everything takes beyond the weights, about."""
    working = STEP_BYTES * config.channels * config.width * config.height
    return (batch + 1) * modulation_bytes(config) + batch * working  # one for the null map


def modulation_bytes(config: UNetConfig) -> int:
    """The bytes of one label map's modulations: 388 MB for the release."""
    total, last = 0, len(config.channel_mult) - 1
    for name, shape in unet_shapes(config).items():
        if not name.endswith(".mlp_gamma.weight"):
            continue
        # middle_block.0.out_norm..., output_blocks.2.1.out_norm...: a block after the first of an
        # output block doubles the map before its second norm.
        place, number, layer, norm = name.split(".")[:4]
        level = last
        if place == "output_blocks":
            level -= int(number) // (config.blocks + 1) + (layer != "0" and norm == "out_norm")
        total += 2 * FLOAT * shape[0] * (config.height >> level) * (config.width >> level)
    return total


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
