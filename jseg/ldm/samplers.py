"""Samplers of the latent-diffusion branch: forward noising, the guided predictor, and the ways back
as generators.

They know a callable predictor(x, t) -> noise and a `Schedule`, nothing of networks, files or
devices. Integer t grows towards noise; an index counts the schedule's (respaced) steps. Mirrors
q_sample, p_mean_variance and ddim_sample_loop of guided_diffusion/gaussian_diffusion.py;
DPM-Solver++ after Lu et al. 2022 (arXiv 2211.01095). Every sampler has ddim's signature:

    sampler(predictor, x, schedule, start_index, eta=..., noise=None, steps=None, spacing="uniform")

and yields the latent after each step, the last of them clean. In the comments s is where a step
starts, t where it ends, alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar), h the step of
log(alpha / sigma), D = (x - sigma eps) / alpha.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional, Tuple

import numpy as np

from jseg.ldm.schedule import TIMESTEPS, Schedule, check_eta
from jseg.nn.layers import as_var
from jseg.runtime import jt


def add_noise(schedule: Schedule, z, index, noise):
    """sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise: z and noise [B, C, h, w]; `index` one int or
    an int array [B].

    Raises ValueError for an index outside the schedule. Ho et al. 2020, eq. 4.
    """
    index = index.numpy() if isinstance(index, jt.Var) else index
    schedule.check_index(index)
    alpha_bar = np.broadcast_to(schedule.alpha_bar[np.asarray(index)], (z.shape[0],)).reshape(
        -1, 1, 1, 1
    )
    return _scalars(np.sqrt(alpha_bar)) * as_var(z) + _scalars(np.sqrt(1 - alpha_bar)) * as_var(
        noise
    )


def guided(unet, y, scale: float, interval: Tuple[int, int] = (0, TIMESTEPS - 1)) -> Callable:
    """Classifier-free guidance as one predictor(x [B,3,h,w], t [B]) -> noise [B,3,h,w] for the
    one-hot maps y [B,classes,h,w].

    eps(null) + scale (eps(y) - eps(null)), null being the all-zero map; for scale <= 1 the plain
    conditional noise, as the release does. Equal to two plain forwards of `unet`, at most 0.58 of
    their multiply-adds: the label maps' modulations are computed here, once, and each call runs one
    encoder pass and one batched decoder pass.

    `interval` (low, high), both included, are the original timesteps at which there is guidance
    (Kynkaanniemi et al. 2024); elsewhere the noise is the conditional one and nothing unconditional
    is computed. With an interval the modulations of the maps are kept twice: alone and beside the
    null map's.
    """
    low, high = interval
    everywhere = low <= 0 and high >= TIMESTEPS - 1
    with jt.no_grad():
        alone = unet.condition(y)
        both = alone
        if scale > 1:
            null = unet.condition(jt.zeros((1,) + tuple(y.shape[1:])))
            both = [
                tuple(
                    tuple(_stacked(a, b) for a, b in zip(ours, theirs))
                    for ours, theirs in zip(pair, null_pair)
                )
                for pair, null_pair in zip(alone, null)
            ]
            alone = None if everywhere else alone
        jt.sync(
            [
                v
                for modulations in (both, alone or [])
                for pair in modulations
                for norm in pair
                for v in norm
            ]
        )

    def predictor(x, t):
        inside = everywhere or _between(t, low, high)
        with jt.no_grad():
            features = unet.encode(x, t)
            if scale <= 1 or not np.any(inside):
                return unet.decode(features, both if scale <= 1 else alone, variance=False)
            eps = unet.decode(features, both, variance=False)
            batch = x.shape[0]
            by = (
                scale
                if np.all(inside)
                else _scalars(np.where(inside, scale, 1.0).reshape(-1, 1, 1, 1))
            )
            return eps[batch:] + by * (eps[:batch] - eps[batch:])

    return predictor


def ddim(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 0.0,
    noise: Optional[Callable[[int], np.ndarray]] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """Denoise x [B, C, h, w], visiting indices start_index - 1 ... 0, or `steps` of them, and
    yielding the latent after each.

    eta = 0 is deterministic; eta > 0 draws `noise(index)` [B, C, h, w] at every index but the last.
    Song et al. 2021, eq. 12. The release noises at k and calls ddim(..., k); aligned with the noise
    is ddim(..., k + 1). `Schedule.visited` says which indices `steps` are. Raises ValueError for a
    start_index outside 1 ... len(schedule), steps outside 1 ... start_index, eta outside 0 ... 1,
    or eta > 0 without `noise`.
    """
    return _ddim(predictor, *_checked("ddim", x, schedule, start_index, eta, noise, steps, spacing))


def ancestral(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 1.0,
    noise: Optional[Callable[[int], np.ndarray]] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """As `ddim` with eta = 1: every step draws from the posterior q(x_t | x_s, D) (Ho et al. 2020,
    eq. 6), between any two indices.
    """
    return _ddim(
        predictor, *_checked("ancestral", x, schedule, start_index, eta, noise, steps, spacing)
    )


def dpmpp_2m(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 0.0,
    noise: Optional[Callable[[int], np.ndarray]] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """As `ddim`, of second order at the same cost: D is extrapolated from the step before. Lu et
    al. 2022, algorithm 2.

    The first step and the one to the clean latent are of order 1 (that is DDIM's): before the one
    there is no D, and in the other h is infinite. eta > 0 adds noise as in the SDE; eta = 1 is
    `dpmpp_2m_sde`.
    """
    return _dpmpp_2m(
        predictor, *_checked("dpmpp_2m", x, schedule, start_index, eta, noise, steps, spacing)
    )


def dpmpp_2m_sde(
    predictor: Callable,
    x,
    schedule: Schedule,
    start_index: int,
    eta: float = 1.0,
    noise: Optional[Callable[[int], np.ndarray]] = None,
    steps: Optional[int] = None,
    spacing: str = "uniform",
) -> Iterator:
    """As `dpmpp_2m` with eta = 1: the same for the diffusion's stochastic equation, drawing
    `noise(index)` in every step but the last.
    """
    return _dpmpp_2m(
        predictor, *_checked("dpmpp_2m_sde", x, schedule, start_index, eta, noise, steps, spacing)
    )


def _checked(name, x, schedule, start_index, eta, noise, steps, spacing):
    """What the generators need, checked before the first step: x, the steps, eta, noise."""
    indices = schedule.visited(start_index, steps, spacing)
    check_eta(eta, name)
    if eta and noise is None:
        raise ValueError(
            f"{name}: eta {eta} draws noise at every step; pass noise=callable(index) -> array, "
            "or eta=0"
        )
    alpha_bar = schedule.alpha_bar[indices]
    then = np.append(alpha_bar[1:], schedule.alpha_bar_previous[0])
    return (
        as_var(x),
        list(zip(indices.tolist(), schedule.timesteps[indices].tolist(), alpha_bar, then)),
        eta,
        noise,
    )


def _ddim(predictor, x, path, eta, noise):
    for index, timestep, now, then in path:
        sigma = eta * np.sqrt((1 - then) / (1 - now)) * np.sqrt(1 - now / then)
        of_x = np.sqrt(then / now)
        of_eps = np.sqrt(1 - then - sigma**2) - np.sqrt(then * (1 - now) / now)
        with jt.no_grad():
            eps = predictor(x, _times(x, timestep))
            x = _scalars(of_x) * x + _scalars(of_eps) * eps
            if sigma:
                x = x + _scalars(sigma) * jt.array(noise(index))
            x.sync()
        yield x


def _dpmpp_2m(predictor, x, path, eta, noise):
    before, h_before = None, None
    for index, timestep, now, then in path:
        ratio = np.sqrt(
            now * (1 - then) / (then * (1 - now))
        )  # exp(-h); 0 in the step to the clean latent
        of_x = np.sqrt((1 - then) / (1 - now)) * ratio**eta
        of_data = np.sqrt(then) * (1 - ratio ** (1 + eta))
        with jt.no_grad():
            eps = predictor(x, _times(x, timestep))
            data = _scalars(1 / np.sqrt(now)) * x - _scalars(np.sqrt((1 - now) / now)) * eps  # D
            if before is None or ratio == 0:
                x = _scalars(of_x) * x + _scalars(of_data) * data
            else:
                slope = -np.log(ratio) / (2 * h_before)  # 1 / (2 r)
                x = (
                    _scalars(of_x) * x
                    + _scalars(of_data * (1 + slope)) * data
                    - _scalars(of_data * slope) * before
                )
            if eta and ratio:
                x = x + _scalars(np.sqrt((1 - then) * (1 - ratio ** (2 * eta)))) * jt.array(
                    noise(index)
                )
            jt.sync([x, data])
        before, h_before = data, -np.log(ratio) if ratio else None
        yield x


def _times(x, timestep: int):
    return jt.array(np.full(x.shape[0], timestep, np.int32))


def _between(t, low: int, high: int) -> np.ndarray:
    t = t.numpy() if isinstance(t, jt.Var) else np.asarray(t)
    return (t >= low) & (t <= high)


def _scalars(values):
    """Per-step numbers as a Var, since Jittor compiles a Python scalar of 0, 1 or 2 into the
    kernel.
    """
    values = np.asarray(values, np.float32)
    return jt.array(values.reshape(1) if values.ndim == 0 else values)


def _stacked(ours, null):
    return jt.concat([ours, null.expand(ours.shape)], dim=0)
