"""The one door to Jittor: `from jseg.runtime import jt`.

Importing this module prepares the environment, refuses in one line what would break or silently
spoil Jittor, compiles Jittor on its first use, imports it, undoes what its import does to the
process, and checks that it computes. Variables the user has set win. A refusal is a
`RuntimeProblem`. Facts about Jittor 1.3.11 behind each step: jittor_utils/__init__.py, compiler.py,
compile_extern.py.
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
from types import ModuleType
from typing import Dict, Iterator

from jseg.machine import (
    compilation,
    cuda_toolkit,
    facts,
    import_guard,
    jittor_flags,
    mpirun,
    onednn,
    out_of_memory,
    precompiled_headers,
)
from jseg.machine.facts import RuntimeProblem

__all__ = ["jt", "device", "seed", "numeric_flags", "RuntimeProblem"]

SWITCHES = {
    "gdb_path": "",  # else Jittor attaches gdb to a crashing process and hangs
    "FIX_TORCH_ERROR": "0",  # else an installed torch is imported
    # else the git branch around the virtual environment: every new branch would compile all again
    "cache_name": "default",
    "use_cutlass": "0",  # a download that nothing in Jittor includes
    "use_cutt": "0",  # one more CUDA library to compile, for transposes that Jittor has itself
}
# glibc's settings in bytes by their numbers in malloc.h, and what the user may have set in their
# place. oneDNN takes and frees its working memory at every convolution; by default glibc returns
# blocks above 32 MB to the system each time, to be cleared page by page at the next.
BLOCKS = (("MALLOC_MMAP_THRESHOLD_", -3, 256 << 20), ("MALLOC_TRIM_THRESHOLD_", -1, 512 << 20))


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set the variables Jittor reads while it is imported, unless the user has; afterwards it is as
    it was, but for a GPU of its own.
    """
    before = dict(os.environ)
    chosen = dict(SWITCHES, **_cuda())
    chosen["use_parallel_op_compiler"] = str(compilation.workers())
    if not facts.inside_mpirun():
        chosen["use_mpi"] = "0"
    if sys.platform == "linux":
        chosen["python_config_path"] = _python_config()
    for name, value in chosen.items():
        if (
            name == "CUDA_VISIBLE_DEVICES"
        ):  # one entry of the user's list; it stays, for whatever asks CUDA later
            os.environ[name] = before[name] = value
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(
            {name: value for name, value in before.items() if name != "CUDA_VISIBLE_DEVICES"}
        )


def _cuda() -> Dict[str, str]:
    """The variables that lead Jittor to CUDA or away from it, the home that it may need built;
    docs/cuda.md has the reasons.
    """
    found = facts.cuda()
    chosen = {"nvcc_path": found.nvcc}
    if found.case == "chosen" and facts.driver() is None:
        _tell_once(
            f"{found.reason}, but no NVIDIA driver answers: Jittor may abort; unset nvcc_path to "
            "use the CPU"
        )
    number = int(os.environ.get("device_id") or "-1")
    if found.devices and number >= len(found.devices):
        raise RuntimeProblem(
            f"device_id={number} in the environment names no GPU, there are {len(found.devices)}, "
            "numbered from 0: unset device_id, or name one of them"
        )
    if found.case == "cpu" and found.devices:
        _tell_once(f"the CPU computes, not the GPU: {found.reason}")
    if found.home is not None:
        with _cache_errors(os.path.dirname(found.home.folder)):
            cuda_toolkit.build(found.home)
    if found.case in ("stock", "home") and facts.inside_mpirun():
        chosen.update(_several_gpus(found))
    return chosen


def _several_gpus(found: facts.Cuda) -> Dict[str, str]:
    """NCCL as it is installed; without, Jittor would download 2.8.4, which is older than CUDA 12,
    and build it at every first start.
    """
    places = cuda_toolkit.nccl(found.toolkit, found.home)
    if places:
        return dict(zip(("nccl_include_path", "nccl_lib_path"), places))
    if "use_nccl" not in os.environ:
        _tell_once(
            f"NCCL is not found, so gradients travel through the CPU: {sys.executable} -m pip "
            f"install nvidia-nccl-cu{found.toolkit.version[0]}"
        )
    # It is NCCL's part of Jittor that gives each process of a machine a GPU of its own.
    return {"use_nccl": "0", "CUDA_VISIBLE_DEVICES": mpirun.own_gpu(len(found.devices))}


def _python_config() -> str:
    """A python-config that answers for the running Python.

    A virtual environment has none, and the one in /usr/bin may belong to another Python of the same
    version.
    """
    paths = [facts.python_headers(), sysconfig.get_path("platinclude") or ""]
    includes = " ".join("-I" + shlex.quote(path) for path in paths if os.path.isdir(path))
    text = (
        '#!/bin/sh\nfor option; do case "$option" in\n'
        f"--includes) echo {shlex.quote(includes)};;\n"
        f"--extension-suffix) echo {shlex.quote(sysconfig.get_config_var('EXT_SUFFIX'))};;\nesac; done\n"
    )
    folder = os.path.join(os.path.expanduser("~"), ".cache", "jseg")
    path = os.path.join(folder, "python-config-" + hashlib.md5(text.encode()).hexdigest()[:12])
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    with _cache_errors(folder):
        os.makedirs(folder, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    return path


@contextlib.contextmanager
def _cache_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library that cannot be loaded
            raise
        raise RuntimeProblem(
            f"{folder}, where compiled code is kept, cannot be written "
            f"({error.strerror or error}): set HOME to a folder that can"
        ) from None


def _open() -> ModuleType:
    """Import Jittor, or raise RuntimeProblem."""
    for check in (
        facts.python,
        facts.paths,
        facts.other_jseg,
        facts.numpy,
        facts.jittor,
        jittor_flags.check,
    ):
        _refuse(check())
    _keep_blocks()
    suspects = jittor_flags.suspects()  # the user's own, before there are ours
    if (
        "jittor" in sys.modules
    ):  # the user's program imported it first: too late to prepare, not too late to check
        import jittor
    else:
        _refuse(facts.compiler())
        if facts.inside_mpirun():
            _refuse(facts.mpi())
        with jittor_flags.withheld(), _environment(), import_guard.process_kept():
            jittor = _import_jittor(suspects)
        jittor_flags.switch_on(jittor)
    if jittor.compile_extern.mkl_ops is None and onednn.wanted():
        raise RuntimeProblem(
            "Jittor runs without oneDNN, so that convolutions are about 50 times slower: "
            "import jseg.runtime before jittor, or set use_mkl=0 to accept it"
        )
    import_guard.wait_for_compilers(getattr(jittor, "lock", None), _tell_once)
    precompiled_headers.use(jittor)
    try:
        _canary(jittor)
    except RuntimeError as error:
        if isinstance(error, RuntimeProblem):
            raise
        cause = compilation.telling_line(str(error))
        raise RuntimeProblem(
            f"Jittor cannot compile its operators ({cause}){compilation.without_cuda()}{suspects}"
        ) from error
    out_of_memory.watch(jittor)
    set_by_user = ", ".join(f"{name}={value}" for name, value in numeric_flags().items())
    if set_by_user:
        _tell_once(
            f"{set_by_user} in the environment may change the numbers that Jittor computes; it is "
            "recorded with the results"
        )
    return jittor


def _import_jittor(suspects: str) -> ModuleType:
    quiet = "log_silent" not in os.environ
    os.environ.setdefault("log_silent", "1")
    try:
        with _cache_errors(os.path.join(os.path.expanduser("~"), ".cache", "jittor")):
            import jittor_utils

            import_guard.wait_aloud(getattr(jittor_utils, "lock", None), _tell_once)
            onednn.prepare(jittor_utils.home())
            compilation.ensure(jittor_utils.cache_path, _tell)
            if quiet:
                # log_silent drops errors too on Jittor's Python side; its C++ side, through which
                # they pass, drops only the rest.
                jittor_utils.LOG.log_silent = 0
            with import_guard.ctrl_c_waits():
                import jittor
    except RuntimeProblem:
        raise
    except Exception as error:
        raise RuntimeProblem(
            f"Jittor cannot be imported ({compilation.telling_line(str(error))})"
            f"{compilation.without_cuda()}{suspects}"
        ) from error
    if quiet:
        jittor.flags.log_silent = (
            0  # the import's chatter is over; warnings from here on are about our own doings
        )
    import_guard.end_pool(jittor_utils)
    return jittor


def _canary(jittor: ModuleType) -> None:
    """Three sums of small integers, exact in any precision: a cache broken by an interrupted
    compilation computes them wrong.
    """
    import numpy as np

    a = (np.arange(12, dtype=np.float32) % 5 - 2).reshape(3, 4)
    b = (np.arange(20, dtype=np.float32) % 7 - 3).reshape(4, 5)
    image = (np.arange(48, dtype=np.float32) % 5 - 2).reshape(1, 3, 4, 4)
    weight = (np.arange(54, dtype=np.float32) % 3 - 1).reshape(2, 3, 3, 3)
    windows = np.stack([image[0, :, i : i + 2, j : j + 2] for i in range(3) for j in range(3)], 1)
    expected = [
        np.float32(3),
        a @ b,
        np.einsum("ockl,cklhw->ohw", weight, windows.reshape(3, 3, 3, 2, 2)),
    ]
    found = jittor.fetch_sync(
        [
            jittor.ones(3).sum(),
            jittor.matmul(jittor.array(a), jittor.array(b)),
            jittor.nn.conv2d(jittor.array(image), jittor.array(weight)),
        ]
    )
    if not all(np.array_equal(np.squeeze(x), np.squeeze(y)) for x, y in zip(found, expected)):
        cache = jittor.flags.cache_path
        raise RuntimeProblem(
            f"Jittor computes wrong numbers, its compiled code is broken: delete {cache} and "
            "start again"
        )


def _keep_blocks() -> None:
    """Have the C library keep freed blocks for the next convolution, unless the user has set how it
    is to behave.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name in os.environ for name, _, _ in BLOCKS):
        return
    with contextlib.suppress(
        OSError, AttributeError
    ):  # another C library has no mallopt, or one that does nothing
        mallopt = ctypes.CDLL(None).mallopt
        for _, number, size in BLOCKS:
            mallopt(number, size) or mallopt(number, 32 << 20)  # an older glibc takes no more


def numeric_flags() -> Dict[str, str]:
    """The user's flags of Jittor that change computed numbers, {name: value}; results record them.
    Empty where there is none.
    """
    return jittor_flags.numeric()


def _refuse(fact: facts.Fact) -> None:
    if fact.problem:
        raise RuntimeProblem(fact.problem)


def _tell(line: str) -> None:
    print(f"jseg: {line}", file=sys.stderr, flush=True)


def _tell_once(line: str) -> None:
    """Of several processes that mpirun started on a machine, the first one tells."""
    if mpirun.local_rank() == 0:
        _tell(line)


jt = _open()


def device(name: str = "auto") -> str:
    """Compute on `cpu`, on `cuda`, or (`auto`) on CUDA if it is there; returns the device chosen.
    Raises RuntimeProblem, ValueError.

    With use_cuda=0 in the environment, `auto` is the CPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cuda" and not jt.has_cuda:
        raise RuntimeProblem(f"device cuda: {facts.cuda().reason}; or use --device cpu")
    declined = name == "auto" and os.environ.get("use_cuda", "").strip() == "0"
    jt.flags.use_cuda = int(bool(jt.has_cuda) and name != "cpu" and not declined)
    return "cuda" if jt.flags.use_cuda else "cpu"


def seed(value: int) -> None:
    """Seed Python's, NumPy's and Jittor's generators, each with `value` on every process."""
    jt.sync_all()  # draws already asked for, but not yet made, belong to the old seed
    jt.set_global_seed(value, different_seed_for_mpi=False)
