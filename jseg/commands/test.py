"""Make images from label maps and style references with IIDM: the challenge's reviewer command.

Finds the label maps in val_B_labels_resized or val_A_labels_resized under --input_path (or in it),
their references through label_to_img.json, checks all of it, then writes one JPEG per label map. A
second call goes on where the first one stopped.

Examples:
  python scripts/test.py --input_path data/test --img_path data/train --output_path results
  python scripts/test.py --input_path data/test --img_path data/train --output_path preview --preset fine --limit 6 --grid

A file for --stages (docs/formats.md): {"base": "fine", "stages": [{"guidance": 3.5, "respacing":
"ddim50", "start_index": 30}]}
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

GRID_ROWS = 12


def parser():
    p = cli.make_parser("test", __doc__)
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
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="an image's noise is a function of this, its stem and the stage (default 0)",
    )
    p.add_argument(
        "--batch_size", type=int, help="images at a time (default 1 on the CPU, 5 on a GPU)"
    )
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument(
        "--classes",
        help="class set of the label files, as in the training: a name or a file (default: ids 0, "
        "1, 2, ...)",
    )
    p.add_argument(
        "--ignore",
        type=int,
        nargs="*",
        default=[],
        metavar="ID",
        help="label ids that mean nothing is known, such as 255",
    )
    p.add_argument(
        "--map",
        nargs="*",
        default=[],
        metavar="VALUE:CLASS",
        help="values in label files that stand for another class, such "
        "as 255:1; CLASS is an id as stored, or a name",
    )
    p.add_argument("--limit", type=int, metavar="N", help="only the first N label maps")
    p.add_argument(
        "--grid",
        action="store_true",
        help=f"also write grid.png: label, reference, stages, result of the first {GRID_ROWS} "
        "pictures",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then make what is missing; 0 when all images are there."""
    args = parser().parse_args(argv)
    pipeline, pairs, notes, size, classes, weights = _checked_inputs(args)
    output, limited = Path(args.output_path), pairs[: args.limit]
    from jseg import runtime
    from jseg.ldm import manifest, synthesize
    from jseg.ldm.progress import Bars
    from jseg.ldm.refine import Synthesizer
    from jseg.outputs.rules import held

    device = runtime.device(args.device)
    settings = synthesize.settings_of(
        pipeline,
        args.seed,
        args.batch_size or (5 if device == "cuda" else 1),
        device,
        args.ignore,
        inputs=manifest.inputs_digest(pairs),
        model=weights.model.sha256,
        autoencoder=weights.autoencoder.sha256,
        **_numbering(classes, args.ignore),
    )
    with held(output):
        run = manifest.opened(output, settings, [pair.stem for pair in pairs], notes)
        run["notes"] = notes
        todo = synthesize.unfinished_batches(limited, settings["batch_size"], output)
        kept = len(limited) - sum(map(len, todo))
        synthesizer = (
            Synthesizer.from_files(weights.model, weights.autoencoder, pipeline, device)
            if todo
            else None
        )
        for note in notes + [
            f"{kept} of {len(limited)} images are in {output} already and are kept"
        ] * bool(kept):
            _tell(note)  # only now: an error is one line

        shown = [pair.stem for pair in limited[:GRID_ROWS]] if args.grid else []
        with Bars(pipeline, [len(batch) for batch in todo], len(limited)) as bars:
            for report in synthesize.synthesize_folder(
                synthesizer, pairs, output, run, args.limit, shown, classes
            ):
                bars.show(
                    report.progress.stage,
                    report.progress.step,
                    report.progress.images is not None,
                    report.seconds,
                )
        if args.grid:
            _write_grid(
                output, run, limited[:GRID_ROWS], len(pipeline.stages), size, classes, args.ignore
            )
    _tell(f"{len(limited)} images in {output}, settings and timings in {output / manifest.NAME}")
    return 0


def _checked_inputs(args):
    """(pipeline, pairs, notes, image size, classes, weights), all checked that needs no network
    computed.
    """
    from jseg import noise
    from jseg.checkpoint import CheckpointError
    from jseg.data import challenge
    from jseg.ldm import pipelines
    from jseg.ldm.manifest import check_output, names_of
    from jseg.ldm.weights import expected_networks, find_weights

    noise.check_seed(args.seed)
    if os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        raise ValueError(
            "started by mpirun, where every process would make every image; start it without "
            "mpirun: it runs as one process"
        )
    for name in ("batch_size", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; expected 1 or more")
    named = (
        pipelines.load_pipeline(args.stages, args.preset)
        if args.stages
        else pipelines.pipeline_named(args.preset)
    )
    pipeline = pipelines.check_pipeline(named)
    notes: List[str] = []
    pairs = challenge.find_pairs(args.input_path, args.img_path, notes)
    weights, problem = None, None
    try:
        weights = find_weights(args.model_path, args.ae_path, sha256=True)
        unet, autoencoder = weights.configs()
    except (OSError, CheckpointError) as error:  # told once the inputs are right
        problem, (unet, autoencoder) = error, expected_networks(args.model_path, args.ae_path)
    size = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    classes = _classes(args, unet.classes)
    notes += [] if isinstance(classes, int) else [classes.said()]
    notes += challenge.check_pairs(pairs, classes, args.ignore, *size)
    shown = [pair.stem for pair in pairs[: args.limit][:GRID_ROWS]] if args.grid else []
    names = names_of([pair.stem for pair in pairs], len(pipeline.stages), shown)
    check_output(
        Path(args.output_path),
        [pair.stem for pair in pairs[: args.limit]],
        *size,
        names,
        *_inputs(args, pairs),
    )
    if problem:
        raise problem
    notes += weights.remarks + _otherwise(weights.model, classes)
    return pipeline, pairs, notes, size, classes, weights


def _inputs(args, pairs):
    """(files that are read, folders that they are looked for in): none of which a result may
    replace.
    """
    from jseg.data.challenge import LABEL_FOLDERS, PAIRING

    labels, references = Path(args.input_path), Path(args.img_path)
    places = [
        labels,
        references,
        pairs[0].label.parent,
        pairs[0].reference.parent,
        references / "imgs",
    ]
    places += [labels / name for name in LABEL_FOLDERS]
    files = [path for pair in pairs for path in (pair.label, pair.reference)]
    files += [
        place / PAIRING for place in (labels, pairs[0].label.parent, pairs[0].label.parent.parent)
    ]
    files += [path for path in (args.model_path, args.ae_path, args.stages, args.classes) if path]
    return files, places


def _classes(args, count: int):
    """The class set that was asked for, which must be as large as the network's, else that
    number.
    """
    from jseg.data.classes import class_set
    from jseg.data.numbering import with_map

    if args.map and not args.classes:
        raise ValueError("--map needs --classes, whose ids it names; give both")
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
    stored = (
        list(range(classes))
        if isinstance(classes, int)
        else list(classes.file_ids or range(len(classes)))
    )
    if not isinstance(trained, list) or not trained or trained == stored:
        return []
    name = settings.get("class_set", "its class set")
    return [
        f"warning: the network was trained on label maps of {name}, which store its classes as "
        f"{trained[0]} to {trained[-1]}; these are read as {stored[0]} to {stored[-1]}: if they "
        f"are stored as in its training, give --classes {name}"
    ]


def _numbering(classes, ignore) -> dict:
    """For run.json: what the pixels depend on of a class set."""
    from hashlib import sha256

    from jseg.data.validation import Numbering

    if isinstance(classes, int):
        return {}
    return {
        "classes": classes.name,
        "numbering": sha256(Numbering.of(classes, ignore).key).hexdigest(),
    }


def _tell(message: str) -> None:
    print(f"jseg test: {message}", file=sys.stderr)


def _write_grid(output: Path, run: dict, pairs, count: int, size, classes, ignore) -> None:
    """Write the contact sheet from the files in the folder, unless one that shows more is there."""
    from jseg.contact_sheet import contact_sheet
    from jseg.data import challenge
    from jseg.data.classes import CLASS_SETS, ClassSet, colorize, spread_palette
    from jseg.files import sha256
    from jseg.images import read_image, save_image
    from jseg.ldm import manifest
    from jseg.ldm.synthesize import written
    from jseg.outputs.records import is_own

    shown = CLASS_SETS["landscape-29"] if classes == len(CLASS_SETS["landscape-29"]) else classes
    if isinstance(shown, int):
        shown = ClassSet(
            "the network's classes", tuple(map(str, range(classes))), spread_palette(classes)
        )

    # An image that was made without --grid has only its result.
    rows, path = [], output / manifest.GRID
    for pair in pairs:
        label, reference = challenge.load_pair(pair, *size, *size, ignore, classes)
        stages = [output / manifest.stage_name(pair.stem, stage) for stage in range(count - 1)]
        known = pair.stem in run["stages"]
        made = [read_image(stage) if known and stage.is_file() else None for stage in stages]
        rows.append(
            [colorize(label, shown), reference] + made + [read_image(output / f"{pair.stem}.jpg")]
        )
    blank = sum(cell is None for row in rows for cell in row)
    filled = sum(map(len, rows)) - blank
    if blank:
        _tell(
            f"{blank} cells of the grid are blank: stages of images that were made without "
            "--grid are not kept"
        )
    if path.exists() and filled < run.get("grid", filled + 1 if blank else 0):
        said = "shows more" if "grid" in run else "was made by an older version, may show more"
        _tell(f"{path} {said} and is kept; move it away to have another one")
        return

    if path.exists() and not is_own(output, manifest.GRID, run["files"]):
        _tell(
            f"{path} was changed by others since it was made and is kept; move it away to have "
            "another one"
        )
        return

    # The record names the file before it is there, so that a killed run knows it as its own.
    headings = ["label", "reference"] + [f"stage {i}" for i in range(count - 1)] + ["result"]
    run["files"], run["grid"] = {**run["files"], manifest.GRID: ""}, filled
    with written(output / manifest.NAME):
        manifest.write(output, run)
    with written(path):
        save_image(path, contact_sheet(rows, headings, [pair.stem for pair in pairs]))
        run["files"][manifest.GRID] = sha256(path)
    with written(output / manifest.NAME):
        manifest.write(output, run)


if __name__ == "__main__":
    sys.exit(cli.run(main))
