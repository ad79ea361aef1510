"""Losses of the VQ autoencoder's training, and of the discriminator that it has to deceive (VQ-GAN,
Esser et al. 2021, eq. 2-7).

Mirrors VQLPIPSWithDiscriminator and the loss of VectorQuantizer2 in taming-transformers, with the
settings of latent-diffusion's vq-f4 as defaults. Both factories give functions of a batch
{"images": float32 [b, 3, H, W] in [-1, 1], "step": int} alone, as
`jseg.training.loop.TrainedNetwork` wants them.
"""

from __future__ import annotations

from typing import Callable, Dict

from jseg.nn.layers import as_var, nn
from jseg.runtime import jt

LARGEST_WEIGHT, NORM_EPS = 1e4, 1e-4


def autoencoder_loss(
    autoencoder,
    discriminator=None,
    lpips=None,
    *,
    commitment: float = 1.0,
    codebook: float = 0.25,
    perceptual: float = 1.0,
    adversarial: float = 0.75,
    discriminator_start: int = 0,
) -> Callable:
    """The function batch -> {"loss", "l1", "codebook", "codes_used", "perplexity"} that trains the
    autoencoder.

    With e the nearest entry and means over elements,

        loss = reconstruction + commitment |z - sg(e)|^2 + codebook |sg(z) - e|^2
               + adversarial weight g
        reconstruction = l1 + perceptual lpips

    lpips ("lpips" of the result): `jseg.ldm.lpips.Lpips` or None. g, from step
    `discriminator_start` on: -mean discriminator(image) ("deception"); its `adaptive_weight` is
    "weight". "codes_used" is the fraction of entries that the micro-batch uses, "perplexity" how
    many entries used alike would have its entropy.

    vq-f4 was trained with the quantiser's "legacy" order, the factor 0.25 on the codebook's side;
    the papers have it on z's side: commitment=0.25, codebook=1. The weight belongs to a
    micro-batch, so from `discriminator_start` on the sum over micro-batches is not quite the
    gradient of the whole batch.
    """

    def loss(batch) -> Dict[str, object]:
        images = as_var(batch["images"])
        made = autoencoder.reconstruct(images)

        # reconstruction
        l1 = (images - made.image).abs().mean()
        logged = {"l1": l1}
        reconstruction = l1
        if lpips is not None:
            logged["lpips"] = lpips(images, made.image).mean()
            reconstruction = l1 + perceptual * logged["lpips"]

        # adversarial term: both gradients at the image serve the weight and the backward pass
        if discriminator is not None and batch["step"] >= discriminator_start:
            deception = -discriminator(made.image).mean()
            of_reconstruction = jt.grad(reconstruction, made.image)  # [B, 3, H, W]
            of_deception = jt.grad(deception, made.image)  # [B, 3, H, W]
            last_layer = autoencoder.decoder.conv_out.weight
            weight = adversarial * adaptive_weight(
                made.image, of_reconstruction, of_deception, last_layer
            )
            reconstruction = with_gradient(
                reconstruction + weight * deception,
                made.image,
                of_reconstruction + weight * of_deception,
            )
            logged.update(deception=deception, weight=weight)

        # quantiser
        to_entry = squared_error(made.z, made.quantized.detach())
        to_z = squared_error(made.quantized, made.z.detach())
        quantisation = commitment * to_entry + codebook * to_z

        use = codebook_use(made.codes, autoencoder.config.codebook_size)
        return {"loss": reconstruction + quantisation, **logged, "codebook": quantisation, **use}

    return loss


def discriminator_loss(autoencoder, discriminator) -> Callable:
    """The function batch -> {"loss", "real", "fake"} that trains the discriminator: the hinge loss,
    and the mean logits of both kinds.
    """

    def loss(batch) -> Dict[str, object]:
        images = as_var(batch["images"])
        with jt.no_grad():
            made = autoencoder.reconstruct(images).image
        real, fake = discriminator(images), discriminator(made)
        return {"loss": hinge(real, fake), "real": real.mean(), "fake": fake.mean()}

    return loss


def hinge(real, fake):
    """(mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2 of logits of any shapes."""
    return 0.5 * (nn.relu(1 - real).mean() + nn.relu(1 + fake).mean())


def adaptive_weight(image, of_reconstruction, of_deception, last_layer):
    """|d reconstruction / d last_layer| / (|d g / d last_layer| + 1e-4), at most 1e4, a constant
    (VQ-GAN, eq. 7).

    of_reconstruction, of_deception: the two terms' gradients at the decoder's image [B, 3, H, W];
    last_layer: the weight that made it.
    """
    norms = []
    for of_image in (of_reconstruction, of_deception):
        gradient = jt.grad((image * of_image.detach()).sum(), last_layer)
        norms.append(jt.sqrt((gradient * gradient).sum()))
    return jt.minimum(norms[0] / (norms[1] + NORM_EPS), LARGEST_WEIGHT).detach()


def with_gradient(value, x, gradient):
    """`value`, as a function of x whose gradient is `gradient`: what led from x to it need not be
    walked back a second time.
    """
    return value.detach() + ((x - x.detach()) * gradient.detach()).sum()


def squared_error(a, b):
    """Mean over all elements of (a - b)^2."""
    return ((a - b) * (a - b)).mean()


def codebook_use(codes, codebook_size: int) -> Dict[str, object]:
    """{"codes_used": fraction of entries that occur, "perplexity": exp of the entropy of their
    frequencies} of int codes [...].
    """
    flat = codes.reshape(-1)
    ones = jt.ones(flat.shape)
    counts = ones.reindex_reduce("add", [codebook_size], ["@e0(i0)"], extras=[flat])  # [K]
    frequency = counts / float(flat.shape[0])
    entropy = -(frequency * jt.log(jt.maximum(frequency, 1e-20))).sum()
    return {"codes_used": (counts > 0).float32().mean(), "perplexity": jt.exp(entropy)}
