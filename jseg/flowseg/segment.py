"""Images -> a folder of label maps: results written whole, finished ones skipped, results of
other settings never mixed in.

OUTPUT/NAME.png                       the label map: 8-bit gray, one class id a pixel, in the image's size
OUTPUT/overlays/NAME.jpg              the image under its classes' colours
OUTPUT/probabilities/NAME.npy         on request: float16 [N, H, W]
OUTPUT/run.json                       the settings that made them, the SHA-256 of every image and of every file
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Set

import numpy as np

from jseg.data.classes import ClassSet, colorize
from jseg.data.image_folder import Example, find_examples
from jseg.data.validation import check_files, name_key, some
from jseg.files import DataError, remove_stale_temporaries, sha256, write_atomic
from jseg.flowseg.predict import Segmenter
from jseg.image_files.decoding import ImageError, read_header
from jseg.images import examine_image, read_image, save_image
from jseg.outputs.records import is_own, listed
from jseg.outputs.rules import check_folder, check_names, check_origin

RUN, OVERLAYS, PROBABILITIES = "run.json", "overlays", "probabilities"
FORMAT = 1
FREE = ("batch_size", "device")  # settings that change the last bits at most
RECORDED = 500  # times at most that the record is written
STRENGTH = 0.5  # of the colours over the image


def find_images(inputs: Sequence[str], notes: Optional[List[str]] = None) -> List[Example]:
    """The images that are named, and those in the folders that are named, sorted by stem; raises
    DataError, also for two of one stem.

    A file that is given twice counts once, and what a command of ours wrote into a folder as
    something else than its results, such as a contact sheet, is left out; `notes` gets how many of
    both, and a line on other files of a folder that are left out.
    """
    found: Dict[str, Example] = {}
    twice: List[str] = []
    for given in map(Path, inputs):
        if not given.exists():
            raise DataError(f"input {given} does not exist; give an image, or a folder of images")
        examples = (
            find_examples(given, labels=False, notes=notes)
            if given.is_dir()
            else [Example(name_key(given.stem), given)]
        )

        for example in examples:
            same = found.get(example.stem)
            if same is not None and os.path.samefile(str(same.image), str(example.image)):
                twice.append(example.image.name)
            elif same is not None:
                raise DataError(
                    f"{same.image} and {example.image} would give one result, "
                    f"{example.stem}.png; rename one"
                )
            found.setdefault(example.stem, example)
    if notes is not None and twice:
        notes.append(
            f"{len(twice)} images are given twice and are taken once ({some(twice, False)})"
        )
    return [found[stem] for stem in sorted(found)]


def names_of(stems: Sequence[str], probabilities: bool = False) -> List[str]:
    """The files of the images' results, relative to the folder; the label map, which is written
    last, comes last.
    """
    return [
        name
        for stem in stems
        for name in [f"{PROBABILITIES}/{stem}.npy"] * probabilities
        + [f"{OVERLAYS}/{stem}.jpg", f"{stem}.png"]
    ]


def check_images(images: Sequence[Example], least: int) -> List[str]:
    """Read every image once; what the user should be told. Raises DataError naming the first that
    is broken or smaller than `least`.
    """

    def check(path: Path) -> List[str]:
        image, remarks = examine_image(path)
        height, width = image.shape[:2]
        if min(height, width) < least:
            raise DataError(
                f"image {path} is {width}x{height}; expected at least {least}x{least}, one "
                "patch of the network"
            )
        return remarks

    return check_files([[(example.image, check)] for example in images])


def read_run(output: Path) -> dict:
    """The record in a folder, an empty one if there is none; raises DataError for one that is
    damaged or of another kind.
    """
    empty = {"settings": {}, "pictures": {}, "sources": {}, "files": {}}
    if not os.path.lexists(str(output / RUN)):
        return empty
    try:
        run = json.loads((output / RUN).read_text(encoding="utf-8"))
        run = {
            "settings": {**run["settings"]},
            "pictures": {**run["pictures"]},
            "sources": {**run.get("sources", {})},
            "files": None if "files" not in run else {**run["files"]},
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{output / RUN} is no run file of segment, or is damaged ({error}); move it away or "
            "give another --output"
        ) from None
    if run["files"] is None:
        # Records of before the files were listed name the images of all of them.
        run["files"] = {
            name: "" for name in names_of(sorted(run["pictures"]), True) if (output / name).exists()
        }
    return run


def opened(
    output: Path,
    settings: dict,
    images: Sequence[Example],
    digests: Dict[str, str],
    probabilities: bool = False,
    notes: Optional[List[str]] = None,
    remake: bool = False,
) -> dict:
    """The record to go on with, as `segment_folder` wants it; nothing is written.

    FREE settings may always change, the others while nothing is finished; with `remake`, results of
    other settings are made again. `notes` gets what a person should be told. Raises DataError
    unless `output` is new, or holds results of these settings and images alone.
    """
    check_folder(output, "--output")
    check_origin(output, "--output", "segment")
    run = read_run(output)
    check_names(
        output,
        "--output",
        names_of([example.stem for example in images], probabilities),
        run["files"],
        RUN,
    )
    there = [stem for stem in run["pictures"] if (output / f"{stem}.png").exists()]

    # A result of another image of the same name stays; an image that was changed where it lies
    # is segmented again.
    others = [
        example
        for example in images
        if example.stem in there
        and run["pictures"][example.stem] != digests[example.stem]
        and run["sources"].get(example.stem) != _source(example)
    ]
    if others:
        first = others[0]
        raise DataError(
            f"{output} holds {first.stem}.png of another image of this name than "
            f"{first.image} ({len(others)} of the results' names are taken so); give another "
            "--output"
        )

    old, settings = run["settings"], json.loads(json.dumps(settings))
    differ = (
        [name for name in sorted(set(old) | set(settings)) if old.get(name) != settings.get(name)]
        if old
        else []
    )
    fixed = [name for name in differ if name not in FREE or remake]
    said = "; ".join(
        f"{name} was {old.get(name)}, is {settings.get(name)}" for name in (fixed or differ)[:3]
    )
    if fixed and there and not remake:
        raise DataError(
            f"{output} holds results of other settings ({said}); give another --output, or the "
            "same settings to go on"
        )
    notes = [] if notes is None else notes
    if fixed:
        notes.append(
            f"{len(there)} label maps in {output} were made otherwise ({said}) and are made again"
            if there
            else f"nothing was finished in {output}, so the run begins again with other settings "
            f"({said})"
        )
        run["pictures"] = {}
    elif differ and there:
        notes.append(
            f"{said}: {len(there)} label maps are there already and are kept; those that are made "
            "now may differ from what the old setting would give in the last bits"
        )
    changed = [f"{stem}.png" for stem in there if not is_own(output, f"{stem}.png", run["files"])]
    if changed:
        notes.append(
            f"{len(changed)} label maps were changed by others since they were made "
            f"({some(changed, False)}); they are kept as they are"
        )
    return {**run, "settings": settings}


def _source(example: Example) -> str:
    return os.path.realpath(str(example.image)).encode("utf-8", "backslashreplace").decode()


def options_of(segmenter: Segmenter) -> dict:
    """Everything in a segmenter, its weights apart, that its label maps depend on."""
    return {
        "times": [float(t) for t in segmenter.times],
        "method": segmenter.method,
        "mirror": segmenter.mirror,
        "seeds": list(segmenter.seeds),
        "scale": segmenter.scale,
        "overlap": segmenter.overlap,
        "batch_size": segmenter.batch_size,
    }


def code() -> str:
    """SHA-256 of the sources that take an image to its label map: with other sources, it may be
    another one.
    """
    root = Path(__file__).resolve().parent
    sha = hashlib.sha256()
    beside = [root.parent / name for name in ("configs.py", "images.py", "noise.py", "runtime.py")]
    for path in [*sorted(root.glob("*.py")), *sorted((root.parent / "nn").glob("*.py")), *beside]:
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


def digests_of(images: Sequence[Example]) -> Dict[str, str]:
    """Stem -> SHA-256 of the image's file."""
    return {example.stem: sha256(example.image) for example in images}


def finished(
    images: Sequence[Example],
    output: Path,
    run: dict,
    digests: Dict[str, str],
    probabilities: bool,
) -> Set[str]:
    """Stems of those whose result is there, made from this very file."""
    return {
        example.stem
        for example in images
        if run["pictures"].get(example.stem) == digests[example.stem]
        and _complete(example, output, probabilities)
    }


def _complete(example: Example, output: Path, probabilities: bool) -> bool:
    """Whether all files of an image's result are there and the label map, written last, can be
    opened.
    """
    try:
        return (
            (output / f"{example.stem}.png").exists()
            and read_header(output / f"{example.stem}.png").format == "PNG"
            and (output / OVERLAYS / f"{example.stem}.jpg").exists()
            and (not probabilities or (output / PROBABILITIES / f"{example.stem}.npy").exists())
        )
    except ImageError:
        return False


@dataclass(frozen=True)
class Result:
    """An image that was segmented: its label map int32 [H, W]."""

    example: Example
    labels: np.ndarray


def segment_folder(
    segmenter: Segmenter,
    images: Sequence[Example],
    output: Path,
    run: dict,
    classes: ClassSet,
    digests: Dict[str, str],
    probabilities: bool = False,
) -> Iterator[Result]:
    """Segment the images that are not finished, yielding a `Result` after each, whose files are
    then there.

    run: as `opened` gives it. digests: `digests_of` the images. A file that someone has changed
    since it was written is kept. Raises OSError in one line when the disk is full; what is finished
    stays.
    """
    for place in [output, output / OVERLAYS] + [output / PROBABILITIES] * probabilities:
        place.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(place)
    done = finished(images, output, run, digests, probabilities)
    todo = [example for example in images if example.stem not in done]

    # The record names what comes next, so that a killed run knows its own files; it is written 500
    # times at most, as it is long.
    length = max(1, len(todo) // RECORDED)
    parts = [todo[start : start + length] for start in range(0, len(todo), length)]
    try:
        for part in parts:
            _record(
                output, run, classes, names_of([example.stem for example in part], probabilities)
            )
            for example in part:
                yield _segmented(segmenter, example, output, run, classes, probabilities)
                run["pictures"][example.stem], run["sources"][example.stem] = (
                    digests[example.stem],
                    _source(example),
                )
    except BaseException:
        # Where the disk is full, the record stays as it is.
        with contextlib.suppress(OSError):
            _record(output, run, classes, [])
        raise
    _record(output, run, classes, [])


def _segmented(
    segmenter: Segmenter,
    example: Example,
    output: Path,
    run: dict,
    classes: ClassSet,
    probabilities: bool,
) -> Result:
    image = read_image(example.image)
    contents = {}
    if probabilities:
        found = segmenter.probabilities(image, example.stem)
        labels = found.argmax(0).astype(np.int32)
        contents[f"{PROBABILITIES}/{example.stem}.npy"] = lambda path: write_atomic(
            path, lambda file: np.save(file, found.astype(np.float16))
        )
    else:
        labels = segmenter.segment(image, example.stem)
    contents[f"{OVERLAYS}/{example.stem}.jpg"] = lambda path: save_image(
        path, overlay(image, labels, classes)
    )
    contents[f"{example.stem}.png"] = lambda path: save_image(path, labels.astype(np.uint8))
    for name, write in contents.items():
        if is_own(output, name, run["files"]):
            _written(output / name, write)
            run["files"][name] = sha256(output / name)
    return Result(example, labels)


def _record(output: Path, run: dict, classes: ClassSet, following: Sequence[str]) -> None:
    run["files"] = listed(output, run["files"], following)
    record = (
        json.dumps(
            {
                "format": FORMAT,
                "command": "segment",
                "settings": run["settings"],
                "classes": list(classes.names),
                "pictures": run["pictures"],
                "sources": run["sources"],
                "files": dict(sorted(run["files"].items())),
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )
    _written(
        output / RUN,
        lambda path: write_atomic(
            path, lambda file: file.write(record.encode("utf-8", "backslashreplace"))
        ),
    )


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """uint8 [H, W, 3]: the image under the colours of its classes."""
    return np.rint((1 - STRENGTH) * image + STRENGTH * colorize(labels, classes)).astype(np.uint8)


def _written(path: Path, write) -> None:
    try:
        write(path)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}); what is finished stays, make room "
            "or mend the folder and give the same command again"
        ) from error
