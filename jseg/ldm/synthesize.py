"""A folder of pairs -> a folder of images: batches fixed by position, results written whole,
finished ones skipped.

A batch is made from the full sorted list by position, and one with an unfinished image is made
again as a whole. So an interruption, wherever it comes, changes no byte of any image, and neither
does the number of processes under mpirun, which take the batches in turn. Mirrors the loop of
image_sample.py without its traps.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from jseg.data.challenge import Pair, load_pair
from jseg.data.numbering import Classes
from jseg.files import remove_stale_temporaries
from jseg.images import resize_label, save_image
from jseg.ldm.presets import Pipeline
from jseg.ldm.refine import Progress, Synthesizer
from jseg.ldm.results import GRID, finished, names_of, stage_name, unfinished_batches
from jseg.outputs.run import Run
from jseg.training import distributed

Inputs = Dict[str, Tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Report:
    """One step of a running folder.

    inputs: {stem: label map and reference of the pair, as `load_pair` gives them} of the batch.
    seconds: since the previous report.
    """

    inputs: Inputs
    progress: Progress
    seconds: float


def synthesize_folder(
    synthesizer: Optional[Synthesizer],
    pairs: Sequence[Pair],
    run: Run,
    limit: Optional[int] = None,
    shown: Sequence[str] = (),
    classes: Classes = 256,
) -> Iterator[Report]:
    """Make what is missing of the first `limit` pairs, yielding a `Report` after every step.

    A step is a denoising step, or the end of a stage. Images are saved, and run.json is brought up
    to date, at the end of every batch; an image that someone has changed since is kept. Of several
    processes each makes and reports its own batches, and process 0 alone writes run.json, at the
    end of a round in which each made one.

    synthesizer: may be None where nothing is missing. run: as `results.resumed` gives it; its
    settings rule (seed, batch_size, ignore). limit: None for all pairs. shown: stems whose stages
    before the last are kept as well. classes: how label files number theirs, as for
    `challenge.check_pairs`. Raises OSError in one line when the disk is full; what is finished
    stays.
    """
    rank = distributed.rank()
    if rank == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(run.folder)
    batch_size = run.settings["batch_size"]
    todo = distributed.from_first(lambda: unfinished_batches(pairs[:limit], batch_size, run.folder))
    done = {pair.stem for pair in pairs if finished(pair, run.folder)}
    with contextlib.nullcontext() if rank else run.saved_at_the_end():
        _count(run, len(done))
        for batches in distributed.rounds(todo):
            if rank == 0:
                run.save([name for batch in batches for name in _names(batch, synthesizer, shown)])
            if rank >= len(batches):  # the last round is short
                _end_round(run, batches, done, [], shown)
                continue

            own = batches[rank]
            for report in _synthesize_batch(synthesizer, own, run.settings, classes):
                if _keep(run, report, synthesizer.pipeline, shown):
                    _end_round(run, batches, done, _names(own, synthesizer, shown), shown)
                yield report


def _keep(run: Run, report: Report, pipeline: Pipeline, shown: Sequence[str]) -> bool:
    """Save what a report brings; whether it was the batch's last one."""
    stage, images = report.progress.stage, report.progress.images
    last = stage == len(pipeline.stages) - 1
    _add_seconds(run, stage, report.seconds)
    for stem, image in zip(report.inputs, images or []):
        if last:
            _save(run, f"{stem}.jpg", image, pipeline)
        elif stem in shown:
            _save(run, stage_name(stem, stage), image, pipeline)
    return bool(images) and last


def _end_round(
    run: Run,
    batches: List[List[Pair]],
    done: Set[str],
    own: Sequence[str],
    shown: Sequence[str],
) -> None:
    """Take into the run, and into `done`, what every process has made of its batch; own: the names
    of this one's files.
    """
    for files in distributed.gather(run.written(own)):
        run.files.update(files)
    stems = {pair.stem for batch in batches for pair in batch}

    # Stages that are kept of an earlier result would be those of another image.
    kept = set(run.fields["stages"]) - (stems - done) | stems.intersection(shown)
    run.fields["stages"] = sorted(kept)
    done |= stems
    _count(run, len(done))


def _names(batch: Sequence[Pair], synthesizer: Synthesizer, shown: Sequence[str]) -> List[str]:
    """The files that a batch will write, relative to the folder."""
    stems = [pair.stem for pair in batch]
    kept = [stem for stem in stems if stem in shown]
    names = names_of(stems, len(synthesizer.pipeline.stages), kept)
    return [name for name in names if name != GRID]


def _save(run: Run, name: str, image: np.ndarray, pipeline: Pipeline) -> None:
    quality, subsampling = pipeline.jpeg_quality, pipeline.jpeg_subsampling
    run.write(name, lambda path: save_image(path, image, quality, subsampling))


def _count(run: Run, count: int) -> None:
    run.fields["pictures"] = {"total": run.fields["pictures"]["total"], "finished": count}


def _add_seconds(run: Run, stage: int, seconds: float) -> None:
    spent = run.fields["seconds"]
    for name in ("total", f"stage {stage}"):
        spent[name] = round(spent.get(name, 0.0) + seconds, 3)


def _synthesize_batch(
    synthesizer: Synthesizer, batch: List[Pair], settings: dict, classes: Classes
) -> Iterator[Report]:
    stems, ignore = [pair.stem for pair in batch], settings["ignore"]
    loaded = [load_pair(pair, *synthesizer.size, ignore, classes) for pair in batch]
    inputs = dict(zip(stems, loaded))

    # Label maps go from their own size straight to the latents', as in the release.
    labels = [resize_label(label, *synthesizer.latent_size) for label, _ in loaded]
    references = [reference for _, reference in loaded]
    before = time.perf_counter()
    for progress in synthesizer.run(labels, references, settings["seed"], stems):
        now = time.perf_counter()
        yield Report(inputs, progress, now - before)
        before = now
