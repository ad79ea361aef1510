"""A picture or label file as Pillow opens it: every failure in one line that names the file, its size and orientation as seen."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from PIL import Image, ImageOps

from jseg.atomic import PathLike

LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
EXIF_ORIENTATION = 0x0112


class DataError(ValueError):
    """Input files that cannot be used; one line: what was given, what was expected, what to do."""


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
    with opened(path) as image:
        turned = orientation(image) != 1
        width, height = image.size[::-1] if orientation(image) in (5, 6, 7, 8) else image.size
        return Header(image.format or "unknown", image.mode, width, height, turned)


@contextmanager
def opened(path: PathLike) -> Iterator[Image.Image]:
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
    except (ImageError, DataError, MemoryError):
        raise
    except PermissionError:
        raise ImageError(
            "%s cannot be read: permission denied; check its access rights" % path
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            "%s claims more than %d million pixels; expected an ordinary picture, make it smaller"
            % (path, Image.MAX_IMAGE_PIXELS // 1000000)
        ) from None
    except Image.UnidentifiedImageError:
        size = path.stat().st_size
        what = (
            "is empty (0 bytes)"
            if size == 0
            else "is not a picture (%d bytes of another format, or damaged)" % size
        )
        raise ImageError(
            "%s %s; expected a JPEG or PNG file, copy or make it again" % (path, what)
        ) from None
    except Exception as error:
        # Pillow's decoders raise half a dozen unrelated types on damaged files (OSError, SyntaxError, struct.error, ...).
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            "%s is truncated or damaged (%s); copy or make it again" % (path, reason)
        ) from None


def decode(image: Image.Image, path: PathLike) -> None:
    """Decode the first frame completely; of a PNG also check the checksums, which decoding alone does not."""
    if image.format == "PNG":
        with Image.open(path) as twin:
            twin.verify()
    image.load()


def orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        # Asking for the EXIF block of a PNG that has none would decode the whole picture.
        return 1
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        # A damaged EXIF block must not make a good picture unreadable.
        return 1


def upright(image: Image.Image) -> Image.Image:
    """The decoded picture as it is meant to be seen: turned as its orientation says."""
    return ImageOps.exif_transpose(image) if orientation(image) != 1 else image
