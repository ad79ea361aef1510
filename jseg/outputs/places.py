"""Where a command may write: nothing of the user's is lost, and nothing of others is mixed in.

`claim` is asked before anything is written. It refuses an output that would take the place of an
input, names that are taken by files which the same work did not write, and places that cannot be
written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Collection, Iterable, Iterator, List

from jseg.counting import counted
from jseg.files import DataError, PathLike

TAKEN = "of the results' names [is|are] taken"
MOST = 1000  # foreign files in a folder are counted up to here


class OutputError(DataError):
    """A place that results cannot be written to; one line: what is there, what to do."""


def claim(
    folder: PathLike,
    option: str,
    command: str,
    names: Collection[str],
    inputs: Iterable[PathLike] = (),
    places: Iterable[PathLike] = (),
    known: Collection[str] = (),
    record: str = "run.json",
    needed: int = 0,
    work: str = "",
) -> None:
    """Raise OutputError unless `command` may write `names` into `folder` without a loss.

    Writes nothing. option: the one that gives the folder, for the messages. inputs: files that are
    read. places: folders that inputs are looked for in, there or not. known: names that the same
    work has written before, as `record` says. needed, work: bytes of room, and what they are for.
    """
    check_folder(folder, option, needed, work)
    check_origin(folder, option, command)
    check_inputs(folder, option, [*names, record], inputs, places)
    check_names(folder, option, names, known, record)


def check_folder(folder: PathLike, option: str, needed: int = 0, work: str = "") -> None:
    """Raise OutputError unless a folder can be written, and made where it is missing.

    needed: bytes of room on its disk. work: what they are needed for, for the message.
    """
    place = existing = Path(folder)
    while not existing.exists() and existing != existing.parent:
        # A link to nowhere does not exist, and no folder can be made under its name.
        if existing.is_symlink():
            raise OutputError(
                f"{option} {place}: {existing} is a link to {os.readlink(str(existing))}, which "
                f"does not exist; make that folder, or give another {option}"
            )
        existing = existing.parent

    culprit = f"{option} {place}" + (f": {existing}" if existing != place else "")
    if not existing.is_dir():
        raise OutputError(f"{culprit} is a file; expected a folder, which is created if missing")
    if not os.access(str(existing), os.W_OK | os.X_OK):
        raise OutputError(f"{culprit} cannot be written; give a folder that can")
    free = free_bytes(existing)
    if needed > free:
        purpose = f" for {work}" if work else ""
        raise OutputError(
            f"{option} {place} has {free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB may be needed"
            f"{purpose}; free some room or give another folder"
        )


def free_bytes(folder: PathLike) -> int:
    """The bytes that are free on the disk of a folder, which may not exist yet."""
    place = Path(folder)
    existing = next(parent for parent in (place, *place.parents) if parent.exists())
    return shutil.disk_usage(str(existing)).free


def check_origin(folder: PathLike, option: str, command: str) -> None:
    """Raise OutputError if another command has its results in the folder or keeps some there."""
    from jseg.outputs.origin import keeper, origin  # reads images, which most writers do not need

    owner = origin(folder)
    if owner is not None and owner != command:
        said = "the run of a training" if owner == "train" else f"results of the {owner} command"
        raise OutputError(f"{option} {folder}: this folder holds {said}; give another {option}")
    above = keeper(folder) if owner is None else None
    if above:
        raise OutputError(
            f"{option} {folder}: the {above} command keeps results in this folder; give another "
            f"{option}"
        )


def check_inputs(
    folder: PathLike,
    option: str,
    names: Iterable[str],
    inputs: Iterable[PathLike],
    places: Iterable[PathLike] = (),
) -> None:
    """Raise OutputError if a file to be written would take an input's place.

    Every spelling and every link counts. It is an error, too, if results would go into one of
    `places`, the folders that inputs are looked for in.
    """
    root, relative = Path(folder), [Path(name) for name in names]
    parents = {parent: os.path.realpath(str(root / parent)) for parent in _parents(relative)}

    # Folders first: one line about a folder says more than one about the first of its files.
    read = {identity: place for place in places for identity in _identities(place)}
    for parent in sorted(parents):
        for identity in _identities(root / parent):
            if identity in read:
                raise OutputError(
                    f"{option} {root}: {root / parent} is where inputs are read from "
                    f"({read[identity]}); expected a folder of its own, give another {option}"
                )

    # A file is known by its real path and its place on the disk, and by the name it will replace.
    taken = {identity: path for path in inputs for identity in _identities(path)}
    lost = []
    for name in relative:
        path = os.path.join(parents[name.parent], name.name)
        lost += [taken[known] for known in [*_identities(path)[::-1], path] if known in taken][:1]
    if lost:
        more = f" and {counted(len(lost) - 1, 'more input[s]')}" if len(lost) > 1 else ""
        raise OutputError(
            f"{option} {root}: a result would take the place of the input {lost[0]}{more}; give "
            f"another {option}"
        )


def _parents(names: Iterable[Path]) -> List[Path]:
    return list(dict.fromkeys([Path("."), *(name.parent for name in names)]))


def _identities(path: PathLike) -> List[object]:
    """What tells a file or folder from others: its real path and, if it exists, its inode."""
    identities: List[object] = [os.path.realpath(str(path))]
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(str(path))
        identities.append((status.st_dev, status.st_ino))
    return identities


def check_names(
    folder: PathLike,
    option: str,
    names: Iterable[str],
    known: Collection[str] = (),
    record: str = "run.json",
) -> None:
    """Raise OutputError if one of `names` is a folder, or a file there that is not `known`."""
    root, wanted = Path(folder), list(names)
    folders = [name for name in wanted if os.path.isdir(str(root / name))]
    if folders:
        raise OutputError(
            f"{option} {root}: {folders[0]} is a folder ({counted(len(folders), TAKEN)}); "
            f"give another {option}, or move it away"
        )

    # A file in the way of a folder, or a link to nowhere, would stop the work later.
    inner = {parent for name in wanted for parent in Path(name).parents} - {Path(".")}
    for parent in sorted(inner):
        if os.path.lexists(str(root / parent)) and not (root / parent).is_dir():
            raise OutputError(
                f"{option} {root}: {parent} is no folder; give another {option}, or move it away"
            )

    foreign = [name for name in wanted if name not in known and os.path.lexists(str(root / name))]
    if foreign:
        why = (
            f"which {record} does not list"
            if os.path.lexists(str(root / record))
            else f"but no {record} that says how it was made"
        )
        raise OutputError(
            f"{option} {root} holds {foreign[0]} ({counted(len(foreign), TAKEN)}) "
            f"{why}; give another {option}, or move those files away"
        )


def check_empty(folder: PathLike, option: str, record: str, ours: Collection[str] = ()) -> None:
    """Raise OutputError if the folder holds any visible file that is not in `ours`.

    The message names one of them and counts them.
    """
    foreign: List[str] = []
    for name in _visible_files(folder):
        foreign += [name] * (name not in ours)
        if len(foreign) == MOST:
            break
    if foreign:
        count = len(foreign)
        files = f"{count} files or more" if count == MOST else counted(count, "file[s]")
        raise OutputError(
            f"{option} {folder} holds {files} of another origin, such as {foreign[0]}, and no "
            f"{record} that says how they were made; give a new or an empty folder"
        )


def _visible_files(folder: PathLike) -> Iterator[str]:
    """The files in a folder and below, relative to it, hidden files and folders left out."""
    for parent, below, files in os.walk(str(folder)):
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = os.path.relpath(parent, str(folder))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.normpath(os.path.join(relative, name))


def check_cache(
    folder: PathLike,
    option: str,
    output: PathLike,
    inputs: Iterable[PathLike] = (),
    places: Iterable[PathLike] = (),
) -> None:
    """Raise OutputError unless `folder` can keep what is computed.

    It must be neither an input's folder nor that of the results, and hold no visible files: a
    cache of ours is made of folders alone.
    """
    check_folder(folder, option)
    if os.path.realpath(str(folder)) == os.path.realpath(str(output)):
        raise OutputError(
            f"{option} {folder} is the folder of the results; give the cache a folder of its own"
        )
    check_inputs(folder, option, [], inputs, places)

    root = Path(folder)
    names = sorted(os.listdir(str(root))) if root.is_dir() else []
    files = [name for name in names if not name.startswith(".") and not (root / name).is_dir()]
    if files:
        raise OutputError(
            f"{option} {root} holds {counted(len(files), 'file[s]')} of another origin, such as "
            f"{files[0]}; give a new or an empty folder, or that of an earlier cache"
        )


def check_file(
    path: PathLike, option: str, inputs: Iterable[PathLike] = (), known: bool = False
) -> None:
    """Raise OutputError unless a single file can be written at `path`.

    It must be no input, and must not exist unless `known` to be this work's own.
    """
    target = Path(path)
    check_folder(target.parent, option)
    check_inputs(target.parent, option, [target.name], inputs)
    if target.is_dir():
        raise OutputError(f"{option} {target} is a folder; expected a file")
    if os.path.lexists(str(target)) and not known:
        raise OutputError(
            f"{option} {target} is there already and was not written by this call; give another "
            "name, or move it away"
        )
