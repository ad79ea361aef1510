"""The latent cache: made once, continued after anything, byte for byte what an uninterrupted run
makes; nothing here needs Jittor.
"""

import errno
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import refusals
from support.places import ROOT

from jseg.files import DataError
from jseg.ldm import latent_cache
from jseg.ldm.cache_files import KEYS, LABELS, LATENTS, about, digest, read_arrays

LATENT = (3, 4, 5)
COMMON = about("ab" * 32, 20, 16, LATENT)


def latents_of(content):
    return (
        np.random.default_rng(zlib.crc32(content.encode()))
        .standard_normal((2,) + LATENT)
        .astype(np.float32)
    )


def labels_of(content):
    return np.random.default_rng(zlib.crc32(content.encode())).integers(
        0, 256, (2,) + LATENT[1:], dtype=np.uint8
    )


class Data:
    """A data set by the contents of its images and of its label maps (the same letters in
    capitals); counts what is made of it.
    """

    def __init__(self, images, labels=None):
        self.images = list(images)
        self.labels = list(labels or images.upper())
        self.encoded = []
        self.told = []
        keys = [
            hashlib.sha256(content.encode()).digest()
            for pair in zip(self.images, self.labels)
            for content in pair
        ]
        self.keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 2, 32)

    def make_latents(self, i):
        self.encoded.append(self.images[i])
        return latents_of(self.images[i])

    def fill(self, cache, common=COMMON, make_latents=None, **named):
        named.setdefault("tell", self.told.append)
        rows = latent_cache.Rows(
            self.keys, make_latents or self.make_latents, lambda i: labels_of(self.labels[i])
        )
        return latent_cache.fill(Path(cache), common, rows, **named)

    def check(self, folder):
        """Every byte of a complete folder is the expected one."""
        arrays = read_arrays(folder, COMMON, len(self.keys))
        assert arrays[LATENTS].dtype == np.float32 and arrays[LABELS].dtype == np.uint8
        assert np.array_equal(
            arrays[LATENTS], np.concatenate([latents_of(content) for content in self.images])
        )
        assert np.array_equal(
            arrays[LABELS], np.concatenate([labels_of(content) for content in self.labels])
        )
        assert np.array_equal(arrays[KEYS], self.keys)


def contents(cache):
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(Path(cache).rglob("*"))
        if path.is_file()
    }


refusal = functools.partial(refusals.refusal, kind=DataError, most=600)


# -- made once -------------------------------------------------------------------------------------


def test_a_second_start_makes_nothing_and_changes_no_byte(tmp_path):
    data = Data("abcd")
    folder = data.fill(tmp_path / "deep" / "cache")
    data.check(folder)
    assert "4 of 4 images" in data.told[0]
    before = contents(folder.parent)
    again = Data("abcd")
    # release: NpyAppendArray, so that a second start doubles the data; here: the same file.
    assert again.fill(folder.parent) == folder and again.encoded == [] and again.told == []
    assert contents(folder.parent) == before


@pytest.mark.parametrize(
    "images, labels, encoded",
    [
        ("abXd", None, "X"),
        ("abcde", None, "e"),
        ("abd", None, ""),
        ("dcba", None, ""),
        ("abcd", "ABZD", ""),
        ("aabcd", "AABCD", ""),
    ],
)
def test_only_what_changed_is_encoded_and_the_old_rows_go(tmp_path, images, labels, encoded):
    first = Data("abcd").fill(tmp_path)
    changed = Data(images, labels)
    folder = changed.fill(tmp_path)
    changed.check(folder)
    assert "".join(changed.encoded) == encoded and bool(changed.told) == bool(encoded)
    assert folder != first and not first.exists()
    fresh = Data(images, labels).fill(tmp_path / "fresh")
    assert contents(folder) == contents(fresh)


def test_a_folder_with_the_name_of_ours_and_other_files_stays(tmp_path):
    """Sixteen hexadecimal digits are a name that anything may have."""
    theirs = tmp_path / "00112233445566aa"
    theirs.mkdir()
    for name in ("labels.npy", "latents.npy", "keys.npy", "about.json", "note.txt"):
        (theirs / name).write_text("mine")
    before = contents(theirs)
    for images in ("abcd", "abXd"):
        Data(images).fill(tmp_path)
    (theirs / "about.json").write_text('{"what": "mine"}')
    Data("abc").fill(tmp_path)
    assert contents(theirs) == {**before, "about.json": b'{"what": "mine"}'}


def test_the_latents_of_another_data_set_go_with_a_word(tmp_path):
    Data("abcd").fill(tmp_path)
    other = Data("wxyz")
    other.fill(tmp_path)
    assert "keeps one data set: 4 encoded images of another are removed" in other.told[-1]


def test_the_digest_names_contents_order_and_autoencoder():
    keys = Data("abc").keys
    found = [
        digest(COMMON, keys),
        digest(COMMON, Data("acb").keys),
        digest(COMMON, Data("ab").keys),
        digest(COMMON, Data("abc", "ABD").keys),
        digest(dict(COMMON, autoencoder="0"), keys),
    ]
    assert len(set(found)) == 5 and found[0] == digest(dict(COMMON), Data("abc").keys)


# -- interruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_error_loses_nothing_that_was_made(tmp_path, error):
    data = Data("abcdef")

    def fails(i):
        if i == 4:
            raise error
        return data.make_latents(i)

    with pytest.raises(error):
        data.fill(tmp_path, make_latents=fails)
    again = Data("abcdef")
    again.check(again.fill(tmp_path))
    assert "".join(data.encoded) == "abcd" and "".join(again.encoded) == "ef"
    assert "2 of 6" in again.told[0]
    changed = Data("Xabc")  # rows of an unfinished folder are good too
    with pytest.raises(error):
        Data("abcdefg").fill(tmp_path, make_latents=lambda i: fails(4))
    changed.check(changed.fill(tmp_path))
    assert changed.encoded == ["X"]


def states_of(cache, run):
    """Every different content that the folder has while the cache's code runs line by line: what a
    kill can leave behind.
    """
    files, found = {latent_cache.__file__, sys.modules["jseg.files"].__file__}, []

    def look(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        now = contents(cache)
        if not found or now != found[-1]:
            found.append(now)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        run()
    finally:
        sys.settrace(before)
    return found


@pytest.mark.parametrize(
    "before, spoil, after, encoded",
    [
        (("abcd",), lambda folder: None, ("aXcde", "AXCYE"), "Xe"),
        (("abcd",), lambda folder: (folder / LATENTS).unlink(), ("abcd",), "abcd"),
    ],
    ids=["changed data", "latents gone"],
)
def test_whatever_a_kill_leaves_behind_is_continued_to_the_same_bytes(
    tmp_path, monkeypatch, before, spoil, after, encoded
):
    monkeypatch.setattr(latent_cache, "SAVE_SECONDS", 0.0)
    fresh = contents(Data(*after).fill(tmp_path / "fresh"))
    folder = Data(*before).fill(tmp_path / "cache")
    spoil(folder)
    states = states_of(folder.parent, lambda: Data(*after).fill(folder.parent))
    assert len(states) > 20
    most = 0
    for number, state in enumerate(states):
        left = tmp_path / (f"state{number}")
        for name, content in state.items():
            (left / name).parent.mkdir(parents=True, exist_ok=True)
            (left / name).write_bytes(content)
        again = Data(*after)
        path = again.fill(left)
        assert contents(path) == fresh
        assert [entry.name for entry in left.iterdir() if entry.is_dir()] == [path.name]
        assert set(again.encoded) <= set(encoded)
        most = max(most, len(again.encoded))
    assert most == len(encoded) and again.encoded == []


def python(code, folder):
    root = ROOT
    path = os.pathsep.join([str(root), str(root / "tests"), str(root / "tests" / "ldm")])
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


KILLED = """
import os, signal, sys, test_latent_cache as t
t.latent_cache.SAVE_SECONDS = float(sys.argv[1].rpartition("-")[2])
data = t.Data("abcdef")
def dies(i):
    if i == 4:
        assert "jittor" not in sys.modules
        os.kill(os.getpid(), signal.SIGKILL)
    return data.make_latents(i)
data.fill(sys.argv[1], make_latents=dies)
"""


@pytest.mark.parametrize("seconds, encoded", [("0", "ef"), ("1000", "abcdef")])
def test_kill_9_of_the_real_thing_costs_what_was_not_saved_and_no_byte(tmp_path, seconds, encoded):
    cache = tmp_path / ("cache-" + seconds)
    run = python(KILLED, cache)
    assert (run.communicate(timeout=60)[1], run.returncode) == ("", -signal.SIGKILL)
    again = Data("abcdef")
    folder = again.fill(cache)
    again.check(folder)
    assert "".join(again.encoded) == encoded and "waiting" not in "".join(again.told)
    assert contents(folder) == contents(Data("abcdef").fill(tmp_path / "fresh"))


def test_keys_are_written_after_their_rows_are_on_the_disk(tmp_path, monkeypatch):
    names, unsynced, keys_written = {}, set(), []
    real_open, real_pwrite, real_fsync = os.open, os.pwrite, os.fsync

    def opened(path, *arguments, **named):
        file = real_open(path, *arguments, **named)
        names[file] = Path(path).name
        return file

    def pwrite(file, data, position):
        if names[file] == KEYS:
            assert not unsynced
            keys_written.append(position)
        else:
            unsynced.add(names[file])
        return real_pwrite(file, data, position)

    def fsync(file):
        unsynced.discard(names.get(file))
        real_fsync(file)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(latent_cache, "SAVE_SECONDS", 0.0)
    data = Data("abc")
    data.check(data.fill(tmp_path))
    assert len(keys_written) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / LATENTS).unlink(),
        lambda folder: (folder / KEYS).unlink(),
        lambda folder: os.truncate(str(folder / LABELS), (folder / LABELS).stat().st_size - 1),
        lambda folder: (folder / KEYS).write_bytes(b""),
        lambda folder: np.save(str(folder / LATENTS), np.zeros((6,) + LATENT)),
        lambda folder: (folder / "about.json").write_text("{"),
        lambda folder: (folder / "about.json").write_text("[]"),
    ],
    ids=(
        "latents gone | keys gone | labels cut | keys empty | float64 | broken json | a list"
    ).split(" | "),
)
def test_files_that_are_not_what_they_should_be_are_made_again(tmp_path, spoil):
    folder = Data("abc").fill(tmp_path)
    spoil(folder)
    again = Data("abc")
    again.check(again.fill(tmp_path))
    assert "".join(again.encoded) == "abc"


def test_a_torn_key_costs_its_row_alone(tmp_path):
    folder = Data("abc").fill(tmp_path)
    with open(str(folder / KEYS), "r+b") as file:
        file.seek(-70, os.SEEK_END)  # within the keys of b
        file.write(bytes(3))
    again = Data("abc")
    again.check(again.fill(tmp_path))
    assert again.encoded == ["b"]


# -- faults ----------------------------------------------------------------------------------------


def test_another_autoencoder_or_size_is_refused_and_nothing_changes(tmp_path):
    folder = Data("abc").fill(tmp_path)
    before = contents(tmp_path)
    data = Data("abc")
    message = refusal(data.fill, tmp_path, common=dict(COMMON, autoencoder="cd" * 32))
    assert "another autoencoder" in message and "abababababab" in message
    assert "cdcdcdcdcdcd" in message and "--ae_path" in message
    message = refusal(data.fill, tmp_path, common=dict(COMMON, width=40, latent=[3, 4, 10]))
    assert "20x16" in message and "40x16" in message and "--cache" in message
    assert str(folder) in message
    assert "another version" in refusal(data.fill, tmp_path, common=dict(COMMON, format=2))
    assert contents(tmp_path) == before and data.encoded == []


def test_a_file_in_the_cache_s_place(tmp_path):
    (tmp_path / "cache").write_text("x")
    assert "is a file" in refusal(Data("abc").fill, tmp_path / "cache")
    assert "cannot write the cache" in refusal(
        Data("abc").fill, tmp_path / "cache" / "deeper", kind=OSError
    )


def test_a_full_disk_is_one_line_and_what_is_finished_stays(tmp_path, monkeypatch):
    real, room = (
        os.pwrite,
        [2 * 2 * 300 - 50],
    )  # two and a half rows of 240 + 40 bytes, the last write in halves

    def pwrite(file, data, position):
        if os.readlink(f"/proc/self/fd/{file}").endswith(KEYS):
            return real(file, data, position)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(room[0], len(data), 100)
        room[0] -= count
        return real(file, data[:count], position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = Data("abcd")
    message = refusal(data.fill, tmp_path, kind=OSError)
    assert "No space left on device" in message and "what is finished stays" in message
    assert str(tmp_path) in message
    monkeypatch.undo()
    again = Data("abcd")
    again.check(again.fill(tmp_path))
    assert 0 < len(again.encoded) < 4


def test_too_little_space_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    data = Data("abc")
    message = refusal(data.fill, tmp_path, kind=OSError)
    assert "GB more" in message and "--cache" in message and data.encoded == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_error_about_an_image_is_not_blamed_on_the_cache(tmp_path):
    def gone(i):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/images/a.jpg")

    with pytest.raises(FileNotFoundError) as error:
        Data("abc").fill(tmp_path / "cache", make_latents=gone)
    assert error.value.filename == "/images/a.jpg"


def test_the_user_s_own_files_stay(tmp_path):
    folder = Data("abc").fill(tmp_path)
    (folder / "mine.txt").write_text("x")
    (tmp_path / "notes").mkdir()
    data = Data("abd")
    for _ in range(2):
        data.check(data.fill(tmp_path))
    assert contents(folder) == {"mine.txt": b"x"} and (tmp_path / "notes").exists()


SLOW = """
import sys, time, test_latent_cache as t
data = t.Data("abc")
def slow(i):
    print(i, flush=True)
    time.sleep(0.3)
    return data.make_latents(i)
data.fill(sys.argv[1], make_latents=slow)
"""


def test_two_processes_share_the_work_of_one(tmp_path):
    run = python(SLOW, tmp_path)
    assert run.stdout.readline() == "0\n"
    data, started = Data("abc"), time.monotonic()
    data.check(data.fill(tmp_path))
    assert data.encoded == [] and "waiting" in data.told[0] and time.monotonic() - started > 0.3
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
