"""Which arrays of a foreign file are a network of ours, under which names, and what its configuration is.

Sources: PyTorch SDM (WeilunWang/semantic-diffusion-model), the VQ-GAN of CompVis/taming-transformers, the VQ autoencoders of
CompVis/latent-diffusion (alone, or the first stage inside of a whole model), PixNerd (MCG-NJU/PixNerd, also inside of its trainer's
Lightning files), and the release's own files. Their networks have our names already; around them are discriminators, moving
averages, other networks and a few buffers, which are left out.
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Tuple, Union

from jseg.configs import AutoencoderConfig, PixNerdConfig, UNetConfig
from jseg.flowseg import state_dict as pixnerd
from jseg.formats.tensor import CheckpointError
from jseg.ldm.state_dict import (
    AUTOENCODER_MARK,
    SPADE_MARK,
    UNET_MARK,
    LayoutError,
    Shapes,
    Unreadable,
    autoencoder_config,
    autoencoder_shapes,
    describe,
    unet_config,
    unet_shapes,
)

Config = Union[UNetConfig, AutoencoderConfig, PixNerdConfig]
MARKS = {"unet": SPADE_MARK, "autoencoder": AUTOENCODER_MARK, "pixnerd": pixnerd.MARK}
LATENT_LEVELS = 5                                                         # of the release; a latent of 128x96 is then 8x6
# Beside the autoencoder in VQModel: losses with their discriminator, averages, index remapping, buffers for plots.
FOREIGN_PREFIXES = ("loss.", "model_ema.", "discriminator.", "perceptual_loss.")
FOREIGN_NAMES = ("colorize", "quantize.used", "quantize.embedding.cluster_size", "quantize.embedding.embed_avg", "logvar", "scale_factor")
RENAMED = {"quantize.embed.weight": "quantize.embedding.weight"}


@dataclass
class Extraction:
    """A network found in a file: its configuration, its layout, and for each of its names the file's name."""
    config: Config
    shapes: Shapes
    sources: Dict[str, str]
    renamed: List[Tuple[str, str]] = field(default_factory=list)
    reshaped: List[str] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)                     # how many arrays were left out, by group


def extract(shapes: Mapping[str, Tuple[int, ...]], network: Optional[str] = None, config: Optional[Config] = None,
            unreadable: Unreadable = Unreadable()) -> Extraction:
    """Find a "unet", "autoencoder" or "pixnerd" among the names and shapes of a file; `config` if the file tells it.

    The layout is that of the configuration; the caller compares it with what was found. Raises CheckpointError.
    """
    try:
        return _extract(shapes, network, config, unreadable)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def pixel_network(config: UNetConfig) -> Optional[str]:
    """Why a UNet looks like one of SDM's own, which make pixels and no latents; None for one that may be a latent network.

    SDM's networks for images of 256 pixels have six levels (1, 1, 2, 2, 4, 4); both kinds have 3 input channels with VQ-f4.
    """
    if config.latent_channels == 3 and len(config.channel_mult) > LATENT_LEVELS:
        return f"3 input channels and {len(config.channel_mult)} levels {config.channel_mult}"
    return None


def _extract(shapes: Mapping[str, Tuple[int, ...]], network: Optional[str], config: Optional[Config], unreadable: Unreadable) -> Extraction:
    if config is not None and not isinstance(config, (UNetConfig, AutoencoderConfig)):         # FlowSeg's, from a file of ours
        if network not in (None, "pixnerd"):
            raise CheckpointError("the file holds a network of FlowSeg (%s), not %s" % (type(config).__name__, network))
        return Extraction(config, {name: tuple(shape) for name, shape in shapes.items()}, {name: name for name in shapes})
    network, scope = _located(shapes, network)
    result = Extraction(config, {}, {})
    for name in shapes:
        own = name[len(scope):]
        if not name.startswith(scope):
            result.dropped[name.split(".")[0] + (".*" if "." in name else "")] += 1
        elif network == "autoencoder" and (own.startswith(FOREIGN_PREFIXES) or own in FOREIGN_NAMES):
            result.dropped[scope + (own.split(".")[0] + ".*" if own.startswith(FOREIGN_PREFIXES) else own)] += 1
        else:
            if own in RENAMED:
                result.renamed.append((name, RENAMED[own]))
                own = RENAMED[own]
            result.sources[own] = name
    if scope:
        result.renamed.insert(0, (scope + "*", "*"))
    found = {own: tuple(shapes[name]) for own, name in result.sources.items()}
    if network == "autoencoder":
        _refuse_other_autoencoders(found)
    if config is None:
        result.config = (pixnerd.pixnerd_config(found) if network == "pixnerd" else
                         unet_config(found, unreadable) if network == "unet" else autoencoder_config(found, unreadable))
    layouts = {UNetConfig: unet_shapes, AutoencoderConfig: autoencoder_shapes, PixNerdConfig: pixnerd.pixnerd_shapes}
    result.shapes = layouts[type(result.config)](result.config)
    result.reshaped = [name for name, shape in result.shapes.items()
                       if name in found and found[name] != shape and _without_ones(found[name]) == _without_ones(shape)]
    return result


def _located(shapes: Mapping[str, Tuple[int, ...]], network: Optional[str]) -> Tuple[str, str]:
    """(which network, the prefix of its names); the first stage is preferred where a file holds several."""
    scopes = {kind: sorted((name[:-len(mark)] for name in shapes if name == mark or name.endswith("." + mark)),
                           key=lambda scope: (not scope.endswith("first_stage_model."), len(scope)))
              for kind, mark in MARKS.items()}
    found = [kind for kind in scopes if scopes[kind]]
    if network is None and len(found) == 1:
        network = found[0]
    if network is None and found:
        raise LayoutError("the file holds %s; choose with %s" % (" and ".join("a UNet" if kind == "unet" else "an autoencoder" if
                                                                             kind == "autoencoder" else "a PixNerd" for kind in found),
                                                                " or ".join("--to " + kind for kind in found)))
    if network not in found:
        looks = describe(shapes) or ("nothing that is known here" if not any(name.endswith(UNET_MARK) for name in shapes)
                                     else "a UNet without SPADE norms")
        raise LayoutError("the file holds no %s; it looks like %s; expected SDM's UNet, a VQ autoencoder of taming-transformers or "
                          "latent-diffusion, PixNerd, or the release's files" % (network or "network to convert", looks))
    return network, scopes[network][0]


def _refuse_other_autoencoders(found: Shapes) -> None:
    if "quantize.proj.weight" in found:
        raise LayoutError("the autoencoder has a Gumbel quantiser; expected a nearest-neighbour codebook (VQModel)")
    if "quantize.embedding.weight" not in found:
        raise LayoutError("the autoencoder has no codebook (a KL autoencoder?); expected a VQ autoencoder such as latent-diffusion's vq-f4")
    levels = sorted({".".join(name.split(".")[:3]) for name in found if name.split(".")[3:4] == ["attn"]})
    if levels:
        raise LayoutError("the autoencoder has attention in %s; expected it in the middle only (attn_resolutions: []), as in vq-f4"
                          % ", ".join(levels))


def _without_ones(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    shape = tuple(shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
