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
from typing import Dict, List, Optional, Tuple

from jseg.commands import cli, training
from jseg.commands import training_options as options
from jseg.counting import counted

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
RELEASE_PART = 5

say = functools.partial(cli.say, "train")


def parser():
    p = cli.make_parser("train", __doc__)
    p.add_argument("--input_path", required=True, help="folder with imgs/ (or images/) and labels/")
    options.add_options(
        p,
        "runs/train",
        DEFAULTS,
        validate_count="examples, evenly chosen, on which the loss is measured: of the layout's "
        "validation folder (default: all), else held out of the training (default 0: none)",
    )
    p.add_argument(
        "--preset",
        default="release",
        help="network: release, landscape (the shipped one), small, tiny (default release)",
    )
    p.add_argument("--width", type=int, help="of the images (default: the preset's; release: 512)")
    p.add_argument("--height", type=int, help="of the images (default: the preset's; release: 384)")
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
        help=f"the release's recipe: {recipe}, {RELEASE_PART} examples a process",
    )
    return p


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained on what, found and not read yet."""

    config: object  # of the UNet
    size: Tuple[int, int]  # width and height of the images
    autoencoder: object  # its configuration
    ae_weights: object  # jseg.checkpoint.WeightFile
    classes: object  # a ClassSet
    examples: list  # to train on, and those that are held out of these
    val: list  # of the layout's validation folder, evenly chosen
    remarks: List[str]


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then train; 0 also when stopped by a signal with everything saved."""
    asked = options.parse(parser(), argv)
    args = _with_release(asked) if asked.release else asked
    _check_options(args)
    job = _job(args)

    from jseg.data.examples import check_examples
    from jseg.outputs.places import check_cache
    from jseg.training.run_folder import check_places, run_folder

    # Nothing is written where it would do harm.
    inputs = {
        "input_path": args.input_path,
        "ae_path": job.ae_weights,
        "model_path": args.model_path,
        "classes": args.classes,
    }
    check_places({"cache": args.cache or Path(args.output) / "latents"}, inputs)
    if args.cache:
        check_cache(args.cache, "--cache", args.output)

    with run_folder(args.output, "unet", inputs, cli.speaks()):
        count, every = len(job.examples), job.examples + job.val
        if training.reads_first(args, len(every), say):
            every, remarks = check_examples(
                every, job.classes, args.ignore, *job.size, fit=args.fit
            )
            job = dataclasses.replace(
                job, examples=every[:count], val=every[count:], remarks=job.remarks + remarks
            )
        _train(args, job)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for options that cannot be meant."""
    from jseg.ldm.presets import UNETS

    options.check_options(args)
    for name in ("drop", "dropout"):
        if not 0 <= getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; expected 0 to below 1")
    options.check_preset(args, UNETS)


def _job(args: argparse.Namespace) -> Job:
    """The autoencoder, the data and the network that goes with both."""
    from jseg.data.datasets import training_part
    from jseg.ldm.weights import autoencoder_line, find_autoencoder, network_config

    ae_weights, remarks = find_autoencoder(args.ae_path, args.preset)
    autoencoder = network_config(ae_weights, "AutoencoderConfig")
    size = _size(args, autoencoder.downsampling)
    part = training_part(args.input_path, args.layout, args.classes, args.ignore, args.map)
    if not part.val or args.validate_count == 0:
        training.check_hold_out(args, len(part.examples))
    val = training.evenly_chosen(part.val, args.validate_count)
    config = _network(args, len(part.classes), autoencoder, size)

    # The validation folder, where the layout has one.
    folder = counted(len(part.val), "example[s] in the validation folder")
    of_val = f"of {folder} {counted(len(val), '[is|are]')} validated on and none trained on"
    remarks = [*remarks, *part.remarks] + [of_val] * bool(part.val)
    lines = [autoencoder_line(ae_weights), *remarks]
    return Job(config, size, autoencoder, ae_weights, part.classes, part.examples, val, lines)


def _with_release(asked: argparse.Namespace) -> argparse.Namespace:
    """The options with the release's recipe in place of what was given."""
    batch_size = RELEASE_PART * training.processes()
    values = {**RELEASE, "batch_size": batch_size}
    return options.with_values(asked, {**values, "given": asked.given | set(values)})


def _size(args: argparse.Namespace, factor: int) -> Tuple[int, int]:
    """Width and height of the images: those asked for, else the preset's.

    factor: the autoencoder's downsampling. Raises ValueError unless the UNet can halve the latents.
    """
    from jseg.ldm.presets import UNETS

    config = UNETS[args.preset]
    width = config.width * factor if args.width is None else args.width
    height = config.height * factor if args.height is None else args.height
    multiple = factor * 2 ** (len(config.channel_mult) - 1)
    if width < multiple or height < multiple or width % multiple or height % multiple:
        raise ValueError(
            f"--width {width} --height {height}: expected multiples of {multiple} for the preset "
            f"{args.preset} and this autoencoder"
        )
    return width, height


def _network(args: argparse.Namespace, classes: int, autoencoder, size: Tuple[int, int]):
    """The UNet's configuration: the preset at that size of images, with as many columns as there
    are classes.
    """
    from jseg.ldm.presets import UNETS

    return dataclasses.replace(
        UNETS[args.preset],
        classes=classes,
        dropout=args.dropout,
        width=size[0] // autoencoder.downsampling,
        height=size[1] // autoencoder.downsampling,
        latent_channels=autoencoder.latent_channels,
    )


def _train(asked: argparse.Namespace, job: Job) -> None:
    """Encode what is not in the cache, then train the UNet on it."""
    from jseg.ldm.dataset import LatentBatches
    from jseg.ldm.preview import Preview
    from jseg.ldm.training_memory import needs
    from jseg.ldm.unet_training import loaded_autoencoder, trained_network
    from jseg.training.run_folder import LATENTS

    # Another setting is refused here, not when its latents have taken the place of the old ones.
    device = training.choose_device(asked)
    size = training.activation_bytes(asked, device)
    args = training.planned(asked, device, needs(job.config, asked.ema > 0, size), say)
    own_settings = {
        "validate_count": 0 if job.val else args.validate_count or 0,
        "drop": args.drop,
        "zero_init": args.zero_init,
    }
    training.check_newest(args, device, own_settings)
    for remark in job.remarks:
        say(remark)

    # What is trained on, the network, and what is validated on.
    examples, held_out = job.examples, job.val
    if not job.val:
        examples, held_out = training.hold_out(args, job.examples)
    autoencoder = loaded_autoencoder(job.autoencoder, job.ae_weights)
    cache = Path(args.cache or Path(args.output) / LATENTS)
    latents = _latents(args, job, autoencoder, examples, cache)
    shards = training.batch_shards(args)
    batches = LatentBatches(latents.z, latents.labels, shards, args.seed, args.drop)
    network = trained_network(args, job.config)

    training.train(
        args,
        say,
        device,
        result="unet",
        networks=[network],
        config=job.config,
        settings={**own_settings, **_settings_of_data(job), "data": latents.digest},
        batches=batches,
        examples=len(latents),
        validated=len(held_out),
        preview=Preview(
            network.module, autoencoder, latents, examples, job.classes, args.seed, args.fit
        ),
        validate=_validation(args, job, autoencoder, network, held_out),
    )


def _settings_of_data(job: Job) -> Dict[str, object]:
    """How the data are read and encoded, for the settings of the run."""
    return {
        "autoencoder": job.ae_weights.digest,
        "class_set": job.classes.name,
        "classes": list(job.classes.file_ids or range(len(job.classes))),
    }


def _validation(args: argparse.Namespace, job: Job, autoencoder, network, held_out):
    """The loss on the examples that are not trained on, None where there are none."""
    from jseg.ldm.validation import unet_validation
    from jseg.training.run_folder import HELD_OUT_LATENTS

    if not held_out:
        return None
    folder = Path(args.output) / HELD_OUT_LATENTS
    latents = _latents(args, job, autoencoder, held_out, folder)
    return unet_validation(network.module, network.loss, latents, args.seed)


def _latents(args: argparse.Namespace, job: Job, autoencoder, examples, folder: Path):
    """The latents of the examples, out of their cache or made now."""
    from jseg.ldm.unet_training import cached_latents

    digest = job.ae_weights.digest
    return cached_latents(args, job.config, autoencoder, digest, examples, job.classes, folder, say)


if __name__ == "__main__":
    sys.exit(cli.run(main))
