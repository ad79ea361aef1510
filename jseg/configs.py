"""The configurations of the networks: frozen dataclasses, stored with the weights.

A configuration alone rebuilds its network. Those that were published or ship are in
jseg/ldm/presets.py and jseg/flowseg/presets.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Mapping, Optional, Tuple

SOURCES = ("image", "noise", "image+noise")
# Fields of PixNerdConfig that are 1 or more.
POSITIVE = ("hidden_size", "heads", "pixel_blocks", "pixel_channels", "pixel_ratio")
POSITIVE += ("frequencies", "patch", "width", "height")

# The name of an array that every network of the kind has, and no other.
UNET_MARK, AUTOENCODER_MARK = "input_blocks.0.0.weight", "encoder.conv_in.weight"
SPADE_MARK = "middle_block.0.in_norm.mlp_shared.0.weight"
PIXNERD_MARK = "s_embedder.proj.weight"


@dataclass(frozen=True)
class UNetConfig:
    """The SPADE-conditioned UNet; `width` and `height` are those of the latents in its training."""

    channels: int = 256  # base width; level widths are channels * channel_mult
    channel_mult: Tuple[int, ...] = (1, 1, 2, 3, 4)
    blocks: int = 2  # residual blocks per level (one more in the decoder half)
    attention_downsampling: Tuple[int, ...] = (4, 8, 16)  # factors of levels with attention
    head_channels: int = 64  # channels per attention head
    classes: int = 29  # columns of the one-hot label map
    spade_channels: int = 128  # hidden width of every SPADE norm
    latent_channels: int = 3
    groups: int = 32  # of every group norm
    dropout: float = 0.0
    width: int = 128
    height: int = 96


@dataclass(frozen=True)
class AutoencoderConfig:
    """The VQ autoencoder; its downsampling factor is 2 ** (levels - 1)."""

    channels: int = 128
    channel_mult: Tuple[int, ...] = (1, 2, 4)
    blocks: int = 2  # residual blocks per level (one more in the decoder)
    latent_channels: int = 3
    codebook_size: int = 8192
    picture_channels: int = 3
    groups: int = 32  # of every group norm; one channel a group loses an image's mean colour

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True)
class PixNerdConfig:
    """A patch transformer with a neural field per patch, and the task that it was trained for.

    source: where the flow starts; weights are good for the source of their training only.
    image_input: whether the network sees the image beside x_t; None: if the source has noise
    ("image+noise" without it is possible, but poor). Raises ValueError for what does not fit
    together, such as a source without noise with the image as an input.
    """

    hidden_size: int = 1024  # width of the transformer's tokens
    heads: int = 16
    depth: int = 22  # transformer blocks
    pixel_blocks: int = 2  # neural-field blocks
    pixel_channels: int = 64  # width of the neural field
    pixel_ratio: int = 2  # its hidden width, in multiples of pixel_channels
    frequencies: int = 8  # cosines per axis with which the field knows a pixel's place in its patch
    patch: int = 16  # pixels; images are multiples of it
    classes: int = 1000  # rows of the label embedding less one; the last row is the null class
    labels: int = 150  # classes of the segmentation
    codes: str = "kronecker"  # kind of their codes, `encoding.class_codes`
    source: str = "image"  # "image", "noise" or "image+noise"
    image_input: Optional[bool] = None
    width: int = 512  # of the training crops, and of the windows at inference
    height: int = 512

    def __post_init__(self):
        self._check_source()
        self._check_numbers()

    def _check_source(self):
        """Raise ValueError unless the flow's start and what is fed in go together."""
        if self.source not in SOURCES:
            raise ValueError(
                f"PixNerdConfig: source is {self.source!r}; choose one of {', '.join(SOURCES)}"
            )
        if self.image_input and self.source == "image":
            raise ValueError(
                "PixNerdConfig: source 'image' with image_input: the velocity (x_t - image) / t "
                "can then be read off without looking at the image, and nothing is learnt; drop "
                "image_input, or start from 'noise' or 'image+noise'"
            )
        if self.image_input is False and self.source == "noise":
            raise ValueError(
                "PixNerdConfig: source 'noise' without image_input never sees the image; leave "
                "image_input out"
            )

    def _check_numbers(self):
        """Raise ValueError for numbers of which no network can be built."""
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(
                    f"PixNerdConfig: {name} is {getattr(self, name)}; expected 1 or more"
                )
        if self.depth < 0 or self.classes < 0 or self.labels < 2:
            raise ValueError(
                f"PixNerdConfig: depth {self.depth}, classes {self.classes}, labels "
                f"{self.labels}; expected 0, 0, 2 or more"
            )
        if self.hidden_size % (4 * self.heads):
            raise ValueError(
                f"PixNerdConfig: hidden_size {self.hidden_size}, heads {self.heads}; expected a "
                "multiple of 4 heads, since positions turn pairs of each head's channels, for x "
                "and for y"
            )

    @property
    def sees_image(self) -> bool:
        """Whether the image is fed in beside x_t."""
        return self.source != "image" if self.image_input is None else self.image_input


# Under their names, by which files refer to them.
CONFIGS = {config.__name__: config for config in (UNetConfig, AutoencoderConfig, PixNerdConfig)}


def to_json(config: object) -> dict:
    """A configuration as files store it; raises ValueError for an object that is none."""
    name = type(config).__name__
    if name not in CONFIGS:
        raise ValueError(f"its configuration is a {name}; expected one of {', '.join(CONFIGS)}")
    return {"network": name, **dataclasses.asdict(config)}


def from_json(stored: dict):
    """The configuration that `to_json` stored; fields that the file lacks have their defaults.

    Raises ValueError, TypeError or AttributeError for anything else.
    """
    values = dict(stored)
    config = CONFIGS.get(values.pop("network", None))
    if config is None:
        raise ValueError(f"network {stored.get('network')!r:.40} is unknown")
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise ValueError(f"{config.__name__} has no field {', '.join(unknown)[:120]}")
    return config(**{name: _typed(name, value, fields[name]) for name, value in values.items()})


def _typed(name: str, value, default):
    """The JSON value as the type of the field's default, where it has one; or ValueError."""
    free = default is None or default is dataclasses.MISSING
    if isinstance(value, list) and (free or isinstance(default, tuple)):
        item_default = default[0] if default and not free else None
        return tuple(_typed(name, item, item_default) for item in value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if not free and type(value) is not type(default):
        raise ValueError(f"field {name} is {value!r:.40}, expected a {type(default).__name__}")
    return value


def looks_like(shapes: Mapping[str, Tuple[int, ...]]) -> Optional[str]:
    """In a few words, the network that these names and shapes look like; None if unknown."""
    if UNET_MARK in shapes and SPADE_MARK in shapes:
        base, classes = (*shapes[UNET_MARK], 0)[0], (*shapes[SPADE_MARK], 0, 0)[1]
        return f"a UNet with {base} base channels and {classes} classes"
    if UNET_MARK in shapes:
        return "a UNet without SPADE norms (unconditional, or of another project)"
    if AUTOENCODER_MARK in shapes:
        codes = shapes.get("quantize.embedding.weight") or shapes.get("quantize.embed.weight")
        codebook = f"{codes[0]} codes" if codes else "no codebook (a KL autoencoder?)"
        return (
            f"an autoencoder with {(*shapes[AUTOENCODER_MARK], 0)[0]} base channels and {codebook}"
        )
    if PIXNERD_MARK in shapes:
        return "a PixNerd network"
    if any(name.startswith("model.diffusion_model.") for name in shapes):
        return "a whole latent-diffusion checkpoint"
    if any(name.startswith(("discriminator.", "loss.discriminator.")) for name in shapes):
        return "a discriminator"
    return None
