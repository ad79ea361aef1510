"""Images into label maps as a user calls it: files of any kind, repeated runs, what is
refused.
"""

import dataclasses
import errno
import json

import numpy as np
import pytest
from PIL import Image
from support.calls import called, everything
from support.child_python import child
from support.faults import cut, drawn, emptied
from support.small_flowseg import TINY, random_network, saved_network, scene

from jseg import images
from jseg.checkpoint import save
from jseg.commands import segment
from jseg.data.classes import CLASS_SETS
from jseg.data.examples import check_images
from jseg.data.label_maps import read_label
from jseg.files import write_atomic
from jseg.flowseg import segment as folder_module
from jseg.flowseg.predict import Segmenter
from jseg.flowseg.segment import find_images, overlay
from jseg.ldm.presets import UNETS

CONFIG = dataclasses.replace(TINY, labels=11)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved_network(tmp_path_factory.mktemp("weights") / "best.safetensors", "camvid-11")


class Job:
    """Images of several kinds and sizes under root/photos, and a call of the command on them."""

    def __init__(self, root, weights, capsys):
        self.root, self.weights, self.capsys = root, weights, capsys
        self.photos, self.output = root / "photos", root / "labels"
        self.photos.mkdir()
        image = Image.fromarray(scene(1)[0])
        image.save(self.photos / "plain.png")
        image.convert("RGBA").save(self.photos / "clear.png")
        image.convert("L").resize((100, 40)).save(self.photos / "gray.v2.jpg")
        image.convert("P").resize((20, 60)).save(self.photos / "palette.png")

    def run(self, **changed):
        options = dict(
            weights=self.weights, input=self.photos, output=self.output, steps=2, device="cpu"
        )
        return called(segment, self.capsys, **{**options, **changed})

    def labels(self):
        return {path.name: path.read_bytes() for path in sorted(self.output.glob("*.png"))}


@pytest.fixture
def job(tmp_path, weights, capsys):
    return Job(tmp_path, weights, capsys)


# Results
# --------------------------------------------------------------------------------------------------


def test_images_of_any_size_and_mode_become_label_maps(job):
    code, lines = job.run()
    assert code == 0, lines
    assert [line for line in lines if "not plain RGB and are converted: RGBA (clear.png)" in line]
    assert (
        lines[-1]
        == f"jseg segment: 4 label maps in {job.output}, overlays in {job.output / 'overlays'}"
    )
    sizes = {"plain": (48, 32), "clear": (48, 32), "gray.v2": (100, 40), "palette": (20, 60)}
    assert set(job.labels()) == {name + ".png" for name in sizes}
    for name, (width, height) in sizes.items():
        with Image.open(job.output / f"{name}.png") as label:
            assert label.mode == "L" and label.size == (width, height)
            assert np.asarray(label).max() < 11
        assert images.read_image(job.output / "overlays" / f"{name}.jpg").shape == (
            height,
            width,
            3,
        )
    expected = Segmenter.from_file(job.weights, 2, "cpu").segment(
        images.read_image(job.photos / "palette.png"), "palette"
    )
    assert np.array_equal(read_label(job.output / "palette.png"), expected)
    assert len(np.unique(expected)) > 1
    run = json.loads((job.output / "run.json").read_text())
    assert run["format"] == 1 and run["classes"][3] == "road" and run["settings"]["steps"] == 2
    assert len(run["settings"]["weights"]) == 64
    assert not list(job.output.rglob(".jseg-*"))


def test_the_classes_that_were_given_are_named(job):
    names = CLASS_SETS["camvid-11"].names
    (job.root / "mine.txt").write_text("\n".join(names))
    code, lines = job.run(classes=job.root / "mine.txt")
    assert code == 0 and f"jseg segment: 11 classes of mine: {', '.join(names[:6])}, ..." in lines


def test_the_same_call_elsewhere_gives_the_same_bytes(job):
    job.run()
    first = everything(job.output)
    job.output = job.root / "again"
    job.run()
    assert everything(job.output) == first


def test_the_training_s_times_are_the_flow_s(job):
    assert job.run()[0] == 0
    even = job.labels()
    save(
        job.root / "shifted.safetensors",
        random_network(CONFIG).state_dict(),
        CONFIG,
        settings={"shift": 20.0},
    )
    job.weights, job.output = job.root / "shifted.safetensors", job.root / "shifted"
    assert job.run()[0] == 0 and job.labels() != even
    assert json.loads((job.output / "run.json").read_text())["settings"]["shift"] == 20.0
    job.output = job.root / "even"
    assert job.run(shift=1)[0] == 0 and job.labels() == even


def test_probability_maps_on_request(job):
    assert job.run(probabilities=True, mirror=True, batch_size=4, scale="own", overlap=0.5)[0] == 0
    for path in job.output.glob("*.png"):
        found = np.load(job.output / "probabilities" / f"{path.stem}.npy")
        assert found.dtype == np.float16 and found.shape == (11,) + read_label(path).shape
        np.testing.assert_allclose(found.astype(np.float32).sum(0), 1, atol=1e-2)
        assert (
            found.astype(np.float32).argmax(0) == read_label(path)
        ).mean() > 0.99  # but for ties in float16
    plain = job.labels()
    job.output = job.root / "plain"
    assert job.run(mirror=True, batch_size=4, scale="own", overlap=0.5)[0] == 0
    assert job.labels() == plain


def test_several_inputs_and_folders_of_a_data_set(job):
    (job.root / "set" / "images").mkdir(parents=True)
    Image.fromarray(scene(5)[0]).save(job.root / "set" / "images" / "one.png")
    (job.root / "set" / "images" / ".hidden.png").write_bytes(b"")
    code, lines = job.run(input=[job.photos / "plain.png", job.root / "set"])
    assert code == 0 and set(job.labels()) == {"plain.png", "one.png"}, lines


def test_noise_is_averaged_over_seeds(job):
    noisy = dataclasses.replace(CONFIG, source="noise")
    job.weights = job.root / "noisy.safetensors"
    save(job.weights, random_network(noisy).state_dict(), noisy)
    results = []
    for number, seeds in enumerate(([0], [1], [0, 1])):
        job.output = job.root / f"seeds{number}"
        code, lines = job.run(
            input=job.photos / "plain.png", seeds=seeds, probabilities=True, steps=1
        )
        assert code == 0, lines
        results.append(np.load(job.output / "probabilities" / "plain.npy").astype(np.float32))
    np.testing.assert_allclose(results[2], (results[0] + results[1]) / 2, atol=2e-3)
    assert not np.allclose(results[0], results[1], atol=1e-2)


def test_an_overlay_is_half_of_each():
    image, label = scene(3)
    classes = CLASS_SETS["camvid-11"]
    expected = (image.astype(float) + classes.palette[label]) / 2
    assert np.abs(overlay(image, label, classes) - expected).max() <= 0.5


# Repeated and interrupted runs
# --------------------------------------------------------------------------------------


def test_finished_images_are_kept_and_missing_ones_made_again(job, monkeypatch):
    assert job.run()[0] == 0
    first = everything(job.output)
    times = {path.name: path.stat().st_mtime_ns for path in job.output.glob("*.png")}
    for spoil in (
        lambda: (job.output / "plain.png").unlink(),
        lambda: (job.output / "overlays" / "clear.jpg").unlink(),
        lambda: (job.output / "plain.png").write_bytes(b""),
    ):
        spoil()
        code, lines = job.run()
        assert code == 0
        assert any("3 of 4 images are in" in line and "are kept" in line for line in lines)
        assert everything(job.output) == first
        assert (job.output / "gray.v2.png").stat().st_mtime_ns == times["gray.v2.png"]
    monkeypatch.setattr(Segmenter, "segment", lambda *given: pytest.fail("nothing is to be made"))
    assert job.run()[0] == 0


def test_a_changed_image_is_segmented_again(job):
    assert job.run()[0] == 0
    first = everything(job.output)
    (image,) = job.photos.rglob("plain.*")
    Image.fromarray(np.asarray(Image.open(image).convert("RGB"))[::-1]).save(image)
    code, lines = job.run()
    assert code == 0 and any("3 of 4 images are in" in line for line in lines)
    changed = {name for name, data in everything(job.output).items() if data != first[name]}
    assert changed >= {"plain.png", "overlays/plain.jpg", "run.json"}
    assert not {"clear.png", "gray.v2.png"} & changed


def test_other_settings_are_refused_by_name_and_nothing_changes(job):
    job.run()
    before = everything(job.output)
    for changed, said in (
        (dict(steps=3), "steps was 2, is 3"),
        (dict(mirror=True), "mirror was False, is True"),
        (dict(scale=2), "scale was 1.0, is 2.0"),
        (dict(shift=3), "shift was 1.0, is 3.0"),
    ):
        code, lines = job.run(**changed)
        assert code == 2 and said in lines[-1] and everything(job.output) == before


def test_options_out_of_range_are_told_before_anything_else(job):
    """Before other settings are, and before the line about the weights that ship."""
    job.run()
    for changed, said in (
        (dict(overlap=1, steps=3), "--overlap is 1.0"),
        (dict(scale=0.2, weights=None), "--scale is 0.2; expected 1"),
        (dict(steps=0, mirror=True), "--steps is 0; expected 1"),
    ):
        code, lines = job.run(**changed)
        assert code == 2 and len(lines) == 1 and said in lines[0], lines


def test_options_out_of_range_are_told_without_jittor(job):
    program = (
        "import sys; from jseg.commands import cli, segment\n"
        f"words = ['--input', {str(job.photos)!r}, '--output', {str(job.output)!r}]\n"
        "print(cli.run(segment.main, [*words, '--overlap', '1']), 'jseg.runtime' in sys.modules)"
    )
    done = child(program)
    assert done.stdout == "2 False\n" and "--overlap is 1.0; expected 0 to below 1" in done.stderr


def test_files_of_others_are_not_overwritten(job):
    job.output.mkdir()
    (job.output / "plain.png").write_bytes(b"mine")
    code, lines = job.run()
    assert code == 2 and "holds plain.png" in lines[-1]
    assert (job.output / "plain.png").read_bytes() == b"mine"
    (job.output / "plain.png").unlink()
    assert job.run()[0] == 0
    (job.output / "other.png").write_bytes(b"mine")
    Image.new("RGB", (40, 40)).save(job.photos / "other.jpg")
    code, lines = job.run()
    assert code == 2 and "holds other.png" in lines[-1]
    assert (job.output / "other.png").read_bytes() == b"mine"
    (job.output / "run.json").write_text("{}")
    code, lines = job.run()
    assert code == 2 and "run.json is no record of the segment command" in lines[-1]


def test_a_full_disk_is_one_line_and_what_is_finished_stays(job, monkeypatch):
    written = []

    def filling(path, write):
        if len(written) > 3 and str(path).endswith(".jpg"):
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write_atomic(path, write)

    monkeypatch.setattr(images, "write_atomic", filling)
    monkeypatch.setattr(folder_module, "write_atomic", filling)
    code, lines = job.run()
    assert code == 2 and "No space left on device" in lines[-1]
    assert "what is finished stays" in lines[-1]
    left = job.labels()
    assert 0 < len(left) < 4
    monkeypatch.undo()
    assert job.run()[0] == 0 and {name: job.labels()[name] for name in left} == left


# Errors
# --------------------------------------------------------------------------------------------------


SMALL = np.zeros((5, 30, 3), np.uint8)


def to_photos(fault):
    return lambda job: fault(job.photos)


def other_network(job):
    job.weights = job.root / "unet.npz"
    save(job.weights, {"w": np.zeros(2, np.float32)}, UNETS["tiny"])


def torn(job):
    data = job.weights.read_bytes()
    job.weights = job.root / "torn.safetensors"
    job.weights.write_bytes(data[: len(data) // 2])


def occupied(job):
    job.output.write_bytes(b"")


@pytest.mark.parametrize(
    "spoil, options, said",
    [
        (to_photos(cut("plain.png", 60)), {}, "plain.png"),
        (
            to_photos(drawn("plain.png", SMALL)),
            {},
            "plain.png is 30x5; expected at least 8x8, one patch",
        ),
        (to_photos(emptied(".")), {}, "photos holds no *.jpg"),
        (to_photos(drawn("plain.jpg", SMALL)), {}, "plain"),
        (other_network, {}, "a network described by UNetConfig"),
        (torn, {}, "torn.safetensors"),
        (occupied, {}, "labels is a file"),
        (None, {"weights": "nowhere"}, "--weights nowhere does not exist"),
        (None, {"weights": "."}, "--weights . is a folder"),
        (None, {"input": "nowhere"}, "input nowhere does not exist"),
        (None, {"steps": 0}, "--steps is 0; expected 1 or more"),
        (None, {"scale": "x"}, "--scale is x; expected 1"),
        (None, {"scale": 0.2}, "--scale is 0.2; expected 1"),
        (None, {"scale": "nan"}, "--scale is nan; expected 1"),
        (None, {"seeds": [0, 0]}, "--seeds 0 0: expected different ones"),
        (None, {"seeds": -1}, "seed is -1"),
        (None, {"seeds": [0, 1]}, "starts from the image alone"),
        (None, {"overlap": 1}, "--overlap is 1.0"),
        (None, {"batch_size": 0}, "--batch_size is 0"),
        (None, {"shift": 0}, "--shift is 0.0; expected a finite number above 0"),
        (None, {"classes": "ade20k-150"}, "has 150 classes, the network"),
        (None, {"classes": "nothing"}, "no class set or file nothing"),
        (None, {"method": "rk4"}, "invalid choice: 'rk4'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(job, spoil, options, said):
    if spoil:
        spoil(job)
    before = everything(job.root)
    code, lines = job.run(**options)
    assert code == 2 and said in lines[-1], lines
    assert [line for line in lines if "converted" not in line] == lines[-1:]
    assert everything(job.root) == before


def test_two_inputs_of_one_name_are_refused(job):
    Image.new("RGB", (48, 32)).save(job.root / "plain.jpg")
    code, lines = job.run(input=[job.photos, job.root / "plain.jpg"])
    assert code == 2 and len(lines) == 1 and "would give one result, plain.png" in lines[0]


def test_images_are_found_by_name_and_checked_once(job):
    found, remarks = find_images([str(job.photos)])
    assert remarks == []
    assert [example.stem for example in found] == "clear gray.v2 palette plain".split()
    converted = [line for line in check_images(found, 8)[1] if "not plain RGB" in line]
    assert converted == [
        f"images are not plain RGB and are converted: {mode} ({name})"
        for mode, name in (("RGBA", "clear.png"), ("L", "gray.v2.jpg"), ("P", "palette.png"))
    ]
    found, _ = find_images([str(job.photos / "clear.png"), str(job.photos / "plain.png")])
    assert found[0].image.name == "clear.png"
