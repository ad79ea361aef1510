"""A model in several weight files: which files belong together, by their index or by their names.

An index is a JSON file with a "weight_map" of array names to files beside it
(model.safetensors.index.json, pytorch_model.bin.index.json). The parts are called
NAME-00001-of-00003.SUFFIX.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterable, List, Optional

from jseg.counting import agreeing, counted
from jseg.files import PathLike
from jseg.formats.mismatch import some
from jseg.formats.tensor import EXPECTED, CheckpointError

PART = re.compile(r"(?P<stem>.+?)[-_.]?(?P<number>\d{4,6})-of-(?P<count>\d{4,6})(?P<suffix>\.\w+)")
INDEX_SUFFIX = ".index.json"
WEIGHTS = (".safetensors", ".npz", ".pkl", ".pth", ".pt", ".ckpt", ".bin")
MAX_INDEX = 1 << 26
NO_INDEX = (
    'is not a weight file: JSON without the "weight_map" of a model in parts (array names to '
    f"files); {EXPECTED}, or the index of their parts"
)


@dataclass(frozen=True)
class Parts:
    """The files of one model, and what its index says, where it has one."""

    files: List[Path]
    index: Optional[Path] = None
    text: bytes = b""  # of the index
    table: Optional[Dict[str, str]] = None  # array names -> names of files

    @property
    def all(self) -> List[Path]:
        """Every file of the model, the index first."""
        return ([] if self.index is None else [self.index]) + self.files


def parts(path: PathLike, file: Optional[BinaryIO] = None) -> Optional[Parts]:
    """The files of the model in parts at `path`; None for a weight file that is whole.

    `path` is an index, which is open as `file`, or a folder that holds an index or all parts of one
    model. Raises CheckpointError for any other folder, for an index that is none, for a part that
    is missing, and for a single part given alone.
    """
    path = Path(path)
    try:
        if file is None:
            return _of_folder(path)
        if _is_index(file):
            return _of_index(path, file)
        match = PART.fullmatch(path.name)
        if match and int(match["count"]) > 1:
            indexes = _indexes(path.parent)
            whole = indexes[0] if len(indexes) == 1 else f"the folder {path.parent}"
            raise CheckpointError(
                f"is part {int(match['number'])} of {int(match['count'])} of a model; give "
                f"{whole}, and all parts are read together (a whole model of that name: rename it)"
            )
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    return None


def all_files(path: PathLike) -> List[Path]:
    """Every file that is read for `path`: itself, or the index and the parts; raises as `parts`."""
    if os.path.isdir(path):
        return parts(path).all
    with open(path, "rb") as file:
        model = parts(path, file)
    return [Path(path)] if model is None else model.all


def join(
    arrays: Dict[Path, Dict[str, object]], table: Optional[Dict[str, str]]
) -> Dict[str, object]:
    """The arrays of all parts, given by part, as one dictionary.

    Raises CheckpointError for a name in two parts, and where the index says otherwise.
    """
    joined: Dict[str, object] = {}
    places: Dict[str, str] = {}
    twice = []
    for part, members in arrays.items():
        for name, array in members.items():
            if name in places:
                twice.append(f"{name} in {places[name]} and {part.name}")
            joined[name], places[name] = array, part.name
    if twice:
        raise CheckpointError(
            f"{counted(len(twice), 'array[s] [is|are]')} in two parts ({some(twice)}); expected "
            "each once; download the parts again"
        )

    # The index and the parts must agree on every array.
    if table is None:
        return joined
    absent = [f"{name} in {part}" for name, part in table.items() if places.get(name) != part]
    unnamed = [f"{name} in {part}" for name, part in places.items() if name not in table]
    for names, what in (
        (absent, "array[s] [is|are] not in the part that the index names"),
        (unnamed, "array[s] [is|are] in the parts and not in the index"),
    ):
        if names:
            raise CheckpointError(
                f"{counted(len(names), what)} ({some(names)}); the parts are of another model than "
                "the index, download them again"
            )
    return {name: joined[name] for name in table}


def _of_folder(folder: Path) -> Parts:
    indexes = _indexes(folder)
    if len(indexes) > 1:
        raise CheckpointError(
            f"is a folder with {len(indexes)} indexes ({_names(indexes)}); give one of these files"
        )
    if indexes:
        with open(indexes[0], "rb") as file:
            return _of_index(indexes[0], file)

    # Without an index the names must show which model it is.
    entries = [entry for entry in folder.iterdir() if entry.is_file()]
    names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    matches = [
        match for match in map(PART.fullmatch, names) if match and match["suffix"] in WEIGHTS
    ]
    models = sorted({(match["stem"], match["count"], match["suffix"]) for match in matches})
    if len(models) > 1:
        stems = some(stem + suffix for stem, _, suffix in models)
        raise CheckpointError(
            f"is a folder with parts of {len(models)} models ({stems}); move one of them to a "
            "folder of its own"
        )
    if not models:
        whole = [name for name in names if name.endswith(WEIGHTS)]
        hint = f"it holds {some(whole)}: give the file" if whole else "it holds no weight file"
        raise CheckpointError(f"is a folder; {EXPECTED}, or the parts of one model; {hint}")

    # The names also show whether every part is there.
    stem, count, suffix = models[0]
    numbered = {int(match["number"]): match[0] for match in matches}
    missing = [number for number in range(1, int(count) + 1) if number not in numbered]
    if missing or len(numbered) != int(count):
        raise CheckpointError(
            f"holds {len(numbered)} of the {int(count)} parts of {stem}{suffix}; missing: "
            f"{some(missing) or 'none, but there are too many'}; copy or download the others"
        )
    return Parts([folder / numbered[number] for number in sorted(numbered)])


def _of_index(index: Path, file: BinaryIO) -> Parts:
    file.seek(0)
    text = file.read(MAX_INDEX + 1)
    try:
        table = json.loads(text.decode("utf-8-sig"))["weight_map"]
        if not table or not all(isinstance(item, str) for pair in table.items() for item in pair):
            raise ValueError("table")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(NO_INDEX) from None

    # All parts lie beside their index.
    names = sorted(set(table.values()))
    outside = [name for name in names if os.path.basename(name) != name or name in (".", "..")]
    if outside:
        raise CheckpointError(
            f"its index names parts in other folders ({some(outside)}); expected them beside the "
            "index"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the {len(names)} parts that its index names "
            f"{agreeing(len(missing), '[is|are]')} missing "
            f"({some(missing)}); copy or download them to {index.parent}"
        )
    return Parts([index.parent / name for name in names], index, text, dict(table))


def _indexes(folder: Path) -> List[Path]:
    entries = sorted(folder.iterdir())
    return [entry for entry in entries if entry.name.endswith(INDEX_SUFFIX) and entry.is_file()]


def _is_index(file: BinaryIO) -> bool:
    # A .safetensors file may start with the same letter, the lowest byte of a length; zeros follow.
    file.seek(0)
    head = file.read(64)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b"\0" not in head


def _names(paths: Iterable[Path]) -> str:
    return some(path.name for path in paths)
