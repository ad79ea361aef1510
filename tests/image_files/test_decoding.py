"""Photographs as people have them: every way to say an orientation, damaged remarks, all depths,
folders of mixed files.
"""

import hashlib
import os
import zlib

import numpy as np
import pytest
from PIL import Image
from support.deep_images import chunk
from support.refusals import refusal

from jseg.data import folders, image_folder, validation
from jseg.data.label_maps import read_label, read_values
from jseg.evaluation.inputs import find_real
from jseg.files import DataError
from jseg.flowseg.segment import find_images
from jseg.image_files import decoding
from jseg.image_files.decoding import IMAGE_SUFFIXES, Header, ImageError, read_header
from jseg.images import examine_image, read_image, save_image

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".avif")
WAYS = (
    [(suffix, "exif") for suffix in SUFFIXES]
    + [(suffix, "xmp") for suffix in SUFFIXES]
    + [
        (".png", "exif text"),
        (".png", "APP1 text"),
        (".png", "xmp text"),
        (".png", "exif at the end"),
        (".gif", "xmp"),
        (".gif", "xmp of an animation"),
    ]
)


def stored_image():
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8], stored[:8, 24:] = 255, 128
    return stored


def png_with(path, extra, last=False):
    """stored_image as a PNG with further chunks behind the header, or before the end."""
    Image.fromarray(stored_image()).save(path)
    data = path.read_bytes()
    place = len(data) - 12 if last else 33
    path.write_bytes(data[:place] + extra + data[place:])


def exif_of(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def xmp_of(value):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{value}"/></x:xmpmeta>'.encode()


def write_turned(path, way, value):
    image = Image.fromarray(stored_image())
    options = (
        {"lossless": True}
        if path.suffix == ".webp"
        else {"quality": 100}
        if path.suffix in (".jpg", ".avif")
        else {}
    )
    block = exif_of(value).tobytes() if "exif" in way or "APP1" in way else b""
    block = block if block.startswith(b"Exif") else b"Exif\0\0" + block
    block = xmp_of(value) if way == "xmp text" else block
    if way == "exif":
        image.save(path, exif=exif_of(value), **options)
    elif path.suffix == ".gif":
        image.save(
            path,
            **(dict(save_all=True, append_images=[image.rotate(90)]) if "animation" in way else {}),
        )
        data = path.read_bytes()
        start = 13 + (6 << (data[10] & 7)) * (data[10] >> 7)  # behind the colours of the whole file
        trailer = (
            b"\1" + bytes(range(255, -1, -1)) + b"\0"
        )  # by which readers of blocks find the end
        path.write_bytes(
            data[:start] + b"!\xff\x0bXMP DataXMP" + xmp_of(value) + trailer + data[start:]
        )
    elif way == "xmp" and path.suffix == ".png":
        png_with(path, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_of(value)))
    elif way == "xmp":
        image.save(
            path,
            **(
                dict(tiffinfo={700: xmp_of(value)})
                if path.suffix == ".tif"
                else dict(xmp=xmp_of(value), **options)
            ),
        )
    elif way == "exif at the end":
        png_with(path, chunk(b"eXIf", block[6:]), last=True)
    else:
        name = way.split()[0].encode()
        text = b"\n" + name.lower() + b"\n%8d\n" % len(block) + block.hex().encode() + b"\n"
        png_with(path, chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text)))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix, way", WAYS)
def test_header_and_pixels_agree_however_the_orientation_is_written(tmp_path, suffix, way, value):
    path = tmp_path / ("x" + suffix)
    try:
        write_turned(path, way, value)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {suffix}")
    image, header = read_image(path), read_header(path)
    assert (header.height, header.width) == image.shape[:2] and header.turned == (value != 1)
    assert np.abs(image.astype(int) - TURNS[value](stored_image())).max() < 30


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_an_orientation_that_means_nothing_counts_as_none(tmp_path, suffix, value):
    path = tmp_path / ("x" + suffix)
    exif = exif_of(value)
    Image.fromarray(stored_image()).save(path, exif=exif)
    header = read_header(path)
    assert (header.width, header.height, header.turned) == (32, 16, False)
    assert read_image(path).shape == (16, 32, 3)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iCCP", b"icc\0\7broken"),
        chunk(b"tEXt", b"Comment\0hello", crc=1),
        chunk(b"gAMA", b"\0"),
        chunk(b"eXIf", b"junk", crc=2),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(2 << 20))),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_png_is_read_whatever_its_remarks_hold(tmp_path, extra, last):
    png_with(tmp_path / "x.png", extra, last)
    with open(tmp_path / "x.png", "ab") as file:
        file.write(b"bytes after the end")
    assert np.array_equal(read_image(tmp_path / "x.png"), stored_image())
    assert read_header(tmp_path / "x.png") == Header("PNG", "RGB", 32, 16, False)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_pixels_stays_an_error(tmp_path, kind):
    Image.fromarray(stored_image()).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    start = data.index(kind)
    data[start + 4 + int.from_bytes(data[start - 4 : start], "big")] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match="x.png is (truncated or damaged.*checksum|not an image)"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    "top, dtype, said",
    [
        (255, np.int32, "32 bits, their values taken as 0..255"),
        (255, np.uint16, "16 bits, their values taken as 0..255"),
        (4095, np.uint16, "16 bits, their values taken as 0..4095"),
        (65535, np.uint16, "16 bits"),
        (65535, np.int32, "32 bits"),
        (1, np.float32, "floating-point values, taken as 0..1"),
        (255, np.float32, "floating-point values, taken as 0..255"),
    ],
)
def test_deep_gray_keeps_its_range_and_is_told(tmp_path, top, dtype, said):
    levels = np.linspace(0, top, 64).reshape(8, 8).astype(dtype)
    Image.fromarray(levels).save(tmp_path / "x.tif")
    reading = examine_image(tmp_path / "x.tif")
    assert np.abs(reading.pixels[..., 0] - levels.astype(float) * (255 / top)).max() <= 0.5001
    assert f"images are reduced from {said}" in reading.remarks


@pytest.mark.parametrize("values", [[-1, 5], [0, 70000], [-0.5, 0.5], [0.0, 256.5], [0.0, np.nan]])
def test_values_of_no_known_range_are_refused_in_one_line(tmp_path, values):
    dtype = np.int32 if isinstance(values[0], int) else np.float32
    Image.fromarray(np.array([values], dtype)).save(tmp_path / "x.tif")
    refusal(read_image, tmp_path / "x.tif", kind=ImageError, match="x.tif.*values.*expected")


def test_black_and_flat_images_are_told_and_others_are_not(tmp_path):
    dark = np.zeros((40, 40, 3), np.uint8)
    dark[0, 0] = 7
    for name, image, said in (
        ("dark", dark, ["references are nearly black"]),
        ("flat", np.full_like(dark, 90), ["references are of one colour"]),
        ("night", dark + np.arange(40, dtype=np.uint8)[:, None], []),
    ):
        save_image(tmp_path / f"{name}.png", image)
        assert validation.check_image(tmp_path / f"{name}.png", "reference", 40, 40)[1] == said


def test_the_aspect_error_says_that_the_orientation_turned_the_image(tmp_path):
    Image.fromarray(stored_image()).save(tmp_path / "x.jpg", exif=exif_of(6))
    said = "x.jpg is 16x32 as its EXIF orientation turns it; expected 32x16"
    with pytest.raises(DataError, match=said):
        validation.check_image(tmp_path / "x.jpg", "reference", 32, 16)


def test_every_listing_takes_what_pillow_opens_and_names_the_rest(tmp_path):
    for name in ("a.jpg", "c.PNG", "d.tif"):
        Image.fromarray(stored_image()).save(tmp_path / name)
    (tmp_path / "b.jfif").write_bytes((tmp_path / "a.jpg").read_bytes())
    for name in ("e.heic", "notes.txt", "Thumbs.db", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    for listing in LISTINGS.values():
        paths, remarks = listing(tmp_path)
        assert [path.name for path in paths] == ["a.jpg", "b.jfif", "c.PNG", "d.tif"]
        assert remarks == [
            f"3 other files in {tmp_path} are left out (e.heic, Thumbs.db, notes.txt); "
            "e.heic: convert to JPEG or PNG to use them"
        ]


def training_images(root):
    examples, remarks = image_folder.find_images(root)
    return [example.image for example in examples], remarks


def segmented_images(root):
    examples, remarks = find_images([str(root)])
    return [example.image for example in examples], remarks


def real_images(root):
    return find_real(root)


LISTINGS = {"training": training_images, "segment": segmented_images, "score": real_images}


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored_image()).save(root / name)


LEFT_OUT = "left out ({}); folders in it are not looked at"
ELSEWHERE = {
    # files: (those that are taken, what is said)
    "r0.jpg r1.jpg images/i0.jpg images/i1.jpg day2/d0.jpg day2/deeper/d1.PNG": (
        "i0.jpg i1.jpg",
        [
            "2 images in {root} itself are left out, those in images/ are taken (r0.jpg, r1.jpg)",
            "2 files in folders of {root} are " + LEFT_OUT.format("day2: 2"),
        ],
    ),
    "r0.jpg r1.jpg day2/d0.jpg x/y/z/d1.jpg": (
        "r0.jpg r1.jpg",
        ["2 files in folders of {root} are " + LEFT_OUT.format("day2: 1, x: 1")],
    ),
    "imgs/i0.jpg imgs/i1.jpg imgs/more/d.jpg labels/i0.png": (
        "i0.jpg i1.jpg",
        ["1 file in folders of {root}/imgs is " + LEFT_OUT.format("more: 1")],
    ),
    "imgs/i0.jpg imgs/i1.jpg images/j.jpg": (
        "i0.jpg i1.jpg",
        ["{root} holds both imgs and images; using imgs, 1 file of images is left out"],
    ),
    "r0.jpg r1.jpg .hidden/h.jpg ._r0.jpg labels/r0.png": ("r0.jpg r1.jpg", []),
}


@pytest.mark.parametrize("listing", sorted(LISTINGS))
@pytest.mark.parametrize("there", ELSEWHERE)
def test_images_that_lie_elsewhere_are_counted_by_folder(tmp_path, listing, there):
    fill(tmp_path, *there.split())
    taken, said = ELSEWHERE[there]
    paths, remarks = LISTINGS[listing](tmp_path)
    assert [path.name for path in paths] == taken.split()
    assert remarks == [line.format(root=tmp_path) for line in said]


@pytest.mark.parametrize("listing", sorted(LISTINGS))
@pytest.mark.parametrize("name", ["imgs", "images"])
def test_a_folder_for_images_that_holds_none_gives_way_to_the_images_above_it(
    tmp_path, listing, name
):
    fill(tmp_path, "r0.jpg", "r1.jpg")
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("x")
    paths, remarks = LISTINGS[listing](tmp_path)
    assert [path.name for path in paths] == ["r0.jpg", "r1.jpg"]
    assert remarks == [f"{tmp_path / name} holds no images; those in {tmp_path} itself are taken"]


def test_images_and_label_maps_beside_the_folders_of_a_training_are_counted(tmp_path):
    fill(
        tmp_path,
        "r0.jpg",
        "imgs/a.jpg",
        "imgs/more/b.jpg",
        "labels/a.png",
        "labels/more/b.png",
        "val/imgs/c.jpg",
    )
    examples, remarks = image_folder.find_examples(tmp_path)
    assert [example.stem for example in examples] == ["a"]
    assert remarks == [
        f"1 image in {tmp_path} itself is left out, those in imgs/ are taken (r0.jpg)"
    ] + [
        f"1 file in folders of {tmp_path}/{name} is left out (more: 1); folders in it are not "
        "looked at"
        for name in ("imgs", "labels")
    ]


def test_a_search_for_what_is_left_out_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SEARCHED", 2)
    for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/4.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert folders.left_out(tmp_path, (".jpg",)) == [
        f"3 files at least in folders of {tmp_path} are left out (a: 3); folders in it are not "
        "looked at"
    ]


def test_suffixes_are_those_of_still_images():
    assert {".jpg", ".jfif", ".jpe", ".pgm", ".tga"} <= set(IMAGE_SUFFIXES)
    assert not {".pdf", ".eps", ".ps", ".mpg", ".h5", ".txt"} & set(IMAGE_SUFFIXES)
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)


@pytest.mark.parametrize("read", [read_image, read_label])
def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ImageError, match="is a pipe, a socket or a device; expected an image file"):
        read(tmp_path / "x.png")
    with pytest.raises(ImageError, match="is a pipe"):
        read_header(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "no.png", "no.tif"])
@pytest.mark.parametrize("read", [examine_image, read_values, read_header])
def test_a_file_is_opened_once_for_its_digest_and_pixels_or_for_its_fault(
    tmp_path, monkeypatch, name, read
):
    Image.fromarray(stored_image()).convert("L").save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name.startswith("no"):
        (tmp_path / name).write_bytes(content[:4] + bytes(50))
    paths = []
    monkeypatch.setattr(
        decoding, "open", lambda path, mode: paths.append(path) or open(path, mode), raising=False
    )
    try:
        reading = read(tmp_path / name)
        if read is not read_header:
            assert reading.file.sha256 == hashlib.sha256(content).hexdigest()
    except ImageError:
        assert name.startswith("no") or name == "a.jpg"  # a label map is no JPEG
    assert paths == [tmp_path / name]


def test_a_file_that_no_image_is_as_large_as_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST_FILE", 9)
    (tmp_path / "x.png").write_bytes(bytes(10))
    with pytest.raises(ImageError, match="has 10 bytes; expected an image file of at most 9 bytes"):
        read_image(tmp_path / "x.png")
