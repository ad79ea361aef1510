"""The files of a synthesis in its output folder: their names, which are finished, and the run that
a second call goes on with.

OUTPUT/NAME.jpg               the image that was made from the label map of that name
OUTPUT/run.json               beside what `jseg.outputs.run` writes: "pictures" (total, finished),
                              "seconds" (summed over interruptions: total and per stage), "notes"
                              (remarks on the inputs), "stages" (stems whose stages are kept)
OUTPUT/stages/STAGE/NAME.png  on request: the stages before the last, for the grid
OUTPUT/grid.png               on request: a contact sheet
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Tuple

from jseg.data.challenge import Pair, batches
from jseg.files import sha256
from jseg.ldm.presets import Pipeline
from jseg.machine import jittor_flags
from jseg.outputs import run as run_file
from jseg.outputs.places import check_names, claim
from jseg.outputs.record import opens
from jseg.outputs.run import Run

COMMAND, OPTION = "test", "--output_path"
GRID, STAGES = "grid.png", "stages"
# Bytes a pixel at most: pure noise as JPEG at quality 95, 4:4:4, takes 2.4; stages are PNG.
RESULT_BYTES, STAGE_BYTES = 2.5, 3


def names_of(stems: Sequence[str], stages: int = 0, shown: Sequence[str] = ()) -> List[str]:
    """The files of a run, relative to its folder.

    They are the results, and for the `shown` stems what a grid needs of `stages` stages.
    """
    results = [f"{stem}.jpg" for stem in stems]
    kept = [stage_name(stem, stage) for stage in range(stages - 1) for stem in shown]
    return [*results, *[GRID] * bool(shown), *kept]


def stage_name(stem: str, stage: int) -> str:
    """The image of a stage before the last, kept for the grid, relative to the folder."""
    return f"{STAGES}/{stage}/{stem}.png"


def settings_of(
    pipeline: Pipeline,
    seed: int,
    batch_size: int,
    device: str,
    ignore: Sequence[int],
    **digests: str,
) -> dict:
    """Everything that the pixels depend on, for run.json."""
    return {
        "pipeline": asdict(pipeline),
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "ignore": sorted(ignore),
        **digests,
        **jittor_flags.record(),
    }


def inputs_digest(pairs: Sequence[Pair]) -> str:
    """SHA-256, in hex, of all stems, label files and reference files, in order."""
    sha = hashlib.sha256()
    for pair in pairs:
        label = pair.label_sha256 or sha256(pair.label)
        reference = pair.reference_sha256 or sha256(pair.reference)
        line = f"{pair.stem}/{label}/{reference}\n"
        sha.update(line.encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


def room(output: Path, names: Iterable[str], width: int, height: int) -> int:
    """The bytes that those of the files `names` need which `output` does not hold yet."""
    missing = [name for name in names if not (output / name).exists()]
    each = (STAGE_BYTES if name.startswith(STAGES + "/") else RESULT_BYTES for name in missing)
    return int(sum(each) * width * height)


def check_output(
    output: Path,
    names: Sequence[str],
    inputs: Iterable[Path] = (),
    places: Iterable[Path] = (),
    needed: int = 0,
    work: str = "",
) -> None:
    """Raise DataError unless the files `names` of a run can be written into `output`.

    inputs, places, needed, work: as for `jseg.outputs.places.claim`.
    """
    old = _read(output)
    known = old.files if old else {}
    claim(output, OPTION, COMMAND, names, inputs, places, known, run_file.NAME, needed, work)


def finished(pair: Pair, output: Path) -> bool:
    """Whether the pair's result is there, as an image that can be opened."""
    return opens(output / f"{pair.stem}.jpg", "JPEG")


def unfinished_batches(pairs: Sequence[Pair], batch_size: int, output: Path) -> List[List[Pair]]:
    """The batches of the full list in which at least one result is missing."""
    return [
        batch
        for batch in batches(pairs, batch_size)
        if not all(finished(pair, output) for pair in batch)
    ]


def resumed(output: Path, settings: dict, stems: Sequence[str]) -> Tuple[Run, List[str]]:
    """(the run of these settings to go on with in `output`, remarks); nothing is written.

    Raises DataError, in one line, if `output` holds results of other settings or images of unknown
    origin.
    """
    old = _read(output)
    check_names(output, OPTION, names_of(stems), old.files if old else {})
    results = [
        name
        for name in (old.files if old else {})
        if "/" not in name and name.endswith(".jpg") and (output / name).exists()
    ]
    fields = {
        "pictures": {"total": len(stems), "finished": 0},
        "seconds": {"total": 0.0},
        "notes": [],
        "stages": [],
    }
    return run_file.resumed(Run(output, COMMAND, settings, fields, {}), old, results, OPTION)


def _read(output: Path) -> Optional[Run]:
    """The run that `output` holds, None if there is none."""
    run = run_file.read(output, COMMAND, OPTION, _check_counts)
    if run is None:
        return None
    run.fields.setdefault("stages", [])
    if run.files is None:
        # Before records listed files, every image in the folder was a result.
        images = [*sorted(path.name for path in output.glob("*.jpg")), GRID]
        run.files = {name: "" for name in images if (output / name).exists()}
    return run


def _check_counts(record: dict) -> None:
    """Raise ValueError, LookupError or TypeError for a record without its counts."""
    pictures, seconds = record["pictures"], record["seconds"]
    counts = [pictures["total"], seconds["total"], *seconds.values()]
    if not all(type(count) in (int, float) for count in counts):
        raise ValueError("its counts are no numbers")
    if not all(isinstance(stem, str) for stem in record.get("stages", [])):
        raise ValueError("its stages are no names")
