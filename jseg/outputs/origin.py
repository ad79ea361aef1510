"""Whose results a folder holds, by the record in it, and which of its images are by-products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from jseg.counting import agreeing, counted
from jseg.files import DataError, PathLike
from jseg.outputs.record import read_record

# The file in which a command keeps its record; run.json is that of several.
RECORDS = {
    "run.json": "",
    "summary.json": "score",
    "landscapes.json": "landscapes",
    "demo.json": "demo",
    "setting.json": "compare_official",
}
DRAWN = ("test/", "test/val_B_labels_resized/", "train/", "train/imgs/", "train/labels/")
SHEETS = {
    "test": "grid.png",
    "demo": "segmented.png",
    "compare_official": "comparison.png",
    "train": "curve.png",
}
SHOWN = 5  # names in a message
BY_PRODUCTS = "file[s] that [is no result|are no results] of the command that wrote [it|them]"


def origin(folder: PathLike) -> Optional[str]:
    """The command whose results a folder holds, by the record in it; None without a record.

    It is "train" for every training command.
    """
    place = Path(folder)
    for name in RECORDS:
        record = read_record(place / name)
        command = _command(name, record) if record is not None else ""
        if command:
            return command
    checkpoints = (place / "log.csv").is_file() and any(place.glob("checkpoint-*.safetensors"))
    marked = "training" in (read_record(place / "training.json") or {})
    return "train" if marked or checkpoints else None


def _command(name: str, record: dict) -> str:
    """The command that wrote a record in a file of that name; "" for a file of someone else."""
    if name == "setting.json":
        return RECORDS[name] if "official" in record else ""
    if name != "run.json":
        return RECORDS[name] if record.get("command") == RECORDS[name] else ""

    # The first versions of run.json did not name the command; its settings do.
    settings = record.get("settings")
    known = settings if isinstance(settings, dict) else {}
    guess = "test" if "pipeline" in known else "segment" if "weights" in known else ""
    return str(record.get("command") or guess)


def keeper(folder: PathLike) -> Optional[str]:
    """The command that keeps some of its results in this folder, with its record further up."""
    place = Path(os.path.abspath(folder))
    for above in list(place.parents)[:2]:
        inside = place.relative_to(above).as_posix() + "/"
        files = (read_record(above / "run.json") or {}).get("files")
        names = files if isinstance(files, dict) else {}
        written = any(name.startswith(inside) for name in names)
        if written or inside in DRAWN and origin(above) == "landscapes":
            return origin(above)
    return None


def images_alone(paths: Sequence[Path]) -> Tuple[List[Path], List[str]]:
    """(the image files of one folder without their `by_products`, remarks on what is left out).

    Raises DataError where nothing else is there.
    """
    if not paths:
        return [], []
    folder = paths[0].parent
    others = by_products(folder, [path.name for path in paths])
    shown = ", ".join(f"{name}: {others[name]}" for name in sorted(others)[:SHOWN])
    if len(others) == len(paths):
        raise DataError(
            f"{folder} holds no images but {counted(len(others), BY_PRODUCTS)} ({shown}); give the "
            "folder of the images"
        )
    remark = (
        f"{counted(len(others), BY_PRODUCTS)}, in {folder}, {agreeing(len(others), '[is|are]')} "
        f"left out ({shown})"
    )
    return [path for path in paths if path.name not in others], [remark] * bool(others)


def by_products(folder: PathLike, names: Sequence[str]) -> Dict[str, str]:
    """{name: what it is} of those image files that a command wrote beside its results."""
    command = origin(folder)
    if command is None:
        return {}
    if command == "segment":
        images = (read_record(Path(folder) / "run.json") or {}).get("pictures")
        maps = {f"{stem}.png" for stem in images} if isinstance(images, dict) else set()
        return {name: "label map of segment" for name in names if name in maps}

    # A command's contact sheet, and the previews of a training.
    drawn = (read_record(Path(folder) / "landscapes.json") or {}).get("sheet")
    sheet = drawn if command == "landscapes" else SHEETS.get(command)
    products = {name: f"sheet of {command}" for name in names if name == sheet}
    if command == "train":
        products.update(
            (name, "preview of a training") for name in names if name.startswith("preview-")
        )
    return products
