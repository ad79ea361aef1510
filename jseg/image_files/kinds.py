"""What a file is that Pillow does not open: its format by its first bytes, a TIFF's numbers."""

from __future__ import annotations

import warnings
from typing import BinaryIO, List, Optional, Tuple

from PIL import TiffImagePlugin

TO_IMAGE = "convert it to JPEG or PNG"
DEVELOP = "the raw file of a camera", "develop it to JPEG or PNG"

# (first bytes, what it is, what to do); b"?" stands for any byte.
KINDS: Tuple[Tuple[bytes, str, str], ...] = (
    (b"\xff\x0a", "JPEG XL", TO_IMAGE),
    (b"\0\0\0\x0cJXL ", "JPEG XL", TO_IMAGE),
    (b"%PDF", "a PDF document", TO_IMAGE),
    (b"%!PS", "PostScript", TO_IMAGE),
    (b"v/1\x01", "OpenEXR", TO_IMAGE),
    (b"#?RADIANCE", "Radiance HDR", TO_IMAGE),
    (b"#?RGBE", "Radiance HDR", TO_IMAGE),
    (b"gimp xcf", "a GIMP file", TO_IMAGE),
    (b"AT&TFORM", "DjVu", TO_IMAGE),
    (b"II*\0????CR", *DEVELOP),
    (b"IIU\0", *DEVELOP),
    (b"IIRO", *DEVELOP),
    (b"IIRS", *DEVELOP),
    (b"MMOR", *DEVELOP),
    (b"FUJIFILMCCD-RAW", *DEVELOP),
    (b"FOVb", *DEVELOP),
    (b"\0MRM", *DEVELOP),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG"),
    (b"\x89HDF", "an HDF5 file", "save its array as PNG"),
    (b"MATLAB", "a MATLAB file", "save its array as PNG"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS to another file", "fetch it: git lfs pull"),
    (b"RIFF????AVI ", "a film (AVI)", "save its frames as JPEG or PNG"),
    (b"\x1aE\xdf\xa3", "a film (Matroska)", "save its frames as JPEG or PNG"),
)

# Brands of the container that HEIC, AVIF and films share, by their first letters.
BRANDS = (
    ((b"hei", b"hev", b"mif", b"msf"), "HEIC", TO_IMAGE),
    ((b"avi",), "AVIF, which this Pillow does not open, or damaged", TO_IMAGE),
    ((b"crx",), *DEVELOP),
    ((b"",), "a film (MP4 or the like)", "save its frames as JPEG or PNG"),
)
WEB_PAGE = "a web page (HTML)", "download the image itself"
TEXTS = (
    (b"<svg", "a drawing (SVG)", TO_IMAGE),
    (b"<html", *WEB_PAGE),
    (b"<!doctype html", *WEB_PAGE),
)
NUMBERS = {
    1: "integers",
    2: "signed integers",
    3: "floating-point numbers",
    5: "complex integers",
    6: "complex numbers",
}
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS, COMPRESSION, SAMPLES, SAMPLE_FORMAT = 258, 259, 277, 339


def recognized(file: BinaryIO) -> Optional[Tuple[str, str]]:
    """(what a file is, what to do with it) as words of a message, or None where that is unknown.

    The file is one that Pillow does not open. OSError passes through.
    """
    file.seek(0)
    start = file.read(1024)
    if start[:4] in TIFFS and not start[8:10] == b"CR":
        return _tiff(file)

    # Names do not count: a photograph of a telephone is often called .jpg and is HEIC.
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        return next((what, remedy) for known, what, remedy in BRANDS if brand.startswith(known))
    for signature, what, remedy in KINDS:
        same = all(one in (ord("?"), other) for one, other in zip(signature, start))
        if same and len(start) >= len(signature):
            return what, remedy
    if start[128:132] == b"DICM":
        return "a DICOM file", TO_IMAGE

    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<"):
        return next(((what, remedy) for word, what, remedy in TEXTS if word in text), None)
    return None


def _tiff(file: BinaryIO) -> Tuple[str, str]:
    """What numbers a TIFF holds that Pillow cannot read, and what to do with it."""
    damaged = "a TIFF file that is truncated or damaged", "copy or make it again"
    try:
        tags = _first_tags(file)
        bits, kinds = _numbers(tags, BITS), _numbers(tags, SAMPLE_FORMAT) or [1]
        count = (_numbers(tags, SAMPLES) or [1])[0]
        packing = (_numbers(tags, COMPRESSION) or [1])[0]
    except Exception:
        # Damaged tags raise as many types of errors as damaged images.
        return damaged
    if not bits:
        return damaged

    each = "" if count == 1 else f", {count} a pixel"
    what = f"a TIFF of {bits[0]}-bit {NUMBERS.get(kinds[0], 'numbers of an unknown kind')}{each}"
    if bits[0] in (8, 16) and kinds[0] == 1 and count in (1, 3, 4):
        what += f", whose compression {packing} or arrangement is not read"
        return what, "save it without compression, or as PNG"
    fewer = "" if count in (1, 3) else ", 1 or 3 a pixel"
    return what, f"save it as integers of 8 or 16 bits{fewer}"


def _first_tags(file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2:
    file.seek(0)
    head = file.read(8)
    if head[2:3] == b"+" or head[3:4] == b"+":
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tags.load(file)
    return tags


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> List[int]:
    values = tags.get(tag, ())
    return [int(value) for value in (values if isinstance(values, tuple) else (values,))]
