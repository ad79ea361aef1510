"""The environment in which Jittor is imported: which variables it gets, and for how long.

Variables that the user has set win. Facts about Jittor 1.3.11: jittor_utils/__init__.py,
compiler.py, compile_extern.py; docs/cuda.md has the reasons for CUDA's. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shlex
import sys
import sysconfig
import tempfile
from typing import Dict, Iterator, List, Mapping, Tuple

from jseg.machine import compilation, cuda, cuda_home, facts, mpirun, waiting
from jseg.machine.facts import RuntimeProblem

SWITCHES = {
    "gdb_path": "",  # else Jittor attaches gdb to a crashing process and hangs
    "FIX_TORCH_ERROR": "0",  # else an installed torch is imported
    # else the git branch around the virtual environment: every new branch would compile all again
    "cache_name": "default",
    "use_cutlass": "0",  # a download that nothing in Jittor includes
    "use_cutt": "0",  # one more CUDA library to compile, for transposes that Jittor has itself
}


def variables() -> Tuple[Dict[str, str], List[str]]:
    """(variables for Jittor, remarks for the user, one line each).

    Builds what they point to, in the user's cache. Raises RuntimeProblem.
    """
    values, remarks = cuda_variables()
    values.update(SWITCHES, use_parallel_op_compiler=str(compilation.workers()))
    values.update(waiting.variables())
    if not mpirun.is_inside():
        values["use_mpi"] = "0"
    if sys.platform == "linux":
        values["python_config_path"] = python_config()
    return values, remarks


@contextlib.contextmanager
def apply(values: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that the user has not set; afterwards the environment is as it was.

    CUDA_VISIBLE_DEVICES is one entry of the user's list; it replaces the list and stays, because
    CUDA may be asked later.
    """
    before = dict(os.environ)
    if "CUDA_VISIBLE_DEVICES" in values:
        before["CUDA_VISIBLE_DEVICES"] = values["CUDA_VISIBLE_DEVICES"]
    os.environ.update({**values, **before})
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        before.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.update(before)


def cuda_variables() -> Tuple[Dict[str, str], List[str]]:
    """(the variables that lead Jittor to CUDA or away from it, remarks for the user).

    Builds the home that CUDA may need.
    """
    choice = cuda.choose()
    values, remarks = {"nvcc_path": choice.nvcc}, []
    if choice.case == "chosen" and cuda.driver() is None:
        remarks.append(
            f"{choice.reason}, but no NVIDIA driver answers: Jittor may abort; unset nvcc_path to "
            "use the CPU"
        )

    # A device that is not there, or devices that are not used.
    number, count = int(os.environ.get("device_id") or "-1"), len(choice.devices)
    if count and number >= count:
        raise RuntimeProblem(
            f"device_id={number} in the environment names no GPU, there are {count}, numbered "
            "from 0: unset device_id, or name one of them"
        )
    if choice.case == "cpu" and choice.devices:
        remarks.append(f"the CPU computes, not the GPU: {choice.reason}")

    # What has to be built, and what several processes need.
    if choice.home is not None:
        with cache_errors(os.path.dirname(choice.home.folder)):
            cuda_home.build(choice.home)
    if choice.case in ("stock", "home") and mpirun.is_inside():
        nccl, missing = _several_gpus(choice)
        values.update(nccl)
        remarks += missing
    return values, remarks


def _several_gpus(choice: cuda.Choice) -> Tuple[Dict[str, str], List[str]]:
    """NCCL as it is installed, where each process of the machine can have a GPU of its own; without
    it, Jittor would download 2.8.4, which is older than CUDA 12, and build it at every first start.
    """
    places = cuda_home.nccl(choice.toolkit, choice.home)
    count, size = len(choice.devices), mpirun.local_size()
    if places and size <= count:
        return dict(zip(("nccl_include_path", "nccl_lib_path"), places)), []

    # NCCL's part of Jittor takes the GPU of a process's rank, so it has to see them all.
    remarks = []
    if "use_nccl" not in os.environ:
        problem = (
            f"NCCL is not used, for {size} processes see {count} GPU(s) here: start one process a "
            "GPU, and let each see all GPUs"
            if places
            else f"NCCL is not found: {facts.PIP} install nvidia-nccl-cu{choice.toolkit.version[0]}"
        )
        remarks.append(f"gradients travel through the CPU; {problem}")
    return {"use_nccl": "0", "CUDA_VISIBLE_DEVICES": mpirun.own_gpu(count)}, remarks


def take_gpu(values: Mapping[str, str]) -> None:
    """Make a process's GPU CUDA's present one where NCCL's part of Jittor will choose it.

    Jittor opens a stream before that part is there. It would be on GPU 0, where every process would
    keep a context of some hundred MB. values: those that `variables` returned.
    """
    if "nccl_lib_path" not in values:
        return
    # As Jittor finds it: nothing is lost where it is elsewhere.
    home = os.path.dirname(os.path.dirname(os.path.realpath(values["nvcc_path"])))
    with contextlib.suppress(OSError, AttributeError):
        runtime = ctypes.CDLL(os.path.join(home, "lib64", "libcudart.so"))
        runtime.cudaSetDevice(mpirun.local_rank())


def python_config() -> str:
    """The path of a python-config that answers for the running Python.

    A virtual environment has none, and the one in /usr/bin may belong to another Python of the same
    version.
    """
    folders = [facts.python_headers(), sysconfig.get_path("platinclude") or ""]
    includes = " ".join("-I" + shlex.quote(path) for path in folders if os.path.isdir(path))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    text = (
        "#!/bin/sh\n"
        'for option; do case "$option" in\n'
        f"--includes) echo {shlex.quote(includes)};;\n"
        f"--extension-suffix) echo {shlex.quote(suffix)};;\n"
        "esac; done\n"
    )

    # Its name has its content, so that several Pythons can share the folder.
    folder = os.path.join(os.path.expanduser("~"), ".cache", "jseg")
    path = os.path.join(folder, "python-config-" + hashlib.md5(text.encode()).hexdigest()[:12])
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    with cache_errors(folder):
        os.makedirs(folder, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    return path


@contextlib.contextmanager
def cache_errors(folder: str) -> Iterator[None]:
    """Turn an OSError about the cache into a RuntimeProblem with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library that cannot be loaded
            raise
        raise RuntimeProblem(
            f"{folder}, where compiled code is kept, cannot be written "
            f"({error.strerror or error}): set HOME to a folder that can"
        ) from None
