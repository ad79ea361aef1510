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

# By the bytes of an activation: (with all kept, with recompute). Measured at release size with 8
# and 16 examples: in float32 1.62 and 0.79; in half precision, where what norms and sums compute
# stays float32, 1.88 and 1.01. One and two examples show less, since gradients then decide.
FACTORS = {4: (1.7, 0.85), 2: (2.0, 1.1)}
CONSTANT = 100_000_000  # bytes; measured: 85 MB at most


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
    constant = CONSTANT + (2 * parameters if bytes_per_value == 2 else 0)  # weights as operands
    scores = score_bytes(config)
    return tuple(
        need(parameters, average, int(factor * outputs * bytes_per_value), constant, scores)
        for factor in FACTORS[bytes_per_value]
    )
