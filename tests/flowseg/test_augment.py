"""Random crops: the label follows its image, nothing outside the image counts, everything
random comes from the generator.
"""

import numpy as np
import pytest

from jseg.flowseg.augment import GREY, augment, recolour


def scene(width, height):
    """An image whose red and green are its place (in steps of its size) and a label map that says
    the same in sixteen fields.
    """
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    image = np.stack([x * 255, y * 255, np.full_like(x, 40)], -1).round().astype(np.uint8)
    return image, ((x * 4).astype(np.uint8) + 4 * (y * 4).astype(np.uint8))


def draws(count=40, width=48, height=32, size=(96, 64), **named):
    image, label = scene(*size)
    return [
        augment(image, label, width, height, np.random.default_rng(seed), **named)
        for seed in range(count)
    ]


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (40, 30), (200, 50)])
def test_the_label_follows_its_image(size):
    for image, label in draws(size=size):
        assert image.shape == (32, 48, 3) and label.shape == (32, 48)
        assert image.dtype == label.dtype == np.uint8
        inside = label != 255
        column, row = label % 4, label // 4
        for channel, field in ((0, column), (1, row)):
            value = image[..., channel].astype(float) / 255 * 4
            # A field's pixels show the places of that field; at its border the image is blended,
            # within a source pixel or two.
            assert (np.abs(value - field - 0.5)[inside] < 0.5 + 16 / min(size)).mean() > 0.97


def test_scale_one_shows_the_whole_of_the_shorter_side():
    image, label = scene(96, 32)
    places = set()
    for seed in range(30):
        crop, ids = augment(
            image, label, 48, 48, np.random.default_rng(seed), scales=(1.0, 1.0), mirror=0.0
        )
        assert (ids != 255).all() and set(ids[:, 0] // 4) == {0, 1, 2, 3}
        assert crop[..., 1].min() < 12 and crop[..., 1].max() > 243
        places.add(int(crop[0, 0, 0]))
    assert len(places) > 10 and min(places) < 30 and max(places) > 255 * 0.6


def test_scales_reach_both_ends_and_below_one_the_rest_is_grey_and_ignored():
    fractions = [(label != 255).mean() for _, label in draws(200, scales=(0.5, 2.0))]
    assert 0.25 <= min(fractions) < 0.3 and max(fractions) == 1
    assert 0.55 < np.mean([fraction == 1 for fraction in fractions]) < 0.8
    for image, label in draws(20, scales=(0.5, 0.5)):
        assert (label != 255).mean() == 0.25
        (top, left), (bottom, right) = (
            edge(np.argwhere(label != 255), axis=0) for edge in (np.min, np.max)
        )
        image = image.copy()
        image[max(top - 3, 0) : bottom + 4, max(left - 3, 0) : right + 4] = (
            GREY  # as far as the resizing filter reaches
        )
        assert (image == GREY).all()
    sizes = [len(np.unique(label)) for _, label in draws(20, scales=(4.0, 4.0))]
    assert max(sizes) <= 4  # a quarter of each side: one field, or parts of four


def test_mirroring_turns_image_and_label():
    for (plain, ids), (turned, turned_ids) in zip(draws(5, mirror=0.0), draws(5, mirror=1.0)):
        assert (plain[:, ::-1] == turned).all() and (ids[:, ::-1] == turned_ids).all()
    fraction = np.mean([(a[0] != b[0]).any() for a, b in zip(draws(200), draws(200, mirror=0.0))])
    assert 0.4 < fraction < 0.6


def test_the_generator_decides_and_four_numbers_are_drawn():
    image, label = scene(96, 64)
    for scales in ((0.5, 0.5), (1.0, 2.0)):
        rng, twin = np.random.default_rng(3), np.random.default_rng(3)
        first = augment(image, label, 48, 32, rng, scales=scales)
        assert rng.random() == twin.random(5)[4]
        again = augment(image, label, 48, 32, np.random.default_rng(3), scales=scales)
        assert (first[0] == again[0]).all() and (first[1] == again[1]).all()


def test_a_crop_of_the_image_s_own_size_is_the_image():
    image, label = scene(48, 32)
    crop, ids = augment(
        image, label, 48, 32, np.random.default_rng(0), scales=(1.0, 1.0), mirror=0.0
    )
    assert (crop == image).all() and (ids == label).all()
    assert image.base is None
    assert not np.shares_memory(augment(image, label, 48, 32, np.random.default_rng(0))[0], image)


def test_tiny_images_and_ignored_ids_pass():
    crop, ids = augment(
        np.full((1, 1, 3), 9, np.uint8),
        np.full((1, 1), 255, np.uint8),
        32,
        16,
        np.random.default_rng(0),
    )
    assert crop.shape == (16, 32, 3) and (ids == 255).all()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((np.zeros((8, 8), np.uint8), 4, 4, {}), "expected \\[H, W, 3\\]"),
        ((np.zeros((6, 8), np.uint8), 0, 4, {}), "a crop of 0x4"),
        ((np.zeros((6, 8), np.uint8), 4, 4, {"scales": (2.0, 1.0)}), "low <= high"),
        ((np.zeros((6, 8), np.uint8), 4, 4, {"scales": (0, 1)}), "0 <"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    label, width, height, named = arguments
    with pytest.raises(ValueError, match=words):
        augment(
            np.zeros((6, 8, 3), np.uint8), label, width, height, np.random.default_rng(0), **named
        )


# Colours
# --------------------------------------------------------------------------------------------------


def test_recolouring_changes_saturation_contrast_and_brightness_and_0_changes_nothing():
    image = scene(30, 20)[0]
    np.testing.assert_array_equal(recolour(image, np.random.default_rng(0), 0.0), image)
    grey = np.tile(image[..., :1], (1, 1, 3))
    means, spreads = [], []
    for seed in range(200):
        found = recolour(image // 2 + 32, np.random.default_rng(seed), 0.2)
        assert found.dtype == np.uint8 and found.shape == image.shape
        means.append(found.mean() / (image // 2 + 32).mean())
        spreads.append(found.std() / (image // 2 + 32).std())
        again = recolour(grey, np.random.default_rng(seed), 0.2)
        assert np.ptp(again.astype(int), -1).max() == 0  # what has no colour gets none
    assert (
        0.75 < min(means) < 0.83 and 1.17 < max(means) < 1.25
    )  # brightness, and a little what is cut off
    assert min(spreads) < 0.75 and max(spreads) > 1.25  # times contrast


def test_recolouring_draws_as_many_numbers_whatever_its_strength():
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    recolour(scene(8, 8)[0], one, 0.0)
    recolour(scene(8, 8)[0], other, 0.5)
    assert one.random() == other.random()
