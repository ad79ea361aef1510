"""Samplers of the latent-diffusion branch: forward noising, the guided predictor, and the ways back
as generators.

They know a callable predictor(x, t) -> eps and a `Schedule`, nothing of networks, files or devices.
Integer t grows towards noise; an index counts the schedule's (respaced) steps. All samplers have
one signature,

    sampler(predictor, x, schedule, start_index, eta=..., noise=None, steps=None, spacing="uniform")

and yield the latent after each step; the last one is clean. A step goes from alpha_bar to
alpha_bar_prev, the next cleaner level; alpha = sqrt(alpha_bar) and sigma = sqrt(1 - alpha_bar)
throughout, so x = alpha x0 + sigma eps. Mirrors q_sample, p_mean_variance and ddim_sample_loop of
guided_diffusion/gaussian_diffusion.py; DPM-Solver++ is that of Lu et al. 2022 (arXiv 2211.01095).
"""

from __future__ import annotations

import functools
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from jseg.ldm.modulations import variables
from jseg.ldm.presets import SAMPLER_ETA
from jseg.ldm.schedule import TIMESTEPS, Schedule, check_eta
from jseg.nn.layers import as_var
from jseg.runtime import jt

Noise = Callable[[int], np.ndarray]


def add_noise(schedule: Schedule, z, index, noise):
    """sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise (Ho et al. 2020, eq. 4).

    z, noise: [B, C, h, w]; index: one int or an int array [B]. Raises ValueError for an index
    outside the schedule.
    """
    indices = index.numpy() if isinstance(index, jt.Var) else np.asarray(index)
    schedule.check_index(indices)
    alpha_bar = np.broadcast_to(schedule.alpha_bar[indices], (z.shape[0],)).reshape(-1, 1, 1, 1)
    return _var(np.sqrt(alpha_bar)) * as_var(z) + _var(np.sqrt(1 - alpha_bar)) * as_var(noise)


def guided(
    unet,
    y,
    scale: float,
    interval: Tuple[int, int] = (0, TIMESTEPS - 1),
    low_memory: bool = False,
) -> Callable:
    """Classifier-free guidance as one predictor(x [B, 3, h, w], t [B]) -> eps [B, 3, h, w] for the
    one-hot maps y [B, classes, h, w].

    eps = eps(null) + scale (eps(y) - eps(null)), null being the all-zero map (Ho and Salimans 2022,
    eq. 6 with w = scale - 1); for scale <= 1 the plain conditional noise, as the release does.
    Equal to two plain forwards of `unet`, at most 0.58 of their multiply-adds: the modulations of
    the label maps are computed here, once, and each call runs one encoder pass.

    interval: the first and the last original timestep at which to guide (Kynkaanniemi et al. 2024);
    elsewhere only the conditional pass runs, and its modulations are held a second time.
    low_memory: the modulations of large maps are computed again in every call, to the same numbers.
    """
    low, high = interval
    always = low <= 0 and high >= TIMESTEPS - 1

    # The label maps' modulations, and for guidance those of the null map behind them.
    with jt.no_grad():
        conditional = unet.condition(y, low_memory)
        both = unet.with_null(y, conditional) if scale > 1 else conditional
        if scale > 1 and always:
            conditional = []  # frees their memory: no call needs them alone
        jt.sync(variables(both) + variables(conditional))

    def predictor(x, t):
        inside = always or _between(t, low, high)
        with jt.no_grad():
            features = unet.encode(x, t)
            if scale <= 1 or not np.any(inside):
                return unet.decode(features, conditional, variance=False)

            batch = x.shape[0]
            eps = unet.decode(features, both, variance=False)  # [2 B, 3, h, w]
            scales = scale  # of each image, 1 outside of the interval
            if not np.all(inside):
                scales = _var(np.where(inside, scale, 1.0).reshape(-1, 1, 1, 1))
            return eps[batch:] + scales * (eps[:batch] - eps[batch:])

    return predictor


class Step(NamedTuple):
    """Where a sampler calls its predictor, and the level that this step ends at."""

    index: int
    t: int  # original timestep
    alpha_bar: float
    alpha_bar_prev: float  # of the next index visited, 1 for the clean latent


def ddim(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 0.0,
    noise: Optional[Noise] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """Denoise x [B, C, h, w] from index start_index - 1 down to 0, yielding the latent after each
    step (Song et al. 2021, eq. 12).

    eta: 0 is deterministic; above 0, `noise(index)` [B, C, h, w] is drawn at every index but the
    last, and 1 is as noisy as the diffusion itself (`ancestral`). steps: of the indices, visit only
    as many, those that `Schedule.visited` names. The release noises at k and calls ddim(..., k);
    aligned with the noise is ddim(..., k + 1). Raises ValueError, before any step, for a
    start_index outside 1 ... len(schedule), steps outside 1 ... start_index, eta outside 0 ... 1,
    or eta > 0 without `noise`.
    """
    path = _path("ddim", schedule, start_index, eta, noise, steps, spacing)
    return _ddim(predictor, as_var(x), path, eta, noise)


def _ddim(predictor, x, path: List[Step], eta: float, noise: Optional[Noise]):
    for index, t, alpha_bar, alpha_bar_prev in path:
        # the spread of the noise that this step draws; 0 in the step to the clean latent
        std = eta * np.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar))
        std *= np.sqrt(1 - alpha_bar / alpha_bar_prev)  # eq. 16

        with jt.no_grad():
            eps = predictor(x, _times(x, t))
            x0 = (x - _var(np.sqrt(1 - alpha_bar)) * eps) / _var(np.sqrt(alpha_bar))  # eq. 9
            direction = _var(np.sqrt(1 - alpha_bar_prev - std**2)) * eps
            x = _var(np.sqrt(alpha_bar_prev)) * x0 + direction  # eq. 12
            if std:
                x = x + _var(std) * jt.array(noise(index))
            x.sync()
        yield x


def dpmpp_2m(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 0.0,
    noise: Optional[Noise] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """As `ddim`, of second order at the same cost (Lu et al. 2022, DPM-Solver++(2M), algorithm 2).

    x0 is extrapolated from the step before. The first step, which has none before it, and the one
    to the clean latent, whose h is infinite, are of order 1, which is DDIM's. eta > 0 adds noise
    as the diffusion's stochastic equation does; 1 is `dpmpp_2m_sde`, their SDE-DPM-Solver++(2M).
    """
    path = _path("dpmpp_2m", schedule, start_index, eta, noise, steps, spacing)
    return _dpmpp_2m(predictor, as_var(x), path, eta, noise)


def _dpmpp_2m(predictor, x, path: List[Step], eta: float, noise: Optional[Noise]):
    x0_last, h_last = None, None
    for index, t, alpha_bar, alpha_bar_prev in path:
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        alpha_prev, sigma_prev = np.sqrt(alpha_bar_prev), np.sqrt(1 - alpha_bar_prev)
        # exp(-h), where h is the step of log(alpha / sigma); 0 in the step to the clean latent
        decay = sigma_prev / sigma * alpha / alpha_prev
        h = -np.log(decay) if decay else np.inf

        with jt.no_grad():
            eps = predictor(x, _times(x, t))
            x0 = (x - _var(sigma) * eps) / _var(alpha)

            # the line through the last two x0, in the middle of the step (algorithm 2)
            d = x0
            if x0_last is not None and decay:
                r = h_last / h
                d = _var(1 + 1 / (2 * r)) * x0 - _var(1 / (2 * r)) * x0_last

            # with eta = 0: sigma_prev / sigma x - alpha_prev (exp(-h) - 1) d
            of_x = sigma_prev / sigma * decay**eta
            x = _var(of_x) * x + _var(alpha_prev * (1 - decay ** (1 + eta))) * d
            if eta and decay:
                std = sigma_prev * np.sqrt(1 - decay ** (2 * eta))
                x = x + _var(std) * jt.array(noise(index))
            jt.sync([x, x0])
        x0_last, h_last = x0, h
        yield x


# Steps drawn from the posterior q(x_prev | x, x0) (Ho et al. 2020, eq. 6), between any two indices.
ancestral = functools.partial(ddim, eta=SAMPLER_ETA["ancestral"])
dpmpp_2m_sde = functools.partial(dpmpp_2m, eta=SAMPLER_ETA["dpmpp_2m_sde"])

SAMPLERS = {
    "ddim": ddim,
    "ancestral": ancestral,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def _path(name, schedule, start_index, eta, noise, steps, spacing) -> List[Step]:
    """The steps of a sampler, its arguments checked."""
    indices = schedule.visited(start_index, steps, spacing)
    check_eta(eta, name)
    if eta and noise is None:
        raise ValueError(
            f"{name}: eta {eta} draws noise at every step; pass noise=callable(index) -> array, "
            "or eta=0"
        )
    alpha_bar = schedule.alpha_bar[indices]
    alpha_bar_prev = np.append(alpha_bar[1:], schedule.alpha_bar_prev[0])
    timesteps = schedule.timesteps[indices].tolist()
    return [Step(*step) for step in zip(indices.tolist(), timesteps, alpha_bar, alpha_bar_prev)]


def _times(x, t: int):
    return jt.array(np.full(x.shape[0], t, np.int32))


def _between(t, low: int, high: int) -> np.ndarray:
    t = t.numpy() if isinstance(t, jt.Var) else np.asarray(t)
    return (t >= low) & (t <= high)


def _var(values):
    """Numbers of a step as a float32 Var: Jittor compiles a Python scalar of 0, 1 or 2 into the
    kernel.
    """
    values = np.asarray(values, np.float32)
    return jt.array(values.reshape(1) if values.ndim == 0 else values)
