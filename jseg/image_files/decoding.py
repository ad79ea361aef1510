"""An image or label file as Pillow opens it: every failure in one line that names the file, its
size and orientation as seen.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Iterator, Tuple

from PIL import Image

from jseg.files import DataError, PathLike
from jseg.image_files.kinds import recognized
from jseg.image_files.png import SIGNATURE, without_ballast

COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
# What Pillow knows of, but photographs are never kept in: documents, films, measurements, icons'
# pointers.
NO_PHOTOGRAPHS = (
    "PDF",
    "EPS",
    "WMF",
    "MPEG",
    "FLI",
    "HDF5",
    "GRIB",
    "BUFR",
    "FITS",
    "IPTC",
    "CUR",
    "PALM",
)
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
EXIF_ORIENTATION = 0x0112
REDUCED = 254  # TIFF's NewSubfileType: 1 for a smaller copy of another page, 4 for a mask of one
TIFF_BITS = 258  # BitsPerSample
PHOTOMETRIC = 262  # 0: the smallest value is white
SUB_PAGES, DNG_VERSION = 330, 50706
SAMPLES, PLANAR = 277, 284  # SamplesPerPixel, PlanarConfiguration
GIF_XMP = b"!\xff\x0bXMP DataXMP"
LARGEST_XMP = 1 << 20  # bytes of a GIF in which its block is looked for
XMP_ORIENTATION = re.compile(r"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9]+)")
TURNS = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}


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
    """An image or label file that cannot be used; one line: the file, what it is, what was
    expected, what to do.
    """


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded; width and height as seen, after
    its orientation.
    """

    format: str
    mode: str
    width: int
    height: int
    turned: bool


def read_header(path: PathLike) -> Header:
    """Format, mode and size of an image file, without decoding it; raises ImageError."""
    with opened(path, pixels=False) as image:
        return header_of(image)


def header_of(image: Image.Image) -> Header:
    """The header of an opened image that is not decoded yet."""
    turn = orientation(image)
    width, height = image.size
    if image.format == "TIFF":
        # Pillow swaps the size of some turned TIFFs as it opens them; the tags keep what is stored.
        width, height = int(image.tag_v2[256]), int(image.tag_v2[257])
    if turn in (5, 6, 7, 8):
        width, height = height, width
    return Header(image.format or "unknown", image.mode, width, height, turn != 1)


@contextmanager
def opened(path: PathLike, pixels: bool = True) -> Iterator[Image.Image]:
    """The file as a lazily opened Pillow image; every failure inside becomes an ImageError that
    names the file.

    pixels: whether it can be decoded; without, less of a PNG is read.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path} is a folder; expected an image file")
    if not path.exists():
        raise ImageError(f"{path} does not exist; expected an image file")
    if not path.is_file():
        raise ImageError(f"{path} is a pipe, a socket or a device; expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # Pillow warns at half of the size that it refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open(path, "rb") as file:
                start = file.read(len(SIGNATURE))
                is_png = start == SIGNATURE
                gif_xmp = _xmp_of_gif(file.read(LARGEST_XMP)) if start[:4] == b"GIF8" else None
                file.seek(0)
                with Image.open(without_ballast(file, pixels) if is_png else file) as image:
                    if gif_xmp:
                        image.info["xmp"] = gif_xmp
                    yield image
    except (ImageError, DataError, MemoryError):
        raise
    except PermissionError:
        raise ImageError(
            f"{path} cannot be read: permission denied; check its access rights"
        ) from None
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\d+", str(error))
        raise ImageError(
            f"{path} claims {int(claimed.group()) if claimed else 'too many'} pixels; expected at "
            f"most {2 * (Image.MAX_IMAGE_PIXELS or 0)}, make it smaller"
        ) from None
    except Image.UnidentifiedImageError:
        raise ImageError(_unidentified(path)) from None
    except Exception as error:
        # Pillow's decoders raise half a dozen unrelated types on damaged files (OSError,
        # SyntaxError, struct.error, ...).
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path} is truncated or damaged ({reason}); copy or make it again"
        ) from None


def _unidentified(path: Path) -> str:
    """The line on a file that Pillow does not open: what it is and what to do, if its bytes
    tell.
    """
    size = path.stat().st_size
    if size == 0:
        return f"{path} is empty (0 bytes); expected a JPEG or PNG file, copy or make it again"
    known = recognized(path)
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
    """Decode the first frame completely; of a PNG also check the checksums, which decoding alone
    does not.

    Raises ImageError for what Pillow would decode into something else than is stored.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANAR) == 2 and tags.get(SAMPLES, 1) > 1 and stored_bits(image) > 8:
        raise ImageError(
            f"{path} is a TIFF of {stored_bits(image)} bits whose channels are stored one after "
            "the other, which is not read; expected them pixel by pixel (PlanarConfiguration 1) "
            "or 8 bits, save it so"
        )
    if int(tags.get(REDUCED, 0)) & 1 and (DNG_VERSION in tags or SUB_PAGES in tags):
        raise ImageError(
            f"{path} is the raw file of a camera, whose first image is a small preview; expected a "
            f"JPEG or PNG file, develop it to one"
        )
    if image.format == "PNG":
        with Image.open(BytesIO(image.fp.getvalue())) as twin:
            twin.verify()
    image.load()


def stored_bits(image: Image.Image) -> int:
    """Bits per sample of an opened file that is not decoded yet; 8 where its format does not
    say.
    """
    if image.format == "PNG":
        return image.fp.getvalue()[24]  # IHDR comes first
    depth = getattr(image, "tag_v2", {}).get(TIFF_BITS)
    if depth is not None:
        return int(depth[0] if isinstance(depth, tuple) else depth)
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def white_is_zero(image: Image.Image) -> bool:
    """Whether an opened TIFF, not decoded yet, says that its smallest value is white.

    Pillow inverts such files of 8 bits and less as it decodes them, and no others.
    """
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def several_frames(image: Image.Image) -> bool:
    """Whether an opened file, not decoded yet, has more frames or pages than that which is decoded.

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
        # A page that cannot be read is one all the same, and leaves the first one good.
        return True
    finally:
        image.seek(0)


def orientation(image: Image.Image) -> int:
    """How the pixels are to be turned, 1 to 8 as EXIF counts; 1 for none and for values that mean
    nothing.

    Of EXIF, in its own block or in a text of a PNG, else of XMP. A decoded TIFF has been turned by
    Pillow, which then forgets the tag: 1.
    """
    try:
        # A PNG's own getexif would decode the image; all its metadata stand before the pixels
        # here.
        exif = Image.Image.getexif(image)
        value = exif.get(EXIF_ORIENTATION)
        if value is None and image.format == "PNG":
            value = _of_profile(image.info.get("Raw profile type APP1"))
        if value is None and image.format != "TIFF":
            value = _of_xmp(_xmp(image))
        return int(value) if value is not None and int(value) in TURNS else 1
    except Exception:
        # A damaged EXIF block must not make a good image unreadable.
        return 1


def _of_profile(text) -> object:
    """The orientation in an EXIF block that ImageMagick wrote in hexadecimal, or None."""
    if not text:
        return None
    data = _profile(text)
    exif = Image.Exif()
    exif.load(data)
    return exif.get(EXIF_ORIENTATION) if data.startswith(b"Exif") else None


def _profile(text: str) -> bytes:
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _xmp(image: Image.Image) -> object:
    """The XMP block of an opened file, wherever its format keeps it, or None."""
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    profile = image.info.get("Raw profile type xmp")
    if not found and profile:
        return _profile(profile)
    return found


def _xmp_of_gif(content: bytes) -> object:
    """The XMP block in the first bytes of a GIF, of which Pillow keeps nothing, or None."""
    place = content.find(GIF_XMP)
    return content[place + len(GIF_XMP) :] if place >= 0 else None


def _of_xmp(text) -> object:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    found = XMP_ORIENTATION.search(text) if text else None
    return found and found.group(1)


def upright(image: Image.Image) -> Image.Image:
    """The decoded image as it is meant to be seen: turned as its orientation says."""
    turn = orientation(image)
    return image.transpose(TURNS[turn]) if turn != 1 else image
