"""Whether a machine's memory suffices to keep all modulations of a guided step.

The answer changes no number: with little memory, those of large maps are computed again at every
step (jseg/ldm/modulations.py). It is found from the networks' configurations, without Jittor.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Optional, Tuple

from jseg.configs import AutoencoderConfig, UNetConfig
from jseg.counting import counted
from jseg.ldm.state_dict import Shapes, autoencoder_shapes, unet_shapes
from jseg.machine.free_memory import GpuMemory, free_bytes, gpu_memory
from jseg.nn import chunks

MODES = ("auto", "full", "low")
FLOAT = 4  # bytes
# What a guided step takes of resident memory beyond the weights and the modulations, for each of
# `channels` at each position of the latent. benchmarks/low_memory.py: 200 at release size with one
# thread, Python and its libraries included; the rest is a margin, for threads and free blocks.
STEP_BYTES = 300
KEPT_LOW = 0.16  # of the modulations, at release size; 0.15 measured
MOST = 5  # label maps at a time on a GPU, as the release
# The parts of a doubling residual block that compute on the doubled map.
DOUBLED = ("in_layers", "out_norm", "out_layers", "skip_connection")


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

    mode: "full" or "low" as asked; "auto" takes low where less memory of the device is free than
    full needs. autoencoder: given where the networks are not loaded yet. Raises ValueError for
    another mode.
    """
    if check_mode(mode) != "auto":
        return Choice(mode == "low", f"--memory {mode}")
    needed = step_bytes(unet, batch)
    if autoencoder is not None:
        needed += weight_bytes(unet, autoencoder)
    if device == "cuda":
        needed += step_attention_bytes(unet, batch)
        memory = gpu_memory()
        free = None if memory is None else memory.usable
    else:
        free = free_bytes()
    if free is None:
        return Choice(False, "this system does not tell how much memory is free")
    low = free < needed
    return Choice(low, f"{free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB would be needed")


class InferencePlan(NamedTuple):
    batch: int
    low: bool

    def line(self, memory: GpuMemory) -> str:
        """What was chosen, for the user."""
        return (
            f"{memory.free / 1e9:.1f} GB free on the GPU: {counted(self.batch, 'image[s]')} at a "
            f"time, memory {'low' if self.low else 'full'}; --batch_size and --memory decide "
            "otherwise (the images are the same but for rounding)"
        )


def planned(
    batch: Optional[int], mode: str, device: str, unet: UNetConfig, autoencoder: AutoencoderConfig
) -> Tuple[int, str, List[str]]:
    """(label maps at a time, mode, lines that tell what was chosen): as the user gave them, else on
    CUDA by `plan`.
    """
    memory = gpu_memory() if device == "cuda" else None
    if memory is None:
        return batch or (MOST if device == "cuda" else 1), check_mode(mode), []
    chosen = plan(memory, unet, autoencoder, batch, mode)
    lines = [chosen.line(memory)] if batch is None or mode == "auto" else []
    return chosen.batch, "low" if chosen.low else "full", lines


def plan(
    memory: GpuMemory,
    unet: UNetConfig,
    autoencoder: AutoencoderConfig,
    batch: Optional[int] = None,
    mode: str = "auto",
) -> InferencePlan:
    """How many label maps a GPU takes at a time, at most MOST, and whether with little memory.

    batch, mode: as the user gave them. Keeping everything comes before a larger batch. Raises
    ValueError in one line where one label map does not fit.
    """
    weights = weight_bytes(unet, autoencoder)

    def needed(size, low):
        steps = step_bytes(unet, size, low) + step_attention_bytes(unet, size)
        return weights + max(steps, decoding_bytes(unet, size))

    kinds = {"auto": (False, True), "full": (False,), "low": (True,)}[check_mode(mode)]
    sizes = range(MOST, 0, -1) if batch is None else (batch,)
    for low in kinds:
        for size in sizes:
            if needed(size, low) <= memory.usable:
                return InferencePlan(size, low)
    if batch is not None or mode == "full":
        return InferencePlan(batch or 1, kinds[-1])  # as asked, whether it fits or not
    least = needed(1, True)
    raise ValueError(
        f"one image at a time needs about {least / 1e9:.1f} GB of the GPU's memory, "
        f"{memory.free / 1e9:.1f} GB are free ({memory.usable / 1e9:.1f} GB for the images): close "
        "other programs that use the GPU, give --model_path of a smaller network, or --device cpu"
    )


def check_mode(mode: str) -> str:
    """The mode; raises ValueError for none of MODES."""
    if mode not in MODES:
        raise ValueError(f"memory {mode!r}: expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return mode


def step_bytes(config: UNetConfig, batch: int, low: bool = False) -> int:
    """What a guided step takes beyond the weights, about: with everything kept, or with little
    memory.
    """
    working = STEP_BYTES * config.channels * config.width * config.height
    kept = KEPT_LOW if low else 1
    return int(kept * (batch + 1) * modulation_bytes(config)) + batch * working  # 1: the null map


def step_attention_bytes(config: UNetConfig, batch: int) -> int:
    """What attention's scores take of a GPU in a guided step: a chunk of both passes' at most."""
    return chunks.working_bytes(2 * batch * score_bytes(config), chunks.IN_RESULT)


def decoding_bytes(config: UNetConfig, batch: int) -> int:
    """The same of the autoencoder, whose one head attends over the whole map of the UNet's latents;
    its other maps come in strips.
    """
    scores = chunks.score_bytes(1, config.width * config.height)
    return chunks.working_bytes(batch * scores, chunks.IN_RESULT)


def score_bytes(config: UNetConfig) -> int:
    """One image's scores in the UNet's largest self-attention."""
    last, largest = len(config.channel_mult) - 1, 0
    for level, factor in enumerate(config.channel_mult):
        if level == last or 2**level in config.attention_downsampling:
            heads = config.channels * factor // config.head_channels
            count = (config.height >> level) * (config.width >> level)
            largest = max(largest, chunks.score_bytes(heads, count))
    return largest


def modulation_bytes(config: UNetConfig) -> int:
    """The bytes of one label map's modulations: 388 MB for the release."""
    total = 0
    for name, shape in unet_shapes(config).items():
        if name.endswith(".mlp_gamma.weight"):
            total += 2 * FLOAT * shape[0] * positions(config, name)
    return total


def positions(config: UNetConfig, name: str) -> int:
    """At how many positions of the map the convolution of that state-dict name computes."""
    place, number, layer, part = (*name.split("."), "", "")[:4]
    last = len(config.channel_mult) - 1
    level = {"middle_block": last, "out": 0}.get(place)
    if place == "input_blocks":
        level = int(number) // (config.blocks + 1)  # the last block of a level halves
    elif place == "output_blocks":
        # A residual block after the first doubles the map after its first norm.
        doubles = layer != "0" and part in DOUBLED
        level = last - int(number) // (config.blocks + 1) - doubles
    return (config.height >> level) * (config.width >> level)


def weight_bytes(unet: UNetConfig, autoencoder: AutoencoderConfig) -> int:
    """What the weights of both networks take."""
    return FLOAT * (_size(unet_shapes(unet)) + _size(autoencoder_shapes(autoencoder)))


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
