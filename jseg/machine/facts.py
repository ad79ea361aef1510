"""What this machine offers Jittor: Python, NumPy, compiler, CUDA, MPI, other packages called jseg;
each a fact or a one-line problem.

`runtime.py` asks before it opens the door to Jittor, `jseg doctor` shows the answers, and the
Makefile runs this file before anything is installed (`python -m jseg.machine.facts`). Hence:
standard library only, nothing imported from Jittor, nothing that can abort the process.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from jseg.machine import cuda_toolkit

OLDEST_PYTHON, NEWEST_PYTHON = (3, 8), (3, 12)
OLDEST_JITTOR = (1, 3, 11)


class RuntimeProblem(RuntimeError):
    """Jittor cannot be used as asked; the message is one line: what is wrong and what to do."""


@dataclass(frozen=True)
class Fact:
    """`text`: what was found; `problem`: one line with the remedy, or "" when all is well."""

    text: str
    problem: str = ""


@dataclass(frozen=True)
class Cuda:
    """What becomes of CUDA, told by `reason` in one line, with the remedy where there is one.

    case: "chosen" (the user set nvcc_path), "stock" (Jittor builds on the toolkit as it is), "home"
    (it builds on `home`, see jseg/machine/cuda_toolkit.py) or "cpu". nvcc: the compiler that Jittor
    shall use, "" for the CPU. devices: compute capabilities, as 80, 90, ...
    """

    case: str
    nvcc: str
    reason: str
    toolkit: Optional[cuda_toolkit.Toolkit] = None
    home: Optional[cuda_toolkit.Home] = None
    devices: Tuple[int, ...] = ()


def _output(*command: str) -> str:
    """What a command prints, both streams; "" if it cannot be run or fails."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            universal_newlines=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _numbers(text: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def python() -> Fact:
    """The running Python: CPython 3.8 to 3.12, for NumPy 1, which Jittor needs, ends at 3.12."""
    version = platform.python_version()
    text = f"{version}, {sys.executable}"
    if sys.platform == "win32":
        return Fact(text, "Windows is not supported: use Linux, for instance Ubuntu under WSL 2")
    if platform.python_implementation() != "CPython" or struct.calcsize("P") != 8:
        return Fact(
            text,
            f"{platform.python_implementation()} {version} cannot run Jittor: use a 64-bit "
            "CPython 3.8 to 3.12",
        )
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return Fact(
            text,
            f"Python {version} is outside 3.8 to 3.12, where Jittor and NumPy 1 work: use one of "
            "those, for instance `make PYTHON=python3.12 test`",
        )
    return Fact(
        text
        if sys.platform == "linux"
        else f"{text} ({platform.system()}: by Jittor's own support, untested)"
    )


def paths(*more: str) -> Fact:
    """Jittor names its own folder, Python and its cache to the shell without quotation marks."""
    spec = importlib.util.find_spec("jittor")
    used = [
        sys.executable,
        os.path.expanduser("~"),
        *(spec.submodule_search_locations or [] if spec else []),
        *more,
    ]
    for path in used:
        if re.search(r"[^\w@%+:,./~-]", path):
            return Fact(
                path,
                "Jittor cannot compile in a folder whose path has a space or other shell "
                f"character, {path!r}: move it",
            )
    return Fact("plain")


def numpy() -> Fact:
    """NumPy 1: with 2, Jittor 1.3.11 computes wrong numbers in silence, for it has NumPy 1's array
    descriptor built in.
    """
    try:
        from numpy import __version__ as version
    except ImportError as error:
        return Fact(
            "missing",
            f"NumPy cannot be imported ({' '.join(str(error).split())[:200]}): {_pip()} install "
            "'numpy<2'",
        )
    if _numbers(version) >= (2,):
        return Fact(
            version,
            f"NumPy {version} makes Jittor compute wrong numbers: {_pip()} install 'numpy<2'",
        )
    return Fact(version)


def jittor() -> Fact:
    """The installed Jittor, read from its files without importing it."""
    spec = importlib.util.find_spec("jittor") if importlib.util.find_spec("jittor_utils") else None
    if spec is None or not spec.origin:
        return Fact(
            "missing",
            f"Jittor is not installed: {_pip()} install 'jittor>=1.3.11' jittor_offline 'numpy<2'",
        )
    with open(spec.origin, encoding="utf-8") as file:
        version = (re.findall(r"^__version__ = '([^']+)'", file.read(), re.M) or ["0"])[0]
    if _numbers(version) < OLDEST_JITTOR:
        return Fact(
            version,
            f"Jittor {version} is older than 1.3.11, which jseg is written for: {_pip()} install "
            "'jittor>=1.3.11'",
        )
    return Fact(version)


def compiler() -> Fact:
    """The C++ compiler, Python's headers and OpenMP: Jittor compiles itself and every operator on
    this machine.
    """
    default = "clang++" if sys.platform == "darwin" else "g++"
    path = os.environ.get("cc_path") or shutil.which(default)
    if not path:
        return Fact("missing", f"{default}, the C++ compiler, is not on PATH: sudo apt install g++")
    if not shutil.which(path):
        return Fact(path, f"cc_path={path} is not a program: unset cc_path, or name the g++ to use")
    version = (
        re.findall(r"\d+\.\d+(?:\.\d+)?", _output(path, "--version").split("\n")[0]) or ["unknown"]
    )[-1]
    if version == "unknown" and os.environ.get("cc_path"):
        return Fact(
            path,
            f"cc_path={path} tells no version, as g++ does: unset cc_path, or name the g++ to use",
        )
    text = f"{os.path.basename(path)} {version}, {path}"
    if not os.path.isfile(os.path.join(python_headers(), "Python.h")):
        return Fact(
            text,
            f"Python.h, the headers of Python {platform.python_version()}, is not in "
            f"{python_headers()}: sudo apt install python{_minor()}-dev",
        )
    if sys.platform == "linux" and not ctypes.util.find_library("gomp"):
        return Fact(text, "libgomp, OpenMP's library, is not found: sudo apt install libgomp1")
    return Fact(text + ", Python.h, libgomp")


def python_headers() -> str:
    """The folder of the running Python's Python.h (a virtual environment's is that of the Python it
    was made from).
    """
    folders = [sysconfig.get_path("include"), sysconfig.get_config_var("INCLUDEPY") or ""]
    return next(
        (folder for folder in folders if os.path.isfile(os.path.join(folder, "Python.h"))),
        folders[0],
    )


def virtual_environments() -> Fact:
    """Whether this Python can make virtual environments with pip in them; Debian packs both
    apart.
    """
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        return Fact(
            "missing",
            f"Python's module {' and '.join(missing)} is missing: sudo apt install "
            f"python{_minor()}-venv",
        )
    return Fact("venv, ensurepip")


# A child asks the driver: initialising CUDA here would break Jittor, which forks while it is
# imported, and a broken driver may abort.
_ASK_DRIVER = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, version = ctypes.c_int(0), ctypes.c_int(0)
if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value: raise SystemExit(1)
cuda.cuDriverGetVersion(ctypes.byref(version))
print(version.value // 1000, end=" ")
for i in range(count.value):
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), i)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    print(major.value * 10 + minor.value, end=" ")
"""


def driver() -> Optional[Tuple[int, List[int]]]:
    """(CUDA major version of the NVIDIA driver, compute capability of each device as 80, 90, ...),
    or None if none answers.
    """
    answer = _output(sys.executable, "-I", "-S", "-c", _ASK_DRIVER).split()
    return (int(answer[0]), [int(word) for word in answer[1:]]) if answer else None


def cuda() -> Cuda:
    """How Jittor comes to CUDA here. Without a driver that answers, importing it with nvcc would
    abort the process.
    """
    chosen = os.environ.get("nvcc_path")
    if chosen is not None:
        if not chosen:
            return Cuda("cpu", "", "switched off: nvcc_path is set and empty")
        return Cuda("chosen", chosen, f"nvcc_path={chosen} is set")
    found = driver()
    if found is not None:
        return choose(*found)
    nvcc = next(iter(cuda_toolkit.compilers()), None)
    kit = cuda_toolkit.toolkit(nvcc) if nvcc else None
    place, visible = f"{_named(kit)}, but " if kit else "", os.environ.get("CUDA_VISIBLE_DEVICES")
    reason = "no NVIDIA driver answers: install the driver, or start the container with its GPUs"
    if visible is not None:  # empty, -1 or a number that no GPU has
        reason = (
            f"no GPU answers with CUDA_VISIBLE_DEVICES={visible}: unset it, or list GPUs that are "
            "there"
        )
    return Cuda("cpu", "", place + reason, kit)


def choose(newest: int, devices: Sequence[int]) -> Cuda:
    """The first toolkit that works with a driver for CUDA `newest` and devices of those compute
    capabilities, as 80, 90, ...
    """
    refused: List[Tuple[bool, str, Optional[cuda_toolkit.Toolkit]]] = []
    for nvcc in cuda_toolkit.compilers():
        kit = cuda_toolkit.toolkit(nvcc)
        problem = (
            _problem(kit, newest, devices)
            if kit
            else f"{nvcc} does not run: reinstall the CUDA toolkit, or take it off PATH"
        )
        lacking = cuda_toolkit.missing(kit) if kit and not problem else ""
        if problem or lacking:
            refused.append((not lacking, problem or f"{_named(kit)}: {lacking}", kit))
            continue
        text = f"{_named(kit)}, cuDNN {'.'.join(map(str, kit.cudnn))}"
        if devices:
            text += (
                f", {len(devices)} device(s) of compute capability "
                f"{' and '.join(_decimal(one) for one in sorted(set(devices)))}"
            )
        if (
            cuda_toolkit.jittor_finds_all(kit)
            and max(devices, default=0) <= cuda_toolkit.NEWEST_CAPABILITY
        ):
            return Cuda("stock", kit.nvcc, f"{text}; as it is", kit, None, tuple(devices))
        home = cuda_toolkit.plan(kit, devices)
        place = home.folder if devices else "a home of links and headers"
        return Cuda("home", home.nvcc, f"{text}; through {place}", kit, home, tuple(devices))
    if refused:  # of one that lacks something rather than of one that can never work
        _, problem, kit = min(refused, key=lambda one: one[0])
        return Cuda("cpu", "", problem, kit, None, tuple(devices))
    package = (
        f"'cuda-toolkit[nvcc,cudart,cccl,cublas,curand,cufft,cusparse,nvjitlink,nvrtc]=={newest}.*' "
        f"nvidia-cudnn-cu{newest}"
    )
    remedy = (
        f"{_pip()} install {package}"
        if newest >= 13
        else f"install CUDA toolkit {newest} (pip's packages for it lack nvcc)"
    )
    return Cuda(
        "cpu",
        "",
        f"no nvcc on PATH, in /usr/local/cuda or in pip's packages: {remedy}",
        None,
        None,
        tuple(devices),
    )


def _problem(kit: cuda_toolkit.Toolkit, newest: int, devices: Sequence[int]) -> str:
    """Why that toolkit can never be used on these devices, with the remedy; "" if it can."""
    if kit.version[0] > newest:
        return (
            f"{_named(kit)} is newer than the driver, which is for CUDA {newest}: update the "
            f"driver, or install CUDA toolkit {newest}"
        )
    if kit.version[0] < 11 or () < kit.cudnn < (8,):
        what = "cuDNN %d.%d.%d" % kit.cudnn if kit.version[0] >= 11 else "it"
        return (
            f"{_named(kit)}: {what} is too old: install CUDA toolkit 11 or newer with cuDNN 8 or "
            "newer"
        )
    known = cuda_toolkit.capabilities(kit)
    beyond = [one for one in devices if known and one not in known]
    if beyond:
        remedy = "a newer" if max(beyond) > max(known) else "an older"
        return (
            f"{_named(kit)} does not compile for compute capability {_decimal(beyond[0])}: "
            f"install {remedy} CUDA toolkit, or leave that GPU out of CUDA_VISIBLE_DEVICES"
        )
    return ""


def _named(kit: cuda_toolkit.Toolkit) -> str:
    return f"nvcc {'.'.join(map(str, kit.version))} at {kit.nvcc}"


def _decimal(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def inside_mpirun() -> bool:
    """Whether Open MPI's mpirun started this process; Jittor knows no other MPI."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def mpi() -> Fact:
    """MPI is used inside mpirun only. Jittor asks mpicc for `--showme`, which is Open MPI's;
    another MPI's would break the import.
    """
    path = os.environ.get("mpicc_path") or shutil.which("mpicc")
    works = bool(path and _output(path, "--showme:compile"))
    found = (
        f"Open MPI's mpicc at {path}"
        if works
        else f"{path} is not Open MPI's"
        if path
        else "no mpicc"
    )
    if not inside_mpirun():
        remedy = (
            ""
            if works
            else "; only several processes need it: sudo apt install libopenmpi-dev openmpi-bin"
        )
        return Fact(f"off, not started by mpirun ({found}{remedy})")
    text = (
        f"process {os.environ.get('OMPI_COMM_WORLD_RANK', '?')} of "
        f"{os.environ['OMPI_COMM_WORLD_SIZE']} ({found})"
    )
    if os.environ.get("use_mpi", "1").strip() not in (
        "",
        "1",
    ):  # Jittor would break, or every process train for itself
        return Fact(
            text,
            "started by mpirun, but use_mpi=0 in the environment switches MPI off: unset use_mpi, "
            "or start without mpirun",
        )
    remedy = (
        f"{found}: sudo apt install libopenmpi-dev and name its mpicc in mpicc_path, or start "
        "without mpirun"
    )
    return Fact(text, "" if works else f"started by mpirun, but {remedy}")


def other_jseg() -> Fact:
    """Jittor/JSeg and a Chinese word segmenter both install a package `jseg` from a distribution
    `jseg`; ours is jseg-diffusion.
    """
    from importlib import metadata

    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    remedy = (
        f"{_pip()} uninstall jseg, then install jseg-diffusion again, or use a fresh virtual "
        "environment"
    )
    loaded = getattr(sys.modules.get("jseg"), "__file__", None)
    if loaded and os.path.dirname(os.path.abspath(loaded)) != here:
        return Fact(
            loaded,
            f"`import jseg` finds another package, {loaded}, not this one in {here}: {remedy}",
        )
    try:
        other = metadata.distribution("jseg")
    except metadata.PackageNotFoundError:
        strays = [
            name
            for name in ("runner", "bricks", "Emodet", "jieba.py")
            if os.path.exists(os.path.join(here, name))
        ]
        if strays:
            return Fact(
                here,
                f"{os.path.join(here, strays[0])} belongs to another package named jseg: {remedy}",
            )
        return Fact(here)
    author = (
        "Jittor/JSeg"
        if "jittor" in str(other.metadata["Author"] or other.metadata["Summary"]).lower()
        else "not this project"
    )
    return Fact(
        here,
        f"the distribution jseg {other.version} ({author}) takes the import name jseg from "
        f"jseg-diffusion: {remedy}",
    )


def _minor() -> str:
    return f"3.{sys.version_info[1]}"


def _pip() -> str:
    return f"{sys.executable} -m pip"


def main() -> int:
    """Print what is missing to make a virtual environment and to compile Jittor in it, one line
    each; exit 2 if anything is.
    """
    problems = [
        fact.problem
        for fact in (python(), paths(os.getcwd()), compiler(), virtual_environments())
        if fact.problem
    ]
    for problem in problems:
        print(f"jseg: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
