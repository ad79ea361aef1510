import numpy as np
import pytest
from scipy.stats import norm
from support.golden_networks import golden, small_unet

from jseg.ldm.loss import diffusion_loss, discretized_log_likelihood, gaussian_kl, variational_bits
from jseg.ldm.samplers import add_noise
from jseg.ldm.schedule import Schedule
from jseg.nn.layers import one_hot
from jseg.runtime import jt


def as_vars(*arrays):
    return [jt.array(np.asarray(a, np.float32)) for a in arrays]


def test_loss_is_the_releases():
    arrays = golden("training.npz")
    y = one_hot(arrays["label"][:, 0], 29)
    ours = diffusion_loss(
        small_unet(), Schedule(), jt.array(arrays["z0"]), arrays["t"], y, arrays["noise"]
    )
    assert set(ours) == {"mse", "vb", "loss"}
    for name, value in ours.items():
        np.testing.assert_allclose(value.numpy(), arrays[f"loss/{name}"], rtol=1e-4)


def test_kl_of_two_gaussians_is_its_integral():
    means, log_variances = [0.3, -0.4], [-1.0, 0.2]
    grid = np.linspace(-12, 12, 200001)
    p, q = (norm(mean, np.exp(0.5 * v)) for mean, v in zip(means, log_variances))
    expected = (p.pdf(grid) * (p.logpdf(grid) - q.logpdf(grid))).sum() * (grid[1] - grid[0])
    ours = gaussian_kl(
        *as_vars([means[0]], [log_variances[0]], [means[1]], [log_variances[1]])
    ).item()
    assert ours == pytest.approx(expected, rel=1e-5)


def test_likelihood_is_the_gaussian_mass_of_a_bin():
    x, mean, scale = np.array([-1.0, -0.5, 0.1, 1.0]), np.array([-0.9, -0.45, 0.1, 0.9]), 0.05
    mass = norm.cdf(x + 1 / 255, mean, scale) - norm.cdf(x - 1 / 255, mean, scale)
    mass[0], mass[3] = norm.cdf(-1 + 1 / 255, -0.9, scale), 1 - norm.cdf(1 - 1 / 255, 0.9, scale)
    ours = discretized_log_likelihood(*as_vars(x, mean, np.full(4, np.log(scale)))).numpy()
    # The tanh approximation is good to a few per cent there.
    np.testing.assert_allclose(ours, np.log(mass), atol=0.03)
    far = discretized_log_likelihood(*as_vars([0.0], [5.0], [np.log(scale)])).item()
    assert far == pytest.approx(np.log(1e-12), rel=1e-5)


def test_the_true_noise_and_the_posterior_variance_cost_nothing():
    schedule, index = Schedule(), np.array([1, 500])
    rng = np.random.default_rng(0)
    z, noise = as_vars(rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((2, 3, 8, 8)))
    x_t = add_noise(schedule, z, index, noise.numpy())
    assert (
        np.abs(
            variational_bits(schedule, z, x_t, index, noise, jt.full(z.shape, -1.0)).numpy()
        ).max()
        < 1e-4
    )
    wrong = variational_bits(schedule, z, x_t, index, noise + 0.5, jt.full(z.shape, -1.0)).numpy()
    assert (wrong > 1e-4).all()


def test_the_variational_term_reaches_only_the_variance_half():
    schedule, index = Schedule(), np.array([0, 400])
    rng = np.random.default_rng(1)
    z = jt.array(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    output = jt.array(rng.standard_normal((2, 6, 4, 4)).astype(np.float32))
    losses = diffusion_loss(
        lambda x, t, y: output,
        schedule,
        z,
        index,
        None,
        rng.standard_normal((2, 3, 4, 4)).astype(np.float32),
    )
    of_vb = jt.grad(losses["vb"].sum(), output).numpy()
    of_mse = jt.grad(losses["mse"].sum(), output).numpy()
    assert np.abs(of_vb[:, :3]).max() == 0 and np.abs(of_vb[:, 3:]).max() > 0
    assert np.abs(of_mse[:, :3]).max() > 0 and np.abs(of_mse[:, 3:]).max() == 0
