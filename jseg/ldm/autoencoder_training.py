"""What a training of the autoencoder moves, and what its numbers depend on; its previews and the
last step before the result.

`options` are those of the command train_autoencoder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from jseg import runtime
from jseg.checkpoint import load_into, weights_sha256
from jseg.contact_sheet import contact_sheet
from jseg.data.examples import Example
from jseg.files import sha256
from jseg.images import from_signed, save_image, to_signed
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.dataset import ImageBatches
from jseg.ldm.discriminator import Discriminator
from jseg.ldm.lpips import load_lpips
from jseg.ldm.vqgan_loss import autoencoder_loss, discriminator_loss
from jseg.ldm.whitening import restart_codebook, standardize_latents, start_codebook
from jseg.noise import generator
from jseg.runtime import jt
from jseg.training.loop import TrainedNetwork
from jseg.training.optimizer import EMA, AdamW, trainable
from jseg.training.sampling import evenly

SHOWN = 8  # images of a preview
FIRST_IMAGES = 16  # that the codebook starts from
MEASURED_IMAGES = 256  # that the latents' spread is measured on
BETAS = (0.5, 0.9)  # of AdamW, as VQ-GAN's
DECODER = ("decoder.", "post_quant_conv.")
SETTINGS = (
    ("preset", "width", "height", "crop")
    + ("critic_start", "critic_weight", "critic_channels")
    + ("commitment_weight", "codebook_weight")
)


def trained_networks(
    options, config, batches: ImageBatches
) -> Tuple[List[TrainedNetwork], Callable]:
    """(the autoencoder and, unless --critic_start is -1, its discriminator; the autoencoder's loss
    without the discriminator, for validations).

    Raises CheckpointError for weights that do not fit.
    """
    runtime.seed(options.seed)
    autoencoder = Autoencoder(config)
    if options.model_path:
        load_into(autoencoder, options.model_path)
    if options.restart_codebook or not options.model_path:
        _fill_codebook(options, autoencoder, batches)

    # LPIPS and the discriminator come in where they are asked for.
    lpips = load_lpips(*options.lpips_path) if options.lpips_path else None
    discriminator = Discriminator(options.critic_channels) if options.critic_start >= 0 else None
    weights = {"commitment": options.commitment_weight, "codebook": options.codebook_weight}
    loss = autoencoder_loss(
        autoencoder,
        discriminator,
        lpips,
        **weights,
        adversarial=options.critic_weight,
        discriminator_start=options.critic_start,
    )

    # What moves, and by which optimiser.
    moved = {
        name: value
        for name, value in trainable(autoencoder).items()
        if not options.decoder_only or name.startswith(DECODER)
    }
    optimizer = AdamW(moved, options.learning_rate, weight_decay=options.weight_decay, betas=BETAS)
    average = EMA(moved, options.ema) if options.ema else None
    networks = [TrainedNetwork("", autoencoder, loss, optimizer, average)]
    if discriminator is not None:
        networks.append(_trained_discriminator(options, autoencoder, discriminator))
    return networks, autoencoder_loss(autoencoder, None, lpips, **weights)


def _trained_discriminator(options, autoencoder, discriminator: Discriminator) -> TrainedNetwork:
    """The discriminator with its loss and optimiser; checkpoints and the log call it the critic."""
    return TrainedNetwork(
        "critic",
        discriminator,
        discriminator_loss(autoencoder, discriminator),
        AdamW(trainable(discriminator), options.learning_rate, betas=BETAS),
        start_step=options.critic_start,
    )


def _fill_codebook(options, autoencoder, batches: ImageBatches) -> None:
    rng = generator(options.seed, "codebook")
    chosen = rng.integers(len(batches.paths), size=FIRST_IMAGES)
    images = np.stack([to_signed(batches.image(i, rng, batches.size)) for i in chosen])
    start = restart_codebook if options.model_path else start_codebook
    start(autoencoder, images, options.seed)


def settings(options, examples: Sequence[Example]) -> Dict[str, object]:
    """Everything of the autoencoder's own that the numbers of a step depend on."""
    values = {name: getattr(options, name) for name in SETTINGS}
    flags = ("decoder_only", "restart_codebook")
    values.update((name, True) for name in flags if getattr(options, name))
    if options.lpips_path:
        values["lpips_path"] = [weights_sha256(path) for path in options.lpips_path]
    named = "".join(
        example.image.name + (example.image_sha256 or sha256(example.image)) for example in examples
    )
    digest = hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()
    return {**values, "pictures": digest}


def standardize(autoencoder, batches: ImageBatches) -> str:
    """Give the latents unit variance without changing what is reconstructed; a line about it."""
    chosen = evenly(len(batches.paths), MEASURED_IMAGES)
    spread = standardize_latents(
        autoencoder, np.stack([to_signed(_image(batches, "scale", i)) for i in chosen])
    )
    return f"the latents' spread was {spread:.3f}; it is 1 in the result"


def write_preview(path: Path, autoencoder, batches: ImageBatches) -> None:
    """Write a sheet of a few images beside their reconstructions."""
    chosen, rows = evenly(len(batches.paths), SHOWN), []
    for image in (_image(batches, "preview", i) for i in chosen):
        with jt.no_grad():
            x = jt.array(to_signed(image)[None])
            reconstruction = autoencoder.decode(autoencoder.encode(x)).numpy()[0]
        rows.append([image, from_signed(reconstruction)])
    stems = [batches.paths[i].stem for i in chosen]
    save_image(path, contact_sheet(rows, ["image", "reconstruction"], stems))


def _image(batches: ImageBatches, purpose: str, index: int) -> np.ndarray:
    return batches.image(index, generator(batches.seed, purpose, index), batches.size)
