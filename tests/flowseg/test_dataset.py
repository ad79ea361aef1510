import numpy as np
import pytest

from jseg.flowseg.dataset import CropBatches
from jseg.training.sampling import BatchShards, positions

CLASSES = 5
SIZE = (16, 12)


def load(index):
    """An image whose red value tells its number and whose green value tells the label, but for a
    column that is not known.
    """
    label = np.tile(np.arange(20, dtype=np.uint8) // 4, (15, 1))
    label[:, 8] = 255
    image = np.zeros((15, 20, 3), np.uint8)
    image[..., 0], image[..., 1] = 10 * index, 20 * (np.arange(20) // 4)
    return image, label


def batches(division, seed=4, **options):
    return CropBatches(range(7), load, CLASSES, SIZE, division, seed, **options)


def joined(parts):
    parts = list(parts)
    assert sum(weight for _, weight in parts) == pytest.approx(1)
    return {name: np.concatenate([batch[name] for batch, _ in parts]) for name in parts[0][0]}


def assert_equal(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_shapes_types_and_ranges():
    batch, weight = next(batches(BatchShards(5, 5))(0))
    assert weight == 1
    assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
        "images": ("uint8", (5, 3, 12, 16)),
        "labels": ("uint8", (5, 12, 16)),
        "t": ("float32", (5,)),
        "noise": ("float32", (5, 3, 12, 16)),
    }
    assert (batch["t"] >= 0).all() and (batch["t"] < 1).all()


def test_labels_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match="CropBatches: label 4 outside 0 ... 3, the 4 classes"):
        next(CropBatches(range(7), load, 4, SIZE, BatchShards(2, 2), 4)(0))


def test_noise_that_nobody_reads_is_not_drawn_and_changes_nothing():
    with_noise, without = (
        next(batches(BatchShards(3, 3), noise=noise)(2))[0] for noise in (True, False)
    )
    assert_equal({**without, "noise": with_noise["noise"]}, with_noise)


def test_images_and_labels_stay_together():
    batch = next(batches(BatchShards(6, 6), scales=(1.0, 1.0))(2))[0]
    for image, label in zip(batch["images"], batch["labels"]):
        green, known = image[1].astype(float), label != 255
        assert (
            np.mean(np.abs(green / 20 - label)[known] < 0.5) > 0.85
        )  # all but the borders, which are blurred


def test_each_example_once_an_epoch_in_the_common_order():
    made = batches(BatchShards(7, 7), scales=(1, 1))
    brightest = [next(made(step))[0]["images"][:, 0].max((1, 2)) for step in range(2)]
    seen = np.rint(np.concatenate(brightest) / 10)
    np.testing.assert_array_equal(seen[:7], positions(7, 7, 0, 4))
    assert sorted(seen[7:]) == list(range(7))


@pytest.mark.parametrize("micro, world", [(1, 1), (2, 1), (5, 1), (2, 2), (1, 3)])
def test_micro_batches_and_processes_change_no_number(micro, world):
    whole = joined(batches(BatchShards(6, 6))(5))
    parts = {}
    for rank in range(world):
        for number, part in enumerate(batches(BatchShards(6, micro, rank, world))(5)):
            parts[rank, number] = part
    assert_equal(joined(parts[number] for number in sorted(parts)), whole)


def test_steps_and_seeds_differ_and_repeat():
    one, again = (next(batches(BatchShards(3, 3))(1))[0] for _ in range(2))
    assert_equal(one, again)
    for other in (
        next(batches(BatchShards(3, 3))(2))[0],
        next(batches(BatchShards(3, 3), seed=5)(1))[0],
    ):
        assert not np.array_equal(one["t"], other["t"])
        assert not np.array_equal(one["noise"], other["noise"])


def test_the_first_are_those_of_a_batch_of_that_size():
    first = batches(BatchShards(6, 2)).first(3)
    assert_equal(first, next(batches(BatchShards(3, 3))(0))[0])


def test_jitter_changes_colours_and_nothing_else():
    plain, jittered = (
        next(batches(BatchShards(4, 4), **options)(2))[0] for options in ({}, {"jitter": 0.3})
    )
    assert not np.array_equal(plain["images"], jittered["images"])
    assert_equal({**jittered, "images": plain["images"]}, plain)
    assert_equal(jittered, next(batches(BatchShards(4, 4), jitter=0.3)(2))[0])


def test_times_are_even():
    times = np.concatenate([next(batches(BatchShards(50, 50))(step))[0]["t"] for step in range(8)])
    assert abs(times.mean() - 0.5) < 0.05 and abs(times.var() - 1 / 12) < 0.01
