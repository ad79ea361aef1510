"""What is scored: every result with its label map, its reference and, where there is one, a predicted label map; all checked first."""
from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from jseg import images
from jseg.checks import (LABEL_SUFFIXES, DataError, Numbering, check_files, existing_folder, left_out, name_key, same_aspect, some,
                         visible_files)
from jseg.classes import IGNORED, ClassSet
from jseg.data import find_pairs
from jseg.examples import LABEL_FOLDERS, PICTURE_FOLDERS, picture_place
from jseg.outputs import check_folder, check_origin, claim
from jseg.records import is_own, pictures_alone
from jseg.text_file import read_text

SUMMARY, TABLE, GALLERY, PREDICTIONS = "summary.json", "pictures.csv", "gallery.html", "predictions"
FORMAT = 1
ROOM = 1 << 20                             # bytes without which not even the smallest tables fit
OWN = ("run.json", "stages", "overlays", "probabilities")      # beside results and predictions by our own commands


@dataclass(frozen=True)
class Item:
    """A result and what it is held against; `prediction` is a label map of the result, if there is one."""
    stem: str
    result: Path
    label: Path
    reference: Path
    prediction: Optional[Path] = None


def find_items(results, labels, references, predictions=None, partial: bool = False, notes: Optional[List[str]] = None) -> List[Item]:
    """Every label map of the challenge's layout (`jseg.data.find_pairs`) with RESULTS/stem.jpg (or .png, ...), sorted by name.

    predictions: a folder with stem.png for each. partial: label maps without a result are left out, with a note; else they are an error.
    Raises DataError in one line.
    """
    pairs = find_pairs(labels, references, notes)
    made = _by_stem(existing_folder(results, "results folder"), images.PICTURE_SUFFIXES, [pair.stem for pair in pairs], notes)
    missing = [pair.stem for pair in pairs if name_key(pair.stem) not in made]
    if len(missing) == len(pairs):
        raise DataError("%s holds no result of the %d label maps (%s.jpg, ...); give the folder that test wrote" % (results, len(pairs),
                                                                                                               missing[0]))
    if missing and not partial:
        raise DataError("%s lacks the results of %d of %d label maps (%s); make them, or give --partial to score what is there"
                        % (results, len(missing), len(pairs), some(missing, False)))
    if missing and notes is not None:
        notes.append("%d of %d label maps have no result and are left out (%s)" % (len(missing), len(pairs), some(missing, False)))
    pairs = [pair for pair in pairs if name_key(pair.stem) in made]
    seen = {} if predictions is None else _by_stem(existing_folder(predictions, "predictions folder"), LABEL_SUFFIXES,
                                                   [pair.stem for pair in pairs], notes)
    unseen = [pair.stem for pair in pairs if predictions is not None and name_key(pair.stem) not in seen]
    if unseen:
        raise DataError("%s lacks the label maps of %d of %d results (%s.png, ...); expected one for each, as segment writes them"
                        % (predictions, len(unseen), len(pairs), unseen[0]))
    return [Item(pair.stem, made[name_key(pair.stem)], pair.label, pair.reference, seen.get(name_key(pair.stem))) for pair in pairs]


def _by_stem(folder: Path, suffixes: Sequence[str], wanted: Sequence[str], notes: Optional[List[str]]) -> Dict[str, Path]:
    found: Dict[str, Path] = {}
    keys = set(map(name_key, wanted))
    for path in visible_files(folder, suffixes):
        stem = name_key(path.stem)
        if stem in found and stem in keys:
            raise DataError("%s holds both %s and %s; expected one, remove the other" % (folder, found[stem].name, path.name))
        found[stem] = path
    if notes is not None:
        notes.extend(left_out(folder, suffixes, OWN))
    return found


def check_items(items: Sequence[Item], classes: ClassSet, ignore: Sequence[int] = ()) -> List[str]:
    """Read every file once; what the user should be told. Raises DataError naming the first unusable file and how many more there are.

    A result must have its label map's aspect ratio, a prediction the ids 0 ... N - 1 and one of the two sizes, the label map `classes`.
    """
    numbering = Numbering.of(classes, ignore)

    def group(item: Item):
        sizes: List[Tuple[int, int]] = []

        def label(path: Path) -> List[str]:
            ids, remarks = numbering.read(path)
            sizes.append(ids.shape)
            return remarks + ["label maps hold ignored ids, which are not scored"] * bool((ids == IGNORED).any())

        def result(path: Path) -> List[str]:
            picture, remarks = images.examine_picture(path, "result")
            height, width = picture.shape[:2]
            if sizes and not same_aspect(width, height, *sizes[0][::-1]):
                raise DataError("result %s is %dx%d, its label map %dx%d; expected the same aspect ratio"
                                % (path, width, height, *sizes[0][::-1]))
            same = not sizes or sizes[0] == (height, width)
            return remarks if same else remarks + ["results are of another size than their label maps; label maps of them are compared "
                                                   "at the latter's"]

        def prediction(path: Path) -> List[str]:
            load_prediction(path, sizes[0] if sizes else None, len(classes))
            return []

        def reference(path: Path) -> List[str]:
            return images.examine_picture(path, "reference")[1]

        return [(item.label, label), (item.result, result), (item.reference, reference)] + [(item.prediction, prediction)] * bool(
            item.prediction)

    return check_files([group(item) for item in items])


def load_prediction(path: Path, shape: Optional[Tuple[int, int]], classes: int) -> np.ndarray:
    """A predicted label map, uint8 of class ids, brought to the label map's `shape` (height, width) with nearest; raises DataError."""
    found = images.read_label(path)
    if found.max() >= classes:
        raise DataError("prediction %s holds the id %d; expected class ids 0 to %d, as segment writes them"
                        % (path, found.max(), classes - 1))
    if shape is None:
        return found
    if not same_aspect(found.shape[1], found.shape[0], *shape[::-1]):
        raise DataError("prediction %s is %dx%d, its label map %dx%d; expected the same aspect ratio" % (path, *found.shape[::-1],
                                                                                                       *shape[::-1]))
    return images.resize_label(found, *shape[::-1])


def find_real(folder, least: int = 2, notes: Optional[List[str]] = None) -> List[Path]:
    """The pictures of a folder, or of imgs/ or images/ in it, sorted by name; raises DataError for fewer than `least`, or for other files.

    Only their headers are read: there may be ten thousand, with features kept already. Lines on the files that are left out are
    appended to `notes`.
    """
    folder = existing_folder(folder, "folder of real pictures")
    place = picture_place(folder, notes)
    found = pictures_alone(visible_files(place, images.PICTURE_SUFFIXES), notes)
    if notes is not None:
        notes.extend(left_out(place, images.PICTURE_SUFFIXES, PICTURE_FOLDERS + LABEL_FOLDERS))
    if len(found) < least:
        raise DataError("%s holds %d pictures; expected the real pictures, %d at least" % (place, len(found), least))

    def header(path: Path) -> List[str]:
        images.read_header(path)
        return []

    check_files([[(path, header)] for path in found])
    return found


def read_aesthetic(path, stems: Sequence[str], top: float) -> Dict[str, float]:
    """{stem: value} of a file with an aesthetic value, 0 to `top`, for every result; others are not used.

    CSV: `name,value` a line, a heading allowed; JSON (a name ending in .json): {"name": value, ...}. A name may have a suffix (.jpg).
    Raises DataError in one line, FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError("--aesthetic %s %s; expected a file of values, `name,value` a line" % (path, "is a folder" if path.is_dir()
                                                                                                       else "does not exist"))
    text = read_text(path)
    try:
        pairs = list(json.loads(text).items()) if path.suffix.lower() == ".json" else _csv_pairs(path, text)
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("%s cannot be read (%s); expected `name,value` a line, or JSON {\"name\": value, ...}" % (path, error)) from None
    found: Dict[str, float] = {}
    for name, value in pairs:
        key = name_key(_stem(str(name)))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
            raise DataError("%s: the value of %s is %s; expected 0 to %g (--aesthetic_max)" % (path, name, value, top))
        if key in found:
            raise DataError("%s has two values for %s; remove one" % (path, key))
        found[key] = float(value)
    missing = [stem for stem in stems if name_key(stem) not in found]
    if missing:
        raise DataError("%s has no value for %s; expected one for every result" % (path, some(missing)))
    return {stem: found[name_key(stem)] for stem in stems}


def _csv_pairs(path: Path, text: str) -> List[Tuple[str, float]]:
    pairs: List[Tuple[str, float]] = []
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        value = _number(cells[1]) if len(cells) > 1 else None
        if value is None and (number > 1 or len(cells) < 2):
            raise DataError("%s, line %d: %s; expected `name,value`" % (path, number, ",".join(cells)[:60]))
        if value is not None:
            pairs.append((cells[0], value))
    return pairs


def _number(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and "." + suffix.lower() in images.PICTURE_SUFFIXES else name


def check_output(output: Path, results: Path, inputs: Sequence[Path] = (), places: Sequence[Path] = ()) -> None:
    """Raise DataError unless `output` is new, or a folder without files of our names, or holds scores of these very results.

    inputs, places: files that are read and folders that they lie in, none of which a result may replace; see `outputs.claim`.
    """
    check_folder(output, "--output")
    check_origin(output, "--output", "score")
    known: Optional[Sequence[str]] = ()
    if os.path.lexists(str(output / SUMMARY)):
        try:
            old = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
            if old["command"] != "score" or old["format"] != FORMAT:
                raise ValueError("another format")
            scored = str(old["settings"]["results"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError("%s is no summary of score, or is damaged (%s); move it away or give another --output"
                            % (output / SUMMARY, error)) from None
        if scored != str(Path(results).resolve()):
            raise DataError("%s holds the scores of %s; give another --output" % (output, scored))
        known, files = None, old.get("files", {})
        changed = [name for name in (TABLE, GALLERY) if isinstance(files, dict) and not is_own(output, name, files)]
        if changed:
            raise DataError("%s was changed by others since score wrote it; move it away, or give another --output"
                            % (output / changed[0]))
    claim(output, "--output", "score", [TABLE, GALLERY], inputs, places, known, SUMMARY, ROOM)
