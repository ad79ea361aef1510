from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from jseg.noise import generator
from jseg.training.sampling import BatchShards, micro_batches, positions


def epochs(count, batch_size, steps, seed=3):
    return np.concatenate([positions(count, batch_size, step, seed) for step in range(steps)])


@pytest.mark.parametrize("count, batch_size", [(10, 4), (7, 7), (3, 8), (1, 5), (100, 1)])
def test_every_epoch_takes_every_example_once(count, batch_size):
    taken = epochs(count, batch_size, 3 * count)
    for epoch in range(len(taken) // count):
        assert sorted(taken[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    assert not np.array_equal(epochs(50, 50, 1), epochs(50, 50, 2)[50:])
    assert not np.array_equal(epochs(50, 50, 1, seed=1), epochs(50, 50, 1, seed=2))


def test_a_step_s_examples_depend_on_nothing_before_it():
    assert np.array_equal(positions(20, 6, 11, 5), epochs(20, 6, 12, 5)[-6:])


@pytest.mark.parametrize("arguments", [(0, 4, 0, 1), (4, 0, 0, 1), (4, 4, -1, 1)])
def test_impossible_orders_are_refused(arguments):
    with pytest.raises(ValueError, match="expected at least one example"):
        positions(*arguments)


@pytest.mark.parametrize(
    "batch_size, micro_batch, world",
    [
        (10, 3, 1),
        (10, 3, 2),
        (10, 3, 3),
        (30, None, 8),
        (30, 4, 8),
        (30, 3, 8),
        (32, None, 8),
        (7, 100, 3),
        (5, 1, 5),
        (13, 5, 2),
        (97, 9, 11),
    ],
)
def test_processes_share_the_batch_without_overlap_and_none_works_much_longer(
    batch_size, micro_batch, world
):
    options = SimpleNamespace(batch_size=batch_size, micro_batch=micro_batch)
    divisions = [BatchShards.of(options, rank, world) for rank in range(world)]
    parts = [[(list(part), share) for part, share in division.parts()] for division in divisions]
    assert sorted(i for process in parts for part, _ in process for i in part) == list(
        range(batch_size)
    )
    whole = [sum(len(part) for part, _ in process) for process in parts]
    assert max(whole) - min(whole) <= 1
    for process, division in zip(parts, divisions):
        sizes = [len(part) for part, _ in process]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= division.micro_batch <= (micro_batch or batch_size)
        assert len(sizes) == -(-sum(sizes) // division.micro_batch), "no more parts than needed"
    assert sum(Fraction(len(part), batch_size) for process in parts for part, _ in process) == 1
    assert all(share == len(part) / batch_size for process in parts for part, share in process)


def test_thirty_examples_on_eight_processes():
    options = SimpleNamespace(batch_size=30, micro_batch=None)
    assert (
        sorted(
            sum(len(part) for part, _ in BatchShards.of(options, rank, 8).parts())
            for rank in range(8)
        )
        == [3, 3] + [4] * 6
    )


def test_a_process_without_work_is_refused_with_the_remedy():
    said = (
        "a batch of 4 for 5 processes; .* give --batch_size 5 or more, or start 4 processes at most"
    )
    with pytest.raises(ValueError, match=said):
        micro_batches(4, 4, 0, 5)


def test_draws_depend_on_seed_and_place_alone():
    first = generator(1, "noise", 4, 2).standard_normal(3)
    generator(1, "noise", 4, 3).standard_normal(100)
    assert np.array_equal(first, generator(1, "noise", 4, 2).standard_normal(3))
    others = [generator(2, "noise", 4, 2), generator(1, "order", 4, 2), generator(1, "noise", 42)]
    assert all(not np.array_equal(first, other.standard_normal(3)) for other in others)
