"""What a training of the UNet takes of a GPU's memory, from its configuration.

What is kept for the gradient grows with the outputs of the convolutions. The factors are peaks of
Jittor's memory per byte of these outputs, measured on the CPU's arrays with every operator by its
twin (benchmarks/training_memory.py; docs/benchmarks.md, "Memory of a training").
"""

from __future__ import annotations

import math
from typing import Tuple

from jseg.configs import UNetConfig
from jseg.ldm.low_memory import positions
from jseg.ldm.state_dict import unet_shapes
from jseg.training.memory_plan import Need, need

# By the bytes of an activation: (with all kept, with recompute).
# Measured in float32: 1.30 at the release's size, 1.27 at half of its sides; 0.41 and 0.43. In half
# precision, whose operands and results of products are halves beside float32 norms and sums, on the
# emulated device: HALFMEASURED.
FACTORS = {4: (1.35, 0.45), 2: (1.55, 0.6)}
CONSTANT = 100_000_000  # bytes; measured: 80 MB at most


def needs(config: UNetConfig, average: bool, bytes_per_value: int = 4) -> Tuple[Need, Need]:
    """(with all activations kept, with recompute); average: whether there is a moving average.

    bytes_per_value: of activations, 4 or 2; weights and their gradients, moments and average are
    float32.
    """
    shapes = unet_shapes(config)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    outputs = sum(
        shape[0] * positions(config, name)
        for name, shape in shapes.items()
        if len(shape) > 2  # the weight of a convolution
    )
    return tuple(
        need(parameters, average, int(factor * outputs * bytes_per_value), CONSTANT)
        for factor in FACTORS[bytes_per_value]
    )
