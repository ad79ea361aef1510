"""Files are whole or absent, whatever interrupts the writing."""

import os
import subprocess
import sys

import pytest

from jseg.files import remove_stale_temporaries, write_atomic


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, failure):
    path = tmp_path / "run.json"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half")
        raise failure

    with pytest.raises(type(failure)):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["run.json"]


def test_new_files_get_the_ordinary_access_rights(tmp_path):
    write_atomic(tmp_path / "x", lambda file: file.write(b"x"))
    (tmp_path / "y").write_bytes(b"y")
    assert os.stat(tmp_path / "x").st_mode == os.stat(tmp_path / "y").st_mode


def test_killed_run_leaves_only_a_temporary_that_can_be_removed(tmp_path):
    program = (
        "import os, signal, sys\nfrom jseg.files import write_atomic\nwrite_atomic(sys.argv[1], "
        "lambda file: (file.write(b'half'), file.flush(), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    subprocess.call([sys.executable, "-c", program, str(tmp_path / "x.jpg")])
    left = os.listdir(tmp_path)
    assert len(left) == 1 and left[0].startswith(".jseg-")
    alive = f".jseg-{os.getppid()}-0123456789abcdef.part"
    others = [alive, ".jseg-1.part", "x.part", ".jseg-99999999-0123456789abcdef.part.jpg"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    assert remove_stale_temporaries(tmp_path) == left
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_own_open_temporary_is_not_stale(tmp_path):
    def write(file):
        assert remove_stale_temporaries(tmp_path) == []
        file.write(b"x")

    write_atomic(tmp_path / "x", write)
    assert (tmp_path / "x").read_bytes() == b"x"
