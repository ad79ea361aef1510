"""Landscapes in a folder in the challenge's layout, drawn once, whatever interrupts the work.

FOLDER/test/val_B_labels_resized/*.png  label maps, 8-bit gray
FOLDER/test/label_to_img.json           names each label map's style reference; written last
FOLDER/train/imgs/*.jpg                 the references: images of other scenes
FOLDER/train/labels/*.png               the references' own label maps
FOLDER/landscapes.json                  settings, and how many pairs are "written"
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, Optional, Tuple

from jseg.counting import counted
from jseg.files import PathLike, remove_stale_temporaries
from jseg.image_files.decoding import read_header
from jseg.images import save_image
from jseg.landscapes.draw import REFERENCE_SEEDS, check_scene, landscape
from jseg.outputs.locks import held
from jseg.outputs.places import OutputError, check_empty, check_folder, check_names, check_origin
from jseg.outputs.record import FORMAT, own_record, write_json, writing
from jseg.outputs.settings import check_same

COMMAND, RECORD = "landscapes", "landscapes.json"
PLACES = ("test/val_B_labels_resized", "train/imgs", "train/labels")
TABLE = "test/label_to_img.json"


def write_challenge(
    folder: PathLike, count: int, seed: int = 0, width: int = 512, height: int = 384
) -> int:
    """Write `count` label maps with style references; the number of pairs that were there already.

    Raises ValueError as `check_challenge` does, and OSError in one line when the disk is full.
    """
    return sum(not drawn for drawn in written_pairs(folder, count, seed, width, height))


def written_pairs(
    folder: PathLike, count: int, seed: int, width: int, height: int
) -> Iterator[bool]:
    """As `write_challenge`, yielding after every pair whether anything of it had to be drawn."""
    check_challenge(folder, count, seed, width, height)
    place, settings = Path(folder), settings_of(count, seed, width, height)
    with held(place):
        # Once more: another process may have written there since.
        check_challenge(place, count, seed, width, height)
        new = {"format": FORMAT, "command": COMMAND, "settings": settings, "written": 0}
        record = read(place) or new
        for name in PLACES:
            (place / name).mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(place / name)
        write_json(place / RECORD, record)

        # A pair is recorded when its files are there, so that no file of another origin is ever
        # taken for a drawing.
        for number in range(count):
            drawn = _write_pair(place, number, seed, width, height)
            if number >= record["written"]:
                record = {**record, "written": number + 1}
                write_json(place / RECORD, record)
            yield drawn

        if not (place / TABLE).exists():
            numbers = range(count)
            write_json(place / TABLE, {f"scene_{n:04d}.png": f"style_{n:04d}.jpg" for n in numbers})


def settings_of(count: int, seed: int, width: int, height: int) -> dict:
    """All that the landscapes in a folder depend on."""
    return {"count": int(count), "seed": int(seed), "width": int(width), "height": int(height)}


def check_challenge(
    folder: PathLike, count: int, seed: int, width: int, height: int, option: str = "--output"
) -> None:
    """Raise ValueError unless `write_challenge` can draw these pairs into the folder.

    The arguments must be possible, and the folder new, empty, or begun by the same call, with no
    file of another origin in it. Writes nothing.
    """
    check_request(count, seed, width, height)
    place = Path(folder)
    check_folder(place, option)
    check_origin(place, option, COMMAND)
    record = read(place, option)
    if record is None:
        check_folder(place, option, 3 * count * width * height)
        check_empty(place, option, RECORD)
        return

    # A set that was begun goes on as it is, or not at all.
    check_same(place, option, record["settings"], settings_of(count, seed, width, height))
    names = [name for number in range(count) for name in pair_names(number)]
    known = [name for number in range(record["written"] + 1) for name in pair_names(number)]
    _check_places(place, option, set(names))
    check_names(place, option, sorted(names), known, RECORD)
    check_names(place, option, [TABLE], [TABLE] * (record["written"] == count), RECORD)


def _check_places(folder: Path, option: str, names: set) -> None:
    """Raise OutputError if there are other visible files than `names` among the drawings."""
    for place in PLACES:
        present = sorted(os.listdir(str(folder / place))) if (folder / place).is_dir() else []
        foreign = [n for n in present if not n.startswith(".") and f"{place}/{n}" not in names]
        if foreign:
            raise OutputError(
                f"{option} {folder / place} holds {counted(len(foreign), 'file[s]')} of another "
                f"origin, such as {foreign[0]}; move them away, or give another {option}"
            )


def check_request(count: int, seed: int, width: int = 512, height: int = 384) -> None:
    """Raise ValueError unless there are `count` scenes from `seed` on, each with a reference."""
    if count < 1:
        raise ValueError(f"procedural landscapes: a count of {count}; expected 1 or more")
    if not 0 <= seed <= REFERENCE_SEEDS - count:
        raise ValueError(
            f"procedural landscapes: a seed of {seed}; expected 0 to "
            f"{max(0, REFERENCE_SEEDS - count)} for a count of {count}"
        )
    check_scene(seed, width, height)


def pair_names(number: int) -> Tuple[str, str, str]:
    """The files of a pair, relative to the folder: reference, its label map, the label map."""
    return (
        f"train/imgs/style_{number:04d}.jpg",
        f"train/labels/style_{number:04d}.png",
        f"test/val_B_labels_resized/scene_{number:04d}.png",
    )


def read(folder: Path, option: str = "--output") -> Optional[dict]:
    """The record in a folder, None if there is none; raises DataError for a damaged one."""
    return own_record(folder / RECORD, COMMAND, option, _check_written)


def _check_written(record: dict) -> None:
    if not isinstance(record["written"], int):
        raise ValueError("its number of pairs is no number")


def _write_pair(folder: Path, number: int, seed: int, width: int, height: int) -> bool:
    """Draw what a pair lacks; whether anything was missing.

    Raises ImageError for a file that cannot be opened.
    """
    paths = reference, reference_label, label = [folder / name for name in pair_names(number)]
    missing = [path for path in paths if not path.exists()]
    for path in paths:
        if path not in missing:
            read_header(path)

    drawings = {}
    if reference in missing or reference_label in missing:
        drawn = landscape(REFERENCE_SEEDS + seed + number, width, height)
        drawings.update(zip((reference, reference_label), drawn))
    if label in missing:
        drawings[label] = landscape(seed + number, width, height)[1]
    for path in missing:
        with writing(path):
            save_image(path, drawings[path])
    return bool(missing)
