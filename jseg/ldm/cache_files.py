"""The files of one data set in a latent cache: three memory-mapped arrays and what they have in
common.

    about.json     the autoencoder and the sizes
    latents.npy    float32 [2N, C, h, w]: rows 2i and 2i + 1 are example i and its mirror image
    labels.npy     uint8 [2N, h, w], in the same order
    keys.npy       uint8 [N, 2, 32]: hashes of what example i's latents and labels were made from
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np

from jseg.files import remove_stale_temporaries, write_atomic
from jseg.outputs.record import read_record

FORMAT = 1
ABOUT, LATENTS, LABELS, KEYS = "about.json", "latents.npy", "labels.npy", "keys.npy"


def about(autoencoder_sha256: str, width: int, height: int, latent: Tuple[int, int, int]) -> dict:
    """What all latents of a cache have in common; latent is (C, h, w)."""
    return {
        "format": FORMAT,
        "autoencoder": autoencoder_sha256,
        "width": width,
        "height": height,
        "latent": list(latent),
    }


def digest(common: dict, keys: np.ndarray) -> str:
    """SHA-256, in hex, of everything that the cached arrays are made from, in their order."""
    text = json.dumps(common, sort_keys=True).encode("ascii")
    return hashlib.sha256(text + keys.tobytes()).hexdigest()


def read_about(folder: Path) -> Optional[dict]:
    """What the arrays of a folder have in common, None where it does not say."""
    return read_record(folder / ABOUT)


def read_arrays(
    folder: Path, common: dict, count: Optional[int] = None
) -> Optional[Dict[str, np.memmap]]:
    """{file name: read-only array} of a data set's folder.

    None unless all is as it should be for `common` (and for `count` examples).
    """
    if read_about(folder) != common:
        return None
    try:
        names = (LATENTS, LABELS, KEYS)
        arrays = {name: np.load(str(folder / name), mmap_mode="r") for name in names}
    except (OSError, ValueError, EOFError):  # missing, cut short, or something else
        return None
    expected = layout(common, len(arrays[KEYS]) if count is None else count)
    sound = all((array.dtype, array.shape) == expected[name] for name, array in arrays.items())
    return arrays if sound else None


def layout(common: dict, count: int) -> Dict[str, Tuple[str, tuple]]:
    """{file name: (type, shape)} of the arrays of `count` examples."""
    latent = tuple(common["latent"])
    return {
        LATENTS: ("<f4", (2 * count, *latent)),
        LABELS: ("|u1", (2 * count, *latent[1:])),
        KEYS: ("|u1", (count, 2, 32)),
    }


def array_bytes(dtype: str, shape: tuple) -> int:
    """The size of an array of that type and shape."""
    return np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))


def create(folder: Path, common: dict, count: int) -> None:
    """Make the files for `count` examples, without any rows."""
    folder.mkdir(exist_ok=True)
    remove_stale_temporaries(folder)
    if (folder / KEYS).exists():
        (folder / KEYS).unlink()  # first: keys must never speak for other rows
    text = json.dumps(common, sort_keys=True).encode("ascii")
    write_atomic(folder / ABOUT, lambda file: file.write(text))

    expected = layout(common, count)
    for name in (LATENTS, LABELS):
        header = _header(*expected[name])
        with open(folder / name, "wb") as file:
            file.write(header)
            file.truncate(len(header) + array_bytes(*expected[name]))
            file.flush()
            os.fsync(file.fileno())
    content = _header(*expected[KEYS]) + bytes(array_bytes(*expected[KEYS]))
    write_atomic(folder / KEYS, lambda file: file.write(content))


def _header(dtype: str, shape: tuple) -> bytes:
    """The beginning of an .npy file."""
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def write_rows(file: int, array: np.memmap, row: int, values: np.ndarray) -> None:
    """Write `values` from `row` of the array on into its file, given by its descriptor.

    Not by the memory map, where a full disk is a SIGBUS and no error.
    """
    assert values.shape[1:] == array.shape[1:], (values.shape, array.shape)
    data = memoryview(np.ascontiguousarray(values, array.dtype)).cast("B")
    position = array.offset + row * (len(data) // len(values))
    while data:
        written = os.pwrite(file, data, position)
        data, position = data[written:], position + written


def remove(folder: Path) -> None:
    """Remove a data set's files, and the folder if nothing of the user's is in it."""
    for name in (KEYS, LATENTS, LABELS, ABOUT):  # the last says whose folder it is
        if (folder / name).exists():
            (folder / name).unlink()
    remove_stale_temporaries(folder)
    try:
        folder.rmdir()
    except OSError:
        pass
