"""Latents and label maps of a training folder on disk: memory-mapped arrays, made once, that no
interruption can spoil.

CACHE/<16 hex digits that name the data>/about.json    the autoencoder and the sizes
                                         latents.npy   float32 [2N, C, h, w]: rows 2i and 2i + 1 are example i and its mirror image
                                         labels.npy    uint8 [2N, h, w], in the same order
                                         keys.npy      uint8 [N, 2, 32]: hashes of what example i's latents and labels were made from

Keys are written after their rows are on the disk. So an example with the wanted keys is whole,
whatever ended the run that made it, and every other is made again. Changed data is another folder:
what has known keys is copied, the rest is made, and the old folder goes when the new one is whole.
Mirrors the files of data_preprocess.py of the release. Nothing here knows Jittor or images.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from jseg.files import DataError, remove_stale_temporaries, write_atomic

FORMAT = 1
ABOUT, LATENTS, LABELS, KEYS = "about.json", "latents.npy", "labels.npy", "keys.npy"
NAME = re.compile(r"^[0-9a-f]{16}$")
SAVE_SECONDS = 10.0  # of work that a kill can cost
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


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
    return hashlib.sha256(
        json.dumps(common, sort_keys=True).encode("ascii") + keys.tobytes()
    ).hexdigest()


def fill(
    cache: Path,
    common: dict,
    keys: np.ndarray,
    make_latents: Callable[[int], np.ndarray],
    make_labels: Callable[[int], np.ndarray],
    tell: Tell = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """The folder in `cache` that holds the rows of all keys, complete; what is not there yet is
    made.

    common: as `about` gives it. keys: uint8 [N, 2, 32], of the latents and of the labels of every
    example. make_latents(i) gives float32 [2, C, h, w] and make_labels(i) uint8 [2, h, w]: example
    i and its mirror image. `tell` gets lines for the user, `progress(done, N)` is called after
    every example. Raises DataError if `cache` was filled by another autoencoder or at another size,
    OSError in one line if it cannot be written; what is finished stays in both cases, as in any
    other interruption.
    """
    if cache.exists() and not cache.is_dir():
        raise DataError(f"cache {cache} is a file; expected a folder, which is created if missing")
    target = cache / digest(common, keys)[:16]
    _check_origin(cache, common)
    if _missing(target, common, keys).size or _others(cache, target):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache, tell):
                _complete(cache, target, common, keys, (make_latents, make_labels), tell, progress)
        except OSError as error:
            if error.errno is None or not _within(error.filename, cache):
                raise
            raise OSError(
                f"cannot write the cache {cache} ({error.strerror}); what is finished stays: make "
                "room or give another folder as --cache, then give the same command again"
            ) from error
    return target


def _within(path: Optional[str], cache: Path) -> bool:
    """Whether an error that names `path` is about the cache: its file descriptors have no name."""
    return path is None or str(path).startswith(str(cache)) or str(cache).startswith(str(path))


def _complete(
    cache: Path,
    target: Path,
    common: dict,
    keys: np.ndarray,
    make: Tuple[Callable, Callable],
    tell: Tell,
    progress: Progress,
) -> None:
    missing = _missing(target, common, keys)
    if missing.size:
        _check_space(cache, common, len(missing))
        if opened(target, common, len(keys)) is None:
            _create(target, common, len(keys))
        known = _known(_others(cache, target), common)
        new = sum(keys[i, 0].tobytes() not in known[0] for i in missing)
        if new:
            tell(
                f"{new} of {len(keys)} images are to be encoded, with their mirror images, into "
                f"{cache}"
            )
        _write_rows(target, opened(target, common, len(keys)), keys, missing, known, make, progress)
    for other in _others(cache, target):
        arrays = opened(other, common)
        images = (
            set() if arrays is None else {row.tobytes() for row in arrays[KEYS][:, 0] if row.any()}
        )
        if images and not images & {row.tobytes() for row in keys[:, 0]}:
            tell(f"{cache} keeps one data set: {len(images)} encoded images of another are removed")
        _remove(other)


def _write_rows(
    target: Path,
    arrays: Dict[str, np.memmap],
    keys: np.ndarray,
    missing: np.ndarray,
    known: Tuple[dict, dict],
    make: Tuple[Callable, Callable],
    progress: Progress,
) -> None:
    files = {name: os.open(str(target / name), os.O_RDWR) for name in arrays}
    finished: List[int] = []
    saved_at = time.monotonic()

    def save():
        os.fsync(files[LATENTS])
        os.fsync(files[LABELS])
        for i in finished:
            _put(files[KEYS], arrays[KEYS], i, keys[i : i + 1])
        os.fsync(files[KEYS])
        finished.clear()

    try:
        for done, i in enumerate(missing.tolist(), start=len(keys) - len(missing) + 1):
            for slot, name in enumerate((LATENTS, LABELS)):
                source = known[slot].get(keys[i, slot].tobytes())
                _put(files[name], arrays[name], 2 * i, source() if source else make[slot](i))
            finished.append(i)
            if time.monotonic() - saved_at >= SAVE_SECONDS:
                save()
                saved_at = time.monotonic()
            progress(done, len(keys))
    finally:  # an error or Ctrl-C loses nothing, a kill the work of SAVE_SECONDS
        try:
            save()
        finally:
            for file in files.values():
                os.close(file)


def opened(
    folder: Path, common: dict, count: Optional[int] = None
) -> Optional[Dict[str, np.memmap]]:
    """{file name: read-only array} of a data set's folder; None unless all is as it should be for
    `common` (and for `count` examples).
    """
    if _read_about(folder) != common:
        return None
    try:
        arrays = {
            name: np.load(str(folder / name), mmap_mode="r") for name in (LATENTS, LABELS, KEYS)
        }
    except (OSError, ValueError, EOFError):  # missing, cut short, or something else
        return None
    layout = _layout(common, len(arrays[KEYS]) if count is None else count)
    sound = all(
        array.shape == layout[name][1] and array.dtype == layout[name][0]
        for name, array in arrays.items()
    )
    return arrays if sound else None


def _missing(folder: Path, common: dict, keys: np.ndarray) -> np.ndarray:
    arrays = opened(folder, common, len(keys))
    return (
        np.arange(len(keys))
        if arrays is None
        else np.flatnonzero((arrays[KEYS] != keys).any(axis=(1, 2)))
    )


def _known(
    folders: List[Path], common: dict
) -> Tuple[Dict[bytes, Callable], Dict[bytes, Callable]]:
    """For latents and for labels: {key: a function that gives the two rows}."""
    found: Tuple[Dict[bytes, Callable], Dict[bytes, Callable]] = ({}, {})
    for folder in folders:
        arrays = opened(folder, common) or {KEYS: np.zeros((0, 2, 32), np.uint8)}
        for slot, name in enumerate((LATENTS, LABELS)):
            for i in np.flatnonzero(arrays[KEYS][:, slot].any(axis=1)).tolist():
                found[slot][arrays[KEYS][i, slot].tobytes()] = lambda rows=arrays[name], i=i: rows[
                    2 * i : 2 * i + 2
                ]
    return found


def _check_origin(cache: Path, common: dict) -> None:
    for folder in _others(cache, None):
        other = _read_about(folder)
        if other is None or other == common:
            continue
        if other.get("autoencoder") != common["autoencoder"]:
            raise DataError(
                f"cache {cache} was made by another autoencoder (SHA-256 "
                f"{other.get('autoencoder')!s:.12}..., the one given has "
                f"{common['autoencoder']!s:.12}...); give that one as --ae_path, give another "
                f"folder as --cache, or delete {folder}"
            )
        mine, theirs = (
            tuple(map(made.get, ("width", "height", "latent"))) for made in (common, other)
        )
        if mine != theirs:
            raise DataError(
                "cache %s is for images of %sx%s and latents of %s, not of %sx%s and %s; give "
                "that size, give another folder as --cache, or delete %s"
                % ((cache,) + theirs + mine + (folder,))
            )
        raise DataError(
            f"cache {cache} was made by another version of jseg; give another folder as --cache, "
            f"or delete {folder}"
        )


def _read_about(folder: Path) -> Optional[dict]:
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _others(cache: Path, target: Optional[Path]) -> List[Path]:
    """The folders in `cache` that were made for other data, by their own word: a name alone proves
    nothing.
    """
    if not cache.is_dir():
        return []
    named = sorted(
        entry
        for entry in cache.iterdir()
        if NAME.match(entry.name) and entry.is_dir() and entry != target
    )
    return [
        entry
        for entry in named
        if (_read_about(entry) or {}).keys() >= {"format", "autoencoder", "latent"}
    ]


def _layout(common: dict, count: int) -> Dict[str, Tuple[str, tuple]]:
    latent = tuple(common["latent"])
    return {
        LATENTS: ("<f4", (2 * count,) + latent),
        LABELS: ("|u1", (2 * count,) + latent[1:]),
        KEYS: ("|u1", (count, 2, 32)),
    }


def _empty(dtype: str, shape: tuple) -> Tuple[bytes, int]:
    """The beginning of an .npy file and the size of all of it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue(), buffer.tell() + np.dtype(dtype).itemsize * int(
        np.prod(shape, dtype=np.int64)
    )


def _create(folder: Path, common: dict, count: int) -> None:
    folder.mkdir(exist_ok=True)
    remove_stale_temporaries(folder)
    if (folder / KEYS).exists():
        (folder / KEYS).unlink()  # first: keys must never speak for other rows
    write_atomic(
        folder / ABOUT, lambda file: file.write(json.dumps(common, sort_keys=True).encode("ascii"))
    )
    layout = _layout(common, count)
    for name in (LATENTS, LABELS):
        header, size = _empty(*layout[name])
        with open(folder / name, "wb") as file:
            file.write(header)
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
    header, size = _empty(*layout[KEYS])
    write_atomic(folder / KEYS, lambda file: file.write(header + bytes(size - len(header))))


def _put(file: int, array: np.memmap, row: int, values: np.ndarray) -> None:
    """Write `values` from `row` of the array on; by the file and not the memory map, where a full
    disk is a SIGBUS and no error.
    """
    assert values.shape[1:] == array.shape[1:], (values.shape, array.shape)
    data = memoryview(np.ascontiguousarray(values, array.dtype)).cast("B")
    position = array.offset + row * (len(data) // len(values))
    while data:
        written = os.pwrite(file, data, position)
        data, position = data[written:], position + written


def _check_space(cache: Path, common: dict, examples: int) -> None:
    needed = sum(
        np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        for dtype, shape in _layout(common, examples).values()
    )
    free = shutil.disk_usage(str(cache)).free
    if needed > free:
        raise OSError(
            f"the cache {cache} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "make room or give another folder as --cache"
        )


def _remove(folder: Path) -> None:
    for name in (KEYS, LATENTS, LABELS, ABOUT):  # the last says whose folder it is
        if (folder / name).exists():
            (folder / name).unlink()
    remove_stale_temporaries(folder)
    try:
        folder.rmdir()
    except OSError:
        pass  # something of the user's is in it


@contextmanager
def _locked(cache: Path, tell: Tell) -> Iterator[None]:
    """One process at a time; the system ends the lock when the process ends, however it does."""
    with open(cache / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                tell(f"another process is filling {cache}; waiting until it is done")
                fcntl.lockf(file, fcntl.LOCK_EX)
            elif error.errno not in (
                errno.ENOLCK,
                errno.ENOSYS,
                errno.EOPNOTSUPP,
            ):  # a file system without locks
                raise
        yield
