"""Train the UNet of IIDM on a folder of images and label maps: the challenge's reviewer command.

INPUT/imgs/*.jpg and INPUT/labels/*.png (or images/) belong together by name. All of it is checked,
images are encoded once into a cache of latents with their mirror images, then the UNet is
trained; log, loss curve, previews and checkpoints are in --output. Stop it with Ctrl-C, give the
same command again and it goes on. Several GPUs or processes: mpirun -np N in front
(docs/training.md).

Examples:
  python scripts/train.py --input_path data/train
  python scripts/train.py --input_path data/train --preset landscape --steps 3000 \\
      --batch_size 16 --learning_rate 5e-4 --ema 0.998
  python scripts/train.py --input_path camvid/train --classes camvid-11 --preset landscape \\
      --output runs/camvid
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from jseg.commands import cli, training
from jseg.commands import training_options as options

DEFAULTS = {
    "steps": 266_000,
    "batch_size": 30,
    "learning_rate": 1e-4,
    "ema": 0.9999,
    "save_interval": 10_000,
    "warmup": 0,
    "decay": "none",
}
RELEASE = {
    "preset": "release",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "ema": 0.9999,
    "drop": 0.2,
    "zero_init": "release",
}
RELEASE_MICRO_BATCH = 5

say = functools.partial(cli.say, "train")


def parser():
    p = cli.make_parser("train", __doc__)
    p.add_argument("--input_path", required=True, help="folder with imgs/ (or images/) and labels/")
    options.add_options(
        p,
        "runs/train",
        DEFAULTS,
        validate_count="examples that are held out of the training, evenly chosen, on which the "
        "loss is measured (default 0: none)",
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

    # The data.
    p.add_argument(
        "--layout",
        choices=options.LAYOUTS,
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
    options.add_data_options(p)

    # The network and its loss.
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
    recipe = ", ".join(f"{name} {value}" for name, value in RELEASE.items())
    p.add_argument(
        "--release",
        action="store_true",
        help=f"the release's recipe: {recipe}, {RELEASE_MICRO_BATCH} examples a process",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then train; 0 also when stopped by a signal with everything saved."""
    asked = options.parse(parser(), argv)
    args = _with_release(asked) if asked.release else asked
    options.check_options(args)
    for name in ("drop", "dropout"):
        if not 0 <= getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; expected 0 to below 1")

    from jseg.data.datasets import training_part
    from jseg.data.examples import check_examples
    from jseg.ldm.weights import autoencoder_line, find_autoencoder, network_config
    from jseg.outputs.places import check_cache
    from jseg.training.run_folder import check_places, run_folder

    # The autoencoder, the data and the network that goes with both.
    ae_weights, remarks = find_autoencoder(args.ae_path, args.preset)
    autoencoder = network_config(ae_weights, "AutoencoderConfig")
    part = training_part(args.input_path, args.layout, args.classes, args.ignore, args.map)
    training.check_hold_out(args, len(part.examples))
    config = _network(args, len(part.classes), autoencoder)
    size = config.width * autoencoder.downsampling, config.height * autoencoder.downsampling

    # Nothing is written where it would do harm.
    inputs = {
        "input_path": args.input_path,
        "ae_path": ae_weights,
        "model_path": args.model_path,
        "classes": args.classes,
    }
    check_places({"cache": args.cache or Path(args.output) / "latents"}, inputs)
    if args.cache:
        check_cache(args.cache, "--cache", args.output)

    with run_folder(args.output, "unet", inputs, cli.speaks()):
        examples, lines = part.examples, [autoencoder_line(ae_weights), *remarks, *part.remarks]
        if training.reads_first(args, len(examples), say):
            examples, more = check_examples(
                examples, part.classes, args.ignore, *size, fit=args.fit
            )
            lines += more
        _train(args, ae_weights, config, autoencoder, part.classes, examples, lines)
    return 0


def _with_release(asked: argparse.Namespace) -> argparse.Namespace:
    """The options with the release's recipe in place of what was given."""
    batch_size = RELEASE_MICRO_BATCH * training.processes()
    batch = {"batch_size": batch_size, "micro_batch": RELEASE_MICRO_BATCH}
    given = asked.given | {"batch_size", *RELEASE}
    return options.with_values(asked, {**RELEASE, **batch, "given": given})


def _network(args, classes: int, autoencoder):
    """The UNet's configuration: the preset at the asked size, with as many columns as there are
    classes.
    """
    from jseg.ldm.presets import UNETS

    options.check_preset(args, UNETS)
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


def _train(args, ae_weights, config, autoencoder_config, classes, all_examples, remarks) -> None:
    from jseg import runtime
    from jseg.checkpoint import load_into
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.dataset import LatentBatches
    from jseg.ldm.preview import Preview
    from jseg.ldm.unet_training import cached_latents, trained_network
    from jseg.ldm.validation import unet_validation
    from jseg.training.run_folder import HELD_OUT_LATENTS, LATENTS

    device = runtime.device(args.device)
    for remark in remarks:
        say(remark)

    # Another setting is refused here, not when its latents have taken the place of the old ones.
    held_back = {"validate_count": args.validate_count or 0}
    training.check_newest(args, {**held_back, "drop": args.drop, "zero_init": args.zero_init})
    autoencoder = Autoencoder(autoencoder_config)
    load_into(autoencoder, ae_weights)
    autoencoder.eval()

    def latents_of(some: Sequence, folder: Path):
        digest = ae_weights.digest
        return cached_latents(args, config, autoencoder, digest, some, classes, folder, say)

    # What is trained on, the network, and what is validated on.
    examples, held_out = training.hold_out(args, all_examples)
    output, shards = Path(args.output), training.batch_shards(args)
    latents = latents_of(examples, Path(args.cache or output / LATENTS))
    batches = LatentBatches(latents.z, latents.labels, shards, args.seed, args.drop)
    network = trained_network(args, config)
    about, validate = f"{len(latents)} examples", None
    if held_out:
        others = latents_of(held_out, output / HELD_OUT_LATENTS)
        validate = unet_validation(network.module, network.loss, others, args.seed)
        about += f", {len(held_out)} images to validate on"

    training.train(
        args,
        say,
        device,
        result="unet",
        networks=[network],
        config=config,
        settings={
            **held_back,
            "drop": args.drop,
            "zero_init": args.zero_init,
            "autoencoder": ae_weights.digest,
            "data": latents.digest,
            "class_set": classes.name,
            "classes": list(classes.file_ids or range(len(classes))),
        },
        batches=batches,
        examples=len(latents),
        about=about,
        preview=Preview(
            network.module, autoencoder, latents, examples, classes, args.seed, args.fit
        ),
        validate=validate,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
