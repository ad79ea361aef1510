"""Weights on disk: read safely, compared strictly, written whole, averaged.

Reading never runs code from a file and needs neither PyTorch nor Jittor; the formats are in
jseg/formats, the layout of what we write in docs/formats.md. Mirrors jittor.load/save,
Module.load_state_dict and the release's merge_model.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from jseg import __version__, configs
from jseg.counting import counted
from jseg.files import PathLike, write_atomic
from jseg.formats import record as own
from jseg.formats.mismatch import mismatch, shape_of, some
from jseg.formats.reader import OpenFile, open_weights
from jseg.formats.state_dicts import CHOICES, Selection, select
from jseg.formats.targets import check_target
from jseg.formats.tensor import CheckpointError
from jseg.formats.values import cast, finite, read

Source = Union[PathLike, Mapping[str, object]]
Member = Tuple[str, float, Mapping[str, object]]  # label, weight and arrays of a part

# A file may name one stored array many times, but the copies may not outgrow it by more than this.
MAX_GROWTH, GROWTH_ALLOWANCE = 16, 1 << 28


@dataclass(frozen=True)
class WeightFile(os.PathLike):
    """What a weight file says of itself; made by `describe`, and usable as the file's path."""

    path: Path
    config: Optional[object] = None  # the network's dataclass; None for files of other programs
    record: Mapping[str, object] = field(default_factory=dict, compare=False)  # {} for these
    sha256: str = ""  # of the file, where it was asked for
    digest: str = ""  # of the arrays that were asked for
    shapes: Mapping[str, Tuple[int, ...]] = field(default_factory=dict, compare=False)  # likewise

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def extra(self) -> Mapping[str, object]:
        """What `save` was given beyond arrays and the configuration; {} in other files."""
        return self.record.get("extra") or {}

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings of the training that the weights are from; {} where the file has none."""
        settings = self.extra.get("settings")
        return settings if isinstance(settings, dict) else {}


def describe(
    path: PathLike, sha256: bool = False, prefixes: Sequence[str] = (), shapes: bool = False
) -> WeightFile:
    """What a weight file says of itself, read in one opening.

    sha256: also the file's SHA-256, of a model in parts that of its files' names and contents.
    prefixes: also the digest of the arrays whose names begin with one of these, which is the same
    for the same values in any kind of file. shapes: also the arrays' shapes, by name. A WeightFile
    that has all this already is returned. Raises CheckpointError, or FileNotFoundError.
    """
    if isinstance(path, WeightFile):
        needed = ((sha256, path.sha256), (prefixes, path.digest), (shapes, path.shapes))
        if all(known for wanted, known in needed if wanted):
            return path
    with open_weights(path) as file:
        config = _config(file.record)
        tensors = _selected(file, "ema").tensors if prefixes or shapes else {}
        return WeightFile(
            Path(path),
            config,
            file.record or {},
            file.sha256() if sha256 else "",
            _digest(tensors, prefixes) if prefixes else "",
            {name: tensor.shape for name, tensor in tensors.items()} if shapes else {},
        )


def load(path: PathLike, weights: str = "ema") -> Dict[str, np.ndarray]:
    """Read a weight file of any supported kind as {name: array}.

    `weights` "ema" takes the moving average where the file has one, "model" never. Arrays have the
    stored type, bfloat16 widened to float32. Raises CheckpointError, or FileNotFoundError.
    """
    with open_state(path, weights) as selection:
        return {name: read(name, tensor) for name, tensor in selection.tensors.items()}


def load_config(path: PathLike):
    """The configuration (a dataclass such as UNetConfig) that `save` put into the file.

    None for files of other programs. Reads no array. Raises CheckpointError.
    """
    return describe(path).config


def load_extra(path: PathLike) -> Dict[str, object]:
    """What `save` was given beyond arrays and the configuration; {} for other files.

    Reads no array; `load_sets` does. Raises CheckpointError.
    """
    return dict(describe(path).extra)


def load_sets(path: PathLike) -> Dict[str, Dict[str, np.ndarray]]:
    """All arrays that `save` was given, {set: {name: array}}; the model's are under "".

    A file of another program has the model alone. Raises CheckpointError.
    """
    with open_weights(path) as file:
        sets = {"": _selected(file, "model").tensors} if file.record is None else own.sets(file)
        return {
            group: {name: read(name, tensor) for name, tensor in tensors.items()}
            for group, tensors in sets.items()
        }


def load_into(module, source: Source, weights: str = "ema") -> None:
    """Fill a Jittor module (anything with state_dict()) from a file or {name: array}, strictly.

    Values are cast to the parameters' types. Raises CheckpointError that lists every missing,
    unexpected and mis-shaped name, or the arrays with NaN or infinite values; nothing has then been
    loaded. release: `load_state_dict(jittor.load(...))` warns at most and takes over the file's
    types; here: strict, types kept.
    """
    parameters = module.state_dict()
    with open_state(source, weights) as selection:
        arrays = selection.tensors
        problem = mismatch(
            {name: shape_of(value) for name, value in parameters.items()},
            {name: tensor.shape for name, tensor in arrays.items()},
            looks_like=configs.looks_like,
            explain=getattr(module, "explain_mismatch", None),
        )
        if problem:
            raise CheckpointError(problem)

        # All values are looked at before the first is assigned; one array at a time is in memory.
        bad = [
            name
            for name, value in parameters.items()
            if cast(read(name, arrays[name]), value) is None
        ]
        if bad:
            raise CheckpointError(
                f"{counted(len(bad), 'array[s] [holds|hold]')} NaN, infinite or other values that "
                f"the network's types cannot hold ({some(bad)}); the file is damaged or its "
                "training diverged, take an earlier one"
            )
        for name, value in parameters.items():
            _assign(value, cast(read(name, arrays[name]), value))


def save(path: PathLike, state: Mapping[str, object], config=None, **extra) -> None:
    """Write {name: array or Jittor Var} with the network's configuration, whole or not at all.

    The kind follows the suffix: .safetensors (preferred), .npz, or .pkl (also read by jittor.load).
    Each of `extra` is a set of arrays by name (ema=..., optimizer=...) or anything that JSON can
    hold. Raises CheckpointError; OSError passes through.
    """
    check_target(path)
    suffix = Path(path).suffix.lower()
    groups = {name: value for name, value in extra.items() if own.is_state(value)}
    values = {name: value for name, value in extra.items() if name not in groups}
    try:
        arrays = own.flattened(state, groups)
        stored = None if config is None else configs.to_json(config)
        record = own.record_text(stored, {"": state, **groups}, values)
        write_atomic(path, lambda file: own.write(file, suffix, arrays, record))
    except ValueError as error:
        if getattr(error, "located", False):
            raise
        raise CheckpointError(f"cannot save {path}: {error}") from None


def average(parts: Iterable[Tuple[Source, float]], weights: str = "ema") -> Dict[str, np.ndarray]:
    """The weighted mean of any number of [(file or {name: array}, weight), ...], as float32.

    The sum is taken in float64. Weights are divided by their sum; they may be negative but not sum
    to 0. Integer arrays must be equal and are kept. Beside the result, one array is in memory at a
    time. Raises CheckpointError. release (merge_model.py): equal weights, float64 file; here: any
    weights, float32.
    """
    weighted = [(source, float(weight)) for source, weight in parts]
    values = [weight for _, weight in weighted]
    total = math.fsum(values)
    if not math.isfinite(total) or abs(total) <= 1e-12 * math.fsum(map(abs, values)):
        raise CheckpointError(
            f"cannot average with weights {values}; expected at least one file, and weights whose "
            "sum is not 0"
        )

    # All files stay open; every one must be of the first one's network.
    with contextlib.ExitStack() as stack:
        members: List[Member] = []
        for number, (source, weight) in enumerate(weighted, 1):
            label = f"part {number}" if isinstance(source, Mapping) else str(source)
            tensors = stack.enter_context(open_state(source, weights)).tensors
            members.append((label, weight / total, tensors))
            first, last = ({n: t.shape for n, t in members[i][2].items()} for i in (0, -1))
            problem = mismatch(first, last, "expected files of one network")
            if problem:
                reason = f"cannot be averaged with {members[0][0]}: it {problem}"
                raise CheckpointError.at(label, reason)
        return {name: _mean(name, members) for name in members[0][2]}


def weights_sha256(path: PathLike) -> str:
    """The SHA-256 of a weight file; of a model in parts that of its files' names and contents."""
    with open_weights(path) as file:
        return file.sha256()


@contextlib.contextmanager
def open_state(source: Source, weights: str = "ema") -> Iterator[Selection]:
    """One model's arrays, each with `shape` and `read()`, to be read inside of the `with`."""
    if weights not in CHOICES:
        raise ValueError(f"weights is {weights!r}; expected 'ema' or 'model'")
    if isinstance(source, Mapping):
        yield Selection({name: own.MemoryArray(name, value) for name, value in source.items()})
        return
    with open_weights(source) as file:
        yield _selected(file, weights)


def _selected(file: OpenFile, weights: str) -> Selection:
    if file.record is None:
        selection = select(file.tree, weights)
    else:
        selection = own.select(file, weights)
    claimed = sum(tensor.count * tensor.itemsize for tensor in selection.tensors.values())
    if claimed > MAX_GROWTH * file.size + GROWTH_ALLOWANCE:
        raise CheckpointError(
            f"its arrays claim {claimed} bytes, the file holds {file.size}; it is corrupt or "
            "hostile"
        )
    return selection


def _config(record: Optional[dict]):
    if record is None or own.checked(record).get("config") is None:
        return None
    try:
        return configs.from_json(record["config"])
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"its configuration cannot be used: {error}; this is jseg-diffusion {__version__}, "
            "update it or give another file"
        ) from None


def _digest(tensors: Mapping[str, object], prefixes: Sequence[str]) -> str:
    """SHA-256 of the values as float32, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith(tuple(prefixes)):
            values = np.asarray(read(name, tensors[name]), "<f4")
            digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def _assign(parameter, array: np.ndarray) -> None:
    kind = str(parameter.dtype)
    parameter.assign(array)
    if str(parameter.dtype) != kind:
        # NumPy has no bfloat16, and Jittor's assign takes over the type of what it is given.
        parameter.assign(parameter.cast(kind))


def _mean(name: str, members: List[Member]) -> np.ndarray:
    mean, first = None, None
    for label, weight, tensors in members:
        try:
            array = read(name, tensors[name])
            if not finite(array):
                raise CheckpointError(
                    f"{name} holds NaN or infinite values; its training diverged, take an earlier "
                    "file"
                )
            if first is None:
                first, mean = array, np.zeros(array.shape, np.float64)
            if array.dtype.kind == "f":
                mean += weight * array.astype(np.float64)
            elif not np.array_equal(array, first):
                raise CheckpointError(
                    f"{name} holds integers that differ from those of {members[0][0]}; expected "
                    "weights of one network"
                )
        except CheckpointError as error:
            raise CheckpointError.at(label, error) from None
    return mean.astype(np.float32) if first.dtype.kind == "f" else first
