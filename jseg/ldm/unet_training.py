"""What a training of the UNet moves, and the latents that it learns from.

`options` are those of the command train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

from jseg import runtime
from jseg.checkpoint import load_into
from jseg.configs import AutoencoderConfig
from jseg.data.classes import ClassSet
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.latents import Latents, prepare
from jseg.ldm.loss import training_loss
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.training.loop import TrainedNetwork
from jseg.training.optimizer import EMA, AdamW, trainable


def trained_network(options, config) -> TrainedNetwork:
    """The UNet with its loss and optimiser; raises CheckpointError for weights that do not fit."""
    runtime.seed(options.seed)
    unet = UNet(config, zero_init=options.zero_init == "zero")
    unet.train()
    unet.recompute = options.recompute
    if options.model_path:
        load_into(unet, options.model_path)
    parameters = trainable(unet)
    return TrainedNetwork(
        "",
        unet,
        training_loss(unet, Schedule()),
        AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay),
        EMA(parameters, options.ema) if options.ema else None,
    )


def loaded_autoencoder(config: AutoencoderConfig, weights) -> Autoencoder:
    """The autoencoder with its weights, ready to encode and decode."""
    autoencoder = Autoencoder(config)
    load_into(autoencoder, weights)
    autoencoder.eval()
    return autoencoder


def cached_latents(
    options,
    config,
    autoencoder,
    digest: str,
    examples: Sequence,
    classes: ClassSet,
    folder: Path,
    say: Callable[[str], None],
) -> Latents:
    """The latents in the cache `folder`, which all processes fill; digest: the encoder's."""
    factor = autoencoder.config.downsampling
    return prepare(
        examples,
        autoencoder,
        folder,
        width=config.width * factor,
        height=config.height * factor,
        latent_width=config.width,
        latent_height=config.height,
        ignore=options.ignore,
        classes=classes,
        fit=options.fit,
        autoencoder_sha256=digest,
        tell=say,
    )
