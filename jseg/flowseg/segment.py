"""Images -> a folder of label maps: results written whole, finished ones skipped, results of other
settings never mixed in."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from jseg.counting import counted
from jseg.data import image_folder
from jseg.data.classes import ClassSet, colorize
from jseg.data.examples import Example
from jseg.data.folders import listing, name_key
from jseg.files import DataError, remove_stale_temporaries, write_atomic
from jseg.flowseg.predict import Segmenter
from jseg.flowseg.results import OVERLAYS, PROBABILITIES, finished, names_of, source
from jseg.images import read_image, save_image
from jseg.outputs.run import Run
from jseg.training import distributed

RECORDED = 500  # run.json is long: it is written this often at most
STRENGTH = 0.5  # of the colours over the image


def find_images(inputs: Sequence[str]) -> Tuple[List[Example], List[str]]:
    """(the images that are named and those in the folders that are named, by stem; remarks).

    A file that is given twice counts once. What a command of ours wrote into a folder beside its
    results, such as a contact sheet, is left out. Raises DataError, also for two images of one
    stem.
    """
    found: Dict[str, Example] = {}
    twice: List[str] = []
    remarks: List[str] = []
    for place in map(Path, inputs):
        if not place.exists():
            raise DataError(f"input {place} does not exist; give an image, or a folder of images")
        examples = [Example(name_key(place.stem), place)]
        if place.is_dir():
            examples, more = image_folder.find_images(place)
            remarks += more

        for example in examples:
            same = found.setdefault(example.stem, example)
            if same is example:
                continue
            if not os.path.samefile(str(same.image), str(example.image)):
                raise DataError(
                    f"{same.image} and {example.image} would give one result, "
                    f"{example.stem}.png; rename one"
                )
            twice.append(example.image.name)
    if twice:
        words = "image[s] [is|are] given twice and taken once"
        remarks.append(f"{counted(len(twice), words)} ({listing(twice)})")
    return [found[stem] for stem in sorted(found)], remarks


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
    """SHA-256 of the sources that take an image to its label map.

    With other sources, it may be another label map.
    """
    room = Path(__file__).resolve().parent
    beside = [room.parent / name for name in ("configs.py", "images.py", "noise.py", "runtime.py")]
    sha = hashlib.sha256()
    for path in [*sorted(room.glob("*.py")), *sorted((room.parent / "nn").glob("*.py")), *beside]:
        sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


def segment_folder(
    segmenter: Segmenter,
    images: Sequence[Example],
    run: Run,
    classes: ClassSet,
    digests: Dict[str, str],
    probabilities: bool = False,
) -> Iterator[Example]:
    """Segment the images that are not finished, yielding each once its files are there.

    run: as `results.resumed` gives it. digests: `results.digests_of` the images. A file that
    someone has changed since it was written is kept. Several processes take parts of the images in
    rounds; process 0 alone writes run.json, and yields the images of the others at the end of a
    round. Raises OSError in one line when the disk is full; what is finished stays.
    """
    rank = distributed.rank()
    if rank == 0:
        _make_folders(run.folder, probabilities)
    done = distributed.from_first(lambda: finished(images, run, digests, probabilities))
    todo = [example for example in images if example.stem not in done]

    # The record names what comes next, so that a process that is killed knows its own files.
    length = max(1, len(todo) // RECORDED)
    parts = [todo[start : start + length] for start in range(0, len(todo), length)]
    run.fields["classes"] = list(classes.names)
    with contextlib.nullcontext() if rank else run.saved_at_the_end():
        for round_parts in distributed.rounds(parts):
            coming = [example for part in round_parts for example in part]
            if rank == 0:
                run.save(names_of([example.stem for example in coming], probabilities))
            own = round_parts[rank] if rank < len(round_parts) else []
            for example in own:
                _segment(segmenter, example, run, classes, probabilities)
                _count(run, example, digests)
                yield example

            # What the others made.
            names = names_of([example.stem for example in own], probabilities)
            for files in distributed.gather(run.written(names)):
                run.files.update(files)
            for example in coming[len(own) :] if rank == 0 else []:
                _count(run, example, digests)
                yield example


def _make_folders(folder: Path, probabilities: bool) -> None:
    for place in [folder, folder / OVERLAYS] + [folder / PROBABILITIES] * probabilities:
        place.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(place)


def _count(run: Run, example: Example, digests: Dict[str, str]) -> None:
    """Enter an image that is finished into the record."""
    run.fields["pictures"][example.stem] = digests[example.stem]
    run.fields["sources"][example.stem] = source(example)


def _segment(
    segmenter: Segmenter, example: Example, run: Run, classes: ClassSet, probabilities: bool
) -> None:
    """Write the files of one image."""
    image, stem = read_image(example.image), example.stem
    writers: Dict[str, Callable[[Path], object]] = {}
    if probabilities:
        maps = segmenter.probabilities(image, stem)  # [N, H, W]
        labels = maps.argmax(0).astype(np.int32)
        writers[f"{PROBABILITIES}/{stem}.npy"] = lambda path: write_atomic(
            path, lambda file: np.save(file, maps.astype(np.float16))
        )
    else:
        labels = segmenter.segment(image, stem)

    # The label map comes last: where it is there, all is.
    drawn = overlay(image, labels, classes)
    writers[f"{OVERLAYS}/{stem}.jpg"] = lambda path: save_image(path, drawn)
    writers[f"{stem}.png"] = lambda path: save_image(path, labels.astype(np.uint8))
    for name, write in writers.items():
        run.write(name, write)


def overlay(image: np.ndarray, labels: np.ndarray, classes: ClassSet) -> np.ndarray:
    """uint8 [H, W, 3]: the image under the colours of its classes."""
    mixed = np.float32(STRENGTH) * colorize(labels, classes)
    mixed += np.float32(1 - STRENGTH) * image
    return np.rint(mixed, out=mixed).astype(np.uint8)
