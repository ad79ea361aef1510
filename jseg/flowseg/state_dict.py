"""Names and shapes of PixNerd's state dict, from its configuration and back, without a network.

The names are those of PixNerDiT in the official code (src/models/transformer/pixnerd_c2i.py).
Shapes are tuples, by name.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Mapping, Optional, Tuple

from jseg.configs import PIXNERD_MARK, PixNerdConfig
from jseg.flowseg.presets import NETWORKS

Shapes = Mapping[str, Tuple[int, ...]]
IMAGE_LAYERS = ("c_embedder.proj.weight", "xc_embedder.weight")  # which PixNerd's own files lack
COLOURS, TIMES = 3, 256
# What makes a size; the rest of a configuration is the task that it was trained for.
SIZE = "hidden_size heads depth pixel_blocks pixel_channels pixel_ratio frequencies patch".split()


def pixnerd_shapes(config: PixNerdConfig) -> Dict[str, Tuple[int, ...]]:
    """The state dict of `PixNerd(config)`."""
    width, channels, values = config.hidden_size, config.pixel_channels, COLOURS * config.patch**2
    hidden, head = 4 * width * 2 // 3, width // config.heads
    shapes: Dict[str, Tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    # embeddings of x_t, the time, the class and the image
    linear("x_embedder.embedder.0", COLOURS + config.frequencies**2, channels)
    linear("s_embedder.proj", values, width)
    linear("t_embedder.mlp.0", TIMES, width)
    linear("t_embedder.mlp.2", width, width)
    shapes["y_embedder.embedding_table.weight"] = (config.classes + 1, width)
    if config.sees_image:
        linear("c_embedder.proj", values, width, bias=False)
        linear("xc_embedder", COLOURS, channels, bias=False)

    # transformer
    for number in range(config.depth):
        at = f"blocks.{number}"
        shapes[f"{at}.norm1.weight"] = (width,)
        linear(f"{at}.attn.qkv", width, 3 * width, bias=False)
        shapes[f"{at}.attn.q_norm.weight"] = shapes[f"{at}.attn.k_norm.weight"] = (head,)
        linear(f"{at}.attn.proj", width, width)
        shapes[f"{at}.norm2.weight"] = (width,)
        linear(f"{at}.mlp.w1", width, hidden, bias=False)
        linear(f"{at}.mlp.w3", width, hidden, bias=False)
        linear(f"{at}.mlp.w2", hidden, width, bias=False)
        linear(f"{at}.adaLN_modulation.0", width, 6 * width)

    # neural field
    for number in range(config.depth, config.depth + config.pixel_blocks):
        linear(f"blocks.{number}.param_generator1.0", width, 2 * channels**2 * config.pixel_ratio)
        shapes[f"blocks.{number}.norm.weight"] = (channels,)
    shapes["final_layer.norm.weight"] = (channels,)
    linear("final_layer.linear", channels, COLOURS)
    return shapes


def pixnerd_config(shapes: Shapes) -> PixNerdConfig:
    """The configuration whose network has these shapes, with the task of PixNerdConfig's default.

    Not every shape is looked at: compare with its `pixnerd_shapes`. Raises ValueError, in one line,
    for shapes of another network.
    """
    try:
        # the sizes that single arrays tell
        width, values = shapes[PIXNERD_MARK]
        channels, inputs = shapes["x_embedder.embedder.0.weight"]
        rows = shapes["y_embedder.embedding_table.weight"][0]
        (head,) = shapes["blocks.0.attn.q_norm.weight"]

        # the blocks of either kind
        depth = len(_numbers(shapes, "attn.qkv.weight"))
        fields = _numbers(shapes, "param_generator1.0.weight")
        generated = shapes[f"blocks.{fields[0]}.param_generator1.0.weight"][0]

        config = PixNerdConfig(
            hidden_size=width,
            heads=width // head,
            depth=depth,
            pixel_blocks=len(fields),
            pixel_channels=channels,
            pixel_ratio=generated // (2 * channels**2),
            frequencies=round(max(0, inputs - COLOURS) ** 0.5),
            patch=round((values / COLOURS) ** 0.5),
            classes=rows - 1,
        )
        return dataclasses.replace(config, source="noise") if IMAGE_LAYERS[0] in shapes else config
    except (KeyError, IndexError, TypeError, ZeroDivisionError, ValueError) as error:
        raise ValueError(
            f"these are not the names and shapes of a PixNerd network ({error}); expected "
            "PixNerDiT of pixnerd_c2i.py, complete"
        ) from None


def preset_of(shapes: Shapes) -> Optional[str]:
    """The name in NETWORKS of the size that these shapes have; None if none has it, or for another
    network.
    """
    try:
        config = pixnerd_config(shapes)
    except ValueError:
        return None
    size = [getattr(config, name) for name in SIZE]
    for name, row in NETWORKS.items():
        if [getattr(row, field) for field in SIZE] == size:
            return name
    return None


def another_size(network: Shapes, file: Shapes) -> Optional[str]:
    """What is wrong where a file's PixNerd and the network to be filled differ in size, with the
    preset to give; None where they do not.
    """
    preset = preset_of(file)
    remedy = f"give --preset {preset}" if preset else "give a file of the network's size"
    return _sizes(network, file, f": {remedy}")


def not_as_described(network: Shapes, file: Shapes) -> Optional[str]:
    """As `another_size`, of a network that was made from the file's own description."""
    return _sizes(
        network, file, " by the file's own description: give the file that train_flowseg wrote"
    )


def _sizes(network: Shapes, file: Shapes, remedy: str) -> Optional[str]:
    """Both sizes, by their presets, the remedy, and what differs; None unless both are PixNerd
    networks and differ.
    """
    if PIXNERD_MARK not in network or PIXNERD_MARK not in file:
        return None
    try:
        wanted, actual = pixnerd_config(network), pixnerd_config(file)
    except ValueError:
        return None
    differences = [
        f"{name} {getattr(actual, name)}, not {getattr(wanted, name)}"
        for name in SIZE
        if getattr(actual, name) != getattr(wanted, name)
    ]
    if not differences:
        return None
    sizes = [preset_of(shapes) or "that no preset has" for shapes in (file, network)]
    return (
        f"it holds a PixNerd of the size {sizes[0]}, the network is of the size {sizes[1]}{remedy} "
        f"({', '.join(differences)})"
    )


def _numbers(shapes: Shapes, ending: str) -> List[int]:
    """The numbers of the blocks that have an array of this name."""
    parts = [name.split(".", 2) for name in shapes if name.startswith("blocks.")]
    return sorted(int(part[1]) for part in parts if part[2:] == [ending] and part[1].isdigit())
