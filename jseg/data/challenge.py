"""Find, pair and check the challenge's input files before any network runs.

Layout (reviewer interface of the 3rd Jittor AI challenge, landscape track):
`input_path/val_B_labels_resized/*.png`, `input_path/label_to_img.json` ("<test stem>.png" ->
"<train stem>.jpg"), `img_path/imgs/*.jpg`. Mirrors the official image_datasets.py without its
traps: sorted order, every file, every problem named at the start.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple, TypeVar, Union

import numpy as np

from jseg.data.census import Census
from jseg.data.label_maps import RARE_SUFFIXES
from jseg.data.pairing import near_name
from jseg.data.validation import (  # noqa: F401  callers need one door for the challenge's data
    LABEL_SUFFIXES,
    Classes,
    Numbering,
    check_files,
    check_image,
    check_label,
    existing_folder,
    histogram,
    left_out,
    name_key,
    same_aspect,
    some,
    visible_files,
)
from jseg.files import DataError
from jseg.images import read_image, resize_image, resize_label
from jseg.text_file import other_readings, read_text

LABEL_FOLDERS = ("val_B_labels_resized", "val_A_labels_resized")
PAIRING = "label_to_img.json"
USUAL = (PAIRING, "imgs", "images") + LABEL_FOLDERS  # that a folder of label maps may hold as well
SEARCHED = 50  # folders of one folder that are looked at for the one that was meant
Notes = Optional[List[str]]
Item = TypeVar("Item")
Places = List[Tuple[Path, Dict[str, Path]]]  # folders, each with {key of the name: file}


@dataclass(frozen=True)
class Pair:
    """A label map and the reference photograph that gives the style; stem names the result."""

    stem: str
    label: Path
    reference: Path


def find_label_folder(input_path: Union[str, Path], notes: Notes = None) -> Path:
    """The folder of label PNGs: input_path/val_B_labels_resized, or val_A_labels_resized, or
    input_path itself.

    What the user should be told (label maps elsewhere than there) is appended to `notes`. Raises
    DataError.
    """
    folder = existing_folder(input_path, "label folder")
    named = [folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()]
    filled = [candidate for candidate in named if visible_files(candidate)]
    if len(filled) > 1:
        one, other = filled
        _tell(
            notes,
            f"{folder} holds both {one.name} and {other.name}; using {one.name}, the "
            f"{len(visible_files(other))} label maps of {other.name} are left out",
        )
    if filled:
        beside = [path.name for path in visible_files(folder)]
        if beside:
            _tell(
                notes,
                f"{len(beside)} label maps in {folder} itself are left out, those in "
                f"{filled[0].name} are taken ({some(beside, False)})",
            )
        return filled[0]
    if visible_files(folder):
        return folder
    if named:
        raise DataError(f"{named[0]} holds no PNG; expected the label maps *.png in it")
    meant = _meant(
        folder,
        lambda place: (
            any((place / name).is_dir() for name in LABEL_FOLDERS) or (place / PAIRING).is_file()
        ),
    )
    hint = "give the folder that holds one of them" + (f"; did you mean {meant}?" if meant else "")
    raise DataError(
        "%s holds neither %s nor %s nor any label map *.png; %s"
        % ((folder,) + LABEL_FOLDERS + (hint,))
    )


def find_pairs(
    input_path: Union[str, Path], img_path: Union[str, Path], notes: Notes = None
) -> List[Pair]:
    """All (label map, reference) pairs, sorted by the label's file name.

    Raises DataError in one line for missing folders, a broken label_to_img.json, and for labels
    without an entry or entries whose reference is missing (all counted, the first five named).
    """
    folder = find_label_folder(input_path, notes)
    names = [path.name for path in visible_files(folder)]
    if notes is not None:
        notes.extend(left_out(folder, LABEL_SUFFIXES, USUAL))
    stems: Dict[str, str] = {}
    for name in sorted(names, key=_is_rare):
        stem = name_key(Path(name).stem)
        if stem in stems and _is_rare(name):
            continue
        if stem in stems:
            raise DataError(
                f"{folder} holds both {stems[stem]} and {name}, which would give one result; "
                "rename one"
            )
        stems[stem] = name
    table_path = _find_table(Path(input_path), folder, notes)
    places = _reference_places(existing_folder(img_path, "reference folder"))
    try:
        table = _read_table(table_path)
    except DataError:
        _check_encoding(table_path, {}, list(stems), places)
        raise
    _check_encoding(table_path, table, list(stems), places)
    # A preview beside the label maps is none of them.
    stems = {
        stem: name for stem, name in stems.items() if stem in table or not _is_rare(name)
    } or stems
    spare = sorted(set(names) - set(stems.values()))
    if spare:
        _tell(
            notes,
            f"{len(spare)} files beside the label maps in {folder} are left out "
            f"({some(spare, False)})",
        )
    names = sorted(stems.values())
    missing = [name for stem, name in stems.items() if stem not in table]
    if missing:
        raise DataError(
            f"{table_path} has no entry for {some(missing)}; expected one reference for every PNG "
            f"in {folder}"
        )
    unused = len(set(table) - set(stems))
    if unused:
        _tell(
            notes,
            f"{unused} of {len(table)} entries of {table_path} have no label map and are not used",
        )
    references = _find_references(
        Path(img_path), places, table_path, [table[name_key(Path(name).stem)] for name in names]
    )
    return [
        Pair(Path(name).stem, folder / name, reference)
        for name, reference in zip(names, references)
    ]


def _is_rare(name: str) -> bool:
    """Whether a file of this name may be a label map, but is more often something else."""
    return Path(name).suffix.lower() in RARE_SUFFIXES


def check_pairs(
    pairs: Sequence[Pair],
    classes: Classes = 29,
    ignore: Sequence[int] = (),
    width: int = 512,
    height: int = 384,
    progress: Optional[Callable[[int, int], None]] = None,
) -> List[str]:
    """Read every label and every reference once; what the user should be told, one line per kind of
    remark.

    A label must hold only ids 0..classes-1 and those in `ignore`; both files must have the aspect
    ratio of width x height (other sizes are resized later). `progress(done, total)` is called after
    each pair. Raises DataError naming the first unusable file and how many more there are.
    """
    census, numbering = Census(), Numbering.of(classes, ignore)
    label = partial(check_label, numbering=numbering, width=width, height=height, census=census)
    reference = partial(check_image, what="reference", width=width, height=height)
    remarks = check_files(
        [[(pair.label, label), (pair.reference, reference)] for pair in pairs], progress
    )
    return remarks + census.warnings(numbering, named=ignore)


def load_pair(
    pair: Pair,
    width: int,
    height: int,
    latent_width: int,
    latent_height: int,
    ignore: Sequence[int] = (),
    classes: Classes = 256,
) -> Tuple[np.ndarray, np.ndarray]:
    """(label uint8 [latent_height, latent_width], reference uint8 [height, width, 3]) of a pair
    checked with these `classes`, `ignore`.

    The label goes from its own size straight to the latent's with NEAREST, as in the release; ids
    become 0..N-1, ignored ones 255.
    """
    label, _ = Numbering.of(classes, ignore).read(pair.label)
    reference = resize_image(read_image(pair.reference), width, height)
    return resize_label(label, latent_width, latent_height), reference


def batches(pairs: Sequence[Item], batch_size: int) -> List[List[Item]]:
    """The list cut into batches by position, the last one partial: interruptions and resumes never
    move an image.

    release: drops the partial batch and wraps around; here: every item once.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; expected 1 or more")
    return [list(pairs[start : start + batch_size]) for start in range(0, len(pairs), batch_size)]


def _find_table(input_path: Path, folder: Path, notes: Notes) -> Path:
    places: List[Path] = []
    for place in (input_path, folder.parent, folder):
        if place.resolve() not in [known.resolve() for known in places]:
            places.append(place)
    found = [place / PAIRING for place in places if (place / PAIRING).is_file()]
    if not found:
        meant = _meant(input_path, lambda place: (place / PAIRING).is_file())
        raise DataError(
            f"no {PAIRING} in {' or '.join(str(place) for place in places)}; expected the file "
            f"that pairs label maps with references{'; did you mean %s?' % meant if meant else ''}"
        )
    if len(found) > 1:
        _tell(notes, f"using {found[0]}, not {found[1]}")
    return found[0]


def _read_table(path: Path) -> Dict[str, str]:
    """Stem of the label -> file name of the reference."""
    return _parse_table(path, read_text(path))


def _parse_table(path: Path, text: str) -> Dict[str, str]:
    expected = 'expected {"label.png": "reference.jpg", ...}'
    try:
        items = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {expected}") from None
    if not isinstance(items, _Object):
        raise DataError(f"{path} holds a {type(items).__name__}; {expected}")
    table: Dict[str, str] = {}
    for key, value in items:
        if not isinstance(value, str) or not _is_file_name(value):
            shown = (
                "a list or object"
                if isinstance(value, list)
                else json.dumps(value, ensure_ascii=False)[:80]
            )
            raise DataError(
                f"{path}: the entry of {key!r:.80} is {shown}; expected a file name such as "
                '"reference.jpg"'
            )
        stem = name_key(_without_suffix(key))
        if stem in table:
            raise DataError(f"{path} has two entries for {stem}; remove one")
        table[stem] = value
    return table


def _is_file_name(text: str) -> bool:
    """Whether a text can be the name of a file; whatever letters, spaces and bytes of other
    encodings it holds.
    """
    return bool(text) and not any(
        letter in "/\\" or unicodedata.category(letter) == "Cc" for letter in text
    )


def _check_encoding(
    path: Path, table: Dict[str, str], stems: Sequence[str], places: Places
) -> None:
    """Raise DataError where files are missing by a table read as UTF-8, but none by the same bytes
    in another encoding.
    """
    present = {name for _, files in places for name in files}

    def fits(read: Dict[str, str]) -> bool:
        return all(stem in read and name_key(read[stem]) in present for stem in stems)

    if fits(table):
        return
    for encoding, text in other_readings(path):
        try:
            other = _parse_table(path, text)
        except DataError:
            continue
        if fits(other):
            raise DataError(
                f"{path} is not UTF-8 text (it looks like {encoding}: read so, all of its files "
                "are there); expected UTF-8, save it as UTF-8"
            )


def _without_suffix(name: str) -> str:
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in LABEL_SUFFIXES else name


class _Object(list):
    """A JSON object as its list of (key, value), so that doubled keys are seen."""


def _reference_places(img_path: Path) -> Places:
    """[(folder, {key of the name: file})] of the places that references are looked for in, by
    preference.
    """
    places = [
        place for place in (img_path / "imgs", img_path, img_path / "images") if place.is_dir()
    ]
    return [
        (place, {name_key(entry.name): entry for entry in place.iterdir() if not entry.is_dir()})
        for place in places
    ]


def _find_references(
    img_path: Path, places: Places, table_path: Path, wanted: Sequence[str]
) -> List[Path]:
    keys: Set[str] = {name_key(name) for name in wanted}
    # The place that has most of them, the first of equals.
    folder, present = max(places, key=lambda place: len(keys & set(place[1])))
    missing = [name for name in wanted if name_key(name) not in present]
    if missing:
        near = near_name(missing[0], [entry.name for entry in present.values()])
        remedy = (
            f"there is {near}, correct the entry or rename the file"
            if near
            else "add it or correct the entry"
        )
        garbled = _garbled(missing, present) if not near else ""
        if garbled:
            raise DataError(f"{folder} lacks {some(missing)}, which {table_path} names; {garbled}")
        if len(missing) == len(wanted) and not near:
            first = missing[0]
            meant = _meant(
                img_path,
                lambda place: (place / "imgs" / first).is_file() or (place / first).is_file(),
            )
            remedy = (
                f"did you mean {meant}?"
                if meant
                else remedy
                if len(wanted) == 1
                else "give the folder of the reference images"
            )
        raise DataError(f"{folder} lacks {some(missing)}, which {table_path} names; {remedy}")
    return [present[name_key(name)] for name in wanted]


def _garbled(missing: Sequence[str], present: Dict[str, Path]) -> str:
    """What to do where files are there under names that an unpacker has read in another encoding;
    "" if they are not.
    """
    keys = {name_key(name) for name in missing}
    for entry in present.values():
        for codec in (
            "utf-8",
            "cp437",
        ):  # bytes left as they were, or taken for those of the first PCs
            for encoding in ("gb18030", "big5", "shift_jis"):
                try:
                    meant = name_key(entry.name.encode(codec, "surrogateescape").decode(encoding))
                except UnicodeError:
                    continue
                if meant in keys and name_key(entry.name) != meant:
                    return (
                        f"{entry.name} there is {meant} in {encoding}: unpack the archive again "
                        "with that encoding, or rename the files"
                    )
    return ""


def _meant(folder: Path, fits: Callable[[Path], bool]) -> Optional[Path]:
    """The folder that was probably meant: up to two levels below the one that was given, else above
    it or beside it.
    """

    def below(place: Path) -> List[Path]:
        try:
            return sorted(
                child
                for child in place.iterdir()
                if child.is_dir() and not child.name.startswith(".")
            )
        except OSError:
            return []

    children = below(folder)
    above = [folder.resolve().parent, folder.resolve().parent.parent]
    places = children + [
        deeper for child in children[:SEARCHED] for deeper in below(child)[:SEARCHED]
    ]
    places += above + [beside for place in above for beside in below(place)[:SEARCHED]]
    return next((place for place in places if place != folder.resolve() and fits(place)), None)


def _tell(notes: Notes, line: str) -> None:
    if notes is not None:
        notes.append(line)
