"""Vectors of the processor, which operators for the CPU are written with (lanes.h)."""

from __future__ import annotations

import functools
import os
import platform
from typing import List, Tuple

from jseg.runtime import jt


def source(*names: str) -> str:
    """The headers of this folder, one behind another; lanes.h comes first."""
    parts = []
    for name in ("lanes.h", *names):
        with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
            parts.append(file.read())
    return "".join(parts)


def optional_inputs(first: int, *arrays) -> Tuple[List, List[str]]:
    """The arrays that are not None, as inputs of an operator from number `first` on, and the
    pointer to each of all, nullptr for None.
    """
    inputs = [array for array in arrays if array is not None]
    numbers = iter(range(first, first + len(inputs)))
    return inputs, ["nullptr" if a is None else f"in{next(numbers)}_p" for a in arrays]


def suit(*arrays) -> bool:
    """Whether the operators take the arrays: float32 and not empty, on an x86 CPU with AVX2 or
    AVX-512.
    """
    fits = all(str(array.dtype) == "float32" and 0 not in array.shape for array in arrays)
    return fits and not jt.flags.use_cuda and has_avx2()


@functools.lru_cache(maxsize=None)
def has_avx2() -> bool:
    """Whether this processor has AVX2, or AVX-512, and products with sums (FMA)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return "avx2" in flags and "fma" in flags
