"""jseg/machine/onednn.py: oneDNN is whole in its place, or the import is refused."""

import os
import shutil

import pytest
from support.child_python import refusal, write

from jseg.machine import onednn
from jseg.machine.facts import RuntimeProblem


def test_no_onednn_is_refused_unless_the_user_said_so(tmp_path, monkeypatch):
    write(tmp_path / "fakes/jittor_offline/__init__.py")
    line = refusal(tmp_path / "fakes", HOME=tmp_path / "home")
    assert "install jittor_offline" in line and "use_mkl=0" in line
    monkeypatch.setenv("use_mkl", "0")
    monkeypatch.setattr(onednn, "archive", lambda: None)
    onednn.prepare(str(tmp_path))


def test_onednn_is_unpacked_whole_and_a_broken_folder_is_healed(tmp_path):
    home, place = str(tmp_path), onednn.folder(str(tmp_path))
    onednn.prepare(home)
    assert onednn.is_whole(place)
    assert os.listdir(os.path.dirname(place)) == [os.path.basename(place)]
    library = os.path.realpath(os.path.join(place, "lib", "libmkldnn.so"))
    os.truncate(library, os.path.getsize(library) - 1)
    assert not onednn.is_whole(place)
    onednn.prepare(home)
    assert onednn.is_whole(place)
    shutil.rmtree(os.path.join(place, "include", "oneapi"))
    assert not onednn.is_whole(place)
    onednn.prepare(home)
    assert onednn.is_whole(place) and len(os.listdir(os.path.dirname(place))) == 1


def test_a_broken_onednn_that_cannot_be_healed_is_named(tmp_path, monkeypatch):
    place = onednn.folder(str(tmp_path))
    write(tmp_path / os.path.relpath(place, tmp_path) / "lib/libmkldnn.so", "half")
    monkeypatch.setattr(onednn, "archive", lambda: None)
    with pytest.raises(RuntimeProblem, match="incomplete: delete that folder"):
        onednn.prepare(str(tmp_path))
    damaged = write(tmp_path / "damaged.tgz", "not an archive")
    monkeypatch.setattr(onednn, "archive", lambda: str(damaged))
    with pytest.raises(RuntimeProblem, match="is damaged: .*force-reinstall"):
        onednn.prepare(str(tmp_path))
