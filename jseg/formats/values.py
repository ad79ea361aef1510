"""Arrays in another type, where their values survive that."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from jseg.formats.mismatch import shape_of
from jseg.formats.tensor import CheckpointError


def read(name: str, tensor) -> np.ndarray:
    """The values of a tensor; CheckpointErrors name the array."""
    try:
        return tensor.read()
    except CheckpointError as error:
        raise CheckpointError(f"array {name!s:.120}: {error}") from None


def finite(array: np.ndarray) -> bool:
    """Whether an array has neither NaN nor infinite values."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def cast(array: np.ndarray, parameter) -> Optional[np.ndarray]:
    """The array in the parameter's shape and type (bfloat16: float32).

    None if it holds NaN or infinite values, or values that the type cannot hold.
    """
    name = str(parameter.dtype)
    target = np.dtype(np.float32 if name == "bfloat16" else name)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target, copy=False)
    survives = finite(result) if target.kind == "f" else bool((result == array).all())
    return result.reshape(shape_of(parameter)) if survives and finite(array) else None


class Converted:
    """An array of a weight file in another shape and type (float32 or float16).

    The values are made by `numpy`, one array at a time while a file is written.
    """

    def __init__(self, name: str, tensor, shape: Tuple[int, ...], dtype=np.float32):
        self.name, self.tensor, self.shape, self.dtype = name, tensor, shape, np.dtype(dtype)
        self.vanished = 0  # values that became 0, once they have been made

    def numpy(self) -> np.ndarray:
        """The values; raises CheckpointError, with the array's name, where they do not survive."""
        stored = read(self.name, self.tensor)
        if not finite(stored):
            count = np.count_nonzero(~np.isfinite(stored))
            raise CheckpointError(
                f"array {self.name} holds NaN or infinite values ({count} of {stored.size}); its "
                "training diverged, take an earlier file"
            )
        array = cast(stored, self)
        if array is None:
            half = self.dtype == np.float16
            largest = stored.flat[np.abs(stored.astype(np.float64)).argmax()]
            remedy = "leave out --half" if half else "such weights are of no use, take another file"
            raise CheckpointError(
                f"array {self.name} holds {largest:.6g}, too large for {self.dtype}, which ends "
                f"at {np.finfo(self.dtype).max:.6g}; {remedy}"
            )
        self.vanished = int(np.count_nonzero(stored) - np.count_nonzero(array))
        return array
