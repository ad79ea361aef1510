"""What is scored, features kept on disk, terms and formulas: against scipy, closed forms and hand
counts.
"""

import dataclasses
import json

import numpy as np
import pytest
import scipy.linalg
from PIL import Image
from support.refusals import refusal

from jseg.data.classes import CLASS_SETS
from jseg.data.label_maps import read_label
from jseg.evaluation import features, measures, report
from jseg.evaluation.aesthetic import read_aesthetic
from jseg.evaluation.features import Extractor, computed, digests
from jseg.evaluation.inputs import check_items, find_items, find_real
from jseg.evaluation.measures import ImageScores, Terms, challenge_scores, gathered, score_image
from jseg.evaluation.predictions import load_prediction
from jseg.evaluation.results import SUMMARY, TABLE, check_output
from jseg.evaluation.store import FeatureStore, default_folder
from jseg.files import DataError
from jseg.images import read_image, save_image
from jseg.metrics import challenge_score, confusion, style_similarity

CLASSES = CLASS_SETS["landscape-29"]
RNG = np.random.default_rng


@pytest.fixture
def data(tmp_path):
    """Three results 32x24 with label maps, references and predictions; b's label map has other dots
    in its name.
    """
    for number, stem in enumerate(("a", "b.v2", "c")):
        label = RNG(number).integers(0, 29, (24, 32)).astype(np.uint8)
        for folder, name, array in (
            ("labels", stem + ".png", label),
            ("refs/imgs", stem + "_ref.jpg", image(10 + number)),
            ("results", stem + ".jpg", image(number)),
            ("seen", stem + ".png", label),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            save_image(tmp_path / folder / name, array)
    (tmp_path / "results" / "grid.png").write_bytes(b"not looked at")
    (tmp_path / "labels" / "label_to_img.json").write_text(
        json.dumps({s + ".png": s + "_ref.jpg" for s in ("a", "b.v2", "c")})
    )
    return tmp_path


def image(seed, height=24, width=32):
    return RNG(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def found_items(data, **options):
    return find_items(data / "results", data / "labels", data / "refs", **options)


def items(data, **options):
    return found_items(data, **options)[0]


# What is scored


def test_results_are_found_by_the_names_of_label_maps(data):
    found = items(data, predictions=data / "seen")
    assert [item.stem for item in found] == ["a", "b.v2", "c"]
    assert [
        path.name
        for path in (found[1].result, found[1].label, found[1].reference, found[1].prediction)
    ] == ["b.v2.jpg", "b.v2.png", "b.v2_ref.jpg", "b.v2.png"]
    assert check_items(found, CLASSES) == [] and items(data)[0].prediction is None


def test_files_of_no_label_map_are_counted(data):
    for name in ("results/z.jpg", "seen/y.png", "results/stages/1/a.png", "results/old/a.jpg"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    (data / "results" / "notes.txt").write_text("x")
    found, remarks = found_items(data, predictions=data / "seen")
    assert len(found) == 3
    assert remarks == [
        f"1 file in {data / 'results'} is of no label map and is left out (z.jpg)",
        f"1 other file in {data / 'results'} is left out (notes.txt)",
        f"1 file in folders of {data / 'results'} is left out (old: 1); folders in it are not "
        "looked at",
        f"1 file in {data / 'seen'} is of no label map and is left out (y.png)",
    ]


def test_predictions_beside_the_results_are_not_called_left_out(data):
    (data / "seen").rename(data / "results" / "labels")
    found, remarks = found_items(data, predictions=data / "results" / "labels")
    assert len(found) == 3 and remarks == []


def test_missing_results_are_an_error_or_left_out(data):
    (data / "results" / "c.jpg").unlink()
    said = r"lacks the results of 1 of 3 label maps \(c\); make them, or give --partial"
    with pytest.raises(DataError, match=said):
        items(data)
    found, remarks = found_items(data, partial=True)
    assert [item.stem for item in found] == ["a", "b.v2"] and "left out (c)" in remarks[0]
    (data / "seen" / "a.png").unlink()
    with pytest.raises(DataError, match="lacks the label maps of 1 of 2 results"):
        items(data, partial=True, predictions=data / "seen")
    save_image(data / "results" / "a.png", image(0))
    with pytest.raises(DataError, match="holds both a.jpg and a.png"):
        items(data, partial=True)
    for path in (data / "results").glob("*.jpg"):
        path.unlink()
    (data / "results" / "a.png").unlink()
    with pytest.raises(DataError, match="holds no result of the 3 label maps"):
        items(data, partial=True)


def ids(value, width=32):
    return np.full((24, width), value, np.uint8)


@pytest.mark.parametrize(
    "path, array, said",
    [
        ("results/a.jpg", image(0, 24, 24), "result .*a.jpg is 24x24, its label map 32x24"),
        ("seen/a.png", ids(29), "holds the id 29; expected class ids 0 to 28"),
        ("seen/a.png", ids(0, 30), "prediction .*a.png is 30x24, its label map 32x24"),
        ("seen/a.png", image(0), "seen.a.png"),
        ("labels/a.png", ids(77), "labels.a.png.*77"),
    ],
)
def test_files_that_do_not_fit_are_refused(data, path, array, said):
    save_image(data / path, array)
    found = items(data, predictions=data / "seen")
    refusal(check_items, found, CLASSES, kind=DataError, match=said)


def test_predictions_come_to_the_label_map_s_size(data):
    small = RNG(5).integers(0, 29, (12, 16)).astype(np.uint8)
    save_image(data / "seen" / "a.png", small)
    assert np.array_equal(
        load_prediction(data / "seen" / "a.png", (24, 32), 29), small.repeat(2, 0).repeat(2, 1)
    )
    save_image(data / "results" / "a.jpg", image(0, 12, 16))
    notes = check_items(items(data, predictions=data / "seen"), CLASSES)
    assert len(notes) == 1 and "of another size than their label maps" in notes[0]


@pytest.mark.parametrize("classes", ["landscape-29", "ade20k-150"])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_predictions_may_be_in_the_colours_of_the_classes_which_is_told(data, classes, mode):
    classes = CLASS_SETS[classes]
    ids = RNG(1).integers(0, 29, (24, 32)).astype(np.uint8)
    for path in (data / "seen").iterdir():
        image = Image.fromarray(classes.palette[ids])
        if mode == "P":
            image = Image.fromarray(255 - ids)
            image.putpalette(
                np.concatenate(
                    [np.zeros((256 - 29, 3), np.uint8), classes.palette[:29][::-1]]
                ).tobytes()
            )
        image.save(path)
    assert np.array_equal(load_prediction(data / "seen/a.png", (24, 32), classes), ids)
    notes = check_items(
        items(data, predictions=data / "seen"),
        dataclasses.replace(CLASSES, palette=classes.palette[:29]),
    )
    assert len(notes) == 1
    assert notes[0].startswith("3 predictions ")
    assert "colours of landscape-29, by which they are read" in notes[0]


def test_predictions_in_other_colours_stay_refused(data):
    save_image(data / "seen/a.png", image(0))
    with pytest.raises(DataError, match="seen.a.png"):
        check_items(items(data, predictions=data / "seen"), CLASSES)


@pytest.mark.parametrize(
    "shift, said", [(1, "read as ids from 1 on"), (-1, "read as ids from -1 on")]
)
def test_predictions_in_another_numbering_are_warned_of(data, shift, said):
    for stem in ("a", "b.v2", "c"):
        label = read_label(data / f"labels/{stem}.png") % 20 + 2
        save_image(data / f"labels/{stem}.png", label)
        save_image(data / f"seen/{stem}.png", label)
    assert check_items(items(data, predictions=data / "seen"), CLASSES) == []
    for stem in ("a", "b.v2", "c"):
        save_image(
            data / f"seen/{stem}.png",
            (read_label(data / f"labels/{stem}.png") + shift).astype(np.uint8),
        )
    (note,) = check_items(items(data, predictions=data / "seen"), CLASSES)
    assert note.startswith("warning: the predictions agree with 0 % of the label maps' pixels, ")
    assert f"{said} with 100 %" in note


def test_predictions_numbered_as_the_data_set_s_label_files_are_told_or_refused(data):
    classes = dataclasses.replace(CLASSES, file_ids=tuple(range(3, 3 + 29)), file_ignore=(0,))
    for stem in ("a", "b.v2", "c"):
        label = read_label(data / f"labels/{stem}.png") % 20
        for folder in ("labels", "seen"):
            save_image(data / folder / f"{stem}.png", label + 3)
    (note,) = check_items(items(data, predictions=data / "seen"), classes)
    assert "read as label files of landscape-29 store them with 100 %" in note
    save_image(data / "seen/a.png", np.full((24, 32), 31, np.uint8))
    said = (
        "holds the id 31; expected class ids 0 to 28, as segment writes them, not those that "
        "label files of"
    )
    with pytest.raises(DataError, match=said):
        check_items(items(data, predictions=data / "seen"), classes)


def test_a_poor_network_is_no_other_numbering(data):
    for stem in ("a", "b.v2", "c"):
        save_image(data / f"labels/{stem}.png", np.full((24, 32), 4, np.uint8))
        save_image(data / f"seen/{stem}.png", np.full((24, 32), 5, np.uint8))
    assert check_items(items(data, predictions=data / "seen"), CLASSES) == []


def test_real_images(data):
    assert [path.name for path in find_real(data / "refs")[0]] == [
        "a_ref.jpg",
        "b.v2_ref.jpg",
        "c_ref.jpg",
    ]
    (data / "one").mkdir()
    for folder, said in (
        ("one", "holds 0 images; expected the real images"),
        ("nowhere", "does not exist"),
    ):
        with pytest.raises(DataError, match=said):
            find_real(data / folder)
    (data / "refs" / "imgs" / "d.jpg").write_bytes(b"text")
    with pytest.raises(DataError, match="d.jpg is not an image"):
        find_real(data / "refs")


@pytest.mark.parametrize(
    "name, text",
    [
        ("v.csv", "image,aesthetic\na.jpg,5\nb.v2,4.5\nc.png,0\nother,1\n"),
        ("v.csv", "\ufeffa,5\n\nb.v2.jpg, 4.5\nc,0"),
        ("v.json", '{"a": 5, "b.v2.jpg": 4.5, "c": 0}'),
    ],
)
def test_aesthetic_values_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_aesthetic(tmp_path / name, ["a", "b.v2", "c"], 10)[0] == {
        "a": 5,
        "b.v2": 4.5,
        "c": 0,
    }


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("v.csv", "a,5\nb.v2,x\n", "line 2: b.v2,x; expected"),
        ("v.csv", "a,11\n", "value of a is 11.0; expected 0 to 10"),
        ("v.csv", "a,5\na.jpg,5\n", "two values for a"),
        ("v.csv", "a,5\n", r"no value for 2 files \(b.v2, c\)"),
        ("v.csv", "a\n", "line 1"),
        ("v.json", "[1]", "cannot be read"),
        ("v.json", '{"a": "x"}', "value of a is x"),
        ("v.json", "{", "cannot be read"),
        ("v.csv", "a,nan\n,\n", "no value for 3"),
        ("v.json", '{"a": true}', "value of a is True"),
    ],
)
def test_aesthetic_values_that_cannot_be_meant(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    stems = ["a", "b.v2", "c"]
    assert name in refusal(read_aesthetic, tmp_path / name, stems, 10, kind=DataError, match=said)


@pytest.mark.parametrize(
    "text, taken",
    [
        ("name,std,mean\na,1,5\nb.v2,2,4.5\nc,1,0\n", "mean"),
        ("Aesthetic,File Name,n\n5,a.jpg,10\n4.5,b.v2,9\n0,c.png,3\n", "Aesthetic"),
        ("id,Mean Score,std,\na,5,1,\nb.v2,4.5,1,\nc,0,1,\n", "Mean Score"),
    ],
)
def test_of_several_columns_the_heading_says_which_is_meant(tmp_path, text, taken):
    (tmp_path / "v.csv").write_text(text)
    values, remarks = read_aesthetic(tmp_path / "v.csv", ["a", "b.v2", "c"], 10)
    assert values == {"a": 5, "b.v2": 4.5, "c": 0}
    assert remarks == [
        f"of the 3 columns in {tmp_path / 'v.csv'}, {taken} is taken as the aesthetic value"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a,1,5\nb.v2,2,4\nc,1,0\n",
        "name,std,votes\na,1,5\n",
        "name,mean,score\na,1,5\n",
        "name,std\na,1\n",
    ],
)
def test_columns_of_which_none_or_several_may_be_meant_are_refused(tmp_path, text):
    (tmp_path / "v.csv").write_text(text)
    said = (
        r"v.csv has [23] columns \(.*expected `name,value`, or a heading with one column of value"
    )
    refusal(read_aesthetic, tmp_path / "v.csv", ["a"], 10, kind=DataError, match=said)


def test_an_empty_column_at_the_end_is_none_and_unused_values_are_counted(tmp_path):
    (tmp_path / "v.csv").write_text("a,1,\nb,2,\nother,3,\n")
    values, remarks = read_aesthetic(tmp_path / "v.csv", ["a", "b"], 10)
    assert values == {"a": 1, "b": 2}
    assert remarks == [
        f"1 of 3 values in {tmp_path / 'v.csv'} is of no result and is not used (other)"
    ]


@pytest.mark.parametrize(
    "name, text", [("v.csv", "\u56fe\u7247,5\n"), ("v.json", '{"\u56fe\u7247": 5}')]
)
def test_values_in_gbk_that_are_utf_8_by_chance_are_told_by_their_names(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("gbk"))
    with pytest.raises(
        DataError,
        match="it looks like GBK: read so, it has a value for every result.; expected UTF-8, save "
        "it as UTF-8",
    ):
        read_aesthetic(tmp_path / name, ["\u56fe\u7247"], 10)
    with pytest.raises(DataError, match="has no value for \u5929"):
        read_aesthetic(tmp_path / name, ["\u5929"], 10)


def test_output_of_others_is_refused(tmp_path):
    results, output = tmp_path / "results", tmp_path / "scores"
    check_output(output, results)
    output.mkdir()
    (output / TABLE).write_text("mine")
    with pytest.raises(DataError, match=r"holds images.csv \(1 of .*\) but no summary.json"):
        check_output(output, results)
    for text, said in (("{", "damaged"), ("{}", "no record of the score"), ("[]", "damaged")):
        (output / SUMMARY).write_text(text)
        with pytest.raises(DataError, match=said):
            check_output(output, results)
    summary = {"command": "score", "format": 1, "settings": {"results": str(results.resolve())}}
    (output / SUMMARY).write_text(json.dumps(summary))
    check_output(output, results)
    with pytest.raises(DataError, match="holds the scores of .*results; give another"):
        check_output(output, tmp_path / "others")
    with pytest.raises(DataError, match="is a file"):
        check_output(output / TABLE, results)


# Features


def counted(calls):
    """An extractor of 3 numbers an image that remembers how many images it saw."""

    def extract(images):
        calls.append(len(images))
        return np.stack([p.mean((0, 1)) for p in images]).astype(np.float32)

    return Extractor("test", extract)


def test_features_are_computed_once_by_content(data):
    calls = []
    paths = [item.result for item in items(data)] * 2 + [data / "refs" / "imgs" / "a_ref.jpg"]
    keys = digests(paths)
    store = FeatureStore(data / "cache", "test")
    assert sum(computed(paths, keys, counted(calls), store)) == 4 == sum(calls)
    assert store.missing(keys) == set()
    expected = [read_image(path).mean((0, 1)) for path in paths]
    np.testing.assert_allclose(FeatureStore(data / "cache", "test").get(keys), expected, rtol=1e-6)
    (data / "moved").mkdir()
    moved = data / "moved" / "z.jpg"
    moved.write_bytes(paths[0].read_bytes())
    save_image(paths[1], image(99))
    paths[1] = paths[4] = paths[1]
    keys = digests([moved] + paths)
    again = FeatureStore(data / "cache", "test")
    assert sum(computed([moved] + paths, keys, counted(calls), again)) == 1, (
        "one file has another content, one only another name"
    )
    assert FeatureStore(data / "cache", "other").missing(keys) == set(keys)


def test_an_interrupted_computation_goes_on(data, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 1)
    paths = [item.result for item in items(data)]
    keys, calls, store = digests(paths), [], FeatureStore(data / "cache", "test")
    running = computed(paths, keys, counted(calls), store)
    next(running), next(running)
    running.close()
    assert len(FeatureStore(data / "cache", "test").missing(keys)) == 1
    assert sum(computed(paths, keys, counted(calls), FeatureStore(data / "cache", "test"))) == 1
    assert sum(calls) == 3


def test_damaged_features_count_as_absent(data):
    store = FeatureStore(data / "cache", "test")
    store.add(["a" * 64, "b" * 64], np.ones((2, 3)))
    (path,) = store.folder.iterdir()
    for spoiled in (b"", path.read_bytes()[:100], b"PK" + bytes(200)):
        path.write_bytes(spoiled)
        assert FeatureStore(data / "cache", "test").missing(["a" * 64]) == {"a" * 64}
        with pytest.raises(KeyError):
            FeatureStore(data / "cache", "test").get(["a" * 64])
    np.savez(
        str(path), keys=np.array(["a" * 64], "S64"), values=np.full((1, 3), np.nan, np.float32)
    )
    assert FeatureStore(data / "cache", "test").missing(["a" * 64])
    store.add(["a" * 64, "b" * 64], np.ones((2, 3)))
    assert not FeatureStore(data / "cache", "test").missing(["a" * 64])
    with pytest.raises(ValueError, match="one row a key"):
        store.add(["a"], np.ones((2, 3)))


def test_features_are_kept_below_the_user_s_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "jseg" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "jseg" / "features"


def test_the_stand_in_orders_sets_by_what_was_done_to_them():
    from PIL import Image, ImageFilter

    from jseg.landscapes.draw import landscape

    extractor = features.autoencoder()
    drawn = [landscape(seed, 64, 48)[0] for seed in range(20)]
    kept = extractor.features(drawn)
    assert kept.shape == (20, 704) and kept.dtype == np.float32
    np.testing.assert_allclose(
        extractor.features(drawn[:1])[0],
        kept[0],
        rtol=1e-3,
        atol=1e-3,
        err_msg="an image's features are its own",
    )
    noise, real = RNG(0), kept[:10]
    changes = (
        lambda p: p,
        lambda p: np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(1.5))),
        lambda p: np.clip(p + noise.normal(0, 60, p.shape), 0, 255).astype(np.uint8),
        lambda p: np.full_like(p, p.mean()),
    )
    found = [
        measures.stand_in_distance(extractor.features(list(map(change, drawn[10:]))), real)[
            "stand_in"
        ]
        for change in changes
    ]
    unchanged, blurred, noisy, flat = found
    assert abs(unchanged) < 0.1 * min(noisy, flat) and unchanged < blurred < min(noisy, flat), found
    scaled = measures.stand_in_distance(3 * kept[10:] + 7, 3 * real + 7)["stand_in"]
    assert scaled == pytest.approx(found[0], abs=1e-3), (
        "neither brightness nor scale of a feature weighs"
    )


# Terms and formulas


def test_distances_of_given_features_are_scipy_s():
    a, b = RNG(0).normal(size=(40, 6)), RNG(1).normal(size=(30, 6)) @ RNG(2).normal(size=(6, 6)) + 1
    found = measures.inception_distances(a.astype(np.float32), b.astype(np.float32))
    one, other = (np.cov(x.astype(np.float32), rowvar=False) for x in (a, b))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        one + other - 2 * scipy.linalg.sqrtm(one @ other).real
    )
    assert found["fid"] == pytest.approx(expected, rel=1e-5)
    kernel = [(x @ y.T / 6 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    expected = (
        sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernel[:2])
        - 2 * kernel[2].mean()
    )
    assert found["kid"] == pytest.approx(expected, rel=1e-4)


def test_an_image_s_scores():
    label = RNG(0).integers(0, 29, (24, 32)).astype(np.uint8)
    label[:4] = 255
    prediction = np.where(RNG(1).random((24, 32)) < 0.5, label, 3).astype(np.uint8)
    prediction[:4] = 3
    row, matrix = score_image("x", image(0), image(1), label, prediction, 29, 5.0)
    assert row.mask_accuracy == pytest.approx(np.mean(prediction[4:] == label[4:])), (
        "unknown pixels do not count"
    )
    assert np.array_equal(matrix, confusion(prediction, label, 29)) and matrix.sum() == 20 * 32
    assert row.style_challenge == style_similarity(image(0), image(1), "challenge"), "to the bit"
    assert row.style_corrected == style_similarity(image(0), image(1), "corrected")
    assert row.aesthetic == 5
    row, matrix = score_image(
        "x", image(0), image(1), np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 29
    )
    assert row.mask_accuracy is None and not matrix.any()
    assert score_image("x", image(0), image(1), label, None, 29)[0].mask_accuracy is None


def test_terms_are_means_over_images():
    rows = [
        ImageScores("a", 0.5, 0.2, 0.1, 4),
        ImageScores("b", 0.9, 0.4, 0.3, 6),
        ImageScores("c", None, 0.6, 0.5, 5),
    ]
    terms = gathered(rows, np.array([[30, 10], [0, 60]]), 10.0, 7, {"fid": 3.0, "kid": 0.1})
    assert (terms.mask_accuracy, terms.pixel_accuracy, terms.aesthetic, terms.real) == (
        pytest.approx(0.7),
        0.9,
        5,
        7,
    )
    assert terms.mean_iou == pytest.approx((30 / 40 + 60 / 70) / 2)
    assert terms.style_challenge == pytest.approx(0.4)
    assert terms.fid == 3
    bare = gathered([ImageScores("a", None, 0.2, 0.1)], np.zeros((2, 2), int))
    assert (
        bare.mask_accuracy is bare.mean_iou is bare.aesthetic is bare.fid is bare.stand_in is None
    )


def test_scores_are_the_formulas():
    terms = Terms(
        9, mask_accuracy=0.9, style_challenge=0.9, style_corrected=0.5, aesthetic=5.0, fid=35.0
    )
    found = challenge_scores(terms)
    assert found[0].value == pytest.approx(0.639)
    assert all(score.low == score.high == score.value for score in found)
    assert found[1].value == challenge_score(0.9, 0.5, 0.5, 35)
    assert found[2].value == challenge_score(0.9, 5.0, None, 35, 2022)
    assert [score.name[:4] for score in found] == ["2023", "2023", "2022"]
    assert all(not score.missing for score in found)
    scaled = challenge_scores(dataclasses.replace(terms, aesthetic=0.5, aesthetic_max=1))
    assert [score.value for score in scaled] == pytest.approx([score.value for score in found])


def test_missing_terms_are_named_and_bounded():
    found = challenge_scores(
        Terms(9, mask_accuracy=0.8, style_challenge=0.6, style_corrected=0.2, stand_in=0.01)
    )
    assert [score.value for score in found] == [None] * 3
    assert found[0].missing == ("aesthetic value", "FID") == found[2].missing
    assert (found[0].low, found[0].high) == pytest.approx(
        (0.8 * 0.3 * 0.8, 0.8 * (0.2 + 0.3 * 0.8 + 0.5))
    )
    assert (found[2].low, found[2].high) == pytest.approx((0, 0.8))
    lines = dict(
        report.lines(
            Terms(9, style_challenge=0.6, style_corrected=0.2, stand_in=0.01, real=4), found
        )
    )
    assert lines["FID"] == "missing: give --inception"
    assert lines["mask accuracy"] == "missing: give --predictions or --flowseg"
    assert lines["aesthetic value"] == "missing: give --aesthetic"
    assert "no FID" in lines["stand-in for FID"]
    assert "missing: without aesthetic value, FID; between 0.1920 and 0.7520" in lines.values()
