"""Images of more than 8 bits and of more than one frame: the right range, or a word, or one line
of refusal.
"""

import struct

import numpy as np
import pytest
from PIL import Image
from support.deep_images import colours, png, tiff

from jseg.data.label_maps import read_label
from jseg.image_files.decoding import ImageError, open_image, read_file, several_frames
from jseg.images import examine_image, read_image, save_image

DARK = (
    "images have 16 bits a channel of which the upper ones are empty, so they come out dark; "
    "scale their values to the whole range, or save 8 bits"
)
FRAMES = "images hold several frames or pages, of which the first is taken"


# -- more than 8 bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    "factor, dark", [(257, False), (64, False), (16, True), (4, True), (1, True)]
)
def test_deep_colours_whose_upper_bits_are_empty_are_told(tmp_path, suffix, factor, dark):
    path = tmp_path / ("x" + suffix)
    (png if suffix == ".png" else tiff)(path, colours().astype(np.uint16) * factor)
    reading = examine_image(path)
    assert "images are reduced from 16 bits" in reading.remarks
    assert (DARK in reading.remarks) == dark
    assert np.array_equal(reading.pixels, colours().astype(int) * factor // 256)


def test_neither_transparency_nor_plain_8_bits_count_as_empty_bits(tmp_path):
    alpha = np.full((12, 16, 1), 65535)
    png(tmp_path / "a.png", np.concatenate([colours().astype(np.uint16) * 16, alpha], 2))
    assert DARK in examine_image(tmp_path / "a.png").remarks
    save_image(tmp_path / "b.png", colours() // 20)
    assert examine_image(tmp_path / "b.png").remarks == []


@pytest.mark.parametrize(
    "array, same",
    [
        (colours()[..., 0], lambda a: a),
        (colours()[..., 0].astype(np.uint16) * 257, lambda a: a // 257),
    ],
)
def test_a_tiff_whose_smallest_value_is_white_is_no_negative_at_any_depth(tmp_path, array, same):
    top = np.iinfo(array.dtype).max
    tiff(tmp_path / "white.tif", (top - array).astype(array.dtype), photometric=0)
    tiff(tmp_path / "black.tif", array, photometric=1)
    assert np.array_equal(read_image(tmp_path / "white.tif")[..., 1], same(array))
    assert np.array_equal(read_image(tmp_path / "black.tif")[..., 1], same(array))


def test_a_white_zero_in_deeper_files_is_refused(tmp_path):
    tiff(tmp_path / "x.tif", colours()[..., 0].astype(np.float32), photometric=0, kind=3)
    with pytest.raises(ImageError, match="x.tif is a 32-bit image in which 0 is white; expected"):
        read_image(tmp_path / "x.tif")


def test_channels_one_after_the_other_are_read_in_8_bits_and_refused_in_16(tmp_path):
    tiff(tmp_path / "a.tif", colours(), planar=2)
    assert np.array_equal(read_image(tmp_path / "a.tif"), colours())
    tiff(tmp_path / "gray.tif", colours()[..., 0].astype(np.uint16) * 257, planar=1)
    assert np.array_equal(read_image(tmp_path / "gray.tif")[..., 0], colours()[..., 0])
    tiff(tmp_path / "b.tif", colours().astype(np.uint16) * 257, planar=2)
    for read in (read_image, read_label):
        said = "b.tif is a TIFF of 16 bits whose channels .* expected .*PlanarConfiguration 1.*save"
        with pytest.raises(ImageError, match=said):
            read(tmp_path / "b.tif")


# -- more than one frame ---------------------------------------------------------------------------


def save_frames(path, count, **options):
    frames = [Image.fromarray(colours())] + [Image.new("RGB", (16, 12), "red")] * (count - 1)
    lossless = {".webp": {"lossless": True}, ".avif": {"quality": 100}}.get(path.suffix, {})
    more = {"save_all": True, "append_images": frames[1:]} if count > 1 else {}
    frames[0].save(path, **more, **lossless, **options)


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.tif", "x.mpo", "x.avif"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_several_frames_the_first_is_taken_and_that_is_told(tmp_path, name, count):
    try:
        save_frames(tmp_path / name, count)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {name[1:]}")
    reading = examine_image(tmp_path / name)
    image = reading.pixels
    assert (FRAMES in reading.remarks) == (count > 1)
    to_first, to_second = (
        np.abs(image - np.array(other, int)) for other in (colours(), [255, 0, 0])
    )
    assert to_first.mean() < 40 < to_second.mean()
    assert np.array_equal(read_image(tmp_path / name), image)


@pytest.mark.parametrize("kind, counted", [(0, True), (1, False), (2, True), (4, False)])
def test_smaller_copies_and_masks_in_a_tiff_are_no_pages(tmp_path, kind, counted):
    pages = [Image.fromarray(colours()), Image.new("RGB", (8, 6))]
    pages[1].encoderinfo = {"tiffinfo": {254: kind}}
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with open_image(read_file(tmp_path / "x.tif")) as image:
        assert several_frames(image) == counted
        assert image.tell() == 0 and image.size == (16, 12)
    assert np.array_equal(read_image(tmp_path / "x.tif"), colours())


def test_a_damaged_second_page_leaves_the_first_one_good(tmp_path):
    save_frames(tmp_path / "x.tif", 2)
    data = bytearray((tmp_path / "x.tif").read_bytes())
    first = struct.unpack("<I", data[4:8])[0]
    link = first + 2 + 12 * struct.unpack("<H", data[first : first + 2])[0]
    data[link : link + 4] = struct.pack("<I", len(data) - 3)
    (tmp_path / "x.tif").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "x.tif"), colours())
