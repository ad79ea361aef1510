"""The files of a segmentation in its output folder: their names, which are finished, and the run
that a second call goes on with.

OUTPUT/NAME.png                the label map: 8-bit gray, one class id a pixel, in the image's size
OUTPUT/overlays/NAME.jpg       the image under its classes' colours
OUTPUT/probabilities/NAME.npy  on request: float16 [N, H, W]
OUTPUT/run.json                beside what `jseg.outputs.run` writes: "classes", and by stem
                               "pictures" (SHA-256 of the image) and "sources" (where it lies)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Set, Tuple

from jseg.counting import counted
from jseg.data.examples import Example
from jseg.files import DataError, sha256
from jseg.outputs import run as run_file
from jseg.outputs.places import TAKEN, check_folder, check_names, claim
from jseg.outputs.record import opens
from jseg.outputs.run import Run

COMMAND, OPTION = "segment", "--output"
OVERLAYS, PROBABILITIES = "overlays", "probabilities"
RESULT_BYTES = 3.5  # a pixel at most: an overlay takes 2.5, a label map 1


def names_of(stems: Iterable[str], probabilities: bool = False) -> List[str]:
    """The files of the images' results, relative to the folder; the label map is written last."""
    names = []
    for stem in stems:
        names += [f"{PROBABILITIES}/{stem}.npy"] * probabilities
        names += [f"{OVERLAYS}/{stem}.jpg", f"{stem}.png"]
    return names


def digests_of(images: Sequence[Example]) -> Dict[str, str]:
    """{stem: SHA-256 of the image's file}."""
    return {example.stem: example.image_sha256 or sha256(example.image) for example in images}


def source(example: Example) -> str:
    """Where an image lies, as run.json has it."""
    return os.path.realpath(str(example.image)).encode("utf-8", "backslashreplace").decode()


def check_output(
    output: Path,
    names: Sequence[str],
    inputs: Iterable[Path] = (),
    places: Iterable[Path] = (),
) -> None:
    """Raise DataError unless the files `names` of a run can be written into `output`.

    inputs, places: as for `jseg.outputs.places.claim`.
    """
    old = _read(output)
    claim(output, OPTION, COMMAND, names, inputs, places, old.files if old else {})


def check_room(output: Path, images: Sequence[Example], probabilities: int) -> None:
    """Raise OutputError unless a new run has room in `output` for the results of checked images.

    probabilities: the classes of which probabilities are kept as well, or 0.
    """
    if (output / run_file.NAME).exists():
        return
    pixels = sum(example.pixels for example in images)
    check_folder(output, OPTION, int(pixels * (RESULT_BYTES + 2 * probabilities)))


def resumed(
    output: Path,
    settings: dict,
    images: Sequence[Example],
    digests: Dict[str, str],
    probabilities: bool = False,
    remake: bool = False,
) -> Tuple[Run, List[str]]:
    """(the run of these settings to go on with in `output`, remarks); nothing is written.

    With `remake`, results of other settings are made again. Raises DataError, in one line, unless
    `output` is new, or holds results of these settings and images alone.
    """
    old = _read(output)
    names = names_of([example.stem for example in images], probabilities)
    check_names(output, OPTION, names, old.files if old else {})
    if old:
        _check_sources(old, images, digests)
    stems = old.fields["pictures"] if old else {}
    results = [f"{stem}.png" for stem in stems if (output / f"{stem}.png").exists()]
    new = Run(output, COMMAND, settings, {"pictures": {}, "sources": {}}, {})
    return run_file.resumed(new, old, results, OPTION, remake)


def _read(output: Path) -> Optional[Run]:
    """The run that `output` holds, None if there is none."""
    run = run_file.read(output, COMMAND, OPTION, _check_pictures)
    if run is None:
        return None
    run.fields.setdefault("sources", {})
    if run.files is None:
        # Before records listed files, those of all pictures were the run's.
        names = names_of(sorted(run.fields["pictures"]), True)
        run.files = {name: "" for name in names if (output / name).exists()}
    return run


def _check_pictures(record: dict) -> None:
    """Raise ValueError, LookupError or TypeError for a record without its pictures."""
    for name in ("pictures", "sources"):
        texts = record["pictures"] if name == "pictures" else record.get(name, {})
        if not all(isinstance(text, str) for text in [*texts, *texts.values()]):
            raise ValueError(f"its {name} are no texts")


def _check_sources(run: Run, images: Sequence[Example], digests: Dict[str, str]) -> None:
    """Raise DataError where a finished result is that of another image of the same name.

    An image that was changed where it lies is segmented again instead.
    """
    pictures, sources = run.fields["pictures"], run.fields["sources"]
    others = [
        example
        for example in images
        if example.stem in pictures
        and (run.folder / f"{example.stem}.png").exists()
        and pictures[example.stem] != digests[example.stem]
        and sources.get(example.stem) != source(example)
    ]
    if others:
        first = others[0]
        raise DataError(
            f"{run.folder} holds {first.stem}.png of another image of this name than "
            f"{first.image} ({counted(len(others), TAKEN)} so); give another "
            f"{OPTION}"
        )


def finished(
    images: Sequence[Example], run: Run, digests: Dict[str, str], probabilities: bool = False
) -> Set[str]:
    """The stems of those images whose result is there, made from this very file."""
    pictures = run.fields["pictures"]
    return {
        example.stem
        for example in images
        if pictures.get(example.stem) == digests[example.stem]
        and opens(run.folder / f"{example.stem}.png", "PNG")
        and all((run.folder / name).exists() for name in names_of([example.stem], probabilities))
    }
