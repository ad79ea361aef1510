"""DPM-Solver++(2M), its SDE form and ancestral steps against closed forms: order, end points, many
steps, many samples.
"""

import numpy as np
import pytest
from support.gaussian import MEAN, SPREAD, exact_solution, gaussian_predictor, noise
from support.refusals import refusal

from jseg.ldm.samplers import ancestral, ddim, dpmpp_2m, dpmpp_2m_sde
from jseg.ldm.schedule import SPACINGS, Schedule
from jseg.runtime import jt


class Ladder:
    """`count` exactly equal strides of lambda from index 600 to index 20 of the full schedule, for
    samplers that take any schedule.
    """

    def __init__(self, count):
        ends = Schedule().alpha_bar[[20, 600]]
        heights = np.linspace(*np.log(ends / (1 - ends)) / 2, count + 1)
        alpha_bar = 1 / (1 + np.exp(-2 * heights))
        self.alpha_bar, self.alpha_bar_prev = alpha_bar[1:], alpha_bar[:-1]
        self.timesteps = np.arange(count)

    def visited(self, start_index, steps, spacing):
        return np.arange(start_index)[::-1]


def exact_noise(x, a):
    return np.sqrt(1 - a) * (x - np.sqrt(a) * MEAN) / (a * SPREAD**2 + 1 - a)


def mixture_noise(x, a):
    """Of data that are N(-1, .3^2) or N(1, .3^2), each half of the time."""
    variance = a * 0.09 + 1 - a
    weight = 1 / (1 + np.exp(-2 * np.sqrt(a) * x / variance))  # of the component at 1
    return np.sqrt(1 - a) * (x - np.sqrt(a) * (2 * weight - 1)) / variance


def last_of(sampler, noise_of, x, schedule, *args, **options):
    """The sampler's last latent under the noise prediction noise_of(x, alpha_bar)."""
    levels = dict(zip(schedule.timesteps.tolist(), schedule.alpha_bar))

    def predictor(x, t):
        eps = noise_of(x.numpy().astype(np.float64), levels[int(t.numpy()[0])])
        return jt.array(eps.astype(np.float32))

    *_, last = sampler(predictor, jt.array(x), schedule, len(schedule.timesteps), *args, **options)
    return last.numpy()


COUNTS = (10, 20, 40, 80)


@pytest.mark.parametrize(
    "sampler, errors",
    [(ddim, (0.108, 0.055, 0.028, 0.014)), (dpmpp_2m, (0.0077, 0.0024, 0.00064, 0.00017))],
)
def test_the_order_on_gaussian_data(sampler, errors):
    """The error falls with the first power of the step for DDIM, the second for 2M; measured for
    another implementation at 2.23.
    """
    x, ours = np.full((1, 1, 2, 2), 2.23, np.float32), []
    for count in COUNTS:
        schedule = Ladder(count)
        end = exact_solution(x, schedule.alpha_bar[-1], schedule.alpha_bar_prev[0])
        ours.append(np.abs(last_of(sampler, exact_noise, x, schedule) - end).max())
    np.testing.assert_allclose(ours, errors, rtol=0.08)


def test_on_a_mixture_2m_is_nearer_to_many_ddim_steps_than_ddim_of_as_many_steps():
    x, many = np.linspace(-2, 2, 64).reshape(1, 1, 8, 8), Ladder(10_000)
    converged = x.copy()
    for alpha_bar, alpha_bar_prev in zip(many.alpha_bar[::-1], many.alpha_bar_prev[::-1]):
        eps = mixture_noise(converged, alpha_bar)
        x0 = (converged - np.sqrt(1 - alpha_bar) * eps) / np.sqrt(alpha_bar)
        converged = np.sqrt(alpha_bar_prev) * x0 + np.sqrt(1 - alpha_bar_prev) * eps

    def error(sampler, count):
        last = last_of(sampler, mixture_noise, x.astype(np.float32), Ladder(count))
        return np.abs(last - converged).max()

    of_ddim, of_2m = ([error(sampler, n) for n in COUNTS] for sampler in (ddim, dpmpp_2m))
    assert all(ours < 0.5 * theirs for ours, theirs in zip(of_2m, of_ddim))
    assert of_2m[2] / of_2m[3] > 3 and 1.7 < of_ddim[2] / of_ddim[3] < 2.4


def recorded(sampler, schedule, start, **options):
    """(x, alpha_bar, eps) at every call and the latents after, for a prediction without
    structure.
    """
    calls, generator, levels = [], np.random.default_rng(5), Schedule().alpha_bar

    def predictor(x, t):
        eps = generator.standard_normal(x.shape)
        eps = eps.astype(np.float32).astype(np.float64)
        calls.append((x.numpy().astype(np.float64), levels[int(t.numpy()[0])], eps))
        return jt.array(eps.astype(np.float32))

    latents = sampler(predictor, jt.array(noise((2, 3, 4, 6))), schedule, start, **options)
    return calls, [latent.numpy() for latent in latents]


def data_of(x, a, eps):
    return (x - np.sqrt(1 - a) * eps) / np.sqrt(a)


@pytest.mark.parametrize("sampler", [dpmpp_2m, dpmpp_2m_sde])
def test_every_step_is_the_formula(sampler):
    """The table of the paper's algorithm 2 and its SDE form, written once more with lambda; both
    ends are steps of order 1.
    """
    z, eta = noise((2, 3, 4, 6), seed=9), int(sampler is dpmpp_2m_sde)
    calls, latents = recorded(sampler, Schedule("ddim50"), 31, steps=6, noise=lambda index: z)
    ends = [a for _, a, _ in calls[1:]] + [1.0]
    half_log_snr = [np.log(a / (1 - a)) / 2 for _, a, _ in calls]
    for i, ((x, a, eps), end) in enumerate(zip(calls, ends)):
        data = data_of(x, a, eps)
        if i == len(calls) - 1:
            expected = data
        else:
            h = half_log_snr[i + 1] - half_log_snr[i]
            if i:
                r = (half_log_snr[i] - half_log_snr[i - 1]) / h
                data = (1 + 1 / (2 * r)) * data - data_of(*calls[i - 1]) / (2 * r)
            ratio = np.sqrt((1 - end) / (1 - a))
            if eta:
                drift = ratio * np.exp(-h) * x + np.sqrt(end) * (1 - np.exp(-2 * h)) * data
                expected = drift + np.sqrt(1 - end) * np.sqrt(1 - np.exp(-2 * h)) * z
            else:
                expected = ratio * x - np.sqrt(end) * (np.exp(-h) - 1) * data
        np.testing.assert_allclose(latents[i], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("steps", [4, 1])
def test_the_first_step_and_a_single_one_are_ddims(steps):
    one, other = (
        recorded(sampler, Schedule("ddim50"), 31, steps=steps)[1] for sampler in (ddim, dpmpp_2m)
    )
    assert len(one) == len(other) == steps
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)


def test_ancestral_steps_are_the_posterior_of_the_diffusion():
    """Between neighbours, mean and variance of q(x_t | x_s, D), Ho et al. eqs. 6 and 7; nothing is
    drawn for the clean latent.
    """
    schedule, draws = Schedule("ddim50"), []
    z = noise((2, 3, 4, 6), seed=9)
    calls, latents = recorded(ancestral, schedule, 4, noise=lambda index: draws.append(index) or z)
    of_data, of_x = schedule.posterior_mean_coefficients
    for index, (x, a, eps), latent in zip((3, 2, 1, 0), calls, latents):
        expected = (
            of_data[index] * data_of(x, a, eps)
            + of_x[index] * x
            + np.sqrt(schedule.posterior_variance[index]) * z
        )
        np.testing.assert_allclose(latent, expected, rtol=1e-4, atol=1e-5)
    assert draws == [3, 2, 1]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_from_the_noised_start_to_the_clean_end_2m_beats_ddim(spacing):
    schedule, x = Schedule(), noise((1, 3, 4, 6))
    end = exact_solution(x, schedule.alpha_bar[600], 1.0)
    error = {}
    for sampler, steps in ((ddim, 40), (dpmpp_2m, 40), (ddim, 600)):
        *_, last = sampler(
            gaussian_predictor(schedule), jt.array(x), schedule, 601, steps=steps, spacing=spacing
        )
        error[sampler, steps] = np.abs(last.numpy() - end).max()
    assert error[dpmpp_2m, 40] < 0.1 * error[ddim, 40]
    assert error[dpmpp_2m, 40] < error[ddim, 600] < 0.1 * error[ddim, 40] * 1.5


@pytest.mark.parametrize(
    "sampler, options", [(dpmpp_2m_sde, {}), (dpmpp_2m, {"eta": 0.5}), (ancestral, {})]
)
def test_many_samples_have_the_mean_and_spread_of_the_data(sampler, options):
    schedule, generator = Schedule("ddim500"), np.random.default_rng(3)
    alpha_bar = schedule.alpha_bar[300]
    spread = np.sqrt(alpha_bar * SPREAD**2 + 1 - alpha_bar)
    x = np.sqrt(alpha_bar) * MEAN + spread * generator.standard_normal((8, 3, 32, 32))
    x = x.astype(np.float32)
    draws = []

    def draw(index):
        draws.append(index)
        return generator.standard_normal(x.shape).astype(np.float32)

    # Ancestral steps are of order 1 and lose a little.
    steps, tolerance = (301, 0.03) if sampler is ancestral else (30, 0.02)
    options = {"noise": draw, "steps": steps, "spacing": "lambda", **options}
    *_, last = sampler(gaussian_predictor(schedule), jt.array(x), schedule, 301, **options)
    assert draws == schedule.visited(301, steps, "lambda")[:-1].tolist()  # none in the last step
    assert abs(last.numpy().mean() - MEAN) < 0.01
    assert abs(last.numpy().std() / SPREAD - 1) < tolerance
    assert np.corrcoef(x.ravel(), last.numpy().ravel())[0, 1] < 0.9  # 1 where nothing is drawn


# -- which indices ---------------------------------------------------------------------------------


def test_without_a_number_of_steps_every_index_is_visited():
    for spacing in SPACINGS:
        assert Schedule("ddim50").visited(31, None, spacing).tolist() == list(range(30, -1, -1))


def test_uniform_steps_are_equal_strides_and_the_clean_image_is_one_stride_below_the_last():
    schedule = Schedule()
    assert schedule.visited(600, 10).tolist() == [599, 539, 479, 419, 359, 299, 239, 179, 119, 59]
    assert schedule.visited(600, 1).tolist() == [599] and schedule.visited(1).tolist() == [0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "respacing, start", [("", 601), ("ddim500", 301), ("ddim50", 21), ("ddim10", 3)]
)
def test_exactly_so_many_indices_descending_from_the_start(respacing, start, spacing):
    schedule = Schedule(respacing)
    for steps in {1, 2, start // 3 + 1, start - 1, start}:
        indices = schedule.visited(start, steps, spacing)
        assert len(indices) == steps and indices[0] == start - 1 and indices[-1] >= 0
        assert (np.diff(indices) < 0).all()
        assert spacing in ("uniform", "quadratic") or steps == 1 or indices[-1] == 0


def test_quadratic_steps_are_equal_strides_of_the_root():
    assert Schedule().visited(600, 5, "quadratic").tolist() == [
        599,
        383,
        215,
        95,
        23,
    ]  # 600 times 1, .64, .36, .16, .04, less 1
    assert Schedule("ddim50").visited(10, 9, "quadratic").tolist() == [9, 7, 6, 5, 4, 3, 2, 1, 0]


def test_lambda_and_rho_are_equal_strides_of_what_they_say():
    schedule = Schedule()
    noise_to_signal = np.sqrt(1 / schedule.alpha_bar - 1)
    for spacing, scale in (
        ("lambda", -np.log(noise_to_signal)),
        ("rho", noise_to_signal ** (1 / 7)),
    ):
        strides = np.diff(scale[schedule.visited(601, 6, spacing)])
        assert np.abs(strides / strides.mean() - 1).max() < 0.1


@pytest.mark.parametrize(
    "steps, spacing, message",
    [
        (0, "uniform", "0 steps: expected 1 to 31, the indices of ddim50 from 30 down"),
        (32, "rho", "32 steps: expected 1 to 31"),
        (-1, "lambda", "-1 steps"),
        (3, "karras", "spacing 'karras': expected one of uniform, quadratic, lambda, rho"),
    ],
)
def test_steps_that_do_not_exist_are_refused(steps, spacing, message):
    start = None, jt.zeros((1, 3, 4, 6)), Schedule("ddim50"), 31
    assert message in refusal(ddim, *start, steps=steps, spacing=spacing)


@pytest.mark.parametrize("sampler", [ancestral, dpmpp_2m, dpmpp_2m_sde])
def test_wrong_arguments_are_refused_before_any_step(sampler):
    x = jt.zeros((1, 3, 4, 6))
    for start in (0, 11, -3):
        with pytest.raises(ValueError, match="start_index"):
            sampler(None, x, Schedule("ddim10"), start, noise=noise)
    with pytest.raises(ValueError, match="eta .* pass noise"):
        sampler(None, x, Schedule("ddim10"), 3, eta=0.5)
