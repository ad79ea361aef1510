"""Scoring as a user calls it: what is written and printed, repeated calls, what is refused."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.calls import answered, everything
from support.small_flowseg import saved_network

from jseg.checkpoint import save
from jseg.commands import score
from jseg.data.examples import Example
from jseg.data.label_maps import read_label
from jseg.evaluation import features
from jseg.evaluation import inception as inception_module
from jseg.flowseg import results
from jseg.flowseg.predict import Segmenter
from jseg.images import read_image, save_image
from jseg.landscapes.challenge_folder import write_challenge
from jseg.metrics import frechet_distance, style_similarity

WIDTH, HEIGHT = 64, 48


class Job:
    """Three landscapes in the challenge's layout, results, and a call of the command on them."""

    def __init__(self, root, drawn, capsys):
        self.root, self.capsys, self.output = root, capsys, root / "scores"
        shutil.copytree(drawn, root / "data")
        self.labels = sorted((root / "data/test/val_B_labels_resized").glob("*.png"))
        self.stems = [path.stem for path in self.labels]
        references = sorted((root / "data/train/imgs").glob("*.jpg"))
        (root / "results").mkdir()
        for stem, reference in zip(self.stems, references):
            save_image(root / "results" / f"{stem}.jpg", read_image(reference)[::-1])

    def run(self, **changed):
        """(exit code, standard output, lines on standard error)."""
        options = dict(
            results=self.root / "results",
            labels=self.root / "data/test",
            references=self.root / "data/train",
            output=self.output,
            cache=self.root / "cache",
            device="cpu",
        )
        return answered(score, self.capsys, **{**options, **changed})

    def predictions(self):
        """Label maps with a quarter of the pixels wrong."""
        folder = self.root / "seen"
        folder.mkdir()
        for path in self.labels:
            label = read_label(path)
            label[: HEIGHT // 4] = (label[: HEIGHT // 4] + 1) % 29
            save_image(folder / path.name, label)
        return folder

    def aesthetic(self, text="name,value\n{}.jpg,4\n{}.jpg,5\n{}.jpg,6\n"):
        (self.root / "aesthetic.csv").write_text(text.format(*self.stems))
        return self.root / "aesthetic.csv"

    def network(self, classes="landscape-29"):
        return saved_network(self.root / f"{classes}.safetensors", classes)

    def summary(self):
        return json.loads((self.output / "summary.json").read_text())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_challenge(folder, 3, 0, WIDTH, HEIGHT)
    return folder


@pytest.fixture
def job(tmp_path, drawn, capsys):
    return Job(tmp_path, drawn, capsys)


def fewer(x):
    return x.reshape(len(x), -1)[:, ::131][:, :2048]


def judged(paths):
    """The features of `judge` for these images."""
    return fewer(inception_module.prepared([read_image(path) for path in sorted(paths)]))


@pytest.fixture
def judge(monkeypatch):
    """Inception's place taken by 2048 numbers that depend on the image alone; how many images
    it saw.
    """
    seen = []

    class Network:
        def __call__(self, x):
            seen.append(len(x))
            return SimpleNamespace(numpy=lambda: fewer(x))

    monkeypatch.setattr(features, "load_inception", lambda path: Network())
    return seen


def shown(out):
    return {line[:44].strip(): line[44:].strip() for line in out.splitlines()}


# Results
# --------------------------------------------------------------------------------------------------


def test_without_anything_the_missing_terms_are_named(job):
    code, out, told = job.run()
    assert code == 0, told
    assert any(
        "no --inception: FID is not computed" in line and "which is no FID" in line for line in told
    )
    assert any("no --real: the 3 images in" in line for line in told)
    lines = shown(out)
    assert lines["FID"] == "missing: give --inception"
    assert lines["mask accuracy"] == "missing: give --predictions or --flowseg"
    assert lines["stand-in for FID"].endswith(
        "(KID of our autoencoder's features, 3 results, 3 real images; no FID)"
    )
    missing = "missing: without mask accuracy, aesthetic value, FID; between 0.0000 and"
    assert sum(missing in line for line in out.splitlines()) == 3
    summary = job.summary()
    assert summary["terms"]["fid"] is None and summary["terms"]["stand_in"] is not None
    assert [entry["value"] for entry in summary["scores"]] == [None] * 3
    assert sorted(path.name for path in job.output.iterdir()) == [
        "gallery.html",
        "images.csv",
        "summary.json",
    ]


def test_what_is_special_in_the_images_is_told(job):
    result = job.root / "results" / f"{job.stems[0]}.jpg"
    reference = sorted((job.root / "data/train/imgs").glob("*.jpg"))[1]
    Image.fromarray(read_image(result)).convert("L").save(result)
    Image.new("RGB", (WIDTH, HEIGHT), (2, 2, 2)).save(reference)
    code, _, told = job.run()
    assert code == 0
    assert any(
        f"results are not plain RGB and are converted: L ({result.name})" in line for line in told
    ), told
    assert any(f"references are of one colour ({reference.name})" in line for line in told), told


def test_everything_given_gives_the_score(job, judge):
    weights = job.root / "inception.npz"
    save(weights, {"w": np.ones(1)})
    code, out, told = job.run(
        predictions=job.predictions(), aesthetic=job.aesthetic(), inception=weights
    )
    assert code == 0, told
    rows = list(csv.DictReader((job.output / "images.csv").open()))
    pairing = json.loads((job.root / "data/test/label_to_img.json").read_text())
    for row, stem, value in zip(rows, job.stems, (4, 5, 6)):
        result = read_image(job.root / "results" / f"{stem}.jpg")
        reference = read_image(job.root / "data/train/imgs" / pairing[stem + ".png"])
        assert row["image"] == stem and float(row["aesthetic"]) == value
        assert float(row["mask_accuracy"]) == 0.75
        for kind in ("challenge", "corrected"):
            assert float(row["style_" + kind]) == pytest.approx(
                style_similarity(result, reference, kind), abs=1e-6
            )
    terms = job.summary()["terms"]
    sets = (job.root / "results").glob("*.jpg"), (job.root / "data/train/imgs").iterdir()
    assert terms["fid"] == pytest.approx(frechet_distance(*map(judged, sets)), rel=1e-6)
    assert terms["mask_accuracy"] == 0.75 and terms["aesthetic"] == 5
    style = np.mean([float(row["style_challenge"]) for row in rows])
    fid = (100 - min(100, terms["fid"])) / 100
    expected = 0.75 * (0.2 * 0.5 + 0.3 * (style / 2 + 0.5) + 0.5 * fid)
    assert job.summary()["scores"][0]["value"] == pytest.approx(expected, abs=1e-5)
    assert "missing" not in out
    page = (job.output / "gallery.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 3 * 4 and "//" not in page.split("base64")[0]
    assert all(stem in page for stem in job.stems)
    assert sum(judge) == 6
    again = everything(job.output)
    code, *_ = job.run(predictions=job.root / "seen", aesthetic=job.aesthetic(), inception=weights)
    assert code == 0 and sum(judge) == 6, "features are computed once"
    assert everything(job.output) == again, "the same call gives the same bytes"


def test_flowseg_segments_what_is_new(job, monkeypatch):
    weights = job.network()
    code, out, told = job.run(flowseg=weights)
    assert code == 0 and f"(FlowSeg, {weights.name})" in shown(out)["mask accuracy"], told
    stem = job.stems[0]
    expected = Segmenter.from_file(weights, device="cpu").segment(
        read_image(job.root / "results" / f"{stem}.jpg"), stem
    )
    assert np.array_equal(read_label(job.output / "predictions" / f"{stem}.png"), expected)
    label = read_label(job.labels[0])
    row = next(csv.DictReader((job.output / "images.csv").open()))
    assert float(row["mask_accuracy"]) == pytest.approx((expected == label).mean(), abs=1e-6)
    monkeypatch.setattr(Segmenter, "segment", lambda *given: pytest.fail("nothing is to be made"))
    assert job.run(flowseg=weights)[0] == 0
    code, _, told = job.run(predictions=job.output / "predictions", output=job.root / "other")
    assert (
        code == 0
        and (job.root / "other/images.csv").read_bytes() == (job.output / "images.csv").read_bytes()
    ), told


def test_stale_label_maps_are_made_again_and_it_is_told(job, monkeypatch):
    weights = job.network()
    assert job.run(flowseg=weights)[0] == 0
    fresh, run = everything(job.output), job.output / "predictions" / "run.json"

    # What a version before this one left: label maps of other times, under the same weights and
    # steps.
    old = json.loads(run.read_text())
    wrong = np.zeros((HEIGHT, WIDTH), np.uint8)
    save_image(job.output / "predictions" / f"{job.stems[0]}.png", wrong)
    old["settings"] = {"weights": old["settings"]["weights"], "steps": 10}
    for name in ("command", "files", "sources"):
        del old[name]
    run.write_text(json.dumps(old))
    code, _, told = job.run(flowseg=weights)
    assert code == 0, told
    assert any("3 results in" in line and "made with other settings" in line for line in told), told
    assert everything(job.output) == fresh

    # Each thing that the label maps depend on is in their key, and any change of it makes them
    # stale.
    key = json.loads(run.read_text())["settings"]
    names = set("weights times method mirror seeds scale overlap batch_size device code".split())
    assert set(key) == names
    images = [Example(stem, job.root / "results" / f"{stem}.jpg") for stem in job.stems]
    digests = results.digests_of(images)
    for name in [None, *sorted(names)]:
        changed = {**key, name: "another"} if name else key
        again, remarks = results.resumed(run.parent, changed, images, digests, remake=True)
        told = any(f"{name} was" in remark for remark in remarks)
        assert (again.fields["pictures"] == {}) == bool(name) == told


def test_an_interrupted_call_goes_on(job, monkeypatch):
    from jseg.evaluation import report, results

    expected = job.run(output=job.root / "whole")
    assert expected[0] == 0

    def stopped(*given):
        raise KeyboardInterrupt

    for module, name in ((report, "write_page"), (results, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stopped)
            assert job.run()[0] == 130
    assert job.summary()["unfinished"] is True
    assert job.run()[:2] == expected[:2] and "unfinished" not in job.summary()


def test_what_is_there_is_scored_on_request(job):
    (job.root / "results" / f"{job.stems[1]}.jpg").unlink()
    code, _, told = job.run()
    assert code == 2 and len(told) == 1 and "lacks the results of 1 of 3" in told[0]
    assert not job.output.exists()
    code, out, told = job.run(partial=True)
    assert code == 0 and shown(out)["images"] == "2" and any("left out" in line for line in told)
    (job.root / "results" / f"{job.stems[2]}.jpg").unlink()
    code, out, told = job.run(partial=True)
    assert code == 0 and "needs two results and two real" in shown(out)["stand-in for FID"], told


def test_the_scale_of_the_aesthetic_value(job):
    small = job.aesthetic("{},0.4\n{},0.5\n{},0.6\n")
    code, out, told = job.run(aesthetic=small)
    assert code == 0 and any("if it is 1, give --aesthetic_max 1" in line for line in told)
    code, out, told = job.run(aesthetic=small, aesthetic_max=1)
    assert code == 0 and not any("--aesthetic_max" in line for line in told)
    assert shown(out)["aesthetic value"] == "0.5000 of 1"


# Errors
# --------------------------------------------------------------------------------------------------


def occupied(job):
    job.output.mkdir()
    (job.output / "images.csv").write_text("mine")


def a_file(job):
    job.output.write_text("mine")


def broken(job):
    path = job.root / "results" / f"{job.stems[0]}.jpg"
    path.write_bytes(path.read_bytes()[:200])


def ids(job):
    save_image(job.labels[0], np.full((HEIGHT, WIDTH), 99, np.uint8))


def unpaired(job):
    (job.root / "data/test/label_to_img.json").unlink()


def weights(job):
    (job.root / "other.pth").write_bytes(b"no weights")


MISSING = "nowhere does not exist"


@pytest.mark.parametrize(
    "spoil, options, said",
    [
        (occupied, {}, "holds images.csv (1 of the results' names is taken) but no summary.json"),
        (a_file, {}, "scores is a file"),
        (broken, {}, "truncated or damaged"),
        (ids, {}, "99"),
        (unpaired, {}, "label_to_img.json"),
        (weights, {"inception": "{}/other.pth"}, "other.pth"),
        (None, {"results": "nowhere"}, "results folder nowhere does not exist"),
        (None, {"labels": "nowhere"}, "nowhere"),
        (None, {"references": "nowhere"}, "nowhere"),
        (None, {"real": "nowhere"}, "folder of real images nowhere"),
        (None, {"inception": "nowhere"}, f"--inception {MISSING}; expected pt_inception"),
        (None, {"flowseg": "nowhere"}, "--flowseg nowhere does not exist"),
        (None, {"aesthetic": "nowhere"}, "--aesthetic nowhere does not"),
        (None, {"predictions": "nowhere"}, "predictions folder nowhere"),
        (None, {"aesthetic_max": "0"}, "--aesthetic_max is 0.0"),
        (None, {"predictions": "x", "flowseg": "y"}, "both given"),
        (None, {"classes": "camvid-11"}, "(--ignore)"),
        (None, {"classes": "nothing"}, "no class set or file nothing"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(job, spoil, options, said):
    if spoil:
        spoil(job)
    before = everything(job.root)
    code, out, told = job.run(**{name: value.format(job.root) for name, value in options.items()})
    assert code == 2 and out == "" and len(told) == 1 and said in told[0], told
    assert everything(job.root) == before


def test_a_network_of_other_classes_is_refused(job):
    weights = job.network("camvid-11")
    before = everything(job.root)
    code, _, told = job.run(flowseg=weights)
    assert code == 2 and "knows 11 classes, --classes landscape-29 has 29" in told[-1]
    assert everything(job.root) == before


def test_scores_of_other_results_are_not_overwritten(job):
    assert job.run()[0] == 0
    before = everything(job.output)
    (job.root / "results").rename(job.root / "renamed")
    code, _, told = job.run(results=job.root / "renamed")
    assert code == 2 and "holds the scores of" in told[0] and everything(job.output) == before
