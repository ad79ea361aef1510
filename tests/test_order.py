import numpy as np
import pytest

from jseg.order import generator, micro_batches, positions


def epochs(count, batch_size, steps, seed=3):
    return np.concatenate([positions(count, batch_size, step, seed) for step in range(steps)])


@pytest.mark.parametrize("count, batch_size", [(10, 4), (7, 7), (3, 8), (1, 5), (100, 1)])
def test_every_epoch_takes_every_example_once(count, batch_size):
    taken = epochs(count, batch_size, 3 * count)
    for epoch in range(len(taken) // count):
        assert sorted(taken[epoch * count:(epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    assert not np.array_equal(epochs(50, 50, 1), epochs(50, 50, 2)[50:])
    assert not np.array_equal(epochs(50, 50, 1, seed=1), epochs(50, 50, 1, seed=2))


def test_a_step_s_examples_depend_on_nothing_before_it():
    assert np.array_equal(positions(20, 6, 11, 5), epochs(20, 6, 12, 5)[-6:])


@pytest.mark.parametrize("arguments", [(0, 4, 0, 1), (4, 0, 0, 1), (4, 4, -1, 1)])
def test_impossible_orders_are_refused(arguments):
    with pytest.raises(ValueError, match="expected at least one example"):
        positions(*arguments)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_batch_without_overlap(world):
    dealt = [part for rank in range(world) for part in micro_batches(10, 3, rank, world)]
    assert sorted(i for start, stop in dealt for i in range(start, stop)) == list(range(10))


def test_a_process_without_work_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="micro-batch of at most 2"):
        micro_batches(4, 4, 0, 2)


def test_draws_depend_on_seed_and_place_alone():
    first = generator(1, "noise", 4, 2).standard_normal(3)
    generator(1, "noise", 4, 3).standard_normal(100)
    assert np.array_equal(first, generator(1, "noise", 4, 2).standard_normal(3))
    others = [generator(2, "noise", 4, 2), generator(1, "order", 4, 2), generator(1, "noise", 42)]
    assert all(not np.array_equal(first, other.standard_normal(3)) for other in others)
