"""Whether a micro-batch fits into memory, asked before the training instead of killed in it.

The loss and gradient of one and of two examples are computed and the peaks compared: memory grows
linearly with the examples. On the CPU the kernel's count of resident memory is read (Linux), on
CUDA what Jittor's pool of memory has taken. Where nothing can be read, nothing is predicted.
"""

from __future__ import annotations

import ctypes
from typing import Callable, NamedTuple, Optional

from jseg.machine.free_memory import free_bytes, gpu_memory, resident_bytes
from jseg.runtime import jt
from jseg.training.loop import TrainedNetwork, accumulate

SPARE = 0.95  # of what is free; the rest is the system's


class Measured(NamedTuple):
    """Bytes of the gradient of one example and of each further one, and those that are free."""

    one: int
    each: int
    free: int

    def needed(self, count: int) -> int:
        return self.one + (count - 1) * self.each

    @property
    def fitting(self) -> int:
        """How many examples at a time would fit, at least 1."""
        return max(1, int((self.free - self.one) // self.each) + 1)


def check_batch(part: TrainedNetwork, examples: Callable, micro_batch: int) -> None:
    """Raise ValueError, naming the micro-batch that would fit, if the loss and gradient of
    `micro_batch` examples do not.

    examples(count) gives a batch of that many examples for part.loss. The parameters stay as they
    are.
    """
    found = _measured(part, examples) if micro_batch >= 3 else None
    if found is not None and found.needed(micro_batch) > found.free:
        raise ValueError(
            f"{micro_batch} examples at a time need about {found.needed(micro_batch) / 1e9:.1f} "
            f"GB, {found.free / 1e9:.1f} GB are free; about {found.fitting} would fit: give "
            f"--micro_batch {found.fitting} (the update is the same), or --recompute"
        )


def fitting_batch(part: TrainedNetwork, examples: Callable, micro_batch: int) -> int:
    """The micro-batch, or by measurement the smaller one that fits; arguments as `check_batch`."""
    found = _measured(part, examples) if micro_batch >= 3 else None
    return micro_batch if found is None else min(micro_batch, found.fitting)


def _measured(part: TrainedNetwork, examples: Callable) -> Optional[Measured]:
    """What one and two examples take; None where it cannot be told."""
    _give_back()
    if jt.flags.use_cuda:
        memory = gpu_memory()
        if memory is None:
            return None
        # Several micro-batches add up in a second set of gradients.
        free, taken, peak = memory.usable - 4 * part.size, _pool_bytes(), _pool_peak
    else:
        taken, free = resident_bytes("VmRSS"), free_bytes()
        if taken is None or free is None:
            return None
        peak = _resident_peak
    one = peak(part, examples, 1) - taken
    two = peak(part, examples, 2) - taken
    if not jt.flags.use_cuda:
        free = SPARE * (free_bytes() + resident_bytes("VmRSS") - taken)
    return Measured(one, max(two - one, 1), int(free))


def _resident_peak(part: TrainedNetwork, examples: Callable, count: int) -> int:
    """Peak resident bytes of the gradient of `count` examples in one micro-batch."""
    _give_back()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    accumulate(part, [(examples(count), 1.0)])
    return resident_bytes("VmHWM")


def _pool_peak(part: TrainedNetwork, examples: Callable, count: int) -> int:
    """The same of Jittor's pool, which keeps what it has taken."""
    _give_back()
    accumulate(part, [(examples(count), 1.0)])
    return _pool_bytes()


def _pool_bytes() -> int:
    memory = jt.get_mem_info()
    return memory.total_cuda_used if jt.flags.use_cuda else memory.total_cpu_used


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
    memory = gpu_memory()
    return 0.0 if memory is None else (memory.total - memory.free) / 1e9
