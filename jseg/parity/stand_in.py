"""Deterministic stand-in weights from names and shapes alone, for tests, benchmarks and
demonstrations without a checkpoint.

Any implementation with the same state-dict layout, the official one included, can be compared with
another under them. They are untrained: images made with them are noise.
"""

from __future__ import annotations

import zlib
from typing import Dict, Sequence

import numpy as np


def value(name: str, shape: Sequence[int]) -> np.ndarray:
    """Weight `name` as float32 of `shape`: N(0, 1/fan_in) for matrices and kernels, near 1 for norm
    scales, small for biases.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    normal = rng.standard_normal(tuple(shape), dtype=np.float32)
    if name.endswith("embedding.weight"):  # the codebook: spread like the latents that it quantises
        return normal
    if len(shape) >= 2:
        return (normal / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32)
    return ((1.0 if name.endswith("weight") else 0.0) + 0.1 * normal).astype(np.float32)


def fill(shapes: Dict[str, Sequence[int]]) -> Dict[str, np.ndarray]:
    """{name: shape} -> {name: float32 array}."""
    return {name: value(name, shape) for name, shape in shapes.items()}
