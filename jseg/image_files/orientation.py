"""How the pixels of an image file are to be turned: EXIF's orientation, or XMP's, wherever a format
keeps it.
"""

from __future__ import annotations

import re
from typing import Optional, Union

from PIL import Image

EXIF_ORIENTATION = 0x0112
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


def orientation(image: Image.Image) -> int:
    """How the pixels are to be turned, 1 to 8 as EXIF counts; 1 where the file does not say.

    EXIF counts before XMP, in a block of its own or in a text of a PNG. Values without a meaning
    are 1. Pillow turns a TIFF as it decodes it and then forgets the tag: 1.
    """
    try:
        # A PNG's own getexif would decode the image; all its metadata come before the pixels here.
        exif = Image.Image.getexif(image)
        value = exif.get(EXIF_ORIENTATION)
        if value is None and image.format == "PNG":
            value = _exif_in_text(image.info.get("Raw profile type APP1"))
        if value is None and image.format != "TIFF":
            value = _orientation_in_xmp(_xmp(image))
        return int(value) if value is not None and int(value) in TURNS else 1
    except Exception:
        # A damaged EXIF block must not make a good image unreadable.
        return 1


def upright(image: Image.Image) -> Image.Image:
    """The decoded image as it is meant to be seen: turned as its orientation says."""
    turn = orientation(image)
    return image.transpose(TURNS[turn]) if turn != 1 else image


def xmp_of_gif(content: bytes) -> Optional[bytes]:
    """The XMP block in the first bytes of a GIF, which Pillow does not keep, or None."""
    place = content.find(GIF_XMP)
    return content[place + len(GIF_XMP) :] if place >= 0 else None


def _exif_in_text(text: Optional[str]) -> Optional[int]:
    """The orientation in an EXIF block that ImageMagick wrote in hexadecimal, or None."""
    if not text:
        return None
    data = _hexadecimal(text)
    exif = Image.Exif()
    exif.load(data)
    return exif.get(EXIF_ORIENTATION) if data.startswith(b"Exif") else None


def _hexadecimal(text: str) -> bytes:
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _xmp(image: Image.Image) -> Union[bytes, str, None]:
    """The XMP block of an image file, wherever its format keeps it, or None."""
    block = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    text = image.info.get("Raw profile type xmp")
    return _hexadecimal(text) if text and not block else block


def _orientation_in_xmp(block: Union[bytes, str, None]) -> Optional[str]:
    text = block.decode("utf-8", "replace") if isinstance(block, bytes) else block
    match = XMP_ORIENTATION.search(text) if text else None
    return match and match.group(1)
