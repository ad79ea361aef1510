"""Image file <-> array: the only place with 127.5, RGB, resizing and saving.

Mirrors the release's `Image.open(...)`, `label.resize((128, 96), NEAREST)` and `custom_to_pil`
(image_sample.py, image_datasets.py), with every mode of image converted on purpose and every
unreadable file named. Arrays: images uint8 [H, W, 3] RGB, labels uint8 [H, W] of class ids,
network side float32 [3, H, W] in [-1, 1].
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import List, Tuple

import numpy as np
from PIL import Image

from jseg.files import PathLike, write_atomic
from jseg.image_files.decoding import (
    Header,
    ImageError,
    ImageFile,
    decode,
    header_of,
    open_image,
    read_file,
    several_frames,
    stored_bits,
    white_is_zero,
)
from jseg.image_files.orientation import upright

BLACK_LEVEL, BLACK_PART = 8, 0.999  # of 255; of the pixels
EMPTY_LEVEL = 16  # of 255: deep colours that stay below it use 12 of 16 bits at most


@dataclass(frozen=True, eq=False)
class ImageReading:
    """An image of a file, and what a person should know of how it was read.

    pixels: uint8 [H, W, 3] RGB.
    """

    pixels: np.ndarray
    remarks: List[str]
    header: Header
    file: ImageFile


@dataclass(frozen=True, eq=False)
class _Reduced:
    """An image in 8 bits a channel; what it was reduced from, or ""; whether the upper bits of its
    colours were empty.
    """

    image: Image.Image
    reduced_from: str = ""
    empty: bool = False


def read_image(path: PathLike) -> np.ndarray:
    """Read an image of any mode as uint8 [H, W, 3] RGB.

    Alpha is composited over white, the orientation is applied, of several frames the first is
    taken. Deeper gray is reduced to 8 bits: integers from the smallest of 8, 12 and 16 bits that
    holds them, floating-point from 0..1 or 0..255. Raises ImageError when the file is missing, is
    no image, is truncated, or holds other values. release: `Image.open` without conversion, so
    gray, RGBA and rotated files crash; here: converted.
    """
    return _decoded(read_file(path), "image")[0]


def examine_image(path: PathLike, what: str = "image") -> ImageReading:
    """Read an image as `read_image` does, with remarks that call it `what`; raises ImageError."""
    file = read_file(path)
    pixels, header, remarks = _decoded(file, what)
    if pixels.size and (pixels == pixels[:1, :1]).all():
        remarks.append(f"{what}s are of one colour")
    elif (pixels.max(axis=2) <= BLACK_LEVEL).mean() >= BLACK_PART:
        remarks.append(f"{what}s are nearly black")
    return ImageReading(pixels, remarks, header, file)


def _decoded(file: ImageFile, what: str) -> Tuple[np.ndarray, Header, List[str]]:
    """(pixels uint8 [H, W, 3], header, remarks on what was done to them)."""
    with open_image(file) as pillow:
        header, bits = header_of(pillow), stored_bits(pillow)
        inverted, several = white_is_zero(pillow), several_frames(pillow)
        decode(pillow, file.path)
        reduced = _eight_bits(upright(pillow), file.path, bits, inverted)
        pixels = np.array(_to_rgb(reduced.image), dtype=np.uint8)

    remarks = []
    if header.mode != "RGB":
        remarks.append(f"{what}s are not plain RGB and are converted: {header.mode}")
    if reduced.reduced_from:
        remarks.append(f"{what}s are reduced from {reduced.reduced_from}")
    if reduced.empty:
        remarks.append(
            f"{what}s have {bits} bits a channel of which the upper ones are empty, so they "
            "come out dark; scale their values to the whole range, or save 8 bits"
        )
    if several:
        remarks.append(f"{what}s hold several frames or pages, of which the first is taken")
    if header.turned:
        remarks.append(f"{what}s are turned as their EXIF orientation says")
    return pixels, header, remarks


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W, 3] to [height, width, 3] with Pillow's antialiased Lanczos.

    The same array comes back if it has that size already.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.LANCZOS))


def resize_label(label: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W] class ids to [height, width] with Pillow's NEAREST, as the release does.

    The same array comes back if it has that size already.
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
    clipped = np.clip(array, -1.0, 1.0).astype(np.float32)
    levels = (clipped + np.float32(1.0)) / np.float32(2.0) * np.float32(255.0)
    if rounding == "round":
        levels = np.rint(levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def jpeg_round_trip(image: np.ndarray, quality: int = 75, subsampling: str = "4:2:0") -> np.ndarray:
    """Encode uint8 [H, W, 3] as JPEG and decode it again, in memory.

    The defaults are Pillow's, so this is what the release does between two stages.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    buffer.seek(0)
    with Image.open(buffer) as pil:
        return np.array(pil)


def save_image(
    path: PathLike, image: np.ndarray, quality: int = 95, subsampling: str = "4:4:4"
) -> None:
    """Write uint8 [H, W, 3], or a label map [H, W] as PNG, whole or not at all.

    The suffix says the format: .jpg, .jpeg or .png. Equal images give equal bytes. Raises
    ImageError for another suffix; OSError (disk full) passes through.
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


def _eight_bits(image: Image.Image, path: PathLike, bits: int, inverted: bool) -> _Reduced:
    """The image in 8 bits a channel; inverted: whether its file says that 0 is white.

    Raises ImageError for values whose range is not known.
    """
    if inverted and image.mode in ("F", "I"):
        raise ImageError(
            f"{path} is a {bits}-bit image in which 0 is white; expected that of 8 or 16 bits "
            "alone, convert it first"
        )
    if image.mode == "F":
        return _from_floats(image, path)
    if image.mode.startswith("I"):
        return _from_integers(image, path, bits, inverted)
    if bits <= 8:
        return _Reduced(image)

    # Pillow itself keeps the upper 8 bits of deeper colours.
    colours = image if image.mode == "CMYK" else image.convert("RGB")
    brightest = max(top for _, top in colours.getextrema())
    return _Reduced(colours, f"{bits} bits", brightest < EMPTY_LEVEL)


def _from_floats(image: Image.Image, path: PathLike) -> _Reduced:
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite(values).all() or low < 0 or high > 255:
        raise ImageError(
            f"{path} is a floating-point image with values {low:g}..{high:g}; expected 0..1 or "
            "0..255, convert it to 8-bit RGB first"
        )
    top = 1 if high <= 1 else 255
    levels = np.rint(values * (255 / top)).astype(np.uint8)
    return _Reduced(Image.fromarray(levels), f"floating-point values, taken as 0..{top}")


def _from_integers(image: Image.Image, path: PathLike, bits: int, inverted: bool) -> _Reduced:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{path} is a 32-bit image with values {values.min()}..{values.max()}; expected "
            "values of 8 or 16 bits, 0..255 or 0..65535, convert it first"
        )
    if inverted:
        values = 2**bits - 1 - values

    # The smallest of 8, 12 and 16 bits that holds all values is their range.
    top = next(top for top in (255, 4095, 65535) if values.max() <= top)
    levels = ((values * 255 + top // 2) // top).astype(np.uint8)
    taken = "" if top == 65535 else f", their values taken as 0..{top}"
    return _Reduced(Image.fromarray(levels), f"{max(bits, 16)} bits{taken}")
