"""Picture or label file <-> array: the only place with 127.5, RGB, resizing and saving.

Mirrors the release's `Image.open(...)`, `label.resize((128, 96), NEAREST)` and `custom_to_pil` (image_sample.py,
image_datasets.py), with every mode of picture converted on purpose and every unreadable file named.
Arrays: pictures uint8 [H, W, 3] RGB, labels uint8 [H, W] of class ids, network side float32 [3, H, W] in [-1, 1].
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image, ImageOps

from jseg.atomic import PathLike, remove_stale_temporaries, write_atomic  # noqa: F401  callers need one door for files
from jseg.sheet import contact_sheet  # noqa: F401

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000")
EXIF_ORIENTATION = 0x0112


class ImageError(ValueError):
    """A picture or label file that cannot be used; one line: the file, what it is, what was expected, what to do."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded; width and height as seen, after EXIF orientation."""
    format: str
    mode: str
    width: int
    height: int
    turned: bool


def read_header(path: PathLike) -> Header:
    """Format, mode and size of a picture file, without decoding it; raises ImageError."""
    with _opened(path) as image:
        turned = _orientation(image) != 1
        width, height = image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size
        return Header(image.format or "unknown", image.mode, width, height, turned)


def read_picture(path: PathLike) -> np.ndarray:
    """Read a picture of any mode as uint8 [H, W, 3] RGB.

    Alpha is composited over white, the EXIF orientation is applied, 16-bit gray is scaled to 8 bits, of several frames
    the first is taken. Raises ImageError when the file is missing, is no picture, or is truncated.
    release: `Image.open` without conversion, so gray, RGBA and rotated files crash; here: converted.
    """
    with _opened(path) as image:
        _decode(image, path)
        if _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(image, path), dtype=np.uint8)


def read_label(path: PathLike) -> np.ndarray:
    """Read a label map as uint8 [H, W] of class ids, from an 8-bit gray or palette (indices) file.

    Raises ImageError, with the remedy, for colour, 16-bit, floating-point, 1-bit and lossily compressed files.
    """
    with _opened(path) as image:
        mode, file_format = image.mode, image.format
        bits = _png_bit_depth(image)
        if mode not in ("L", "P") or file_format in LOSSY_FORMATS:
            _decode(image, path)
            raise ImageError(_label_complaint(path, image))
        _decode(image, path)
        label = np.array(image, dtype=np.uint8)
    if mode == "L" and bits in (2, 4):
        # Pillow stretches 2- and 4-bit gray to 0..255; ids are the stored values.
        label //= 255 // (2 ** bits - 1)
    return label


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


@contextmanager
def _opened(path: PathLike) -> Iterator[Image.Image]:
    """The file as a lazily opened Pillow image; every failure inside becomes an ImageError that names the file."""
    path = Path(path)
    if path.is_dir():
        raise ImageError("%s is a folder; expected a picture file" % path)
    if not path.exists():
        raise ImageError("%s does not exist; expected a picture file" % path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open(path, "rb") as file:
                with Image.open(file) as image:
                    yield image
    except (ImageError, MemoryError):
        raise
    except PermissionError:
        raise ImageError("%s cannot be read: permission denied; check its access rights" % path) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("%s claims more than %d million pixels; expected an ordinary picture, make it smaller"
                         % (path, Image.MAX_IMAGE_PIXELS // 1000000)) from None
    except Image.UnidentifiedImageError:
        size = path.stat().st_size
        what = "is empty (0 bytes)" if size == 0 else "is not a picture (%d bytes of another format, or damaged)" % size
        raise ImageError("%s %s; expected a JPEG or PNG file, copy or make it again" % (path, what)) from None
    except Exception as error:
        # Pillow's decoders raise half a dozen unrelated types on damaged files (OSError, SyntaxError, struct.error, ...).
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError("%s is truncated or damaged (%s); copy or make it again" % (path, reason)) from None


def _decode(image: Image.Image, path: PathLike) -> None:
    """Decode the first frame completely; of a PNG also check the checksums, which decoding alone does not."""
    if image.format == "PNG":
        with Image.open(path) as twin:
            twin.verify()
    image.load()


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        # Asking for the EXIF block of a PNG that has none would decode the whole picture.
        return 1
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        # A damaged EXIF block must not make a good picture unreadable.
        return 1


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


def _png_bit_depth(image: Image.Image) -> int:
    """Bits per sample of a PNG, byte 24 of the file (IHDR comes first); 8 for other formats."""
    if image.format != "PNG":
        return 8
    position = image.fp.tell()
    image.fp.seek(24)
    depth = image.fp.read(1)[0]
    image.fp.seek(position)
    return depth


def _label_complaint(path: PathLike, image: Image.Image) -> str:
    expected = "expected an 8-bit single-channel PNG of class ids"
    if image.format in LOSSY_FORMATS:
        return "label %s is a %s file, whose lossy compression changes ids; %s, export it again" % (path, image.format, expected)
    if image.mode.startswith("I"):
        low, high = image.getextrema()
        return "label %s is a 16-bit picture with values %d..%d; %s, save the ids as 8 bits" % (path, low, high, expected)
    if image.mode == "1":
        return "label %s is a 1-bit (black and white) picture; %s, save the ids as 8 bits" % (path, expected)
    if image.mode == "F":
        return "label %s is a floating-point picture; %s, save the ids as 8 bits" % (path, expected)
    bands = np.asarray(image.convert("RGB"))
    if (bands == bands[:, :, :1]).all():
        return "label %s has mode %s with equal channels (gray saved in colour); %s, save one channel" % (path, image.mode, expected)
    return "label %s has mode %s and looks like a colour-coded map; %s, turn its colours back into ids" % (path, image.mode, expected)
