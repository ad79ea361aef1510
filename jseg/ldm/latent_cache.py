"""Latents and label maps of a training folder on disk: made once, and no interruption spoils them.

CACHE/<16 hex digits that name the data>/ has the files of `jseg.ldm.cache_files`. Keys are written
after their rows are on the disk. So an example with the wanted keys is whole, whatever ended the
run that made it, and every other is made again. Changed data is another folder: what has known keys
is copied, the rest is made, and the old folder goes when the new one is whole. Mirrors the files of
data_preprocess.py of the release. Nothing here knows Jittor or images.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import numpy as np

from jseg.counting import agreeing, counted
from jseg.files import DataError
from jseg.ldm.cache_files import (
    KEYS,
    LABELS,
    LATENTS,
    array_bytes,
    create,
    digest,
    layout,
    read_about,
    read_arrays,
    remove,
    write_rows,
)

NAME = re.compile(r"^[0-9a-f]{16}$")
SAVE_SECONDS = 10.0  # of work that a kill can cost
TOLD_SECONDS = 60.0  # between two lines about a long encoding
Tell = Callable[[str], None]
Make = Callable[[int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Rows:
    """What N examples are known by, and how their rows are made.

    keys: uint8 [N, 2, 32], of the latents and of the labels. make_latents(i) returns float32 [2, C,
    h, w] and make_labels(i) uint8 [2, h, w]: example i and its mirror image.
    """

    keys: np.ndarray
    make_latents: Make
    make_labels: Make

    def __len__(self) -> int:
        return len(self.keys)


class OneProcess:
    """What `jseg.training.distributed` is where there is one process, without Jittor."""

    @staticmethod
    def rank() -> int:
        return 0

    @staticmethod
    def world_size() -> int:
        return 1

    @staticmethod
    def from_first(make):
        return make()

    @staticmethod
    def barrier() -> None:
        pass


def fill(
    cache: Path,
    common: dict,
    rows: Rows,
    tell: Tell = lambda line: None,
    processes=OneProcess,
) -> Path:
    """The folder in `cache` that holds all rows, complete; what is not there yet is made.

    common: as `jseg.ldm.cache_files.about` returns it. `tell` gets lines for the user. processes:
    `jseg.training.distributed` where several call it; each makes its part, and process 0 holds the
    cache. Raises DataError if `cache` was filled by another autoencoder or at another size, OSError
    in one line if it cannot be written; what is finished stays in both cases, as in any other
    interruption.
    """
    target = cache / digest(common, rows.keys)[:16]
    if processes.from_first(lambda: _is_complete(cache, target, common, rows)):
        return target

    # Errors of the disk name the cache and say how to go on.
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with nullcontext() if processes.rank() else _locked(cache, tell):
            _complete(cache, target, common, rows, tell, processes)
    except OSError as error:
        if error.errno is None or not _is_about(error.filename, cache):
            raise
        raise OSError(
            f"cannot write the cache {cache} ({error.strerror}); what is finished stays: make "
            "room or give another folder as --cache, then give the same command again"
        ) from error
    return target


def _is_complete(cache: Path, target: Path, common: dict, rows: Rows) -> bool:
    """Whether there is nothing to do; raises DataError where the cache is of another kind."""
    if cache.exists() and not cache.is_dir():
        raise DataError(f"cache {cache} is a file; expected a folder, which is created if missing")
    _check_origin(cache, common)
    return not _missing(target, common, rows).size and not _others(cache, target)


def _is_about(path: Optional[str], cache: Path) -> bool:
    """Whether an error that names `path` is about the cache: its file descriptors have no name."""
    return path is None or str(path).startswith(str(cache)) or str(cache).startswith(str(path))


def _complete(cache: Path, target: Path, common: dict, rows: Rows, tell: Tell, processes) -> None:
    missing = processes.from_first(lambda: _begun(cache, target, common, rows, tell))
    if missing.size:
        known = _known(_others(cache, target), common)
        arrays = read_arrays(target, common, len(rows))
        own = np.array_split(missing, processes.world_size())[processes.rank()]
        pace = _Pace(len(rows), len(missing), processes.world_size(), tell)
        _write(target, arrays, rows, own, known, pace)
        processes.barrier()
    if processes.rank():
        return

    # The new folder is whole: the old ones go.
    images = {key.tobytes() for key in rows.keys[:, 0]}
    for other in _others(cache, target):
        arrays = read_arrays(other, common)
        others = (
            [] if arrays is None else [key.tobytes() for key in arrays[KEYS][:, 0] if key.any()]
        )
        if others and not images & set(others):
            words = "encoded image[s] of another [is|are] removed"
            tell(f"{cache} keeps one data set: {counted(len(set(others)), words)}")
        remove(other)


def _begun(cache: Path, target: Path, common: dict, rows: Rows, tell: Tell) -> np.ndarray:
    """The rows that are missing in `target`, which is there afterwards with room for them."""
    missing = _missing(target, common, rows)
    if missing.size:
        _check_space(cache, common, len(missing))
        if read_arrays(target, common, len(rows)) is None:
            create(target, common, len(rows))
        known = _known(_others(cache, target), common)
        new = sum(rows.keys[i, 0].tobytes() not in known[LATENTS] for i in missing)
        if new:
            words = "[is|are] to be encoded, with [its mirror image|their mirror images]"
            images = counted(len(rows), "image[s]")
            tell(f"{new} of {images} {agreeing(new, words)}, into {cache}")
    return missing


def _write(
    target: Path,
    arrays: Dict[str, np.memmap],
    rows: Rows,
    missing: np.ndarray,
    known: Dict[str, Dict[bytes, Callable[[], np.ndarray]]],
    pace: _Pace,
) -> None:
    """Write the missing rows; an error or Ctrl-C loses nothing, a kill the work of SAVE_SECONDS."""
    files = {name: os.open(str(target / name), os.O_RDWR) for name in arrays}
    finished: List[int] = []
    saved_at = time.monotonic()

    def save() -> None:
        os.fsync(files[LATENTS])
        os.fsync(files[LABELS])
        for i in finished:
            write_rows(files[KEYS], arrays[KEYS], i, rows.keys[i : i + 1])
        os.fsync(files[KEYS])
        finished.clear()

    try:
        for i in missing.tolist():
            for slot, name, make in (
                (0, LATENTS, rows.make_latents),
                (1, LABELS, rows.make_labels),
            ):
                copy = known[name].get(rows.keys[i, slot].tobytes())
                write_rows(files[name], arrays[name], 2 * i, copy() if copy else make(i))
            finished.append(i)
            if time.monotonic() - saved_at >= SAVE_SECONDS:
                save()
                saved_at = time.monotonic()
            pace.count()
    finally:
        try:
            save()
        finally:
            for file in files.values():
                os.close(file)


class _Pace:
    """A line a minute on how many images are encoded, and how long the others will take; the
    processes are taken to be equally fast.
    """

    def __init__(self, total: int, missing: int, world: int, tell: Tell):
        self.total, self.world, self.tell = total, world, tell
        self.done = self.first = total - missing
        self.started = self.last_line = time.monotonic()

    def count(self) -> None:
        self.done = min(self.total, self.done + self.world)
        now = time.monotonic()
        if now - self.last_line < TOLD_SECONDS:
            return
        self.last_line = now
        left = (now - self.started) / (self.done - self.first) * (self.total - self.done)
        self.tell(f"{self.done} of {self.total} images are encoded, about {left / 60:.0f} min left")


def _missing(folder: Path, common: dict, rows: Rows) -> np.ndarray:
    arrays = read_arrays(folder, common, len(rows))
    if arrays is None:
        return np.arange(len(rows))
    return np.flatnonzero((arrays[KEYS] != rows.keys).any(axis=(1, 2)))


def _known(folders: List[Path], common: dict) -> Dict[str, Dict[bytes, Callable[[], np.ndarray]]]:
    """For latents and for labels: {key: a function that returns the two rows}."""

    def reader(array: np.memmap, i: int) -> Callable[[], np.ndarray]:
        return lambda: array[2 * i : 2 * i + 2]

    known: Dict[str, Dict[bytes, Callable[[], np.ndarray]]] = {LATENTS: {}, LABELS: {}}
    for folder in folders:
        arrays = read_arrays(folder, common)
        if arrays is None:
            continue
        for slot, name in enumerate((LATENTS, LABELS)):
            keys = arrays[KEYS][:, slot]
            for i in np.flatnonzero(keys.any(axis=1)).tolist():
                known[name][keys[i].tobytes()] = reader(arrays[name], i)
    return known


def _check_origin(cache: Path, common: dict) -> None:
    """Raise DataError where the cache holds latents of something else than `common`."""
    for folder in _others(cache, None):
        other = read_about(folder)
        if other is None or other == common:
            continue
        if other.get("autoencoder") != common["autoencoder"]:
            raise DataError(
                f"cache {cache} was made by another autoencoder (SHA-256 "
                f"{other.get('autoencoder')!s:.12}..., the one given has "
                f"{common['autoencoder']!s:.12}...); give that one as --ae_path, give another "
                f"folder as --cache, or delete {folder}"
            )

        # The same autoencoder at another size, or a file of another format.
        mine, theirs = (_sizes(made) for made in (common, other))
        if mine != theirs:
            raise DataError(
                f"cache {cache} is for {theirs}, not for {mine}; give that size, give another "
                f"folder as --cache, or delete {folder}"
            )
        raise DataError(
            f"cache {cache} was made by another version of jseg; give another folder as --cache, "
            f"or delete {folder}"
        )


def _sizes(common: dict) -> str:
    size = f"{common.get('width')}x{common.get('height')}"
    return f"images of {size} and latents of {common.get('latent')}"


def _others(cache: Path, target: Optional[Path]) -> List[Path]:
    """The folders in `cache` that say of themselves that they were made for other data.

    A name alone proves nothing.
    """
    if not cache.is_dir():
        return []
    named = [path for path in sorted(cache.iterdir()) if NAME.match(path.name) and path.is_dir()]
    fields = {"format", "autoencoder", "latent"}
    return [path for path in named if path != target and (read_about(path) or {}).keys() >= fields]


def _check_space(cache: Path, common: dict, examples: int) -> None:
    needed = sum(array_bytes(*array) for array in layout(common, examples).values())
    free = shutil.disk_usage(str(cache)).free
    if needed > free:
        raise OSError(
            f"the cache {cache} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "make room or give another folder as --cache"
        )


@contextmanager
def _locked(cache: Path, tell: Tell) -> Iterator[None]:
    """One process at a time; the system ends the lock when the process ends, however it does."""
    no_locks = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system
    with open(cache / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                tell(f"another process is filling {cache}; waiting until it is done")
                fcntl.lockf(file, fcntl.LOCK_EX)
            elif error.errno not in no_locks:
                raise
        yield
