"""Whose a training's folder is: held by one process, of one training, beside no input.

Nothing here knows Jittor.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator, Mapping

from jseg.counting import counted
from jseg.outputs import places
from jseg.outputs.locks import held
from jseg.outputs.places import OutputError
from jseg.outputs.record import sound_record
from jseg.training.records import BEST, CHECKPOINT, CURVE, LOG, MARK, PREVIEW, is_trained

# The caches of `train`, which are there before anything else.
LATENTS, HELD_OUT_LATENTS = "latents", "latents_held_out"
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@contextlib.contextmanager
def run_folder(
    output, name: str, inputs: Mapping[str, object], speaks: bool = True
) -> Iterator[None]:
    """Hold the folder `output` of a training of `name` for this process, made if missing and
    removed again if it stays empty.

    inputs: {option: path, paths or None} of what is read. Raises OutputError, before anything is
    written, where the folder holds files of another origin, takes the place of an input or is held
    by another process. Where not `speaks`, process 0 does all this.
    """
    check_places({"output": output}, inputs)
    if not speaks:
        yield
        return
    folder = Path(output)
    check_origin(folder, name)
    with held(folder):
        check_origin(folder, name)  # another process may have had the folder in between
        yield


def check_places(outputs: Mapping[str, object], inputs: Mapping[str, object]) -> None:
    """Raise OutputError where an output folder is an input, lies among its images, or holds an
    input under a run's own name.

    Both are {option: path, paths or None}.
    """
    sources = [
        (name, path)
        for name, value in inputs.items()
        for path in (value if isinstance(value, (list, tuple)) else [value])
        if path
    ]

    # Links are followed: what counts is where the files are.
    for option, output in outputs.items():
        if not output:
            continue
        target = Path(os.path.realpath(output))
        if os.path.islink(output) and not target.exists():
            raise OutputError(
                f"--{option} {output} is a link to nowhere; give a folder, which is created if "
                "missing"
            )
        for name, path in sources:
            source = Path(os.path.realpath(path))
            if _takes(target, source) or option == "output" and _is_of(target, source):
                raise OutputError(
                    f"--{option} {output} would take the place of the input --{name} {path}; "
                    f"give another folder as --{option}"
                )


def _takes(target: Path, source: Path) -> bool:
    """Whether results in `target` would mix with the input `source`."""
    if source.is_file():
        return source.parent == target and _own_name(source.name, source.stem)
    if target == source:
        return True
    among = [place for place in (target, *target.parents) if source in (place, *place.parents)]
    return any(_holds_images(place) for place in among)


def _is_of(target: Path, source: Path) -> bool:
    """Whether an output lies inside of the input folder `source` and holds other things than a
    run.
    """
    if not target.is_dir() or source not in target.parents or _is_run(target):
        return False
    caches = (LATENTS, HELD_OUT_LATENTS)
    return any(not name.startswith(".") and name not in caches for name in os.listdir(target))


def _is_run(folder: Path) -> bool:
    """Whether a training has this folder."""
    return (folder / MARK).exists() or any(CHECKPOINT.match(name) for name in os.listdir(folder))


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(
        Path(name).suffix.lower() in IMAGES and name != CURVE and not PREVIEW.match(name)
        for name in os.listdir(folder)
    )


def _own_name(name: str, result: str) -> bool:
    """Whether a training that makes `result` writes a file of this name."""
    return name in (LOG, CURVE, BEST, f"{result}.safetensors") or bool(
        CHECKPOINT.match(name) or PREVIEW.match(name)
    )


def check_origin(folder: Path, name: str) -> None:
    """Raise OutputError if `folder` holds a file that a training of `name` writes, but no such
    training.
    """
    files = sorted(os.listdir(folder)) if folder.is_dir() else []
    own = [file for file in files if _own_name(file, name)]
    if files and not _is_run(folder):
        places.check_origin(folder, "--output", "train")
        images = [file for file in files if Path(file).suffix.lower() in IMAGES and file not in own]
        if images:
            raise OutputError(
                f"{folder} holds {counted(len(images), 'image[s]')}, such as {images[0]}, and no "
                "training; give another --output, which is created if missing"
            )

    if MARK in files:
        remedy = "remove it and give the same command again, or give another --output"
        other = sound_record(folder / MARK, remedy, _check_mark)["training"]
        if other != name:
            raise OutputError(
                f"{folder} holds a training of {other}, not of {name}; give another --output"
            )
        return
    weights = [file for file in own if file.endswith(".safetensors")]
    if own and not any(is_trained(folder / file) for file in weights):
        raise OutputError(
            f"{folder} holds {own[0]}, which no training of {name} wrote there; give another "
            "--output, or move it away"
        )


def _check_mark(record: dict) -> None:
    """Raise ValueError or KeyError for a training.json that does not say what is trained."""
    if not isinstance(record["training"], str):
        raise ValueError("it does not say what is trained")
