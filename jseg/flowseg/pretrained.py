"""Whether a file of weights can start a network, asked before anything is computed."""

from __future__ import annotations

from jseg.checkpoint import CheckpointError, WeightFile, describe, mismatch
from jseg.configs import PixNerdConfig, looks_like
from jseg.flowseg.state_dict import IMAGE_LAYERS, another_size, pixnerd_shapes


def check_pretrained(path, config: PixNerdConfig) -> WeightFile:
    """What the file says of itself; reads no array.

    Raises CheckpointError if `pixnerd.load_pretrained` could not fill `PixNerd(config)` from it.
    """
    weights, expected = describe(path, sha256=True, shapes=True), pixnerd_shapes(config)
    image_layers = {name: expected[name] for name in IMAGE_LAYERS if name in expected}
    shapes = {**image_layers, **weights.shapes}
    problem = mismatch(expected, shapes, looks_like=looks_like, explain=another_size)
    if problem:
        raise CheckpointError.at(path, problem)
    return weights
