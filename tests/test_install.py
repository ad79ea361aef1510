"""setup.py, the Makefile and scripts/make_venv.sh: what is missing is named in one line, what is
ready is left alone.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from support.child_python import program
from support.places import ROOT

from jseg import __version__

# Answers what make_venv.sh asks of a Python, and copies itself as the Python of a new environment.
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

    for name in ("mpirun", "mpicc"):
        program(tmp_path / "bin" / name, "")

    def run(version="3.11.7", machine="true", pip="true", python=None, purpose="use", path=None):
        fake = tmp_path / "python"
        fake.write_text(FAKE_PYTHON.format(version=version, machine=machine, pip=pip))
        fake.chmod(0o755)
        script = os.path.join("scripts", "make_venv.sh")
        done = subprocess.run(
            ["sh", script, python or str(fake), str(tmp_path / "venv"), purpose],
            cwd=ROOT,
            env={**os.environ, "PATH": path or f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return run


def test_a_missing_python_and_an_unsupported_one_are_one_line(make_venv):
    code, _, errors = make_venv(python="python-of-nowhere")
    assert code == 2 and len(errors) == 1
    assert "python-of-nowhere is not on PATH: sudo apt install" in errors[0]

    for version in ("3.7.17", "3.13.0", "2.7.18"):
        code, _, errors = make_venv(version=version)
        assert code == 2 and len(errors) == 1
        assert f"is {version}, jseg runs on 3.8 to 3.12" in errors[0]
        assert "make PYTHON=" in errors[0]


def test_what_the_machine_lacks_stops_it_before_anything_is_made(make_venv, tmp_path):
    code, _, errors = make_venv(machine="echo 'jseg: g++ is missing' >&2; exit 2")
    assert (code, errors) == (2, ["jseg: g++ is missing"]) and not (tmp_path / "venv").exists()


def test_a_failing_pip_is_one_line_and_the_next_run_tries_again(make_venv, tmp_path):
    code, _, errors = make_venv(
        pip="echo 'ERROR: No matching distribution found for jittor' >&2; exit 1"
    )
    assert code == 2 and len(errors) == 1
    assert "(ERROR: No matching distribution found for jittor; all of it in " in errors[0]
    assert not (tmp_path / "venv" / "ready-use").exists()


def test_it_is_done_once_for_one_version_of_python(make_venv):
    code, lines, errors = make_venv()
    assert (code, errors, lines[-1]) == (0, [], "the doctor's screen")
    assert any("making" in line for line in lines)

    assert make_venv() == (0, [], [])
    code, lines, _ = make_venv(version="3.12.1")
    assert code == 0 and any("Python 3.12.1" in line for line in lines)


@pytest.mark.parametrize(
    "purpose, installed",
    [
        ("use", "--editable .[plots]"),
        ("test", "--editable .[plots,test]"),
        ("lint", "ruff=="),
    ],
)
def test_each_target_installs_what_it_needs(make_venv, tmp_path, purpose, installed):
    code, lines, errors = make_venv(purpose=purpose)
    assert (code, errors) == (0, [])
    assert f"install --quiet {installed}" in (tmp_path / "venv" / "pip.log").read_text()
    assert ("the doctor's screen" in lines) == (purpose != "lint"), "lint needs no Jittor"


@pytest.mark.parametrize(
    "user, installs, said",
    [
        ("0", True, "installing Open MPI"),
        ("0", False, "are skipped"),
        ("1000", True, "are skipped"),
    ],
    ids=["root", "root without a network", "a user"],
)
def test_open_mpi_is_installed_for_the_tests_where_it_may_be(
    make_venv, tmp_path, user, installs, said
):
    """Where it is missing: these tools are all that PATH has."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "sed", "cksum", "cat", "chmod", "mkdir", "cp"):
        (tools / name).symlink_to(shutil.which(name))
    program(tools / "id", f"echo {user}")
    make = f"for name in mpirun mpicc; do cp $0 {tools}/$name; done"
    program(tools / "apt-get", f"echo $*; {make if installs else 'exit 100'}")

    code, lines, errors = make_venv(purpose="test", path=str(tools))
    assert (code, errors) == (0, [])
    (line,) = [line for line in lines if said in line]
    assert ("sudo apt install openmpi-bin libopenmpi-dev" in line) == (said == "are skipped")
    assert (tools / "mpirun").exists() == (said == "installing Open MPI")


def test_an_environment_for_the_tests_serves_every_use_and_not_the_reverse(make_venv):
    make_venv(purpose="use")
    _, lines, _ = make_venv(purpose="test")
    assert any("installing" in line for line in lines)

    make_venv(version="3.12.1", purpose="test")
    assert make_venv(version="3.12.1", purpose="use") == (0, [], [])


def test_the_version_is_printed_without_jittor():
    program = "import sys; from jseg.__main__ import main; main(['--version']); print(*sys.modules)"
    output = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT, universal_newlines=True
    )
    version, modules = output.splitlines()
    assert version == f"jseg {__version__}"
    assert not {"jittor", "jseg.runtime", "numpy", "cv2"} & set(modules.split())


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
    assert seen["name"] == "jseg-diffusion" and seen["version"] == __version__
    assert "jseg.ldm" in seen["packages"]
    assert seen["entry_points"] == {"console_scripts": ["jseg = jseg.__main__:main"]}
    required = [re.match(r"[\w-]+", line).group() for line in seen["install_requires"]]
    assert required == "jittor jittor_offline numpy pillow opencv-python-headless tqdm".split()
    extras = {
        name: [re.match(r"[\w-]+", line).group() for line in lines]
        for name, lines in seen["extras_require"].items()
    }
    assert extras == {
        "plots": ["matplotlib"],
        "test": ["pytest", "pytest-xdist", "scipy"],
        "lint": ["ruff"],
        "emulation": ["nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-cccl"],
    }


def test_what_is_imported_is_what_setup_requires(monkeypatch):
    from test_house import HEAVY, files, imports, roots

    distributions = {"cv2": "opencv-python-headless", "PIL": "pillow", "jittor_utils": "jittor"}
    imported = set()
    for path in files("jseg"):
        imported |= roots(imports(path)) & HEAVY
    needed = {distributions.get(name, name) for name in imported}
    seen = _setup_arguments(monkeypatch)
    lines = seen["install_requires"] + seen["extras_require"]["plots"]
    stated = {re.match(r"[\w-]+", line).group() for line in lines}
    assert needed == stated - {"jittor_offline"}, "jittor_offline is files that Jittor reads"


def test_one_version_of_ruff_is_named_everywhere(monkeypatch):
    (pinned,) = _setup_arguments(monkeypatch)["extras_require"]["lint"]
    with open(os.path.join(ROOT, ".pre-commit-config.yaml"), encoding="utf-8") as file:
        assert set(re.findall(r"ruff==[\d.]+", file.read())) == {pinned}


def test_the_installed_versions_are_within_setup_s_ranges(monkeypatch):
    from importlib import metadata

    def numbers(text):
        return [int(part) for part in re.findall(r"\d+", text)]

    seen = _setup_arguments(monkeypatch)
    for line in seen["install_requires"] + seen["extras_require"]["test"]:
        name, *limits = re.split(r"(>=|<)", line.replace(",", ""))
        try:
            version = numbers(metadata.version(name))
        except metadata.PackageNotFoundError:
            assert name == "opencv-python-headless"  # opencv-python serves as well
            continue
        for sign, limit in zip(limits[::2], limits[1::2]):
            assert version >= numbers(limit) if sign == ">=" else version < numbers(limit), line
