"""Latents of a training folder: what the release's arrays hold, encoded once, whatever happens to
the folder or to the run.
"""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.faults import all_of, drawn, moved, removed
from support.refusals import refusal
from support.tiny import HEIGHT, WIDTH, label_map, photograph

from jseg.checkpoint import load_into
from jseg.data.classes import CLASS_SETS
from jseg.data.examples import Example, with_digests
from jseg.data.image_folder import find_examples
from jseg.data.numbering import Numbering
from jseg.files import DataError
from jseg.images import read_image, resize_image, save_image, to_signed
from jseg.ldm import latent_cache
from jseg.ldm import latents as module
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.latents import prepare
from jseg.ldm.presets import AUTOENCODERS
from jseg.ldm.state_dict import autoencoder_shapes
from jseg.parity.stand_in import fill
from jseg.runtime import jt

SHA = "ab" * 32
SIZES = dict(width=WIDTH, height=HEIGHT, latent_width=WIDTH // 4, latent_height=HEIGHT // 4)


class Blocks:
    """In an autoencoder's place: every 4x4 block's first pixel, so that latents are easy to know;
    counts its calls.
    """

    config = AUTOENCODERS["tiny"]

    def __init__(self, fails_at=None, factor=1.0):
        self.calls, self.fails_at, self.factor = 0, fails_at, factor

    def encode(self, x):
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        assert tuple(x.shape) == (2, 3, HEIGHT, WIDTH), (
            "images are encoded in twos, whatever is left to do"
        )
        return jt.array(x.numpy()[:, :, ::4, ::4] * np.float32(self.factor))


@pytest.fixture
def folder(tmp_path):
    """Four pairs, PNG images so that pixels are exact."""
    root = tmp_path / "train"
    for name in ("imgs", "labels"):
        (root / name).mkdir(parents=True)
    for seed, stem in enumerate("dbca"):
        save_image(root / "imgs" / (stem + ".png"), photograph(seed))
        save_image(root / "labels" / (stem + ".png"), label_map(seed))
    return root


def test_other_colours_of_the_classes_are_another_label_map(folder):
    """Of files that have colours alone; the keys of gray files stay as they were, so trainings
    under way go on.
    """

    def classes(first):
        palette = CLASS_SETS["landscape-29"].palette.copy()
        palette[[0, first]] = palette[[first, 0]]
        return replace(CLASS_SETS["landscape-29"], palette=palette)

    gray = [prepared(folder, classes=classes(swapped))[0].digest for swapped in (0, 1)]
    assert gray[0] == gray[1]
    for path in (folder / "labels").iterdir():
        save_image(path, CLASS_SETS["landscape-29"].palette[label_map(0)])
    ids = [np.array(prepared(folder, classes=classes(swapped))[0].labels[0]) for swapped in (0, 1)]
    assert (ids[0] != ids[1]).any()
    assert np.array_equal(np.where(ids[0] < 2, 1 - ids[0], ids[0]), ids[1])


def test_colours_of_a_set_that_ships_are_no_part_of_the_key(folder):
    """They never change, and trainings on such label maps go on."""
    path = folder / "labels" / "a.png"
    save_image(path, CLASS_SETS["landscape-29"].palette[label_map(0)])
    numbering = Numbering.of(CLASS_SETS["landscape-29"])
    expected = hashlib.sha256(
        numbering.table.astype("<i2").tobytes() + hashlib.sha256(path.read_bytes()).digest()
    ).digest()
    example = with_digests(Example("a", folder / "imgs" / "a.png", path), numbering)
    assert module._label_key(example, numbering, "") == expected


def prepared(folder, autoencoder=None, cache="cache", sha=SHA, ignore=(), examples=None, **named):
    autoencoder = autoencoder or Blocks()
    examples = find_examples(folder)[0] if examples is None else examples
    return prepare(
        examples,
        autoencoder,
        folder.parent / cache,
        ignore=ignore,
        autoencoder_sha256=sha,
        **{**SIZES, **named},
    ), autoencoder


def arrays(latents):
    return latents.z.tobytes(), latents.labels.tobytes(), latents.digest


# -- what the arrays hold --------------------------------------------------------------------------


def test_each_image_is_followed_by_its_mirror_image_as_in_the_release(folder):
    latents, _ = prepared(folder, ignore=(3, 5))
    assert latents.stems == ("a", "b", "c", "d") and len(latents) == 8
    assert isinstance(latents.z, np.memmap) and latents.z.dtype == np.float32
    assert latents.z.shape == (8, 3, 12, 16)
    assert isinstance(latents.labels, np.memmap) and latents.labels.dtype == np.uint8
    assert latents.labels.shape == (8, 12, 16)
    for i, example in enumerate(find_examples(folder)[0]):
        # release: images are mirrored before they are encoded, label maps after they are resized
        image = Image.open(example.image)
        for row, seen in ((2 * i, image), (2 * i + 1, image.transpose(Image.FLIP_LEFT_RIGHT))):
            signed = (np.array(seen) / 127.5 - 1.0).astype(np.float32).transpose(2, 0, 1)
            np.testing.assert_allclose(latents.z[row], signed[:, ::4, ::4], atol=1e-6)
        label = Image.open(example.label).resize((16, 12), Image.NEAREST)
        for row, seen in ((2 * i, label), (2 * i + 1, label.transpose(Image.FLIP_LEFT_RIGHT))):
            expected = np.array(seen)
            assert np.array_equal(
                latents.labels[row], np.where(np.isin(expected, (3, 5)), 255, expected)
            )
    assert not np.array_equal(latents.z[1], latents.z[0][:, :, ::-1]), (
        "a mirrored latent is not the latent of the mirror image"
    )
    assert (latents.labels == 255).any()


def test_latents_are_the_autoencoder_s_before_the_quantiser(folder):
    config = AUTOENCODERS["tiny"]
    autoencoder = Autoencoder(config)
    load_into(autoencoder, fill(autoencoder_shapes(config)))
    autoencoder.eval()
    latents, _ = prepared(folder, autoencoder)
    image = to_signed(read_image(folder / "imgs" / "b.png"))
    with jt.no_grad():
        one, mirrored = (
            autoencoder.encode(jt.array(x[None].copy())).numpy()[0]
            for x in (image, image[:, :, ::-1])
        )
    np.testing.assert_allclose(latents.z[2], one, atol=1e-5)
    np.testing.assert_allclose(latents.z[3], mirrored, atol=1e-5)
    assert np.abs(one[:, :, ::-1] - mirrored).max() > 1e-3, "padding and stride make them differ"
    assert arrays(prepared(folder, autoencoder, "other")[0]) == arrays(latents)


def test_images_and_labels_of_another_size_are_resized(folder):
    for place, content in (("imgs", photograph(0, 128, 96)), ("labels", label_map(0, 128, 96))):
        save_image(folder / place / "a.png", content)
    latents, _ = prepared(folder)
    assert np.array_equal(
        latents.labels[0],
        np.array(Image.fromarray(label_map(0, 128, 96)).resize((16, 12), Image.NEAREST)),
    )
    assert np.array_equal(
        latents.z[0],
        to_signed(resize_image(photograph(0, 128, 96), WIDTH, HEIGHT))[:, ::4, ::4],
    )


def test_labels_in_a_data_set_s_own_numbering(folder):
    stored = np.array([0, 1, 150], np.uint8)[label_map(1) % 3]
    for path in (folder / "labels").iterdir():
        save_image(path, stored)
    latents, _ = prepared(folder, classes=CLASS_SETS["ade20k-150"])
    assert np.array_equal(
        latents.labels[0], np.array([255, 0, 149], np.uint8)[label_map(1) % 3][2::4, 2::4]
    )
    save_image(folder / "labels" / "a.png", np.full((HEIGHT, WIDTH), 151, np.uint8))
    with pytest.raises(DataError, match="a.png holds ids outside 1..150"):
        prepared(folder, classes=CLASS_SETS["ade20k-150"])


# -- made once -------------------------------------------------------------------------------------


def test_a_second_start_encodes_nothing_and_adds_nothing(folder):
    first, autoencoder = prepared(folder)
    told = []
    again, idle = prepared(folder, tell=told.append)
    # release: appends on every start, so the second has 16 rows; here: 8 again.
    assert autoencoder.calls == 4 and idle.calls == 0 and told == [] and len(again) == 8
    assert arrays(again) == arrays(first)


ADDED = all_of(drawn("imgs/aa.png", photograph(9)), drawn("labels/aa.png", label_map(9)))
RENAMED = all_of(moved("imgs/b.png", "imgs/z.png"), moved("labels/b.png", "labels/z.png"))
REFORMATTED = all_of(removed("imgs/b.png"), drawn("imgs/b.bmp", photograph(7)))
CHANGES = {
    # what is done, how many images are encoded again, and how many rows there are then
    "image": (drawn("imgs/b.png", photograph(9)), 1, 8),
    "image of another format": (REFORMATTED, 1, 8),
    "label": (drawn("labels/b.png", label_map(9)), 0, 8),
    "added": (ADDED, 1, 10),
    "removed": (removed("imgs/b.png", "labels/b.png"), 0, 6),
    "renamed": (RENAMED, 0, 8),
}


@pytest.mark.parametrize("case", sorted(CHANGES))
def test_a_changed_folder_is_noticed_and_only_what_is_new_is_encoded(folder, case):
    change, encoded, rows = CHANGES[case]
    before, _ = prepared(folder)
    digest = before.digest
    change(folder)
    after, autoencoder = prepared(folder)
    assert autoencoder.calls == encoded and len(after) == rows and after.digest != digest
    assert arrays(after) == arrays(prepared(folder, cache="fresh")[0])


def test_a_change_that_keeps_size_and_time_is_noticed(folder):
    path = folder / "imgs" / "b.png"
    Image.fromarray(photograph(1)).save(str(path), format="BMP")
    status = path.stat()
    first, _ = prepared(folder)
    Image.fromarray(photograph(2)).save(str(path), format="BMP")
    os.utime(str(path), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after, autoencoder = prepared(folder)
    assert autoencoder.calls == 1 and not np.array_equal(after.z, first.z)


def test_other_ignored_ids_need_no_encoding(folder):
    plain, _ = prepared(folder)
    after, autoencoder = prepared(folder, ignore=(4,))
    assert autoencoder.calls == 0 and after.digest != plain.digest
    assert np.array_equal(after.z, plain.z) and (after.labels == 255).any()
    assert not (plain.labels == 255).any()


# -- interruptions and faults ----------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_interrupted_preparation_is_continued_to_the_same_bytes(folder, at):
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, Blocks(fails_at=at))
    told = []
    latents, autoencoder = prepared(folder, tell=told.append)
    assert autoencoder.calls == 4 - at and f"{4 - at} of 4 images " in told[0]
    assert arrays(latents) == arrays(prepared(folder, cache="fresh")[0])


def test_a_cache_of_other_weights_is_refused_in_one_line(folder):
    latents, _ = prepared(folder)
    before = arrays(latents)
    said = "another autoencoder .*--ae_path.*--cache"
    refusal(prepared, folder, Blocks(), sha="cd" * 32, kind=DataError, match=said)
    assert arrays(prepared(folder)[0]) == before
    with pytest.raises(DataError, match="64x48.*32x24"):
        prepared(folder, width=32, height=24, latent_width=8, latent_height=6)
    assert prepared(folder, sha="cd" * 32, cache="other")[1].calls == 4


@pytest.mark.parametrize("name", ["imgs/c.png", "labels/c.png"])
def test_a_file_that_changes_between_its_check_and_its_encoding_is_named(folder, name):
    class Editing(Blocks):
        def encode(self, x):
            content = photograph if name.startswith("imgs") else label_map
            save_image(folder / name, content(self.calls + 20))
            return super().encode(x)

    with pytest.raises(DataError, match="c.png was changed after it was checked"):
        prepared(folder, Editing())
    assert prepared(folder)[1].calls == 2  # a and b are in the cache


def test_a_file_that_changes_after_it_was_encoded_changes_nothing(folder):
    """Its bytes were read once: what the cache holds is what its key says."""

    class Editing(Blocks):
        def encode(self, x):
            save_image(folder / "imgs" / "a.png", photograph(self.calls + 20))
            return super().encode(x)

    expected = arrays(prepared(folder, cache="other")[0])
    assert arrays(prepared(folder, Editing())[0]) == expected
    assert prepared(folder)[1].calls == 1


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_latents_that_are_not_finite_are_refused(folder, factor):
    with pytest.raises(DataError, match="NaN or infinite latents of .*a.png.*--ae_path"):
        prepared(folder, Blocks(factor=factor))
    assert prepared(folder)[1].calls == 4


def test_what_cannot_be_meant_is_refused(folder):
    with pytest.raises(DataError, match="no examples"):
        prepared(folder, examples=[])
    with pytest.raises(ValueError, match="64x48 become latents of 16x12 .* not of 8x6"):
        prepared(folder, latent_width=8, latent_height=6)
    examples, _ = find_examples(folder)
    (folder / "imgs" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="a.png is not an image"):
        prepared(folder, examples=examples)
    with pytest.raises(FileNotFoundError):
        prepared(folder, examples=[replace(examples[0], image=folder / "gone.png")])


def test_a_long_encoding_tells_once_a_minute(folder, monkeypatch):
    clock = [0.0]

    class Slow(Blocks):
        def encode(self, x):
            clock[0] += 45.0
            return super().encode(x)

    monkeypatch.setattr(latent_cache.time, "monotonic", lambda: clock[0])
    told = []
    prepared(folder, Slow(), tell=told.append)
    assert told[1:] == [
        "2 of 4 images are encoded, about 2 min left",
        "4 of 4 images are encoded, about 0 min left",
    ]


def test_another_fit_is_other_data_and_the_cache_knows_it(folder):
    for seed, stem in enumerate("dbca"):
        save_image(
            folder / "imgs" / (stem + ".png"), np.ascontiguousarray(photograph(seed)[:, :HEIGHT])
        )
        save_image(
            folder / "labels" / (stem + ".png"), np.ascontiguousarray(label_map(seed)[:, :HEIGHT])
        )
    made = {}
    for fit in ("crop", "resize", "crop"):
        latents, encoder = prepared(folder, fit=fit)
        assert encoder.calls == 4 and made.get(fit, arrays(latents)) == arrays(latents)
        made[fit] = arrays(latents)
        assert prepared(folder, fit=fit)[1].calls == 0
    assert all(one != other for one, other in zip(made["crop"], made["resize"]))
