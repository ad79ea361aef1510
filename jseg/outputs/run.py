"""The run.json of an output folder: a second call goes on with the work, or refuses to mix.

One object, as `jseg.outputs.record` writes it: "settings", "versions" of everything that the
results depend on, "files", and what the command adds, such as "pictures" and "seconds".
"""

from __future__ import annotations

import contextlib
import functools
import platform
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from jseg import __version__
from jseg.counting import agreeing, counted
from jseg.files import sha256
from jseg.outputs.places import check_folder, check_origin
from jseg.outputs.record import FORMAT, is_own, listed, own_record, write_json, writing
from jseg.outputs.settings import WHEN_MISSING, compared, plain, refusal, said

NAME = "run.json"
FREE = ("batch_size", "device")  # settings that change the last bits at most
OWN_KEYS = ("format", "command", "settings", "versions", "files")
SHOWN = 5  # names in a message


@dataclass
class Run:
    """An output folder that a command works in, and the content of its run.json.

    settings: all that the results depend on. fields: what the command records beside them. files:
    {name relative to the folder: SHA-256, or "" for one that is about to be written}.
    """

    folder: Path
    command: str
    settings: dict
    fields: dict
    files: Dict[str, str]

    def save(self, coming: Iterable[str] = ()) -> None:
        """Write run.json; it lists what exists and the names in `coming`, which are written next.

        So a process that is killed in between knows its own files afterwards. Raises WriteError.
        """
        self.files = listed(self.folder, self.files, coming)
        record = {
            "format": FORMAT,
            "command": self.command,
            "settings": self.settings,
            "versions": versions(),
            "files": self.files,
        }
        write_json(self.folder / NAME, {**self.fields, **record})

    @contextlib.contextmanager
    def saved_at_the_end(self) -> Iterator[None]:
        """Save at the end of the `with`, also when an exception ends it.

        The record then lists nothing that was not written. On a full disk it stays as it is.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.save()
            raise
        self.save()

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write(path)` make the file of that name, unless someone has changed the old one.

        Raises WriteError.
        """
        path = self.folder / name
        if not is_own(self.folder, name, self.files):
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            self.files[name] = sha256(path)

    def written(self, names: Iterable[str]) -> Dict[str, str]:
        """The entries of `files` for those names, for another process's run."""
        return {name: self.files[name] for name in names if name in self.files}


@functools.lru_cache(maxsize=None)
def versions() -> Dict[str, str]:
    """The versions of everything that the results may depend on."""
    numbers = {"jseg": __version__, "python": platform.python_version()}
    opencv = ("opencv-python-headless", "opencv-python")
    for names in (("jittor",), ("numpy",), opencv, ("pillow",)):
        for name in names:
            with contextlib.suppress(metadata.PackageNotFoundError):
                numbers[name] = metadata.version(name)
                break
        else:
            numbers[names[0]] = "not installed under this name"
    return numbers


def read(folder: Path, command: str, option: str, check: Callable[[dict], object]) -> Optional[Run]:
    """The run of `command` that `folder` holds, None if it holds none.

    Its `files` are None if the record is of the first versions, which listed none; the caller
    knows their names. check: as for `jseg.outputs.record.own_record`. Raises DataError for a folder
    that cannot be written, one with another command's results, and a damaged record.
    """
    check_folder(folder, option)
    check_origin(folder, option, command)
    record = own_record(folder / NAME, command, option, check)
    if record is None:
        return None
    fields = {name: value for name, value in record.items() if name not in OWN_KEYS}
    return Run(folder, command, record["settings"], fields, record.get("files"))


def resumed(
    new: Run, old: Optional[Run], results: Sequence[str], option: str, remake: bool = False
) -> Tuple[Run, List[str]]:
    """(the run to go on with, remarks for the user); nothing is written.

    new: the run as it would begin in an empty folder. old: what the folder holds. results: names of
    the finished results there. FREE settings may always change, the others while nothing is
    finished; with `remake`, results of other settings are made again. Raises OutputError where
    results of two settings would mix.
    """
    begun = replace(new, settings=plain(new.settings))
    if old is None:
        return begun, []

    # What someone has changed, and what differs from the settings asked for.
    changed = [name for name in results if not is_own(old.folder, name, old.files)]
    remarks = _changed(changed) if changed else []
    differences = compared(old.settings, begun.settings, WHEN_MISSING)
    fixed = {name: pair for name, pair in differences.items() if remake or name not in FREE}
    text, count = said(fixed or differences), len(results)

    # What is finished must not be mixed with anything else; what is not can be begun again.
    if fixed and results and not remake:
        raise refusal(new.folder, option, fixed)
    if fixed:
        remark = (
            f"{counted(count, 'result[s]')} in {new.folder} {agreeing(count, '[was|were]')} made "
            f"with other settings ({text}), and all are made again"
            if results
            else f"nothing was finished in {new.folder}, so the run begins again with other "
            f"settings ({text})"
        )
        return replace(begun, files=old.files), [*remarks, remark]
    if differences and results:
        remarks.append(
            f"{text}: {counted(count, 'result[s] [is|are] there already and [is|are] kept')}; "
            "those that are made now may differ from what the old setting would give in the last "
            "bits"
        )
    return replace(old, settings=begun.settings), remarks


def _changed(names: Sequence[str]) -> List[str]:
    """The remark on results that someone has changed."""
    shown = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
    return [
        f"{counted(len(names), 'result[s] [was|were] changed by others since [it|they]')} "
        f"{agreeing(len(names), '[was|were]')} made ({shown}), and "
        f"{agreeing(len(names), '[is|are] kept as [it is|they are]')}"
    ]
