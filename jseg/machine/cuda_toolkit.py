"""The CUDA toolkits of this machine, and what Jittor 1.3.11 needs of one.

Facts about Jittor: compiler.py (check_cuda, convert_nvcc_flags) and compile_extern.py
(setup_cuda_lib). Standard library only; nothing here asks the driver.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from jseg.machine.program_output import program_output

NEWEST_CAPABILITY = 90  # Jittor 1.3.11 compiles for nothing newer
SYSTEM = "/usr"
# Where toolkits are installed, in the order in which they are tried.
PLACES = ("/usr/local/cuda", "/usr/local/cuda-*", "/opt/cuda", SYSTEM)

# What Jittor includes and links: header, library, what installs both (an extra of PyPI's
# cuda-toolkit, or a package).
PARTS = (
    ("cuda_runtime.h", "cudart", "cudart"),
    ("cublas_v2.h", "cublas", "cublas"),
    ("curand.h", "curand", "curand"),
    ("cufft.h", "cufft", "cufft"),
    ("cusparse.h", "cusparse", "cusparse"),
    ("cudnn.h", "cudnn", ""),
)
# Libraries whose major version is not CUDA's.
OWN_VERSIONS = ("cudnn", "curand", "cufft", "cusparse", "nccl")
# cuDNN 8's libraries, which Jittor loads by name before libcudnn. cuDNN 9 has none of them, and a
# home has libcudnn in the place of each.
CUDNN_8 = ("cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer", "cudnn_cnn_train")


@dataclass(frozen=True)
class Toolkit:
    """An nvcc and what lies around it.

    version: of nvcc, (12, 4, 131). cudnn: (9, 2, 0), or () if there is none. includes, libraries:
    folders, the best first.
    """

    nvcc: str
    version: Tuple[int, ...]
    top: str
    includes: Tuple[str, ...]
    libraries: Tuple[str, ...]
    cudnn: Tuple[int, ...]

    def header(self, name: str) -> Optional[str]:
        """The path of a header, or None."""
        return next(_files(self.includes, name), None)

    def family(self, stem: str) -> List[str]:
        """The files lib<stem>.so*, lib<stem>_*.so* and lib<stem>-*.so* of the version that fits, in
        the first folder that has the library; [] if none has.
        """
        major = self.version[:1]
        if stem in OWN_VERSIONS:
            major = self.cudnn[:1] if stem == "cudnn" else ()

        def files(folder: str, name: str) -> List[str]:
            return [path for path in _glob(folder, name) if _fits(path, major)]

        for folder in self.libraries:
            library = files(folder, f"lib{stem}.so*")
            if library:
                others = files(folder, f"lib{stem}_*.so*") + files(folder, f"lib{stem}-*.so*")
                return sorted(library + others)
        return []


def compilers() -> List[str]:
    """Every nvcc of this machine, in the order in which they are tried."""
    paths = [shutil.which("nvcc")]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            paths.append(os.path.join(os.environ[name], "bin", "nvcc"))

    # The last folder has what Jittor downloads on demand.
    home = glob.escape(os.path.expanduser("~"))
    packages = (f"{glob.escape(site)}/cu*" for site in _sites())
    for pattern in (*PLACES, *packages, f"{home}/.cache/jittor/jtcuda/*"):
        paths += sorted(glob.glob(f"{pattern}/bin/nvcc"), key=_numbers, reverse=True)

    programs = {}  # by the file that a path leads to: each once, under its first path
    for path in paths:
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            programs.setdefault(os.path.realpath(path), path)
    return list(programs.values())


def toolkit(nvcc: str) -> Optional[Toolkit]:
    """What that nvcc belongs to, or None if it does not run.

    It may be a script that calls another nvcc: `--dryrun` prints where that one lies.
    """
    printed = program_output(nvcc, "--version", any_exit_code=True)
    version = _numbers((re.findall(r"\bV(\d+(?:\.\d+)+)", printed) or [""])[-1])
    if not version:
        return None
    empty = ("-x", "cu", "-c", os.devnull, "-o", os.devnull)
    steps = program_output(nvcc, "--dryrun", *empty, any_exit_code=True)
    tops = re.findall(r"^#\$ TOP=(.+)$", steps, re.M)
    if tops:
        top = os.path.realpath(tops[0].strip())
    else:
        top = os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))

    # The toolkit's own folders, pip's packages, the system's.
    places = [top, *_glob(top, "targets/*"), *_packages(version[0])]
    system = f"{platform.machine()}-linux-gnu"
    includes = [f"{place}/include" for place in places]
    includes += [f"{SYSTEM}/include/{system}", f"{SYSTEM}/include"]
    libraries = [f"{place}/{name}" for place in places for name in ("lib64", "lib")]
    libraries += [f"{SYSTEM}/{name}" for name in (f"lib/{system}", "lib64", "lib")]

    own = os.path.join(top, "bin", "nvcc")
    kit = Toolkit(
        nvcc=own if os.access(own, os.X_OK) else nvcc,
        version=version,
        top=top,
        includes=tuple(filter(os.path.isdir, includes)),
        libraries=tuple(filter(os.path.isdir, libraries)),
        cudnn=(),
    )
    return dataclasses.replace(kit, cudnn=_cudnn_version(kit.header("cudnn.h")))


def capabilities(kit: Toolkit) -> List[int]:
    """The compute capabilities that this nvcc compiles for, as 80, 90, ...; [] if it does not say
    (before CUDA 11.5).
    """
    codes = program_output(kit.nvcc, "--list-gpu-code", any_exit_code=True)
    return sorted({int(number) for number in re.findall(r"\bsm_(\d+)\b", codes)})


def missing(kit: Toolkit) -> str:
    """What Jittor needs and this toolkit lacks, with the command that installs it, or ""."""
    absent = [
        (library, extra)
        for header, library, extra in PARTS
        if not kit.header(header) or not kit.family(library)
    ]
    if not kit.header("cub/cub.cuh") and not kit.header("cccl/cub/cub.cuh"):
        absent.append(("CUB", "cccl"))
    if not absent:
        return ""

    major, minor = kit.version[:2]
    packages = []
    extras = ",".join(extra for _, extra in absent if extra)
    if extras:
        packages.append(f"'cuda-toolkit[{extras}]=={major}.{minor}.*'")
    libraries = [library for library, _ in absent]
    if "cudnn" in libraries:
        packages.append(f"nvidia-cudnn-cu{major}" + ("'<9'" if major == 11 else ""))
        libraries[libraries.index("cudnn")] = "cuDNN's header and library"
    install = f"{sys.executable} -m pip install {' '.join(packages)}"
    return f"{' and '.join(libraries)} not found: {install}"


def jittor_finds_all(kit: Toolkit) -> bool:
    """Whether Jittor builds on this toolkit without help: CUDA 11 or 12, cuDNN 8, every file under
    the name and in the place where Jittor looks.
    """
    if kit.version[0] not in (11, 12) or kit.cudnn[:1] != (8,):
        return False
    top = kit.top
    machine = "x86_64" if platform.machine() in ("x86_64", "AMD64") else "aarch64"
    targets = f"{top}/targets/{machine}-linux"
    includes = (f"{top}/include", f"{targets}/include", f"{SYSTEM}/include")
    libraries = (
        f"{top}/bin",
        f"{top}/lib64",
        f"{targets}/lib",
        f"{SYSTEM}/lib/{machine}-linux-gnu",
        f"{SYSTEM}/lib",
    )

    # Jittor looks for versioned names for CUDA 11 only.
    endings = (".so", ".so.8") if kit.version[0] == 11 else (".so",)
    headers = [f"{library}.h" for _, library, _ in PARTS[1:]]
    runtime = (f"{top}/include/cuda_runtime.h", f"{top}/lib64/libcudart.so")
    return (
        all(map(os.path.isfile, runtime))
        and all(any(_files(includes, name)) for name in headers)
        and all(any(_files(libraries, *(f"lib{n}{end}" for end in endings))) for n in CUDNN_8)
    )


def _files(folders: Iterable[str], *names: str) -> Iterator[str]:
    paths = (os.path.join(folder, name) for folder in folders for name in names)
    return filter(os.path.isfile, paths)


def _glob(folder: str, pattern: str) -> List[str]:
    return glob.glob(f"{glob.escape(folder)}/{pattern}")


def _fits(path: str, major: Sequence[int]) -> bool:
    """Whether a library's file, or what an unversioned name leads to, is of that major version, as
    far as names show; () is any version.
    """
    for name in (os.path.basename(path), os.path.realpath(path)):
        version = re.search(r"\.so\.(\d+)", name)
        if version:
            return not major or int(version.group(1)) == major[0]
    return True


def _sites() -> List[str]:
    """The folders `nvidia` of NVIDIA's pip packages."""
    folders = dict.fromkeys(os.path.join(place or os.curdir, "nvidia") for place in sys.path)
    return list(filter(os.path.isdir, folders))


def _packages(major: int) -> Iterator[str]:
    """The folders of the pip packages for that CUDA: nvidia/cu13 has all of CUDA 13; others are
    named after one library, for any CUDA.
    """
    for site in _sites():
        for name in sorted(os.listdir(site)):
            record = f"nvidia_{name}_cu{major}-*.dist-info"
            if name == f"cu{major}" or _glob(os.path.dirname(site), record):
                yield os.path.join(site, name)


def _cudnn_version(header: Optional[str]) -> Tuple[int, ...]:
    """cuDNN's version by the headers beside `header` and beside the file it leads to."""
    if header is None:
        return ()
    folders = [os.path.dirname(header), os.path.dirname(os.path.realpath(header))]
    for stem in ("cudnn_version", "cudnn"):
        for folder in folders:
            for path in sorted(_glob(folder, f"{stem}.h") + _glob(folder, f"{stem}_v*.h")):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
                pattern = r"^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)"
                numbers = dict(re.findall(pattern, text, re.M))
                if len(numbers) == 3:
                    return tuple(int(numbers[part]) for part in ("MAJOR", "MINOR", "PATCHLEVEL"))
    return ()


def _numbers(text: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
