"""One reader of label maps: the same ids however they are stored, and a word about every reading
that is not plain.
"""

import io

import numpy as np
import pytest
from PIL import Image
from support.deep_images import chunk, png_of
from support.refusals import refusal

from jseg.data.census import Census
from jseg.data.classes import CLASS_SETS, colorize
from jseg.data.label_maps import read_label, read_values
from jseg.data.numbering import Numbering, with_map
from jseg.files import DataError
from jseg.image_files.decoding import ImageError

LANDSCAPE = CLASS_SETS["landscape-29"]
IDS = (np.arange(24 * 32).reshape(24, 32) // 5 % 4).astype(np.uint8)  # 0 ... 3, in short runs


def png(array, depth, colour_type=0, extra=b""):
    """A PNG of `array` [H, W] of samples, packed to `depth` bits."""
    height, width = array.shape
    bits = (array[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    return png_of(width, height, depth, colour_type, raw, extra)


def plte(colours):
    return chunk(b"PLTE", np.asarray(colours, np.uint8).tobytes())


def saved(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def palette_image(indices, colours, kind="PNG"):
    image = Image.fromarray(indices, "L").copy()
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


ORDER = np.array([2, 0, 3, 1], np.uint8)  # where an optimiser puts the entries
SHUFFLED = np.argsort(ORDER).astype(np.uint8)
PGM = b"P5\n32 24\n28\n"


GRAYS = np.arange(256)[:, None].repeat(3, 1)
OWN, SAID = colorize(IDS, LANDSCAPE), "colours of landscape-29"
VOC = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
WAYS = {
    # name: (content, what is said of it)
    "8-bit PNG": (png(IDS, 8), ""),
    "2-bit PNG": (png(IDS, 2), "2-bit gray"),
    "4-bit PNG": (png(IDS, 4), "4-bit gray"),
    "16-bit PNG": (png(IDS, 16), "16-bit gray"),
    "16-bit TIFF": (saved(IDS.astype(np.uint16), "TIFF"), "16-bit gray"),
    "32-bit TIFF": (saved(IDS.astype(np.int32), "TIFF"), "32-bit gray"),
    "8-bit BMP": (saved(IDS, "BMP"), ""),
    "8-bit PGM": (saved(IDS, "PPM"), ""),
    "8-bit TGA": (saved(IDS, "TGA"), ""),
    "PGM whose largest value is 28": (PGM + IDS.tobytes(), ""),
    "PGM whose largest value is 300": (
        PGM.replace(b"28", b"300") + IDS.astype(">u2").tobytes(),
        "16-bit gray",
    ),
    "plain PGM": (b"P2\n32 24\n28\n" + b" ".join(b"%d" % v for v in IDS.ravel()), ""),
    "gray palette in order": (palette_image(IDS, GRAYS[:4]), "gray palette"),
    "gray palette out of order": (
        palette_image(SHUFFLED[IDS], GRAYS[ORDER]),
        "index is another number",
    ),
    "2-bit gray palette": (png(SHUFFLED[IDS], 2, 3, plte(GRAYS[ORDER])), "gray palette"),
    "palette of the class set": (palette_image(SHUFFLED[IDS], LANDSCAPE.palette[ORDER]), SAID),
    "GIF of its colours": (palette_image(SHUFFLED[IDS], LANDSCAPE.palette[ORDER], "GIF"), SAID),
    "lossless WebP of its colours": (saved(OWN, "WEBP", lossless=True), SAID),
    "RGB of its colours": (saved(OWN, "PNG"), SAID),
    "RGB of its colours in BMP": (saved(OWN, "BMP"), SAID),
    "coloured palette of another program": (palette_image(IDS, VOC), "indices"),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_store_the_same_ids_reads_the_same(tmp_path, name):
    content, word = WAYS[name]
    (tmp_path / "map.png").write_bytes(content)
    reading = Numbering.of(29).read(tmp_path / "map.png")
    assert np.array_equal(reading.ids, IDS)
    assert (reading.remarks == []) == (word == "") and word in "".join(reading.remarks)


def test_one_bit_is_zero_and_one(tmp_path):
    (tmp_path / "map.png").write_bytes(png(IDS % 2, 1))
    assert np.array_equal(read_label(tmp_path / "map.png"), IDS % 2)
    assert "1-bit gray" in read_values(tmp_path / "map.png").reading


def test_colours_go_by_the_data_set_s_own_numbering(tmp_path):
    classes = CLASS_SETS["ade20k-150"]
    ids = np.where(IDS == 3, 255, IDS * 40).astype(np.uint8)
    Image.fromarray(colorize(ids, classes)).save(tmp_path / "map.png")
    found = Numbering.of(classes).read(tmp_path / "map.png").ids
    assert np.array_equal(found, ids)  # black is what is ignored
    assert sorted(np.unique(read_label(tmp_path / "map.png", classes))) == [0, 1, 41, 81]


@pytest.mark.parametrize("value", [-1, 29, 255, 256, 300, 65535])
def test_values_beyond_the_classes_are_named_with_their_share(tmp_path, value):
    wide = IDS.astype(np.int32)
    wide[:6] = value
    Image.fromarray(wide).save(tmp_path / "map.tif")
    line = refusal(Numbering.of(29).read, tmp_path / "map.tif", kind=DataError)
    assert f"outside 0..28: {value} (25 %)" in line


def test_one_colour_that_is_not_in_the_class_set_is_named(tmp_path):
    image = colorize(IDS, LANDSCAPE)
    image[0, 0] = 1, 2, 3
    Image.fromarray(image).save(tmp_path / "map.png")
    said = r"1 of its 5 colours is not in landscape-29, such as \(1, 2, 3\)"
    with pytest.raises(ImageError, match=said):
        Numbering.of(29).read(tmp_path / "map.png")


def test_transparent_colours_are_no_ids(tmp_path):
    rgba = np.dstack([colorize(IDS, LANDSCAPE), np.full(IDS.shape, 255, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    assert np.array_equal(Numbering.of(29).read(tmp_path / "opaque.png").ids, IDS)
    rgba[3, 3, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "hole.png")
    with pytest.raises(ImageError, match="mode RGBA with transparent pixels"):
        Numbering.of(29).read(tmp_path / "hole.png")


ADE20K, CAMVID = CLASS_SETS["ade20k-150"], CLASS_SETS["camvid-11"]


@pytest.mark.parametrize(
    "classes, entries, ids",
    [
        (ADE20K, ADE20K.palette, [0, 6]),  # wall and road: (120, 120, 120), (140, 140, 140)
        (CAMVID, CAMVID.palette, [0]),  # sky: (128, 128, 128)
        (CAMVID, CAMVID.palette[:1], [0]),  # the same after a program dropped what is not used
        (29, GRAYS[:29], [0]),  # black is the id 0 here, and no ignored colour
    ],
    ids=["ade20k", "camvid", "camvid, used entries alone", "grays"],
)
def test_gray_colours_among_others_are_colours_and_grays_alone_are_ids(
    tmp_path, classes, entries, ids
):
    wanted = np.resize(np.array(ids, np.uint8), IDS.shape)
    (tmp_path / "map.png").write_bytes(palette_image(wanted, entries))
    assert np.array_equal(Numbering.of(classes).read(tmp_path / "map.png").ids, wanted)


def test_gray_entries_of_an_unknown_coloured_palette_go_by_index_as_its_others_do(tmp_path):
    voc = [*VOC, [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128]]
    (tmp_path / "map.png").write_bytes(palette_image(IDS // 2 * 7, voc))
    assert sorted(np.unique(read_label(tmp_path / "map.png"))) == [0, 7]


@pytest.mark.parametrize("name", ["landscape-29", "camvid-11"])
def test_black_alone_of_another_palette_is_an_index_and_of_the_classes_palette_nothing_known(
    tmp_path, name
):
    """A map of background alone, in a data set whose palette is VOC's, is no map of ignored
    pixels.
    """
    classes, voc = CLASS_SETS[name], [*VOC, [0, 0, 128], [64, 64, 9], [9, 9, 64]]
    (tmp_path / "voc.png").write_bytes(palette_image(IDS * 0, voc))
    assert (Numbering.of(classes).read(tmp_path / "voc.png").ids == 0).all()
    (tmp_path / "own.png").write_bytes(
        palette_image(IDS * 0 + 3, np.concatenate([classes.palette[:3], [[0, 0, 0]]]))
    )
    assert (Numbering.of(classes).read(tmp_path / "own.png").ids == 255).all()


def test_a_palette_filled_up_with_black_contradicts_no_other(tmp_path):
    """Background 0 and void 255 are both black: each of two files may use one of them alone."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:4] = [[0, 0, 0], [9, 9, 200], [200, 9, 9], [9, 200, 9]]
    census, numbering = Census(), Numbering.of(5, [255])
    for name, ids in (("a", IDS), ("b", np.where(IDS == 0, 255, IDS))):
        (tmp_path / f"{name}.png").write_bytes(palette_image(ids.astype(np.uint8), colours))
        numbering.read(tmp_path / f"{name}.png", census)
    assert census.check_readings() == []


def test_colours_of_the_classes_beside_another_palette_are_told(tmp_path):
    census, numbering = Census(), Numbering.of(29)
    (tmp_path / "a.png").write_bytes(palette_image(IDS, LANDSCAPE.palette[:4]))
    (tmp_path / "b.png").write_bytes(
        palette_image(IDS, [[9, 9, 200], [200, 9, 9], [9, 200, 9], [90, 90, 9]])
    )
    for name in "ab":
        numbering.read(tmp_path / f"{name}.png", census)
    (line,) = census.check_readings()
    assert line.startswith(
        "warning: some label maps are in the classes' colours (a.png), others have another palette"
    )


def test_palettes_in_different_orders_are_no_ids(tmp_path):
    """What oxipng and Pillow's quantize make of maps with an unknown palette: the index of a colour
    changes from file to file.
    """
    colours = np.array([[9, 9, 200], [200, 9, 9], [9, 200, 9], [90, 90, 9]])
    for name, order in (("a", [0, 1, 2, 3]), ("b", [0, 1, 2, 3]), ("c", ORDER)):
        order = np.array(order)
        (tmp_path / f"{name}.png").write_bytes(
            palette_image(np.argsort(order).astype(np.uint8)[IDS], colours[order])
        )
    census, numbering = Census(), Numbering.of(5)
    for name in "ab":
        numbering.read(tmp_path / f"{name}.png", census)
    with pytest.raises(
        DataError,
        match="c.png has the colour .* at index 0 of its palette, a.png at 2: "
        ".*save the maps as 8-bit gray",
    ):
        numbering.read(tmp_path / "c.png", census)


def test_palettes_of_grays_beside_palettes_of_colours_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(
        palette_image(IDS, [[9, 9, 200], [70, 70, 70], [9, 200, 9], [90, 90, 9]])
    )
    (tmp_path / "b.png").write_bytes(palette_image(IDS * 0, [[70, 70, 70]]))
    census, numbering = Census(), Numbering.of(71)
    for name in "ab":
        numbering.read(tmp_path / f"{name}.png", census)
    with pytest.raises(DataError, match=r"grays alone \(b.png\), others of colours \(a.png\)"):
        census.check_readings()


def test_maps_of_few_bits_beside_others_are_told(tmp_path):
    """oxipng stores 0 and 17 of an 8-bit file as 0 and 1 of 4 bits."""
    census, numbering = Census(), Numbering.of(29)
    for name, content in (("a", png(IDS, 8)), ("b", png(IDS // 2, 4)), ("zeros", png(IDS * 0, 1))):
        (tmp_path / f"{name}.png").write_bytes(content)
        numbering.read(tmp_path / f"{name}.png", census)
    (line,) = census.check_readings()
    assert line.startswith(
        "warning: 1 label map is gray of 1, 2 or 4 bits (b.png) beside others of 8 (a.png)"
    )
    alone = Census()
    numbering.read(tmp_path / "b.png", alone)
    assert alone.check_readings() == []


@pytest.mark.parametrize(
    "array, options, words",
    [
        (IDS, {"compression": "jpeg"}, "lossy compression changes ids"),
        (IDS, {"tiffinfo": {262: 0}}, "white is 0"),
        (IDS % 2 > 0, {"tiffinfo": {262: 0}}, "white is 0"),
    ],
    ids=["jpeg", "white is 0", "white is 0, one bit"],
)
def test_tiffs_that_show_other_numbers_than_they_store_are_refused(tmp_path, array, options, words):
    Image.fromarray(array).save(tmp_path / "map.tif", **options)
    with pytest.raises(ImageError, match=words):
        read_label(tmp_path / "map.tif")


def test_the_first_of_several_pages_is_taken_with_a_word(tmp_path):
    Image.fromarray(IDS).save(
        tmp_path / "map.tif", save_all=True, append_images=[Image.fromarray(IDS * 0)]
    )
    reading = Numbering.of(29).read(tmp_path / "map.tif")
    ids, remarks = reading.ids, reading.remarks
    assert np.array_equal(ids, IDS)
    assert remarks == ["label maps are of several frames, of which the first is taken"]


@pytest.mark.parametrize("void", [-1, 256, 65535])
def test_void_of_any_value_is_ignored_or_mapped_when_it_is_named(tmp_path, void):
    wide = IDS.astype(np.int32)
    wide[0] = void
    Image.fromarray(wide).save(tmp_path / "map.tif")
    ids = Numbering.of(29, [void]).read(tmp_path / "map.tif").ids
    assert (ids[0] == 255).all() and np.array_equal(ids[1:], IDS[1:])
    if void > 0:
        ids = Numbering.of(with_map(LANDSCAPE, [f"{void}:28"])).read(tmp_path / "map.tif").ids
        assert (ids[0] == 28).all() and np.array_equal(ids[1:], IDS[1:])
    assert Numbering.of(29, [void]).key != Numbering.of(29).key == Numbering.of(29).table.tobytes()


@pytest.mark.parametrize("colours", [16, 64, 256])
def test_a_photograph_in_few_colours_is_no_label_map(tmp_path, colours):
    rows, columns = np.mgrid[:96, :128]
    image = np.stack([rows * 2, columns * 2, (rows + columns)], axis=-1)
    image = (
        (image + np.random.default_rng(0).normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8)
    )
    Image.fromarray(image).quantize(colours).save(tmp_path / "map.png")
    with pytest.raises(ImageError, match=f"reduced to a palette of {colours} colours"):
        Numbering.of(29).read(tmp_path / "map.png")


def test_an_orientation_turns_a_label_map_like_its_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IDS).save(tmp_path / "map.png", exif=exif)
    reading = Numbering.of(29).read(tmp_path / "map.png")
    ids, remarks = reading.ids, reading.remarks
    assert np.array_equal(ids, np.rot90(IDS, -1)) and "turned" in remarks[0]


def test_ignored_values_may_be_of_any_depth(tmp_path):
    wide = IDS.astype(np.uint16)
    wide[0] = 255
    Image.fromarray(wide).save(tmp_path / "map.png")
    assert (Numbering.of(29, [255]).read(tmp_path / "map.png").ids[0] == 255).all()
