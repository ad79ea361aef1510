"""The output folder of a synthesis: run.json of today and of earlier versions, room, the digest of
the inputs.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from support.tiny import FINE, RELEASE, label_map, photograph

from jseg.data.challenge import Pair
from jseg.files import DataError
from jseg.images import save_image
from jseg.ldm import results

STEMS = ["a", "b", "c"]


def settings(**changed):
    values = {
        "pipeline": RELEASE,
        "seed": 0,
        "batch_size": 2,
        "device": "cpu",
        "ignore": [255, 11],
        "inputs": "1" * 64,
        "model": "2" * 64,
        "autoencoder": "3" * 64,
        **changed,
    }
    return results.settings_of(**values)


def begun(output, finished=("a",)):
    """The run in `output`, with images that are finished."""
    run, _ = results.resumed(output, settings(), STEMS)
    output.mkdir(exist_ok=True)
    for stem in finished:
        save_image(output / f"{stem}.jpg", photograph(1))
    run.save([f"{stem}.jpg" for stem in finished])
    return run


def by_an_older_version(output):
    """Turn the record in `output` into one of before it listed files."""
    record = json.loads((output / "run.json").read_text())
    for name in ("command", "files", "stages"):
        del record[name]
    (output / "run.json").write_text(json.dumps(record))


def test_a_new_run(tmp_path):
    run, remarks = results.resumed(tmp_path / "new", settings(), STEMS)
    assert not (tmp_path / "new").exists() and remarks == [], "nothing is written"
    assert run.fields == {
        "pictures": {"total": 3, "finished": 0},
        "seconds": {"total": 0.0},
        "notes": [],
        "stages": [],
    }
    assert run.settings["ignore"] == [11, 255] and run.files == {}
    assert run.settings["pipeline"]["stages"][1]["start_index"] == 2


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "changed, words",
    [
        ({"batch_size": 3}, "batch_size was 2, is 3"),
        ({"device": "cuda"}, "device was cpu, is cuda"),
        ({"new": False}, ""),
    ],
)
def test_what_may_change_is_told(tmp_path, changed, words, older):
    begun(tmp_path)
    if older:
        by_an_older_version(tmp_path)
    run, remarks = results.resumed(tmp_path, settings(**changed), STEMS)
    assert run.settings == json.loads(json.dumps(settings(**changed)))
    assert run.files == {"a.jpg": ""} and run.fields["stages"] == []
    assert len(remarks) == bool(words)
    for remark in remarks:
        assert words in remark and "1 result is there already" in remark


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"pipeline": FINE}, ["pipeline.aligned was False, is True", "jpeg_quality was 75, is 95"]),
        ({"inputs": "4" * 64}, ["inputs was", "is"]),
        ({"new": 1}, ["new was None, is 1"]),
    ],
)
def test_another_setting_is_named(tmp_path, changed, words):
    begun(tmp_path)
    with pytest.raises(DataError) as error:
        results.resumed(tmp_path, settings(**changed), STEMS)
    line = str(error.value)
    expected = [*words, "results of other settings", "another --output_path"]
    assert [word for word in expected if word not in line] == [] and "\n" not in line


def test_a_difference_deep_in_the_stages_is_named(tmp_path):
    begun(tmp_path)
    stages = (RELEASE.stages[0], dataclasses.replace(RELEASE.stages[1], start_index=3))
    for other, said in (
        (stages, r"\(pipeline.stages\[1\].start_index was 2, is 3\)"),
        (stages[:1], r"pipeline.stages was \[\{.*\.\.\., is \[\{"),
    ):
        pipeline = dataclasses.replace(RELEASE, stages=other)
        with pytest.raises(DataError, match=said):
            results.resumed(tmp_path, settings(pipeline=pipeline), STEMS)


def test_any_setting_may_change_while_nothing_is_finished(tmp_path):
    begun(tmp_path, finished=())
    run, remarks = results.resumed(tmp_path, settings(seed=1), STEMS)
    assert run.settings["seed"] == 1 and run.fields["seconds"] == {"total": 0.0}
    assert len(remarks) == 1 and "nothing was finished" in remarks[0]


def test_images_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "other.jpg").write_bytes(b"x")
    results.resumed(tmp_path, settings(), STEMS)  # files under other names do no harm
    for stem in ("c", "b"):
        (tmp_path / f"{stem}.jpg").write_bytes(b"x")
    said = r"holds b\.jpg \(2 of .*\) but no run\.json.*give another --output_path, or move"
    with pytest.raises(DataError, match=said):
        results.resumed(tmp_path, settings(), STEMS)


@pytest.mark.parametrize(
    "damage",
    [
        {"pictures": None},
        {"pictures": {}},
        {"pictures": [1, 2]},
        {"seconds": {}},
        {"seconds": {"total": "1"}},
        {"seconds": {"total": 1, "stage 0": None}},
        {"seconds": 3},
        {"stages": [1]},
    ],
)
def test_a_record_without_its_counts_is_refused(tmp_path, damage):
    begun(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, **damage}))
    with pytest.raises(DataError, match="run.json is damaged"):
        results.resumed(tmp_path, settings(), STEMS)


def test_the_digest_of_inputs_depends_on_names_order_and_contents(tmp_path):
    paths = []
    for number in range(2):
        paths.append((tmp_path / f"{number}.png", tmp_path / f"{number}.jpg"))
        save_image(paths[-1][0], label_map(number))
        save_image(paths[-1][1], photograph(number))
    pairs = [Pair("x", *paths[0]), Pair("y", *paths[1])]
    digests = [
        results.inputs_digest(chosen)
        for chosen in (
            pairs,
            pairs[::-1],
            pairs[:1],
            [Pair("x", *paths[0]), Pair("z", *paths[1])],
            [Pair("x", paths[0][0], paths[1][1]), pairs[1]],
        )
    ]
    shutil.copy(tmp_path / "0.jpg", tmp_path / "copy.jpg")
    elsewhere = [Pair("x", paths[0][0], tmp_path / "copy.jpg"), pairs[1]]
    assert results.inputs_digest(elsewhere) == digests[0], "where a file lies does not matter"
    save_image(paths[1][0], label_map(5))
    assert len(set(digests + [results.inputs_digest(pairs)])) == 6


@pytest.mark.parametrize("output", ["new", "new/and/deeper", "."])
def test_an_output_that_can_be_made_is_accepted_and_not_made(tmp_path, output, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path(output), tmp_path / output):
        results.check_output(path, results.names_of(STEMS))
    assert list(tmp_path.iterdir()) == []


def test_room_is_needed_only_for_what_is_missing(tmp_path):
    names = results.names_of(STEMS, 2, ["a"])
    assert names == ["a.jpg", "b.jpg", "c.jpg", "grid.png", "stages/0/a.png"]
    assert results.room(tmp_path, names, 100, 10) == 1000 * (4 * 2.5 + 3)
    begun(tmp_path)
    assert results.room(tmp_path, names, 100, 10) == 1000 * (3 * 2.5 + 3)
    with pytest.raises(DataError, match="MB free, .* MB may be needed; free some room"):
        results.check_output(tmp_path, names, needed=1 << 60)
