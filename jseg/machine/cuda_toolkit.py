"""CUDA as it lies on this machine, and the home that Jittor 1.3.11 is given where it could not
build on that as it is.

A home is a folder of links to the toolkit and the libraries, wherever they lie, with a few headers
of ours before them and a script that calls nvcc; Jittor and the toolkit stay as they are installed.
docs/cuda.md gives the reason for each part. Facts about Jittor: compiler.py (check_cuda,
convert_nvcc_flags) and compile_extern.py (setup_cuda_lib). Standard library only; nothing here asks
the driver.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

OWN = os.path.dirname(os.path.abspath(__file__))  # our headers, and nvcc's script
NEWEST_CAPABILITY = 90  # Jittor 1.3.11 compiles for nothing newer
SYSTEM = "/usr"
PLACES = (
    "/usr/local/cuda",
    "/usr/local/cuda-*",
    "/opt/cuda",
    SYSTEM,
)  # where toolkits are installed, in the order they are tried

# What Jittor includes and links: header, library, what brings both (an extra of PyPI's
# cuda-toolkit, or a package).
PARTS = (
    ("cuda_runtime.h", "cudart", "cudart"),
    ("cublas_v2.h", "cublas", "cublas"),
    ("curand.h", "curand", "curand"),
    ("cufft.h", "cufft", "cufft"),
    ("cusparse.h", "cusparse", "cusparse"),
    ("cudnn.h", "cudnn", ""),
)
# Libraries that those open themselves, or that several GPUs need.
COMPANIONS = ("cublasLt", "nvrtc", "nvJitLink", "nccl")
# Headers taken from folders that hold other things as well.
OURS_TO_LINK = (
    "cublas",
    "cudnn",
    "curand",
    "cufft",
    "cusparse",
    "nvblas",
    "cudalibxt",
    "nccl",
    "npp",
)
# cuDNN 8's libraries, by name loaded before libcudnn; cuDNN 9 has no such, and libcudnn stands for
# each.
CUDNN_8 = ("cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer", "cudnn_cnn_train")


@dataclass(frozen=True)
class Toolkit:
    """An nvcc and what lies around it. `version`: (12, 4, 131), of nvcc; `cudnn`: (9, 2, 0) or ()
    if there is none; folders: best first.
    """

    nvcc: str
    version: Tuple[int, ...]
    top: str
    includes: Tuple[str, ...]
    libraries: Tuple[str, ...]
    cudnn: Tuple[int, ...]

    def header(self, name: str) -> Optional[str]:
        """The path of a header, or None."""
        return next(
            (
                path
                for path in (os.path.join(folder, name) for folder in self.includes)
                if os.path.isfile(path)
            ),
            None,
        )

    def family(self, stem: str) -> List[str]:
        """The files lib<stem>.so* and lib<stem>_*.so* of the first folder with that library, of the
        version that fits; [] if none.
        """
        major = {
            "cudnn": self.cudnn[:1],
            "curand": (),
            "cufft": (),
            "cusparse": (),
            "nccl": (),
        }.get(stem, self.version[:1])
        for folder in self.libraries:
            if any(
                _fits(path, major) for path in glob.glob(f"{glob.escape(folder)}/lib{stem}.so*")
            ):
                names = (f"lib{stem}.so*", f"lib{stem}_*.so*", f"lib{stem}-*.so*")
                return sorted(
                    path
                    for name in names
                    for path in glob.glob(f"{glob.escape(folder)}/{name}")
                    if _fits(path, major)
                )
        return []


def _fits(path: str, major: Sequence[int]) -> bool:
    """Whether a library's file, or what an unversioned name leads to, is of that major version, as
    far as names tell.
    """
    version = re.search(r"\.so\.(\d+)", os.path.basename(path)) or re.search(
        r"\.so\.(\d+)", os.path.realpath(path)
    )
    return not major or version is None or int(version.group(1)) == major[0]


def compilers() -> List[str]:
    """Every nvcc of this machine, in the order in which they are tried."""
    found = [shutil.which("nvcc")]
    found += [
        os.path.join(os.environ[name], "bin", "nvcc")
        for name in ("CUDA_HOME", "CUDA_PATH")
        if os.environ.get(name)
    ]
    downloaded = os.path.join(
        glob.escape(os.path.expanduser("~")), ".cache", "jittor", "jtcuda", "*"
    )  # by Jittor, on demand
    for pattern in (*PLACES, *(f"{glob.escape(site)}/cu*" for site in _sites()), downloaded):
        found += sorted(glob.glob(f"{pattern}/bin/nvcc"), key=_numbers, reverse=True)
    usable = [path for path in found if path and os.path.isfile(path) and os.access(path, os.X_OK)]
    return [
        path
        for i, path in enumerate(usable)
        if os.path.realpath(path) not in map(os.path.realpath, usable[:i])
    ]


def toolkit(nvcc: str) -> Optional[Toolkit]:
    """What that nvcc belongs to, or None if it does not run. It may be a script that calls another:
    `--dryrun` tells where it works.
    """
    version = _numbers((re.findall(r"\bV(\d+(?:\.\d+)+)", _output(nvcc, "--version")) or [""])[-1])
    if not version:
        return None
    told = re.findall(
        r"^#\$ TOP=(.+)$",
        _output(nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull),
        re.M,
    )
    top = (
        os.path.realpath(told[0].strip())
        if told
        else os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    )
    own, system = os.path.join(top, "bin", "nvcc"), platform.machine() + "-linux-gnu"
    places = [top, *glob.glob(f"{glob.escape(top)}/targets/*"), *_packages(version[0])]
    includes = [f"{place}/include" for place in places] + [
        f"{SYSTEM}/include/{system}",
        f"{SYSTEM}/include",
    ]
    libraries = [f"{place}/{name}" for place in places for name in ("lib64", "lib")]
    libraries += [f"{SYSTEM}/{name}" for name in (f"lib/{system}", "lib64", "lib")]
    includes, libraries = (
        tuple(filter(os.path.isdir, folders)) for folders in (includes, libraries)
    )
    found = Toolkit(own if os.access(own, os.X_OK) else nvcc, version, top, includes, libraries, ())
    return dataclasses.replace(found, cudnn=_cudnn(found.header("cudnn.h")))


def capabilities(kit: Toolkit) -> List[int]:
    """The compute capabilities that this nvcc compiles for, as 80, 90, ...; [] if it does not tell
    (before CUDA 11.5).
    """
    return sorted(
        {
            int(number)
            for number in re.findall(r"\bsm_(\d+)\b", _output(kit.nvcc, "--list-gpu-code"))
        }
    )


def missing(kit: Toolkit) -> str:
    """What Jittor would look for in vain, with the command that installs it; "" if all is there."""
    absent = [
        (library, extra)
        for header, library, extra in PARTS
        if not kit.header(header) or not kit.family(library)
    ]
    if not any(
        os.path.isfile(f"{folder}/{cub}cub/cub.cuh")
        for folder in kit.includes
        for cub in ("", "cccl/")
    ):
        absent.append(("CUB", "cccl"))
    if not absent:
        return ""
    major, extras = kit.version[0], ",".join(extra for _, extra in absent if extra)
    wanted = [f"'cuda-toolkit[{extras}]=={major}.{kit.version[1]}.*'"] * bool(extras)
    wanted += [f"nvidia-cudnn-cu{major}" + "'<9'" * (major == 11)] * any(
        library == "cudnn" for library, _ in absent
    )
    names = " and ".join(
        {"cudnn": "cuDNN's header and library"}.get(library, library) for library, _ in absent
    )
    return f"{names} not found: {sys.executable} -m pip install {' '.join(wanted)}"


def jittor_finds_all(kit: Toolkit) -> bool:
    """Whether Jittor builds on this toolkit without help: CUDA 11 or 12, cuDNN 8, every file under
    the name and in the place it looks.
    """
    if kit.version[0] not in (11, 12) or kit.cudnn[:1] != (8,):
        return False
    system = ("x86_64" if platform.machine() in ("x86_64", "AMD64") else "aarch64") + "-linux"
    headers = [f"{kit.top}/include", f"{kit.top}/targets/{system}/include", f"{SYSTEM}/include"]
    libraries = [
        f"{kit.top}/bin",
        f"{kit.top}/lib64",
        f"{kit.top}/targets/{system}/lib",
        f"{SYSTEM}/lib/{system}-gnu",
        f"{SYSTEM}/lib",
    ]
    endings = (
        (".so", ".so.8") if kit.version[0] == 11 else (".so",)
    )  # only for CUDA 11 does it try a version
    return (
        all(
            any(os.path.isfile(f"{folder}/{library}.h") for folder in headers)
            for _, library, _ in PARTS[1:]
        )
        and os.path.isfile(f"{kit.top}/include/cuda_runtime.h")
        and os.path.isfile(f"{kit.top}/lib64/libcudart.so")
        and all(
            any(
                os.path.isfile(f"{folder}/lib{name}{end}")
                for folder in libraries
                for end in endings
            )
            for name in CUDNN_8
        )
    )


@dataclass(frozen=True)
class Home:
    """A home as it is to be: `texts` and `links` by path within `folder`."""

    folder: str
    texts: Dict[str, str]
    links: Dict[str, str]

    @property
    def nvcc(self) -> str:
        return os.path.join(self.folder, "bin", "nvcc")

    def is_whole(self) -> bool:
        """Whether all of it lies there, and every link leads somewhere."""
        return all(
            os.path.exists(os.path.join(self.folder, name)) for name in (*self.texts, *self.links)
        )


def plan(kit: Toolkit, devices: Sequence[int]) -> Home:
    """The home for a toolkit and the compute capabilities of the devices (80, 90, ...); nothing is
    written.
    """
    texts, links = {"bin/nvcc": _script(kit, devices)}, {}
    shims = (
        ["cudnn.h"]
        + ["cuda_runtime.h", "cub/cub.cuh"] * (kit.version[0] >= 13)
        + ["npp.h"] * (not kit.header("npp.h"))
    )
    for name in shims:
        with open(os.path.join(OWN, "include", name), encoding="utf-8") as file:
            texts["include/" + name] = file.read()
    for name in ("cudnn.h", "cuda_runtime.h"):
        links["include/real/" + name] = os.path.realpath(kit.header(name))
    own = os.path.dirname(kit.header("cuda_runtime.h"))
    for folder in sorted(kit.includes, key=lambda folder: folder != own):
        for name in [] if folder == f"{SYSTEM}/include" else sorted(os.listdir(folder)):
            if folder == own or name.startswith(OURS_TO_LINK):
                links.setdefault("include/" + name, os.path.realpath(os.path.join(folder, name)))
    for stem in (*(library for _, library, _ in PARTS), *COMPANIONS):
        for path in kit.family(stem):
            name = os.path.basename(path)
            links["lib64/" + name] = os.path.realpath(path)
            links.setdefault("lib64/" + name.partition(".so")[0] + ".so", os.path.realpath(path))
    if kit.cudnn >= (9,):
        links.update({f"lib64/lib{name}.so": links["lib64/libcudnn.so"] for name in CUDNN_8})
    for folder in reversed(kit.libraries):
        if os.path.isfile(f"{folder}/libcudadevrt.a"):
            links["lib64/libcudadevrt.a"] = os.path.realpath(f"{folder}/libcudadevrt.a")
    ours = {*texts, *map(os.path.dirname, texts)}  # include/cub too, where that is a folder of ours
    links = {name: path for name, path in links.items() if name not in ours}
    digest = hashlib.md5(repr((sorted(texts.items()), sorted(links.items()))).encode()).hexdigest()[
        :8
    ]
    versions = "cuda{}-cudnn{}-sm{}".format(
        *(
            mark.join(map(str, numbers))
            for mark, numbers in ((".", kit.version), (".", kit.cudnn), ("_", sorted(set(devices))))
        )
    )
    return Home(
        os.path.join(
            os.path.expanduser("~"), ".cache", "jseg", "cuda-home", f"{versions}-{digest}"
        ),
        texts,
        links,
    )


def _script(kit: Toolkit, devices: Sequence[int]) -> str:
    newer = sorted({device for device in devices if device > NEWEST_CAPABILITY})
    real = [NEWEST_CAPABILITY] * (NEWEST_CAPABILITY in devices or not newer) + newer
    values = {
        "NVCC": shlex.quote(kit.nvcc),
        "STANDARD": "c++17" if kit.version[0] >= 13 else "c++14",
        "VIRTUAL": str(real[0]),
        "REAL": ",".join(f"sm_{number}" for number in real),
    }
    with open(os.path.join(OWN, "nvcc.in"), encoding="utf-8") as file:
        return re.sub(r"@(\w+)@", lambda match: values[match.group(1)], file.read())


def build(home: Home) -> str:
    """Put the home in place in one move, unless it is there; the path of its nvcc. Several
    processes may do so at once. Raises OSError.
    """
    if home.is_whole():
        return home.nvcc
    parent = os.path.dirname(home.folder)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=".building-", dir=parent)
    try:
        made = os.path.join(temporary, "home")
        for name in (*home.texts, *home.links):
            os.makedirs(os.path.join(made, os.path.dirname(name)), exist_ok=True)
        for name, text in home.texts.items():
            with open(os.path.join(made, name), "w", encoding="utf-8") as file:
                file.write(text)
        for name, target in home.links.items():
            os.symlink(target, os.path.join(made, name))
        os.chmod(
            os.path.join(made, "bin", "nvcc"), 0o755
        )  # a file, no link: Jittor takes the folder above the file for the toolkit
        if os.path.lexists(home.folder) and not home.is_whole():
            os.rename(home.folder, os.path.join(temporary, "broken"))
        os.rename(made, home.folder)
    except OSError:
        if not home.is_whole():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return home.nvcc


def nccl(kit: Toolkit, home: Optional[Home]) -> Optional[Tuple[str, str]]:
    """(folder of nccl.h, folder of libnccl.so), which several processes with a GPU each need; None
    if one of them is not there.
    """
    header, library = (
        kit.header("nccl.h"),
        [path for path in kit.family("nccl") if path.endswith("libnccl.so")],
    )
    if (
        home is not None and "lib64/libnccl.so" in home.links
    ):  # which also has the name without a version
        library = [os.path.join(home.folder, "lib64", "libnccl.so")]
    return (os.path.dirname(header), os.path.dirname(library[0])) if header and library else None


def _sites() -> Iterator[str]:
    """The folders `nvidia` of NVIDIA's pip packages."""
    return (
        path
        for path in dict.fromkeys(os.path.join(place or os.curdir, "nvidia") for place in sys.path)
        if os.path.isdir(path)
    )


def _packages(major: int) -> Iterator[str]:
    """The folders of the pip packages for that CUDA: nvidia/cu13 has all of CUDA 13; others are
    named after one library, for any CUDA.
    """
    for place in _sites():
        for name in sorted(os.listdir(place)):
            if name == f"cu{major}" or glob.glob(
                f"{glob.escape(os.path.dirname(place))}/nvidia_{name}_cu{major}-*.dist-info"
            ):
                yield os.path.join(place, name)


def _cudnn(header: Optional[str]) -> Tuple[int, ...]:
    for name in ("cudnn_version.h", "cudnn.h") if header else ():
        for folder in (os.path.dirname(header), os.path.dirname(os.path.realpath(header))):
            for path in sorted(
                glob.glob(f"{glob.escape(folder)}/{name}")
                + glob.glob(f"{glob.escape(folder)}/{name[:-2]}_v*.h")
            ):
                with open(path, encoding="utf-8", errors="replace") as file:
                    found = dict(
                        re.findall(
                            r"^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)", file.read(), re.M
                        )
                    )
                if len(found) == 3:
                    return tuple(int(found[part]) for part in ("MAJOR", "MINOR", "PATCHLEVEL"))
    return ()


def _numbers(text: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _output(*command: str) -> str:
    """What a command prints, both streams, whatever its exit code; "" if it cannot be run."""
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            universal_newlines=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
