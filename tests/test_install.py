"""setup.py, the Makefile and scripts/make_venv.sh: what is missing is named in one line, what is
ready is left alone.
"""

import os
import re
import subprocess
import sys

import pytest
from support.places import ROOT

from jseg import __version__

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    "-c import sys"*) echo {version} ;;
    "-m jseg.machine.facts") {machine} ;;
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    *"pip "*) echo "WARNING: noise"; echo "$@"; {pip} ;;
    "-m jseg doctor") echo "the doctor's screen" ;;
esac
"""


@pytest.fixture
def make_venv(tmp_path):
    """Run scripts/make_venv.sh on a fake Python; returns (exit code, lines of stdout, lines of
    stderr).
    """

    def run(version="3.11.7", machine="true", pip="true", python=None):
        fake = tmp_path / "python"
        fake.write_text(FAKE_PYTHON.format(version=version, machine=machine, pip=pip))
        fake.chmod(0o755)
        done = subprocess.run(
            [
                "sh",
                os.path.join("scripts", "make_venv.sh"),
                python or str(fake),
                str(tmp_path / "venv"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return run


def test_a_missing_python_and_an_unsupported_one_are_one_line(make_venv):
    code, _, errors = make_venv(python="python-of-nowhere")
    assert (
        code == 2
        and len(errors) == 1
        and "python-of-nowhere is not on PATH: sudo apt install" in errors[0]
    )
    for version in ("3.7.17", "3.13.0", "2.7.18"):
        code, _, errors = make_venv(version=version)
        assert (
            code == 2
            and len(errors) == 1
            and f"is {version}, jseg runs on 3.8 to 3.12" in errors[0]
            and "make PYTHON=" in errors[0]
        )


def test_what_the_machine_lacks_stops_it_before_anything_is_made(make_venv, tmp_path):
    code, _, errors = make_venv(machine="echo 'jseg: g++ is missing' >&2; exit 2")
    assert (code, errors) == (2, ["jseg: g++ is missing"]) and not (tmp_path / "venv").exists()


def test_a_failing_pip_is_one_line_and_the_next_run_tries_again(make_venv, tmp_path):
    code, _, errors = make_venv(
        pip="echo 'ERROR: No matching distribution found for jittor' >&2; exit 1"
    )
    assert (
        code == 2
        and len(errors) == 1
        and "(ERROR: No matching distribution found for jittor; all of it in " in errors[0]
    )
    assert not (tmp_path / "venv" / "ready").exists()


def test_it_is_done_once_for_one_version_of_python(make_venv, tmp_path):
    code, lines, errors = make_venv()
    assert "install --quiet --editable .[plots]" in (tmp_path / "venv" / "pip.log").read_text(), (
        "curves are drawn in .venv"
    )
    assert (code, errors, lines[-1]) == (0, [], "the doctor's screen") and any(
        "making" in line for line in lines
    )
    assert make_venv() == (0, [], [])
    code, lines, _ = make_venv(version="3.12.1")
    assert code == 0 and any("Python 3.12.1" in line for line in lines)


def test_the_machine_s_own_check_passes_here():
    done = subprocess.run(
        [sys.executable, "-m", "jseg.machine.facts"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def _setup_arguments(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    seen = {}
    monkeypatch.setattr(setuptools, "setup", seen.update)
    with open(os.path.join(ROOT, "setup.py"), encoding="utf-8") as file:
        exec(
            compile(file.read(), os.path.join(ROOT, "setup.py"), "exec"),
            {"__file__": os.path.join(ROOT, "setup.py")},
        )
    return seen


def test_setup_says_what_it_should(monkeypatch):
    seen = _setup_arguments(monkeypatch)
    assert (
        seen["name"] == "jseg-diffusion"
        and seen["version"] == __version__
        and "jseg.ldm" in seen["packages"]
    )
    assert seen["entry_points"] == {"console_scripts": ["jseg = jseg.__main__:main"]}
    names = {re.match(r"[\w-]+", line).group() for line in seen["install_requires"]}
    assert names == {
        "jittor",
        "jittor_offline",
        "numpy",
        "pillow",
        "opencv-python-headless",
        "scipy",
        "tqdm",
        "pytest",
    }
    assert [name for lines in seen["extras_require"].values() for name in lines] == [
        "matplotlib>=3.5"
    ]


def test_the_installed_versions_are_within_setup_s_ranges(monkeypatch):
    from importlib import metadata

    def numbers(text):
        return [int(part) for part in re.findall(r"\d+", text)]

    for line in _setup_arguments(monkeypatch)["install_requires"]:
        name, *limits = re.split(r"(>=|<)", line.replace(",", ""))
        try:
            version = numbers(metadata.version(name))
        except metadata.PackageNotFoundError:
            assert name == "opencv-python-headless"  # opencv-python serves as well
            continue
        for sign, limit in zip(limits[::2], limits[1::2]):
            assert version >= numbers(limit) if sign == ">=" else version < numbers(limit), line
