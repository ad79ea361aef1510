import numpy as np
import pytest
from support.gaussian import MEAN, SPREAD, exact_solution, gaussian_predictor, noise
from support.golden_networks import difference, golden, small_unet

from jseg.ldm.samplers import add_noise, ddim, guided
from jseg.ldm.schedule import Schedule
from jseg.nn.layers import one_hot
from jseg.runtime import jt


@pytest.mark.parametrize("respacing, index", [("ddim500", 300), ("ddim50", 20), ("ddim10", 6)])
def test_add_noise_is_the_releases(respacing, index):
    arrays = golden("diffusion.npz")
    ours = add_noise(Schedule(respacing), jt.array(arrays["z0"]), index, arrays["noise"])
    assert difference(ours, arrays[respacing + "/q_sample"]) < 1e-6


def test_add_noise_takes_one_index_per_image():
    schedule, z, e = Schedule("ddim50"), noise(seed=1), noise()
    ours = add_noise(schedule, jt.array(z), np.array([3, 40]), e).numpy()
    for i, index in enumerate((3, 40)):
        a = schedule.alpha_bar[index]
        np.testing.assert_allclose(ours[i], np.sqrt(a) * z[i] + np.sqrt(1 - a) * e[i], atol=1e-6)
    for index in (50, -1):
        with pytest.raises(ValueError, match="0 to 49"):
            add_noise(schedule, jt.array(z), index, e)


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_ddim_trajectory_is_the_releases(scale):
    arrays, schedule = golden("diffusion.npz"), Schedule("ddim10")
    x = add_noise(schedule, jt.array(arrays["z0"]), 6, arrays["noise"])
    predictor = guided(small_unet(), one_hot(arrays["label"][:, 0], 29), scale)
    ours = np.stack([latent.numpy() for latent in ddim(predictor, x, schedule, 6)])
    assert difference(ours, arrays[f"ddim10/s{scale}/trajectory"]) < 1e-4


def test_ddim_converges_to_the_exact_solution_with_the_first_order():
    errors, x = [], noise((1, 3, 4, 6))
    for count in (50, 100, 200):
        schedule = Schedule(f"ddim{count}")
        start = int(0.6 * count)
        *_, last = ddim(gaussian_predictor(schedule), jt.array(x), schedule, start + 1)
        end = exact_solution(x, schedule.alpha_bar[start], 1.0)
        errors.append(np.abs(last.numpy() - end).max())
    assert errors[0] < 0.15
    assert all(1.7 < errors[i] / errors[i + 1] < 2.4 for i in range(2))


def test_ddim_visits_start_index_minus_one_down_to_zero_with_original_timesteps():
    visited, schedule = [], Schedule("ddim50")

    def predictor(x, t):
        visited.append(t.numpy().tolist())
        return jt.zeros(x.shape)

    x = noise((2, 3, 4, 6))
    latents = list(ddim(predictor, jt.array(x), schedule, 4))
    assert visited == [[60, 60], [40, 40], [20, 20], [0, 0]] and len(latents) == 4
    # No noise predicted: only rescaled.
    expected = x / np.sqrt(schedule.alpha_bar[3])
    np.testing.assert_allclose(latents[-1].numpy(), expected, rtol=1e-5)


def test_ancestral_steps_have_the_mean_and_spread_of_their_recursion():
    """For Gaussian data every step is affine in x, so mean and variance follow exactly: D = (x -
    sigma eps) / alpha, then re-noised.
    """
    schedule, start = Schedule("ddim50"), 30
    alpha_bar = schedule.alpha_bar[start]
    mean, variance = np.sqrt(alpha_bar) * MEAN, alpha_bar * SPREAD**2 + 1 - alpha_bar
    generator = np.random.default_rng(3)
    x = (mean + np.sqrt(variance) * generator.standard_normal((16, 3, 32, 32))).astype(np.float32)
    for index in range(start, -1, -1):
        alpha_bar, alpha_bar_prev = schedule.alpha_bar[index], schedule.alpha_bar_prev[index]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        std = np.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) * np.sqrt(
            1 - alpha_bar / alpha_bar_prev
        )
        direction, ratio = np.sqrt(1 - alpha_bar_prev - std**2), np.sqrt(alpha_bar_prev) / alpha
        slope = sigma / (alpha_bar * SPREAD**2 + 1 - alpha_bar)  # eps = slope (x - alpha MEAN)
        gain = ratio * (1 - sigma * slope) + direction * slope
        shift = (ratio * sigma - direction) * slope * alpha * MEAN
        mean, variance = gain * mean + shift, gain**2 * variance + std**2
    draws = []

    def draw(index):
        draws.append(index)
        return generator.standard_normal(x.shape).astype(np.float32)

    predictor = gaussian_predictor(schedule)
    *_, last = ddim(predictor, jt.array(x), schedule, start + 1, eta=1.0, noise=draw)
    assert draws == list(range(start, 0, -1))  # none at index 0
    assert abs(last.numpy().mean() - mean) < 0.01
    assert abs(last.numpy().std() / np.sqrt(variance) - 1) < 0.01
    *_, plain = ddim(predictor, jt.array(x), schedule, start + 1)
    assert np.abs(plain.numpy() - last.numpy()).mean() > 0.1


def test_wrong_arguments_are_refused_before_any_step():
    schedule, x = Schedule("ddim10"), jt.zeros((1, 3, 4, 6))
    for start in (0, 11, -3):
        with pytest.raises(ValueError, match="start_index"):
            ddim(None, x, schedule, start)
    with pytest.raises(ValueError, match="pass noise"):
        ddim(None, x, schedule, 3, eta=0.5)


class CountedUNet:
    """Predicts t + 1 under a map and 1 under the null map; the batch of every call of the decoder
    is kept.
    """

    def __init__(self):
        self.encoded, self.decoded = 0, []

    def condition(self, y, low):
        return [((y, y), (y, y))]

    def with_null(self, y, conditions):
        return self.condition(jt.concat([y, jt.zeros(y.shape)], dim=0), False)

    def encode(self, x, t):
        self.encoded += 1
        return x, t

    def decode(self, features, modulations, variance):
        (x, t), maps = features, modulations[0][0][0]
        self.decoded.append(maps.shape[0])
        t = jt.concat([t] * (maps.shape[0] // x.shape[0]), dim=0).float32().reshape(-1, 1, 1, 1)
        return 1 + t * maps[:, :1] + jt.zeros((maps.shape[0],) + tuple(x.shape[1:]))


def test_outside_the_interval_only_the_conditional_pass_runs():
    unet, y = CountedUNet(), jt.ones((2, 29, 4, 6))
    predictor, x = guided(unet, y, 3.0, (200, 400)), jt.zeros((2, 3, 4, 6))
    for t, passes, expected in (
        ((199, 199), 1, (200, 200)),
        ((200, 200), 2, (601, 601)),
        ((400, 400), 2, (1201, 1201)),
        ((401, 401), 1, (402, 402)),
        ((400, 401), 2, (1201, 402)),
    ):
        eps = predictor(x, jt.array(np.array(t, np.int32))).numpy()
        assert unet.decoded.pop() == passes * 2 and eps[:, 0, 0, 0].tolist() == list(expected)
        assert np.array_equal(predictor(x, np.array(t, np.int32)).numpy(), eps)
    assert unet.encoded == 10
    whole, unguided = guided(unet, y, 3.0), guided(unet, y, 1.0, (200, 400))
    unet.decoded.clear()
    assert whole(x, np.array([0, 999])).numpy()[:, 0, 0, 0].tolist() == [1, 2998]
    assert unguided(x, np.array([300, 300])).numpy().max() == 301
    assert unet.decoded == [4, 2]


def test_the_interval_is_plain_conditional_noise_outside_and_guidance_inside():
    arrays = golden("unet_small.npz")
    y, t = one_hot(arrays["label"][:, 0], 29), arrays["t"]
    conditional, null = arrays["out"][:, :3], arrays["out_null"][:, :3]
    full = null + 3.5 * (conditional - null)
    assert t[0] != t[1]
    for interval, expected in (
        ((0, 999), full),
        ((t[0], t[0]), np.stack([full[0], conditional[1]])),
        ((t[1], t[1]), np.stack([conditional[0], full[1]])),
        ((998, 998), conditional),
    ):
        ours = guided(small_unet(), y, 3.5, interval)(arrays["x"], t).numpy()
        for mine, theirs in zip(ours, expected):
            assert difference(mine, theirs) < 1e-4


def test_arrays_serve_where_vars_do():
    arrays, schedule = golden("unet_small.npz"), Schedule("ddim50")
    y = one_hot(arrays["label"][:, 0], 29)
    by_vars = guided(small_unet(), y, 3.5)(jt.array(arrays["x"]), jt.array(arrays["t"])).numpy()
    by_arrays = guided(small_unet(), y.numpy(), 3.5)(arrays["x"], arrays["t"]).numpy()
    assert np.abs(by_vars - by_arrays).max() == 0
    index = np.array([3, 40])
    one = add_noise(schedule, arrays["x"], jt.array(index), jt.array(noise())).numpy()
    other = add_noise(schedule, jt.array(arrays["x"]), index, noise()).numpy()
    assert np.array_equal(one, other)
