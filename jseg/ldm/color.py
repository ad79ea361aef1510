"""Colour transfer: give one image the colour statistics of another, in CIE LAB (Reinhard et al.
2001, global).

Mirrors `Normalize` of the official guided_diffusion/script_util.py, which the release applies
before stages 1 and 2: per LAB channel s <- (s - mean_s) * (std_t / std_s) + mean_t, over the whole
image.
"""

from __future__ import annotations

from typing import Tuple

import cv2
import numpy as np

LAB_LOW, LAB_HIGH = (0.0, -128.0, -128.0), (100.0, 127.0, 127.0)
# A spread below half a level of 8-bit LAB cannot be seen in the source; stretching it further would
# show rounding as colour.
LEAST_SPREAD = 0.5
WHITE = np.array([0.950456, 1.0, 1.088754])
RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)


def transfer(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB `image` with the mean and deviation of uint8 [h, w, 3] `reference`, as
    the release computes it.

    8-bit LAB (L * 255 / 100, a + 128, b + 128), means and deviations rounded to two decimals,
    result rounded and clipped.
    """
    source = cv2.cvtColor(_image(image, "image"), cv2.COLOR_RGB2LAB)
    target = cv2.cvtColor(_image(reference, "reference"), cv2.COLOR_RGB2LAB)
    source_mean, source_std = _rounded_statistics(source)
    target_mean, target_std = _rounded_statistics(target)

    # release: a channel without spread divides by zero (NaN cast to uint8); here: it is only
    # shifted.
    spread = source_std > 0
    scale = np.where(spread, target_std / np.where(spread, source_std, 1.0), 1.0)
    centred = source.astype(np.float32) - source_mean.astype(np.float32)
    moved = centred * scale.astype(np.float32) + target_mean.astype(np.float32)
    moved = np.clip(np.round(moved), 0, 255).astype(np.uint8)
    return cv2.cvtColor(moved, cv2.COLOR_LAB2RGB)


def transfer_signed(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The same in float LAB without 8-bit steps: float [3, H, W] in [-1, 1] -> float32 [3, H, W] in
    [-1, 1].

    Values of `image` outside [-1, 1] are clipped first, colours outside the RGB cube last. Used by
    the `fine` preset.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[0] != 3 or image.size == 0:
        raise ValueError(
            f"colour transfer: image has shape {image.shape}; expected [3, H, W] in [-1, 1]"
        )
    pixels = np.clip(image.transpose(1, 2, 0), -1.0, 1.0).astype(np.float64)  # [H, W, 3]
    source = _lab_from_rgb((pixels + 1.0) / 2.0)
    target = _lab_from_rgb(_image(reference, "reference") / 255.0)

    # LAB is clipped where its 8-bit form ends, so that too bright colours saturate as in
    # `transfer`.
    scale = target.std((0, 1)) / np.maximum(source.std((0, 1)), LEAST_SPREAD)
    moved = (source - source.mean((0, 1))) * scale + target.mean((0, 1))
    rgb = _rgb_from_lab(np.clip(moved, LAB_LOW, LAB_HIGH))
    return np.ascontiguousarray((rgb * 2.0 - 1.0).transpose(2, 0, 1).astype(np.float32))


def _lab_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """sRGB [H, W, 3] in [0, 1] -> CIE LAB, white point D65: L in 0..100, a and b in units of their
    8-bit form.

    Not OpenCV's float conversion, which interpolates in a table and is wrong by up to 0.5, gray
    included (measured, 4.11).
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ (RGB_TO_XYZ / WHITE[:, None]).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])],
        axis=-1,
    )


def _rgb_from_lab(lab: np.ndarray) -> np.ndarray:
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2)
    linear = np.clip(xyz @ np.linalg.inv(RGB_TO_XYZ / WHITE[:, None]).T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _rounded_statistics(lab: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    mean, std = cv2.meanStdDev(lab)
    return np.around(mean[:, 0], 2), np.around(std[:, 0], 2)


def _image(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(
            f"colour transfer: {what} is {array.dtype} {array.shape}; expected uint8 [H, W, 3] RGB"
        )
    return np.ascontiguousarray(array)
