import numpy as np
import pytest

from jseg.nn.dropout import Dropout, dropout_place, replayed_dropout, seed_dropout
from jseg.runtime import jt


def draw(layer, batch=4, width=2000):
    return layer(jt.ones((batch, width))).numpy()


def test_the_kept_are_scaled_so_that_the_mean_stays():
    seed_dropout(0, 0)
    found = draw(Dropout(0.3), width=20000)
    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.7)}
    assert abs((found == 0).mean() - 0.3) < 0.01 and abs(found.mean() - 1) < 0.02


def test_masks_depend_on_seed_step_and_call_and_differ_between_examples():
    layer, seen = Dropout(0.5), []
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        seed_dropout(seed, step)
        seen += [draw(layer), draw(layer)]
    assert len({array.tobytes() for array in seen}) == 6
    assert len({row.tobytes() for row in seen[0]}) == 4
    seed_dropout(0, 1)
    assert np.array_equal(draw(layer), seen[2])


def test_an_example_s_mask_is_the_same_in_any_micro_batch():
    layer = Dropout(0.5)
    seed_dropout(7, 3)
    whole = [draw(layer), draw(layer)]
    seed_dropout(7, 3, start=1)
    cut = [draw(layer, batch=2), draw(layer, batch=2)]
    assert all(np.array_equal(a[1:3], b) for a, b in zip(whole, cut))


def test_replaying_gives_the_masks_once_more_and_then_goes_on():
    layer = Dropout(0.5)
    seed_dropout(1, 1)
    expected = [draw(layer) for _ in range(3)]
    seed_dropout(1, 1)
    place = dropout_place()
    first = draw(layer)
    with replayed_dropout(place):
        again = draw(layer)
    assert np.array_equal(first, expected[0]) and np.array_equal(again, expected[0])
    assert np.array_equal(draw(layer), expected[1])


def test_neither_evaluation_nor_a_probability_of_zero_changes_or_draws_anything():
    seed_dropout(0, 0)
    evaluated = Dropout(0.5)
    evaluated.eval()
    assert draw(evaluated).min() == 1 and draw(Dropout(0.0)).min() == 1
    assert dropout_place() == (0, 0, 0, 0)
    evaluated.train()
    assert draw(evaluated).min() == 0


def test_the_gradient_goes_through_the_kept_only():
    seed_dropout(0, 0)
    x = jt.ones((2, 50))
    y = Dropout(0.4)(x)
    np.testing.assert_array_equal(jt.grad(y.sum(), x).numpy(), y.numpy())


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_other_probabilities_are_refused(p):
    with pytest.raises(ValueError, match="expected 0 to below 1"):
        Dropout(p)
