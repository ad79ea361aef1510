"""Find, pair and check the challenge's input files before any network runs.

Layout (reviewer interface of the 3rd Jittor AI challenge, landscape track):
`input_path/val_B_labels_resized/*.png`, `input_path/label_to_img.json` ("<test stem>.png" ->
"<train stem>.jpg"), `img_path/imgs/*.jpg`. Mirrors the official image_datasets.py without its
traps: sorted order, every file, every problem named at the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, TypeVar, Union

import numpy as np

from jseg.counting import agreeing, counted
from jseg.data.census import Census
from jseg.data.folders import (
    existing_folder,
    left_out,
    listing,
    meant_folder,
    name_key,
    some,
    visible_files,
)
from jseg.data.label_maps import LABEL_SUFFIXES, RARE_SUFFIXES
from jseg.data.numbering import Classes, Numbering
from jseg.data.pairing_table import NAME as PAIRING
from jseg.data.pairing_table import find_table, read_table
from jseg.data.references import find_references, reference_places
from jseg.data.validation import FileChecks, check_image, check_label
from jseg.files import DataError
from jseg.images import read_image, resize_image

LABEL_FOLDERS = ("val_B_labels_resized", "val_A_labels_resized")
USUAL = (PAIRING, "imgs", "images") + LABEL_FOLDERS  # that a folder of label maps may hold as well
Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """A label map and the reference photograph that gives the style; stem names the result.

    label_sha256, reference_sha256: of the bytes that a check has read, in hexadecimal; "" before.
    """

    stem: str
    label: Path
    reference: Path
    label_sha256: str = ""
    reference_sha256: str = ""


def find_label_folder(input_path: Union[str, Path]) -> Tuple[Path, List[str]]:
    """(the folder of label maps, remarks on label maps elsewhere).

    It is input_path/val_B_labels_resized, or val_A_labels_resized, or input_path itself. Raises
    DataError.
    """
    folder = existing_folder(input_path, "label folder")
    named = [folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()]
    filled = [candidate for candidate in named if visible_files(candidate)]
    in_root = [path.name for path in visible_files(folder)]
    if filled:
        chosen, *others = filled
        remarks = [
            f"{folder} holds both {chosen.name} and {other.name}; using {chosen.name}, the "
            f"{counted(count, 'label map[s]')} of {other.name} {agreeing(count, '[is|are]')} left "
            "out"
            for other in others
            for count in [len(visible_files(other))]
        ]
        if in_root:
            remarks.append(
                f"{counted(len(in_root), 'label map[s]')} in {folder} itself "
                f"{agreeing(len(in_root), '[is|are]')} left out, those in "
                f"{chosen.name} are taken ({listing(in_root)})"
            )
        return chosen, remarks
    if in_root:
        return folder, []

    # No label maps: say where they may be.
    if named:
        raise DataError(f"{named[0]} holds no PNG; expected the label maps *.png in it")
    meant = meant_folder(folder, _looks_like_the_challenge)
    hint = f"; did you mean {meant}?" if meant else ""
    one, other = LABEL_FOLDERS
    raise DataError(
        f"{folder} holds neither {one} nor {other} nor any label map *.png; give the folder that "
        f"holds one of them{hint}"
    )


def _looks_like_the_challenge(folder: Path) -> bool:
    return (folder / PAIRING).is_file() or any((folder / name).is_dir() for name in LABEL_FOLDERS)


def find_pairs(
    input_path: Union[str, Path], img_path: Union[str, Path]
) -> Tuple[List[Pair], List[str]]:
    """(all pairs of a label map and its reference, sorted by the label map's file name; remarks).

    Raises DataError in one line for missing folders, a broken label_to_img.json, and for label maps
    without an entry or entries whose reference is missing (all counted, the first five named).
    """
    folder, in_other_folders = find_label_folder(input_path)
    maps = _maps_by_stem(folder)
    table_path, other_table = find_table(Path(input_path), folder)
    places = reference_places(existing_folder(img_path, "reference folder"))
    present = {name for _, files in places for name in files}

    def fits(table: Dict[str, str]) -> bool:
        return all(stem in table and name_key(table[stem]) in present for stem in maps)

    # A preview beside the label maps is none of them.
    table = read_table(table_path, fits)
    labelled = {stem: name for stem, name in maps.items() if stem in table or not _is_rare(name)}
    names = sorted((labelled or maps).values())
    wanted = _named_references(names, table, table_path, folder)
    references = find_references(Path(img_path), places, table_path, wanted)

    spare = sorted({path.name for path in visible_files(folder)} - set(names))
    beside = (
        f"{counted(len(spare), 'file[s] beside the label maps')} in {folder} "
        f"{agreeing(len(spare), '[is|are]')} left out ({listing(spare)})"
    )
    unused = len(set(table) - {name_key(Path(name).stem) for name in names})
    without = (
        f"{unused} of {len(table)} entries of {table_path} "
        f"{agreeing(unused, '[has|have] no label map and [is|are] not used')}"
    )
    remarks = in_other_folders + left_out(folder, LABEL_SUFFIXES, USUAL) + other_table
    remarks += [beside] * bool(spare) + [without] * bool(unused)
    pairs = [Pair(Path(name).stem, folder / name, path) for name, path in zip(names, references)]
    return pairs, remarks


def _maps_by_stem(folder: Path) -> Dict[str, str]:
    """{key of the stem: file name} of a folder's label maps, PNG and the like before previews."""
    maps: Dict[str, str] = {}
    for name in sorted((path.name for path in visible_files(folder)), key=_is_rare):
        stem = name_key(Path(name).stem)
        if stem in maps and not _is_rare(name):
            raise DataError(
                f"{folder} holds both {maps[stem]} and {name}, which would give one result; "
                "rename one"
            )
        maps.setdefault(stem, name)
    return maps


def _named_references(
    names: Sequence[str], table: Dict[str, str], table_path: Path, folder: Path
) -> List[str]:
    """The table's file names of references for these label maps; DataError where some have none."""
    stems = [name_key(Path(name).stem) for name in names]
    missing = [name for name, stem in zip(names, stems) if stem not in table]
    if missing:
        raise DataError(
            f"{table_path} has no entry for {some(missing)}; expected one reference for every PNG "
            f"in {folder}"
        )
    return [table[stem] for stem in stems]


def _is_rare(name: str) -> bool:
    """Whether a file of this name may be a label map, but is more often something else."""
    return Path(name).suffix.lower() in RARE_SUFFIXES


def check_pairs(
    pairs: Sequence[Pair],
    classes: Classes = 29,
    ignore: Sequence[int] = (),
    width: int = 512,
    height: int = 384,
) -> Tuple[List[Pair], List[str]]:
    """Read every label map and reference once: (the pairs with their digests, one remark per kind).

    A label map must hold only ids 0..classes-1 and those in `ignore`; both files must have the
    aspect ratio of width x height (other sizes are resized later). Raises DataError naming the
    first unusable file and how many more there are.
    """
    census, numbering, checks = Census(), Numbering.of(classes, ignore), FileChecks()
    of_label = partial(check_label, numbering=numbering, width=width, height=height, census=census)
    of_reference = partial(check_image, what="reference", width=width, height=height)
    checked = []
    for pair in pairs:
        label = checks.check(pair.label, of_label)
        reference = checks.check(pair.reference, of_reference)
        if label and reference:
            digests = dict(label_sha256=label.sha256, reference_sha256=reference.sha256)
            checked.append(replace(pair, **digests))
    remarks = checks.remarks()
    return checked, remarks + census.warnings(numbering, named=ignore)


def load_pair(
    pair: Pair,
    width: int,
    height: int,
    ignore: Sequence[int] = (),
    classes: Classes = 256,
) -> Tuple[np.ndarray, np.ndarray]:
    """(label uint8 [H, W] in its own size, reference uint8 [height, width, 3]) of a pair that was
    checked with these `classes` and `ignore`.

    Ids become 0..N-1, ignored ones 255.
    """
    ids = Numbering.of(classes, ignore).read(pair.label).ids
    return ids, resize_image(read_image(pair.reference), width, height)


def batches(pairs: Sequence[Item], batch_size: int) -> List[List[Item]]:
    """The list cut into batches by position, the last one partial.

    So interruptions and resumes never move an image to another batch. release: drops the partial
    batch and wraps around; here: every item once.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; expected 1 or more")
    return [list(pairs[start : start + batch_size]) for start in range(0, len(pairs), batch_size)]
