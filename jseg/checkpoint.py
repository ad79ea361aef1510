"""Weights on disk: read safely, compared strictly, written whole, averaged.

Reading never runs code from a file and needs neither PyTorch nor Jittor; the formats are in
jseg/formats, the layout of what we write in docs/formats.md. Mirrors jittor.load/save,
Module.load_state_dict and the release's merge_model.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

import numpy as np

from jseg import __version__, files
from jseg.configs import AutoencoderConfig, PixNerdConfig, UNetConfig, describe
from jseg.files import PathLike, write_atomic
from jseg.formats import record as own
from jseg.formats import shards
from jseg.formats.mismatch import mismatch, shape_of, some
from jseg.formats.reader import opened, read_record
from jseg.formats.state_dicts import CHOICES, Selection, select
from jseg.formats.targets import check_target
from jseg.formats.tensor import CheckpointError

Source = Union[PathLike, Mapping[str, object]]

# The networks whose configuration a file can carry, under the names that are stored in it.
NETWORKS = {network.__name__: network for network in (UNetConfig, AutoencoderConfig, PixNerdConfig)}
# A file may name one stored array many times, but not so often that the copies outgrow it like
# this.
MAX_GROWTH, GROWTH_ALLOWANCE = 16, 1 << 28


def load(path: PathLike, weights: str = "ema") -> Dict[str, np.ndarray]:
    """Read a weight file of any supported kind as {name: array}.

    `weights` "ema" takes the moving average where the file has one, "model" never. Arrays have the
    stored type, bfloat16 widened to float32. Raises CheckpointError, or FileNotFoundError.
    """
    with opened_state(path, weights) as selection:
        return {name: _read(name, tensor) for name, tensor in selection.tensors.items()}


def load_config(path: PathLike):
    """The configuration (a dataclass such as UNetConfig) that `save` put into the file; None for
    files of other programs.
    """
    return load_record(path)[0]


def load_record(path: PathLike) -> Tuple[object, Dict[str, object]]:
    """(the configuration, all else that `save` was given and that is no array); reads no array.

    (None, {}) for files of other programs. Raises CheckpointError.
    """
    record = read_record(path)
    if record is None:
        return None, {}
    try:
        extra = own.checked(record)["extra"]
        return None if record.get("config") is None else _decoded(record["config"]), extra
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: its configuration cannot be used: {error}; this is jseg-diffusion "
            f"{__version__}, update it or give another file"
        ) from None


def load_sets(path: PathLike) -> Dict[str, Dict[str, np.ndarray]]:
    """All arrays of a file that `save` wrote, as {name of the set: {name: array}}, the model's
    being "".

    {} for files of other programs. Raises CheckpointError.
    """
    with opened(path) as contents:
        return _sets(contents)


def load_extra(path: PathLike) -> Dict[str, object]:
    """What `save` was given beyond state and config: {name: value}, sets of arrays as {name:
    array}; {} for other files.
    """
    with opened(path) as contents:
        sets = _sets(contents)
        sets.pop("", None)
        return {**contents.record["extra"], **sets} if contents.record else {}


def _sets(contents) -> Dict[str, Dict[str, np.ndarray]]:
    sets = {} if contents.record is None else own.sets(contents)
    return {
        group: {name: _read(name, tensor) for name, tensor in tensors.items()}
        for group, tensors in sets.items()
    }


def load_into(module, source: Source, weights: str = "ema") -> None:
    """Fill a Jittor module (anything with state_dict()) from a file or {name: array}, which must
    fit it exactly.

    Values are cast to the parameters' types. Raises CheckpointError that lists every missing,
    unexpected and mis-shaped name, or the arrays with NaN or infinite values; nothing has then been
    loaded. release: `load_state_dict(jittor.load(...))` warns at most and takes over the file's
    types; here: strict, types kept.
    """
    parameters = module.state_dict()
    with opened_state(source, weights) as selection:
        arrays = selection.tensors
        problem = mismatch(
            {name: shape_of(value) for name, value in parameters.items()},
            {name: tensor.shape for name, tensor in arrays.items()},
            describe=describe,
            explain=getattr(module, "explain_mismatch", None),
        )
        if problem:
            raise CheckpointError(problem)
        bad = [
            name
            for name, value in parameters.items()
            if _cast(_read(name, arrays[name]), value) is None
        ]
        if bad:
            raise CheckpointError(
                f"{len(bad)} arrays hold NaN, infinite or other values that the network's types "
                f"cannot ({some(bad)}); the file is damaged or its training diverged, take an "
                "earlier one"
            )
        for name, value in parameters.items():
            _assign(value, _cast(_read(name, arrays[name]), value))


def save(path: PathLike, state: Mapping[str, object], config=None, **extra) -> None:
    """Write {name: array or Jittor Var} with the network's configuration, whole or not at all.

    The kind follows the suffix: .safetensors (preferred), .npz, or .pkl (also read by jittor.load).
    Each of `extra` is a set of arrays by name (ema=..., optimizer=...) or anything that JSON can
    hold. Raises CheckpointError; OSError passes through.
    """
    suffix = Path(path).suffix.lower()
    check_target(path)
    groups = {name: value for name, value in extra.items() if own.is_state(value)}
    try:
        arrays = own.flattened(state, groups)
        record = own.record_text(
            _encoded(config),
            {"": state, **groups},
            {key: value for key, value in extra.items() if key not in groups},
        )
        write_atomic(path, lambda file: own.write(file, suffix, arrays, record))
    except CheckpointError as error:
        raise (
            error if error.located else CheckpointError(f"cannot save {path}: {error}")
        ) from None


def average(parts: Iterable[Tuple[Source, float]], weights: str = "ema") -> Dict[str, np.ndarray]:
    """The weighted mean of any number of [(file or {name: array}, weight), ...], summed in float64,
    as float32.

    Weights are divided by their sum; they may be negative but not sum to 0. Integer arrays must be
    equal and are kept. Beside the result, one array is in memory at a time. Raises CheckpointError.
    release (merge_model.py): equal weights, float64 file; here: any weights, float32.
    """
    parts = list(parts)
    shares = [float(weight) for _, weight in parts]
    total = math.fsum(shares)
    if not math.isfinite(total) or abs(total) <= 1e-12 * math.fsum(map(abs, shares)):
        raise CheckpointError(
            f"cannot average with weights {shares}; expected at least one file, and weights whose "
            "sum is not 0"
        )
    with contextlib.ExitStack() as stack:
        members: List[Tuple[str, float, Dict]] = []
        for number, ((source, _), share) in enumerate(zip(parts, shares), 1):
            label = f"part {number}" if isinstance(source, Mapping) else str(source)
            members.append(
                (label, share / total, stack.enter_context(opened_state(source, weights)).tensors)
            )
            shapes = [
                {name: tensor.shape for name, tensor in tensors.items()}
                for _, _, tensors in (members[0], members[-1])
            ]
            problem = mismatch(*shapes, "expected files of one network")
            if problem:
                raise CheckpointError.at(
                    label, f"cannot be averaged with {members[0][0]}: it {problem}"
                )
        return {name: _mean(name, members) for name in members[0][2]}


def sha256(path: PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal; of weights in parts that of the names and contents of
    all parts and their index.
    """
    digest = hashlib.sha256()
    if shards.together(path):
        for part in shards.files(path):
            digest.update(f"{part.name} {files.sha256(part)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    return files.sha256(path)


class Streamed:
    """An array of `opened_state` in another shape, as float32 or float16, made when it is written;
    what does not survive is refused.
    """

    def __init__(self, name: str, tensor, shape: Tuple[int, ...], dtype=np.float32):
        self.name, self.tensor, self.shape, self.dtype = name, tensor, shape, np.dtype(dtype)
        self.vanished = 0  # values that became 0, once they have been made

    def numpy(self) -> np.ndarray:
        """The values; raises CheckpointError, by name."""
        stored = _read(self.name, self.tensor)
        if not _finite(stored):
            raise CheckpointError(
                f"array {self.name} holds NaN or infinite values "
                f"({np.count_nonzero(~np.isfinite(stored))} of {stored.size}); its training "
                "diverged, take an earlier file"
            )
        array = _cast(stored, self)
        if array is None:
            largest = stored.flat[np.abs(stored.astype(np.float64)).argmax()]
            raise CheckpointError(
                f"array {self.name} holds {largest:.6g}, too large for {self.dtype}, which ends "
                f"at {np.finfo(self.dtype).max:.6g}; "
                f"{'leave out --half' if self.dtype == np.float16 else 'such weights are of no use, take an earlier file'}"
            )
        self.vanished = int(np.count_nonzero(stored) - np.count_nonzero(array))
        return array


@contextlib.contextmanager
def opened_state(source: Source, weights: str = "ema") -> Iterator[Selection]:
    """One model's arrays, each with `shape` and `read()`, for work on one at a time; readable
    inside of the `with`.
    """
    if weights not in CHOICES:
        raise ValueError(f"weights is {weights!r}; expected 'ema' or 'model'")
    if isinstance(source, Mapping):
        yield Selection({name: own.Held(name, value) for name, value in source.items()})
        return
    with opened(source) as contents:
        selection = (
            select(contents.tree, weights)
            if contents.record is None
            else own.select(contents, weights)
        )
        claimed = sum(tensor.count * tensor.itemsize for tensor in selection.tensors.values())
        if claimed > MAX_GROWTH * contents.size + GROWTH_ALLOWANCE:
            raise CheckpointError(
                f"its arrays claim {claimed} bytes, the file holds {contents.size}; it is corrupt "
                "or hostile"
            )
        yield selection


def _read(name: str, tensor) -> np.ndarray:
    try:
        return tensor.read()
    except CheckpointError as error:
        raise CheckpointError(f"array {name!s:.120}: {error}") from None


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _cast(array: np.ndarray, parameter) -> Optional[np.ndarray]:
    """The array in the parameter's shape and type (bfloat16: float32), None if its values do not
    survive that.
    """
    name = str(parameter.dtype)
    target = np.dtype(np.float32 if name == "bfloat16" else name)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target, copy=False)
    survives = _finite(array) and (
        _finite(result) if target.kind == "f" else bool((result == array).all())
    )
    return result.reshape(shape_of(parameter)) if survives else None


def _assign(parameter, array: np.ndarray) -> None:
    kind = str(parameter.dtype)
    parameter.assign(array)
    if str(parameter.dtype) != kind:
        # NumPy has no bfloat16, and Jittor's assign takes over the type of what it is given.
        parameter.assign(parameter.cast(kind))


def _mean(name: str, members: List[Tuple[str, float, Dict]]) -> np.ndarray:
    mean, first = None, None
    for label, share, tensors in members:
        try:
            array = _read(name, tensors[name])
            if not _finite(array):
                raise CheckpointError(
                    f"{name} holds NaN or infinite values; its training diverged, take an earlier "
                    "file"
                )
            if first is None:
                first, mean = array, np.zeros(array.shape, np.float64)
            if array.dtype.kind == "f":
                mean += share * array.astype(np.float64)
            elif not np.array_equal(array, first):
                raise CheckpointError(
                    f"{name} holds integers that differ from those of {members[0][0]}; expected "
                    "weights of one network"
                )
        except CheckpointError as error:
            raise CheckpointError.at(label, error) from None
    return mean.astype(np.float32) if first.dtype.kind == "f" else first


def _encoded(config) -> Optional[dict]:
    if config is None:
        return None
    if type(config).__name__ not in NETWORKS:
        raise CheckpointError(
            f"its configuration is a {type(config).__name__}; expected one of {', '.join(NETWORKS)}"
        )
    return {"network": type(config).__name__, **dataclasses.asdict(config)}


def _decoded(stored: dict):
    values = dict(stored)
    network = NETWORKS.get(values.pop("network", None))
    if network is None:
        raise ValueError(f"network {stored.get('network')!r:.40} is unknown")
    fields = {field.name: field.default for field in dataclasses.fields(network)}
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise ValueError(f"{network.__name__} has no field {some(unknown)}")
    return network(**{name: _typed(name, value, fields[name]) for name, value in values.items()})


def _typed(name: str, value, default):
    """The JSON value as the type of the field's default, where it has one; raises ValueError for
    another type.
    """
    free = default is None or default is dataclasses.MISSING
    if isinstance(value, list) and (free or isinstance(default, tuple)):
        return tuple(
            _typed(name, item, default[0] if default and not free else None) for item in value
        )
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if not free and type(value) is not type(default):
        raise ValueError(f"field {name} is {value!r:.40}, expected a {type(default).__name__}")
    return value
