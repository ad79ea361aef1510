"""Reading any image, refusing bad ones in one line, exact conversions, and files that are whole
or absent.
"""

import functools
import io
import os
import struct

import numpy as np
import pytest
from PIL import Image
from support import refusals
from support.deep_images import png_of

from jseg.data.label_maps import read_label
from jseg.image_files.decoding import Header, ImageError, read_header
from jseg.images import (
    from_signed,
    jpeg_round_trip,
    read_image,
    resize_image,
    resize_label,
    save_image,
    to_signed,
)


def gradient(height=12, width=16):
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [rows * 255 // (height - 1), columns * 255 // (width - 1), (rows + columns) * 9 % 256],
        axis=-1,
    ).astype(np.uint8)


refusal = functools.partial(refusals.refusal, kind=ImageError)


# -- reading images ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.fromarray(gradient()).convert(mode).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (12, 16, 3) and image.flags.writeable
    expected = np.asarray(Image.fromarray(gradient()).convert(mode).convert("RGB")).astype(int)
    assert np.abs(image - expected).max() <= 2


def test_alpha_is_composited_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 100, [[0, 128, 255]] * 2
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    alpha = rgba[..., 3:] / 255.0
    expected = rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)
    assert np.abs(image - expected).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [[[255, 255, 255], [200, 100, 50]]]


@pytest.mark.parametrize(
    "orientation, turn",
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8], stored[:8, 24:] = 255, 128
    Image.fromarray(stored).save(tmp_path / "x.jpg", quality=100, exif=exif)
    seen, header = read_image(tmp_path / "x.jpg"), read_header(tmp_path / "x.jpg")
    assert np.abs(seen.astype(int) - turn(stored)).max() < 20
    assert (header.height, header.width) == seen.shape[:2] and header.turned == (orientation != 1)


def test_orientation_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "x.png"), np.rot90(gradient(), -1))
    assert read_header(tmp_path / "x.png") == Header("PNG", "RGB", 12, 16, True)


def test_damaged_exif_does_not_spoil_a_good_image(tmp_path):
    Image.fromarray(gradient()).save(
        tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\x00\x09"
    )
    assert read_image(tmp_path / "x.jpg").shape == (12, 16, 3)


def test_sixteen_bit_gray_is_scaled(tmp_path):
    values = np.array([[0, 1, 128, 129, 257, 32768, 65535]], np.uint16)
    (tmp_path / "x.png").write_bytes(png_of(7, 1, 16, 0, b"\0" + values.astype(">u2").tobytes()))
    image = read_image(tmp_path / "x.png")
    assert (image == image[..., :1]).all()
    assert image[0, :, 0].tolist() == np.rint(values[0] / 257.0).astype(int).tolist()


def test_first_frame_of_several(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif") == [255, 0, 0]).all()


def jpeg_bytes(**options):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        buffer, "JPEG", **options
    )
    return buffer.getvalue()


def png_bytes():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 29, (64, 64), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "0 bytes"),
        (b"hello", "not an image"),
        (jpeg_bytes()[:20], "damaged"),
        (jpeg_bytes()[:1500], "truncated"),
        (jpeg_bytes(progressive=True)[:1500], "truncated"),
        (png_bytes()[:600], "truncated"),
        (png_bytes()[:-12], "truncated"),
        (flipped(png_bytes(), 300), "damaged"),
        (flipped(png_bytes(), 20), "damaged"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_label])
def test_unreadable_files_are_named(tmp_path, read, content, word):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    line = refusal(read, path)
    assert str(path) in line and word in line


def test_missing_file_and_folder(tmp_path):
    for path, word in ((tmp_path / "no.png", "does not exist"), (tmp_path, "folder")):
        line = refusal(read_image, path)
        assert str(path) in line and word in line


def test_decompression_bomb(tmp_path, monkeypatch):
    save_image(tmp_path / "x.png", gradient())
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 96
    )  # Pillow raises above twice this; the image has 192 pixels.
    assert read_image(tmp_path / "x.png").shape == (12, 16, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 95)
    line = refusal(read_image, tmp_path / "x.png")
    assert "claims 192 pixels; expected at most 190" in line


# -- reading labels --------------------------------------------------------------------------------


def test_gray_and_palette_labels_give_stored_values(tmp_path):
    ids = np.arange(29, dtype=np.uint8).reshape(1, 29).repeat(3, axis=0)
    save_image(tmp_path / "l.png", ids)
    palette = Image.fromarray(ids).copy()
    palette.putpalette(list(range(255, -1, -1)) * 3)
    assert palette.mode == "P"
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_label(tmp_path / "l.png"), ids)
    assert np.array_equal(read_label(tmp_path / "p.png"), ids)


@pytest.mark.parametrize(
    "depth, raw, ids", [(2, b"\0\x1b", [0, 1, 2, 3]), (4, b"\0\x0f\x5c", [0, 15, 5, 12])]
)
def test_low_bit_depth_labels_are_not_stretched(tmp_path, depth, raw, ids):
    (tmp_path / "x.png").write_bytes(png_of(4, 1, depth, 0, raw))
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() != [
        ids
    ]  # what Pillow alone makes of it
    assert read_label(tmp_path / "x.png").tolist() == [ids]


@pytest.mark.parametrize(
    "mode, words",
    [
        ("RGB", "colour-coded"),
        ("RGBA", "colour-coded"),
        ("equal", "equal channels"),
        ("LA", "LA"),
        ("16", "holds values 0..300"),
        ("F", "floating-point"),
        ("jpeg", "lossy"),
    ],
)
def test_labels_of_other_kinds_are_refused_with_remedy(tmp_path, mode, words):
    path = tmp_path / ("x.tif" if mode == "F" else "x.png")
    if mode == "16":
        path.write_bytes(png_of(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0, 300)))
    elif mode == "jpeg":
        Image.fromarray(gradient()[..., 0]).save(path, "JPEG")
    else:
        image = gradient() if mode != "equal" else gradient()[..., :1].repeat(3, axis=2)
        Image.fromarray(image).convert("RGB" if mode == "equal" else mode).save(path)
    message = refusal(read_label, path)
    assert str(path) in message and words in message and "8-bit single-channel" in message


# -- sizes and ranges ------------------------------------------------------------------------------


def test_resize_label_is_the_release_nearest():
    label = np.random.default_rng(0).integers(0, 29, (384, 512), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(label).resize((128, 96), Image.NEAREST))
    assert np.array_equal(resize_label(label, 128, 96), expected)
    assert np.array_equal(expected, label[2::4, 2::4])
    assert resize_label(label, 512, 384) is label


def test_resize_image_averages_what_it_shrinks():
    checks = (
        (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    )
    small = resize_image(checks, 16, 8)
    assert small.shape == (8, 16, 3) and np.abs(small.astype(int) - 128).max() <= 3
    assert resize_image(checks, 64, 64) is checks


def test_signed_round_trip_is_exact():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=2)
    signed = to_signed(levels)
    assert signed.shape == (3, 16, 16) and signed.dtype == np.float32
    assert (signed.min(), signed.max()) == (-1.0, 1.0)
    assert np.array_equal(signed, (levels.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1))
    assert np.array_equal(from_signed(signed), levels)


def test_truncation_is_the_release_and_half_a_level_darker():
    x = np.random.default_rng(1).uniform(-1.1, 1.1, (3, 40, 50)).astype(np.float32)
    release = (
        np.clip((x + np.float32(1.0)) / np.float32(2.0) * np.float32(255.0), 0, 255)
        .transpose(1, 2, 0)
        .astype(np.uint8)
    )
    assert np.array_equal(from_signed(x, "truncate"), release)
    bias = from_signed(x, "round").astype(float).mean() - release.astype(float).mean()
    assert 0.4 < bias < 0.5


def test_from_signed_refuses_nan_and_unknown_rounding():
    with pytest.raises(ValueError, match="NaN"):
        from_signed(np.full((3, 2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="rounding"):
        from_signed(np.zeros((3, 2, 2), np.float32), "up")


def test_jpeg_round_trip_equals_pillow_defaults(tmp_path):
    image = gradient(48, 64)
    Image.fromarray(image).save(tmp_path / "x.jpg")
    assert np.array_equal(jpeg_round_trip(image), np.asarray(Image.open(tmp_path / "x.jpg")))


# -- writing ---------------------------------------------------------------------------------------


def test_saved_bytes_are_equal_and_faithful(tmp_path):
    image = gradient(48, 64)
    for name in ("a.jpg", "b.jpg", "c.png", "d.PNG"):
        save_image(tmp_path / name, image)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    assert np.array_equal(read_image(tmp_path / "d.PNG"), image)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).mean() < 2
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b.jpg", "c.png", "d.PNG"]
    with pytest.raises(ImageError, match="x.gif"):
        save_image(tmp_path / "x.gif", image)


def test_disk_full_while_saving_an_image(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_image(tmp_path / "x.jpg", gradient())
    assert os.listdir(tmp_path) == []


def test_target_without_folder_or_being_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it"):
        save_image(tmp_path / "no" / "x.jpg", gradient())
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(OSError):
        save_image(tmp_path / "x.jpg", gradient())
    assert os.listdir(tmp_path) == ["x.jpg"]
