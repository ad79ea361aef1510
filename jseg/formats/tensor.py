"""Arrays that stay in their file until they are read: what every reader of weight files returns.

A `Tensor` is dtype, shape and strides over a blob; a blob is anything with a `size` in bytes and
`read(start, size)`. Every description is checked against its blob when it is made, so reading it
can neither leave the file nor ask for more than it holds.
"""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO, Iterable, Optional, Sequence, Tuple

import numpy as np

from jseg.files import CHUNK

BFLOAT16 = "bfloat16"
DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
EXPECTED = "expected weights as .pkl, .pth, .pt, .ckpt, .safetensors or .npz"
READABLE = "float16, bfloat16, float32, float64, integers and bool"
MAX_DIMENSIONS = 32
# Views may share elements (an expanded mask); beyond this many the file would be claiming an array
# it does not contain.
MAX_OVERLAP = 1 << 24


class CheckpointError(ValueError):
    """A weight file that cannot be used: one line with what was given, expected, and to be done."""

    located = False  # whether the message names the file already

    @classmethod
    def at(cls, place: object, error: object) -> "CheckpointError":
        """The error with the file in front, in one printable line whatever names the file holds."""
        if getattr(error, "located", False):
            return error
        text = f"{place}: {error}"
        located = cls("".join(letter if letter.isprintable() else "?" for letter in text))
        located.located = True
        return located


class Memory:
    """A blob that is already in memory."""

    def __init__(self, data):
        self.view = memoryview(data)
        self.size = self.view.nbytes

    def read(self, start: int, size: int):
        return self.view[start : start + size]

    def part(self, start: int, size: int) -> "Memory":
        return Memory(self.view[start : start + size])


class Region:
    """A blob that is a part of an open file, with its CRC-32 where one is known."""

    def __init__(self, file: BinaryIO, start: int, size: int, crc: Optional[int] = None):
        self.file, self.start, self.size, self.crc = file, start, size, crc

    def read(self, start: int, size: int):
        if self.crc is not None:
            self._verify()
        data = np.empty(size, np.uint8)
        self.file.seek(self.start + start)
        if self.file.readinto(memoryview(data)) != size:
            raise CheckpointError(
                "the file ended early; it is truncated, copy or download it again"
            )
        return data

    def part(self, start: int, size: int) -> "Region":
        return Region(self.file, self.start + start, size)

    def _verify(self) -> None:
        # Once and in chunks: many arrays may be views of one region, and it may be the whole file.
        expected, self.crc, actual = self.crc, None, 0
        for start in range(0, self.size, CHUNK):
            actual = zlib.crc32(self.read(start, min(CHUNK, self.size - start)), actual)
        if actual != expected:
            self.crc = expected
            raise CheckpointError(
                "the contents do not match their checksum; the file is damaged, copy or download "
                "it again"
            )


class Tensor:
    """An array of `shape` and `strides` (both in elements) at element `offset` of a blob.

    `dtype` is a NumPy dtype or BFLOAT16; `crc` the CRC-32 of a contiguous array's bytes, where the
    file gives one. Raises CheckpointError when the array does not fit into the blob.
    """

    negated = False  # PyTorch's pending negation: applied when read

    def __init__(
        self,
        blob,
        dtype,
        shape: Sequence[int],
        strides: Optional[Sequence[int]] = None,
        offset: int = 0,
        crc: Optional[int] = None,
    ):
        shape = checked_sizes(shape)
        strides = contiguous_strides(shape) if strides is None else checked_sizes(strides)
        if len(strides) != len(shape) or checked_sizes((offset,)) != (offset,):
            raise CheckpointError(
                "an array has strides that do not go with its shape; the file is corrupt"
            )
        # The stride along a dimension of one element is never used; writers put any number there.
        strides = tuple(stride if n > 1 else 0 for n, stride in zip(shape, strides))
        self.blob, self.dtype, self.crc = blob, dtype, crc
        self.shape, self.strides, self.offset = shape, strides, offset

        # The array must lie inside of the blob, and must not claim more than the blob holds.
        span = 0 if 0 in shape else 1 + sum((n - 1) * stride for n, stride in zip(shape, strides))
        if (offset + span) * self.itemsize > blob.size or _count(n for n in shape if n) > 1 << 60:
            raise CheckpointError(
                "an array lies outside of the data; the file is truncated or corrupt"
            )
        if self.count > max(span, MAX_OVERLAP):
            raise CheckpointError(
                f"an array of {self.count} values claims to be stored in {span}; the file is "
                "corrupt"
            )
        self.span = span

    @property
    def count(self) -> int:
        return _count(self.shape)

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == BFLOAT16 else self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The values as a new array, in native byte order; bfloat16 as the equal float32."""
        values = self._stored()
        return np.negative(values, out=values) if self.negated else values

    def _stored(self) -> np.ndarray:
        bfloat16 = self.dtype == BFLOAT16
        native = np.dtype(np.float32) if bfloat16 else self.dtype.newbyteorder("=")
        if not self.span:
            return np.empty(self.shape, native)

        # The bytes from the first element to the last.
        size = self.itemsize
        raw = self.blob.read(self.offset * size, self.span * size)
        if self.crc is not None and zlib.crc32(raw) != self.crc:
            raise CheckpointError(
                "an array does not match its checksum; the file is damaged or was edited, copy it "
                "again"
            )
        integers = "<u2" if bfloat16 else "u1"  # bfloat16's upper half of a float32; bool
        values = np.frombuffer(raw, integers if bfloat16 or native.kind == "b" else self.dtype)

        # In the array's own order.
        steps = contiguous_strides(self.shape)
        if any(n > 1 and own != step for n, own, step in zip(self.shape, self.strides, steps)):
            strides = [stride * size for stride in self.strides]
            values = np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False)
        values = values.reshape(self.shape)

        # As the type that NumPy has.
        if bfloat16:
            return np.array(values.astype(np.uint32) << np.uint32(16), order="C").view(np.float32)
        if native.kind == "b":
            return np.array(values != 0, order="C")
        return values.astype(native, order="C", copy=not values.flags.writeable)


def raw(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, for writing."""
    return array.reshape(-1).view(np.uint8).data


def checked_sizes(sizes: Sequence[int]) -> Tuple[int, ...]:
    """The sizes as a tuple, if they can be those of an array; raises CheckpointError."""
    sizes = tuple(sizes)
    if len(sizes) > MAX_DIMENSIONS or any(
        type(n) is not int or not 0 <= n < 1 << 60 for n in sizes
    ):
        raise CheckpointError("an array has an impossible shape; the file is corrupt")
    return sizes


def contiguous_strides(shape: Sequence[int]) -> Tuple[int, ...]:
    """Strides, in elements, of a C-ordered array."""
    strides = [1]
    for n in reversed(tuple(shape)[1:]):
        strides.insert(0, strides[0] * n)
    return tuple(strides[: len(shape)])


def dtype_of(code: str, order: str = "<") -> np.dtype:
    """The NumPy dtype for a code such as "f4".

    Raises CheckpointError, with the type's name, for anything but numbers and truth values.
    """
    if re.fullmatch(r"c\d+|f(?:1|12|16)", str(code)):
        bits = 8 * int(code[1:])
        raise unreadable(f"complex{bits}" if code[0] == "c" else f"float{bits}")
    if code not in DTYPES or order not in ("<", ">", "|", "="):
        raise CheckpointError(
            f"the file holds an array of NumPy type {code!r:.40}; expected numbers ({READABLE}); "
            "export the weights alone"
        )
    return np.dtype(("<" if order in "|=" else order) + code)


def unreadable(kind: str) -> CheckpointError:
    """The error for an array of a kind that is not read, with what to convert it to.

    kind: an element type, or a word such as "sparse".
    """
    lower = kind.lower()
    if "complex" in lower:
        remedy = (
            "no network here has complex weights: leave these arrays out, or store "
            "torch.view_as_real(x)"
        )
    elif "sparse" in lower or "nested" in lower:
        remedy = "x.to_dense() makes plain arrays of them (x.to_padded_tensor(0.0) of nested ones)"
    elif "quant" in lower or re.search(r"\bqu?int", lower):
        remedy = "x.dequantize() makes float32 of them"
    elif "meta" in lower:
        remedy = "such tensors have no values; load the weights before saving"
    else:
        remedy = "x.float() makes float32 of them, x.to(torch.bfloat16) takes half the room"
    return CheckpointError(
        f"holds arrays of type {kind}; {READABLE} are read; convert them where the file was made "
        f"and save again: {remedy}"
    )


def _count(shape: Iterable[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
