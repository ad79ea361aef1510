"""Whether a micro-batch fits into memory, asked before the training instead of killed in it.

The loss and gradient of one and of two examples are computed and the peaks compared: memory grows
linearly with the examples. On the CPU the kernel's count of resident memory is read (Linux); where
it cannot be, and on CUDA, nothing is predicted.
"""

from __future__ import annotations

import ctypes
from typing import Callable

from jseg.machine.free_memory import free_bytes, resident_bytes
from jseg.runtime import jt
from jseg.training.loop import TrainedNetwork, accumulate

SPARE = 0.95  # of what is free; the rest is the system's


def check_batch(part: TrainedNetwork, examples: Callable, micro_batch: int) -> None:
    """Raise ValueError, naming the micro-batch that would fit, if the loss and gradient of
    `micro_batch` examples do not.

    examples(count) gives a batch of that many examples for part.loss. The parameters stay as they
    are.
    """
    unknown = resident_bytes("VmRSS") is None or free_bytes() is None
    if micro_batch < 3 or jt.flags.use_cuda or unknown:
        return
    _give_back()
    before = resident_bytes("VmRSS")
    one = _peak(part, examples, 1) - before
    two = _peak(part, examples, 2) - before
    each = max(two - one, 1)
    limit = SPARE * (free_bytes() + resident_bytes("VmRSS") - before)
    needed = one + (micro_batch - 1) * each
    if needed > limit:
        fits = max(1, int((limit - one) // each) + 1)
        raise ValueError(
            f"{micro_batch} examples at a time need about {needed / 1e9:.1f} GB, "
            f"{limit / 1e9:.1f} GB are free; about {fits} would fit: give --micro_batch {fits} "
            "(the update is the same), or --recompute"
        )


def _peak(part: TrainedNetwork, examples: Callable, count: int) -> int:
    """Peak resident bytes of the gradient of `count` examples in one micro-batch."""
    _give_back()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    accumulate(part, [(examples(count), 1.0)])
    return resident_bytes("VmHWM")


def _give_back() -> None:
    """Hand what was freed to the system, Jittor's blocks and the C library's: memory that is taken
    up again does not show as growth.
    """
    jt.sync_all()
    jt.gc()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        pass


def peak_gigabytes() -> float:
    """Memory that this process has taken: the device's, or resident on the CPU."""
    if not jt.flags.use_cuda:
        return (resident_bytes("VmHWM") or 0) / 1e9
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ctypes.CDLL("libcuda.so.1").cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return (total.value - free.value) / 1e9
