"""run.json and every record: written whole, read back checked; settings compared; one folder holds
the results of one setting.
"""

import errno
import json
import os

import numpy as np
import pytest

from jseg import __version__
from jseg.files import DataError
from jseg.images import save_image
from jseg.outputs import run as run_file
from jseg.outputs.record import WriteError, own_record, write_json, writing
from jseg.outputs.run import Run, resumed, versions
from jseg.outputs.settings import UNKNOWN, compared, said

OLD = {"seed": 0, "nested": {"list": [1, 2], "off": False}, "batch_size": 1}


def new(folder, **changed):
    return Run(folder, "test", {**OLD, **changed}, {"made": {}}, {})


def begun(folder):
    """A run in `folder` with the finished result a.png."""
    run, _ = resumed(new(folder), None, [], "--output")
    run.save(["a.png"])
    run.write("a.png", lambda path: save_image(path, np.zeros((4, 4), np.uint8)))
    run.fields["made"] = {"a": 1}
    run.save()
    return run


def again(folder, results=("a.png",), **changed):
    old = run_file.read(folder, "test", "--output", lambda record: record["made"])
    return resumed(new(folder, **changed), old, results, "--output")


def test_the_same_settings_go_on(tmp_path):
    run = begun(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["format"] == 1 and record["command"] == "test" and record["made"] == {"a": 1}
    assert record["versions"] == versions() and len(record["files"]["a.png"]) == 64
    assert again(tmp_path) == (run, [])


def test_versions_are_those_of_all_that_computes():
    found = versions()
    assert found["jseg"] == __version__ and found["jittor"][0].isdigit()
    assert [name for name, version in found.items() if not version[0].isdigit()] == []


@pytest.mark.parametrize(
    "stored, asked, defaults, text",
    [
        ({"a": 1}, {"a": 1}, {}, ""),
        ({"a": [1, 2]}, {"a": (1, 2)}, {}, ""),
        ({"a": 1}, {"a": "x"}, {}, "a was 1, is x"),
        ({}, {"a": False}, {}, ""),
        ({}, {"a": True}, {}, "a was None, is True"),
        ({"a": 0}, {}, {}, ""),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, {}, "a.b[1] was 2, is 3"),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 3]}}, {}, "a.b was [1], is [1, 3]"),
        ({"a": {}}, {"a": {"b": None}}, {}, ""),
        ({}, {"a": 0.5}, {"a": 0.5}, ""),
        ({}, {"a": 0.0}, {"a": 0.5}, "a was 0.5, is 0.0"),
        ({}, {"a": 0.5}, {"a": UNKNOWN}, ""),
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, {}, "a was 1, is 2; b was 1, is 2"),
    ],
)
def test_settings_are_compared_and_differences_said(stored, asked, defaults, text):
    assert said(compared(stored, asked, defaults)) == text


def test_other_settings_are_refused_while_something_is_finished(tmp_path):
    begun(tmp_path)
    with pytest.raises(DataError, match=r"settings \(nested.list\[0\] was 1, is 5\); give another"):
        again(tmp_path, nested={"list": [5, 2]})
    run, remarks = again(tmp_path, results=(), seed=1)
    assert run.settings["seed"] == 1 and run.fields == {"made": {}} and "a.png" in run.files
    assert "nothing was finished" in remarks[0] and "seed was 0, is 1" in remarks[0]
    run, remarks = again(tmp_path, batch_size=2)
    assert run.settings["batch_size"] == 2 and run.fields == {"made": {"a": 1}}
    assert "batch_size was 1, is 2" in remarks[0] and "last bits" in remarks[0]


def test_a_file_that_someone_has_changed_is_kept_and_told(tmp_path):
    begun(tmp_path)
    save_image(tmp_path / "a.png", np.ones((4, 4), np.uint8))
    mine = (tmp_path / "a.png").read_bytes()
    run, (remark,) = again(tmp_path)
    assert "1 result was changed by others since it was made (a.png)" in remark
    run.write("a.png", lambda path: pytest.fail("written again"))
    run.save()
    assert (tmp_path / "a.png").read_bytes() == mine and len(again(tmp_path)[1]) == 1


def test_an_interrupted_run_knows_its_own_files(tmp_path):
    run, _ = resumed(new(tmp_path), None, [], "--output")
    with pytest.raises(KeyboardInterrupt), run.saved_at_the_end():
        run.save(["a.png", "b.png"])
        assert json.loads((tmp_path / "run.json").read_text())["files"] == {
            "a.png": "",
            "b.png": "",
        }
        (tmp_path / "a.png").write_bytes(b"half")
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "run.json").read_text())["files"] == {"a.png": ""}


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda record: b"", "it is empty"),
        (lambda record: b"{", "it is no JSON from line 1 on"),
        (lambda record: b"[]", "it holds no JSON object"),
        (lambda record: b"null", "it holds no JSON object"),
        (lambda record: b"\0", "it is no JSON from line 1 on"),
        (lambda record: b"\xff\xfe", "it is no text in UTF-8"),
        (lambda record: b"[" * 100000, "it"),
        (lambda record: written({**record, "settings": None}), "its settings are no object"),
        (lambda record: written({**record, "files": {"a.png": 1}}), "its files are no names"),
        (lambda record: written({**record, "made": {}}), "it lacks 'x'"),
        (lambda record: written({**record, "made": None}), "a value in it has another form"),
        (lambda record: written({**record, "format": 2}), None),
        (lambda record: written({**record, "command": "test"}), None),
        (lambda record: b"{}", None),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, damage, said):
    path, record = tmp_path / "summary.json", {"format": 1, "command": "score", "settings": {}}
    record = {**record, "files": {}, "made": {"x": 1}}
    write_json(path, record)
    assert own_record(path, "score", "--output", lambda found: found["made"]["x"]) == record
    path.write_bytes(damage(record))
    with pytest.raises(DataError) as error:
        own_record(path, "score", "--output", lambda found: found["made"]["x"])
    line = str(error.value)
    why = f"is damaged ({said}" if said else "is no record of the score command"
    assert line.startswith(f"{path} {why}") and "Error" not in line and "\n" not in line
    assert line.endswith("; move it away, or give another --output")


def written(record):
    return json.dumps(record).encode()


def test_names_of_any_kind_survive(tmp_path):
    notes = ["1 label maps (\u5c71\u6c34.png)", "2 label maps (" + os.fsdecode(b"\xff.png") + ")"]
    write_json(tmp_path / "run.json", {"notes": notes})
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert "\u5c71\u6c34" in text and json.loads(text)["notes"] == notes


@pytest.mark.parametrize(
    "error, told",
    [
        (lambda path: OSError(errno.ENOSPC, "No space left on device"), True),
        (lambda path: PermissionError(errno.EACCES, "Permission denied", str(path)), True),
        (lambda path: OSError(errno.EROFS, "Read-only", str(path.parent.parent)), True),
        (lambda path: FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/a.jpg"), False),
        (lambda path: OSError(errno.ENOMEM, "Cannot allocate memory"), False),
        (lambda path: ValueError("other"), False),
    ],
)
def test_what_cannot_be_written_is_one_text(tmp_path, error, told):
    path = tmp_path / "folder" / "a.png"
    with pytest.raises((OSError, ValueError)) as caught:
        with writing(path), writing(path):
            raise error(path)
    assert isinstance(caught.value, WriteError) == told
    if told:
        assert str(caught.value).startswith(f"cannot write {path} ({error(path).strerror}); what")
        assert str(caught.value).endswith("give the same command again")
