"""Make images from label maps and style references with IIDM: the challenge's reviewer command.

Finds the label maps in val_B_labels_resized or val_A_labels_resized under --input_path (or in it),
their references through label_to_img.json, checks all of it, then writes one JPEG per label map. A
second call goes on where the first one stopped.

Examples:
  python scripts/test.py --input_path data/test --img_path data/train --output_path results
  python scripts/test.py --input_path data/test --img_path data/train --output_path preview \\
      --preset fine --limit 6 --grid

A file for --stages (docs/formats.md): {"base": "fine", "stages": [{"guidance": 3.5, "respacing":
"ddim50", "start_index": 30}]}
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli
from jseg.counting import agreeing, counted

GRID_ROWS = 12
say = partial(cli.say, "test")


@dataclass(frozen=True)
class Job:
    """What the options ask for, checked: everything that needs no network computed."""

    pipeline: object  # jseg.ldm.presets.Pipeline
    pairs: list  # all pairs, by which batches are fixed
    limited: list  # those whose images are to be there
    shown: list  # those that are shown in the grid
    size: tuple  # (width, height) of the images
    classes: object  # a ClassSet, or the number of classes
    weights: object  # jseg.ldm.weights.Weights
    networks: tuple  # configurations of the UNet and the autoencoder
    remarks: List[str]


def parser():
    p = cli.make_parser("test", __doc__)

    # The inputs and where to.
    p.add_argument(
        "--input_path", required=True, help="folder with the label maps and label_to_img.json"
    )
    p.add_argument(
        "--img_path",
        required=True,
        help="folder with the reference photographs (in imgs/ or directly)",
    )
    p.add_argument(
        "--output_path",
        default="./results",
        help="folder for the images and run.json (default ./results)",
    )

    # The networks and the stages.
    p.add_argument(
        "--model_path",
        help="weights of the UNet (default: the official file under ./checkpoints, else the small "
        "one that ships)",
    )
    p.add_argument("--ae_path", help="weights of the autoencoder (default: as --model_path)")
    p.add_argument(
        "--preset",
        default="release",
        help="release: the official three stages, number by number; fine: the same noise levels "
        "in 32 steps of DPM-Solver++, aligned, nothing lost between",
    )
    p.add_argument("--stages", metavar="FILE", help="JSON file with other stages")

    # How the work is done.
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="an image's noise is a function of this, its stem and the stage (default 0)",
    )
    p.add_argument(
        "--batch_size", type=int, help="images at a time (default 1; on a GPU up to 5, as fit)"
    )
    cli.add_device(p)
    p.add_argument(
        "--memory",
        default="auto",
        choices=("auto", "full", "low"),
        help="low: less memory, slower steps, the same images; auto: low where the free memory "
        "does not suffice",
    )

    # How the label files are read.
    p.add_argument(
        "--classes",
        help="class set of the label files, as in the training: a name or a file (default: ids 0, "
        "1, 2, ...)",
    )
    cli.add_label_options(p, ", such as 255")

    # How much is made.
    p.add_argument("--limit", type=int, metavar="N", help="only the first N label maps")
    p.add_argument(
        "--grid",
        action="store_true",
        help=f"also write grid.png: label, reference, stages, result of the first {GRID_ROWS} "
        "images",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then make what is missing; 0 when all images are there."""
    # Under mpirun the first process checks the inputs, and holds the output, for all.
    args, first = parser().parse_args(argv), cli.speaks()
    checked = _checked_inputs(args) if first else None
    from jseg.ldm import results
    from jseg.ldm.grid import write_grid
    from jseg.ldm.low_memory import planned
    from jseg.outputs.locks import held
    from jseg.training import distributed

    job = distributed.from_first(lambda: checked)
    (device, precision), output = cli.choose_device(args, say), Path(args.output_path)
    batch_size, mode, lines = distributed.from_first(
        lambda: planned(args.batch_size, args.memory, device, *job.networks)
    )
    settings = results.settings_of(
        job.pipeline,
        args.seed,
        batch_size,
        device,
        args.ignore,
        inputs=results.inputs_digest(job.pairs),
        model=job.weights.model.sha256,
        autoencoder=job.weights.autoencoder.sha256,
        **_numbering(job.classes, args.ignore),
        **precision,
    )
    with held(output) if first else contextlib.nullcontext():
        stems = [pair.stem for pair in job.pairs]
        run, remarks = distributed.from_first(lambda: results.resumed(output, settings, stems))
        run.fields["notes"] = [*job.remarks, *lines, *remarks]
        inputs = _synthesize(job, run, args.limit, device, mode)
        if job.shown and first:
            shown = (job.shown, inputs, len(job.pipeline.stages), job.size)
            for remark in write_grid(run, *shown, args.ignore, job.classes):
                say(remark)
    record = output / "run.json"
    say(f"{counted(len(job.limited), 'image[s]')} in {output}, settings and timings in {record}")
    return 0


def _synthesize(job: Job, run, limit: Optional[int], device: str, mode: str) -> dict:
    """Make the images that are missing, under progress bars; what this process read for the grid
    on the way, by stem.
    """
    from jseg.ldm.pipelines import stage_steps
    from jseg.ldm.results import unfinished_batches
    from jseg.ldm.synthesize import synthesize_folder
    from jseg.progress import SynthesisBar
    from jseg.training import distributed

    batch_size, rank = run.settings["batch_size"], distributed.rank()
    precision = run.settings.get("precision", "float32")
    todo = distributed.from_first(lambda: unfinished_batches(job.limited, batch_size, run.folder))
    synthesizer, remarks = None, []
    if todo[rank:]:
        synthesizer, remarks = _synthesizer(job, len(todo[rank]), device, mode, precision)

    # Only now: a refusal is one line.
    for remark in run.fields["notes"] + remarks:
        say(remark)
    total, kept = len(job.limited), len(job.limited) - sum(map(len, todo))
    if kept:
        images, verb = counted(total, "image[s]"), agreeing(kept, "[is|are]")
        say(f"{kept} of {images} {verb} in {run.folder} already and {verb} kept")

    shown = [pair.stem for pair in job.shown]
    reports = synthesize_folder(synthesizer, job.pairs, run, limit, shown, job.classes)
    steps = [stage_steps(job.pipeline, number) for number in range(len(job.pipeline.stages))]
    sizes = [sum(map(len, batches)) for batches in distributed.rounds(todo)]
    inputs = {}
    with SynthesisBar(steps, sizes, total, quiet=rank > 0) as bar:
        for report in reports:
            step = report.progress
            bar.show(step.stage, step.step, step.images is not None, report.seconds)
            inputs.update({stem: report.inputs[stem] for stem in shown if stem in report.inputs})
    return inputs


def _synthesizer(job: Job, batch: int, device: str, mode: str, precision: str):
    """(the networks, loaded; the remark, if any, that little memory makes their steps slower)."""
    from jseg.ldm.low_memory import choose
    from jseg.ldm.refine import Synthesizer

    unet, autoencoder = job.networks
    choice = choose(mode, unet, batch, device, autoencoder)
    files, memory = (job.weights.model, job.weights.autoencoder), "low" if choice.low else "full"
    synthesizer = Synthesizer.from_files(*files, job.pipeline, device, memory, precision)
    return synthesizer, [choice.remark] if mode == "auto" and choice.low else []


def _checked_inputs(args) -> Job:
    """Check all that needs no network computed, and find the weights."""
    from jseg.checkpoint import CheckpointError
    from jseg.data import challenge
    from jseg.ldm import pipelines, results
    from jseg.ldm.weights import expected_networks, find_weights

    # The options by themselves.
    _check_options(args)
    pipeline = pipelines.check_pipeline(
        pipelines.load_pipeline(args.stages, args.preset)
        if args.stages
        else pipelines.pipeline_named(args.preset)
    )

    # The inputs, in the networks' size. A fault of the weights is told once the inputs are right.
    found, remarks = challenge.find_pairs(args.input_path, args.img_path)
    weights, problem = None, None
    try:
        weights = find_weights(args.model_path, args.ae_path, sha256=True)
        unet, autoencoder = weights.configs()
    except (OSError, CheckpointError) as error:
        problem, (unet, autoencoder) = error, expected_networks(args.model_path, args.ae_path)
    size = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    classes = _classes(args, unet.classes)
    pairs, more = challenge.check_pairs(found, classes, args.ignore, *size)
    remarks += ([] if isinstance(classes, int) else [classes.summary()]) + more

    # The output.
    limited = pairs[: args.limit]
    shown = limited[:GRID_ROWS] if args.grid else []
    grid = len(pipeline.stages), [pair.stem for pair in shown]
    output, files = Path(args.output_path), results.names_of([pair.stem for pair in pairs], *grid)
    coming = results.names_of([pair.stem for pair in limited], *grid)
    needed = results.room(output, coming, *size)
    missing = sum(not (output / f"{pair.stem}.jpg").exists() for pair in limited)
    work = f"{counted(missing, 'image[s]')} of {size[0]}x{size[1]}"
    results.check_output(output, files, *_inputs(args, pairs), needed, work)
    if problem:
        raise problem
    remarks += weights.remarks + _otherwise(weights.model, classes)
    networks = unet, autoencoder
    return Job(pipeline, pairs, limited, shown, size, classes, weights, networks, remarks)


def _check_options(args) -> None:
    """Raise ValueError for options that cannot be meant."""
    from jseg import noise

    noise.check_seed(args.seed)
    if args.map and not args.classes:
        raise ValueError("--map needs --classes, whose ids it names; give both")
    cli.at_least(args, {"batch_size": 1, "limit": 1})


def _inputs(args, pairs):
    """(files that are read, folders that they are looked for in), which no result may replace."""
    from jseg.data.challenge import LABEL_FOLDERS, PAIRING

    labels, references = Path(args.input_path), Path(args.img_path)
    maps, photographs = pairs[0].label.parent, pairs[0].reference.parent
    places = [labels, maps, references, photographs, references / "imgs"]
    places += [labels / name for name in LABEL_FOLDERS]
    files = [path for pair in pairs for path in (pair.label, pair.reference)]
    files += [place / PAIRING for place in (labels, maps, maps.parent)]
    files += [path for path in (args.model_path, args.ae_path, args.stages, args.classes) if path]
    return files, places


def _classes(args, count: int):
    """The class set that was asked for, else the number of the network's classes."""
    from jseg.data.classes import class_set
    from jseg.data.numbering import with_map

    if not args.classes:
        return count
    classes = with_map(class_set(args.classes), args.map, args.ignore)
    if len(classes) != count:
        raise ValueError(
            f"--classes {args.classes} has {len(classes)} classes, the network {count}; give the "
            f"class set of its training, or --model_path of a network of {len(classes)} classes"
        )
    return classes


def _otherwise(model, classes) -> List[str]:
    """A warning where the network's training read label maps in another numbering."""
    from jseg.checkpoint import describe

    settings = describe(model).settings
    trained = settings.get("classes")
    if isinstance(classes, int):
        stored = list(range(classes))
    else:
        stored = list(classes.file_ids or range(len(classes)))
    if not isinstance(trained, list) or not trained or trained == stored:
        return []
    name = settings.get("class_set", "its class set")
    return [
        f"warning: the network was trained on label maps of {name}, which store its classes as "
        f"{trained[0]} to {trained[-1]}; these are read as {stored[0]} to {stored[-1]}: if they "
        f"are stored as in its training, give --classes {name}"
    ]


def _numbering(classes, ignore) -> dict:
    """What the pixels depend on of a class set, for run.json."""
    from jseg.data.numbering import Numbering

    if isinstance(classes, int):
        return {}
    return {
        "classes": classes.name,
        "numbering": sha256(Numbering.of(classes, ignore).key).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
