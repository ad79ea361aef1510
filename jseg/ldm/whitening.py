"""The scale of an autoencoder's latents: a start from data before training, and the exact
correction after it.

The diffusion adds noise of unit variance to latents as they are (the release has no latent scale
factor), so they have to have mean 0 and variance 1 in every channel. Training does not see to that;
`start_codebook` begins there and `standardize_latents` ends there.
"""

from __future__ import annotations

import numpy as np

from jseg.counting import counted
from jseg.nn.layers import to_tokens
from jseg.runtime import jt

ENCODED_AT_ONCE = 8  # images
# Least variance of a direction of the features that whitening stretches, relative to the largest.
FLOOR = 1e-4


def start_codebook(autoencoder, images: np.ndarray, seed: int = 0) -> None:
    """Whiten the latents of `images` (float32 [n, 3, H, W] in [-1, 1]) by quant_conv, and make
    some of them, by `seed`, the codebook.

    For an untrained network, once before the first step. Random features leave latents at a tenth
    of the unit scale and nearly on a line, and entries within 1 / codebook_size of zero start far
    from all but a few of them, so a handful of entries wins every position and the others are never
    moved. Entries that are latents are used from the first step on. Raises ValueError if there are
    fewer latents than entries.
    """
    tokens = encoded(autoencoder, images, autoencoder.encoder)  # [n, D]
    entries = autoencoder.config.codebook_size
    if len(tokens) < entries:
        raise ValueError(
            f"the codebook's {entries} entries are to start as latents, and "
            f"{counted(len(images), 'image[s] [has|have]')} {len(tokens)}; give at least "
            f"{-(-entries * len(images) // len(tokens))} images"
        )

    # z = whiten (features - mean), the symmetric root of the inverse covariance.
    mean = tokens.mean(0)
    variance, directions = np.linalg.eigh(np.cov(tokens - mean, rowvar=False, bias=True))
    spread = np.sqrt(np.maximum(variance, max(FLOOR * variance[-1], 1e-12)))
    whiten = (directions / spread) @ directions.T
    _assign(autoencoder.quant_conv, whiten, -whiten @ mean)

    # Some of the latents become the entries.
    rows = np.random.default_rng(seed).choice(len(tokens), entries, replace=False)
    latents = ((tokens[rows] - mean) @ whiten.T).astype(np.float32)
    autoencoder.quantize.embedding.weight.assign(jt.array(latents))
    jt.sync(autoencoder.quantize.parameters())


def restart_codebook(autoencoder, images: np.ndarray, seed: int = 0) -> None:
    """`start_codebook` for a trained network: whitens again what training has flattened, and leaves
    the decoder's view of it as it was.

    The pull between latents and entries can press the latents into a plane, which costs the decoder
    a colour axis, while the features before quant_conv still have it. Until quantised, every latent
    decodes as before.
    """
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    old_weight, old_bias = _arrays(before)
    weight, bias = _arrays(after)
    start_codebook(autoencoder, images, seed)
    new_weight, new_bias = _arrays(before)
    back = old_weight @ np.linalg.inv(new_weight)
    _assign(after, weight @ back, bias + weight @ (old_bias - back @ new_bias))


def standardize_latents(autoencoder, images: np.ndarray) -> float:
    """Give the latents of `images` mean 0 and variance 1 in every channel without changing any
    reconstruction; returns the old scale.

    Latents, codebook and the decoder's first layer are moved by one shift, rotation and uniform
    scale: nearest entries stay nearest under no other linear map. A rotation exists that makes the
    variances of all channels equal (Schur and Horn).
    """
    # z' = move (z - mean)
    tokens = encoded(autoencoder, images, autoencoder.encode)
    mean, covariance = tokens.mean(0), np.cov(tokens, rowvar=False, bias=True)
    scale = float(np.sqrt(np.trace(covariance) / len(mean)))
    move = balancing_rotation(covariance) / scale

    # The layer that makes latents, the entries that stand for them, the layer that reads them.
    weight, bias = _arrays(autoencoder.quant_conv)
    _assign(autoencoder.quant_conv, move @ weight, move @ (bias - mean))
    entries = autoencoder.quantize.embedding.weight
    moved = (entries.numpy().astype(np.float64) - mean) @ move.T
    entries.assign(jt.array(moved.astype(np.float32)))
    weight, bias = _arrays(autoencoder.post_quant_conv)
    back = weight @ np.linalg.inv(move)
    _assign(autoencoder.post_quant_conv, back, bias + weight @ mean)
    entries.sync()
    return scale


def balancing_rotation(covariance: np.ndarray) -> np.ndarray:
    """An orthogonal R [D, D] for which all diagonal elements of R covariance R^T are equal.

    One plane rotation puts the mean variance exactly on one axis, if the plane holds a smaller and
    a larger one; D - 1 of them do.
    """
    size = len(covariance)
    rotation, target = np.eye(size), np.trace(covariance) / size
    for _ in range(size - 1):
        # The plane of the smallest and the largest variance.
        c = rotation @ covariance @ rotation.T
        i, j = int(np.argmin(np.diag(c))), int(np.argmax(np.diag(c)))
        if c[j, j] - c[i, i] <= 1e-12 * target:
            break

        # The variance along angle a in it is middle + radius cos(2 a - phase).
        difference, middle = (c[i, i] - c[j, j]) / 2, (c[i, i] + c[j, j]) / 2
        radius, phase = np.hypot(difference, c[i, j]), np.arctan2(c[i, j], difference)
        angle = (phase + np.arccos(np.clip((target - middle) / radius, -1, 1))) / 2

        turn, sine, cosine = np.eye(size), np.sin(angle), np.cos(angle)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cosine, sine, -sine, cosine
        rotation = turn @ rotation
    return rotation


def encoded(autoencoder, images: np.ndarray, encode) -> np.ndarray:
    """`encode` of all images [n, 3, H, W] as rows, float64 [n h w, D]."""
    tokens = []
    with jt.no_grad():
        for start in range(0, len(images), ENCODED_AT_ONCE):
            part = np.ascontiguousarray(images[start : start + ENCODED_AT_ONCE], dtype=np.float32)
            tokens.append(to_tokens(encode(jt.array(part))).numpy())
    return np.concatenate(tokens).astype(np.float64)


def _arrays(layer):
    weight = layer.weight.numpy().astype(np.float64)
    return weight.reshape(weight.shape[0], -1), layer.bias.numpy().astype(np.float64)


def _assign(layer, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.weight.assign(jt.array(weight.reshape(layer.weight.shape).astype(np.float32)))
    layer.bias.assign(jt.array(bias.astype(np.float32)))
    jt.sync([layer.weight, layer.bias])
