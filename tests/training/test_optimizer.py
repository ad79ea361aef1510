import numpy as np
import pytest

from jseg.runtime import jt
from jseg.training.optimizer import EMA, AdamW, rates, trainable

SHAPES = {"weight": (3, 4), "bias": (4,)}


def values(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def as_vars(arrays):
    return {name: jt.array(value) for name, value in arrays.items()}


def adamw(p, gradients, rate, decay, beta_1=0.9, beta_2=0.999, eps=1e-8):
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for step, g in enumerate(gradients, start=1):
        g = g.astype(np.float64)
        p = p * (1 - rate * decay)
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
        p = p - rate * (m / (1 - beta_1**step)) / (np.sqrt(v / (1 - beta_2**step)) + eps)
    return p


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_its_formula(decay):
    first, gradients = values(0), [values(seed) for seed in range(1, 6)]
    parameters = as_vars(first)
    optimizer = AdamW(parameters, 0.01, weight_decay=decay)
    for gradient in gradients:
        optimizer.step(as_vars(gradient))
    assert optimizer.steps == 5
    for name in SHAPES:
        expected = adamw(first[name], [g[name] for g in gradients], 0.01, decay)
        np.testing.assert_allclose(parameters[name].numpy(), expected, rtol=2e-6, atol=1e-7)


def test_gradients_still_reach_the_parameters_after_a_step():
    parameter = jt.array(np.ones(3, np.float32))
    optimizer, average = AdamW({"p": parameter}, 0.1), EMA({"p": parameter}, 0.5)
    for _ in range(2):
        gradient = jt.grad((parameter * parameter).sum(), parameter)
        np.testing.assert_allclose(gradient.numpy(), 2 * parameter.numpy())
        optimizer.step({"p": gradient})
        average.update()
    with average.in_place():
        pass
    assert np.abs(jt.grad((parameter * parameter).sum(), parameter).numpy()).min() > 0


def test_a_restored_optimizer_goes_on_as_if_nothing_had_been():
    gradients = [as_vars(values(seed)) for seed in range(4)]
    whole = as_vars(values(9))
    uninterrupted = AdamW(whole, 0.01)
    half = as_vars(values(9))
    interrupted = AdamW(half, 0.01)
    for gradient in gradients:
        uninterrupted.step(gradient)
    for gradient in gradients[:2]:
        interrupted.step(gradient)
    resumed = AdamW(as_vars({name: p.numpy() for name, p in half.items()}), 0.01)
    resumed.restore(
        {name: value.numpy() for name, value in interrupted.state().items()}, interrupted.steps
    )
    for gradient in gradients[2:]:
        resumed.step(gradient)
    for name in SHAPES:
        assert np.array_equal(resumed.parameters[name].numpy(), whole[name].numpy())


def test_rates_rise_and_fall_by_the_step_alone():
    assert [rates(0.5)(step) for step in (0, 7, 10**6)] == [0.5] * 3
    np.testing.assert_allclose(
        [rates(0.5, 4)(step) for step in range(6)], [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    )
    np.testing.assert_allclose(
        [rates(0.5, 0, 4)(step) for step in range(6)], [0.5, 0.375, 0.25, 0.125, 0, 0]
    )
    np.testing.assert_allclose(
        [rates(0.5, 2, 4)(step) for step in range(4)], [0.25, 0.375, 0.25, 0.125]
    )


def test_another_network_s_state_is_refused():
    optimizer = AdamW(as_vars(values(0)), 0.01)
    with pytest.raises(ValueError, match="does not fit this network: 2 names or shapes differ"):
        optimizer.restore(
            {
                "first.weight": np.zeros((3, 4)),
                "first.bias": np.zeros(5),
                "second.weight": np.zeros((3, 4)),
                "second.other": np.zeros(4),
                "second.bias": np.zeros(4),
            },
            3,
        )


def test_the_average_is_its_formula_and_lets_the_parameters_be():
    parameters = as_vars(values(0))
    average, expected = EMA(parameters, 0.8), values(0)
    for seed in range(1, 4):
        now = values(seed)
        for name, p in parameters.items():
            p.update(jt.array(now[name]))
            expected[name] = 0.8 * expected[name] + 0.2 * now[name]
        average.update()
    with average.in_place():
        for name in SHAPES:
            np.testing.assert_allclose(
                parameters[name].numpy(), expected[name], rtol=1e-6, atol=1e-7
            )
    for name in SHAPES:
        assert np.array_equal(parameters[name].numpy(), values(3)[name])


def test_an_average_that_warms_up_soon_forgets_its_beginning():
    parameters = as_vars(values(0))
    average, expected = EMA(parameters, 0.4, warm_up=True), values(0)
    for step, rate in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13), (4, 5 / 14), (5, 0.4), (6, 0.4)):
        now = values(step)
        for name, p in parameters.items():
            p.update(jt.array(now[name]))
            expected[name] = rate * expected[name] + (1 - rate) * now[name]
        average.update(step)
    for name, value in average.values.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_a_rate_that_averages_nothing_is_refused(rate):
    with pytest.raises(ValueError, match="expected 0 to below 1"):
        EMA({}, rate)


def test_buffers_are_not_trained():
    class Network(jt.nn.Module):
        def __init__(self):
            self.weight, self.buffer = jt.ones(2), jt.ones(2).stop_grad()

    assert list(trainable(Network())) == ["weight"]
