"""Picture or label file <-> array: the only place with 127.5, RGB, resizing and saving.

Mirrors the release's `Image.open(...)`, `label.resize((128, 96), NEAREST)` and `custom_to_pil` (image_sample.py,
image_datasets.py), with every mode of picture converted on purpose and every unreadable file named.
Arrays: pictures uint8 [H, W, 3] RGB, labels uint8 [H, W] of class ids, network side float32 [3, H, W] in [-1, 1].
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jseg.atomic import PathLike, remove_stale_temporaries, write_atomic  # noqa: F401  callers need one door for files
from jseg.image_file import Header, ImageError, decode, opened, read_header, upright  # noqa: F401
from jseg.label_maps import read_label  # noqa: F401
from jseg.sheet import contact_sheet  # noqa: F401

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")


def read_picture(path: PathLike) -> np.ndarray:
    """Read a picture of any mode as uint8 [H, W, 3] RGB.

    Alpha is composited over white, the EXIF orientation is applied, 16-bit gray is scaled to 8 bits, of several frames
    the first is taken. Raises ImageError when the file is missing, is no picture, or is truncated.
    release: `Image.open` without conversion, so gray, RGBA and rotated files crash; here: converted.
    """
    with opened(path) as image:
        decode(image, path)
        return np.array(_to_rgb(upright(image), path), dtype=np.uint8)


def resize_picture(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W, 3] to [height, width, 3] with Pillow's antialiased Lanczos; the same array if already that size."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.array(Image.fromarray(picture).resize((width, height), Image.LANCZOS))


def resize_label(label: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 [H, W] class ids to [height, width] as Pillow's NEAREST does (the release's label resize)."""
    if label.shape == (height, width):
        return label
    return np.array(Image.fromarray(label).resize((width, height), Image.NEAREST))


def to_signed(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [-1, 1]: x / 127.5 - 1."""
    signed = picture.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return np.ascontiguousarray(signed.transpose(2, 0, 1))


def from_signed(array: np.ndarray, rounding: str = "round") -> np.ndarray:
    """Float [3, H, W], clipped to [-1, 1] -> uint8 [H, W, 3].

    rounding "round" is the inverse of to_signed; "truncate" is the release's `uint8(255 * (x + 1) / 2)`, which darkens
    by half a level on average. Raises ValueError for NaN or infinite values and for an unknown rounding.
    """
    if rounding not in ("round", "truncate"):
        raise ValueError("rounding is %r; expected 'round' or 'truncate'" % (rounding,))
    if not np.isfinite(array).all():
        raise ValueError("the picture to be saved holds NaN or infinite values; check the weights (wrong network or a broken file)")
    levels = (np.clip(array, -1.0, 1.0).astype(np.float32) + np.float32(1.0)) / np.float32(2.0) * np.float32(255.0)
    if rounding == "round":
        levels = np.rint(levels)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def jpeg_round_trip(picture: np.ndarray, quality: int = 75, subsampling: str = "4:2:0") -> np.ndarray:
    """Encode uint8 [H, W, 3] as JPEG and decode it again, in memory; the defaults are Pillow's, hence the release's hand-off."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    buffer.seek(0)
    with Image.open(buffer) as image:
        return np.array(image)


def save_picture(path: PathLike, picture: np.ndarray, quality: int = 95, subsampling: str = "4:4:4") -> None:
    """Write uint8 [H, W, 3] (or a label [H, W] as PNG) whole or not at all; .jpg, .jpeg or .png by suffix.

    Equal pictures give equal bytes. Raises ImageError for another suffix; OSError (disk full) passes through.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise ImageError("cannot save %s: expected a name that ends in .jpg, .jpeg or .png" % path)
    image = Image.fromarray(picture)
    if suffix == ".png":
        write_atomic(path, lambda file: image.save(file, format="PNG"))
    else:
        write_atomic(path, lambda file: image.save(file, format="JPEG", quality=quality, subsampling=subsampling))


def _to_rgb(image: Image.Image, path: PathLike) -> Image.Image:
    mode = image.mode
    if mode.startswith("I"):
        return _sixteen_to_eight(image, path)
    if mode == "F":
        raise ImageError("%s is a floating-point picture; expected 8-bit RGB, convert it first" % path)
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _sixteen_to_eight(image: Image.Image, path: PathLike) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("%s is a 32-bit picture with values %d..%d; expected 8 or 16 bits, convert it first"
                         % (path, values.min(), values.max()))
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
