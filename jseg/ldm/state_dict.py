"""Names and shapes of the networks' state dicts, from their configurations and back, without
building a network.

The names are those of the release's guided_diffusion/unet.py and
autoencoder/{model,autoencoder}.py, which are also those of SDM's UNet and of the VQ-GAN in
taming-transformers and latent-diffusion. Shapes are tuples, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from jseg.configs import AUTOENCODER_MARK, SPADE_MARK, UNET_MARK, AutoencoderConfig, UNetConfig

Shapes = Dict[str, Tuple[int, ...]]
TIME_FACTOR = 4


class LayoutError(ValueError):
    """Shapes from which no configuration can be read; one line."""


def unet_shapes(config: UNetConfig) -> Shapes:
    """The UNet's state dict for a configuration."""
    shapes: Shapes = {}
    embedding = TIME_FACTOR * config.channels
    _linear(shapes, "time_embed.0", config.channels, embedding)
    _linear(shapes, "time_embed.2", embedding, embedding)
    skips = _unet_encoder(shapes, config, embedding)

    # middle
    channels = skips[-1]
    _spade_block(shapes, "middle_block.0", channels, channels, embedding, config)
    _attention(shapes, "middle_block.1", channels)
    _spade_block(shapes, "middle_block.2", channels, channels, embedding, config)

    channels = _unet_decoder(shapes, config, embedding, skips)
    _norm(shapes, "out.0", channels)
    _conv(shapes, "out.2", channels, 2 * config.latent_channels)
    return shapes


def _unet_encoder(shapes: Shapes, config: UNetConfig, embedding: int) -> List[int]:
    """The encoder's shapes, into `shapes`; the channels of its blocks, which the decoder takes."""
    levels = len(config.channel_mult)
    channels = config.channels * config.channel_mult[0]
    _conv(shapes, "input_blocks.0.0", config.latent_channels, channels)

    skips = [channels]
    for level, mult in enumerate(config.channel_mult):
        for i in range(config.blocks + (level < levels - 1)):
            at, down = f"input_blocks.{len(skips)}", i == config.blocks
            width = channels if down else config.channels * mult
            _res_block(shapes, at + ".0", channels, width, embedding)
            channels = width
            if 2**level in config.attention_downsampling and not down:
                _attention(shapes, at + ".1", channels)
            skips.append(channels)
    return skips


def _unet_decoder(shapes: Shapes, config: UNetConfig, embedding: int, skips: List[int]) -> int:
    """The decoder's shapes, into `shapes`; the channels that it ends with."""
    channels, number, remaining = skips[-1], 0, list(skips)
    for level in reversed(range(len(config.channel_mult))):
        attends = 2**level in config.attention_downsampling
        for i in range(config.blocks + 1):
            at, width = f"output_blocks.{number}.", config.channels * config.channel_mult[level]
            _spade_block(shapes, at + "0", channels + remaining.pop(), width, embedding, config)
            channels, number = width, number + 1
            if attends:
                _attention(shapes, at + "1", channels)
            if level and i == config.blocks:
                up = at + ("2" if attends else "1")
                _spade_block(shapes, up, channels, channels, embedding, config)
    return channels


def autoencoder_shapes(config: AutoencoderConfig) -> Shapes:
    """The autoencoder's state dict for a configuration."""
    shapes: Shapes = {}
    widths = [config.channels * mult for mult in config.channel_mult]
    latent, last = config.latent_channels, len(widths) - 1

    # encoder
    _conv(shapes, "encoder.conv_in", config.picture_channels, config.channels)
    channels = config.channels
    for level, width in enumerate(widths):
        for i in range(config.blocks):
            _vq_block(shapes, f"encoder.down.{level}.block.{i}", channels, width)
            channels = width
        if level < last:
            _conv(shapes, f"encoder.down.{level}.downsample.conv", channels, channels)
    _vq_middle(shapes, "encoder.mid", channels)
    _norm(shapes, "encoder.norm_out", channels)
    _conv(shapes, "encoder.conv_out", channels, latent)

    # decoder
    _conv(shapes, "decoder.conv_in", latent, channels)
    _vq_middle(shapes, "decoder.mid", channels)
    for level in reversed(range(len(widths))):
        for i in range(config.blocks + 1):
            _vq_block(shapes, f"decoder.up.{level}.block.{i}", channels, widths[level])
            channels = widths[level]
        if level:
            _conv(shapes, f"decoder.up.{level}.upsample.conv", channels, channels)
    _norm(shapes, "decoder.norm_out", channels)
    _conv(shapes, "decoder.conv_out", channels, config.picture_channels)

    # quantiser
    shapes["quantize.embedding.weight"] = (config.codebook_size, latent)
    _conv(shapes, "quant_conv", latent, latent, 1)
    _conv(shapes, "post_quant_conv", latent, latent, 1)
    return shapes


@dataclass(frozen=True)
class Unreadable:
    """What shapes do not say: a UNet's attention heads and latent size, both networks' groups of a
    norm; by default the release's.
    """

    head_channels: int = UNetConfig.head_channels
    width: int = UNetConfig.width
    height: int = UNetConfig.height
    groups: int = UNetConfig.groups


def unet_config(
    shapes: Mapping[str, Tuple[int, ...]], unreadable: Unreadable = Unreadable()
) -> UNetConfig:
    """The configuration whose UNet has these shapes, as far as they say.

    Compare `unet_shapes` of it with them: other layers may be there too. Raises LayoutError.
    """
    base = _shape(shapes, "time_embed.0.weight")[1]
    levels, per_level = _levels(shapes)
    if not base or per_level < 1:
        raise LayoutError(
            f"this UNet's blocks ({len(_numbers(shapes, 'output_blocks.'))} in the decoder) are "
            "not arranged as SDM's with resblock_updown"
        )

    # Widths and attention are read off the first block of each level of the encoder.
    starts = [1 + level * (per_level + 1) for level in range(levels)]
    widths = [_shape(shapes, f"input_blocks.{start}.0.out_layers.3.weight")[0] for start in starts]
    if any(width % base for width in widths):
        raise LayoutError(f"this UNet's widths {widths} are not multiples of its base width {base}")
    attends = [f"input_blocks.{start}.1.qkv.weight" in shapes for start in starts]
    attended = {width for width, one in zip(widths, attends) if one}
    attended.add(widths[-1])  # in the middle
    _check_heads(attended, unreadable.head_channels)
    _check_groups(base, unreadable.groups)

    spade_channels, classes = _shape(shapes, SPADE_MARK)[:2]
    return UNetConfig(
        channels=base,
        channel_mult=tuple(width // base for width in widths),
        blocks=per_level,
        attention_downsampling=tuple(2**level for level, one in enumerate(attends) if one),
        head_channels=unreadable.head_channels,
        classes=classes,
        spade_channels=spade_channels,
        latent_channels=_shape(shapes, UNET_MARK)[1],
        groups=unreadable.groups,
        width=unreadable.width,
        height=unreadable.height,
    )


def _levels(shapes: Mapping[str, Tuple[int, ...]]) -> Tuple[int, int]:
    """(the levels of a UNet, the blocks of one in the encoder); 0 blocks where they differ.

    Levels end in the decoder where a second conditioned block doubles the map.
    """
    blocks = _numbers(shapes, "output_blocks.")
    ends = [number for number in blocks if _doubles(shapes, number)]
    levels, per_level = len(ends) + 1, ends[0] if ends else len(blocks) - 1
    return levels, per_level if len(blocks) == levels * (per_level + 1) else 0


def _doubles(shapes: Mapping[str, Tuple[int, ...]], number: int) -> bool:
    """Whether a block of the decoder ends a level: it has a second conditioned layer, the one that
    doubles the map.
    """
    layers = (f"output_blocks.{number}.{i}.in_norm.mlp_gamma.weight" for i in (1, 2))
    return any(layer in shapes for layer in layers)


def autoencoder_config(
    shapes: Mapping[str, Tuple[int, ...]], unreadable: Unreadable = Unreadable()
) -> AutoencoderConfig:
    """The configuration whose autoencoder has these shapes, as far as they say.

    Compare `autoencoder_shapes` of it with them. Raises LayoutError.
    """
    base, picture_channels = _shape(shapes, AUTOENCODER_MARK)[:2]
    widths = [
        _shape(shapes, f"encoder.down.{level}.block.0.conv1.weight")[0]
        for level in _numbers(shapes, "encoder.down.")
    ]
    codebook_size, latent_channels = _shape(shapes, "quantize.embedding.weight")

    if not base or any(width % base for width in widths):
        raise LayoutError(
            f"this autoencoder's widths {widths} are not multiples of its base width {base}"
        )
    _check_groups(base, unreadable.groups)

    return AutoencoderConfig(
        channels=base,
        channel_mult=tuple(width // base for width in widths),
        blocks=len(_numbers(shapes, "encoder.down.0.block.")),
        latent_channels=latent_channels,
        codebook_size=codebook_size,
        picture_channels=picture_channels,
        groups=unreadable.groups,
    )


def _shape(shapes: Mapping[str, Tuple[int, ...]], name: str) -> Tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) < 2:
        raise LayoutError(
            f"{name} is missing or not a matrix; expected the state dict of a UNet with SPADE "
            "norms or of a VQ autoencoder"
        )
    return shape


def _check_heads(widths, head_channels: int) -> None:
    odd = sorted(width for width in widths if width % head_channels)
    if odd:
        raise LayoutError(
            f"attention over {odd} channels does not divide into heads of {head_channels}; give "
            "--head_channels, the number that the network was trained with"
        )


def _check_groups(channels: int, groups: int) -> None:
    if groups < 1 or channels % groups:
        raise LayoutError(
            f"norms over {channels} channels do not divide into {groups} groups; give --groups, "
            "the number that the network was trained with"
        )


def _numbers(shapes: Mapping[str, Tuple[int, ...]], prefix: str) -> List[int]:
    parts = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return sorted(int(number) for number in parts if number.isdigit())


def _linear(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    shapes[name + ".weight"], shapes[name + ".bias"] = (outputs, inputs), (outputs,)


def _norm(shapes: Shapes, name: str, channels: int) -> None:
    shapes[name + ".weight"], shapes[name + ".bias"] = (channels,), (channels,)


def _conv(
    shapes: Shapes, name: str, inputs: int, outputs: int, size: int = 3, dimensions: int = 2
) -> None:
    shapes[name + ".weight"] = (outputs, inputs) + (size,) * dimensions
    shapes[name + ".bias"] = (outputs,)


def _attention(shapes: Shapes, name: str, channels: int) -> None:
    _norm(shapes, name + ".norm", channels)
    _conv(shapes, name + ".qkv", channels, 3 * channels, 1, 1)
    _conv(shapes, name + ".proj_out", channels, channels, 1, 1)


def _res_block(shapes: Shapes, name: str, inputs: int, outputs: int, embedding: int) -> None:
    _norm(shapes, name + ".in_layers.0", inputs)
    _conv(shapes, name + ".in_layers.2", inputs, outputs)
    _linear(shapes, name + ".emb_layers.1", embedding, 2 * outputs)
    _norm(shapes, name + ".out_layers.0", outputs)
    _conv(shapes, name + ".out_layers.3", outputs, outputs)
    if inputs != outputs:
        _conv(shapes, name + ".skip_connection", inputs, outputs, 1)


def _spade_block(
    shapes: Shapes, name: str, inputs: int, outputs: int, embedding: int, config: UNetConfig
) -> None:
    for norm, channels in (("in_norm", inputs), ("out_norm", outputs)):
        _conv(shapes, f"{name}.{norm}.mlp_shared.0", config.classes, config.spade_channels)
        _conv(shapes, f"{name}.{norm}.mlp_gamma", config.spade_channels, channels)
        _conv(shapes, f"{name}.{norm}.mlp_beta", config.spade_channels, channels)
    _conv(shapes, name + ".in_layers.1", inputs, outputs)
    _linear(shapes, name + ".emb_layers.1", embedding, 2 * outputs)
    _conv(shapes, name + ".out_layers.2", outputs, outputs)
    if inputs != outputs:
        _conv(shapes, name + ".skip_connection", inputs, outputs, 1)


def _vq_block(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    _norm(shapes, name + ".norm1", inputs)
    _conv(shapes, name + ".conv1", inputs, outputs)
    _norm(shapes, name + ".norm2", outputs)
    _conv(shapes, name + ".conv2", outputs, outputs)
    if inputs != outputs:
        _conv(shapes, name + ".nin_shortcut", inputs, outputs, 1)


def _vq_middle(shapes: Shapes, name: str, channels: int) -> None:
    _vq_block(shapes, name + ".block_1", channels, channels)
    _norm(shapes, name + ".attn_1.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        _conv(shapes, f"{name}.attn_1.{part}", channels, channels, 1)
    _vq_block(shapes, name + ".block_2", channels, channels)
