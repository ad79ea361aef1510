"""Train the UNet of IIDM on a folder of images and label maps: the challenge's reviewer command.

INPUT/imgs/*.jpg and INPUT/labels/*.png (or images/) belong together by name. All of it is checked,
images are encoded once into a cache of latents with their mirror images, then the UNet is
trained; log, loss curve, previews and checkpoints are in --output. Stop it with Ctrl-C, give the
same command again and it goes on. Several GPUs or processes: mpirun -np N in front
(docs/training.md).

Examples:
  python scripts/train.py --input_path data/train
  python scripts/train.py --input_path data/train --preset landscape --steps 3000 --batch_size 16 --learning_rate 5e-4 --ema 0.998
  python scripts/train.py --input_path camvid/train --classes camvid-11 --preset landscape --output runs/camvid
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

RELEASE = {
    "preset": "release",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "ema": 0.9999,
    "drop": 0.2,
    "zero_init": "release",
}
RELEASE_MICRO_BATCH = 5


def parser():
    p = cli.make_parser("train", __doc__)
    p.add_argument("--input_path", required=True, help="folder with imgs/ (or images/) and labels/")
    cli.add_training_options(
        p,
        "runs/train",
        steps=266_000,
        batch_size=30,
        learning_rate=1e-4,
        ema=0.9999,
        interval=10_000,
    )
    p.add_argument(
        "--preset",
        default="release",
        help="network: release, landscape (the shipped one), small, tiny (default release)",
    )
    p.add_argument(
        "--width", type=int, help="of the images (default: the preset's, 512 for release)"
    )
    p.add_argument(
        "--height", type=int, help="of the images (default: the preset's, 384 for release)"
    )
    p.add_argument(
        "--ae_path",
        help="weights of the autoencoder (default: the official file under ./checkpoints, else "
        "the shipped ones, but not for --preset release)",
    )
    p.add_argument(
        "--cache", metavar="DIR", help="folder of the cached latents (default: OUTPUT/latents)"
    )
    p.add_argument(
        "--layout",
        choices=("folders", "ade20k", "coco_stuff", "camvid", "landscape"),
        help="of the data set's folder, of which the training part is taken, and its ids "
        "(docs/flowseg.md; default folders)",
    )
    p.add_argument(
        "--fit",
        default="",
        choices=("crop", "resize"),
        help="images of another aspect ratio: crop: their middle; resize: "
        "stretched (default: they are refused)",
    )
    p.add_argument(
        "--classes",
        help="a class set's name or a file of names and colours (default: the layout's, else "
        "landscape-29)",
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
    p.add_argument(
        "--drop",
        type=float,
        default=0.2,
        help="probability of withholding a label map, for guidance (default 0.2)",
    )
    p.add_argument("--dropout", type=float, default=0.0, help="inside of the network (default 0)")
    p.add_argument(
        "--zero_init",
        default="zero",
        choices=("zero", "release"),
        help="zero: last convolutions of blocks start at zero, as in SDM; release: they do not "
        "(its zeroing has no effect)",
    )
    p.add_argument(
        "--recompute",
        action="store_true",
        help="compute blocks again in the backward pass: less memory, same update",
    )
    p.add_argument(
        "--release",
        action="store_true",
        help="the release's recipe: "
        + ", ".join(f"{k} {v}" for k, v in RELEASE.items())
        + f", {RELEASE_MICRO_BATCH} examples a process",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then train; 0 also when stopped by a signal with everything saved."""
    args = parser().parse_args(argv)
    args.given = cli.options_given(parser(), argv)
    if args.release:
        vars(args).update(RELEASE)
        args.given |= {"batch_size", *RELEASE}
    cli.check_training_options(args)
    for name in ("drop", "dropout"):
        if not 0 <= getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; expected 0 to below 1")
    from jseg.data.datasets import training_part
    from jseg.data.examples import check_examples
    from jseg.ldm.weights import autoencoder_line, find_autoencoder, network_config
    from jseg.outputs.places import check_cache
    from jseg.training.records import check_places, run_folder

    weights, placed = find_autoencoder(args.ae_path, args.preset)
    args.ae_path = weights
    autoencoder = network_config(weights, "AutoencoderConfig")
    part = training_part(args.input_path, args.layout, args.classes, args.ignore, args.map)
    classes = part.classes
    config = _network(args, len(classes), autoencoder)
    size = config.width * autoencoder.downsampling, config.height * autoencoder.downsampling
    inputs = {
        "input_path": args.input_path,
        "ae_path": args.ae_path,
        "model_path": args.model_path,
        "classes": args.classes,
    }
    check_places({"cache": args.cache or Path(args.output) / "latents"}, inputs)
    if args.cache:
        check_cache(args.cache, "--cache", args.output)
    with run_folder(args.output, "unet", inputs, cli.speaks()):
        examples, remarks = check_examples(part.examples, classes, args.ignore, *size, fit=args.fit)
        notes = [autoencoder_line(args.ae_path), *placed, *part.remarks, *remarks]
        _train(args, config, autoencoder, classes, examples, notes)
    return 0


def _network(args, classes: int, autoencoder):
    """The UNet's configuration: the preset at the asked size, with as many columns as there are
    classes.
    """
    from jseg.ldm.presets import UNETS

    if args.preset not in UNETS:
        raise ValueError(f"--preset {args.preset} is unknown; expected one of {', '.join(UNETS)}")
    config, factor = UNETS[args.preset], autoencoder.downsampling
    width, height = args.width or config.width * factor, args.height or config.height * factor
    multiple = factor * 2 ** (len(config.channel_mult) - 1)
    if width < multiple or height < multiple or width % multiple or height % multiple:
        raise ValueError(
            f"--width {width} --height {height}: expected multiples of {multiple} for the preset "
            f"{args.preset} and this autoencoder"
        )
    return dataclasses.replace(
        config,
        classes=classes,
        dropout=args.dropout,
        width=width // factor,
        height=height // factor,
        latent_channels=autoencoder.latent_channels,
    )


def _train(args, config, autoencoder_config, classes, examples, notes) -> None:
    from jseg import runtime
    from jseg.ldm.dataset import BatchShards, LatentBatches
    from jseg.ldm.preview import Preview
    from jseg.training import distributed
    from jseg.training.memory import check_batch
    from jseg.training.run import Plan, TrainingRun

    device = runtime.device(args.device)
    if args.release:
        args.batch_size, args.micro_batch = (
            RELEASE_MICRO_BATCH * distributed.world_size(),
            RELEASE_MICRO_BATCH,
        )
    for note in notes:
        _tell(note)
    autoencoder, latents = _latents(args, config, autoencoder_config, examples, classes)
    steps = cli.steps_asked(args, len(latents))
    division = BatchShards.of(args, distributed.rank(), distributed.world_size())
    batches = LatentBatches(latents.z, latents.labels, division, args.seed, args.drop)
    part = _part(args, config)
    run = TrainingRun(
        args.output,
        [part],
        config,
        _settings(args, classes, latents),
        Plan.of(args, steps),
        "unet",
        _tell,
        args.given,
    )
    start = run.resume(args.resume)
    if start < steps:
        check_batch(part, batches.first, division.micro_batch)
    _tell(
        f"{len(latents)} examples, {part.size:,} parameters, "
        f"{cli.steps_told(start, steps, args.batch_size)} on {device}, {division.world} "
        f"process(es), into {args.output}"
    )
    run.follow(
        batches,
        start,
        Preview(part.module, autoencoder, latents, examples, classes, args.seed, args.fit),
    )


def _latents(args, config, autoencoder_config, examples, classes):
    """The autoencoder and the cache, made by process 0 and read by all."""
    from jseg.checkpoint import load_into
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.latents import prepare
    from jseg.training import distributed

    autoencoder = Autoencoder(autoencoder_config)
    load_into(autoencoder, args.ae_path)
    autoencoder.eval()
    factor = autoencoder_config.downsampling

    def cached():
        return prepare(
            examples,
            autoencoder,
            args.cache or Path(args.output) / "latents",
            width=config.width * factor,
            height=config.height * factor,
            latent_width=config.width,
            latent_height=config.height,
            ignore=args.ignore,
            classes=classes,
            fit=args.fit,
            autoencoder_sha256=args.ae_path.digest,
            tell=_tell,
        )

    latents = cached() if distributed.rank() == 0 else None
    distributed.barrier()
    return autoencoder, latents or cached()


def _part(args, config):
    from jseg import runtime
    from jseg.checkpoint import load_into
    from jseg.ldm.loss import training_loss
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.training.loop import TrainedNetwork
    from jseg.training.optimizer import EMA, AdamW, trainable

    runtime.seed(args.seed)
    unet = UNet(config, zero_init=args.zero_init == "zero")
    unet.train()
    unet.recompute = args.recompute
    if args.model_path:
        load_into(unet, args.model_path)
    parameters = trainable(unet)
    return TrainedNetwork(
        "",
        unet,
        training_loss(unet, Schedule()),
        AdamW(parameters, args.learning_rate, weight_decay=args.weight_decay),
        EMA(parameters, args.ema) if args.ema else None,
    )


def _settings(args, classes, latents) -> dict:
    """Everything that the numbers of a step depend on, and how the label maps stored the
    classes.
    """
    from jseg.checkpoint import weights_sha256

    names = ("batch_size", "learning_rate", "weight_decay", "ema", "seed", "drop", "zero_init")
    started = {"model_path": weights_sha256(args.model_path)} if args.model_path else {}
    stored = {"class_set": classes.name, "classes": list(classes.file_ids or range(len(classes)))}
    return {
        **{name: getattr(args, name) for name in names},
        **started,
        "autoencoder": args.ae_path.digest,
        "data": latents.digest,
        **stored,
    }


def _tell(message: str) -> None:
    if cli.speaks():
        print(f"jseg train: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
