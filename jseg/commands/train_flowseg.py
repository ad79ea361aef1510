"""Train FlowSeg, which turns images into label maps, on a folder of images and label maps.

All files are read once and checked, then the network is trained on random crops; log, curve,
previews, checkpoints, validations and the best network so far (best.safetensors) are in --output.
Stop it with Ctrl-C, give the same command again and it goes on. Several GPUs or processes: mpirun
-np N in front. docs/flowseg.md has the rest.

Examples:
  python scripts/train_flowseg.py --data camvid --layout camvid --output runs/camvid --preset small --steps 4000
  python scripts/train_flowseg.py --data my_data --layout folders --classes my_classes.txt --ignore 255 --output runs/mine
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import sys
from typing import List, Optional

from jseg.commands import cli

LAYOUTS = ("folders", "ade20k", "coco_stuff", "camvid", "landscape")
PLAIN = {"warmup": 0, "decay": "none", "scales": [0.5, 2.0], "jitter": 0.0, "shift": 1.0}
# Where the options do not say: by preset; "" for those not named here.
RECIPES = {
    "": {
        "default_steps": 160_000,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "ema": 0.9999,
        "save_interval": 5_000,
        **PLAIN,
    },
    "small": {
        "default_steps": 4_000,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "ema": 0.999,
        "save_interval": 500,
        "warmup": 200,
        "decay": "linear",
        "scales": [0.8, 2.0],
        "jitter": 0.2,
        "shift": 20.0,
    },
    "tiny": {
        "default_steps": 2_000,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "ema": 0.99,
        "save_interval": 200,
        **PLAIN,
    },
}
REPA_BLOCK = 8  # as in PixNerd
MANY = 2000  # examples whose checking takes a while


def parser():
    p = cli.make_parser("train_flowseg", __doc__)
    p.add_argument("--data", required=True, help="folder of the data set")
    p.add_argument(
        "--layout",
        default="folders",
        choices=LAYOUTS,
        help="of that folder, and its ids (docs/flowseg.md; default folders)",
    )
    own = "the preset's"
    cli.add_training_options(
        p, "runs/flowseg", steps=own, batch_size=own, learning_rate=own, ema=own, interval=own
    )
    p.set_defaults(
        default_steps=None, batch_size=None, learning_rate=None, ema=None, save_interval=None
    )
    p.add_argument(
        "--preset",
        default="small",
        help="network: small, tiny, pixnerd-L/16, pixnerd-XL/16 (default small)",
    )
    p.add_argument(
        "--classes",
        help="of the layout folders: a class set's name, a file of names and colours, or a number "
        "(default: counted)",
    )
    p.add_argument(
        "--ignore",
        type=int,
        nargs="*",
        default=[],
        metavar="ID",
        help="values in label files that mean nothing is known",
    )
    p.add_argument(
        "--map",
        nargs="*",
        default=[],
        metavar="VALUE:CLASS",
        help="values in label files that stand for another class, such "
        "as 255:1; CLASS is an id as stored, or a name",
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
        help="brightness, contrast and saturation are changed by up to this share (default: the "
        "preset's)",
    )
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
        "--warmup",
        type=int,
        metavar="STEPS",
        help="over which the learning rate rises to its value (default: the preset's)",
    )
    p.add_argument(
        "--decay",
        choices=("none", "linear"),
        help="of the learning rate, to 0 after --steps, which may then not be changed "
        "on the way (default: the preset's)",
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
    p.add_argument(
        "--repa",
        metavar="FILE",
        help="public weights of DINOv2 ViT-B/14, to whose features tokens are drawn (default: none)",
    )
    p.add_argument(
        "--repa_block",
        type=int,
        help="transformer block whose tokens these are, from 1 (default 8, or the last)",
    )
    p.add_argument("--repa_weight", type=float, default=0.5, help="of that loss (default 0.5)")
    p.add_argument(
        "--validate_interval",
        type=int,
        help="steps between validations; 0: at the end alone (default: as --save_interval)",
    )
    p.add_argument(
        "--validate_count",
        type=int,
        metavar="N",
        help="validation examples, evenly chosen (default: all)",
    )
    p.add_argument(
        "--validate_steps",
        type=int,
        default=10,
        help="of the flow in validations and previews (default 10)",
    )
    p.add_argument(
        "--recompute",
        action="store_true",
        help="compute blocks again in the backward pass: less memory, same update",
    )
    p.add_argument(
        "--trust_data",
        action="store_true",
        help="do not read every file before the training; what is wrong is told when met",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then train; 0 also when stopped by a signal with everything saved."""
    args = parser().parse_args(argv)
    args.given = cli.options_given(parser(), argv)
    for name, value in RECIPES.get(args.preset, RECIPES[""]).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    cli.check_training_options(args)
    _check_options(args)
    from jseg.data.datasets import open_dataset
    from jseg.training.records import run_folder

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
        said = [dataset.classes.summary()] * bool(args.classes and not args.classes.isdigit())
        notes = dataset.remarks + said
        config = _network(args, len(dataset.classes))
        _check_start(args, config)
        if cli.speaks() and not args.trust_data:
            count = len(dataset.train) + len(dataset.val)
            if count >= MANY:
                _tell(f"reading all {count} examples, to check them (--trust_data: not)")
            dataset, remarks = dataset.check(config.patch)
            notes += remarks
        _train(args, config, dataset, notes)
    return 0


def _check_options(args) -> None:
    from jseg.flowseg.presets import check_numbers

    for name, least in (
        ("validate_interval", 0),
        ("validate_count", 1),
        ("validate_steps", 1),
        ("width", 1),
        ("height", 1),
        ("repa_weight", 0),
        ("warmup", 0),
        ("jitter", 0),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"--{name} is {value}; expected {least} or more")
    if not 0 < args.scales[0] <= args.scales[1] < math.inf:
        raise ValueError(
            f"--scales {args.scales[0]} {args.scales[1]}; expected two finite numbers above 0, "
            "the lower one first"
        )
    if not args.jitter < 1:
        raise ValueError(f"--jitter is {args.jitter}; expected less than 1")
    check_numbers("--", weight=args.weight, tau=args.tau, eps=args.eps, shift=args.shift)
    if args.repa and not os.path.isfile(args.repa):
        raise FileNotFoundError(
            f"--repa {args.repa} {cli.no_file(args.repa)}; expected DINOv2's "
            "dinov2_vitb14_pretrain.pth"
        )


def _classes(given: Optional[str]):
    from jseg.data.classes import class_set

    return None if given is None else int(given) if given.isdigit() else class_set(given)


def _network(args, classes: int):
    """The preset's configuration for that many classes, at the asked size."""
    from jseg.flowseg.presets import NETWORKS

    if args.preset not in NETWORKS:
        raise ValueError(
            f"--preset {args.preset} is unknown; expected one of {', '.join(NETWORKS)}"
        )
    config = NETWORKS[args.preset]
    asked = {
        "labels": classes,
        "width": args.width,
        "height": args.height,
        "source": args.source,
        "codes": args.codes,
    }
    config = dataclasses.replace(
        config, **{name: value for name, value in asked.items() if value is not None}
    )
    if config.width % config.patch or config.height % config.patch:
        raise ValueError(
            f"--width {config.width} --height {config.height}: expected multiples of "
            f"{config.patch}, the patch of the preset {args.preset}"
        )
    if args.repa and args.repa_block is None:
        args.repa_block = min(REPA_BLOCK, config.depth)
    if args.repa and not 1 <= args.repa_block <= config.depth:
        raise ValueError(
            f"--repa_block is {args.repa_block}; expected 1 to {config.depth}, the transformer "
            f"blocks of the preset {args.preset}"
        )
    return config


def _check_start(args, config) -> None:
    """Refuse weights to start from that are of another network, before all files are read."""
    if not args.model_path:
        return
    from jseg.checkpoint import CheckpointError, describe, mismatch
    from jseg.configs import looks_like
    from jseg.flowseg.state_dict import IMAGE_LAYERS, another_size, pixnerd_shapes

    expected = pixnerd_shapes(config)
    args.model_path = describe(args.model_path, sha256=True, shapes=True)
    given = {name: expected[name] for name in IMAGE_LAYERS if name in expected}
    given.update(args.model_path.shapes)
    problem = mismatch(expected, given, looks_like=looks_like, explain=another_size)
    if problem:
        raise CheckpointError.at(args.model_path, problem)


def _train(args, config, dataset, notes) -> None:
    import numpy as np

    from jseg import runtime
    from jseg.flowseg.dataset import CropBatches
    from jseg.flowseg.encoding import class_codes
    from jseg.flowseg.validation import Validation
    from jseg.training import distributed
    from jseg.training.memory import check_batch
    from jseg.training.optimizer import rates
    from jseg.training.run import Plan, TrainingRun
    from jseg.training.sampling import BatchShards

    device = runtime.device(args.device)
    for note in notes:
        _tell(note)
    codes = class_codes(config.labels, config.codes)
    steps = cli.steps_asked(args, len(dataset.train))
    division = BatchShards.of(args, distributed.rank(), distributed.world_size())
    batches = CropBatches(
        dataset.train,
        dataset.load,
        codes,
        (config.width, config.height),
        division,
        args.seed,
        tuple(args.scales),
        jitter=args.jitter,
    )
    part = _part(args, config, codes)
    chosen = np.unique(
        np.linspace(
            0, len(dataset.val) - 1, min(args.validate_count or len(dataset.val), len(dataset.val))
        ).astype(int)
    )
    validation = Validation(
        part.module,
        [dataset.val[i] for i in chosen],
        dataset.load,
        dataset.classes,
        args.validate_steps,
    )
    run = TrainingRun(
        args.output,
        [part],
        config,
        _settings(args, dataset, steps),
        Plan.of(args, steps),
        "flowseg",
        _tell,
        args.given,
    )
    start = run.resume(args.resume)
    if start < steps:
        check_batch(part, batches.first, division.micro_batch)
    _tell(
        f"{len(dataset.train)} examples, {len(chosen)} to validate on, {len(dataset.classes)} "
        f"classes, {part.size:,} parameters, {cli.steps_told(start, steps, args.batch_size)} on "
        f"{device}, {division.world} process(es), into {args.output}"
    )
    run.follow(
        batches,
        start,
        validation.preview,
        validate=validation,
        learning_rate=rates(
            args.learning_rate, args.warmup, steps if args.decay == "linear" else 0
        ),
    )


def _part(args, config, codes):
    from jseg import runtime
    from jseg.checkpoint import CheckpointError
    from jseg.flowseg.objective import training_loss
    from jseg.flowseg.pixnerd import PixNerd, load_pretrained
    from jseg.training.loop import TrainedNetwork
    from jseg.training.optimizer import EMA, AdamW, trainable

    runtime.seed(args.seed)
    network = PixNerd(config)
    runtime.jt.sync(
        network.parameters()
    )  # drawn before anything else draws: the first weights are the same with --repa
    network.train()
    network.recompute = args.recompute
    if args.model_path:
        try:
            load_pretrained(network, args.model_path)
        except CheckpointError as error:
            raise CheckpointError.at(args.model_path, error) from None
    parameters, alignment = trainable(network), _alignment(args, config)
    projection = (
        {}
        if alignment is None
        else {f"repa.{name}": value for name, value in trainable(alignment).items()}
    )
    loss = training_loss(
        network,
        codes,
        args.weight,
        args.tau,
        args.eps,
        args.schedule,
        args.shift,
        alignment,
        args.repa_block,
    )
    return TrainedNetwork(
        "",
        network,
        loss,
        AdamW({**parameters, **projection}, args.learning_rate, weight_decay=args.weight_decay),
        EMA(parameters, args.ema, warm_up=True) if args.ema else None,
        companion=alignment,
    )


def _alignment(args, config):
    """The loss that draws the network's tokens to DINOv2's, or None."""
    if not args.repa:
        return None
    from jseg.flowseg.dinov2 import load_dinov2
    from jseg.flowseg.repa import Alignment

    encoder = load_dinov2(args.repa)
    return Alignment(
        encoder,
        config.hidden_size,
        config.patch,
        args.repa_weight,
        encoder.config.width,
        encoder.config.patch,
    )


def _settings(args, dataset, steps: int) -> dict:
    """Everything that the numbers of a step depend on; files are known by name and size, since a
    data set may have a hundred thousand.

    Those whose size does not change with their pixels are known by content.
    """
    from jseg.checkpoint import describe, weights_sha256
    from jseg.data.examples import contents_of
    from jseg.flowseg.predict import stored_classes

    names = (
        "batch_size",
        "learning_rate",
        "weight_decay",
        "ema",
        "seed",
        "scales",
        "jitter",
        "warmup",
        "decay",
        "shift",
        "weight",
        "schedule",
        "tau",
        "eps",
    )
    model = args.model_path and describe(args.model_path, sha256=True)
    started = {"model_path": model.sha256} if model else {}
    if args.decay == "linear":
        started["steps"] = steps
    if args.repa:
        started.update(
            repa=weights_sha256(args.repa), repa_block=args.repa_block, repa_weight=args.repa_weight
        )
    digest, contents = hashlib.sha256(dataset.numbering.key), contents_of(dataset.train)
    for example in dataset.train:
        sizes = [path.stat().st_size for path in (example.image, example.label)]
        digest.update(f"{example.stem}/{sizes}\n".encode("utf-8", "surrogateescape"))
    return {
        **{name: getattr(args, name) for name in names},
        **started,
        "data": digest.hexdigest(),
        "classes": stored_classes(dataset.classes),
        **({"contents": contents} if contents else {}),
    }


def _tell(message: str) -> None:
    from tqdm import tqdm

    if cli.speaks():
        tqdm.write(f"jseg train_flowseg: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
