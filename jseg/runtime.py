"""The one door to Jittor: `from jseg.runtime import jt`.

Importing this module prepares the environment, refuses in one line what would break or silently
spoil Jittor, compiles Jittor on its first use, imports it, undoes what its import does to the
process, and checks that it computes. Variables that the user has set win. A refusal is a
`RuntimeProblem`. The steps are those of jseg/machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from types import ModuleType
from typing import Dict, Iterator

from jseg.machine import (
    compilation,
    cuda,
    environment,
    facts,
    free_memory,
    import_guard,
    jittor_flags,
    mpirun,
    onednn,
    operator_compiler,
    out_of_memory,
)
from jseg.machine.facts import RuntimeProblem

__all__ = ["jt", "device", "seed", "numeric_flags", "RuntimeProblem"]

CHECKS = (
    facts.python,
    facts.paths,
    facts.other_jseg,
    facts.numpy,
    facts.jittor,
    jittor_flags.check,
)
# glibc's settings: the variable that a user sets, the number in malloc.h, bytes. oneDNN takes and
# frees its working memory at every convolution; by default glibc returns blocks above 32 MB to the
# system each time, to be cleared page by page at the next.
BLOCKS = (("MALLOC_MMAP_THRESHOLD_", -3, 256 << 20), ("MALLOC_TRIM_THRESHOLD_", -1, 512 << 20))
# Shapes whose fastest algorithms cuDNN's operators remember, for each direction.
CUDNN_ALGORITHMS = 1000
OLD_GLIBC_BLOCK = 32 << 20  # the most that an older glibc accepts


def _open() -> ModuleType:
    """Import Jittor, or raise RuntimeProblem."""
    for check in CHECKS:
        _refuse(check())
    _keep_blocks()
    suspects = jittor_flags.suspects()  # before variables of ours are in the environment

    # Where the user's program imported Jittor first, it is too late to prepare, not to check.
    if "jittor" in sys.modules:
        import jittor
    else:
        jittor = _prepare_and_import(suspects)
    if jittor.compile_extern.mkl_ops is None and onednn.wanted():
        raise RuntimeProblem(
            "Jittor runs without oneDNN, so that convolutions are about 50 times slower: "
            "import jseg.runtime before jittor, or set use_mkl=0 to accept it"
        )

    import_guard.wait_for_compilers(getattr(jittor, "lock", None), _tell_once)
    operator_compiler.use(jittor)
    _check_operators(jittor, suspects)
    out_of_memory.watch(jittor)
    user_flags = ", ".join(f"{name}={value}" for name, value in numeric_flags().items())
    if user_flags:
        _tell_once(
            f"{user_flags} in the environment may change the numbers that Jittor computes; it is "
            "recorded with the results"
        )
    return jittor


def _prepare_and_import(suspects: str) -> ModuleType:
    _refuse(facts.compiler())
    if mpirun.is_inside():
        _refuse(facts.mpi())
    with jittor_flags.hide(), _environment(), import_guard.restore_process():
        jittor = _import_jittor(suspects)
    jittor_flags.switch_on(jittor)
    return jittor


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    variables, remarks = environment.variables()
    for remark in remarks:
        _tell_once(remark)
    with environment.apply(variables):
        environment.take_gpu(variables)
        yield


def _import_jittor(suspects: str) -> ModuleType:
    quiet = "log_silent" not in os.environ
    os.environ.setdefault("log_silent", "1")
    try:
        with environment.cache_errors(os.path.join(os.path.expanduser("~"), ".cache", "jittor")):
            import jittor_utils

            import_guard.wait_aloud(getattr(jittor_utils, "lock", None), _tell_once)
            onednn.prepare(jittor_utils.home())
            compilation.ensure(jittor_utils.cache_path, _tell)
            # log_silent drops errors too on Jittor's Python side; its C++ side, through which they
            # pass, drops only the rest.
            if quiet:
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

    # The import's chatter is over; warnings from here on are about our own work.
    if quiet:
        jittor.flags.log_silent = 0
    import_guard.end_pool(jittor_utils)
    return jittor


def _check_operators(jittor: ModuleType, suspects: str) -> None:
    """Raise RuntimeProblem unless Jittor compiles operators that compute."""
    try:
        _canary(jittor)
    except RuntimeProblem:
        raise
    except RuntimeError as error:
        cause = compilation.telling_line(str(error))
        raise RuntimeProblem(
            f"Jittor cannot compile its operators ({cause}){compilation.without_cuda()}{suspects}"
        ) from error


def _canary(jittor: ModuleType) -> None:
    """Three sums of small integers, exact in any precision: a cache broken by an interrupted
    compilation computes them wrong.
    """
    import numpy as np

    a = (np.arange(12, dtype=np.float32) % 5 - 2).reshape(3, 4)
    b = (np.arange(20, dtype=np.float32) % 7 - 3).reshape(4, 5)
    image = (np.arange(48, dtype=np.float32) % 5 - 2).reshape(1, 3, 4, 4)
    weight = (np.arange(54, dtype=np.float32) % 3 - 1).reshape(2, 3, 3, 3)

    # The same with NumPy, the convolution from its windows.
    windows = np.stack([image[0, :, i : i + 2, j : j + 2] for i in range(3) for j in range(3)], 1)
    windows = windows.reshape(3, 3, 3, 2, 2)
    expected = [np.float32(3), a @ b, np.einsum("ockl,cklhw->ohw", weight, windows)]
    results = jittor.fetch_sync(
        [
            jittor.ones(3).sum(),
            jittor.matmul(jittor.array(a), jittor.array(b)),
            jittor.nn.conv2d(jittor.array(image), jittor.array(weight)),
        ]
    )
    if not all(np.array_equal(np.squeeze(x), np.squeeze(y)) for x, y in zip(results, expected)):
        raise RuntimeProblem(
            "Jittor computes wrong numbers, its compiled code is broken: delete "
            f"{jittor.flags.cache_path} and start again"
        )


def _keep_blocks() -> None:
    """Have the C library keep freed blocks for the next convolution, unless the user has set how it
    is to behave.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name in os.environ for name, _, _ in BLOCKS):
        return
    # Another C library has no mallopt, or one that does nothing.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for _, number, size in BLOCKS:
            mallopt(number, size) or mallopt(number, OLD_GLIBC_BLOCK)


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
    """Of several processes that mpirun started on a machine, the first one prints the line."""
    if mpirun.local_rank() == 0:
        _tell(line)


jt = _open()


def device(name: str = "auto") -> str:
    """Compute on `cpu`, on `cuda`, or (`auto`) on CUDA if it is there; returns the device chosen.

    With use_cuda=0 in the environment, `auto` is the CPU. Raises RuntimeProblem, ValueError.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cuda" and not jt.has_cuda:
        raise RuntimeProblem(f"device cuda: {cuda.choose().reason}; or use --device cpu")
    declined = name == "auto" and os.environ.get("use_cuda", "").strip() == "0"
    jt.flags.use_cuda = int(bool(jt.has_cuda) and name != "cpu" and not declined)
    if not jt.flags.use_cuda:
        return "cpu"
    _limit_cudnn(getattr(jt, "cudnn", None))
    return "cuda"


def _limit_cudnn(cudnn) -> None:
    """Set how much memory Jittor lets cuDNN try out, and how many convolutions' algorithms it
    remembers; where there is no cuDNN, nothing.

    Jittor's own are a quarter of the card, which a network's arrays then lack, and 100 shapes: a
    guided step of five label maps has 90, and 158 with a last batch of fewer.
    """
    if cudnn is not None:
        cudnn.set_max_workspace_ratio(free_memory.GPU_WORKSPACE)
        cudnn.set_algorithm_cache_size(CUDNN_ALGORITHMS)


def seed(value: int) -> None:
    """Seed Python's, NumPy's and Jittor's generators, each with `value` on every process."""
    jt.sync_all()  # draws already asked for, but not yet made, belong to the old seed
    jt.set_global_seed(value, different_seed_for_mpi=False)
