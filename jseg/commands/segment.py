"""Segment images with FlowSeg: images, or folders of them, of any size and mode, become label maps.

OUTPUT/NAME.png is the label map (8-bit gray, one class id a pixel, in the image's size),
OUTPUT/overlays/NAME.jpg shows it over the image. Larger images are segmented in windows. A
second call goes on where the first one stopped.

Examples:
  python scripts/segment.py --weights runs/flowseg/best.safetensors --input photos --output labels
  python scripts/segment.py --weights runs/flowseg/best.safetensors --input a.jpg b.png \\
      --output labels --mirror --probabilities
"""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from jseg.commands import cli
from jseg.counting import agreeing, counted

say = partial(cli.say, "segment")


def parser():
    p = cli.make_parser("segment", __doc__)

    # The network, the images and where to.
    p.add_argument(
        "--weights",
        help="network of train_flowseg: best.safetensors, flowseg.safetensors or a checkpoint "
        "(default: the small one that ships, which knows drawn landscapes)",
    )
    p.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, or folders of images (in them or in images/)",
    )
    p.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the label maps, created if missing",
    )

    # The flow.
    p.add_argument("--steps", type=int, default=10, help="of the flow; less is faster (default 10)")
    p.add_argument(
        "--method",
        default="euler",
        choices=("euler", "heun", "adams2"),
        help="how a step is taken (default euler)",
    )
    p.add_argument(
        "--shift",
        type=float,
        help="of the flow's times t, which become t / (t + (1 - t) shift); above 1 steps near the "
        "image are shorter (default: that of the training)",
    )
    p.add_argument(
        "--mirror",
        action="store_true",
        help="average with the mirrored image; takes twice as long",
    )
    p.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        metavar="SEED",
        help="of the noise, for networks that start from some; several are averaged (default 0)",
    )

    # The windows over an image.
    p.add_argument(
        "--scale",
        default="1",
        metavar="F|own",
        help="size at which images are segmented: F times the smallest that covers a window "
        "(default 1), or own",
    )
    p.add_argument(
        "--overlap",
        type=float,
        default=1 / 3,
        help="of neighbouring windows, 0 to below 1 (default 1/3)",
    )
    p.add_argument("--batch_size", type=int, default=1, help="windows at a time (default 1)")

    # What is written.
    p.add_argument(
        "--probabilities",
        action="store_true",
        help="also write OUTPUT/probabilities/NAME.npy, float16 [classes, H, W]",
    )
    p.add_argument(
        "--classes",
        help="names and colours: a class set's name or a file (default: those of the training)",
    )
    cli.add_device(p)
    return p


@dataclass(frozen=True)
class Job:
    """What the options ask for, checked: everything that needs no network computed."""

    images: list  # of jseg.data.examples.Example
    classes: object  # a ClassSet
    weights: object  # jseg.checkpoint.WeightFile
    options: Dict[str, object]  # of the Segmenter
    remarks: List[str]


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then segment what is missing; 0 when all label maps are there."""
    args, first = parser().parse_args(argv), cli.speaks()
    scale, (path, of_weights) = _checked_scale(args), _weights(args.weights)
    from jseg.flowseg import results
    from jseg.flowseg.predict import Segmenter
    from jseg.flowseg.segment import segment_folder
    from jseg.outputs.locks import held
    from jseg.progress import ImageBar
    from jseg.training import distributed

    # Under mpirun the first process checks the inputs, and holds the output, for all.
    job = distributed.from_first(lambda: _checked_inputs(args, scale, path))
    (device, precision), output = cli.choose_device(args, say), Path(args.output)
    digests = results.digests_of(job.images)
    settings = {**_settings(args, job, device), **precision}
    with held(output) if first else contextlib.nullcontext():
        run, of_run = distributed.from_first(
            lambda: results.resumed(output, settings, job.images, digests, args.probabilities)
        )
        job.options["precision"] = args.precision
        segmenter = Segmenter.from_file(job.weights, args.steps, args.device, **job.options)
        kept = len(results.finished(job.images, run, digests, args.probabilities))

        # Only now: a refusal is one line.
        for remark in of_weights + job.remarks + of_run:
            say(remark)
        if kept:
            total, verb = counted(len(job.images), "image[s]"), agreeing(kept, "[is|are]")
            say(f"{kept} of {total} {verb} in {output} already and {verb} kept")
        with ImageBar(len(job.images), kept, quiet=not first) as bar:
            for _ in segment_folder(
                segmenter, job.images, run, job.classes, digests, args.probabilities
            ):
                bar.show()
    say(
        f"{counted(len(job.images), 'label map[s]')} in {output}, overlays in "
        f"{output / results.OVERLAYS}"
    )
    return 0


def _checked_inputs(args, scale: Optional[float], path: Path) -> Job:
    """Check the options, then the images and the output, before anything long."""
    from jseg.checkpoint import describe
    from jseg.data.examples import check_images
    from jseg.flowseg import predict, results
    from jseg.flowseg.segment import find_images

    # The options, which say what the network is.
    weights = describe(path, sha256=True)
    config = predict.network_config(weights)
    options = {
        "method": args.method,
        "mirror": args.mirror,
        "seeds": args.seeds,
        "scale": scale,
        "overlap": args.overlap,
        "batch_size": args.batch_size,
        "shift": predict.trained_shift(weights) if args.shift is None else args.shift,
    }
    predict.check_options(config, args.steps, **options)
    classes = _classes(args.classes, weights, config.labels)
    remarks = [classes.summary()] * bool(args.classes)

    # The images and the output.
    found, of_folders = find_images(args.input)
    _check_output(args, path, found)
    images, of_images = check_images(found, config.patch)
    results.check_room(Path(args.output), images, len(classes) if args.probabilities else 0)
    return Job(images, classes, weights, options, remarks + of_folders + of_images)


def _settings(args, job: Job, device: str) -> dict:
    """All that the label maps depend on."""
    from jseg.machine import jittor_flags

    return {
        "weights": job.weights.sha256,
        "steps": args.steps,
        **job.options,
        "device": device,
        "classes": job.classes.name,
        **jittor_flags.record(),
    }


def _weights(path: Optional[str]) -> Tuple[Path, List[str]]:
    """(the file of the network that is given, else the one that ships; remarks)."""
    if path is None:
        from jseg.flowseg.predict import SHIPPED

        remark = (
            "no weights given: using the small ones that ship with jseg, trained on procedural "
            "landscapes of 128x96"
        )
        return Path(SHIPPED), [remark]
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"--weights {path} {cli.no_file(path)}; expected a file that train_flowseg wrote"
        )
    return Path(path), []


def _check_output(args, weights: Path, images) -> None:
    """Refuse an output that would replace an input or another's file, or that cannot be written."""
    from jseg.data.image_folder import IMAGE_FOLDERS
    from jseg.flowseg import results

    # What is read, and where it is looked for.
    given = [Path(path) for path in args.input]
    folders = [path for path in given if path.is_dir()]
    places = [place for path in folders for place in [path] + [path / n for n in IMAGE_FOLDERS]]
    places += [example.image.parent for example in images if example.image not in given]
    files = [example.image for example in images] + [weights]
    files += [Path(args.classes)] if args.classes else []

    names = results.names_of([example.stem for example in images], args.probabilities)
    results.check_output(Path(args.output), names, files, places)


def _checked_scale(args) -> Optional[float]:
    """--scale as a number, None for "own"; raises ValueError for options out of their range.

    The Segmenter checks them too; here it is without Jittor, whose import may take minutes.
    """
    from jseg.noise import check_seed

    try:
        scale = None if args.scale == "own" else float(args.scale)
        fits = scale is None or scale >= 1
    except ValueError:
        fits = False
    for name, holds, expected in (
        ("scale", fits, "1, at which an image covers a window, or more; or own"),
        ("overlap", 0 <= args.overlap < 1, "0 to below 1"),
        ("shift", args.shift is None or 0 < args.shift < math.inf, "a finite number above 0"),
    ):
        if not holds:
            raise ValueError(f"--{name} is {getattr(args, name)}; expected {expected}")
    cli.at_least(args, {"steps": 1, "batch_size": 1})
    if len(set(map(check_seed, args.seeds))) < len(args.seeds):
        raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: expected different ones")
    return scale


def _classes(name: Optional[str], weights, count: int):
    """The class set that was asked for, else that of the training."""
    from jseg.data.classes import class_set
    from jseg.flowseg.predict import trained_classes

    if not name:
        return trained_classes(weights, count)
    classes = class_set(name)
    if len(classes) != count:
        raise ValueError(
            f"--classes {name} has {len(classes)} classes, the network in {weights} {count}; give "
            "its own class set"
        )
    return classes


if __name__ == "__main__":
    sys.exit(cli.run(main))
