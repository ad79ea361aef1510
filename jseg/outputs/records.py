"""Records of results: whose a folder is, by the JSON file in it, and which of its files are as
they were written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Sequence

from jseg.files import DataError, PathLike, sha256
from jseg.image_files.decoding import IMAGE_SUFFIXES, ImageError, read_header

DRAWN = (
    "test/",
    "test/val_B_labels_resized/",
    "train/",
    "train/imgs/",
    "train/labels/",
)  # folders of landscapes
SHOWN = 5  # names in a message
RECORDS = {
    "run.json": "",
    "summary.json": "score",
    "landscapes.json": "landscapes",
    "demo.json": "demo",
    "setting.json": "compare_official",
}


def origin(folder: PathLike) -> Optional[str]:
    """The command whose results a folder holds, by the record in it; "train" for all trainings;
    None where there is no record."""
    folder = Path(folder)
    for name, command in RECORDS.items():
        about = read_record(folder / name)
        if about is None:
            continue
        settings = about.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        if name == "run.json":
            # Records of before the field `command` are told apart by what only the one or the other
            # has.
            command = about.get("command") or (
                "test" if "pipeline" in settings else "segment" if "weights" in settings else ""
            )
        elif name == "setting.json":
            command = command if "official" in about else ""
        else:
            command = command if about.get("command") == command else ""
        if command:
            return str(command)
    if "training" in (read_record(folder / "training.json") or {}):
        return "train"
    if (folder / "log.csv").is_file() and any(folder.glob("checkpoint-*.safetensors")):
        return "train"
    return None


def kept_by(folder: PathLike) -> Optional[str]:
    """The command that keeps some of its results in this folder, its record being in one above
    it.
    """
    folder = Path(os.path.abspath(folder))
    for above in list(folder.parents)[:2]:
        inside = folder.relative_to(above).as_posix() + "/"
        files = (read_record(above / "run.json") or {}).get("files")
        listed = files if isinstance(files, dict) else {}
        drawn = inside in DRAWN and origin(above) == "landscapes"
        if drawn or any(name.startswith(inside) for name in listed):
            return origin(above)
    return None


def read_record(path: PathLike) -> Optional[dict]:
    """The JSON object in a file, None if there is none that can be read."""
    try:
        about = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) else None


def is_own(folder: PathLike, name: str, files: Mapping[str, str]) -> bool:
    """Whether a file that a record lists, {name: SHA-256, or "" where it is not known}, may be
    written again.

    So it is if it is not there, is empty or no image any more, or is as it was written; one that
    someone has changed is not.
    """
    path, known = Path(folder) / name, files.get(name, "")
    if not path.exists() or not known or not path.stat().st_size:
        return True
    if path.suffix.lower() in IMAGE_SUFFIXES:
        try:
            read_header(path)
        except ImageError:
            return True
    return sha256(path) == known


def listed(folder: PathLike, files: Mapping[str, str], following: Iterable[str]) -> Dict[str, str]:
    """`files` for a record: what is there, and what is written next, whose SHA-256 is not known
    then; files changed by others keep theirs, so that they are known."""
    found = {name: known for name, known in files.items() if (Path(folder) / name).exists()}
    found.update({name: "" for name in following if is_own(folder, name, found)})
    return found


def images_alone(paths: Sequence[Path], notes: Optional[List[str]] = None) -> List[Path]:
    """The image files of one folder less those of `by_products`; a line on these is appended to
    `notes`.

    Raises DataError where nothing else is there.
    """
    if not paths:
        return []
    folder = paths[0].parent
    others = by_products(folder, [path.name for path in paths])
    kinds = ", ".join(f"{name}: {others[name]}" for name in sorted(others)[:SHOWN])
    if len(others) == len(paths):
        raise DataError(
            f"{folder} holds no images but {len(others)} files that are no results of the "
            f"command that wrote them ({kinds}); give the folder of the images"
        )
    if others and notes is not None:
        notes.append(
            f"{len(others)} files in {folder} that are no results of the command that wrote them "
            f"are left out ({kinds})"
        )
    return [path for path in paths if path.name not in others]


def by_products(folder: PathLike, names: Sequence[str]) -> Dict[str, str]:
    """Those of the image files `names` in a folder that a command wrote as something else than
    its results: {name: what it is}."""
    command = origin(folder)
    sheet = (read_record(Path(folder) / "landscapes.json") or {}).get("sheet")
    known = {
        "test": "grid.png",
        "landscapes": sheet,
        "demo": "segmented.png",
        "compare_official": "comparison.png",
        "train": "curve.png",
    }
    if command == "segment":
        images = (read_record(Path(folder) / "run.json") or {}).get("pictures")
        made = {f"{stem}.png" for stem in images} if isinstance(images, dict) else set()
        return {name: "label map of segment" for name in names if name in made}
    found = {
        name: f"sheet of {command}"
        for name in names
        if command is not None and name == known.get(command)
    }
    if command == "train":
        found.update(
            (name, "preview of a training") for name in names if name.startswith("preview-")
        )
    return found
