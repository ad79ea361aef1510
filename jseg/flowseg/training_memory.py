"""What a training of PixNerd takes of a GPU's memory, from its configuration.

What is kept for the gradient grows with the outputs of the transformer's linear layers and with the
values of the neural field. The factors are peaks of Jittor's memory per byte of these, measured on
the CPU's arrays with every operator by its twin (benchmarks/training_memory.py;
docs/benchmarks.md, "Memory of a training").
"""

from __future__ import annotations

import math
from typing import Tuple

from jseg.configs import PixNerdConfig
from jseg.flowseg.state_dict import pixnerd_shapes
from jseg.nn.chunks import score_bytes
from jseg.training.memory_plan import Need, need

# By the bytes of an activation. KEPT: measured in float32 0.96 at 256x256, 1.61 at 512x512; in half
# precision 1.64 and 1.57. TOKENS: with recompute a block's tokens are kept for each block, and all
# values of one block computed; measured in half precision with 8 and 16 examples: 3.04, which
# float32, with twice the bytes, cannot exceed.
KEPT, TOKENS = {4: 1.65, 2: 1.75}, {4: 3.1, 2: 3.2}
CONSTANT = 400_000_000  # bytes; measured: 385 MB at most


def needs(config: PixNerdConfig, average: bool, bytes_per_value: int = 4) -> Tuple[Need, Need]:
    """(with all activations kept, with recompute); average: whether there is a moving average.

    bytes_per_value: of activations, 4 or 2; weights and their gradients, moments and average are
    float32.
    """
    parameters = sum(math.prod(shape) for shape in pixnerd_shapes(config).values())
    patches = config.width * config.height // config.patch**2
    tokens = patches * config.hidden_size

    # a block's queries, keys, values, projection and hidden layer; the field's values
    block = patches * (4 * config.hidden_size + 3 * (8 * config.hidden_size // 3))
    channels, hidden = config.pixel_channels, config.pixel_channels * config.pixel_ratio
    field = 4 * channels * hidden + config.patch**2 * (3 * channels + 2 * hidden)
    values = config.depth * block + config.pixel_blocks * patches * field
    constant = CONSTANT + (2 * parameters if bytes_per_value == 2 else 0)  # weights as operands
    again = TOKENS[bytes_per_value] * (config.depth * tokens + block)
    scores = score_bytes(config.heads, patches)
    return tuple(
        need(parameters, average, int(count * bytes_per_value), constant, scores)
        for count in (KEPT[bytes_per_value] * values, again)
    )
