"""run.json: written whole, read back checked, and the rule that one folder holds the results of one
setting.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from support.tiny import FINE, RELEASE, label_map, photograph

from jseg import __version__
from jseg.data.challenge import Pair
from jseg.files import DataError
from jseg.images import save_image
from jseg.ldm import manifest, synthesize

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
    return synthesize.settings_of(
        *[values.pop(name) for name in ("pipeline", "seed", "batch_size", "device", "ignore")],
        **values,
    )


def begun(output, finished=("a",), **changed):
    """A manifest that is in `output`, with an image that is finished."""
    run = manifest.opened(output, settings(**changed), STEMS)
    output.mkdir(exist_ok=True)
    for stem in finished:
        save_image(output / f"{stem}.jpg", photograph(1))
    run["files"] = {f"{stem}.jpg": "" for stem in finished}
    manifest.write(output, run)
    return run


def by_an_older_version(output):
    """Turn the manifest in `output` into one of before it listed files."""
    run = json.loads((output / "run.json").read_text())
    for name in ("command", "files", "stages"):
        del run[name]
    (output / "run.json").write_text(json.dumps(run))


def test_a_new_run(tmp_path):
    run = manifest.opened(tmp_path / "new", settings(), STEMS)
    assert not (tmp_path / "new").exists(), "opening writes nothing"
    assert (
        run["pictures"] == {"total": 3, "finished": 0}
        and run["seconds"] == {"total": 0.0}
        and run["format"] == manifest.FORMAT
    )
    assert (
        run["settings"]["ignore"] == [11, 255]
        and run["settings"]["pipeline"]["stages"][1]["start_index"] == 2
    )
    assert run["versions"]["jseg"] == __version__ and run["versions"]["jittor"][0].isdigit()
    assert [name for name, version in run["versions"].items() if not version[0].isdigit()] == []


def test_the_same_settings_go_on(tmp_path):
    run = begun(tmp_path)
    run["seconds"]["total"], run["pictures"]["finished"] = 12.5, 1
    manifest.write(tmp_path, run)
    again = manifest.opened(tmp_path, settings(), STEMS)
    assert again == json.loads((tmp_path / "run.json").read_text()) == run


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"seed": 1}, ["seed was 0, now 1"]),
        ({"ignore": [255]}, ["ignore was [11, 255], now [255]"]),
        ({"inputs": "4" * 64}, ["inputs was", "now"]),
        ({"model": "4" * 64}, ["model was"]),
        ({"autoencoder": "4" * 64}, ["autoencoder was"]),
        (
            {"pipeline": FINE},
            ["pipeline.aligned was false, now true", "pipeline.jpeg_quality was 75, now 95"],
        ),
        ({"new": 1}, ["new was null, now 1"]),
    ],
)
def test_another_setting_is_named(tmp_path, changed, words):
    begun(tmp_path)
    with pytest.raises(DataError) as error:
        manifest.opened(tmp_path, settings(**changed), STEMS)
    line = str(error.value)
    assert [
        word for word in words + ["another run", "another --output_path"] if word not in line
    ] == [] and "\n" not in line


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "changed, words",
    [
        ({"batch_size": 3}, "batch_size was 2, now 3"),
        ({"device": "cuda"}, 'device was "cpu", now "cuda"'),
    ],
)
def test_batch_size_and_device_may_change_and_it_is_told(tmp_path, changed, words, older):
    begun(tmp_path)
    if older:
        by_an_older_version(tmp_path)
    notes = []
    run = manifest.opened(tmp_path, settings(**changed), STEMS, notes)
    assert run["settings"] == json.loads(json.dumps(settings(**changed))) and run["files"] == {
        "a.jpg": ""
    }
    assert (
        len(notes) == 1
        and words in notes[0]
        and "1 images are there already" in notes[0]
        and "last bits" in notes[0]
    )


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"pipeline": FINE}, {"model": "4" * 64}, {"inputs": "4" * 64}]
)
def test_any_setting_may_change_while_nothing_is_finished(tmp_path, changed):
    begun(tmp_path, finished=())
    notes = []
    run = manifest.opened(tmp_path, settings(**changed), STEMS, notes)
    assert run["settings"] == json.loads(json.dumps(settings(**changed))) and run["seconds"] == {
        "total": 0.0
    }
    assert len(notes) == 1 and "nothing was finished" in notes[0] and "was" in notes[0]


def test_a_setting_that_an_older_record_lacks_was_off(tmp_path):
    begun(tmp_path)
    by_an_older_version(tmp_path)
    assert manifest.opened(tmp_path, settings(new=False), STEMS)["settings"]["new"] is False
    with pytest.raises(DataError, match="new was null, now true"):
        manifest.opened(tmp_path, settings(new=True), STEMS)


def test_a_difference_deep_in_the_stages_is_named(tmp_path):
    begun(tmp_path)
    stages = (RELEASE.stages[0], dataclasses.replace(RELEASE.stages[1], start_index=3))
    with pytest.raises(DataError, match=r"\(pipeline.stages\[1\].start_index was 2, now 3\)"):
        manifest.opened(
            tmp_path, settings(pipeline=dataclasses.replace(RELEASE, stages=stages)), STEMS
        )
    with pytest.raises(DataError, match=r"pipeline.stages was \[\{.*\.\.\., now \[\{"):
        manifest.opened(
            tmp_path, settings(pipeline=dataclasses.replace(RELEASE, stages=stages[:1])), STEMS
        )


def test_images_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "other.jpg").write_bytes(b"x")
    assert manifest.opened(tmp_path, settings(), STEMS)["pictures"]["total"] == 3, (
        "files under other names do no harm"
    )
    for stem in ("c", "b"):
        (tmp_path / f"{stem}.jpg").write_bytes(b"x")
    with pytest.raises(
        DataError,
        match=r"holds b\.jpg \(2 of .*\) but no run\.json.*give another --output_path, or move",
    ):
        manifest.opened(tmp_path, settings(), STEMS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: "",
        lambda run: "{",
        lambda run: "[]",
        lambda run: "null",
        lambda run: "\0",
        lambda run: "[" * 100000,
        lambda run: json.dumps(run)[:-9],
        lambda run: json.dumps({**run, "format": 2}),
        lambda run: json.dumps({**run, "settings": None}),
        lambda run: json.dumps({key: value for key, value in run.items() if key != "pictures"}),
        lambda run: json.dumps({**run, "pictures": {}}),
        lambda run: json.dumps({**run, "pictures": [1, 2]}),
        lambda run: json.dumps({**run, "seconds": {}}),
        lambda run: json.dumps({**run, "seconds": {"total": "1"}}),
        lambda run: json.dumps({**run, "seconds": {"total": 1, "stage 0": None}}),
        lambda run: json.dumps({**run, "seconds": 3}),
    ],
)
def test_a_damaged_run_file_is_refused(tmp_path, damage):
    (tmp_path / "run.json").write_text(damage(begun(tmp_path)))
    with pytest.raises(DataError) as error:
        manifest.opened(tmp_path, settings(), STEMS)
    line = str(error.value)
    assert "run.json is not a jseg run file, or is damaged" in line and "\n" not in line
    assert "move it away or give another --output_path" in line


def test_names_of_any_kind_survive(tmp_path):
    notes = ["1 label maps (山水.png)", "2 label maps (" + os.fsdecode(b"\xff.png") + ")"]
    run = begun(tmp_path)
    manifest.write(tmp_path, {**run, "notes": notes})
    assert "山水" in (tmp_path / "run.json").read_text(encoding="utf-8")
    assert manifest.read(tmp_path / "run.json")["notes"] == notes


def test_the_digest_of_inputs_depends_on_names_order_and_contents(tmp_path):
    paths = []
    for number in range(2):
        paths.append((tmp_path / f"{number}.png", tmp_path / f"{number}.jpg"))
        save_image(paths[-1][0], label_map(number))
        save_image(paths[-1][1], photograph(number))
    pairs = [Pair("x", *paths[0]), Pair("y", *paths[1])]
    digests = [
        manifest.inputs_digest(chosen)
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
    assert manifest.inputs_digest(elsewhere) == digests[0], "where a file lies does not matter"
    save_image(paths[1][0], label_map(5))
    assert len(set(digests + [manifest.inputs_digest(pairs)])) == 6


@pytest.mark.parametrize("output", ["new", "new/and/deeper", "."])
def test_an_output_that_can_be_made_is_accepted_and_not_made(tmp_path, output, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path(output), tmp_path / output):
        manifest.check_output(path, STEMS, 512, 384)
    assert list(tmp_path.iterdir()) == []


def test_room_is_needed_only_for_what_is_missing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000000))
    with pytest.raises(
        DataError, match="has 1.0 MB free; 3 images of 512x384 may need 1.5 MB; free some room"
    ):
        manifest.check_output(tmp_path, STEMS, 512, 384)
    begun(tmp_path)
    manifest.check_output(tmp_path, STEMS, 512, 384)
