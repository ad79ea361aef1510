"""Random crops of an image with its label map: scale, place and mirroring from a random generator.

The scale is relative to the smallest at which the image covers the crop, so 1 crops the longer
side alone (as SemFlow does) and values around 1 are the scale jitter usual for segmentation. The
paper names augmentation without saying which; this choice is ours.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.images import resize_image, resize_label

GREY = 128  # of the surroundings, whose label is 255; nearly 0 in [-1, 1]


def augment(
    image: np.ndarray,
    label: np.ndarray,
    width: int,
    height: int,
    rng: np.random.Generator,
    scales: Tuple[float, float] = (0.5, 2.0),
    mirror: float = 0.5,
) -> Tuple[np.ndarray, np.ndarray]:
    """(image uint8 [height, width, 3], label uint8 [height, width]), the same crop of an image
    [H, W, 3] and its label map [H, W].

    scales: the scale is drawn evenly between the two; below 1 the image may end inside the crop,
    whose rest is grey and 255. mirror: the probability of mirroring. Four numbers are drawn
    whatever the options. The image is resized by Lanczos, the label by nearest. Raises ValueError
    for a label of another size than the image, for scales not 0 < low <= high, and for an empty
    crop.
    """
    if image.ndim != 3 or label.shape != image.shape[:2]:
        raise ValueError(
            f"augment: an image {list(image.shape)} with a label {list(label.shape)}; expected "
            "[H, W, 3] and [H, W]"
        )
    if not 0 < scales[0] <= scales[1] or min(width, height) < 1:
        raise ValueError(
            f"augment: scales {scales}, a crop of {width}x{height}; expected 0 < low <= high and "
            "a crop of 1x1 or more"
        )
    # The window of the image that becomes the crop.
    scale, across, down, mirrored = rng.random(4)
    cover = max(width / image.shape[1], height / image.shape[0])
    zoom = cover * (scales[0] + (scales[1] - scales[0]) * scale)
    columns = _window(image.shape[1], max(1, round(width / zoom)), across)
    rows = _window(image.shape[0], max(1, round(height / zoom)), down)

    # Image by Lanczos, label by nearest, both mirrored or none.
    crop = resize_image(_cut(image, rows, columns, GREY), width, height)
    ids = resize_label(_cut(label, rows, columns, IGNORED), width, height)
    if mirrored < mirror:
        crop, ids = crop[:, ::-1], ids[:, ::-1]
    return np.ascontiguousarray(crop), np.ascontiguousarray(ids)


def recolour(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """An image uint8 [H, W, 3] with its saturation, contrast and brightness each times a factor
    drawn from 1 - strength to 1 + strength.

    Three numbers are drawn whatever the strength, 0 to below 1; 0 gives the image itself.
    """
    saturation, contrast, brightness = 1 + strength * (2 * rng.random(3) - 1)
    if strength == 0:
        return image
    values = image.astype(np.float32)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)[:, None]  # [H, W, 1]
    mean = float(grey.mean(dtype=np.float64))
    values = brightness * (mean + contrast * (grey + saturation * (values - grey) - mean))
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _window(length: int, size: int, place: float) -> Tuple[int, int]:
    """(start, stop) of `size` pixels of an axis; those beyond its `length` are spread over both
    ends.
    """
    spare = length - size
    distance = int(np.floor(place * (abs(spare) + 1)))
    start = distance if spare >= 0 else -distance
    return start, start + size


def _cut(
    array: np.ndarray, rows: Tuple[int, int], columns: Tuple[int, int], fill: int
) -> np.ndarray:
    """array [H, W, ...] within (start, stop) of rows and columns, `fill` outside the array."""
    height, width = array.shape[:2]
    (top, bottom), (left, right) = rows, columns
    inside = array[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape[:2] == (bottom - top, right - left):
        return inside
    padded = np.full((bottom - top, right - left) + array.shape[2:], fill, array.dtype)
    y, x = max(-top, 0), max(-left, 0)
    padded[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return padded
