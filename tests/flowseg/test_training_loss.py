"""Source and path of the flow, and the training loss as a function of a batch."""

import dataclasses
import math

import numpy as np
import pytest
from support.small_flowseg import CLASSES, TINY, random_network, scene

from jseg.flowseg.dataset import CropBatches
from jseg.flowseg.encoding import class_codes, encode
from jseg.flowseg.field import (
    NOISE_WEIGHT,
    flow_loss,
    interpolate,
    shifted,
    source,
    training_loss,
)
from jseg.images import to_signed
from jseg.runtime import jt
from jseg.training.sampling import BatchShards

CODES = class_codes(CLASSES)
NAMES = ("loss", "fm", "correction_norm")


def test_sources():
    image, noise = np.full((1, 3, 2, 2), 0.5), np.ones((1, 3, 2, 2))
    assert (source("image", image) == 0.5).all() and (source("noise", noise=noise) == 1).all()
    assert (source("image+noise", image, noise) == 1).all()
    for kind, arrays, message in (
        ("image", {"noise": noise}, "kind 'image' starts from image"),
        ("noise", {"image": image}, "kind 'noise' starts from noise"),
        ("image+noise", {"image": image}, "kind 'image.noise' starts from noise"),
        ("mask", {"image": image}, "unknown kind 'mask'; choose one of image, noise, image.noise"),
    ):
        with pytest.raises(ValueError, match=f"source: {message}"):
            source(kind, **arrays)


def test_the_path_runs_from_the_source_to_the_data():
    x0, x1 = np.zeros((3, 3, 1, 1)), np.ones((3, 3, 1, 1))
    assert interpolate(x0, x1, np.array([0, 0.25, 1]))[:, 0, 0, 0].tolist() == [0, 0.25, 1]
    x_t = interpolate(jt.array(x0), jt.array(x1), jt.array([0, 0.25, 1])).numpy()
    assert x_t[:, 0, 0, 0].tolist() == [0, 0.25, 1]
    t = np.linspace(0, 1, 5)
    assert (shifted(t) == t).all() and shifted(np.array([0, 0.5, 1]), 3.0).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("shift", [0, -1, math.nan, math.inf, 1e-45])
def test_a_shift_that_would_make_times_nan_is_refused(shift):
    message = f"shifted: shift is {shift}; expected a number from 1e-06 to 1e"
    with pytest.raises(ValueError, match=message):
        shifted(np.zeros(3, np.float32), shift)


# A function of a batch
# --------------------------------------------------------------------------------------------------


def load(index):
    image, label = scene(index)
    label[:, : 8 * (index % 4)] = 255  # a different fraction of each has a label
    return image, label


def batches(division):
    """[(batch, weight)] of the first step."""
    return list(CropBatches(range(4), load, CLASSES, (48, 32), division, seed=3)(0))


def whole():
    ((batch, _),) = batches(BatchShards(4, 4))
    return batch


def maps(batch):
    """What the loss has to make of the batch's bytes: (images, codes, mask)."""
    images = np.stack([to_signed(image.transpose(1, 2, 0)) for image in batch["images"]])
    return (images, *encode(batch["labels"], CODES))


class Recording:
    """A network that returns the velocity it was made with, and keeps the inputs of its calls."""

    def __init__(self, velocity, kind="image"):
        self.velocity, self.calls = velocity, []
        self.config = dataclasses.replace(TINY, source=kind)

    def __call__(self, x_t, t, image=None, tap=None):
        self.calls.append((x_t.numpy(), t.numpy(), None if image is None else image.numpy(), tap))
        velocity = jt.array(self.velocity)
        return velocity if tap is None else (velocity, f"tokens of {tap}")


@pytest.mark.parametrize("kind", ["image", "noise", "image+noise"])
def test_path_and_loss_are_those_of_the_source(kind):
    batch = whole()
    images, x1, mask = maps(batch)
    noise, t = batch["noise"], batch["t"]
    velocity = np.random.default_rng(0).standard_normal(x1.shape).astype(np.float32)
    options = {"weight": 0.7, "tau": 2.0, "eps": 0.02, "schedule": "1-t"}
    network = Recording(velocity, kind)
    losses = training_loss(network, CODES, **options)(batch)

    # The network gets the point of the path, and the image where it sees one.
    x0 = {"image": images, "noise": noise, "image+noise": images + NOISE_WEIGHT * noise}[kind]
    time = t.reshape(-1, 1, 1, 1)
    ((x_t, times, image, tap),) = network.calls
    np.testing.assert_allclose(x_t, (1 - time) * x0 + time * x1, atol=1e-6)
    assert np.array_equal(times, t) and tap is None
    assert image is None if kind == "image" else np.array_equal(image, images)

    # Means over all pixels, not only over those with a label.
    means = flow_loss(velocity, x_t, x0, x1, t, batch["labels"], CODES, mask=mask, **options)
    for name in NAMES:
        expected = means[name].item() * mask.mean()
        assert losses[name].item() == pytest.approx(expected, rel=1e-5), name


def test_times_can_be_shifted_to_the_source():
    batch = whole()
    network, t = Recording(np.zeros(batch["images"].shape, np.float32)), batch["t"]
    training_loss(network, CODES, shift=3.0)(batch)
    np.testing.assert_allclose(network.calls[0][1], t / (t + 3 * (1 - t)), rtol=1e-6)


def test_micro_batches_add_up_however_many_labels_each_has():
    loss = training_loss(random_network(), CODES)
    expected = loss(whole())
    parts = batches(BatchShards(4, 1))
    assert len({np.mean(batch["labels"] == 255) for batch, _ in parts}) > 1
    losses = [(loss(batch), weight) for batch, weight in parts]
    for name in NAMES:
        total = sum(weight * part[name].item() for part, weight in losses)
        assert total == pytest.approx(expected[name].item(), rel=1e-4), name


def test_a_batch_without_a_label_is_zero_and_changes_nothing():
    network, batch = random_network(), whole()
    batch["labels"][:] = 255
    losses = training_loss(network, CODES)(batch)
    assert [losses[name].item() for name in NAMES] == [0, 0, 0]
    assert not jt.grad(losses["loss"], network.final_layer.linear.weight).numpy().any()


def test_an_alignment_gets_the_block_s_tokens_and_the_clean_image():
    batch, calls = whole(), []
    network = Recording(np.zeros(batch["images"].shape, np.float32))

    def alignment(losses, tokens, image):
        calls.append((tokens, image))
        return {**losses, "loss": losses["loss"] + 5, "repa": jt.array([5.0])}

    aligned = training_loss(network, CODES, alignment=alignment, block=2)(batch)
    plain = training_loss(network, CODES)(batch)
    ((tokens, image),) = calls
    assert tokens == "tokens of 2" and np.array_equal(image.numpy(), maps(batch)[0])
    assert aligned["loss"].item() == pytest.approx(plain["loss"].item() + 5, rel=1e-6)
    assert aligned["fm"].item() == plain["fm"].item()
