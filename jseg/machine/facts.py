"""What this machine offers Jittor: Python, NumPy, compiler, MPI, other packages named jseg.

Each is a fact or a problem in one line. `runtime.py` checks them before it imports Jittor,
`jseg doctor` shows them, and the Makefile runs this file before anything is installed
(`python -m jseg.machine.facts`). So this file uses the standard library only, imports nothing from
Jittor, and does nothing that can abort the process. CUDA has a file of its own, cuda.py.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import re
import shutil
import struct
import sys
import sysconfig
from dataclasses import dataclass
from typing import Tuple

from jseg.machine import mpirun
from jseg.machine.program_output import program_output

OLDEST_PYTHON, NEWEST_PYTHON = (3, 8), (3, 12)
OLDEST_JITTOR = (1, 3, 11)
PIP = f"{sys.executable} -m pip"
# Files that other packages named jseg install and that would lie in our folder.
STRANGERS = ("runner", "bricks", "Emodet", "jieba.py")


class RuntimeProblem(RuntimeError):
    """Jittor cannot be used as asked; the message is one line: what is wrong and what to do."""


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Fact:
    """`text`: what is there; `problem`: one line with the remedy, or "" when all is well."""

    text: str
    problem: str = ""


def python() -> Fact:
    """The running Python: CPython 3.8 to 3.12, because Jittor needs NumPy 1, which ends there."""
    version = platform.python_version()
    text = f"{version}, {sys.executable}"
    problem = ""
    if sys.platform == "win32":
        problem = "Windows is not supported: use Linux, for instance Ubuntu under WSL 2"
    elif platform.python_implementation() != "CPython" or struct.calcsize("P") != 8:
        problem = (
            f"{platform.python_implementation()} {version} cannot run Jittor: use a 64-bit "
            "CPython 3.8 to 3.12"
        )
    elif not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        problem = (
            f"Python {version} is outside 3.8 to 3.12, where Jittor and NumPy 1 work: use one of "
            "those, for instance `make PYTHON=python3.12 test`"
        )
    elif sys.platform != "linux":
        text += f" ({platform.system()}: by Jittor's own support, untested)"
    return Fact(text, problem)


def paths(*more: str) -> Fact:
    """The folders that Jittor passes to the shell without quotation marks: its own, Python's, its
    cache's, and `more`.
    """
    spec = importlib.util.find_spec("jittor")
    own = spec.submodule_search_locations or [] if spec else []
    for path in (sys.executable, os.path.expanduser("~"), *own, *more):
        if re.search(r"[^\w@%+:,./~-]", path):
            problem = (
                "Jittor cannot compile in a folder whose path has a space or another shell "
                f"character, {path!r}: move it"
            )
            return Fact(path, problem)
    return Fact("plain")


def numpy() -> Fact:
    """NumPy 1: Jittor 1.3.11 has its array descriptor built in, and with NumPy 2 it computes wrong
    numbers without an error.
    """
    try:
        from numpy import __version__ as version
    except ImportError as error:
        cause = " ".join(str(error).split())[:200]
        return Fact("missing", f"NumPy cannot be imported ({cause}): {PIP} install 'numpy<2'")
    if _numbers(version) >= (2,):
        return Fact(
            version, f"NumPy {version} makes Jittor compute wrong numbers: {PIP} install 'numpy<2'"
        )
    return Fact(version)


def jittor() -> Fact:
    """The installed Jittor, read from its files without importing it."""
    spec = importlib.util.find_spec("jittor") if importlib.util.find_spec("jittor_utils") else None
    if spec is None or not spec.origin:
        install = f"{PIP} install 'jittor>=1.3.11' jittor_offline 'numpy<2'"
        return Fact("missing", f"Jittor is not installed: {install}")
    with open(spec.origin, encoding="utf-8") as file:
        version = (re.findall(r"^__version__ = '([^']+)'", file.read(), re.M) or ["0"])[0]
    if _numbers(version) < OLDEST_JITTOR:
        problem = (
            f"Jittor {version} is older than 1.3.11, which jseg is written for: "
            f"{PIP} install 'jittor>=1.3.11'"
        )
        return Fact(version, problem)
    return Fact(version)


def compiler() -> Fact:
    """The C++ compiler, Python's headers and OpenMP: Jittor compiles itself and every operator on
    this machine.
    """
    default = "clang++" if sys.platform == "darwin" else "g++"
    chosen = os.environ.get("cc_path")
    path = chosen or shutil.which(default)
    if not path:
        return Fact("missing", f"{default}, the C++ compiler, is not on PATH: sudo apt install g++")
    if not shutil.which(path):
        return Fact(path, f"cc_path={path} is not a program: unset cc_path, or name the g++ to use")

    # g++ prints its version at the end of the first line.
    first = program_output(path, "--version").split("\n")[0]
    version = (re.findall(r"\d+\.\d+(?:\.\d+)?", first) or ["unknown"])[-1]
    if version == "unknown" and chosen:
        return Fact(
            path, f"cc_path={path} prints no version: unset cc_path, or name the g++ to use"
        )

    text = f"{os.path.basename(path)} {version}, {path}"
    if not os.path.isfile(os.path.join(python_headers(), "Python.h")):
        problem = (
            f"Python.h, the headers of Python {platform.python_version()}, is not in "
            f"{python_headers()}: sudo apt install {_debian_python()}-dev"
        )
        return Fact(text, problem)
    if sys.platform == "linux" and not ctypes.util.find_library("gomp"):
        return Fact(text, "libgomp, OpenMP's library, is not found: sudo apt install libgomp1")
    return Fact(f"{text}, Python.h, libgomp")


def python_headers() -> str:
    """The folder of the running Python's Python.h; a virtual environment uses that of the Python it
    was made from.
    """
    folders = [sysconfig.get_path("include"), sysconfig.get_config_var("INCLUDEPY") or ""]
    for folder in folders:
        if os.path.isfile(os.path.join(folder, "Python.h")):
            return folder
    return folders[0]


def virtual_environments() -> Fact:
    """Whether this Python can make virtual environments that have pip; Debian ships both apart."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        problem = f"Python's module {names} is missing: sudo apt install {_debian_python()}-venv"
        return Fact("missing", problem)
    return Fact("venv, ensurepip")


def mpi() -> Fact:
    """MPI, which is used inside mpirun only.

    Jittor calls mpicc with `--showme`, which only Open MPI's understands; with another mpicc the
    import fails.
    """
    path = os.environ.get("mpicc_path") or shutil.which("mpicc")
    works = bool(path and program_output(path, "--showme:compile"))
    if works:
        mpicc = f"Open MPI's mpicc at {path}"
    else:
        mpicc = f"{path} is not Open MPI's" if path else "no mpicc"

    if not mpirun.is_inside():
        hint = "; only several processes need it: sudo apt install libopenmpi-dev openmpi-bin"
        return Fact(f"off, not started by mpirun ({mpicc}{'' if works else hint})")

    rank, size = os.environ.get("OMPI_COMM_WORLD_RANK", "?"), os.environ["OMPI_COMM_WORLD_SIZE"]
    text = f"process {rank} of {size} ({mpicc})"
    # Without MPI, Jittor would fail, or each process would train on its own.
    if os.environ.get("use_mpi", "1").strip() not in ("", "1"):
        problem = (
            "started by mpirun, but use_mpi=0 in the environment switches MPI off: unset use_mpi, "
            "or start without mpirun"
        )
    elif not works:
        problem = (
            f"started by mpirun, but {mpicc}: sudo apt install libopenmpi-dev and name its mpicc "
            "in mpicc_path, or start without mpirun"
        )
    else:
        problem = ""
    return Fact(text, problem)


def other_jseg() -> Fact:
    """Whether another package takes the import name: Jittor/JSeg and a Chinese word segmenter both
    install `jseg` from a distribution `jseg`; ours is jseg-diffusion.
    """
    from importlib import metadata

    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    remedy = (
        f"{PIP} uninstall jseg, then install jseg-diffusion again, or use a fresh virtual "
        "environment"
    )
    imported = getattr(sys.modules.get("jseg"), "__file__", None)
    if imported and os.path.dirname(os.path.abspath(imported)) != here:
        problem = f"`import jseg` finds another package, {imported}, not this one in {here}"
        return Fact(imported, f"{problem}: {remedy}")

    # Either distribution may have installed its files over ours, and left some when it went.
    try:
        other = metadata.distribution("jseg")
    except metadata.PackageNotFoundError:
        for name in STRANGERS:
            path = os.path.join(here, name)
            if os.path.exists(path):
                return Fact(here, f"{path} belongs to another package named jseg: {remedy}")
        return Fact(here)
    about = str(other.metadata["Author"] or other.metadata["Summary"]).lower()
    author = "Jittor/JSeg" if "jittor" in about else "not this project"
    problem = (
        f"the distribution jseg {other.version} ({author}) takes the import name jseg from "
        f"jseg-diffusion: {remedy}"
    )
    return Fact(here, problem)


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _debian_python() -> str:
    return f"python3.{sys.version_info[1]}"


def main() -> int:
    """Print what is missing to make a virtual environment and to compile Jittor in it, one line
    each; return 2 if anything is missing.
    """
    facts = (python(), paths(os.getcwd()), compiler(), virtual_environments())
    problems = [fact.problem for fact in facts if fact.problem]
    for problem in problems:
        print(f"jseg: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
