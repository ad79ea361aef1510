"""Memory that runs out while a command computes: one line with the options that help, the best
first.

Most shortages reach Python as an exception (`is_shortage`). Jittor's own allocator on the CPU
returns a null pointer instead, and the process crashes: `watch` makes it end with the same line.
Where the system kills the process, no line is possible.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import sys
from typing import Callable, List, Optional, Sequence

from jseg.machine.facts import RuntimeProblem

# NumPy and Pillow raise MemoryError; these are the words of oneDNN, Jittor, CUDA, cuDNN, cuBLAS,
# the C++ library and the compiler.
_SIGNS = re.compile(
    r"could not create a memory object|unable to alloc|memory ?allocation|out[ _]of[ _]memory|"
    r"bad_alloc|_alloc_failed|cannot allocate memory",
    re.I,
)
_CUDA_SIGNS = re.compile(r"cuda|cudnn|cublas|cufft|cusparse|nccl", re.I)
# No block lies below 1 TiB: a fault there is an offset from a null pointer.
_NULL = """
#include <signal.h>
#include <string.h>
#include <unistd.h>
static char jseg_line[4096];
static size_t jseg_length;
static struct sigaction jseg_before;
static void jseg_fault(int number, siginfo_t* info, void* context) {
    if (info->si_code > 0 && (unsigned long)info->si_addr < (1ul << 40)) {
        if (write(2, jseg_line, jseg_length)) {}
        _exit(2);
    }
    sigaction(number, &jseg_before, nullptr);
    raise(number);
}
"""
_WATCH = """
struct sigaction action;
memset(&action, 0, sizeof(action));
action.sa_sigaction = jseg_fault;
action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
jseg_length = in0_shape0 < (int)sizeof(jseg_line) ? in0_shape0 : sizeof(jseg_line);
memcpy(jseg_line, in0_p, jseg_length);
out0_p[0] = sigaction(SIGSEGV, &action, &jseg_before);
"""

_running: List[Callable[[bool], str]] = []


def begin(name: str, module: Optional[object], argv: Optional[Sequence[str]]) -> None:
    """Remember the command that begins: the line names its options, which `module`.parser() reads
    from `argv`.
    """
    _running[:] = [lambda cuda: f"jseg {name}: {line(_parsed(module, argv), cuda)}"]


def is_shortage(error: BaseException) -> bool:
    """Whether an exception means that memory ran out."""
    if isinstance(error, MemoryError) or isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, RuntimeProblem)
        and bool(_SIGNS.search(_reason(error)))
    )


def line_for(error: BaseException) -> str:
    """The whole line for an exception that `is_shortage`, raised by the command that began last."""
    cuda = isinstance(error, RuntimeError) and bool(_CUDA_SIGNS.search(_reason(error)))
    return _running[-1](cuda)


def _reason(error: BaseException) -> str:
    """The part of Jittor's message that gives the cause; what is before it names sources and
    shapes.
    """
    return str(error).rpartition("[Reason]:")[2]


def _parsed(
    module: Optional[object], argv: Optional[Sequence[str]]
) -> Optional[argparse.Namespace]:
    """The options of a call, None where they cannot be read; nothing is printed."""
    try:
        with contextlib.ExitStack() as stack:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
            return module.parser().parse_args(argv)
    except (AttributeError, SystemExit):
        return None


def line(options: Optional[argparse.Namespace], cuda: bool) -> str:
    """What ran out and what helps; `options`: those of the call, None where they are not known."""
    remedies = _remedies(options, cuda) if options is not None else []
    if cuda:
        memory, last = "the memory of the GPU", "close other programs that use the GPU"
    else:
        memory, last = "memory", "close other programs, or use a machine with more memory"
    return f"{memory} ran out: {'; or '.join([*remedies, last])}"


def _remedies(options: argparse.Namespace, cuda: bool) -> List[str]:
    """Options that can still help, the best first."""

    def has(option: str) -> bool:
        return hasattr(options, option)

    remedies = []
    # In training the batch may stay: only what is computed at a time needs memory.
    if has("micro_batch"):
        world = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)
        batch_size = options.batch_size or 0  # 0: the preset's, which is not known here
        size = options.micro_batch or -(-batch_size // world)
        chosen = cuda and options.micro_batch is None  # by the free memory
        if size == 0 or chosen and size > 1:
            remedies.append("give a small --micro_batch (the update stays the same)")
        elif size > 1:
            remedies.append(
                f"give --micro_batch {size // 2} (it is {size}; the update stays the same)"
            )
        if has("recompute") and not options.recompute:
            remedies.append("give --recompute (slower; the update stays the same)")
        sides = "--crop" if has("crop") else "--width and --height"
        remedies += [f"give a smaller {sides}", "take a smaller --preset"]
    elif has("batch_size"):
        # Without --batch_size, test takes 1 on the CPU, and on a GPU what the free memory allows.
        batch_size = options.batch_size or 1
        if batch_size > 1:
            remedies.append(f"give --batch_size {batch_size // 2} (it is {batch_size})")
        elif cuda and options.batch_size is None:
            remedies.append("give --batch_size 1")
        if has("memory") and options.memory != "low":
            remedies.append("give --memory low (slower; the images stay the same)")
        if has("scale") and str(options.scale) != "1":
            remedies.append(f"give a smaller --scale (it is {options.scale})")
    if cuda and has("device"):
        remedies.append("give --device cpu")
    return remedies


def watch(jt) -> None:
    """Make the process end with the line and exit code 2 where Jittor uses a null pointer as
    memory; outside of a command nothing changes.
    """
    if not _running or sys.platform != "linux":
        return
    import numpy as np

    text = np.frombuffer((_running[-1](False) + "\n").encode("utf-8", "replace"), np.uint8)
    with contextlib.suppress(RuntimeError), jt.flag_scope(use_cuda=0):
        jt.code([1], "int32", [jt.array(text)], cpu_header=_NULL, cpu_src=_WATCH).sync()
