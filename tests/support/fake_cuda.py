"""Toolkits that look like NVIDIA's, drivers that answer, and pip packages, for the tests of what is
made of them.
"""

import subprocess

import pytest

from jseg.machine import cuda_toolkit

PARTS = ("cudart", "cublas", "curand", "cufft", "cusparse")
HEADERS = (
    "cuda_runtime.h",
    "cublas.h",
    "cublas_v2.h",
    "curand.h",
    "cufft.h",
    "cusparse.h",
    "cub/cub.cuh",
    "npp.h",
)
CUDNN_8 = tuple(
    f"libcudnn_{name}.so" for name in ("ops_infer", "ops_train", "cnn_infer", "cnn_train")
)
NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release 1.2, V{release}" ;;
  --list-gpu-code) for n in {codes}; do echo sm_$n; done ;;
  --dryrun) echo "#$ TOP={top}/bin/.." >&2 ;;
  *) for option; do printf '%s\\n' "$option"; done ;;
esac
"""
DRIVER = """
#include <stdlib.h>
int cuInit(unsigned flags) { %s; return 0; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDriverGetVersion(int* v) { *v = %d; return 0; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetAttribute(int* v, int what, int d) { *v = what == 75 ? 8 : d * 6; return 0; }
"""


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def toolkit(top, release="13.0.88", codes="75 80 86 90 100 120", headers=HEADERS, libraries=PARTS):
    """Make a toolkit; the path of its nvcc. Libraries carry the version that they have for that
    CUDA, and a name without one.
    """
    nvcc = write(top / "bin/nvcc", NVCC.format(release=release, codes=codes, top=top))
    nvcc.chmod(0o755)
    for name in headers:
        write(top / "include" / name, name)
    for name in libraries:
        write(top / f"lib64/lib{name}.so.{release.split('.')[0]}", name)
        (top / f"lib64/lib{name}.so").symlink_to(f"lib{name}.so.{release.split('.')[0]}")
    return nvcc


def cudnn(folder, version="9.2.1", versioned_only=False, lib="lib"):
    """Put cuDNN's header and libraries into folder/include and folder/lib."""
    numbers = version.split(".")
    write(folder / "include/cudnn.h", "cudnn")
    write(
        folder / "include/cudnn_version.h",
        "".join(
            f"#define CUDNN_{part} {number}\n"
            for part, number in zip(("MAJOR", "MINOR", "PATCHLEVEL"), numbers)
        ),
    )
    names = ["libcudnn.so"] + (
        list(CUDNN_8) if numbers[0] == "8" else ["libcudnn_ops.so", "libcudnn_cnn.so"]
    )
    for name in names:
        real = write(folder / lib / f"{name}.{numbers[0]}", name)
        if not versioned_only:
            (folder / lib / name).symlink_to(real.name)


def driver(folder, monkeypatch, version=12040, body=""):
    """A libcuda for two devices of compute capability 8.0 and 8.6, in front of any other."""
    source = write(folder / "driver.c", DRIVER % (body, version))
    subprocess.run(
        ["g++", "-x", "c", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)],
        check=True,
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.delenv("nvcc_path", raising=False)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without CUDA: its folder. A `cuda` in it is a toolkit, a `site` in it has pip's
    packages, a `usr` is the system.
    """
    monkeypatch.setattr(cuda_toolkit, "PLACES", (str(tmp_path / "cuda"), str(tmp_path / "cuda-*")))
    monkeypatch.setattr(cuda_toolkit, "SYSTEM", str(tmp_path / "usr"))
    monkeypatch.setattr(cuda_toolkit.sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(cuda_toolkit.shutil, "which", lambda name: None)
    for name in ("CUDA_HOME", "CUDA_PATH", "nvcc_path", "CUDA_VISIBLE_DEVICES", "device_id"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path
