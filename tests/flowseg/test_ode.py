"""Steps of the flow: the official samplers' numbers, closed-form fields, orders of convergence."""

import numpy as np
import pytest

from jseg.flowseg.encoding import class_codes, decode
from jseg.flowseg.ode import METHODS, adams2, euler, heun, times
from jseg.runtime import jt

GOLDEN = {
    "euler": [0.6, 0.684, 0.75848, 0.819766, 0.866651],
    "adams2": [0.661538, 0.780599, 0.827428, 0.911331, 1.012570],
    "heun": [0.749, 0.794420, 0.833878, 0.866325, 0.895141],
}


def toy(scale, low=-1.0, high=2.0):
    """v = (0.1 y - x)(1 + t), guided from y = -1 towards y = 2 by `scale` where low < t < high."""

    def velocity(x, t):
        y = -1.0 + scale * 3.0 if low < float(t.numpy()[0]) < high else 2.0
        return (0.1 * y - x) * (1.0 + t.reshape(-1, 1))

    return velocity


def run(states):
    return [float(x.numpy()[0, 0]) for x in states]


def start(value=0.7):
    return np.full((1, 1), value, np.float32)


# -- the official samplers' sequences --------------------------------------------------------------


def test_euler_with_guidance_in_an_open_interval():
    states = euler(toy(3.5, 0.1, 1.0), start(), 5)
    np.testing.assert_allclose(run(states), GOLDEN["euler"], atol=2e-6)


def test_adams_on_shifted_times():
    states = adams2(toy(4.0, 0.0, 1.0), start(), times(5, shift=3.0))
    np.testing.assert_allclose(run(states), GOLDEN["adams2"], atol=2e-6)


def test_heun_as_published_reuses_the_velocity_and_ours_does_not():
    # official: the corrector's velocity is the next predictor's; here: an option, since evaluating
    # anew is Heun's rule.
    states = heun(toy(3.5), start(), 5, reuse=True)
    np.testing.assert_allclose(run(states), GOLDEN["heun"], atol=2e-6)

    x, expected = 0.7, []
    for t in (0.0, 0.2, 0.4, 0.6, 0.8):
        first = (0.95 - x) * (1 + t)
        x += 0.1 * (first + (0.95 - (x + 0.2 * first)) * (1.2 + t)) if t < 0.8 else 0.2 * first
        expected.append(x)
    ours = run(heun(toy(3.5), start(), 5))
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert abs(ours[1] - GOLDEN["heun"][1]) > 5e-5


def test_adams_coefficients_on_shifted_times():
    """Read off a field that is 1 at one evaluation and 0 at all others."""
    grid = times(5, shift=3.0)
    np.testing.assert_allclose(grid, [0, 0.076923, 0.181818, 0.333333, 0.571429, 1], atol=1e-6)
    rows = [(-0.681818, 1.681818), (-0.722222, 1.722222), (-0.785714, 1.785714), (-0.9, 1.9)]
    for place, (previous, current) in enumerate(rows, 1):
        for time, coefficient in ((grid[place - 1], previous), (grid[place], current)):

            def pulse(x, t, time=time):
                return jt.ones(x.shape) * float(abs(t.numpy()[0] - time) < 1e-6)

            x = run(adams2(pulse, start(0), grid))
            slope = (x[place] - x[place - 1]) / (grid[place + 1] - grid[place])
            assert slope == pytest.approx(coefficient, abs=1e-5)
    np.testing.assert_allclose(
        times(25, shift=3.0)[[1, 2, 3, -3, -2, -1]],
        [0.013699, 0.028169, 0.043478, 0.793103, 0.888889, 1],
        atol=1e-6,
    )


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_euler_on_the_exact_field_lands_on_the_codes(steps):
    """v = (mu - x) / (1 - t) moves along a line of constant speed, which Euler follows exactly."""
    codes = class_codes(11)
    labels = np.arange(11).repeat(2)[:20].reshape(2, 2, 5)
    mu = jt.array(codes[labels].transpose(0, 3, 1, 2).astype(np.float32))

    def velocity(x, t):
        return (mu - x) / (1 - t.reshape(-1, 1, 1, 1))

    noise = np.random.default_rng(0).standard_normal((2, 3, 2, 5)).astype(np.float32)
    *_, x = euler(velocity, noise, steps)
    np.testing.assert_allclose(x.numpy(), mu.numpy(), atol=2e-6)
    assert (decode(x.numpy(), codes) == labels).all()


@pytest.mark.parametrize("name, order", [("euler", 1), ("heun", 2), ("reuse", 2), ("adams2", 2)])
def test_the_orders_of_convergence(name, order):
    """dx/dt = (0.95 - x)(1 + t) has x = 0.95 - 0.25 exp(-(t + t^2 / 2)) from 0.7."""
    exact = 0.95 - 0.25 * np.exp(-1.5)
    method = (lambda *given: heun(*given, reuse=True)) if name == "reuse" else METHODS[name]
    errors = [abs(run(method(toy(3.5), start(), steps))[-1] - exact) for steps in (4, 8, 16)]
    for coarse, fine in zip(errors, errors[1:]):
        assert 0.75 * 2**order < coarse / fine < 1.5 * 2**order, errors


def test_shifted_and_even_times_lead_to_the_same_end():
    ends = [run(adams2(toy(3.5), start(), times(64, shift)))[-1] for shift in (0.5, 1.0, 3.0)]
    np.testing.assert_allclose(ends, 0.95 - 0.25 * np.exp(-1.5), atol=3e-4)


# -- what is called, and when ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, expected",
    [
        ("euler", [0, 0.25, 0.5, 0.75]),
        ("adams2", [0, 0.25, 0.5, 0.75]),
        ("heun", [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]),
        ("reuse", [0, 0.25, 0.5, 0.75]),
    ],
)
def test_the_velocity_sees_one_time_per_image(name, expected):
    seen = []

    def velocity(x, t):
        seen.append(t.numpy().tolist())
        return x * 0.5

    method = (lambda *given: heun(*given, reuse=True)) if name == "reuse" else METHODS[name]
    states = list(method(velocity, np.ones((3, 2), np.float32), 4))
    assert len(states) == 4 and seen == [[t] * 3 for t in expected]


def test_steps_are_taken_when_they_are_asked_for():
    count = []
    states = euler(lambda x, t: count.append(1) or x, start(), 5)
    assert not count
    next(states)
    next(states)
    assert len(count) == 2


def test_an_image_does_not_depend_on_its_batch():
    x = np.random.default_rng(1).standard_normal((3, 1)).astype(np.float32)
    together = [state.numpy() for state in adams2(toy(3.5), x, 6)]
    for i in range(3):
        alone = [state.numpy() for state in adams2(toy(3.5), x[i : i + 1], 6)]
        assert all(abs(a[0] - b[i]).max() < 1e-6 for a, b in zip(alone, together))


def test_no_gradient_is_kept():
    weight = jt.ones(1)
    *_, x = euler(lambda x, t: x * weight, start(), 2)
    assert x.is_stop_grad()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: times(0), "from 1 on"),
        (lambda: times(2.5), "whole number"),
        (lambda: times(3, shift=0.0), "above 0"),
        (lambda: times(3, shift=float("inf")), "shift inf; expected a finite number"),
        (lambda: times(3, shift=float("nan")), "shift nan"),
        (lambda: euler(None, start(), [0.0, float("inf")]), "expected at least two, increasing"),
        (lambda: euler(None, start(), 0), "from 1 on"),
        (lambda: heun(None, start(), True), "from 1"),
        (lambda: adams2(None, start(), [0.0, 0.5, 0.5]), "increasing"),
        (lambda: euler(None, start(), [1.0]), "at least two"),
    ],
)
def test_wrong_arguments_are_refused_before_any_step(call, words):
    with pytest.raises(ValueError, match=words):
        call()
