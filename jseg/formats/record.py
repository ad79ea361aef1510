"""The files that this package writes: arrays by name and one JSON record, in one of three kinds.

The model's arrays have their plain names; those of further sets (moving averages, an optimiser's
state) are called SET/NAME. The record has the format's number, the configuration, the sets and
whatever JSON the writer added (docs/formats.md).
"""

from __future__ import annotations

import json
from typing import BinaryIO, Dict, Mapping

import numpy as np

from jseg import __version__
from jseg.formats import jittor_pickle, npz, safetensors
from jseg.formats.mismatch import shape_of, some
from jseg.formats.reader import RECORD, RECORD_ENTRY, OpenFile, sealed
from jseg.formats.state_dicts import Selection
from jseg.formats.tensor import DTYPES, CheckpointError, Tensor

FORMAT = 1
SEPARATOR = "/"
RESERVED = ("__metadata__", RECORD_ENTRY)


class MemoryArray:
    """An array, number or Jittor Var in memory, read like an array in a file."""

    def __init__(self, name: str, value: object):
        self.name, self.value, self.shape = name, value, shape_of(value)

    def read(self) -> np.ndarray:
        """The value as a C-ordered little-endian array of numbers, copied only where needed."""
        of_jittor = callable(getattr(self.value, "numpy", None))
        array = np.asarray(self.value.numpy() if of_jittor else self.value)
        if array.dtype.str[1:] not in DTYPES:
            raise CheckpointError(f"{self.name} is an array of {array.dtype}; expected numbers")
        return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def is_state(value: object) -> bool:
    """Whether this is a set of arrays by name, and not something for the JSON record."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(hasattr(item, "shape") and hasattr(item, "dtype") for item in value.values())


def flattened(
    state: Mapping[str, object], groups: Mapping[str, Mapping[str, object]]
) -> Dict[str, MemoryArray]:
    """All arrays under their names in the file.

    Raises CheckpointError for names that cannot be told apart or stored.
    """
    arrays = {name: MemoryArray(name, value) for name, value in state.items()}
    for group, members in groups.items():
        for name, value in members.items():
            arrays[group + SEPARATOR + str(name)] = MemoryArray(str(name), value)
    prefixes = tuple(group + SEPARATOR for group in groups)
    confused = len(arrays) != len(state) + sum(map(len, groups.values()))
    if not state or confused or any(str(name).startswith(prefixes) for name in state):
        raise CheckpointError(
            "expected at least one array, and none whose name starts with that of another set "
            f"({some(groups)})"
        )
    for name in arrays:
        if not (isinstance(name, str) and name and name.isprintable()) or name in RESERVED:
            raise CheckpointError(
                f"{name!r:.80} is not a usable name for an array; expected printable text"
            )
    return arrays


def record_text(config: object, groups: Mapping[str, Mapping], extra: Mapping[str, object]) -> str:
    """The JSON record; raises CheckpointError when `extra` holds anything else than JSON can."""
    record = {
        "format": FORMAT,
        "writer": "jseg-diffusion " + __version__,
        "config": config,
        "extra": extra,
        "groups": {name: len(members) for name, members in groups.items()},
    }
    try:
        return json.dumps(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{error}; expected sets of arrays by name, or what JSON can hold"
        ) from None


def write(file: BinaryIO, suffix: str, arrays: Mapping[str, MemoryArray], record: str) -> None:
    """Write arrays and record to an open file, in the kind that goes with the suffix.

    One array is in memory at a time.
    """
    makers = {name: array.read for name, array in arrays.items()}
    if suffix == ".pkl":
        jittor_pickle.write(file, makers, sealed(record))
        return
    if suffix == ".npz":
        text = np.frombuffer(sealed(record).encode("utf-8"), np.uint8)
        npz.write(file, {RECORD_ENTRY: lambda: text, **makers})
        return

    def metadata(checksums: Dict[str, int]) -> Dict[str, str]:
        text = sealed(f'{record[:-1]}, "crc32": {json.dumps(checksums)}}}')
        return {"format": "pt", RECORD: text}

    safetensors.write(file, makers, metadata)


def checked(record: dict) -> dict:
    """The record, if it is of the format that this version reads; raises CheckpointError."""
    if record.get("format") != FORMAT:
        raise CheckpointError(
            f"was written in format {record.get('format')!r:.20}; this is jseg-diffusion "
            f"{__version__}, which reads format {FORMAT}; update the package"
        )
    if not isinstance(record.get("groups"), dict) or not isinstance(record.get("extra"), dict):
        raise CheckpointError(
            f"has a record of format {FORMAT} without its groups or extras; write the file again "
            "with this version"
        )
    return record


def sets(file: OpenFile) -> Dict[str, Dict[str, Tensor]]:
    """The arrays of every set under their own names; the model's under ""."""
    groups = checked(file.record)["groups"]
    result: Dict[str, Dict[str, Tensor]] = {name: {} for name in ["", *groups]}
    for key, tensor in file.tree.items() if isinstance(file.tree, dict) else ():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                "holds something else than arrays; the file is corrupt, copy or download it again"
            )
        group, separator, name = str(key).partition(SEPARATOR)
        if separator and group in groups:
            result[group][name] = tensor
        else:
            result[""][key] = tensor
    if any(len(result[group]) != count for group, count in groups.items()):
        raise CheckpointError(
            "holds other arrays than its record lists; the file is damaged or was edited, copy it "
            "again"
        )
    return result


def select(file: OpenFile, weights: str) -> Selection:
    """The model's arrays; for `weights` "ema" those of the moving average in place of theirs, where
    there are any.
    """
    arrays = sets(file)
    ema = arrays.get("ema", {})
    if ema and weights == "ema":
        return Selection({**arrays[""], **ema}, averaged=True)
    return Selection(arrays[""])
