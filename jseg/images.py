"""Image file <-> array: the only place with 127.5, RGB, resizing and saving.

Mirrors the release's `Image.open(...)`, `label.resize((128, 96), NEAREST)` and `custom_to_pil`
(image_sample.py, image_datasets.py), with every mode of image converted on purpose and every
unreadable file named. Arrays: images uint8 [H, W, 3] RGB, labels uint8 [H, W] of class ids,
network side float32 [3, H, W] in [-1, 1].
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import List, Tuple

import numpy as np
from PIL import Image

from jseg.files import PathLike, write_atomic
from jseg.image_files.decoding import (
    ImageError,
    decode,
    header_of,
    opened,
    several_frames,
    stored_bits,
    upright,
    white_is_zero,
)

BLACK_LEVEL, BLACK_PART = 8, 0.999  # of 255; of the pixels
EMPTY_LEVEL = 16  # of 255: deep colours that stay below it use 12 of 16 bits at most


def read_image(path: PathLike) -> np.ndarray:
    """Read an image of any mode as uint8 [H, W, 3] RGB.

    Alpha is composited over white, the orientation is applied, of several frames the first is
    taken. Deeper gray is reduced to 8 bits: integers from the smallest of 8, 12 and 16 bits that
    holds them, floating-point from 0..1 or 0..255. Raises ImageError when the file is missing, is
    no image, is truncated, or holds other values. release: `Image.open` without conversion, so
    gray, RGBA and rotated files crash; here: converted.
    """
    return examine_image(path)[0]


def examine_image(path: PathLike, what: str = "image") -> Tuple[np.ndarray, List[str]]:
    """(the image as `read_image` reads it, remarks on how, calling it `what`); raises
    ImageError.
    """
    with opened(path) as pil:
        header, bits, inverted, several = (
            header_of(pil),
            stored_bits(pil),
            white_is_zero(pil),
            several_frames(pil),
        )
        decode(pil, path)
        pil, reduced, empty = _eight_bits(upright(pil), path, bits, inverted)
        image = np.array(_to_rgb(pil), dtype=np.uint8)

    # What was done to it, then what it looks like.
    remarks = []
    if header.mode != "RGB":
        remarks.append(f"{what}s are not plain RGB and are converted: {header.mode}")
    if reduced:
        remarks.append(f"{what}s are reduced from {reduced}")
    if empty:
        remarks.append(
            f"{what}s have {bits} bits a channel of which the upper ones are empty, so they "
            f"come out dark; scale their values to the whole range, or save 8 bits"
        )
    if several:
        remarks.append(f"{what}s hold several frames or pages, of which the first is taken")
    if header.turned:
        remarks.append(f"{what}s are turned as their EXIF orientation says")
    if image.size and (image == image[:1, :1]).all():
        remarks.append(f"{what}s are of one colour")
    elif (image.max(axis=2) <= BLACK_LEVEL).mean() >= BLACK_PART:
        remarks.append(f"{what}s are nearly black")
    return image, remarks


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W, 3] to [height, width, 3] with Pillow's antialiased Lanczos; the same
    array if already that size.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.LANCZOS))


def resize_label(label: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W] class ids to [height, width] as Pillow's NEAREST does (the release's
    label resize).
    """
    if label.shape == (height, width):
        return label
    return np.array(Image.fromarray(label).resize((width, height), Image.NEAREST))


def to_signed(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [-1, 1]: x / 127.5 - 1."""
    signed = image.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(signed.transpose(2, 0, 1))


def from_signed(array: np.ndarray, rounding: str = "round") -> np.ndarray:
    """Float [3, H, W], clipped to [-1, 1] -> uint8 [H, W, 3].

    rounding "round" is the inverse of to_signed; "truncate" is the release's `uint8(255 * (x + 1) /
    2)`, which darkens by half a level on average. Raises ValueError for NaN or infinite values and
    for an unknown rounding.
    """
    if rounding not in ("round", "truncate"):
        raise ValueError(f"rounding is {rounding!r}; expected 'round' or 'truncate'")
    if not np.isfinite(array).all():
        raise ValueError(
            "the image to be saved holds NaN or infinite values; check the weights (wrong "
            "network or a broken file)"
        )
    levels = (
        (np.clip(array, -1.0, 1.0).astype(np.float32) + np.float32(1.0))
        / np.float32(2.0)
        * np.float32(255.0)
    )
    if rounding == "round":
        levels = np.rint(levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def jpeg_round_trip(image: np.ndarray, quality: int = 75, subsampling: str = "4:2:0") -> np.ndarray:
    """Encode uint8 [H, W, 3] as JPEG and decode it again, in memory; the defaults are Pillow's,
    hence the release's hand-off.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    buffer.seek(0)
    with Image.open(buffer) as pil:
        return np.array(pil)


def save_image(
    path: PathLike, image: np.ndarray, quality: int = 95, subsampling: str = "4:4:4"
) -> None:
    """Write uint8 [H, W, 3] (or a label [H, W] as PNG) whole or not at all; .jpg, .jpeg or .png by
    suffix.

    Equal images give equal bytes. Raises ImageError for another suffix; OSError (disk full)
    passes through.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise ImageError(f"cannot save {path}: expected a name that ends in .jpg, .jpeg or .png")
    pil = Image.fromarray(image)
    if suffix == ".png":
        write_atomic(path, lambda file: pil.save(file, format="PNG"))
    else:
        write_atomic(
            path,
            lambda file: pil.save(file, format="JPEG", quality=quality, subsampling=subsampling),
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(
    image: Image.Image, path: PathLike, bits: int, inverted: bool
) -> Tuple[Image.Image, str, bool]:
    """(the image in 8 bits a channel, what it was reduced from or "", whether the upper bits of its
    colours were empty).

    inverted: whether its file says that 0 is white. Raises ImageError for values of no known range.
    """
    if inverted and (image.mode == "F" or image.mode == "I"):
        raise ImageError(
            f"{path} is a {bits}-bit image in which 0 is white; expected that of 8 or 16 bits "
            "alone, convert it first"
        )
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise ImageError(
                f"{path} is a floating-point image with values "
                f"{values.min():g}..{values.max():g}; expected 0..1 or 0..255, convert it to "
                "8-bit RGB first"
            )
        top = 1 if values.max() <= 1 else 255
        return (
            Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8)),
            f"floating-point values, taken as 0..{top}",
            False,
        )
    if not image.mode.startswith("I"):
        # Pillow itself keeps the upper 8 bits of deeper colours.
        if bits <= 8:
            return image, "", False
        colours = image.convert("RGB") if image.mode != "CMYK" else image
        return image, f"{bits} bits", max(top for _, top in colours.getextrema()) < EMPTY_LEVEL

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{path} is a 32-bit image with values {values.min()}..{values.max()}; expected "
            "values of 8 or 16 bits, 0..255 or 0..65535, convert it first"
        )
    values = 2**bits - 1 - values if inverted else values
    top = next(top for top in (255, 4095, 65535) if values.max() <= top)
    levels = (values * 255 + top // 2) // top
    stored = max(bits, 16)
    reduced = f"{stored} bits" if top == 65535 else f"{stored} bits, their values taken as 0..{top}"
    return Image.fromarray(levels.astype(np.uint8)), reduced, False
