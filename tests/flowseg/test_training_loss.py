import dataclasses

import numpy as np
import pytest
from support.small_flowseg import CLASSES, TINY, random_network, scene

from jseg.flowseg.dataset import CropBatches
from jseg.flowseg.encoding import class_codes
from jseg.flowseg.field import NOISE_WEIGHT, flow_loss, training_loss
from jseg.runtime import jt
from jseg.training.sampling import BatchShards

CODES = class_codes(CLASSES)
NAMES = ("loss", "fm", "correction_norm")


def load(index):
    image, label = scene(index)
    label[:, : 8 * (index % 4)] = 255  # known to different parts
    return image, label


def batch(division=BatchShards(4, 4), step=0):
    return [
        (part, share)
        for part, share in CropBatches(range(4), load, CODES, (48, 32), division, seed=3)(step)
    ]


class Recording:
    """A network that gives what it is told, and keeps what it was given."""

    def __init__(self, velocity, source="image"):
        self.velocity, self.config, self.given = (
            velocity,
            dataclasses.replace(TINY, source=source),
            [],
        )

    def __call__(self, x_t, t, image=None, tap=None):
        self.given.append((x_t.numpy(), t.numpy(), None if image is None else image.numpy(), tap))
        return (
            jt.array(self.velocity)
            if tap is None
            else (jt.array(self.velocity), f"tokens of {tap}")
        )


@pytest.mark.parametrize("source", ["image", "noise", "image+noise"])
def test_path_and_loss_are_those_of_the_source(source):
    ((given, _),) = batch()
    velocity = np.random.default_rng(0).standard_normal(given["x1"].shape).astype(np.float32)
    network = Recording(velocity, source)
    found = training_loss(network, CODES, weight=0.7, tau=2.0, eps=0.02, schedule="1-t")(given)
    x0 = {
        "image": given["images"],
        "noise": given["noise"],
        "image+noise": given["images"] + NOISE_WEIGHT * given["noise"],
    }[source]
    t = given["t"].reshape(-1, 1, 1, 1)
    ((x_t, times, image, tap),) = network.given
    np.testing.assert_allclose(x_t, (1 - t) * x0 + t * given["x1"], atol=1e-6)
    assert np.array_equal(times, given["t"]) and tap is None
    assert image is None if source == "image" else np.array_equal(image, given["images"])
    expected = flow_loss(
        velocity,
        x_t,
        x0,
        given["x1"],
        given["t"],
        given["labels"],
        CODES,
        weight=0.7,
        tau=2.0,
        eps=0.02,
        schedule="1-t",
        mask=given["mask"],
    )
    for name in NAMES:
        assert found[name].item() == pytest.approx(
            expected[name].item() * given["mask"].mean(), rel=1e-5
        ), name


def test_times_can_be_shifted_to_the_source():
    ((given, _),) = batch()
    network = Recording(np.zeros_like(given["x1"]))
    training_loss(network, CODES, shift=3.0)(given)
    np.testing.assert_allclose(
        network.given[0][1], given["t"] / (given["t"] + 3 * (1 - given["t"])), rtol=1e-6
    )


def test_micro_batches_add_up_whatever_is_known_in_each():
    network = random_network()
    loss = training_loss(network, CODES)
    ((whole, _),) = batch()
    expected = loss(whole)
    parts = batch(BatchShards(4, 1))
    assert len({part["mask"].mean() for part, _ in parts}) > 1
    for name in NAMES:
        assert sum(share * loss(part)[name].item() for part, share in parts) == pytest.approx(
            expected[name].item(), rel=1e-4
        ), name


def test_a_batch_that_nothing_is_known_of_is_zero_and_changes_nothing():
    network = random_network()
    ((given, _),) = batch()
    given["labels"][:], given["mask"][:] = 255, 0
    found = training_loss(network, CODES)(given)
    assert [found[name].item() for name in NAMES] == [0, 0, 0]
    gradient = jt.grad(found["loss"], network.final_layer.linear.weight).numpy()
    assert not gradient.any()


def test_an_alignment_is_given_the_block_s_tokens_and_the_clean_image():
    ((given, _),) = batch()
    network, seen = Recording(np.zeros_like(given["x1"])), []

    def alignment(losses, tokens, image):
        seen.append((tokens, image))
        return {**losses, "loss": losses["loss"] + 5, "repa": jt.array([5.0])}

    found, plain = (
        training_loss(network, CODES, alignment=alignment, block=2)(given),
        training_loss(network, CODES)(given),
    )
    assert seen[0][0] == "tokens of 2" and seen[0][1] is given["images"]
    assert (
        found["loss"].item() == pytest.approx(plain["loss"].item() + 5, rel=1e-6)
        and found["fm"].item() == plain["fm"].item()
    )
