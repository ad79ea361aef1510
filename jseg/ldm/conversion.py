"""Which arrays of a foreign file are the UNet or the autoencoder, under which names, and what its
configuration is.

Sources: PyTorch SDM (WeilunWang/semantic-diffusion-model), the VQ-GAN of
CompVis/taming-transformers, the VQ autoencoders of CompVis/latent-diffusion (alone, or the first
stage inside of a whole model), and the release's own files. Their networks have our names already;
around them are discriminators, moving averages, other networks and a few buffers, which are left
out.
"""

from __future__ import annotations

from typing import Optional

from jseg.configs import AutoencoderConfig, UNetConfig
from jseg.formats.extraction import Extraction, Shapes, inside
from jseg.ldm.state_dict import (
    LayoutError,
    Unreadable,
    autoencoder_config,
    autoencoder_shapes,
    unet_config,
    unet_shapes,
)

LATENT_LEVELS = 5  # of the release; a latent of 128x96 is then 8x6
# Beside the autoencoder in VQModel: losses with their discriminator, averages, index remapping,
# buffers for plots.
FOREIGN_PREFIXES = ("loss.", "model_ema.", "discriminator.", "perceptual_loss.")
FOREIGN_NAMES = (
    "colorize",
    "quantize.used",
    "quantize.embedding.cluster_size",
    "quantize.embedding.embed_avg",
    "logvar",
    "scale_factor",
)
RENAMED = {"quantize.embed.weight": "quantize.embedding.weight"}


def extract_unet(
    shapes: Shapes,
    scope: str = "",
    config: Optional[UNetConfig] = None,
    unreadable: Unreadable = Unreadable(),
) -> Extraction:
    """The UNet whose arrays stand under the prefix `scope` in a file.

    config: the network's, if the file has it. Raises LayoutError.
    """
    result = inside(shapes, scope)
    config = config or unet_config(result.own_shapes(shapes), unreadable)
    result.complete(config, unet_shapes(config), shapes)
    return result


def extract_autoencoder(
    shapes: Shapes,
    scope: str = "",
    config: Optional[AutoencoderConfig] = None,
    unreadable: Unreadable = Unreadable(),
) -> Extraction:
    """The autoencoder whose arrays stand under the prefix `scope` in a file, as for
    `extract_unet`.
    """
    result = inside(shapes, scope)
    for own in list(result.sources):
        if own.startswith(FOREIGN_PREFIXES):
            del result.sources[own]
            result.dropped[f"{scope}{own.split('.')[0]}.*"] += 1
        elif own in FOREIGN_NAMES:
            del result.sources[own]
            result.dropped[scope + own] += 1
        elif own in RENAMED:
            name = result.sources.pop(own)
            result.sources[RENAMED[own]] = name
            result.renamed.append((name, RENAMED[own]))

    own_shapes = result.own_shapes(shapes)
    _refuse_other_autoencoders(own_shapes)
    config = config or autoencoder_config(own_shapes, unreadable)
    result.complete(config, autoencoder_shapes(config), shapes)
    return result


def pixel_network(config: UNetConfig) -> Optional[str]:
    """Why a UNet looks like one of SDM's own, which make pixels and no latents, or None.

    SDM's networks for images of 256 pixels have six levels (1, 1, 2, 2, 4, 4); both kinds have 3
    input channels with VQ-f4.
    """
    if config.latent_channels == 3 and len(config.channel_mult) > LATENT_LEVELS:
        return f"3 input channels and {len(config.channel_mult)} levels {config.channel_mult}"
    return None


def _refuse_other_autoencoders(shapes: Shapes) -> None:
    if "quantize.proj.weight" in shapes:
        raise LayoutError(
            "the autoencoder has a Gumbel quantiser; expected a nearest-neighbour codebook "
            "(VQModel)"
        )
    if "quantize.embedding.weight" not in shapes:
        raise LayoutError(
            "the autoencoder has no codebook (a KL autoencoder?); expected a VQ autoencoder such "
            "as latent-diffusion's vq-f4"
        )

    # encoder.down.LEVEL.attn. ...
    parts = [name.split(".") for name in shapes]
    levels = sorted({".".join(part[:3]) for part in parts if part[3:4] == ["attn"]})
    if levels:
        raise LayoutError(
            f"the autoencoder has attention in {', '.join(levels)}; expected it in the middle "
            "only (attn_resolutions: []), as in vq-f4"
        )
