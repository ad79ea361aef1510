"""Samplers of the latent-diffusion branch: forward noising, the guided predictor and DDIM as a generator.

They know a callable predictor(x, t) -> noise and a `Schedule`, nothing of networks, files or devices. Integer t grows towards
noise; an index counts the schedule's (respaced) steps. Mirrors q_sample, p_mean_variance and ddim_sample_loop of
guided_diffusion/gaussian_diffusion.py.
"""
from __future__ import annotations

from typing import Callable, Iterator, Optional

import numpy as np

from jseg.layers import as_var
from jseg.ldm.schedule import Schedule
from jseg.runtime import jt


def add_noise(schedule: Schedule, z, index, noise):
    """sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise: z and noise [B, C, h, w]; `index` one int or an int array [B].

    Raises ValueError for an index outside the schedule. Ho et al. 2020, eq. 4.
    """
    index = index.numpy() if isinstance(index, jt.Var) else index
    schedule.check_index(index)
    alpha_bar = np.broadcast_to(schedule.alpha_bar[np.asarray(index)], (z.shape[0],)).reshape(-1, 1, 1, 1)
    return _scalars(np.sqrt(alpha_bar)) * as_var(z) + _scalars(np.sqrt(1 - alpha_bar)) * as_var(noise)


def guided(unet, y, scale: float) -> Callable:
    """Classifier-free guidance as one predictor(x [B,3,h,w], t [B]) -> noise [B,3,h,w] for the one-hot maps y [B,classes,h,w].

    eps(null) + scale (eps(y) - eps(null)), null being the all-zero map; for scale <= 1 the plain conditional noise, as the
    release does. Equal to two plain forwards of `unet`, at most 0.58 of their multiply-adds: the label maps' modulations are computed
    here, once, and each call runs one encoder pass and one batched decoder pass.
    """
    with jt.no_grad():
        modulations = unet.condition(y)
        if scale > 1:
            null = unet.condition(jt.zeros((1,) + tuple(y.shape[1:])))
            modulations = [tuple(tuple(_stacked(a, b) for a, b in zip(ours, theirs)) for ours, theirs in zip(pair, null_pair))
                           for pair, null_pair in zip(modulations, null)]
        jt.sync([v for pair in modulations for both in pair for v in both])

    def predictor(x, t):
        with jt.no_grad():
            eps = unet.decode(unet.encode(x, t), modulations, variance=False)
            if scale <= 1:
                return eps
            batch = x.shape[0]
            return eps[batch:] + scale * (eps[:batch] - eps[batch:])

    return predictor


def ddim(predictor: Callable, x, schedule: Schedule, start_index: int, eta: float = 0.0,
         noise: Optional[Callable[[int], np.ndarray]] = None) -> Iterator:
    """Denoise x [B, C, h, w], visiting indices start_index - 1 ... 0 and yielding the latent after each.

    eta = 0 is deterministic; eta > 0 draws `noise(index)` [B, C, h, w] at every index but 0. Song et al. 2021, eq. 12.
    The release noises at k and calls ddim(..., k); aligned with the noise is ddim(..., k + 1).
    Raises ValueError for a start_index outside 1 ... len(schedule), or eta > 0 without `noise`.
    """
    schedule.check_index(start_index - 1, what="last index to denoise from (start_index - 1)")
    if eta and noise is None:
        raise ValueError(f"ddim: eta {eta} draws noise at every step; pass noise=callable(index) -> array, or eta=0")
    return _ddim(predictor, as_var(x), schedule, start_index, eta, noise)


def _ddim(predictor, x, schedule, start_index, eta, noise):
    for index in range(start_index - 1, -1, -1):
        now, then = schedule.alpha_bar[index], schedule.alpha_bar_previous[index]
        sigma = eta * np.sqrt((1 - then) / (1 - now)) * np.sqrt(1 - now / then)
        of_x = np.sqrt(then / now)
        of_eps = np.sqrt(1 - then - sigma ** 2) - np.sqrt(then * (1 - now) / now)
        with jt.no_grad():
            eps = predictor(x, jt.array(np.full(x.shape[0], schedule.timesteps[index], np.int32)))
            x = _scalars(of_x) * x + _scalars(of_eps) * eps
            if sigma and index:
                x = x + _scalars(sigma) * jt.array(noise(index))
            x.sync()
        yield x


def _scalars(values):
    """Per-step numbers as a Var, since Jittor compiles a Python scalar of 0, 1 or 2 into the kernel."""
    values = np.asarray(values, np.float32)
    return jt.array(values.reshape(1) if values.ndim == 0 else values)


def _stacked(ours, null):
    return jt.concat([ours, null.expand(ours.shape)], dim=0)
