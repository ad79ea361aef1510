"""Segment images with FlowSeg: images, or folders of them, of any size and mode, become label
maps.

OUTPUT/NAME.png is the label map (8-bit gray, one class id a pixel, in the image's size),
OUTPUT/overlays/NAME.jpg shows it over the image. Larger images are segmented in windows. A
second call goes on where the first one stopped.

Examples:
  python scripts/segment.py --weights runs/flowseg/best.safetensors --input photos --output labels
  python scripts/segment.py --weights runs/flowseg/best.safetensors --input a.jpg b.png --output labels --mirror --probabilities
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli


def parser():
    p = cli.make_parser("segment", __doc__)
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
    p.add_argument(
        "--probabilities",
        action="store_true",
        help="also write OUTPUT/probabilities/NAME.npy, float16 [classes, H, W]",
    )
    p.add_argument(
        "--classes",
        help="names and colours: a class set's name or a file (default: those of the training)",
    )
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then segment what is missing; 0 when all label maps are there."""
    args = parser().parse_args(argv)
    scale = _scale(args.scale)
    if args.weights is None:
        from jseg.flowseg.predict import SHIPPED

        args.weights = SHIPPED
        _tell(
            "no weights given: using the small ones that ship with jseg, trained on procedural "
            "landscapes of 128x96"
        )
    if not Path(args.weights).is_file():
        raise FileNotFoundError(
            f"--weights {args.weights} {cli.no_file(args.weights)}; expected a file that "
            "train_flowseg wrote"
        )
    from jseg import runtime
    from jseg.checkpoint import describe
    from jseg.flowseg import segment
    from jseg.flowseg.predict import Segmenter, network_config, trained_shift
    from jseg.machine import jittor_flags
    from jseg.outputs.rules import held
    from jseg.progress import ImageBar

    weights = describe(args.weights, sha256=True)
    config = network_config(weights)
    classes = _classes(args, weights, config.labels)
    notes = [classes.said()] * bool(args.classes)
    images = segment.find_images(args.input, notes)
    _claim(args, images, len(classes))
    notes += segment.check_images(images, config.patch)
    device, output = runtime.device(args.device), Path(args.output)
    options = {
        "method": args.method,
        "mirror": args.mirror,
        "seeds": args.seeds,
        "scale": scale,
        "overlap": args.overlap,
        "batch_size": args.batch_size,
        "shift": trained_shift(weights) if args.shift is None else args.shift,
    }
    settings = {
        "weights": weights.sha256,
        "steps": args.steps,
        **options,
        "device": device,
        "classes": classes.name,
        **jittor_flags.record(),
    }
    digests = segment.digests_of(images)
    with held(output):
        run = segment.opened(output, settings, images, digests, args.probabilities, notes)
        segmenter = Segmenter.from_file(weights, args.steps, args.device, **options)
        kept = len(segment.finished(images, output, run, digests, args.probabilities))
        for note in notes + [
            f"{kept} of {len(images)} images are in {output} already and are kept"
        ] * bool(kept):
            _tell(note)
        with ImageBar(len(images), kept) as bar:
            for _ in segment.segment_folder(
                segmenter, images, output, run, classes, digests, args.probabilities
            ):
                bar.show()
    _tell(f"{len(images)} label maps in {output}, overlays in {output / segment.OVERLAYS}")
    return 0


def _claim(args, images, count: int) -> None:
    """Refuse, before anything long, an output that would replace an input or another's file, or
    that cannot be written.
    """
    from jseg.data.image_folder import IMAGE_FOLDERS
    from jseg.flowseg import segment
    from jseg.image_files.decoding import ImageError, read_header
    from jseg.outputs.rules import claim

    output, given = Path(args.output), [Path(path) for path in args.input]
    places = [
        place
        for path in given
        if path.is_dir()
        for place in [path] + [path / name for name in IMAGE_FOLDERS]
    ]
    places += [example.image.parent for example in images if example.image not in given]
    files = [example.image for example in images] + [
        path for path in (args.weights, args.classes) if path
    ]
    pixels = 0
    for example in images:
        try:
            header = read_header(example.image)
            pixels += header.width * header.height
        except ImageError:
            continue  # told with the other faults of images

    # An overlay takes 2.5 bytes a pixel at most, a label map one, probabilities two a class.
    names = segment.names_of([example.stem for example in images], args.probabilities)
    known = segment.read_run(output)["files"] if output.is_dir() and _ours(output) else {}
    bytes_each = 3.5 + 2 * count * args.probabilities
    needed = 0 if known else int(pixels * bytes_each)
    claim(output, "--output", "segment", names, files, places, known, segment.RUN, needed)


def _ours(output: Path) -> bool:
    from jseg.outputs.records import origin

    return origin(output) in (None, "segment")


def _scale(text: str) -> Optional[float]:
    try:
        return None if text == "own" else float(text)
    except ValueError:
        raise ValueError(f"--scale is {text!r}; expected a number from 1 on, or own") from None


def _classes(args, weights, count: int):
    """The class set that was asked for, else that of the training."""
    from jseg.data.classes import class_set
    from jseg.flowseg.predict import trained_classes

    if not args.classes:
        return trained_classes(weights, count)
    classes = class_set(args.classes)
    if len(classes) != count:
        raise ValueError(
            f"--classes {args.classes} has {len(classes)} classes, the network in {args.weights} "
            f"{count}; give its own class set"
        )
    return classes


def _tell(message: str) -> None:
    print(f"jseg segment: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
