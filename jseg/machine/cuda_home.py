"""The home: what Jittor 1.3.11 builds on where it could not build on a CUDA toolkit as it is.

A home is a folder of links to the toolkit and the libraries, wherever they lie, with a few headers
of ours before them and a script that calls nvcc; Jittor and the toolkit stay as they are installed.
docs/cuda.md gives the reason for each part. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

from jseg.machine import cuda_toolkit
from jseg.machine.cuda_toolkit import CUDNN_8, NEWEST_CAPABILITY, PARTS, Toolkit

OWN = os.path.dirname(os.path.abspath(__file__))  # our headers, and nvcc's script
# Libraries that Jittor's libraries open themselves, or that several GPUs need.
COMPANIONS = ("cublasLt", "nvrtc", "nvJitLink", "nccl")
# How the headers begin that a home takes from folders that hold other things as well.
PREFIXES = ("cublas", "cudnn", "curand", "cufft", "cusparse", "nvblas", "cudalibxt", "nccl", "npp")


@dataclass(frozen=True)
class Home:
    """A home as it is to be built: `texts` and `links` by path within `folder`."""

    folder: str
    texts: Dict[str, str]
    links: Dict[str, str]

    @property
    def nvcc(self) -> str:
        """The script that Jittor takes for nvcc."""
        return os.path.join(self.folder, "bin", "nvcc")

    def is_whole(self) -> bool:
        """Whether all of it lies there, and every link leads somewhere."""
        names = (*self.texts, *self.links)
        return all(os.path.exists(os.path.join(self.folder, name)) for name in names)


def plan(kit: Toolkit, devices: Sequence[int]) -> Home:
    """The home for a toolkit and the compute capabilities of the devices (80, 90, ...).

    Nothing is written.
    """
    texts = {"bin/nvcc": _script(kit, devices)}
    for name in _own_headers(kit):
        with open(os.path.join(OWN, "include", name), encoding="utf-8") as file:
            texts["include/" + name] = file.read()

    # A link would hide a text of ours, or the folder of one: include/cub.
    ours = {*texts, *map(os.path.dirname, texts)}
    links = {**_header_links(kit), **_library_links(kit)}
    links = {name: path for name, path in links.items() if name not in ours}

    # Jittor compiles again only where the path is another: all that matters is in its name.
    content = repr((sorted(texts.items()), sorted(links.items())))
    digest = hashlib.md5(content.encode()).hexdigest()[:8]
    version, cudnn = (".".join(map(str, numbers)) for numbers in (kit.version, kit.cudnn))
    architectures = "_".join(map(str, sorted(set(devices))))
    name = f"cuda{version}-cudnn{cudnn}-sm{architectures}-{digest}"
    folder = os.path.join(os.path.expanduser("~"), ".cache", "jseg", "cuda-home", name)
    return Home(folder, texts, links)


def build(home: Home) -> str:
    """Put the home in place in one move, unless it is there; the path of its nvcc.

    Several processes may do so at once. Raises OSError.
    """
    if home.is_whole():
        return home.nvcc
    parent = os.path.dirname(home.folder)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=".building-", dir=parent)
    try:
        new = os.path.join(temporary, "home")
        _write(home, new)
        if os.path.lexists(home.folder) and not home.is_whole():
            os.rename(home.folder, os.path.join(temporary, "broken"))
        os.rename(new, home.folder)
    except OSError:
        if not home.is_whole():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return home.nvcc


def nccl(kit: Toolkit, home: Optional[Home]) -> Optional[Tuple[str, str]]:
    """(folder of nccl.h, folder of libnccl.so), which several processes with a GPU each need; None
    if either is missing.
    """
    header = kit.header("nccl.h")
    libraries = [path for path in kit.family("nccl") if path.endswith("libnccl.so")]
    # A home has the name without a version even where the toolkit has not.
    if home is not None and "lib64/libnccl.so" in home.links:
        libraries = [os.path.join(home.folder, "lib64", "libnccl.so")]
    if not header or not libraries:
        return None
    return os.path.dirname(header), os.path.dirname(libraries[0])


def _own_headers(kit: Toolkit) -> Sequence[str]:
    """The headers of ours that this toolkit needs."""
    names = ["cudnn.h"]
    if kit.version[0] >= 13:
        names += ["cuda_runtime.h", "cub/cub.cuh"]
    if not kit.header("npp.h"):
        names.append("npp.h")
    return names


def _header_links(kit: Toolkit) -> Dict[str, str]:
    """Links to headers, the toolkit's own first; what ours wrap is in include/real."""
    links = {
        f"include/real/{name}": os.path.realpath(kit.header(name))
        for name in ("cudnn.h", "cuda_runtime.h")
    }
    own = os.path.dirname(kit.header("cuda_runtime.h"))
    for folder in sorted(kit.includes, key=lambda folder: folder != own):
        # A compiler looks into the system's folder by itself.
        names = [] if folder == f"{cuda_toolkit.SYSTEM}/include" else sorted(os.listdir(folder))
        for name in names:
            if folder == own or name.startswith(PREFIXES):
                path = os.path.realpath(os.path.join(folder, name))
                links.setdefault("include/" + name, path)
    return links


def _library_links(kit: Toolkit) -> Dict[str, str]:
    """Links to libraries, each under its own name and under the one without a version."""
    links = {}
    for stem in (*(library for _, library, _ in PARTS), *COMPANIONS):
        for path in kit.family(stem):
            name, real = os.path.basename(path), os.path.realpath(path)
            links["lib64/" + name] = real
            links.setdefault(f"lib64/{name.partition('.so')[0]}.so", real)
    if kit.cudnn >= (9,):
        links.update({f"lib64/lib{name}.so": links["lib64/libcudnn.so"] for name in CUDNN_8})

    # The first folder's, where several have it.
    for folder in reversed(kit.libraries):
        if os.path.isfile(f"{folder}/libcudadevrt.a"):
            links["lib64/libcudadevrt.a"] = os.path.realpath(f"{folder}/libcudadevrt.a")
    return links


def _script(kit: Toolkit, devices: Sequence[int]) -> str:
    """The script that Jittor takes for nvcc: newer devices get code of their own."""
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


def _write(home: Home, folder: str) -> None:
    for name in (*home.texts, *home.links):
        os.makedirs(os.path.join(folder, os.path.dirname(name)), exist_ok=True)
    for name, text in home.texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    for name, target in home.links.items():
        os.symlink(target, os.path.join(folder, name))
    # nvcc is a file and no link: Jittor takes the folder above the file for the toolkit.
    os.chmod(os.path.join(folder, "bin", "nvcc"), 0o755)
