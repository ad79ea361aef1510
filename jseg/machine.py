"""What this machine offers Jittor: Python, NumPy, compiler, CUDA, MPI, other packages called jseg; each a fact or a one-line problem.

`runtime.py` asks before it opens the door to Jittor, `jseg doctor` shows the answers, and the Makefile runs this file before anything
is installed (`python -m jseg.machine`). Hence: standard library only, nothing imported from Jittor, nothing that can abort the process.
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
from typing import List, Optional, Tuple

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
    """`nvcc`: the compiler Jittor shall use, "" for the CPU; `reason`: why not, or why this one."""

    nvcc: str
    reason: str


def _output(*command: str) -> str:
    """What a command prints, both streams; "" if it cannot be run or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, universal_newlines=True)
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
        return Fact(text, f"{platform.python_implementation()} {version} cannot run Jittor: use a 64-bit CPython 3.8 to 3.12")
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return Fact(text, f"Python {version} is outside 3.8 to 3.12, where Jittor and NumPy 1 work: use one of those, "
                          "for instance `make PYTHON=python3.12 test`")
    if sys.platform != "linux":
        text += f" ({platform.system()}: by Jittor's own support, untested)"
    return Fact(text)


def paths(*more: str) -> Fact:
    """Jittor names its own folder, Python and its cache to the shell without quotation marks."""
    spec = importlib.util.find_spec("jittor")
    used = [sys.executable, os.path.expanduser("~"), *(spec.submodule_search_locations or [] if spec else []), *more]
    for path in used:
        if re.search(r"[^\w@%+:,./~-]", path):
            return Fact(path, f"Jittor cannot compile in a folder whose path has a space or other shell character, {path!r}: move it")
    return Fact("plain")


def numpy() -> Fact:
    """NumPy 1: with 2, Jittor 1.3.11 computes wrong numbers in silence, for it has NumPy 1's array descriptor built in."""
    try:
        from numpy import __version__ as version
    except ImportError as error:
        return Fact("missing", f"NumPy cannot be imported ({' '.join(str(error).split())[:200]}): {_pip()} install 'numpy<2'")
    if _numbers(version) >= (2,):
        return Fact(version, f"NumPy {version} makes Jittor compute wrong numbers: {_pip()} install 'numpy<2'")
    return Fact(version)


def jittor() -> Fact:
    """The installed Jittor, read from its files without importing it."""
    spec = importlib.util.find_spec("jittor") if importlib.util.find_spec("jittor_utils") else None
    if spec is None or not spec.origin:
        return Fact("missing", f"Jittor is not installed: {_pip()} install 'jittor>=1.3.11' jittor_offline 'numpy<2'")
    with open(spec.origin, encoding="utf-8") as file:
        version = (re.findall(r"^__version__ = '([^']+)'", file.read(), re.M) or ["0"])[0]
    if _numbers(version) < OLDEST_JITTOR:
        return Fact(version, f"Jittor {version} is older than 1.3.11, which jseg is written for: {_pip()} install 'jittor>=1.3.11'")
    return Fact(version)


def compiler() -> Fact:
    """The C++ compiler, Python's headers and OpenMP: Jittor compiles itself and every operator on this machine."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    path = os.environ.get("cc_path") or shutil.which(default)
    if not path:
        return Fact("missing", f"{default}, the C++ compiler, is not on PATH: sudo apt install g++")
    if not shutil.which(path):
        return Fact(path, f"cc_path={path} is not a program: unset cc_path, or name the g++ to use")
    version = (re.findall(r"\d+\.\d+(?:\.\d+)?", _output(path, "--version").split("\n")[0]) or ["unknown"])[-1]
    text = f"{os.path.basename(path)} {version}, {path}"
    if not os.path.isfile(os.path.join(python_headers(), "Python.h")):
        return Fact(text, f"Python.h, the headers of Python {platform.python_version()}, is not in {python_headers()}: "
                          f"sudo apt install python{_minor()}-dev")
    if sys.platform == "linux" and not ctypes.util.find_library("gomp"):
        return Fact(text, "libgomp, OpenMP's library, is not found: sudo apt install libgomp1")
    return Fact(text + ", Python.h, libgomp")


def python_headers() -> str:
    """The folder of the running Python's Python.h (a virtual environment's is that of the Python it was made from)."""
    folders = [sysconfig.get_path("include"), sysconfig.get_config_var("INCLUDEPY") or ""]
    return next((folder for folder in folders if os.path.isfile(os.path.join(folder, "Python.h"))), folders[0])


def virtual_environments() -> Fact:
    """Whether this Python can make virtual environments with pip in them; Debian packs both apart."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        return Fact("missing", f"Python's module {' and '.join(missing)} is missing: sudo apt install python{_minor()}-venv")
    return Fact("venv, ensurepip")


# A child asks the driver: initialising CUDA here would break Jittor, which forks while it is imported, and a broken driver may abort.
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
    """(CUDA major version of the NVIDIA driver, compute capability of each device as 80, 90, ...), or None if none answers."""
    answer = _output(sys.executable, "-I", "-S", "-c", _ASK_DRIVER).split()
    return (int(answer[0]), [int(word) for word in answer[1:]]) if answer else None


def cuda() -> Cuda:
    """Which nvcc Jittor may use. Without a driver that answers, or with a CUDA it cannot build on, importing it would fail or abort."""
    chosen = os.environ.get("nvcc_path")
    if chosen is not None:
        return Cuda(chosen, f"nvcc_path={chosen} is set" if chosen else "switched off: nvcc_path is set and empty")
    places = [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc", "/usr/bin/nvcc", "/opt/cuda/bin/nvcc"]
    nvcc = next((place for place in places if place and os.access(place, os.X_OK)), "")
    if not nvcc:
        return Cuda("", "no nvcc on PATH or in /usr/local/cuda: install the CUDA toolkit 11 or 12 with cuDNN 8 to use a GPU")
    found = driver()
    release = _numbers((re.findall(r"release (\d+\.\d+)", _output(nvcc, "--version")) or ["0"])[0])
    name = f"nvcc {'.'.join(map(str, release))} at {nvcc}"
    if found is None:
        return Cuda("", f"{name}, but no NVIDIA driver answers: install the driver, or start the container with its GPUs")
    if release[0] > found[0]:
        return Cuda("", f"{name} is newer than the driver, which is for CUDA {found[0]}: update the driver, or use an older toolkit")
    if release[0] not in (11, 12) or max(found[1]) > 90 or not _cudnn_8(nvcc, release[0]):
        return Cuda("", f"{name}, compute capability {max(found[1]) / 10:.1f}: Jittor 1.3.11 builds on CUDA 11 or 12 with cuDNN 8's "
                        f"development files and GPUs up to 9.0 only; nvcc_path={nvcc} in the environment tries all the same")
    return Cuda(nvcc, f"{name}, {len(found[1])} device(s) of compute capability {max(found[1]) / 10:.1f}")


def _cudnn_8(nvcc: str, cuda_major: int) -> bool:
    """Whether cuDNN 8's header and libraries lie where Jittor looks (compile_extern.py: setup_cuda_lib); `.so.8` does for CUDA 11 only."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    system = platform.machine() + "-linux"
    headers = [f"{home}/include", f"{home}/targets/{system}/include", "/usr/include"]
    libraries = [f"{home}/bin", f"{home}/lib64", f"{home}/targets/{system}/lib", f"/usr/lib/{system}-gnu", "/usr/lib"]
    names = ["libcudnn_ops_infer.so"] + ["libcudnn_ops_infer.so.8"] * (cuda_major == 11)
    return (any(os.path.isfile(f"{folder}/cudnn.h") for folder in headers)
            and any(os.path.isfile(f"{folder}/{name}") for folder in libraries for name in names))


def inside_mpirun() -> bool:
    """Whether Open MPI's mpirun started this process; Jittor knows no other MPI."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def mpi() -> Fact:
    """MPI is used inside mpirun only. Jittor asks mpicc for `--showme`, which is Open MPI's; another MPI's would break the import."""
    path = os.environ.get("mpicc_path") or shutil.which("mpicc")
    works = bool(path and _output(path, "--showme:compile"))
    found = f"Open MPI's mpicc at {path}" if works else f"{path} is not Open MPI's" if path else "no mpicc"
    if not inside_mpirun():
        remedy = "" if works else "; only several processes need it: sudo apt install libopenmpi-dev openmpi-bin"
        return Fact(f"off, not started by mpirun ({found}{remedy})")
    text = f"process {os.environ.get('OMPI_COMM_WORLD_RANK', '?')} of {os.environ['OMPI_COMM_WORLD_SIZE']} ({found})"
    remedy = "sudo apt install libopenmpi-dev and name its mpicc in mpicc_path, or set use_mpi=0"
    return Fact(text, "" if works or os.environ.get("use_mpi", "1") != "1" else f"started by mpirun, but {found}: {remedy}")


def other_jseg() -> Fact:
    """Jittor/JSeg and a Chinese word segmenter both install a package `jseg` from a distribution `jseg`; ours is jseg-diffusion."""
    from importlib import metadata

    here = os.path.dirname(os.path.abspath(__file__))
    remedy = f"{_pip()} uninstall jseg, then install jseg-diffusion again, or use a fresh virtual environment"
    loaded = getattr(sys.modules.get("jseg"), "__file__", None)
    if loaded and os.path.dirname(os.path.abspath(loaded)) != here:
        return Fact(loaded, f"`import jseg` finds another package, {loaded}, not this one in {here}: {remedy}")
    try:
        other = metadata.distribution("jseg")
    except metadata.PackageNotFoundError:
        strays = [name for name in ("runner", "bricks", "Emodet", "jieba.py") if os.path.exists(os.path.join(here, name))]
        if strays:
            return Fact(here, f"{os.path.join(here, strays[0])} belongs to another package named jseg: {remedy}")
        return Fact(here)
    author = "Jittor/JSeg" if "jittor" in str(other.metadata["Author"] or other.metadata["Summary"]).lower() else "not this project"
    return Fact(here, f"the distribution jseg {other.version} ({author}) takes the import name jseg from jseg-diffusion: {remedy}")


def _minor() -> str:
    return f"3.{sys.version_info[1]}"


def _pip() -> str:
    return f"{sys.executable} -m pip"


def main() -> int:
    """Print what is missing to make a virtual environment and to compile Jittor in it, one line each; exit 2 if anything is."""
    problems = [fact.problem for fact in (python(), paths(os.getcwd()), compiler(), virtual_environments()) if fact.problem]
    for problem in problems:
        print(f"jseg: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
