"""Names and shapes of PixNerd's state dict, from its configuration and back, without a network.

The names are those of PixNerDiT in the official code (src/models/transformer/pixnerd_c2i.py).
Shapes are tuples, by name.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, List, Mapping, Optional, Tuple

from jseg.configs import PIXNERD_MARK, PixNerdConfig
from jseg.flowseg.presets import NETWORKS

Shapes = Dict[str, Tuple[int, ...]]
IMAGE_LAYERS = ("c_embedder.proj.weight", "xc_embedder.weight")  # which PixNerd's own files lack
COLOURS, TIMES = 3, 256
# What makes a size; the rest of a configuration is the task that it was trained for.
SIZE = (
    "hidden_size",
    "heads",
    "depth",
    "pixel_blocks",
    "pixel_channels",
    "pixel_ratio",
    "frequencies",
    "patch",
)


def pixnerd_shapes(config: PixNerdConfig) -> Shapes:
    """The state dict of `PixNerd(config)`."""
    width, channels, values = config.hidden_size, config.pixel_channels, COLOURS * config.patch**2
    hidden, head = 4 * width * 2 // 3, width // config.heads
    shapes: Shapes = {}

    def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    # What x_t, the time, the class and the image are turned into.
    linear("x_embedder.embedder.0", COLOURS + config.frequencies**2, channels)
    linear("s_embedder.proj", values, width)
    linear("t_embedder.mlp.0", TIMES, width)
    linear("t_embedder.mlp.2", width, width)
    shapes["y_embedder.embedding_table.weight"] = (config.classes + 1, width)
    if config.sees_image:
        linear("c_embedder.proj", values, width, bias=False)
        linear("xc_embedder", COLOURS, channels, bias=False)

    # Blocks of the transformer, then those of the neural field.
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
    for number in range(config.depth, config.depth + config.pixel_blocks):
        linear(f"blocks.{number}.param_generator1.0", width, 2 * channels**2 * config.pixel_ratio)
        shapes[f"blocks.{number}.norm.weight"] = (channels,)
    shapes["final_layer.norm.weight"] = (channels,)
    linear("final_layer.linear", channels, COLOURS)
    return shapes


def pixnerd_config(shapes: Mapping[str, Tuple[int, ...]]) -> PixNerdConfig:
    """The configuration whose network has these shapes, as far as they tell; its task is
    PixNerdConfig's default.

    Compare with `pixnerd_shapes` of it. Raises ValueError, in one line, for shapes of another
    network.
    """
    try:
        width, values = shapes[PIXNERD_MARK]
        channels, inputs = shapes["x_embedder.embedder.0.weight"]
        rows = shapes["y_embedder.embedding_table.weight"][0]
        (head,) = shapes["blocks.0.attn.q_norm.weight"]
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
            f"PixNerDiT of pixnerd_c2i.py, "
            f"complete"
        ) from None


def preset_of(shapes: Mapping[str, Tuple[int, ...]]) -> Optional[str]:
    """The name in NETWORKS of the size that these shapes have; None for another size or network."""
    try:
        config = pixnerd_config(shapes)
    except ValueError:
        return None
    size = [getattr(config, name) for name in SIZE]
    return next(
        (name for name, row in NETWORKS.items() if [getattr(row, field) for field in SIZE] == size),
        None,
    )


def another_size(
    expected: Mapping[str, Tuple[int, ...]], given: Mapping[str, Tuple[int, ...]]
) -> Optional[str]:
    """What to say where both are PixNerd networks and of different sizes, with the preset to
    give; None otherwise."""
    if PIXNERD_MARK not in expected or PIXNERD_MARK not in given:
        return None
    try:
        wanted, found = pixnerd_config(expected), pixnerd_config(given)
    except ValueError:
        return None
    differences = [
        f"{name} {getattr(found, name)} for {getattr(wanted, name)}"
        for name in SIZE
        if getattr(found, name) != getattr(wanted, name)
    ]
    if not differences:
        return None
    preset, own = preset_of(given), preset_of(expected)
    network = f"the network is {own}" if own else "the network is of another size"
    if preset is None:
        return (
            f"this is a PixNerd of a size that no preset has ({', '.join(differences)}), "
            f"{network}; give a file of the network's size"
        )
    return (
        f"this is {preset.replace('pixnerd-', '')}, {network}: give --preset {preset} "
        f"({', '.join(differences)})"
    )


def _numbers(shapes: Mapping[str, Tuple[int, ...]], ending: str) -> List[int]:
    names = (
        name.split(".", 2) for name in shapes if name.startswith("blocks.") and name.count(".") >= 2
    )
    return sorted(int(number) for _, number, rest in names if rest == ending and number.isdigit())
