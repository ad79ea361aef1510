"""What a training run keeps in its folder: whose files they are, which checkpoint to go on from,
and what is set aside.

FOLDER/training.json                marks the folder as a training's, and says of which result
FOLDER/set_aside-00000010-1/        what was later than step 10 when the run went back to that step, with the log as it was

The checkpoints in FOLDER itself are always those of one line of steps. Each says in `branch` from
which file a person started it with --resume FILE (None: from the beginning), and in `changes` which
settings were changed on the way. Nothing here knows Jittor.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Collection, Dict, Iterator, List, Mapping, Optional, Sequence

from jseg.checkpoint import CheckpointError
from jseg.files import write_atomic
from jseg.formats.reader import read_record
from jseg.outputs import places
from jseg.outputs.locks import held
from jseg.outputs.places import OutputError

CHECKPOINT = re.compile(r"^checkpoint-(\d{8,})\.safetensors$")
PREVIEW = re.compile(r"^preview-(\d{8,})\.png$")
JOURNAL, CURVE, BEST, MARK = "log.csv", "curve.png", "best.safetensors", "training.json"
LATENTS = "latents"  # the cache of `train`, which is there before anything else
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# What a person may change on the way, by giving the option: how the work is done, not which work it
# is.
CHANGEABLE = frozenset(
    (
        "batch_size",
        "learning_rate",
        "weight_decay",
        "ema",
        "drop",
        "warmup",
        "decay",
        "steps",
        "scales",
        "jitter",
        "shift",
        "repa_weight",
        "critic_weight",
    )
)
UNKNOWN, SAID = object(), "class_set"  # a name for people, which decides nothing
# What a checkpoint without the setting was trained with: whoever adds a setting adds the old
# behaviour here, or UNKNOWN.
WHEN_MISSING: Dict[str, object] = {
    "classes": UNKNOWN,
    "contents": UNKNOWN,
    "weight_decay": 0.0,
    "drop": 0.2,
    "zero_init": "zero",
    "warmup": 0,
    "decay": "none",
    "scales": [0.5, 2.0],
    "jitter": 0.0,
    "shift": 1.0,
    "weight": 1.0,
    "schedule": "static",
    "tau": 1.0,
    "eps": 1e-2,
}


def checkpoints(folder: Path) -> List[Path]:
    """The checkpoint files of a run's folder, by step."""
    found = {
        int(match.group(1)): entry
        for entry in folder.iterdir()
        for match in [CHECKPOINT.match(entry.name)]
        if match
    }
    return [found[step] for step in sorted(found)]


def record(path: Path) -> Dict[str, object]:
    """What a file of ours says beside its arrays; {} for a missing file and for those of others."""
    try:
        stored = read_record(path) if path.is_file() else None
    except CheckpointError:
        return {}
    extra = stored.get("extra") if isinstance(stored, dict) else None
    return extra if isinstance(extra, dict) else {}


def plain(value):
    """The value as it comes back from a file."""
    return json.loads(json.dumps(value))


def compared(stored: Mapping[str, object], asked: Mapping[str, object]) -> Dict[str, tuple]:
    """{setting: (was, is)} of those that differ; a missing one is as in WHEN_MISSING."""
    pairs = {}
    for name in sorted((set(stored) | set(asked)) - {SAID}):
        if UNKNOWN in (one.get(name, WHEN_MISSING.get(name)) for one in (stored, asked)):
            continue
        was, now = (plain(one.get(name, WHEN_MISSING.get(name))) for one in (stored, asked))
        if was != now:
            pairs[name] = (was, now)
    return pairs


def changed(
    path: Path, stored: Mapping[str, object], asked: Mapping[str, object], given: Collection[str]
) -> Dict[str, tuple]:
    """`compared` of a checkpoint that is to be gone on from; CheckpointError unless a person
    `given` all that differs, and may.
    """
    differ = compared(stored, asked)
    refused = [name for name in differ if name not in CHANGEABLE & frozenset(given)]
    if refused:
        told = ", ".join("%s was %.80s, is %.80s" % (name, *differ[name]) for name in refused[:4])
        free = [f"--{name}" for name in refused if name in CHANGEABLE]
        purpose = (
            f" (or {' '.join(free)}, to change it on purpose)" if len(free) == len(refused) else ""
        )
        raise CheckpointError(
            f"{path} was trained with other settings: {told}; give the old ones to go "
            f"on{purpose}, or another --output and this file as --model_path to start anew from "
            "its weights"
        )
    return differ


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
    """
    for option, output in outputs.items():
        if not output:
            continue
        target = Path(os.path.realpath(output))
        if os.path.islink(output) and not target.exists():
            raise OutputError(
                f"--{option} {output} is a link to nowhere; give a folder, which is created if "
                "missing"
            )
        for name, given in inputs.items():
            for path in given if isinstance(given, (list, tuple)) else [given] * bool(given):
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
    return any(not name.startswith(".") and name != LATENTS for name in os.listdir(target))


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
    return name in (JOURNAL, CURVE, BEST, f"{result}.safetensors") or bool(
        CHECKPOINT.match(name) or PREVIEW.match(name)
    )


def check_origin(folder: Path, name: str) -> None:
    """Raise OutputError if `folder` holds a file that a training of `name` writes, but no such
    training.
    """
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    taken = [file for file in there if _own_name(file, name)]
    if there and not _is_run(folder):
        places.check_origin(folder, "--output", "train")
        images = [
            file for file in there if Path(file).suffix.lower() in IMAGES and file not in taken
        ]
        if images:
            raise OutputError(
                f"{folder} holds {len(images)} images, such as {images[0]}, and no "
                "training; give another --output, which is created if missing"
            )
    if MARK in there:
        other = _marked(folder / MARK)
        if other != name:
            raise OutputError(
                f"{folder} holds a training of {other or 'something else'}, not of {name}; give "
                "another --output"
            )
    elif taken and not any(
        is_trained(folder / file) for file in taken if file.endswith(".safetensors")
    ):
        raise OutputError(
            f"{folder} holds {taken[0]}, which no training of {name} wrote there; give another "
            "--output, or move it away"
        )


def is_trained(path: Path) -> bool:
    """Whether a training wrote the file, as it is: no merge, no conversion."""
    about = record(path)
    return (
        "step" in about
        and "settings" in about
        and not {"merged_from", "converted_from"} & set(about)
    )


def mark(folder: Path, name: str) -> None:
    """Say in `folder` that it is a training's."""
    if not (folder / MARK).exists():
        write_atomic(
            folder / MARK, lambda file: file.write(json.dumps({"training": name}).encode("ascii"))
        )


def _marked(path: Path) -> Optional[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("training") if isinstance(found, dict) else None


def later(folder: Path, step: int, name: str) -> List[Path]:
    """Checkpoints, previews, best and result of steps after `step`, the latest first; what no
    training made is of none.
    """
    found = []
    for entry in folder.iterdir():
        match = CHECKPOINT.match(entry.name) or PREVIEW.match(entry.name)
        if match:
            found.append((int(match.group(1)), entry.name, entry))
        elif entry.name in (BEST, f"{name}.safetensors") and is_trained(entry):
            found.append((int(record(entry).get("step", 0)), entry.name, entry))
    return [entry for at, _, entry in sorted(found, reverse=True) if at > step]


def set_aside(folder: Path, step: int, files: Sequence[Path]) -> Path:
    """Move files into a new folder set_aside-STEP-N in `folder`, with a copy of log and curve; that
    folder.

    The log goes first and the latest file next, so whatever interrupts this, the rest is a run as
    one killed earlier leaves it.
    """
    number = 1
    while True:
        target = folder / f"set_aside-{step:08d}-{number}"
        try:
            target.mkdir()
            break
        except FileExistsError:
            number += 1
    for name in (JOURNAL, CURVE):
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            write_atomic(target / name, lambda file, content=content: file.write(content))
    for path in files:
        os.replace(path, target / path.name)
    return target


def prune(folder: Path, keep: int, branch: object, settings: Mapping[str, object]) -> None:
    """Remove all but the newest `keep` checkpoints of this branch; 0 keeps all. Those of other
    branches and trainings stay.
    """
    if not keep:
        return
    mine = [
        path
        for path in checkpoints(folder)
        if record(path).get("branch") == plain(branch)
        and set(compared(record(path).get("settings", {}), settings)) <= CHANGEABLE
    ]
    for path in mine[:-keep]:
        path.unlink()


def copied_log(source: Path, target: Path) -> None:
    """Take over the log beside a checkpoint of another folder, where there is one."""
    log = source.resolve().parent / JOURNAL
    if log.is_file():
        shutil.copyfile(str(log), str(target / JOURNAL))
    elif (target / JOURNAL).exists():
        (target / JOURNAL).unlink()
