"""A model in several weight files: which files belong together, by their index or by their names.

An index is a JSON file with a "weight_map" of array names to files beside it
(model.safetensors.index.json, pytorch_model.bin.index.json). The parts are called
NAME-00001-of-00003.SUFFIX.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from jseg.files import PathLike
from jseg.formats.tensor import CheckpointError

PART = re.compile(r"(?P<stem>.+?)[-_.]?(?P<number>\d{4,6})-of-(?P<count>\d{4,6})(?P<suffix>\.\w+)")
INDEX_SUFFIX = ".index.json"
WEIGHTS = (".safetensors", ".npz", ".pkl", ".pth", ".pt", ".ckpt", ".bin")
MAX_INDEX = 1 << 26
LISTED = 3


def parts(path: PathLike) -> Optional[Tuple[List[Path], Optional[Dict[str, str]]]]:
    """(the files of a model in parts, the index's array names with their files or None without an
    index); None for a whole file.

    `path`: an index, or a folder that holds one or all parts of one model. Raises CheckpointError,
    with the path in front, for a folder or an index that is neither, for a part that is missing,
    and for a single part given alone.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file() and _is_index(path):
            return _indexed(path)
        match = PART.fullmatch(path.name)
        if match and path.is_file() and int(match["count"]) > 1:
            index = _indexes(path.parent)
            raise CheckpointError(
                f"is part {int(match['number'])} of {int(match['count'])} of a model; give "
                f"{index[0] if len(index) == 1 else f'the folder {path.parent}'}, and all parts "
                f"are read together (a "
                f"whole model of that name: rename it)"
            )
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    return None


def together(path: PathLike) -> bool:
    """Whether `path` is a folder, or an index by its name: what is read as several files. Opens
    nothing."""
    return os.path.isdir(path) or os.path.isfile(path) and str(path).endswith(INDEX_SUFFIX)


def files(path: PathLike) -> List[Path]:
    """Every file that is read for `path`: itself, or the index (if there is one) and the parts;
    raises as `parts`."""
    path, found = Path(path), parts(path)
    if found is None:
        return [path]
    index = [path] if path.is_file() else _indexes(path)[:1]
    return index + found[0]


def _folder(folder: Path):
    indexes = _indexes(folder)
    if len(indexes) > 1:
        raise CheckpointError(
            f"is a folder with {len(indexes)} indexes ({_some(indexes)}); give one of these files"
        )
    if indexes:
        return _indexed(indexes[0])

    # Without an index the names must tell that everything is there.
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.startswith(".")
    )
    matches = [
        match for match in map(PART.fullmatch, names) if match and match["suffix"] in WEIGHTS
    ]
    kinds = sorted({(match["stem"], match["count"], match["suffix"]) for match in matches})
    if len(kinds) > 1:
        raise CheckpointError(
            f"is a folder with parts of {len(kinds)} models "
            f"({_some(stem + suffix for stem, _, suffix in kinds)}); move "
            f"one of them to a folder of its own"
        )
    if not kinds:
        whole = [name for name in names if name.endswith(WEIGHTS)]
        hint = (
            f"it holds {_some(whole)}: give the file"
            if whole
            else "and holds no weight file and no index of one"
        )
        raise CheckpointError(
            f"is a folder; expected weights as .pkl, .pth, .pt, .ckpt, .safetensors or .npz, or "
            f"the parts of one model; "
            f"{hint}"
        )
    count, there = int(kinds[0][1]), {int(match["number"]): match[0] for match in matches}
    missing = [number for number in range(1, count + 1) if number not in there]
    if missing or len(there) != count:
        raise CheckpointError(
            f"holds {len(there)} of the {count} parts of {kinds[0][0]}{kinds[0][2]}; missing: "
            f"{_some(map(str, missing)) or 'none, but others are too many'}; copy or download the "
            f"others"
        )
    return [folder / there[number] for number in sorted(there)], None


def _indexes(folder: Path) -> List[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.name.endswith(INDEX_SUFFIX) and entry.is_file()
    )


def _is_index(path: Path) -> bool:
    # A .safetensors file may start with the same letter, the lowest byte of a length; zeros follow.
    with open(path, "rb") as file:
        head = file.read(64)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b"\0" not in head


def _indexed(index: Path):
    try:
        if index.stat().st_size > MAX_INDEX:
            raise ValueError("size")
        tree = json.loads(index.read_bytes().decode("utf-8-sig"))
        table = tree["weight_map"]
        if not table or not all(isinstance(item, str) for pair in table.items() for item in pair):
            raise ValueError("table")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(
            'is not a weight file: JSON without the "weight_map" of a model in parts (array names to '
            "files); expected weights as .pkl, .pth, .pt, .ckpt, .safetensors or .npz, or the index of "
            "their parts"
        ) from None
    names = sorted(set(table.values()))
    outside = [name for name in names if os.path.basename(name) != name or name in (".", "..")]
    if outside:
        raise CheckpointError(
            f"its index names parts in other folders ({_some(outside)}); expected them beside the "
            f"index"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the {len(names)} parts that its index names are missing "
            f"({_some(missing)}); copy or "
            f"download them to {index.parent}"
        )
    return [index.parent / name for name in names], dict(table)


def join(
    found: Dict[Path, Dict[str, object]], table: Optional[Dict[str, str]]
) -> Dict[str, object]:
    """The arrays of all parts, given by part; raises CheckpointError for a name in two parts,
    and where the index tells otherwise."""
    joined: Dict[str, object] = {}
    places: Dict[str, str] = {}
    twice = []
    for part, arrays in found.items():
        for name, array in arrays.items():
            if name in places:
                twice.append(f"{name} in {places[name]} and {part.name}")
            joined[name], places[name] = array, part.name
    if twice:
        raise CheckpointError(
            f"{len(twice)} arrays are in two parts ({_some(twice)}); expected each once; download "
            f"the parts again"
        )
    if table is None:
        return joined
    lacking = [f"{name} in {part}" for name, part in table.items() if places.get(name) != part]
    if lacking:
        raise CheckpointError(
            f"{len(lacking)} arrays are not in the part that the index names ({_some(lacking)}); "
            f"the parts are of "
            f"another model than the index, download them again"
        )
    unnamed = [f"{name} in {part}" for name, part in places.items() if name not in table]
    if unnamed:
        raise CheckpointError(
            f"{len(unnamed)} arrays are in the parts and not in the index ({_some(unnamed)}); the "
            f"parts are of another "
            f"model than the index, download them again"
        )
    return {name: joined[name] for name in table}


def _some(names) -> str:
    names = [str(getattr(name, "name", name))[:120] for name in names]
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join(names[:LISTED] + more)
