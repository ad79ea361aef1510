"""Records of results: one JSON object beside the results, which one piece of code writes and reads.

Every record has "format", "command" and "settings" (all that the results depend on). It may have
"files": {name: SHA-256, or "" for one that is about to be written}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, Mapping, Optional

from jseg.files import DataError, PathLike, sha256, write_atomic

FORMAT = 1


class WriteError(OSError):
    """A file of results that cannot be written; one line: why, and how to go on."""


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn an OSError inside into a WriteError, unless it is about a file in another folder."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        folder = os.path.dirname(os.path.abspath(str(path)))
        blamed = os.path.abspath(os.fsdecode(error.filename)) if error.filename else folder
        # What is read on the way may lie elsewhere; a folder that cannot be made lies above.
        elsewhere = os.path.dirname(blamed) != folder and not (folder + os.sep).startswith(
            blamed + os.sep
        )
        if elsewhere or error.errno == errno.ENOMEM:
            raise
        raise WriteError(
            f"cannot write {path} ({error.strerror or error}); what is finished stays, make room "
            "or mend the folder and give the same command again"
        ) from error


def write_text(path: PathLike, text: str) -> None:
    """Write a text file, whole or not at all; raises WriteError.

    A file name that is no text becomes an escape.
    """
    content = text.encode("utf-8", "backslashreplace")
    with writing(path):
        write_atomic(path, lambda file: file.write(content))


def write_json(path: PathLike, record: Mapping) -> None:
    """Write a record, whole or not at all; raises WriteError."""
    text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def read_record(path: PathLike) -> Optional[dict]:
    """The JSON object in a file, None if there is none that can be read."""
    try:
        return _read_object(path)
    except (OSError, ValueError):
        return None


def sound_record(path: PathLike, remedy: str, check: Callable[[dict], object]) -> dict:
    """The JSON object in a record of ours.

    check: raises ValueError, LookupError, TypeError or AttributeError for a record that lacks what
    its reader needs. Raises DataError that names the file as damaged, says why and ends with
    `remedy`; also where it cannot be read.
    """
    try:
        record = _read_object(path)
        check(record)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from None
    except KeyError as error:
        why = f"it lacks {error}"
    except (LookupError, TypeError, AttributeError):
        why = "a value in it has another form than expected"
    except DataError:
        raise
    except ValueError as error:
        why = str(error)
    else:
        return record
    raise DataError(f"{path} is damaged ({why}); {remedy}")


def _read_object(path: PathLike) -> dict:
    """The JSON object in a file; raises OSError, and ValueError that says what is wrong with it."""
    content = Path(path).read_bytes()
    if not content:
        raise ValueError("it is empty")
    try:
        record = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON from line {error.lineno} on") from None
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    return record


def own_record(
    path: PathLike,
    command: str,
    option: str,
    check: Callable[[dict], object] = lambda record: None,
) -> Optional[dict]:
    """The record that `command` keeps at `path`, None if there is none.

    check: as for `sound_record`, of what the command needs. Raises DataError for a record that is
    damaged or of another kind.
    """
    if not os.path.lexists(str(path)):
        return None
    remedy = f"move it away, or give another {option}"

    def check_all(stored: dict) -> None:
        record = _as_today(stored, command)
        if record.get("format") != FORMAT or record.get("command") != command:
            raise DataError(f"{path} is no record of the {command} command; {remedy}")
        if not isinstance(record["settings"], dict):
            raise ValueError("its settings are no object")
        files = record.get("files", {})
        if not all(isinstance(text, str) for text in [*files, *files.values()]):
            raise ValueError("its files are no names")
        check(record)

    return _as_today(sound_record(path, remedy, check_all), command)


def _as_today(record: dict, command: str) -> dict:
    """A record of an earlier version in the form of today's."""
    if command == "demo" and "settings" not in record:
        settings = {name: record[name] for name in ("count", "seed")}
        return {**record, "settings": settings}
    # `check_origin` knows from the settings which command wrote a run.json that does not say so.
    return {"command": command, **record} if command in ("test", "segment") else record


def is_own(folder: PathLike, name: str, files: Mapping[str, str]) -> bool:
    """Whether a file that a record lists in `files` may be written again.

    It may if it does not exist, if it is empty or an image that cannot be opened, if its SHA-256
    is not known, and if it is as it was written. One that someone has changed may not.
    """
    from jseg.image_files.decoding import IMAGE_SUFFIXES  # Pillow, which records do not need

    path, known = Path(folder) / name, files.get(name, "")
    if not path.exists() or not known or not path.stat().st_size:
        return True
    if path.suffix.lower() in IMAGE_SUFFIXES and not opens(path):
        return True
    return sha256(path) == known


def opens(path: PathLike, kind: str = "") -> bool:
    """Whether the file exists and is an image that can be opened, of a `kind` such as "PNG"."""
    from jseg.image_files.decoding import ImageError, read_header

    try:
        return Path(path).exists() and kind in ("", read_header(path).format)
    except ImageError:
        return False


def listed(folder: PathLike, files: Mapping[str, str], coming: Iterable[str]) -> Dict[str, str]:
    """`files` for a record: those that exist, and those in `coming`, which are written next.

    The SHA-256 of a file that is written next is not known yet. One that someone has changed keeps
    the SHA-256 that it was written with, so that it stays known as changed.
    """
    present = {name: known for name, known in files.items() if (Path(folder) / name).exists()}
    return {**present, **{name: "" for name in coming if is_own(folder, name, present)}}
