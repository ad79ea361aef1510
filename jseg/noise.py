"""Gaussian noise as a pure function of (seed, file stem, stage): the same image for any batch
size, order or resume.

release: one global stream, restarted with seed 0 in every stage and advanced by unused draws in
every step, so an image depends on the batch size and on the order of the folder; here: each
image and stage has its own stream.

Construction: SHA-256 of the UTF-8 text "seed/stage/stem" (stem in Unicode form NFC); its first 16
bytes, big-endian, key a Philox4x64 counter generator; NumPy's float64 ziggurat on that stream fills
the shape in C order; cast to float32. Philox is specified bit by bit and the ziggurat is table
lookups and products, so processors and platforms agree.
"""

from __future__ import annotations

import hashlib
import numbers
import unicodedata
from typing import Sequence, Union

import numpy as np


def normal(seed: int, stem: str, stage: Union[int, str], shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 array of that shape, determined by the arguments alone.

    seed is an integer >= 0, stem the file name without suffix, stage a number or a name without
    "/". Raises ValueError for other values. The values of one shape say nothing about those of
    another.
    """
    check_seed(seed)
    stage = str(stage)
    if "/" in stage or not stage:
        raise ValueError(f"noise stage is {stage!r}; expected a number or a name without '/'")
    text = f"{seed}/{stage}/{unicodedata.normalize('NFC', stem)}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
    return generator.standard_normal(tuple(shape)).astype(np.float32)


def generator(seed: int, *place: object) -> np.random.Generator:
    """A NumPy generator that depends on the seed and the place ("noise", step, position, ...)
    alone: SHA-256 keys a Philox counter.

    The same construction as `normal`, for draws that are not images' sampling noise.
    """
    text = "/".join(str(part) for part in (seed,) + place)
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
    )


def check_seed(seed: int) -> int:
    """The seed itself if it is an integer >= 0; raises ValueError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 on")
    return int(seed)
