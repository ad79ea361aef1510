import numpy as np
import pytest
from support.golden_networks import golden

from jseg.ldm.schedule import Schedule, ddim_counts, respaced_steps


def test_alpha_bar_is_the_product_of_one_minus_the_linear_betas():
    beta = np.array([1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)])
    expected = np.array([np.prod(1 - beta[: i + 1]) for i in range(1000)])
    schedule = Schedule()
    np.testing.assert_allclose(schedule.alpha_bar, expected, rtol=1e-12)
    assert schedule.alpha_bar.dtype == np.float64 and len(schedule) == 1000
    np.testing.assert_allclose(schedule.beta, beta, rtol=1e-9)


@pytest.mark.parametrize("respacing", ["ddim500", "ddim50", "ddim10"])
def test_respaced_steps_are_the_releases(respacing):
    arrays, schedule = golden("diffusion.npz"), Schedule(respacing)
    assert (schedule.timesteps == arrays[respacing + "/timestep_map"]).all()
    np.testing.assert_allclose(
        schedule.alpha_bar, arrays[respacing + "/alphas_cumprod"], rtol=1e-12
    )


def test_sixty_two_strided_step_counts_exist_and_every_other_is_refused_with_the_nearest():
    counts = ddim_counts()
    assert len(counts) == 62 and {2, 36, 38, 50, 334, 500, 1000} <= set(counts)
    for count in range(1, 1001):
        if count in counts:
            assert len(respaced_steps(f"ddim{count}")) == count
        else:
            with pytest.raises(ValueError, match=f"'ddim{count}'"):
                respaced_steps(f"ddim{count}")
    with pytest.raises(ValueError, match="ddim143, ddim167"):
        respaced_steps("ddim150")


def test_sections_keep_their_own_numbers_of_steps():
    steps = respaced_steps("10,20")
    assert len(steps) == 30 and (steps < 500).sum() == 10 and steps[0] == 0 and steps[-1] == 999
    for wrong in ("501,1", "0", "ten", "ddim", "ddim-5", "10,,2"):
        with pytest.raises(ValueError):
            respaced_steps(wrong)


def test_posterior_is_the_gaussian_product():
    """q(x_{t-1} | x_t, x_0) by multiplying the two Gaussians that define it (Bayes), for a few
    steps of a respaced schedule.
    """
    schedule = Schedule("ddim50")
    of_x_0, of_x_t = schedule.posterior_mean_coefficients
    for i in (1, 7, 49):
        prior_mean = np.sqrt(schedule.alpha_bar_prev[i])
        prior_variance = 1 - schedule.alpha_bar_prev[i]
        step = np.sqrt(1 - schedule.beta[i])
        precision = 1 / prior_variance + step**2 / schedule.beta[i]
        np.testing.assert_allclose(schedule.posterior_variance[i], 1 / precision, rtol=1e-9)
        np.testing.assert_allclose(of_x_0[i], prior_mean / prior_variance / precision, rtol=1e-9)
        np.testing.assert_allclose(of_x_t[i], step / schedule.beta[i] / precision, rtol=1e-9)
    assert schedule.posterior_variance[0] == 0
    assert (
        schedule.posterior_log_variance[0]
        == schedule.posterior_log_variance[1]
        == np.log(schedule.posterior_variance[1])
    )


@pytest.mark.parametrize("index", [-1, 500, 1000, 2.5, np.array([3, 500])])
def test_an_index_outside_the_schedule_is_refused(index):
    with pytest.raises(ValueError, match="expected an integer from 0 to 499"):
        Schedule("ddim500").check_index(index)
