"""The loop on a small network whose gradient NumPy knows: least squares y = x w."""

import numpy as np
import pytest
from support.least_squares import INPUTS, TARGETS, network

from jseg.runtime import jt
from jseg.training import loss_scale
from jseg.training.loop import TrainingProblem, accumulate, take_step, train
from jseg.training.sampling import micro_batches, positions


def batches(batch_size, micro_batch):
    def of(step):
        chosen = positions(len(INPUTS), batch_size, step, seed=2)
        for start, stop in micro_batches(batch_size, micro_batch):
            yield (
                {"x": INPUTS[chosen[start:stop]], "y": TARGETS[chosen[start:stop]]},
                (stop - start) / batch_size,
            )

    return of


def test_the_gradient_is_the_whole_batch_s_for_any_micro_batch():
    chosen = positions(len(INPUTS), 10, 0, seed=2)
    x, y = INPUTS[chosen].astype(np.float64), TARGETS[chosen].astype(np.float64)
    for micro_batch in (10, 5, 3, 1):
        trained = network()
        error = x @ trained.module.weight.numpy().T.astype(np.float64) - y
        gradients, losses = accumulate(trained, batches(10, micro_batch)(0))
        np.testing.assert_allclose(
            gradients[0].numpy(), 2 * error.T @ x / error.size, rtol=1e-5, atol=1e-7
        )
        assert losses["loss"] == pytest.approx((error**2).mean(), rel=1e-5)


@pytest.mark.parametrize("micro_batch", [4, 3, 1])
def test_accumulated_updates_are_those_of_the_whole_batch_bias_correction_included(micro_batch):
    whole, cut = network(), network()
    list(train([whole], batches(6, 6), 8))
    list(train([cut], batches(6, micro_batch), 8))
    assert cut.optimizer.steps == 8
    np.testing.assert_allclose(
        cut.module.weight.numpy(), whole.module.weight.numpy(), rtol=1e-5, atol=1e-6
    )


def test_jittor_s_own_optimizer_counts_micro_batches_which_is_why_ours_is():
    def trained(micro_batches):
        jt.set_global_seed(0)
        module = jt.nn.Linear(5, 2, bias=False)
        optimizer = jt.optim.AdamW(module.parameters(), 0.01)
        for _ in range(micro_batches):
            optimizer.backward((module(jt.array(INPUTS)) ** 2).mean() / micro_batches)
        optimizer.step()
        return module.weight.numpy()

    assert np.abs(trained(4) - trained(1)).max() > 1e-3


def test_updates_come_one_by_one_and_learn():
    trained = network(rate=0.1)
    updates = list(train([trained], batches(12, 12), 60))
    assert [update.step for update in updates] == list(range(1, 61))
    assert updates[-1].losses["loss"] < 0.7 * updates[0].losses["loss"]
    best = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
    assert updates[-1].losses["loss"] < 1.1 * ((INPUTS @ best - TARGETS) ** 2).mean() + 0.05


def test_memory_does_not_grow_with_the_number_of_micro_batches():
    lived = []
    for micro_batch in (12, 1):
        trained = network()
        list(train([trained], batches(12, micro_batch), 2))
        jt.sync_all()
        lived.append(jt.number_of_lived_vars())
    assert lived[1] <= lived[0] + 4


def test_the_average_follows_every_step():
    trained = network(ema=True)
    expected = trained.module.weight.numpy()
    for _ in train([trained], batches(6, 6), 4):
        expected = 0.9 * expected + 0.1 * trained.module.weight.numpy()
    np.testing.assert_allclose(trained.ema.values["weight"].numpy(), expected, rtol=1e-5)


def test_a_second_network_starts_when_it_should_and_has_its_own_names():
    first, second = network(), network(start_step=2)
    second.name = "critic"
    before = second.module.weight.numpy()
    updates = []
    for update in train([first, second], batches(6, 6), 3):
        updates.append(update)
        assert np.array_equal(before, second.module.weight.numpy()) == (update.step <= 2)
    assert set(updates[1].losses) == {"loss", "size"}
    assert set(updates[2].losses) == set("loss size critic/loss critic/size".split())


def test_a_rate_may_follow_the_step():
    warm, constant = network(), network()
    list(train([warm], batches(6, 6), 3, learning_rate=lambda step: 0.0 if step < 2 else 0.01))
    assert warm.optimizer.learning_rate == 0.01
    take_step(constant, batches(6, 6)(0), 0)
    assert not np.array_equal(warm.module.weight.numpy(), constant.module.weight.numpy())


def test_a_loss_that_is_no_number_stops_with_the_parameters_of_the_step_before():
    trained = network(scale=float("inf"))
    before = trained.module.weight.numpy()
    with pytest.raises(TrainingProblem, match="step 1: loss .* diverged"):
        list(train([trained], batches(6, 6), 1))
    assert np.array_equal(before, trained.module.weight.numpy())


# -- the loss scale of float16 ---------------------------------------------------------------------


def test_the_loss_scale_halves_where_gradients_overflow_and_doubles_after_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    scale = loss_scale.LossScale()
    values = []
    for finite in (False, True, True, True, True, False, True, True):
        scale.update(finite)
        values.append(scale.value / loss_scale.FIRST)
    assert values == [0.5, 0.5, 0.5, 1, 1, 0.5, 0.5, 0.5]

    other = loss_scale.LossScale()
    other.restore(scale.state())
    for one in (scale, other):
        one.update(True)
    assert (other.value, other.good_steps) == (scale.value, 0) == (loss_scale.FIRST, 0)
    assert other.left_out == scale.left_out == 2

    earlier = {name: array for name, array in scale.state().items() if name != "left_out"}
    other.restore(earlier)
    assert (other.value, other.left_out) == (scale.value, 0), "of a version that did not count them"


@pytest.mark.parametrize("micro_batch", [6, 4])
def test_a_scaled_loss_takes_the_same_steps(micro_batch):
    plain, scaled = network(), network()
    scaled.loss_scale = loss_scale.LossScale()
    list(train([plain], batches(6, micro_batch), 8))
    updates = list(train([scaled], batches(6, micro_batch), 8))
    assert {update.losses["loss_scale"] for update in updates} == {loss_scale.FIRST}
    ours, theirs = (one.module.weight.numpy() for one in (scaled, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_step_whose_gradients_overflow_is_left_out_and_the_next_is_taken():
    """Gradients of some 2^-1, times 2^128, are beyond float32; the losses themselves are finite."""
    trained = network()
    trained.loss_scale = loss_scale.LossScale()
    trained.loss_scale.value = 2.0**130
    before = trained.module.weight.numpy()
    losses = take_step(trained, batches(6, 6)(0), 0)
    assert losses["loss_scale"] == 2.0**130 and np.isfinite(losses["loss"])
    assert trained.loss_scale.value == 2.0**129 and trained.optimizer.steps == 0
    np.testing.assert_array_equal(trained.module.weight.numpy(), before)

    trained.loss_scale.value = 2.0**100
    take_step(trained, batches(6, 6)(1), 1)
    assert trained.optimizer.steps == 1
    assert np.abs(trained.module.weight.numpy() - before).max() > 1e-4
