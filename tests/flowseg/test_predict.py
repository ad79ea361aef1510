import dataclasses

import numpy as np
import pytest
from support.small_flowseg import CLASSES, TINY, Knowing, random_network, scene

from jseg.checkpoint import CheckpointError, save
from jseg.data.classes import CLASS_SETS
from jseg.flowseg import predict
from jseg.flowseg.encoding import assignment, class_codes, decode
from jseg.flowseg.field import source
from jseg.flowseg.predict import (
    Segmenter,
    network_config,
    stored_classes,
    trained_classes,
    trained_shift,
)
from jseg.images import to_signed
from jseg.noise import normal
from jseg.runtime import jt

NOISY = dataclasses.replace(TINY, source="noise")


# A network that knows the answer
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, steps", [("euler", 1), ("euler", 3), ("heun", 2), ("adams2", 3)])
def test_a_window_is_segmented_at_once(method, steps):
    network, (image, label) = Knowing(), scene(0)
    found = Segmenter(network, steps, method).segment(image)
    assert found.dtype == np.int32 and np.array_equal(found, label)
    calls = 2 * steps - 1 if method == "heun" else steps
    assert network.shapes == [(1, 3, 32, 48)] * calls and not network.training


@pytest.mark.parametrize(
    "options",
    [{}, {"overlap": 0}, {"overlap": 0.9}, {"batch_size": 3}, {"mirror": True, "batch_size": 4}],
)
def test_larger_images_are_covered_by_windows(options):
    network, (image, label) = Knowing(), scene(1, 130, 75)
    segmenter = Segmenter(network, 1, scale=None, **options)
    assert np.array_equal(segmenter.segment(image), label)
    assert {shape[2:] for shape in network.shapes} == {(32, 48)}
    assert max(shape[0] for shape in network.shapes) <= options.get("batch_size", 1)


@pytest.mark.parametrize(
    "width, height", [(48, 33), (96, 64), (150, 40), (20, 90), (8, 8), (8, 200)]
)
def test_any_size_comes_back_in_its_own(width, height):
    image, label = scene(2, width, height)
    found = Segmenter(Knowing(), 1).segment(image)
    assert found.shape == (height, width)
    assert (found == label).mean() > 0.7  # borders are blurred by the resizing


def test_a_closer_look_takes_more_windows():
    image, _ = scene(3, 96, 64)
    counts = []
    for scale in (1, 2, 2.5):
        network = Knowing()
        Segmenter(network, 1, scale=scale, overlap=0).segment(image)
        counts.append(len(network.shapes))
    assert counts == [1, 4, 9]


def test_probabilities_are_those_of_the_codes_and_their_largest_is_the_label():
    image, label = scene(4, 100, 60)
    segmenter = Segmenter(Knowing(), 2)
    found = segmenter.probabilities(image)
    assert found.shape == (CLASSES, 60, 100) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert np.array_equal(found.argmax(0), segmenter.segment(image))
    image, label = scene(4)
    codes = class_codes(CLASSES)
    exact = assignment(codes[label].transpose(2, 0, 1), codes)
    np.testing.assert_allclose(Segmenter(Knowing(), 2).probabilities(image), exact, atol=1e-5)


def test_mirror_images_are_averaged_where_they_belong():
    """By a network that finds class 1 in the left half of whatever it sees, and class 2 on the
    right.
    """
    halves = np.where(np.arange(48) < 24, 1, 2)
    network = Knowing(classify=lambda image, start: np.broadcast_to(halves, (len(image), 32, 48)))
    image, _ = scene(5)
    plain = Segmenter(network, 1).probabilities(image)
    mirrored = Segmenter(network, 1, mirror=True).probabilities(image)
    np.testing.assert_allclose(mirrored, (plain + plain[:, :, ::-1]) / 2, atol=1e-6)
    assert not np.allclose(mirrored, plain, atol=0.1)


def test_probabilities_are_averaged_and_never_codes():
    """Two noises, two classes: between their codes lies a third, which a mean of codes would
    give.
    """
    config = dataclasses.replace(NOISY, labels=27, codes="grid")
    codes = class_codes(27, "grid")
    first, second, between = 0, 26, 13
    np.testing.assert_allclose((codes[first] + codes[second]) / 2, codes[between], atol=1e-12)

    def by_the_first_number(image, start):
        return np.where(start[:, 0, :1, :1] > 0, first, second).repeat(32, 1).repeat(48, 2)

    network = Knowing(config, by_the_first_number)
    above = [normal(seed, "x", "0-0", (3, 32, 48))[0, 0, 0] > 0 for seed in range(99)]
    seeds = [above.index(True), above.index(False)]
    image, _ = scene(6)
    alone = [Segmenter(network, 1, seeds=[seed]).probabilities(image) for seed in seeds]
    assert [one.argmax(0).flat[0] for one in alone] == [first, second]
    both = Segmenter(network, 1, seeds=seeds)
    np.testing.assert_allclose(both.probabilities(image), np.mean(alone, axis=0), atol=1e-6)
    assert set(np.unique(both.segment(image))) <= {first, second}


# A PixNerd
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    return random_network(NOISY)


@pytest.mark.parametrize(
    "grid, shift",
    [([0, 1 / 3, 2 / 3, 1], 1.0), ([0, 1 / 9, 1 / 3, 1], 4.0)],
    ids=["even", "shifted"],
)
def test_a_network_s_flow_is_euler_s_from_its_source(noisy, grid, shift):
    image, _ = scene(7)
    signed = to_signed(image)[None]
    x = jt.array(source("noise", signed, normal(5, "name", "0-0", (3, 32, 48))[None]))
    with jt.no_grad():
        for t, t_next in zip(grid, grid[1:]):
            velocity = noisy(x, jt.array(np.array([t], np.float32)), jt.array(signed))
            x = x + velocity * (t_next - t)
            x.sync()
    found = Segmenter(noisy, 3, seeds=[5], shift=shift).segment(image, "name")
    agreement = (found == decode(x.numpy()[0], class_codes(CLASSES))).mean()
    assert agreement > 0.999 and len(np.unique(found)) > 1


def test_noise_depends_on_the_name_and_nothing_else(noisy):
    image, _ = scene(8, 100, 60)
    first = Segmenter(noisy, 2).probabilities(image, "a")
    for options, stem, same in (
        ({}, "a", True),
        ({"batch_size": 3}, "a", True),
        ({}, "b", False),
        ({"seeds": [1]}, "a", False),
    ):
        again = Segmenter(noisy, 2, **options).probabilities(image, stem)
        assert np.allclose(again, first, atol=1e-4) == same, (options, stem)
    assert np.array_equal(Segmenter(noisy, 2).probabilities(image, "a"), first)


def test_from_a_file_and_deterministic_without_noise(tmp_path):
    network = random_network()
    save(tmp_path / "flowseg.safetensors", network.state_dict(), TINY)
    image, _ = scene(9, 90, 60)
    segmenter = Segmenter.from_file(tmp_path / "flowseg.safetensors", steps=2, device="cpu")
    found = segmenter.segment(image)
    assert len(np.unique(found)) > 1 and segmenter.window == (48, 32)
    assert np.array_equal(found, segmenter.segment(image, "another"))
    assert np.array_equal(found, Segmenter(network, 2).segment(image))


def test_a_file_s_flow_takes_the_times_of_its_training_unless_others_are_given(tmp_path):
    path, state = tmp_path / "flowseg.safetensors", random_network().state_dict()
    for settings, shift in (
        ({"shift": 4}, 4.0),
        ({}, 1.0),
        ({"shift": None}, 1.0),
        ({"shift": "x"}, 1.0),
        ({"shift": -1}, 1.0),
    ):
        save(path, state, TINY, settings=settings)
        assert trained_shift(path) == shift
        for option, expected in ((None, shift), (1.0, 1.0), (2.0, 2.0)):
            times = Segmenter.from_file(path, 3, "cpu", shift=option).times
            np.testing.assert_allclose(times, [0, 1 / (1 + 2 * expected), 2 / (2 + expected), 1])


def test_the_gradient_still_reaches_a_network_that_segmented(noisy):
    Segmenter(noisy, 1).segment(scene(1)[0])
    noisy.train()
    assert not noisy.final_layer.linear.weight.is_stop_grad()


# What is refused
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": 0}, "from 1 on"),
        ({"shift": 0}, "above 0"),
        ({"method": "rk4"}, "choose one of euler, heun, adams2"),
        ({"seeds": []}, "expected one"),
        ({"seeds": [1, 1]}, "different"),
        ({"seeds": [-1]}, "from 0 on"),
        ({"seeds": [0, 1]}, "starts from the image alone"),
        ({"scale": 0.5}, "expected 1"),
        ({"overlap": 1}, "below 1"),
        ({"batch_size": 0}, "1 or more"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(ValueError, match=words):
        Segmenter(Knowing(), **options)


@pytest.mark.parametrize(
    "image, words",
    [
        (np.zeros((32, 48), np.uint8), r"shape \[32, 48\]"),
        (np.zeros((32, 48, 4), np.uint8), "expected uint8"),
        (np.zeros((32, 48, 3), np.float32), "float32; expected uint8"),
        (np.zeros((7, 48, 3), np.uint8), "48x7; expected at least 8x8"),
    ],
)
def test_images_that_cannot_be_segmented(image, words):
    for call in (Segmenter(Knowing()).segment, Segmenter(Knowing()).probabilities):
        with pytest.raises(ValueError, match=words):
            call(image)


def test_weights_of_other_networks_are_called_by_their_name(tmp_path):
    from jseg.ldm.presets import UNETS

    for config, words in (
        (UNETS["tiny"], "a network described by UNetConfig"),
        (None, "without a network's description"),
    ):
        save(tmp_path / "other.npz", {"w": np.zeros(2, np.float32)}, config)
        said = words + "; expected a file that train_flowseg wrote"
        with pytest.raises(CheckpointError, match=said):
            network_config(tmp_path / "other.npz")
    save(tmp_path / "half.npz", {"w": np.zeros(2, np.float32)}, TINY)
    with pytest.raises(CheckpointError, match="missing"):
        Segmenter.from_file(tmp_path / "half.npz", device="cpu")
    with pytest.raises(FileNotFoundError):
        Segmenter.from_file(tmp_path / "nowhere.npz")


def test_classes_come_from_the_training_or_are_made_up(tmp_path):
    camvid, path = CLASS_SETS["camvid-11"], tmp_path / "weights.npz"
    save(path, {"w": np.zeros(2, np.float32)}, TINY, settings={"classes": stored_classes(camvid)})
    found = trained_classes(path, 11)
    assert (found.name, found.names) == (camvid.name, camvid.names)
    assert np.array_equal(found.palette, camvid.palette)
    assert trained_classes(path, 4).names == ("class 0", "class 1", "class 2", "class 3")
    for settings in (
        {},
        {"classes": 3},
        {"classes": {"name": "x", "names": ["a"] * 4, "palette": [[300, 0, 0]] * 4}},
    ):
        save(path, {"w": np.zeros(2, np.float32)}, TINY, settings=settings)
        assert trained_classes(path, 4).palette.shape == (4, 3)
    assert predict.STEPS == 10
