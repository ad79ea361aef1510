"""Gaussian noise as a function of seed, file stem and stage alone.

An image is the same for any batch size, order or resume. release: one global stream, restarted with
seed 0 in every stage and advanced by unused draws in every step, so that an image depends on the
batch size and on the order of the folder; here: each image and stage has its own stream.

Construction: the first 16 bytes of the SHA-256 of the UTF-8 text "seed/stage/stem" (stem in Unicode
form NFC), big-endian, are the key of a Philox4x64 counter generator. NumPy's float64 ziggurat on
that stream fills the shape in C order; the result is cast to float32. Philox is specified bit by
bit and the ziggurat is table lookups and products, so processors and platforms agree.
"""

from __future__ import annotations

import hashlib
import numbers
import unicodedata
from typing import Sequence, Union

import numpy as np


def normal(seed: int, stem: str, stage: Union[int, str], shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 array of that shape, determined by the arguments alone.

    seed: an integer >= 0. stem: the file name without suffix. stage: a number, or a name without
    "/". Values of two shapes have nothing to do with each other. Raises ValueError for others.
    """
    check_seed(seed)
    stage = str(stage)
    if "/" in stage or not stage:
        raise ValueError(f"noise stage is {stage!r}; expected a number or a name without '/'")
    name = unicodedata.normalize("NFC", stem)
    return generator(seed, stage, name).standard_normal(tuple(shape)).astype(np.float32)


def generator(seed: int, *place: object) -> np.random.Generator:
    """A NumPy generator that depends on the seed and the place alone, as `normal` does.

    place: of the draw, such as ("noise", step, position); for all but the sampling noise of images.
    """
    text = "/".join(map(str, (seed, *place)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


def check_seed(seed: int) -> int:
    """The seed itself if it is an integer >= 0; raises ValueError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 on")
    return int(seed)
