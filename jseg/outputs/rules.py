"""The one rule for every folder and file that a command writes: nothing of the user's is lost,
nothing of others is mixed in.

`claim` is asked before anything is written. It refuses an output that would take the place of an
input, names that are taken by files which the same work did not write, and places that cannot be
written. `held` keeps a folder for one process at a time, `held_files` single files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import Collection, Iterable, Iterator, List, Optional

from jseg.files import DataError, PathLike

LOCK = ".jseg-lock"
MOST = 1000  # files that are counted in a folder of another origin


class OutputError(DataError):
    """A folder that results cannot be written into; one line: what is there, what to do."""


def claim(
    folder: PathLike,
    option: str,
    command: str,
    names: Collection[str],
    inputs: Iterable[PathLike] = (),
    places: Iterable[PathLike] = (),
    known: Optional[Collection[str]] = (),
    record: str = "run.json",
    needed: int = 0,
) -> None:
    """Raise OutputError unless `command` may write `names`, relative to `folder`, without a
    loss; writes nothing.

    option: the one that gives the folder, for the messages. inputs: files that are read. places:
    folders that inputs are looked for in, there or not. known: those of the names that the same
    work has written before, as `record` says; None: all of them. needed: bytes of room.
    """
    folder = Path(folder)
    check_folder(folder, option, needed)
    check_origin(folder, option, command)
    check_inputs(folder, option, list(names) + [record], inputs, places)
    check_names(folder, option, names, known, record)


def check_folder(folder: PathLike, option: str, needed: int = 0) -> None:
    """Raise OutputError unless the folder is there or can be made, can be written into, and has
    room for `needed` bytes."""
    folder = Path(folder)
    existing = folder
    while not existing.exists() and existing != existing.parent:
        # A link to nowhere does not exist, and no folder can be made under its name.
        if existing.is_symlink():
            raise OutputError(
                f"{option} {folder}: {existing} is a link to "
                f"{os.readlink(str(existing))}, which does not exist; "
                f"make that folder, or give another {option}"
            )
        existing = existing.parent
    if not existing.is_dir():
        said = folder if existing == folder else f"{folder}: {existing}"
        raise OutputError(
            f"{option} {said} is a file; expected a folder, which is created if missing"
        )
    if not os.access(str(existing), os.W_OK | os.X_OK):
        said = folder if existing == folder else f"{folder}: {existing}"
        raise OutputError(f"{option} {said} cannot be written; give a folder that can")
    free = free_bytes(existing)
    if needed > free:
        raise OutputError(
            f"{option} {folder} has {free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB "
            f"may be needed; free some room or "
            f"give another folder"
        )


def free_bytes(folder: PathLike) -> int:
    """Room on the disk of a folder that is there or is to be made."""
    folder = Path(folder)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(str(folder)).free


def check_origin(folder: PathLike, option: str, command: str) -> None:
    """Raise OutputError if the folder holds the record of another command, or is one that such a
    command keeps results in."""
    from jseg.outputs.records import (  # what reads images is of no use to who writes files
        kept_by,
        origin,
    )

    found = origin(folder)
    if found not in (None, command):
        said = "the run of a training" if found == "train" else f"results of the {found} command"
        raise OutputError(f"{option} {folder}: this folder holds {said}; give another {option}")
    owner = kept_by(folder) if found is None else None
    if owner:
        raise OutputError(
            f"{option} {folder}: the {owner} command keeps results in this folder; "
            f"give another {option}"
        )


def check_inputs(
    folder: PathLike,
    option: str,
    names: Iterable[str],
    inputs: Iterable[PathLike],
    places: Iterable[PathLike] = (),
) -> None:
    """Raise OutputError if a file to be written would take an input's place, by whatever
    spelling or link, or if the folder, or one in it that is written into, is a folder that
    inputs are looked for in."""
    folder, names = Path(folder), list(names)
    parents = {
        str(Path(name).parent): os.path.realpath(str(folder / Path(name).parent)) for name in names
    }
    parents["."] = os.path.realpath(str(folder))

    # Folders first: one line about them says more than one about the first of their files.
    read = {identity: place for place in places for identity in _identities(place)}
    for parent in sorted(parents):
        for identity in _identities(folder / parent):
            if identity in read:
                raise OutputError(
                    f"{option} {folder}: {folder / parent} is where inputs are read "
                    f"from ({read[identity]}); "
                    f"expected a folder of its own, give another {option}"
                )

    taken = {identity: path for path in inputs for identity in _identities(path)}
    lost = []
    for name in names:
        path = os.path.join(parents[str(Path(name).parent)], Path(name).name)
        lost += [
            taken[identity] for identity in _identities(path)[::-1] + [path] if identity in taken
        ][:1]
    if lost:
        more = f" and {len(lost) - 1} more inputs" if len(lost) > 1 else ""
        raise OutputError(
            f"{option} {folder}: a result would take the place of the input "
            f"{lost[0]}{more}; give another {option}"
        )


def _identities(path: PathLike) -> List[object]:
    """What tells one file or folder from others, however it is spelled: its real path and, if it
    is there, its place on the disk."""
    found: List[object] = [os.path.realpath(str(path))]
    with contextlib.suppress(OSError, ValueError):
        about = os.stat(str(path))
        found.append((about.st_dev, about.st_ino))
    return found


def check_names(
    folder: PathLike,
    option: str,
    names: Iterable[str],
    known: Optional[Collection[str]] = (),
    record: str = "run.json",
) -> None:
    """Raise OutputError if one of `names` is taken in the folder and not `known` (None: all
    are), or is a folder."""
    folder, names = Path(folder), list(names)
    folders = [name for name in names if os.path.isdir(str(folder / name))]
    if folders:
        raise OutputError(
            f"{option} {folder}: {folders[0]} is a folder ({len(folders)} of the "
            f"results' names are taken); give "
            f"another {option}, or move it away"
        )

    # A file in the way of a folder, or a link to nowhere, stops a run as surely as a taken name,
    # only later.
    for parent in sorted(
        {parent for name in names for parent in Path(name).parents if parent != Path(".")}
    ):
        if os.path.lexists(str(folder / parent)) and not (folder / parent).is_dir():
            raise OutputError(
                f"{option} {folder}: {parent} is no folder; give another {option}, or move it away"
            )

    strangers = (
        []
        if known is None
        else [name for name in names if name not in known and os.path.lexists(str(folder / name))]
    )
    if strangers:
        there = os.path.lexists(str(folder / record))
        why = (
            f"which {record} does not tell to be its own"
            if there
            else f"but no {record} that says how it was made"
        )
        raise OutputError(
            f"{option} {folder} holds {strangers[0]} ({len(strangers)} of the "
            f"results' names are taken) {why}; give "
            f"another {option}, or move those files away"
        )


def check_empty(folder: PathLike, option: str, record: str, ours: Collection[str] = ()) -> None:
    """Raise OutputError if the folder holds any file but `ours`, hidden ones apart; it names one
    and counts them."""
    strangers: List[str] = []
    for parent, below, files in os.walk(str(folder)):
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = os.path.relpath(parent, str(folder))
        strangers += [
            name
            for name in (os.path.normpath(os.path.join(relative, file)) for file in sorted(files))
            if not os.path.basename(name).startswith(".") and name not in ours
        ]
        if len(strangers) >= MOST:
            break
    if strangers:
        count = (
            f"{MOST} files or more"
            if len(strangers) >= MOST
            else "1 file"
            if len(strangers) == 1
            else f"{len(strangers)} files"
        )
        raise OutputError(
            f"{option} {folder} holds {count} of another origin, such as "
            f"{strangers[0]}, and no {record} that says how "
            f"they were made; give a new or an empty folder"
        )


def check_cache(
    folder: PathLike,
    option: str,
    output: PathLike,
    inputs: Iterable[PathLike] = (),
    places: Iterable[PathLike] = (),
) -> None:
    """Raise OutputError unless `folder` can keep what is computed: neither an input's folder nor
    that of the results, and without files, for a cache of ours is made of folders alone."""
    check_folder(folder, option)
    if os.path.realpath(str(folder)) == os.path.realpath(str(output)):
        raise OutputError(
            f"{option} {folder} is the folder of the results; give the cache a folder of its own"
        )
    check_inputs(folder, option, [], inputs, places)
    names = sorted(os.listdir(str(folder))) if os.path.isdir(str(folder)) else []
    files = [
        name for name in names if not name.startswith(".") and not (Path(folder) / name).is_dir()
    ]
    if files:
        raise OutputError(
            f"{option} {folder} holds {len(files)} files of another origin, such as "
            f"{files[0]}; give a new or an empty folder, or that of an earlier cache"
        )


def check_file(
    path: PathLike, option: str, inputs: Iterable[PathLike] = (), known: bool = False
) -> None:
    """Raise OutputError unless a single file can be written at `path`: no input, not there
    unless `known` to be this work's own."""
    path = Path(path)
    check_folder(path.parent, option)
    check_inputs(path.parent, option, [path.name], inputs)
    if path.is_dir():
        raise OutputError(f"{option} {path} is a folder; expected a file")
    if os.path.lexists(str(path)) and not known:
        raise OutputError(
            f"{option} {path} is there already and was not written by this call; "
            f"give another name, or move it away"
        )


@contextlib.contextmanager
def held(folder: PathLike) -> Iterator[None]:
    """`locked`, and the folder is made where it is missing; what was made goes again if nothing
    was written into it."""
    with _made(Path(folder)), locked(folder):
        yield


@contextlib.contextmanager
def held_files(paths: Iterable[PathLike]) -> Iterator[None]:
    """As `held` for single files that are going to be written, by their names, there or not.

    Ask once more inside of the `with` whether they may be replaced: another run may have written
    them since.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted(
            Path(os.path.realpath(str(Path(path).parent))) / Path(path).name for path in paths
        ):
            stack.enter_context(_made(path.parent))
            name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[
                :16
            ]  # as long as any name may be
            stack.enter_context(_lock(path.parent / f"{LOCK}-{name}", path, "name"))
        yield


@contextlib.contextmanager
def locked(folder: PathLike) -> Iterator[None]:
    """Hold `folder`, which exists, for this process alone, until the `with` ends or the process
    does.

    The lock is the system's own on the hidden file LOCK, so a killed process holds nothing; the
    file goes when the `with` ends. Where the file system knows no locks, nothing is held. Raises
    OutputError, which names the process that holds the folder.
    """
    with _lock(Path(folder) / LOCK, Path(folder), "folder"):
        yield


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


@contextlib.contextmanager
def _lock(path: Path, output: Path, kind: str) -> Iterator[None]:
    """Hold the hidden file `path` for the work on `output`, which is a "folder" or the "name" of
    a file."""
    descriptor = _locked_file(path, output, kind)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _locked_file(path: Path, output: Path, kind: str):
    while True:
        try:
            descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{output} cannot be written, for {path.parent} takes no new file "
                f"({error.strerror}); give another {kind}, or make room"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            process = f" (process {holder})" if holder.isdigit() else ""
            raise OutputError(
                f"{output} is being written by another run of jseg{process}; wait "
                f"for it, stop it, or give another {kind}"
            ) from None
        except OSError:  # a network file system without locks
            os.close(descriptor)
            return None

        # The holder before us may have removed the file between our opening and locking it: then
        # the lock is on a file without a name.
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
            return descriptor
        os.close(descriptor)
