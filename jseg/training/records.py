"""The files of a training's folder by the steps that they are of: which checkpoint to go on from,
what is set aside, what is removed.

FOLDER/training.json                marks the folder as a training's, and says of which result
FOLDER/set_aside-00000010-1/        what was later than step 10 when the run went back to that
                                    step, with the log as it was

The checkpoints in FOLDER itself are always those of one line of steps. Each says in `branch` from
which file a person started it with --resume FILE (None: from the beginning), and in `changes` which
settings were changed on the way. Nothing here knows Jittor.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from jseg.checkpoint import CheckpointError
from jseg.files import write_atomic
from jseg.formats.reader import read_record
from jseg.outputs.record import write_json
from jseg.outputs.settings import plain
from jseg.training.changes import same_but_changeable

CHECKPOINT = re.compile(r"^checkpoint-(\d{8,})\.safetensors$")
PREVIEW = re.compile(r"^preview-(\d{8,})\.png$")
LOG, CURVE, BEST, MARK = "log.csv", "curve.png", "best.safetensors", "training.json"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of that step is."""
    return folder / f"checkpoint-{step:08d}.safetensors"


def checkpoints(folder: Path) -> List[Path]:
    """The checkpoint files of a run's folder, by step."""
    matches = ((CHECKPOINT.match(entry.name), entry) for entry in folder.iterdir())
    steps = {int(match.group(1)): entry for match, entry in matches if match}
    return [steps[step] for step in sorted(steps)]


def record(path: Path) -> Dict[str, object]:
    """What a file of ours says beside its arrays; {} for a missing file and for those of others."""
    try:
        about = read_record(path) if path.is_file() else None
    except CheckpointError:
        return {}
    extra = about.get("extra") if isinstance(about, dict) else None
    return extra if isinstance(extra, dict) else {}


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
        write_json(folder / MARK, {"training": name})


def later(folder: Path, step: int, name: str) -> List[Path]:
    """Checkpoints, previews, best and result of steps after `step`, the latest first; what no
    training made is of none.
    """
    files = []
    for entry in folder.iterdir():
        match = CHECKPOINT.match(entry.name) or PREVIEW.match(entry.name)
        if match:
            files.append((int(match.group(1)), entry.name, entry))
        elif entry.name in (BEST, f"{name}.safetensors") and is_trained(entry):
            files.append((int(record(entry).get("step", 0)), entry.name, entry))
    return [entry for its_step, _, entry in sorted(files, reverse=True) if its_step > step]


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
    for name in (LOG, CURVE):
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
        and same_but_changeable(record(path).get("settings", {}), settings)
    ]
    for path in mine[:-keep]:
        path.unlink()


def copy_log(source: Path, target: Path) -> None:
    """Take over the log beside a checkpoint of another folder, where there is one."""
    log = source.resolve().parent / LOG
    if log.is_file():
        shutil.copyfile(str(log), str(target / LOG))
    elif (target / LOG).exists():
        (target / LOG).unlink()
