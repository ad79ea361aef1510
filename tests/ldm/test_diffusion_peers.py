"""Samplers against diffusers and k-diffusion, respacing and training loss against
guided-diffusion.
"""

import numpy as np
import pytest
from support.peers import apart, peer
from support.refusals import refusal

from jseg.ldm.loss import diffusion_loss
from jseg.ldm.samplers import ancestral, ddim, dpmpp_2m, dpmpp_2m_sde
from jseg.ldm.schedule import Schedule, respaced_steps
from jseg.runtime import jt

SAMPLED = peer("samplers_peers.npz")
RESPACED = peer("respacing_guided_diffusion.npz")


def predictor(x, t):
    """The noise in x if the data are +1 and -1, each half of the time."""
    alpha_bar = Schedule().alpha_bar[int(t.numpy()[0])]
    a, variance, x = np.sqrt(alpha_bar), 1 - alpha_bar, x.numpy().astype(np.float64)
    return jt.array(((x - a * np.tanh(a * x / variance)) / np.sqrt(variance)).astype(np.float32))


@pytest.mark.parametrize(
    "name, sampler, eta, times",
    [
        ("ddim_eta0", ddim, 0, "t_ddim50"),
        ("ddim_eta0.5", ddim, 0.5, "t_ddim50"),
        ("ddim_eta1", ddim, 1, "t_ddim50"),
        ("ancestral", ancestral, 1, "t_quadratic"),
        ("dpmpp_2m", dpmpp_2m, 0, "t_quadratic"),
        ("dpmpp_2m_eta0.5", dpmpp_2m, 0.5, "t_quadratic"),
        ("dpmpp_2m_sde", dpmpp_2m_sde, 1, "t_quadratic"),
    ],
)
def test_every_state_of_a_sampler_is_the_peer_s(name, sampler, eta, times):
    strided = times == "t_ddim50"
    schedule, start = (Schedule("ddim50"), 12) if strided else (Schedule(), 640)
    options = {} if strided else {"steps": 12, "spacing": "quadratic"}
    visited = schedule.visited(start, **options)
    assert schedule.timesteps[visited].tolist() == SAMPLED[times].tolist()

    draws = dict(zip(visited.tolist(), SAMPLED["noise"]))
    states = sampler(
        predictor, jt.array(SAMPLED["x"]), schedule, start, eta=eta, noise=draws.get, **options
    )
    found = np.stack([state.numpy() for state in states])
    assert apart(found, SAMPLED[name]) < 2e-6


@pytest.mark.parametrize("number", range(len(RESPACED["texts"])))
def test_the_steps_that_are_kept_are_guided_diffusion_s(number):
    text = str(RESPACED["texts"][number])
    assert respaced_steps(text).tolist() == RESPACED[f"steps_{number}"].tolist()


def test_loss_and_gradient_are_guided_diffusion_s():
    arrays = peer("loss_guided_diffusion.npz")
    output = jt.array(arrays["output"])
    found = diffusion_loss(
        lambda x_t, t, y: output, Schedule(), arrays["z"], arrays["t"], None, arrays["noise"]
    )
    for name in ("loss", "mse", "vb"):
        assert apart(found[name], arrays[name]) < 1e-5, name
    largest = np.abs(arrays["gradient"]).max()
    gradient = jt.grad(found["loss"].mean(), output).numpy()
    assert np.abs(gradient - arrays["gradient"]).max() < 1e-4 * largest


@pytest.mark.parametrize("sampler", [ddim, ancestral, dpmpp_2m, dpmpp_2m_sde])
@pytest.mark.parametrize("eta", [-0.1, 1.001, float("nan"), float("inf"), "1", None])
def test_an_eta_outside_0_to_1_is_refused_before_the_first_step(sampler, eta):
    start = None, jt.zeros((1, 3, 4, 4)), Schedule("ddim10"), 3
    said = rf"eta is {eta}; expected 0 .* to 1"
    refusal(sampler, *start, eta=eta, noise=lambda index: None, match=said)
