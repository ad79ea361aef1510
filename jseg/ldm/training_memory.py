"""What a training of the UNet takes of a GPU's memory, from its configuration.

What is kept for the gradient grows with the outputs of the convolutions. The factors are peaks of
Jittor's memory per byte of these outputs, measured on the CPU's arrays with every operator by its
twin (benchmarks/training_memory.py; docs/benchmarks.md, "Memory of a training").
"""

from __future__ import annotations

import math
from typing import Tuple

from jseg.configs import UNetConfig
from jseg.ldm.low_memory import positions, score_bytes
from jseg.ldm.state_dict import unet_shapes
from jseg.training.memory_plan import Need, need

# Measured: 1.30 at the release's size, 1.27 at half of its sides; with recompute 0.41 and 0.43.
KEPT, RECOMPUTED = 1.35, 0.45
CONSTANT = 100_000_000  # bytes; measured: 80 MB at most


def needs(config: UNetConfig, average: bool, bytes_per_value: int = 4) -> Tuple[Need, Need]:
    """(with all activations kept, with recompute); average: whether there is a moving average.

    bytes_per_value: of activations; weights and their gradients, moments and average are float32.
    """
    shapes = unet_shapes(config)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    outputs = sum(
        shape[0] * positions(config, name)
        for name, shape in shapes.items()
        if len(shape) > 2  # the weight of a convolution
    )
    scores = score_bytes(config)
    return tuple(
        need(parameters, average, int(factor * outputs * bytes_per_value), CONSTANT, scores)
        for factor in (KEPT, RECOMPUTED)
    )
