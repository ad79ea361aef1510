"""An image or label file, read once and opened by Pillow: every failure is one line that names the
file.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Iterator, Tuple

from PIL import Image

from jseg.files import DataError, PathLike
from jseg.image_files.kinds import recognized
from jseg.image_files.orientation import LARGEST_XMP, orientation, xmp_of_gif
from jseg.image_files.png import SIGNATURE, without_ballast

COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
# Pillow opens these, but no photograph is kept in them: documents, films, measurements, pointers.
NO_PHOTOGRAPHS = "PDF EPS WMF MPEG FLI HDF5 GRIB BUFR FITS IPTC CUR PALM".split()
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
LARGEST_FILE = 1 << 32  # bytes; no image that Pillow accepts needs as many

# Tags of a TIFF.
REDUCED = 254  # NewSubfileType: 1 for a smaller copy of another page, 4 for a mask of one
WIDTH, HEIGHT, BITS = 256, 257, 258
PHOTOMETRIC = 262  # 0: the smallest value is white
SAMPLES, PLANAR = 277, 284  # SamplesPerPixel, PlanarConfiguration
SUB_PAGES, DNG_VERSION = 330, 50706


def _suffixes() -> Tuple[str, ...]:
    """Those of all still images that the installed Pillow opens, the common ones first."""
    Image.init()
    known = {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if (name in Image.OPEN or name == "MPO") and name not in NO_PHOTOGRAPHS
    }
    return COMMON_SUFFIXES + tuple(sorted(known - set(COMMON_SUFFIXES)))


IMAGE_SUFFIXES = _suffixes()


class ImageError(ValueError):
    """An image or label file that cannot be used.

    One line: the file, what it is, what was expected, what to do.
    """


@dataclass(frozen=True)
class ImageFile:
    """An image or label file that was read once: its digest and its pixels come from `data`."""

    path: Path
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded.

    width and height are those that are seen, after its orientation; turned says whether that is
    another than the stored one.
    """

    format: str
    mode: str
    width: int
    height: int
    turned: bool


def read_file(path: PathLike) -> ImageFile:
    """Read all bytes of an image or label file; raises ImageError."""
    with _open(Path(path)) as file:
        size = file.seek(0, 2)
        if size > LARGEST_FILE:
            raise ImageError(
                f"{path} has {size} bytes; expected an image file of at most {LARGEST_FILE} bytes"
            )
        file.seek(0)
        try:
            return ImageFile(Path(path), file.read())
        except OSError as error:
            raise _damaged(path, error) from None


def read_header(path: PathLike) -> Header:
    """Format, mode and size of an image file, without decoding it; raises ImageError."""
    with _open(Path(path)) as file, _pillow_image(Path(path), file, pixels=False) as image:
        return header_of(image)


@contextmanager
def open_image(file: ImageFile) -> Iterator[Image.Image]:
    """The file as a Pillow image that is not decoded yet; failures inside become ImageErrors."""
    with _pillow_image(file.path, BytesIO(file.data)) as image:
        yield image


def header_of(image: Image.Image) -> Header:
    """The header of an image that is not decoded yet."""
    turn = orientation(image)
    width, height = image.size
    if image.format == "TIFF":
        # Pillow swaps the size of some turned TIFFs as it opens them; the tags keep what is stored.
        width, height = int(image.tag_v2[WIDTH]), int(image.tag_v2[HEIGHT])
    if turn in (5, 6, 7, 8):
        width, height = height, width
    return Header(image.format or "unknown", image.mode, width, height, turn != 1)


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; expected an image file")
    if not path.exists():
        raise ImageError(f"{path} does not exist; expected an image file")
    if not path.is_file():
        raise ImageError(f"{path} is a pipe, a socket or a device; expected an image file")
    try:
        return open(path, "rb")
    except PermissionError:
        raise ImageError(
            f"{path} cannot be read: permission denied; check its access rights"
        ) from None
    except OSError as error:
        raise _damaged(path, error) from None


@contextmanager
def _pillow_image(path: Path, file: BinaryIO, pixels: bool = True) -> Iterator[Image.Image]:
    """What Pillow makes of a file; without `pixels` it cannot be decoded, and less of a PNG is
    read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # Pillow warns at half of the size that it refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)

            start = file.read(len(SIGNATURE))
            gif_xmp = xmp_of_gif(file.read(LARGEST_XMP)) if start[:4] == b"GIF8" else None
            file.seek(0)
            with Image.open(without_ballast(file, pixels) if start == SIGNATURE else file) as image:
                if gif_xmp:
                    image.info["xmp"] = gif_xmp
                yield image
    except (ImageError, DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\d+", str(error))
        raise ImageError(
            f"{path} claims {int(claimed.group()) if claimed else 'too many'} pixels; expected at "
            f"most {2 * (Image.MAX_IMAGE_PIXELS or 0)}, make it smaller"
        ) from None
    except Image.UnidentifiedImageError:
        raise ImageError(_unidentified(path, file)) from None
    except Exception as error:
        # Pillow's decoders raise half a dozen unrelated types on damaged files (OSError,
        # SyntaxError, struct.error, ...).
        raise _damaged(path, error) from None


def _damaged(path: PathLike, error: Exception) -> ImageError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImageError(f"{path} is truncated or damaged ({reason}); copy or make it again")


def _unidentified(path: Path, file: BinaryIO) -> str:
    """The line on a file that Pillow does not open: what it is and what to do, if its bytes
    tell.
    """
    size = file.seek(0, 2)
    if size == 0:
        return f"{path} is empty (0 bytes); expected a JPEG or PNG file, copy or make it again"
    known = recognized(file)
    if known is None:
        return (
            f"{path} is not an image ({size} bytes of another format, or damaged); expected a "
            "JPEG or PNG file, copy or make it again"
        )
    what, remedy = known
    return (
        f"{path} is {what}, not an image that is read here; expected a JPEG or PNG file, {remedy}"
    )


def decode(image: Image.Image, path: PathLike) -> None:
    """Decode the first frame completely, and check the checksums of a PNG, which decoding does not.

    Raises ImageError for what Pillow would decode into something else than is stored.
    """
    tags, bits = getattr(image, "tag_v2", {}), stored_bits(image)
    if tags.get(PLANAR) == 2 and tags.get(SAMPLES, 1) > 1 and bits > 8:
        raise ImageError(
            f"{path} is a TIFF of {bits} bits whose channels are stored one after the other, "
            "which is not read; expected them pixel by pixel (PlanarConfiguration 1) or 8 bits, "
            "save it so"
        )
    if int(tags.get(REDUCED, 0)) & 1 and (DNG_VERSION in tags or SUB_PAGES in tags):
        raise ImageError(
            f"{path} is the raw file of a camera, whose first image is a small preview; expected a "
            "JPEG or PNG file, develop it to one"
        )
    if image.format == "PNG":
        with Image.open(BytesIO(image.fp.getvalue())) as twin:
            twin.verify()
    image.load()


def stored_bits(image: Image.Image) -> int:
    """Bits per sample of an image that is not decoded yet; 8 where its format does not say."""
    if image.format == "PNG":
        return image.fp.getbuffer()[24]  # IHDR comes first
    depth = getattr(image, "tag_v2", {}).get(BITS)
    if depth is not None:
        return int(depth[0] if isinstance(depth, tuple) else depth)
    if image.mode.startswith("I;16") or image.format == "PPM" and image.mode == "I":
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF that is not decoded yet says that its smallest value is white.

    Pillow inverts such files of 8 bits and less as it decodes them, and no others.
    """
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def several_frames(image: Image.Image) -> bool:
    """Whether a file that is not decoded yet has more frames or pages than the one that is read.

    Smaller copies and masks of it do not count, nor the layers of a Photoshop file, nor the sizes
    of an icon.
    """
    if image.format == "PNG":
        return image.fp.frames > 1
    if image.format == "PSD":
        return False
    if image.format != "TIFF":
        return bool(getattr(image, "is_animated", False))

    page = 0
    try:
        while True:
            page += 1
            image.seek(page)
            if not int(image.tag_v2.get(REDUCED, 0)) & 5:
                return True
    except EOFError:
        return False
    except Exception:
        # A page that cannot be read is a page all the same, and leaves the first one good.
        return True
    finally:
        image.seek(0)
