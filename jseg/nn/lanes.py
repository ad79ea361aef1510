"""Vectors of the processor, which operators for the CPU are written with (lanes.h)."""

from __future__ import annotations

import functools
import os
import platform

from jseg.runtime import jt


def source(*names: str) -> str:
    """The headers of this folder, one behind another; lanes.h comes first."""
    parts = []
    for name in ("lanes.h", *names):
        with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
            parts.append(file.read())
    return "".join(parts)


def convolution(header: str, source: str, shape, x, weight, bias=None, rest=None, **data):
    """The operator of a convolution: float32 of that shape from x, weight and, where they are
    given, bias and rest, for which the source says BIAS and REST.
    """
    inputs = [x, weight]
    for name, array in (("BIAS", bias), ("REST", rest)):
        source = source.replace(name, "nullptr" if array is None else f"in{len(inputs)}_p")
        inputs += [] if array is None else [array]
    return jt.code(shape, "float32", inputs, cpu_header=header, cpu_src=source, data=data)


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
