"""A folder of pairs -> a folder of images: batches fixed by position, results written whole,
finished ones skipped.

A batch is made from the full sorted list by position, and one with an unfinished image is made
again as a whole; so an interruption, wherever it comes, changes no byte of any image. Mirrors the
loop of image_sample.py without its traps.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

import numpy as np

from jseg.data.challenge import Pair, batches, load_pair
from jseg.data.validation import Classes
from jseg.files import remove_stale_temporaries, sha256
from jseg.image_files.decoding import ImageError, read_header
from jseg.images import save_image
from jseg.ldm import manifest as run_file
from jseg.ldm.presets import Pipeline
from jseg.ldm.refine import Progress, Synthesizer
from jseg.machine import jittor_flags
from jseg.outputs.records import is_own, listed


@dataclass(frozen=True)
class Report:
    """One step of a running folder: the batch's pairs and its `Progress`; `seconds` since the
    previous report.
    """

    pairs: List[Pair]
    progress: Progress
    seconds: float


def settings_of(
    pipeline: Pipeline,
    seed: int,
    batch_size: int,
    device: str,
    ignore: Sequence[int],
    **hashes: str,
) -> dict:
    """Everything that the pixels depend on, for run.json."""
    return {
        "pipeline": asdict(pipeline),
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "ignore": sorted(ignore),
        **hashes,
        **jittor_flags.record(),
    }


def finished(pair: Pair, output: Path) -> bool:
    """Whether the pair's result is there, as an image that can be opened."""
    path = output / f"{pair.stem}.jpg"
    try:
        return path.exists() and read_header(path).format == "JPEG"
    except ImageError:
        return False


def unfinished_batches(pairs: Sequence[Pair], batch_size: int, output: Path) -> List[List[Pair]]:
    """The batches of the full list in which at least one result is missing."""
    return [
        batch
        for batch in batches(pairs, batch_size)
        if not all(finished(pair, output) for pair in batch)
    ]


def synthesize_folder(
    synthesizer: Optional[Synthesizer],
    pairs: Sequence[Pair],
    output: Path,
    manifest: dict,
    limit: Optional[int] = None,
    shown: Sequence[str] = (),
    classes: Classes = 256,
) -> Iterator[Report]:
    """Make what is missing of the first `limit` pairs (None: of all), yielding a `Report` after
    every denoising step and stage.

    synthesizer: may be None where nothing is missing. manifest: as `manifest.opened` gives it; its
    settings rule (seed, batch_size, ignore). Images are saved, and run.json is brought up to
    date, at the end of every batch; an image that someone has changed since is kept. shown: stems
    whose stages before the last are kept in OUTPUT/stages/ as well. classes: how label files number
    theirs, as for `data.check_pairs`. Raises OSError in one line when the disk is full; what is
    finished stays.
    """
    settings = manifest["settings"]
    output.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(output)
    done = {pair.stem for pair in pairs if finished(pair, output)}
    todo = unfinished_batches(pairs[:limit], settings["batch_size"], output)
    coming = [_names(batch, synthesizer, shown) for batch in todo] + [[]]
    _record(output, manifest, len(done), coming[0])
    try:
        for batch, following in zip(todo, coming[1:]):
            for report in _synthesize_batch(synthesizer, batch, settings, classes):
                stage, images = report.progress.stage, report.progress.images
                spent = f"stage {stage}"
                manifest["seconds"][spent] = round(
                    manifest["seconds"].get(spent, 0.0) + report.seconds, 3
                )
                manifest["seconds"]["total"] = round(
                    manifest["seconds"]["total"] + report.seconds, 3
                )
                last = stage == len(synthesizer.pipeline.stages) - 1
                names = [
                    f"{pair.stem}.jpg" if last else run_file.stage_name(pair.stem, stage)
                    for pair in batch
                ]
                for pair, image, name in zip(batch, images or [], names):
                    if (last or pair.stem in shown) and is_own(output, name, manifest["files"]):
                        _save(output, name, image, synthesizer.pipeline, manifest["files"])
                if images and last:
                    # Stages that are not shown would be those of other results.
                    stems = {pair.stem for pair in batch}
                    manifest["stages"] = sorted(
                        set(manifest["stages"]) - (stems - done) | stems.intersection(shown)
                    )
                    done |= stems
                    _record(output, manifest, len(done), following)
                yield report
    except BaseException:
        # The record then names nothing that was not written; where the disk is full, it stays as it
        # is.
        with suppress(OSError):
            _record(output, manifest, len(done), [])
        raise


def _names(
    batch: Sequence[Pair], synthesizer: Optional[Synthesizer], shown: Sequence[str]
) -> List[str]:
    """The files that a batch will write, relative to the folder."""
    stems = [pair.stem for pair in batch]
    names = run_file.names_of(
        stems, len(synthesizer.pipeline.stages), [stem for stem in stems if stem in shown]
    )
    return [name for name in names if name != run_file.GRID]


def _save(
    output: Path, name: str, image: np.ndarray, pipeline: Pipeline, files: Dict[str, str]
) -> None:
    with written(output / name) as path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, image, pipeline.jpeg_quality, pipeline.jpeg_subsampling)
        files[name] = sha256(path)


def _record(output: Path, manifest: dict, count: int, following: Sequence[str]) -> None:
    """Write run.json, which names what is there and what the next batch will write, so that a
    killed run knows its own files.
    """
    manifest["pictures"] = {"total": manifest["pictures"]["total"], "finished": count}
    manifest["files"] = listed(output, manifest["files"], following)
    with written(output / run_file.NAME):
        run_file.write(output, manifest)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """The path; an OSError inside gets a message that names it and says how to go on."""
    try:
        yield path
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}); what is finished stays, make room "
            "or mend the folder and give the same command again"
        ) from error


def _synthesize_batch(
    synthesizer: Synthesizer, batch: List[Pair], settings: dict, classes: Classes
) -> Iterator[Report]:
    loaded = [
        load_pair(pair, *synthesizer.size, *synthesizer.latent_size, settings["ignore"], classes)
        for pair in batch
    ]
    labels: List[np.ndarray] = [label for label, _ in loaded]
    references = [reference for _, reference in loaded]
    before = time.perf_counter()
    for progress in synthesizer.run(
        labels, references, settings["seed"], [pair.stem for pair in batch]
    ):
        now = time.perf_counter()
        yield Report(batch, progress, now - before)
        before = now
