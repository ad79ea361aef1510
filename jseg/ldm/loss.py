"""Training loss of the latent-diffusion branch: mean squared error of the noise plus the
variational term for the variance.

Mirrors training_losses and _vb_terms_bpd of guided_diffusion/gaussian_diffusion.py with the
release's settings (learned range of variances, Nichol and Dhariwal 2021, eq. 15-16; no rescaling of
the variational term, T / 1000 being 1).
"""

from __future__ import annotations

import math
from typing import Callable, Dict

import numpy as np

from jseg.ldm.samplers import add_noise
from jseg.ldm.schedule import Schedule
from jseg.nn.dropout import seed_dropout
from jseg.nn.layers import as_var, one_hot
from jseg.runtime import jt

BITS = 1.0 / math.log(2.0)


def training_loss(unet, schedule: Schedule) -> Callable:
    """The function of a batch of `jseg.ldm.dataset.LatentBatches` -> {"loss", "mse", "vb"}, means
    over it, for `jseg.training.loop.TrainedNetwork`.
    """

    def loss(batch) -> Dict[str, object]:
        seed_dropout(batch["seed"], batch["step"], batch["start"])
        y = one_hot(batch["labels"], unet.config.classes)
        terms = diffusion_loss(unet, schedule, batch["z"], batch["t"], y, batch["noise"])
        return {name: terms[name].mean() for name in ("loss", "mse", "vb")}

    return loss


def diffusion_loss(unet, schedule: Schedule, z, t, y, noise) -> dict:
    """{"mse", "vb", "loss"}, each [B], for latents z [B, 3, h, w], indices t [B] (int array),
    one-hot maps y, Gaussian noise [B, 3, h, w].

    "vb" is in bits per dimension and reaches only the variance half of the network's output; "loss"
    is their sum.
    """
    index = np.asarray(t.numpy() if hasattr(t, "numpy") else t).astype(np.int64)
    z, noise = as_var(z), as_var(noise)

    # The network's noise and variance for the noised latent.
    x_t = add_noise(schedule, z, index, noise)
    output = unet(x_t, jt.array(schedule.timesteps[index].astype(np.int32)), y)  # [B, 6, h, w]
    channels = z.shape[1]
    eps, variance = output[:, :channels], output[:, channels:]

    mse = ((noise - eps) * (noise - eps)).mean((1, 2, 3))  # [B]
    vb = variational_bits(schedule, z, x_t, index, eps.detach(), variance)  # [B]
    return {"mse": mse, "vb": vb, "loss": mse + vb}


def variational_bits(schedule: Schedule, z, x_t, index: np.ndarray, eps, variance):
    """Bits per dimension [B] of the variational bound's term at `index` [B]: a KL divergence, or at
    index 0 the decoder's likelihood.

    eps: predicted noise; variance: interpolation between the least (-1) and the largest (1) log
    variance; both [B, 3, h, w].
    """

    def of(table):
        return jt.array(table[index].astype(np.float32)).reshape(-1, 1, 1, 1)

    # Nichol and Dhariwal 2021, eq. 15
    least, largest = schedule.posterior_log_variance, np.log(schedule.beta)
    fraction = (variance + 1) / 2
    log_variance = fraction * of(largest) + (1 - fraction) * of(least)

    # Ho et al. 2020, eq. 7, with the predicted and the true clean latent
    alpha_bar = schedule.alpha_bar
    x0 = of(np.sqrt(1 / alpha_bar)) * x_t - of(np.sqrt(1 / alpha_bar - 1)) * eps
    of_x0, of_x_t = schedule.posterior_mean_coefficients
    mean = of(of_x0) * x0 + of(of_x_t) * x_t
    true_mean = of(of_x0) * z + of(of_x_t) * x_t

    kl = gaussian_kl(true_mean, of(least), mean, log_variance).mean((1, 2, 3)) * BITS
    nll = -discretized_log_likelihood(z, mean, 0.5 * log_variance).mean((1, 2, 3)) * BITS
    first = jt.array((index == 0).astype(np.float32))
    return first * nll + (1 - first) * kl


def gaussian_kl(mean_1, log_variance_1, mean_2, log_variance_2):
    """KL(N(mean_1, exp log_variance_1) || N(mean_2, exp log_variance_2)) per element, in nats."""
    distance = (mean_1 - mean_2) * (mean_1 - mean_2)
    return 0.5 * (
        log_variance_2
        - log_variance_1
        - 1
        + jt.exp(log_variance_1 - log_variance_2)
        + distance * jt.exp(-log_variance_2)
    )


def discretized_log_likelihood(x, mean, log_scale):
    """log of the Gaussian mass within 1/255 of x, the outer bins reaching to infinity, in nats;
    floor 1e-12 (Ho et al. 2020, eq. 13).

    The normal distribution function is the tanh approximation of the release.
    """
    centred, inverse = x - mean, jt.exp(-log_scale)
    above = normal_cdf(inverse * (centred + 1 / 255))
    below = normal_cdf(inverse * (centred - 1 / 255))
    inside = jt.log(jt.maximum(above - below, 1e-12))
    left, right = jt.log(jt.maximum(above, 1e-12)), jt.log(jt.maximum(1 - below, 1e-12))
    return jt.ternary(x < -0.999, left, jt.ternary(x > 0.999, right, inside))


def normal_cdf(x):
    """Standard normal distribution function by its tanh approximation."""
    return 0.5 * (1 + jt.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
