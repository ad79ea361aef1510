"""AdamW and the moving average against PyTorch's."""

import numpy as np
import pytest
from support.peers import apart, peer

from jseg.runtime import jt
from jseg.training.optimizer import EMA, AdamW

TORCH = peer("adamw_ema_torch.npz")


def test_fifty_steps_and_their_average_are_torch_s():
    parameters = {name: jt.array(TORCH[f"start_{name}"]) for name in "wb"}
    optimizer = AdamW(parameters, 1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    average = EMA(parameters, 0.9)
    for step in range(1, 51):
        optimizer.step({name: jt.array(TORCH[f"gradient_{name}"][step - 1]) for name in "wb"})
        average.update(step)
        for name in "wb" if step in (1, 2, 50) else "":
            assert apart(parameters[name], TORCH[f"step{step}_{name}"]) < 2e-6
    for name in "wb":
        assert apart(average.values[name], TORCH[f"average_{name}"]) < 2e-6


def test_a_long_average_at_a_high_rate_is_torch_s_to_the_bit():
    start = TORCH["long_start"]
    parameter = jt.array(start)
    average = EMA({"p": parameter}, 0.9999)
    for i in range(12_000):
        drawn = np.random.default_rng(i).standard_normal(64)
        parameter.update(jt.array((start * (1 + 0.01 * drawn)).astype(np.float32)))
        average.update()
    np.testing.assert_array_equal(average.values["p"].numpy(), TORCH["long_average"])


@pytest.mark.parametrize(
    "name, value",
    [
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", -1e-3),
        ("weight_decay", float("nan")),
        ("weight_decay", float("inf")),
        ("weight_decay", -0.1),
    ],
)
def test_a_rate_or_decay_that_spoils_every_weight_is_refused(name, value):
    options = {"learning_rate": 1e-3, name: value}
    said = f"AdamW: {name} is {value}; expected a finite number, 0 or more"
    with pytest.raises(ValueError, match=said):
        AdamW({}, **options)
