"""Where a weight file may be written: in no input's place, and over no other work."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterable, Iterator, List, Mapping, Optional

from jseg.files import PathLike
from jseg.formats import shards
from jseg.formats.reader import read_record
from jseg.formats.tensor import CheckpointError

SUFFIXES = (".safetensors", ".npz", ".pkl")


def check_target(path: PathLike, inputs: Iterable[PathLike] = (), create: bool = False) -> None:
    """Raise CheckpointError unless `checkpoint.save` can write `path` and it is none of the inputs.

    Links are followed. create: the folder may be missing, if it could be made (`folder_of`). An
    input in parts is its index and every part.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise CheckpointError(
            f"cannot save {path}: expected the name of a file that ends in {' or '.join(SUFFIXES)}"
        )
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"cannot save {path}: it is a link to {os.readlink(path)}, which is not there; give "
            "another name"
        )

    # The folder, or the nearest one above it that is there.
    folder = path.absolute().parent
    if not create and not folder.is_dir():
        raise CheckpointError(f"cannot save {path}: the folder does not exist; create it first")
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        what = "a link to nowhere" if folder.is_symlink() else "a file"
        raise CheckpointError(f"cannot save {path}: {folder} is {what}; expected a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CheckpointError(
            f"cannot save {path}: {folder} cannot be written to; give another place"
        )

    # No input's place, also through symbolic and hard links.
    if not path.exists():
        return
    for source in filter(os.path.exists, inputs):
        if any(path.samefile(file) for file in shards.all_files(source)):
            raise CheckpointError(f"cannot save {path}: it is one of the inputs; give another name")


def check_replaceable(
    path: PathLike, origin: Mapping[str, object], network: Optional[str] = None
) -> bool:
    """Whether there is an earlier result of the same work at `path`; anything else is an error.

    origin: what `checkpoint.save` is given to record where the weights come from; network: the name
    of the configuration's class. A file of an older version, which lacks one of these records, is
    judged by the others. Raises CheckpointError.
    """
    if not os.path.lexists(path):
        return False
    try:
        record = read_record(path)
    except (CheckpointError, OSError):
        record = None

    # The first of the origin's records names the inputs.
    extra = _as_today(record.get("extra")) if record else None
    stored = (record or {}).get("config") or {}
    first = next(iter(origin))
    if not isinstance(extra, dict):
        reason = "was not written by this command"
    elif first not in extra:
        reason = "holds weights that were not made by this command"
    elif any(extra.get(key, value) != value for key, value in origin.items()):
        reason = f"was made from others ({str(extra[first])[:200]})"
    elif network is not None and stored.get("network", network) != network:
        reason = f"holds another network ({stored['network']})"
    else:
        return True
    raise CheckpointError(
        f"cannot save {path}: it exists and {reason}; give another name, or move that file away"
    )


def _as_today(extra: object) -> object:
    """A record's `extra`; earlier versions wrote the weight of a merged part as "share"."""
    if not isinstance(extra, dict) or not isinstance(extra.get("merged_from"), list):
        return extra
    parts = [
        {{"share": "weight"}.get(key, key): value for key, value in part.items()}
        if isinstance(part, dict)
        else part
        for part in extra["merged_from"]
    ]
    return {**extra, "merged_from": parts}


@contextlib.contextmanager
def folder_of(path: PathLike) -> Iterator[List[Path]]:
    """Make the folder of `path` if it is missing; yields the folders that were made.

    They are removed again if what is done inside of the `with` fails.
    """
    missing, folder = [], Path(path).absolute().parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    try:
        yield missing
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
