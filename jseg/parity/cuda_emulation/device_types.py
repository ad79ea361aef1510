"""An array as memory of the device, in one of the types that our operators have, and back.

NumPy has no bfloat16: such memory is uint16 here.
"""

from __future__ import annotations

import numpy as np

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int32": np.int32}
# Half of the distance of 1 to the next number: the largest relative error of rounding.
UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def to_memory(array, kind: str) -> np.ndarray:
    """The array rounded to that type, to the nearest, ties to even."""
    if kind != "bfloat16":
        return np.ascontiguousarray(array, TYPES[kind])
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_memory(memory: np.ndarray, kind: str) -> np.ndarray:
    """The values as float64."""
    if kind == "bfloat16":
        memory = (memory.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return memory.astype(np.float64)


def rounded(array, kind: str) -> np.ndarray:
    """The array's values in that type, as float64."""
    return from_memory(to_memory(array, kind), kind)
