"""A folder of pairs -> a folder of pictures: batches fixed by position, results written whole, finished ones skipped.

A batch is made from the full sorted list by position, and one with an unfinished picture is made again as a whole; so an
interruption, wherever it comes, changes no byte of any picture. Mirrors the loop of image_sample.py without its traps.
"""
from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

import numpy as np

from jseg import jittor_flags
from jseg.checks import Classes
from jseg.data import Pair, batches, load_pair
from jseg.images import ImageError, read_header, remove_stale_temporaries, save_picture
from jseg.ldm import manifest as run_file
from jseg.ldm.presets import Pipeline
from jseg.ldm.refine import Progress, Synthesizer


@dataclass(frozen=True)
class Report:
    """One step of a running folder: the batch's pairs and its `Progress`; `seconds` since the previous report."""
    pairs: List[Pair]
    progress: Progress
    seconds: float


def settings_of(pipeline: Pipeline, seed: int, batch_size: int, device: str, ignore: Sequence[int], **hashes: str) -> dict:
    """Everything that the pixels depend on, for run.json."""
    return {"pipeline": asdict(pipeline), "seed": seed, "batch_size": batch_size, "device": device, "ignore": sorted(ignore), **hashes,
            **jittor_flags.record()}


def finished(pair: Pair, output: Path) -> bool:
    """Whether the pair's result is there, as a picture that can be opened."""
    path = output / f"{pair.stem}.jpg"
    try:
        return path.exists() and read_header(path).format == "JPEG"
    except ImageError:
        return False


def unfinished_batches(pairs: Sequence[Pair], batch_size: int, output: Path) -> List[List[Pair]]:
    """The batches of the full list in which at least one result is missing."""
    return [batch for batch in batches(pairs, batch_size) if not all(finished(pair, output) for pair in batch)]


def synthesize_folder(synthesizer: Optional[Synthesizer], pairs: Sequence[Pair], output: Path, manifest: dict,
                      limit: Optional[int] = None, stages_of: Optional[Dict] = None, classes: Classes = 256) -> Iterator[Report]:
    """Make what is missing of the first `limit` pairs (None: of all), yielding a `Report` after every denoising step and stage.

    synthesizer: may be None where nothing is missing. manifest: as `manifest.opened` gives it; its settings rule (seed,
    batch_size, ignore). Pictures are saved, and run.json is brought up to date, at the end of every batch. stages_of: a dict to
    be filled with stem -> pictures of all stages, for the stems that are its keys. classes: how label files number theirs, as for
    `data.check_pairs`. Raises OSError in one line when the disk is full; what is finished stays.
    """
    settings = manifest["settings"]
    output.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(output)
    done = {pair.stem for pair in pairs if finished(pair, output)}
    _record(output, manifest, len(done))
    for batch in unfinished_batches(pairs[:limit], settings["batch_size"], output):
        for report in _synthesize_batch(synthesizer, batch, settings, classes):
            stage = f"stage {report.progress.stage}"
            manifest["seconds"][stage] = round(manifest["seconds"].get(stage, 0.0) + report.seconds, 3)
            manifest["seconds"]["total"] = round(manifest["seconds"]["total"] + report.seconds, 3)
            pictures = report.progress.pictures
            for pair, picture in zip(batch, pictures or []):
                if stages_of is not None and pair.stem in stages_of:
                    stages_of[pair.stem].append(picture)
            pipeline = synthesizer.pipeline
            if pictures and report.progress.stage == len(pipeline.stages) - 1:
                for pair, picture in zip(batch, pictures):
                    with written(output / f"{pair.stem}.jpg") as path:
                        save_picture(path, picture, pipeline.jpeg_quality, pipeline.jpeg_subsampling)
                    done.add(pair.stem)
                _record(output, manifest, len(done))
            yield report


def _record(output: Path, manifest: dict, count: int) -> None:
    manifest["pictures"] = {"total": manifest["pictures"]["total"], "finished": count}
    with written(output / run_file.NAME):
        run_file.write(output, manifest)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """The path; an OSError inside gets a message that names it and says how to go on."""
    try:
        yield path
    except OSError as error:
        raise OSError(f"cannot write {path} ({error.strerror or error}); what is finished stays, make room or mend the folder "
                      f"and give the same command again") from error


def _synthesize_batch(synthesizer: Synthesizer, batch: List[Pair], settings: dict, classes: Classes) -> Iterator[Report]:
    loaded = [load_pair(pair, *synthesizer.size, *synthesizer.latent_size, settings["ignore"], classes) for pair in batch]
    labels: List[np.ndarray] = [label for label, _ in loaded]
    references = [reference for _, reference in loaded]
    before = time.perf_counter()
    for progress in synthesizer.run(labels, references, settings["seed"], [pair.stem for pair in batch]):
        now = time.perf_counter()
        yield Report(batch, progress, now - before)
        before = now
