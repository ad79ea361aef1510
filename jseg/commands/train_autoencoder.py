"""Train the VQ autoencoder that turns images into latents and back.

L1 and codebook losses from the start, the PatchGAN critic from --critic_start on (VQ-GAN), LPIPS if
its weights are given. A folder INPUT/imgs (or INPUT/images, or INPUT itself) of images of any
size is enough; label maps are not looked at. Stop it with Ctrl-C, give the same command again and
it goes on.

Examples:
  python scripts/train_autoencoder.py --input_path data/train --output runs/autoencoder
  python scripts/train_autoencoder.py --input_path data/train --preset landscape --width 128 --height 96 --steps 3000 --critic_start 2000
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

SHOWN = 8
FIRST_IMAGES = 16  # that the codebook starts from
MEASURED_IMAGES = 256  # that the latents' spread is measured on


def parser():
    p = cli.make_parser("train_autoencoder", __doc__)
    p.add_argument(
        "--input_path", required=True, help="folder with the images, in imgs/ or directly"
    )
    cli.add_training_options(
        p,
        "runs/autoencoder",
        steps=400_000,
        batch_size=4,
        learning_rate=1.8e-5,
        ema=0.0,
        interval=5_000,
    )
    p.add_argument(
        "--preset",
        default="release",
        help="network: release (VQ-f4), landscape (the shipped one), small, tiny (default release)",
    )
    p.add_argument(
        "--width", type=int, default=256, help="images are scaled to cover this (default 256)"
    )
    p.add_argument("--height", type=int, default=256, help="and this (default 256)")
    p.add_argument(
        "--crop",
        type=int,
        help="side of the square crops that are trained on (default: crops of --width x --height)",
    )
    p.add_argument(
        "--decoder_only",
        action="store_true",
        help="leave encoder and codebook as they are: latents stay, so a UNet trained on them "
        "keeps its autoencoder",
    )
    p.add_argument(
        "--restart_codebook",
        action="store_true",
        help="with --model_path: whiten its latents again and refill its codebook, where training "
        "has flattened them",
    )
    p.add_argument(
        "--commitment_weight",
        type=float,
        default=1.0,
        help="pull of latents to their entries (default 1, as vq-f4's)",
    )
    p.add_argument(
        "--codebook_weight",
        type=float,
        default=0.25,
        help="pull of entries to their latents (default 0.25, as vq-f4's)",
    )
    p.add_argument(
        "--critic_start",
        type=int,
        default=50_000,
        help="step at which the critic begins; -1: never (default 50000)",
    )
    p.add_argument(
        "--critic_weight",
        type=float,
        default=0.75,
        help="of the critic's term, before the adaptive weight (default 0.75)",
    )
    p.add_argument(
        "--critic_channels", type=int, default=64, help="width of the critic (default 64)"
    )
    p.add_argument(
        "--lpips_path",
        nargs="+",
        metavar="FILE",
        help="VGG16 LPIPS weights, yours to bring: one file, or the heads and torchvision's "
        "vgg16; without them there is no perceptual term",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check the images, then train; 0 also when stopped by a signal with everything saved."""
    args = parser().parse_args(argv)
    args.given = cli.options_given(parser(), argv)
    cli.check_training_options(args)
    if args.decoder_only and not args.model_path:
        raise ValueError(
            "--decoder_only trains the decoder of a given autoencoder; give its weights as "
            "--model_path"
        )
    from jseg.ldm.presets import AUTOENCODERS

    if args.preset not in AUTOENCODERS:
        raise ValueError(
            f"--preset {args.preset} is unknown; expected one of {', '.join(AUTOENCODERS)}"
        )
    config = AUTOENCODERS[args.preset]
    factor = config.downsampling
    crop = (args.crop, args.crop) if args.crop else (args.width, args.height)
    sides = (args.width, args.height) + crop
    if (
        min(crop) < 4 * factor
        or any(side % factor for side in sides)
        or crop[0] > args.width
        or crop[1] > args.height
    ):
        raise ValueError(
            f"--width {args.width} --height {args.height} --crop {args.crop}: expected multiples "
            f"of {factor} of at least {4 * factor}, the crop no larger than the image"
        )
    from jseg.data.examples import check_images
    from jseg.data.image_folder import find_images
    from jseg.training.records import run_folder

    inputs = {
        "input_path": args.input_path,
        "model_path": args.model_path,
        "lpips_path": args.lpips_path,
    }
    with run_folder(args.output, "autoencoder", inputs, cli.speaks()):
        examples, notes = find_images(args.input_path)
        if cli.speaks():
            examples, remarks = check_images(examples)
            notes += remarks
        for note in notes:
            _tell(note)
        _train(args, config, examples)
    return 0


def _train(args, config, examples) -> None:
    from jseg import runtime
    from jseg.ldm.dataset import BatchShards, ImageBatches
    from jseg.training import distributed
    from jseg.training.memory import check_batch
    from jseg.training.run import Plan, TrainingRun

    device = runtime.device(args.device)
    steps = cli.steps_asked(args, len(examples))
    division = BatchShards.of(args, distributed.rank(), distributed.world_size())
    batches = ImageBatches(
        [example.image for example in examples],
        (args.width, args.height),
        (args.crop, args.crop) if args.crop else (args.width, args.height),
        division,
        args.seed,
    )
    parts = _parts(args, config, batches)
    run = TrainingRun(
        args.output,
        parts,
        config,
        _settings(args, examples),
        Plan.of(args, steps),
        "autoencoder",
        _tell,
        args.given,
    )
    start = run.resume(args.resume)
    if start < steps:
        check_batch(
            parts[0],
            lambda count: {**batches.first(count), "step": max(args.critic_start, 0)},
            division.micro_batch,
        )
    _tell(
        f"{len(examples)} images, {parts[0].size:,} parameters, "
        f"{cli.steps_told(start, steps, args.batch_size)} on {device}, {division.world} "
        f"process(es), into {args.output}"
    )
    run.follow(
        batches,
        start,
        lambda path: _preview(path, parts[0].module, batches),
        None if args.decoder_only else lambda: _standardize(parts[0].module, batches),
    )


def _parts(args, config, batches):
    import numpy as np

    from jseg import runtime
    from jseg.checkpoint import load_into
    from jseg.images import to_signed
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.discriminator import Discriminator
    from jseg.ldm.vqgan_loss import autoencoder_loss, discriminator_loss
    from jseg.ldm.whitening import restart_codebook, start_codebook
    from jseg.noise import generator
    from jseg.training.loop import TrainedNetwork
    from jseg.training.optimizer import EMA, AdamW, trainable

    runtime.seed(args.seed)
    autoencoder = Autoencoder(config)
    if args.model_path:
        load_into(autoencoder, args.model_path)
    if args.restart_codebook or not args.model_path:
        rng = generator(args.seed, "codebook")
        first = rng.integers(len(batches.paths), size=FIRST_IMAGES)
        start = restart_codebook if args.model_path else start_codebook
        start(
            autoencoder,
            np.stack([to_signed(batches.image(index, rng, batches.size)) for index in first]),
            args.seed,
        )
    lpips = None
    if args.lpips_path:
        from jseg.ldm.lpips import load_lpips

        lpips = load_lpips(*args.lpips_path)
    critic = Discriminator(args.critic_channels) if args.critic_start >= 0 else None
    parameters = {
        name: value
        for name, value in trainable(autoencoder).items()
        if not args.decoder_only or name.startswith(("decoder.", "post_quant_conv."))
    }
    loss = autoencoder_loss(
        autoencoder,
        critic,
        lpips,
        commitment=args.commitment_weight,
        codebook=args.codebook_weight,
        adversarial=args.critic_weight,
        discriminator_start=args.critic_start,
    )
    parts = [
        TrainedNetwork(
            "",
            autoencoder,
            loss,
            AdamW(parameters, args.learning_rate, weight_decay=args.weight_decay, betas=(0.5, 0.9)),
            EMA(parameters, args.ema) if args.ema else None,
        )
    ]
    if critic is not None:
        parts.append(
            TrainedNetwork(
                "critic",
                critic,
                discriminator_loss(autoencoder, critic),
                AdamW(trainable(critic), args.learning_rate, betas=(0.5, 0.9)),
                start_step=args.critic_start,
            )
        )
    return parts


def _settings(args, examples) -> dict:
    """Everything that the numbers of a step depend on."""
    from jseg.checkpoint import weights_sha256
    from jseg.files import sha256

    names = (
        "preset",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "ema",
        "seed",
        "width",
        "height",
        "crop",
        "critic_start",
        "critic_weight",
        "critic_channels",
        "commitment_weight",
        "codebook_weight",
    )
    given = {name: True for name in ("decoder_only", "restart_codebook") if getattr(args, name)}
    if args.model_path:
        given["model_path"] = weights_sha256(args.model_path)
    if args.lpips_path:
        given["lpips_path"] = [weights_sha256(path) for path in args.lpips_path]
    named = [
        example.image.name + (example.image_sha256 or sha256(example.image)) for example in examples
    ]
    images = hashlib.sha256("".join(named).encode("utf-8", "surrogateescape")).hexdigest()
    return {**{name: getattr(args, name) for name in names}, **given, "pictures": images}


def _standardize(autoencoder, batches) -> None:
    """Unit variance for the latents of the result, without changing what it reconstructs."""
    import numpy as np

    from jseg.images import to_signed
    from jseg.ldm.whitening import standardize_latents
    from jseg.noise import generator

    chosen = np.linspace(
        0, len(batches.paths) - 1, min(MEASURED_IMAGES, len(batches.paths))
    ).astype(int)
    images = [
        to_signed(batches.image(index, generator(batches.seed, "scale", index), batches.size))
        for index in chosen
    ]
    _tell(
        f"the latents' spread was {standardize_latents(autoencoder, np.stack(images)):.3f}; it "
        "is 1 in the result"
    )


def _preview(path: Path, autoencoder, batches) -> None:
    import numpy as np

    from jseg.contact_sheet import contact_sheet
    from jseg.images import from_signed, save_image, to_signed
    from jseg.noise import generator
    from jseg.runtime import jt

    chosen = np.linspace(0, len(batches.paths) - 1, min(SHOWN, len(batches.paths))).astype(int)
    images = [
        batches.image(index, generator(batches.seed, "preview", index), batches.size)
        for index in chosen
    ]
    rows = []
    for image in images:
        with jt.no_grad():
            made = autoencoder.decode(autoencoder.encode(jt.array(to_signed(image)[None]))).numpy()[
                0
            ]
        rows.append([image, from_signed(made)])
    save_image(
        path,
        contact_sheet(
            rows, ["image", "reconstruction"], [batches.paths[index].stem for index in chosen]
        ),
    )


def _tell(message: str) -> None:
    if cli.speaks():
        print(f"jseg train_autoencoder: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
