"""Jittor's flags in the environment: Jittor reads each of them under its own name, and some end the
process.

`runtime.py` asks before it imports Jittor; `numeric` also goes into the records of results.
Standard library only. The names are those of Jittor 1.3.11: DEFINE_FLAG in its C++ sources,
os.environ in compiler.py, compile_extern.py and jittor_utils/__init__.py.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
from typing import Dict, Iterator

from jseg.machine import cuda
from jseg.machine.facts import Fact, RuntimeProblem

INTEGERS = (
    "log_silent",
    "log_v",
    "log_sync",
    "use_cuda",
    "device_id",
    "sync_run",
    "lazy_execution",
    "auto_mixed_precision_level",
    "amp_reg",
    "use_tensorcore",
    "auto_convert_64_to_32",
    "try_use_32bit_index",
    "conv_opt",
    "enable_tuner",
    "gopt_disable",
    "para_opt_level",
    "jit_search_kernel",
    "use_parallel_op_compiler",
    "trace_py_var",
    "trace_var_data",
    "check_graph",
    "profiler_enable",
    "profile_memory_enable",
    "use_sfrl_allocator",
    "use_nfef_allocator",
    "use_stat_allocator",
    "use_temp_allocator",
    "use_cuda_managed_allocator",
    "use_cuda_host_allocator",
    "cpu_mem_limit",
    "device_mem_limit",
    "gdb_attach",
    "use_threading",
)
SWITCHES = (
    "use_mkl",
    "use_mpi",
    "use_nccl",
    "use_cutt",
    "use_cutlass",
    "use_data_gz",
    "disable_lock",
    "no_grad",
    "no_fuse",
)
PROGRAMS = ("cc_path", "nvcc_path", "gdb_path", "python_config_path")
# An empty value of these has a meaning: no CUDA, no debugger, no flags. Any other flag that is set
# and empty counts as unset.
EMPTY_COUNTS = ("nvcc_path", "gdb_path", "cc_flags", "nvcc_flags", "kernel_flags")
OTHERS = ("mpicc_path", "cache_name", "JITTOR_HOME", "log_vprefix", "FIX_TORCH_ERROR")
KNOWN = INTEGERS + SWITCHES + PROGRAMS + OTHERS

# 0: cuDNN and cuBLAS use no TF32. Read when they are loaded; Jittor's flag reaches no convolution.
EXACT = "NVIDIA_TF32_OVERRIDE"
# The flags that change computed numbers, and Jittor's defaults; None where it has none.
NUMERIC = {
    "auto_mixed_precision_level": "0",
    "amp_reg": "0",
    "use_tensorcore": "0",
    "auto_convert_64_to_32": "1",
    "try_use_32bit_index": "0",
    "th_mode": None,
    "node_order": None,
    "reuse_array": None,
    "compile_options": None,
    "exclude_pass": None,
    "enable_tuner": "1",
    "conv_opt": "0",
    "gopt_disable": "0",
    "no_fuse": "0",
    "para_opt_level": "3",
    "jit_search_kernel": "0",
    "use_mkl": "1",
    "cc_flags": None,
    "kernel_flags": None,
    "nvcc_flags": None,
    "debug": "0",
    EXACT: "0",  # what the precision says
}
# Never passed on: without gradients nothing learns, and SKEY makes Jittor report to a course's
# server.
NEVER = ("no_grad", "SKEY")


def check() -> Fact:
    """The flags that are set, and the first one whose value makes Jittor crash or is silently
    ignored.
    """
    values = {name: os.environ[name] for name in KNOWN if os.environ.get(name, "") != ""}
    text = ", ".join(f"{name}={value}" for name, value in values.items()) or "none is set"
    for name, value in values.items():
        problem = _misread(name, value)
        if problem:
            return Fact(text, f"{name}={value} in the environment {problem}")
    if int(values.get("use_cuda", "0")):
        return Fact(text, no_cuda())
    return Fact(text)


def _misread(name: str, value: str) -> str:
    """What is wrong with a value that is not empty, and the remedy; "" if nothing is."""
    if name in INTEGERS and not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return f"is not a whole number, which Jittor expects: unset {name}, or give a number"
    if name == "trace_py_var" and int(value) and sys.version_info >= (3, 11):
        version = platform.python_version()
        return (
            f"makes every computation fail, for Jittor cannot trace Python {version}: unset "
            "trace_py_var, or use Python 3.8 to 3.10"
        )
    if name in SWITCHES and value.strip() not in ("0", "1"):
        return f"is neither 0 nor 1, and Jittor would take it for 0: unset {name}, or give 0 or 1"
    if name in PROGRAMS and not shutil.which(value):
        cpu = ", or set it to nothing to use the CPU" if name == "nvcc_path" else ""
        return f"is not a program: unset {name}{cpu or ', or give the path of one'}"
    if name == "mpicc_path" and os.environ.get("use_mpi") == "1" and not shutil.which(value):
        return "is not a program: unset mpicc_path, or give the path of Open MPI's mpicc"
    if name == "log_vprefix" and not re.fullmatch(r"([^=,]+=\d{1,9})(,[^=,]+=\d{1,9})*", value):
        return "is not of the form file=level,file=level, which Jittor expects: unset log_vprefix"
    return ""


def suspects() -> str:
    """The end of a message about a failing Jittor: the flags that are set and change what it does;
    "" where none is.
    """
    harmless = [name for name in INTEGERS if name.startswith("log_")] + ["use_cuda"]
    names = [name for name in INTEGERS if name not in harmless and os.environ.get(name)]
    if not names:
        return ""
    values = ", ".join(f"{name}={os.environ[name]}" for name in names)
    them = "it" if len(names) == 1 else "them"
    return f"; {values} in the environment may be why: unset {them} and start again"


def wanted_cuda() -> int:
    """The value of use_cuda in the environment; 0 if it is not set."""
    return int(os.environ.get("use_cuda") or "0")


def no_cuda() -> str:
    """Why use_cuda in the environment cannot be satisfied, with the remedy; "" if CUDA is there, as
    far as can be seen before Jittor is imported.
    """
    choice = cuda.choose()
    if choice.nvcc and (choice.devices or cuda.driver() is not None):
        return ""
    reason = f"{choice.reason}, but no NVIDIA driver answers" if choice.nvcc else choice.reason
    return (
        f"use_cuda={os.environ['use_cuda']} in the environment asks for CUDA: {reason}; or unset "
        "use_cuda to use the CPU"
    )


def numeric() -> Dict[str, str]:
    """The flags set by the user that change computed numbers: {name: value} of those that differ
    from Jittor's defaults.
    """
    values = {name: " ".join(os.environ.get(name, "").split()) for name in NUMERIC}
    return {name: value for name, value in values.items() if value and value != NUMERIC[name]}


def record() -> Dict[str, Dict[str, str]]:
    """For the settings of results: {"jittor_flags": `numeric`}, or {} where no such flag is set."""
    values = numeric()
    return {"jittor_flags": values} if values else {}


@contextlib.contextmanager
def hide() -> Iterator[None]:
    """Hide from Jittor, while it is imported, empty flags, those of NEVER, and use_cuda, which
    makes its C++ side end the process where there is no CUDA.
    """
    names = [name for name in KNOWN if name not in EMPTY_COUNTS and os.environ.get(name) == ""]
    names += [name for name in NEVER + ("use_cuda",) if os.environ.get(name)]
    before = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(before)


def switch_on(jittor) -> None:
    """Give Jittor the user's use_cuda, which was hidden from its import. Raises RuntimeProblem
    where there is no CUDA after all.
    """
    value = wanted_cuda()
    if value and not jittor.has_cuda:
        raise RuntimeProblem(
            no_cuda()
            or f"use_cuda={value} in the environment asks for CUDA, which this Jittor lacks: "
            "unset use_cuda"
        )
    if value:
        jittor.flags.use_cuda = value
