"""Colour transfer against the release's own results and against CIE LAB written out from its
formulas.
"""

import cv2
import numpy as np
import pytest
from support.places import GOLDEN
from support.refusals import refusal

from jseg.images import from_signed, to_signed
from jseg.ldm import color
from jseg.ldm.color import transfer, transfer_signed

TRANSFER = np.load(GOLDEN / "color_transfer.npz")


def lab_from_rgb(rgb):
    """sRGB in [0, 1] [H, W, 3] -> CIE LAB by OpenCV: our linearisation, then its exact path for
    linear RGB.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return cv2.cvtColor(linear.astype(np.float32), cv2.COLOR_LRGB2LAB).astype(float)


def rgb_from_lab(lab):
    """The inverse, clipped to the cube."""
    linear = np.clip(
        cv2.cvtColor(np.atleast_3d(lab).astype(np.float32).reshape(-1, 1, 3), cv2.COLOR_LAB2LRGB),
        0,
        1,
    ).reshape(np.shape(lab))
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def scene(seed, height=60, width=80):
    """A smooth image with sky, ground and texture, away from the borders of the RGB cube."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 1, height)[:, None, None]
    sky, ground = random.uniform(90, 170, 3), random.uniform(60, 140, 3)
    texture = cv2.GaussianBlur(random.normal(0, 60, (height, width, 3)), (0, 0), 2)
    return np.clip(sky * (1 - rows) + ground * rows + texture, 0, 255).astype(np.uint8)


def levels(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize("k", range(3))
def test_equals_the_release(k):
    difference = levels(
        transfer(TRANSFER[f"image_{k}"], TRANSFER[f"reference_{k}"]), TRANSFER[f"out_{k}"]
    )
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001  # measured: no value differs at all


def test_lab_of_known_colours():
    rgb = np.array(
        [[[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]], float
    )
    published = [
        [100, 0, 0],
        [0, 0, 0],
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [53.39, 0, 0],
    ]
    assert np.abs(color._lab_from_rgb(rgb)[0] - published).max() < 0.05
    cube = np.random.default_rng(0).uniform(0, 1, (100, 100, 3))
    assert np.abs(color._lab_from_rgb(cube) - lab_from_rgb(cube)).max() < 0.05
    assert np.abs(color._rgb_from_lab(color._lab_from_rgb(cube)) - cube).max() < 1e-9
    outside = (
        np.stack(np.meshgrid([0, 5, 50, 100], [-128, 0, 127], [-128, 0, 127]), axis=-1)
        .reshape(1, -1, 3)
        .astype(float)
    )
    assert np.abs(color._rgb_from_lab(outside) - rgb_from_lab(outside)).max() < 1e-3


def test_transfer_follows_the_formula():
    image, reference = scene(0), scene(1, 40, 30)
    source, target = lab_from_rgb(image / 255.0), lab_from_rgb(reference / 255.0)
    axes = (0, 1)
    moved = (source - source.mean(axes)) * target.std(axes) / source.std(axes) + target.mean(axes)
    expected = rgb_from_lab(moved) * 255
    assert transfer(image, reference).shape == image.shape
    assert np.abs(transfer(image, reference) - expected).mean() < 2
    exact = (transfer_signed(to_signed(image), reference).transpose(1, 2, 0) + 1) * 127.5
    assert np.abs(exact - expected).max() < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_both_versions_agree_on_ordinary_images(seed):
    image, reference = scene(seed), scene(seed + 10, 50, 64)
    fine = from_signed(transfer_signed(to_signed(image), reference))
    difference = levels(fine, transfer(image, reference))
    # The rest is 8-bit LAB's rounding, stretched.
    assert np.percentile(difference, 99) <= 5 and difference.mean() < 1.5


def test_statistics_become_those_of_the_reference():
    image, reference = scene(2), scene(3)
    moved = transfer_signed(to_signed(image), reference)
    result = lab_from_rgb((moved.transpose(1, 2, 0) + 1) / 2.0)
    target = lab_from_rgb(reference / 255.0)
    assert np.allclose(result.mean((0, 1)), target.mean((0, 1)), atol=0.1)
    assert np.allclose(result.std((0, 1)), target.std((0, 1)), atol=0.1)


def test_own_reference_changes_nothing():
    image = scene(4)
    assert np.abs(transfer_signed(to_signed(image), image) - to_signed(image)).max() < 2e-3
    assert levels(transfer(image, image), image).max() <= 3


def test_flat_image_is_shifted_where_the_release_divides_by_zero():
    flat, reference = np.full((8, 10, 3), (90, 120, 60), np.uint8), scene(5)
    lab, target = [
        cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) for image in (flat, reference)
    ]
    with np.errstate(all="ignore"):
        mean, std = np.around(lab.mean((0, 1)), 2), np.around(lab.std((0, 1)), 2)
        release = (lab - mean) * (target.std((0, 1)) / std) + target.mean((0, 1))
    assert np.isnan(release).all()
    expected = rgb_from_lab(lab_from_rgb(reference / 255.0).mean((0, 1))) * 255
    ours = transfer(flat, reference)
    fine = from_signed(transfer_signed(to_signed(flat), reference))
    for result in (ours, fine):
        assert (result == result[0, 0]).all() and np.abs(result[0, 0] - expected).max() <= 3
    # The other way round everything becomes the flat colour.
    assert levels(transfer(reference, flat), flat[0, 0]).max() <= 2


def test_gray_images_have_no_spread_in_colour():
    gray = scene(6)[..., :1].repeat(3, axis=2)
    for reference in (scene(7), gray):
        signed = transfer_signed(to_signed(gray), reference)
        assert np.isfinite(signed).all()
        assert levels(from_signed(signed), transfer(gray, reference)).mean() < 3


def test_signed_values_beyond_the_range_are_clipped():
    image = np.linspace(-1.5, 1.5, 3 * 16 * 16).reshape(3, 16, 16)
    result = transfer_signed(image, scene(8))
    assert result.dtype == np.float32 and result.shape == (3, 16, 16) and np.abs(result).max() <= 1
    assert np.array_equal(result, transfer_signed(np.clip(image, -1, 1), scene(8)))


def test_inputs_stay_as_they_were_and_views_work():
    image, reference = scene(9), scene(10)
    before = image.copy(), reference.copy()
    turned = transfer(image[:, ::-1], reference[::2, ::2])
    assert np.array_equal(
        turned[:, ::-1], transfer(np.ascontiguousarray(image), reference[::2, ::2].copy())
    )
    assert np.array_equal(image, before[0]) and np.array_equal(reference, before[1])


@pytest.mark.parametrize(
    "image, reference",
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
    ],
)
def test_wrong_shapes_are_explained(image, reference):
    assert "expected uint8 [H, W, 3]" in refusal(transfer, image, reference)
    with pytest.raises(ValueError, match="expected"):
        transfer_signed(np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8))
