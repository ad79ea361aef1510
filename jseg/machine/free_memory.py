"""How much memory there still is: the system's, what control groups leave to this process, and the
GPU's.

Linux; elsewhere nothing is known. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from typing import Iterator, NamedTuple, Optional, Tuple

PROC, GROUPS = "/proc", "/sys/fs/cgroup"
# Of a control group, version 2 and 1: its limit, what it uses, and the part of that which is cached
# files and is given up when memory is needed.
VERSION_2 = "memory.max", "memory.current", "inactive_file"
VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
# Of a GPU: the part of what is free that blocks may fill, the rest being lost between them, and the
# part of the whole card that cuDNN may work in.
GPU_SPARE, GPU_WORKSPACE = 0.95, 0.05


def free_bytes() -> Optional[int]:
    """Bytes that can still be taken: the system's, or less where a control group limits this
    process; None where nothing can be read.
    """
    available = _number(f"{PROC}/meminfo", r"MemAvailable:\s+(\d+) kB")
    if available is None:
        return None
    free = available * 1024
    for folder, (limit, used, cached) in _groups():
        most = _number(os.path.join(folder, limit), r"^(\d+)$")
        taken = _number(os.path.join(folder, used), r"^(\d+)$")
        if most is not None and taken is not None:
            files = _number(os.path.join(folder, "memory.stat"), rf"^{cached} (\d+)$") or 0
            free = min(free, most - taken + files)
    return max(free, 0)


def resident_bytes(field: str) -> Optional[int]:
    """A field of /proc/self/status, such as VmRSS or VmHWM, in bytes; None where there is none."""
    kilobytes = _number(f"{PROC}/self/status", rf"{field}:\s+(\d+) kB")
    return None if kilobytes is None else kilobytes * 1024


class GpuMemory(NamedTuple):
    """Bytes of a GPU, as the driver tells: what can still be taken, and all that it has."""

    free: int
    total: int

    @property
    def usable(self) -> int:
        """What a program's arrays may take."""
        return int(GPU_SPARE * self.free - GPU_WORKSPACE * self.total)


def gpu_memory() -> Optional[GpuMemory]:
    """The memory of the GPU that this process computes on; None where CUDA's runtime is not loaded
    yet or does not tell.

    What other processes hold counts as taken. CUDA is asked through the runtime that Jittor has
    loaded: nothing of it may be in the process while Jittor is imported, which forks.
    """
    path = _text(f"{PROC}/self/maps", r"(/.*/libcudart[^/\n]*)$")
    if path is None:
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        failed = ctypes.CDLL(path).cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    except (OSError, AttributeError):
        return None
    return None if failed else GpuMemory(free.value, total.value)


def _groups() -> Iterator[Tuple[str, Tuple[str, str, str]]]:
    """Folders of this process's control groups and of those around them, with their files' names.

    In a container, the path that the kernel names may not be there; the root then is its group.
    """
    lines = []
    with contextlib.suppress(OSError), open(f"{PROC}/self/cgroup", encoding="utf-8") as file:
        lines = file.read().splitlines()
    paths = {GROUPS: (VERSION_2, ""), f"{GROUPS}/memory": (VERSION_1, "")}
    for line in lines:
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0" and not kinds:
            paths[GROUPS] = VERSION_2, path.strip("/")
        elif "memory" in kinds.split(","):
            paths[f"{GROUPS}/memory"] = VERSION_1, path.strip("/")
    for root, (names, path) in paths.items():
        yield root, names
        while path:
            yield os.path.join(root, path), names
            path = os.path.dirname(path)


def _number(path: str, pattern: str) -> Optional[int]:
    """The number that the pattern finds in a file of the kernel's; None where it is not there."""
    text = _text(path, pattern)
    return None if text is None else int(text)


def _text(path: str, pattern: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.search(pattern, file.read(), re.M)
    except OSError:
        return None
    return match.group(1) if match else None
