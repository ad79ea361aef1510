"""Train FlowSeg, which turns images into label maps, on a folder of images and label maps.

All files are read once and checked, then the network is trained on random crops; log, curve,
previews, checkpoints, validations and the best network so far (best.safetensors) are in --output.
Stop it with Ctrl-C, give the same command again and it goes on. Several GPUs or processes: mpirun
-np N in front. docs/flowseg.md has the rest.

Examples:
  python scripts/train_flowseg.py --data camvid --layout camvid --output runs/camvid \\
      --preset small --steps 4000
  python scripts/train_flowseg.py --data my_data --layout folders --classes my_classes.txt \\
      --ignore 255 --output runs/mine
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import sys
from typing import List, Optional

from jseg.commands import cli, training
from jseg.commands import training_options as options

LAYOUTS = options.LAYOUTS
# Where the options do not say: by preset; "" for those not named here.
RECIPE = ("default_steps", "batch_size", "learning_rate", "ema", "save_interval") + (
    "warmup",
    "decay",
    "scales",
    "jitter",
    "shift",
)
RECIPES = {
    "": (160_000, 16, 1e-4, 0.9999, 5_000, 0, "none", [0.5, 2.0], 0.0, 1.0),
    "small": (4_000, 8, 1e-3, 0.999, 500, 200, "linear", [0.8, 2.0], 0.2, 20.0),
    "tiny": (2_000, 8, 1e-3, 0.99, 200, 0, "none", [0.5, 2.0], 0.0, 1.0),
}
RECIPES = {preset: dict(zip(RECIPE, values)) for preset, values in RECIPES.items()}
REPA_BLOCK = 8  # as in PixNerd

say = functools.partial(cli.say, "train_flowseg")


def parser():
    p = cli.make_parser("train_flowseg", __doc__)
    p.add_argument("--data", required=True, help="folder of the data set")
    p.add_argument(
        "--layout",
        default="folders",
        choices=LAYOUTS,
        help="of that folder, and its ids (docs/flowseg.md; default folders)",
    )
    options.add_options(
        p, "runs/flowseg", None, validate_count="validation examples, evenly chosen (default: all)"
    )
    p.add_argument(
        "--validate_steps",
        type=int,
        default=10,
        help="of the flow in validations and previews (default 10)",
    )
    p.add_argument(
        "--classes",
        help="of the layout folders: a class set's name, a file of names and colours, or a number "
        "(default: counted)",
    )
    options.add_data_options(p)

    # The network and its crops.
    p.add_argument(
        "--preset",
        default="small",
        help="network: small, tiny, pixnerd-L/16, pixnerd-XL/16 (default small)",
    )
    p.add_argument(
        "--width",
        type=int,
        help="of the crops, and of the windows at inference (default: the preset's)",
    )
    p.add_argument("--height", type=int, help="of the crops (default: the preset's)")
    p.add_argument(
        "--scales",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="images are resized at random, 1 being where they just cover a crop (default: the "
        "preset's)",
    )
    p.add_argument(
        "--jitter",
        type=float,
        help="brightness, contrast and saturation are changed by up to this fraction (default: the "
        "preset's)",
    )

    # The flow and its loss.
    p.add_argument(
        "--source",
        choices=("image", "noise", "image+noise"),
        help="where the flow starts (default: the preset's)",
    )
    p.add_argument(
        "--codes",
        choices=("kronecker", "r3", "grid", "lattice"),
        help="the classes' codes (default: the preset's)",
    )
    p.add_argument(
        "--shift",
        type=float,
        help="of the times t of the training, which become t / (t + (1 - t) shift); above 1 more "
        "are near the source (default: the preset's)",
    )
    p.add_argument(
        "--weight",
        type=float,
        default=1.0,
        help="of the correction; 0: plain flow matching (default 1)",
    )
    p.add_argument(
        "--schedule",
        default="static",
        choices=("static", "1-t", "t"),
        help="of the correction over time (default static)",
    )
    p.add_argument(
        "--tau", type=float, default=1.0, help="temperature of the distances (default 1)"
    )
    p.add_argument(
        "--eps", type=float, default=1e-2, help="added to squared distances (default 0.01)"
    )

    # REPA.
    p.add_argument(
        "--repa",
        metavar="FILE",
        help="public weights of DINOv2 ViT-B/14, to whose features tokens are drawn "
        "(default: none)",
    )
    p.add_argument(
        "--repa_block",
        type=int,
        help="transformer block whose tokens these are, from 1 (default 8, or the last)",
    )
    p.add_argument("--repa_weight", type=float, default=0.5, help="of that loss (default 0.5)")
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then train; 0 also when stopped by a signal with everything saved."""
    asked = options.parse(parser(), argv)
    args = options.with_defaults(asked, RECIPES.get(asked.preset, RECIPES[""]))
    options.check_options(args)
    _check_options(args)

    from jseg.data.datasets import open_dataset
    from jseg.flowseg.pretrained import check_pretrained
    from jseg.training.run_folder import run_folder

    inputs = {
        "data": args.data,
        "model_path": args.model_path,
        "repa": args.repa,
        "classes": args.classes,
    }
    with run_folder(args.output, "flowseg", inputs, cli.speaks()):
        dataset = open_dataset(
            args.data, args.layout, _classes(args.classes), args.ignore, args.map
        )
        remarks = list(dataset.remarks)
        if args.classes and not args.classes.isdigit():
            remarks.append(dataset.classes.summary())
        config = _network(args, len(dataset.classes))
        if args.model_path:
            started = check_pretrained(args.model_path, config)
            args = options.with_values(args, {"model_path": started})
        if training.reads_first(args, len(dataset.train) + len(dataset.val), say):
            dataset, more = dataset.check(config.patch)
            remarks += more
        _train(args, config, dataset, remarks)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    from jseg.flowseg.presets import NETWORKS, check_numbers

    least = {"validate_count": 1, "validate_steps": 1, "width": 1, "height": 1}
    cli.at_least(args, {**least, "repa_weight": 0, "jitter": 0})
    low, high = args.scales
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"--scales {low} {high}; expected two finite numbers above 0, the lower one first"
        )
    if not args.jitter < 1:
        raise ValueError(f"--jitter is {args.jitter}; expected less than 1")
    check_numbers("--", weight=args.weight, tau=args.tau, eps=args.eps, shift=args.shift)
    if args.repa and not os.path.isfile(args.repa):
        raise FileNotFoundError(
            f"--repa {args.repa} {cli.no_file(args.repa)}; expected DINOv2's "
            "dinov2_vitb14_pretrain.pth"
        )

    # What depends on the preset: the size, and the block that REPA looks at.
    options.check_preset(args, NETWORKS)
    _network(args, NETWORKS[args.preset].labels)
    depth = NETWORKS[args.preset].depth
    if args.repa and not 1 <= _repa_block(args, depth) <= depth:
        raise ValueError(
            f"--repa_block is {args.repa_block}; expected 1 to {depth}, the transformer blocks of "
            f"the preset {args.preset}"
        )


def _repa_block(args: argparse.Namespace, depth: int) -> int:
    return min(REPA_BLOCK, depth) if args.repa_block is None else args.repa_block


def _classes(words: Optional[str]):
    """What --classes means to `open_dataset`: a number, a class set, or None."""
    from jseg.data.classes import class_set

    if words is None:
        return None
    return int(words) if words.isdigit() else class_set(words)


def _network(args: argparse.Namespace, classes: int):
    """The preset's configuration for that many classes, at the asked size."""
    from jseg.flowseg.presets import NETWORKS

    asked = {name: getattr(args, name) for name in ("width", "height", "source", "codes")}
    given = {name: value for name, value in asked.items() if value is not None}
    config = dataclasses.replace(NETWORKS[args.preset], labels=classes, **given)
    if config.width % config.patch or config.height % config.patch:
        raise ValueError(
            f"--width {config.width} --height {config.height}: expected multiples of "
            f"{config.patch}, the patch of the preset {args.preset}"
        )
    return config


def _train(asked: argparse.Namespace, config, dataset, remarks: List[str]) -> None:
    from jseg.flowseg.encoding import class_codes
    from jseg.flowseg.pixnerd_training import settings, trained_network
    from jseg.flowseg.training_memory import needs
    from jseg.flowseg.validation import Validation

    device = training.choose_device(asked)
    size = training.activation_bytes(asked, device)
    args = training.planned(asked, device, needs(config, asked.ema > 0, size), say)
    for remark in remarks:
        say(remark)

    # Crops to train on, the network, whole images to validate on.
    codes, block = class_codes(config.labels, config.codes), _repa_block(args, config.depth)
    batches = _batches(args, config, dataset)
    network = trained_network(args, config, codes, block)
    chosen = training.evenly_chosen(dataset.val, args.validate_count)
    validation = Validation(
        network.module, chosen, dataset.load, dataset.classes, args.validate_steps
    )

    training.train(
        args,
        say,
        device,
        result="flowseg",
        networks=[network],
        config=config,
        settings=settings(args, dataset, block),
        batches=batches,
        examples=len(dataset.train),
        validated=len(chosen),
        about=f"{len(dataset.classes)} classes",
        preview=validation.preview,
        validate=validation,
    )


def _batches(args: argparse.Namespace, config, dataset):
    """The crops that are trained on."""
    from jseg.flowseg.dataset import CropBatches

    return CropBatches(
        dataset.train,
        dataset.load,
        config.labels,
        (config.width, config.height),
        training.batch_shards(args),
        args.seed,
        tuple(args.scales),
        jitter=args.jitter,
        noise="noise" in config.source,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
