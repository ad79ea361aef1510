"""A CUDA toolkit whose compiler and libraries are of this package: what Jittor builds on to compute
its CUDA kernels on the CPU. CUDA's own headers come from NVIDIA's packages on PyPI.

Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from typing import Dict, List

from jseg.machine.facts import PIP
from jseg.parity.cuda_emulation.translate import translate

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(CORE)))  # where the package jseg lies
INCLUDE = os.path.join(HERE, "include")
PACKAGES = "nvidia-cuda-runtime==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-cccl==13.0.*"
# All libraries are one file under the names, and with the versions, that CUDA 13 gives them.
LIBRARIES = {
    "cudart": 13,
    "cublas": 13,
    "cudnn": 9,
    "curand": 10,
    "cufft": 12,
    "cusparse": 12,
}
# Headers of CUB and Thrust that Jittor includes; cub/cub.cuh stands in for all of them.
CUB_HEADERS = (
    *("cub/util_allocator.cuh", "cub/block/block_scan.cuh"),
    *("cub/device/device_radix_sort.cuh", "cub/device/device_segmented_radix_sort.cuh"),
    *("thrust/device_ptr.h", "thrust/device_vector.h", "thrust/execution_policy.h"),
    *("thrust/extrema.h", "thrust/iterator/reverse_iterator.h", "thrust/scan.h"),
    *("thrust/scatter.h", "thrust/sequence.h", "thrust/sort.h", "thrust/transform.h"),
    "thrust/unique.h",
)
MAKERS = ("translate.py", "compiler.py")  # what a kernel's C++ depends on, beside headers
ON_HOST = ("products", "convolutions", "random")  # sources of the libraries
CAPABILITY = 90  # of the emulated device
DEVICE = "PRETENDED_CAPABILITY"  # the variable from which the device takes it


class ToolkitError(RuntimeError):
    """The toolkit cannot be made; one line with the remedy."""


def cuda_headers() -> str:
    """The folder of CUDA's headers in PyPI's packages. Raises ToolkitError where there is none."""
    for place in sys.path:
        folder = os.path.join(place or os.curdir, "nvidia", "cu13", "include")
        names = ("cuda_runtime.h", "cuda_fp16.h", "crt/host_defines.h", "nv/target")
        if all(os.path.isfile(os.path.join(folder, name)) for name in names):
            return os.path.realpath(folder)
    packages = " ".join(f"'{package}'" for package in PACKAGES.split())
    raise ToolkitError(f"CUDA's headers are missing: {PIP} install --no-deps {packages}")


def build(folder: str) -> str:
    """Make the toolkit in a new folder below `folder`, unless it is there; its path.

    Its name covers all that it is made of, since Jittor compiles again where a path is another.
    Raises ToolkitError for missing headers and where g++ refuses a source.
    """
    headers, jittor = cuda_headers(), _jittor_sources()
    top = os.path.join(folder, f"toolkit-{_digest(headers)}")
    if os.path.isdir(top):
        _script(top)  # this Python and this copy of jseg may be others
        return top
    new = f"{top}.{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    try:
        _fill(new, headers, jittor)
        os.rename(new, top)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    _script(top)
    return top


def _fill(new: str, headers: str, jittor: str) -> None:
    """Headers and libraries of the toolkit in the new folder."""
    for name in ("include", "lib64", "driver"):
        os.makedirs(os.path.join(new, name))

    # Headers: CUDA's, those that stand in for its libraries', Jittor's that launch kernels.
    for name in set(os.listdir(headers)) - {"cub", "thrust", "cccl"}:
        os.symlink(os.path.join(headers, name), os.path.join(new, "include", name))
    _stand_ins(os.path.join(new, "include"))
    for name, text in _launching_headers(jittor).items():
        _write(os.path.join(new, "translated", name), text)

    _libraries(new)


def environment(top: str) -> Dict[str, str]:
    """Variables with which jseg finds the toolkit and its device, and no others; HOME, where it and
    Jittor keep what they build, is the toolkit's folder.
    """
    hidden = ("nvcc_path", "cuda_archs", "nvcc_flags", "use_cuda", "CUDA_VISIBLE_DEVICES")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    path = [ROOT, variables.get("PYTHONPATH")]
    return {
        **variables,
        "HOME": os.path.dirname(top),
        "PATH": os.pathsep.join([os.path.join(top, "bin"), variables.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.path.join(top, "driver"),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        DEVICE: str(CAPABILITY),
        "use_mkl": "0",
    }


def is_emulated() -> bool:
    """Whether the CUDA device of this process is the emulated one, if it has one."""
    return DEVICE in os.environ


def _script(top: str) -> None:
    """The toolkit's nvcc: this Python with `compiler.main`."""
    path = os.path.join(top, "bin", "nvcc")
    lines = (
        f"#!{sys.executable} -IS",
        "import sys",
        f"sys.path.insert(0, {ROOT!r})",
        "from jseg.parity.cuda_emulation.device.compiler import main",
        f"sys.exit(main({top!r}, sys.argv[1:]))",
    )
    _write(path, "\n".join(lines) + "\n")
    os.chmod(path, 0o755)


def _stand_ins(include: str) -> None:
    """The headers of cuDNN, cuBLAS and the others, and of CUB and Thrust."""
    for parent, _, names in os.walk(INCLUDE):
        for name in names:
            inside = os.path.relpath(os.path.join(parent, name), INCLUDE)
            place = os.path.join(include, inside)
            if os.path.lexists(place):
                os.remove(place)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copyfile(os.path.join(parent, name), place)
    for name in CUB_HEADERS:
        _write(os.path.join(include, name), "#include <cub/cub.cuh>\n")


def _launching_headers(jittor: str) -> Dict[str, str]:
    """Jittor's headers that launch kernels or have shared memory, translated, by their path."""
    headers = {}
    for parent, _, names in os.walk(jittor):
        for name in filter(lambda name: name.endswith(".h"), names):
            path = os.path.join(parent, name)
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
            if translate(text) != text:
                headers[os.path.relpath(path, jittor)] = translate(text)
    return headers


def _libraries(top: str) -> None:
    sources = ON_HOST
    objects = [os.path.join(top, "lib64", f"{name}.o") for name in (*sources, "scheduler")]
    include = [f"-I{top}/include"]
    for name, path in zip(sources, objects):
        _compile(["-std=c++17", "-O3", "-march=native", *include, _source(f"{name}.cc")], path)
    scheduler = os.path.join(CORE, "scheduler.cc")
    _compile(["-std=c++14", "-O2", *include, scheduler], objects[-1])

    pretended = [
        "-std=c++14",
        "-fno-builtin",
        "-DPRETENDED_VERSION=13",
        _source("pretended_cuda.cpp"),
    ]
    main = f"libcudart.so.{LIBRARIES['cudart']}"
    runtime = ["-DPRETENDED_cudart", *include, *pretended, _source("runtime.cc"), *objects]
    _link(runtime, os.path.join(top, "lib64", main))
    _link(["-DPRETENDED_cuda", *pretended], os.path.join(top, "driver", "libcuda.so.1"))
    for path in objects:
        os.remove(path)
    for name, version in LIBRARIES.items():
        for link in (f"lib{name}.so.{version}", f"lib{name}.so"):
            if link != main:
                os.symlink(main, os.path.join(top, "lib64", link))


def _compile(words: List[str], path: str) -> None:
    _run(["g++", "-fPIC", "-w", "-c", *words, "-o", path])


def _link(words: List[str], path: str) -> None:
    soname = f"-Wl,-soname,{os.path.basename(path)}"
    _run(["g++", "-shared", "-fPIC", "-w", "-O2", soname, *words, "-o", path])


def _run(words: List[str]) -> None:
    try:
        done = subprocess.run(words, stderr=subprocess.PIPE, universal_newlines=True)
    except FileNotFoundError:
        raise ToolkitError("g++ is missing: install it, as Jittor needs it too") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise ToolkitError(f"g++ refuses the emulation: {(lines or [done.stderr[-300:]])[0]}")


def _jittor_sources() -> str:
    """Jittor's folder of C++ sources, found without importing Jittor."""
    spec = importlib.util.find_spec("jittor")
    if spec is None:
        raise ToolkitError(f"Jittor is missing: {PIP} install jittor==1.3.11.0")
    return os.path.join(spec.submodule_search_locations[0], "src")


def _digest(headers: str) -> str:
    """Of all files that the toolkit and what it compiles are made of."""
    digest = hashlib.sha256(headers.encode())
    for parent, _, names in sorted(os.walk(CORE)):
        for name in sorted(names):
            if name.endswith((".h", ".cc", ".cpp", ".cuh")) or name in MAKERS:
                with open(os.path.join(parent, name), "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:12]


def _source(name: str) -> str:
    return os.path.join(HERE, name)


def _write(path: str, text: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path
