"""Pictures -> a folder of label maps: results written whole, finished ones skipped, results of other settings never mixed in.

OUTPUT/NAME.png                       the label map: 8-bit gray, one class id a pixel, in the picture's size
OUTPUT/overlays/NAME.jpg              the picture under its classes' colours
OUTPUT/probabilities/NAME.npy         on request: float16 [N, H, W]
OUTPUT/run.json                       the settings that made them, and the SHA-256 of every picture
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Set

import numpy as np

from jseg.atomic import remove_stale_temporaries, write_atomic
from jseg.checkpoint import sha256
from jseg.checks import DataError, check_files, name_key
from jseg.classes import ClassSet, colorize
from jseg.examples import Example, find_examples
from jseg.flowseg.predict import Segmenter
from jseg.images import ImageError, examine_picture, read_header, read_picture, save_picture

RUN, OVERLAYS, PROBABILITIES = "run.json", "overlays", "probabilities"
FORMAT = 1
STRENGTH = 0.5                             # of the colours over the picture


def find_pictures(inputs: Sequence[str], notes: Optional[List[str]] = None) -> List[Example]:
    """The pictures that are named, and those in the folders that are named, sorted by stem; raises DataError, also for two of one stem.

    A line on the files of a folder that are left out is appended to `notes`.
    """
    found: Dict[str, Example] = {}
    for given in map(Path, inputs):
        if not given.exists():
            raise DataError(f"input {given} does not exist; give a picture, or a folder of pictures")
        for example in find_examples(given, labels=False, notes=notes) if given.is_dir() else [Example(name_key(given.stem), given)]:
            if example.stem in found:
                raise DataError(f"{found[example.stem].picture} and {example.picture} would give one result, {example.stem}.png; rename "
                                f"one")
            found[example.stem] = example
    return [found[stem] for stem in sorted(found)]


def check_pictures(pictures: Sequence[Example], least: int) -> List[str]:
    """Read every picture once; what the user should be told. Raises DataError naming the first that is broken or smaller than `least`."""
    def check(path: Path) -> List[str]:
        picture, remarks = examine_picture(path)
        height, width = picture.shape[:2]
        if min(height, width) < least:
            raise DataError(f"picture {path} is {width}x{height}; expected at least {least}x{least}, one patch of the network")
        return remarks

    return check_files([[(example.picture, check)] for example in pictures])


def opened(output: Path, settings: dict, pictures: Sequence[Example]) -> None:
    """Raise DataError unless `output` is new, or holds results of these settings alone; nothing is written."""
    if output.exists() and not output.is_dir():
        raise DataError(f"output {output} is a file; expected a folder, which is created if missing")
    try:
        run = json.loads((output / RUN).read_text(encoding="utf-8")) if (output / RUN).exists() else {"settings": {}, "pictures": {}}
        old, known = {**run["settings"]}, {**run["pictures"]}
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{output / RUN} is no run file of segment, or is damaged ({error}); move it away or give another "
                        f"--output") from None
    taken = [example.stem for example in pictures if example.stem not in known and (output / f"{example.stem}.png").exists()]
    if taken:
        raise DataError(f"{output} holds {taken[0]}.png ({len(taken)} of the results' names are taken), of which no {RUN} says how it was "
                        f"made; give another --output, or move those files away")
    settings = json.loads(json.dumps(settings)) if old else {}
    differ = [f"{name} was {old.get(name)}, is {settings.get(name)}" for name in sorted(set(old) | set(settings))
              if old.get(name) != settings.get(name)]
    if differ:
        raise DataError(f"{output} holds results of other settings ({'; '.join(differ[:3])}); give another --output, or the same "
                        f"settings to go on")


def digests_of(pictures: Sequence[Example]) -> Dict[str, str]:
    """Stem -> SHA-256 of the picture's file."""
    return {example.stem: sha256(example.picture) for example in pictures}


def finished(pictures: Sequence[Example], output: Path, digests: Dict[str, str], probabilities: bool) -> Set[str]:
    """Stems of those whose result is there, made from this very file."""
    known = _recorded(output)
    return {example.stem for example in pictures
            if known.get(example.stem) == digests[example.stem] and _complete(example, output, probabilities)}


def _recorded(output: Path) -> Dict[str, str]:
    """`digests_of` the pictures that an opened folder's results were made from."""
    path = output / RUN
    return json.loads(path.read_text(encoding="utf-8"))["pictures"] if path.exists() else {}


def _complete(example: Example, output: Path, probabilities: bool) -> bool:
    """Whether all files of a picture's result are there and the label map, written last, can be opened."""
    try:
        return (output / f"{example.stem}.png").exists() and read_header(output / f"{example.stem}.png").format == "PNG" and \
            (output / OVERLAYS / f"{example.stem}.jpg").exists() and \
            (not probabilities or (output / PROBABILITIES / f"{example.stem}.npy").exists())
    except ImageError:
        return False


@dataclass(frozen=True)
class Result:
    """A picture that was segmented: its label map int32 [H, W]."""
    example: Example
    labels: np.ndarray


def segment_folder(segmenter: Segmenter, pictures: Sequence[Example], output: Path, settings: dict, classes: ClassSet,
                   digests: Dict[str, str], probabilities: bool = False) -> Iterator[Result]:
    """Segment the pictures that are not finished, yielding a `Result` after each, whose files are then there.

    digests: `digests_of` the pictures; label maps of other files of the same names are removed first. Raises OSError in one line when the
    disk is full; what is finished stays.
    """
    places = [output, output / OVERLAYS] + [output / PROBABILITIES] * probabilities
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(place)
    done = finished(pictures, output, digests, probabilities)
    for example in pictures:
        path = output / f"{example.stem}.png"
        if example.stem not in done and path.exists():
            path.unlink()
    record = json.dumps({"format": FORMAT, "settings": settings, "classes": list(classes.names),
                         "pictures": {**_recorded(output), **digests}}, indent=1, ensure_ascii=False) + "\n"
    _written(output / RUN, lambda path: write_atomic(path, lambda file: file.write(record.encode("utf-8", "backslashreplace"))))
    for example in pictures:
        if example.stem in done:
            continue
        picture = read_picture(example.picture)
        if probabilities:
            found = segmenter.probabilities(picture, example.stem)
            labels = found.argmax(0).astype(np.int32)
            _written(output / PROBABILITIES / f"{example.stem}.npy",
                     lambda path: write_atomic(path, lambda file: np.save(file, found.astype(np.float16))))
        else:
            labels = segmenter.segment(picture, example.stem)
        _written(output / OVERLAYS / f"{example.stem}.jpg", lambda path: save_picture(path, overlay(picture, labels, classes)))
        _written(output / f"{example.stem}.png", lambda path: save_picture(path, labels.astype(np.uint8)))
        yield Result(example, labels)


def overlay(picture: np.ndarray, labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """uint8 [H, W, 3]: the picture under the colours of its classes."""
    return np.rint((1 - STRENGTH) * picture + STRENGTH * colorize(labels, classes)).astype(np.uint8)


def _written(path: Path, write) -> None:
    try:
        write(path)
    except OSError as error:
        raise OSError(f"cannot write {path} ({error.strerror or error}); what is finished stays, make room or mend the folder and give the "
                      f"same command again") from error
