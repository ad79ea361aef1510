"""Files that Pillow does not open are called what they are, whatever their name says, with what to
do.
"""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.deep_images import colours, tiff
from support.refusals import refusal

from jseg.data.label_maps import read_label
from jseg.image_files.decoding import ImageError, read_header
from jseg.image_files.kinds import recognized
from jseg.images import read_image

FILES = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "convert it"),
    "HEIC ": (b"\0\0\0\x18ftypmif1\0\0\0\0heic", "convert it"),
    "raw file of a camera": (b"\0\0\0\x18ftypcrx ", "develop it"),
    "raw file of a camera ": (b"II*\0\x10\0\0\0CR\2\0", "develop it"),
    "AVIF": (b"\0\0\0\x18ftypavif", "convert it"),
    r"film \(MP4": (b"\0\0\0\x18ftypisom", "frames"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", "convert it"),
    "JPEG XL ": (b"\xff\x0a\xfa\x1f", "convert it"),
    "PDF": (b"%PDF-1.7\n%x", "convert it"),
    "SVG": (b'<?xml version="1.0"?>\n<svg width="3">', "convert it"),
    "web page": (b"\xef\xbb\xbf <!DOCTYPE HTML>\n<title>403</title>", "download"),
    "web page ": (b"<html><body>", "download"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "ZIP": (b"PK\x03\x04\x14\0", "unpack"),
    "gzip": (b"\x1f\x8b\x08\0", "unpack"),
    "NumPy": (b"\x93NUMPY\1\0v\0{", "PNG"),
    "OpenEXR": (b"v/1\1\2\0\0\0", "convert it"),
    "DICOM": (bytes(128) + b"DICM\2\0", "convert it"),
    r"film \(AVI": (b"RIFF\0\0\0\0AVI LIST", "frames"),
    "Radiance": (b"#?RADIANCE\nFORMAT", "convert it"),
}


@pytest.mark.parametrize("read", [read_image, read_header, read_label])
@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_file_is_called_what_its_bytes_say_whatever_its_name(tmp_path, kind, read):
    content, remedy = FILES[kind]
    for name in ("x.jpg", "x.png", "x.heic"):
        (tmp_path / name).write_bytes(content + bytes(2000))
        said = f"{name} is .*{kind.strip()}.*, not an image that is read here; .*{remedy}"
        refusal(read, tmp_path / name, kind=ImageError, match=said)


@pytest.mark.parametrize(
    "dtype, kind, said",
    [
        (np.int64, 2, "64-bit signed integers"),
        (np.uint64, 1, "64-bit integers"),
        (np.float64, 3, "64-bit floating-point numbers"),
        (np.float16, 3, "16-bit floating-point numbers"),
        (np.complex64, 6, "64-bit complex numbers"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_of_numbers_that_are_not_read_says_which(
    tmp_path, dtype, kind, said, channels, recwarn
):
    tiff(
        tmp_path / "x.tif",
        (colours() if channels == 3 else colours()[..., 0]).astype(dtype),
        kind=kind,
    )
    each = ", 3 a pixel" if channels == 3 else ""
    words = f"x.tif is a TIFF of {said}{each}, not .* save it as integers of 8 or 16 bits$"
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "x.tif")
    assert not recwarn.list


@pytest.mark.parametrize(
    "dtype, kind, said",
    [(np.uint32, 1, "32-bit integers"), (np.float32, 3, "32-bit floating-point numbers")],
)
def test_deep_colours_in_a_tiff_say_what_they_are(tmp_path, dtype, kind, said):
    tiff(tmp_path / "x.tif", colours().astype(dtype), kind=kind)
    with pytest.raises(ImageError, match=f"x.tif is a TIFF of {said}, 3 a pixel, not"):
        read_image(tmp_path / "x.tif")


def test_a_tiff_of_many_bands_or_of_an_unknown_compression_says_so(tmp_path):
    bands = np.zeros((4, 4, 7), np.uint8)
    tiff(tmp_path / "x.tif", bands)
    with pytest.raises(ImageError, match="8-bit integers, 7 a pixel, not .*1 or 3 a pixel"):
        read_image(tmp_path / "x.tif")
    tiff(tmp_path / "x.tif", colours(), t259=34712)
    said = "compression 34712 or arrangement is not read.* without compression"
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("kept", [4, 8, 60, -20])
def test_a_torn_tiff_is_a_damaged_tiff(tmp_path, kept, recwarn):
    tiff(tmp_path / "x.tif", colours())
    (tmp_path / "x.tif").write_bytes((tmp_path / "x.tif").read_bytes()[:kept])
    with pytest.raises(ImageError, match="truncated or damaged.*; .*copy or make it again"):
        read_image(tmp_path / "x.tif")
    assert not recwarn.list


@pytest.mark.parametrize("tags", [{"t254": 1, "t50706": 1}, {"t254": 1, "t330": 8}])
def test_the_preview_in_a_raw_file_is_not_taken_for_the_photograph(tmp_path, tags):
    tiff(tmp_path / "x.tif", colours(), **tags)
    said = "x.tif is the raw file of a camera, whose first image is a small preview; .*develop it"
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("tags", [{"t254": 0, "t330": 8}, {"t254": 0}, {"t254": 1}])
def test_other_tiffs_with_such_tags_are_read(tmp_path, tags):
    tiff(tmp_path / "x.tif", colours(), **tags)
    assert np.array_equal(read_image(tmp_path / "x.tif"), colours())


def test_what_is_unknown_stays_unknown(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "x.png")
    png = (tmp_path / "x.png").read_bytes()
    for content in (b"hello", b"<nothing", b"ftyp", struct.pack("<I", 7), b"", png):
        assert recognized(BytesIO(content)) is None
