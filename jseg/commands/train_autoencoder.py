"""Train the VQ autoencoder that turns images into latents and back.

L1 and codebook losses from the start, the PatchGAN discriminator from --critic_start on (VQ-GAN),
LPIPS if its weights are given. A folder INPUT/imgs (or INPUT/images, or INPUT itself) of images of
any size is enough; label maps are not looked at. Stop it with Ctrl-C, give the same command again
and it goes on. It takes --precision float32 or tf32 alone.

Examples:
  python scripts/train_autoencoder.py --input_path data/train --output runs/autoencoder
  python scripts/train_autoencoder.py --input_path data/train --preset landscape --width 128 \\
      --height 96 --steps 3000 --critic_start 2000
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import List, Optional, Tuple

from jseg.commands import cli, training
from jseg.commands import training_options as options

DEFAULTS = {
    "steps": 400_000,
    "batch_size": 4,
    "learning_rate": 1.8e-5,
    "ema": 0.0,
    "save_interval": 5_000,
    "warmup": 0,
    "decay": "none",
}

say = functools.partial(cli.say, "train_autoencoder")


def parser():
    p = cli.make_parser("train_autoencoder", __doc__)
    p.add_argument(
        "--input_path", required=True, help="folder with the images, in imgs/ or directly"
    )
    options.add_options(
        p,
        "runs/autoencoder",
        DEFAULTS,
        validate_count="images that are held out of the training, evenly chosen, on which the "
        "loss is measured (default 0: none)",
    )

    # The network and the size of what it sees.
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

    # What is trained.
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

    # The terms of the loss.
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
        help="step at which the discriminator begins; -1: never (default 50000)",
    )
    p.add_argument(
        "--critic_weight",
        type=float,
        default=0.75,
        help="of the discriminator's term, before the adaptive weight (default 0.75)",
    )
    p.add_argument(
        "--critic_channels", type=int, default=64, help="width of the discriminator (default 64)"
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
    args = options.parse(parser(), argv)
    options.check_options(args)
    if args.decoder_only and not args.model_path:
        raise ValueError(
            "--decoder_only trains the decoder of a given autoencoder; give its weights as "
            "--model_path"
        )
    if args.precision in ("bf16", "fp16"):
        raise ValueError(
            f"--precision {args.precision}: the adversarial weight is a ratio of small gradients, "
            "which half precision rounds away; expected float32 or tf32"
        )
    from jseg.ldm.presets import AUTOENCODERS

    options.check_preset(args, AUTOENCODERS)
    config = AUTOENCODERS[args.preset]
    _check_size(args, config.downsampling)

    from jseg.data.examples import check_images
    from jseg.data.image_folder import find_images
    from jseg.training.run_folder import run_folder

    inputs = {name: getattr(args, name) for name in ("input_path", "model_path", "lpips_path")}
    with run_folder(args.output, "autoencoder", inputs, cli.speaks()):
        examples, remarks = find_images(args.input_path)
        training.check_hold_out(args, len(examples))
        if training.reads_first(args, len(examples), say):
            examples, more = check_images(examples)
            remarks = remarks + more
        _train(args, config, examples, remarks)
    return 0


def _crop(args: argparse.Namespace) -> Tuple[int, int]:
    """Width and height of what is trained on."""
    return (args.crop, args.crop) if args.crop else (args.width, args.height)


def _check_size(args: argparse.Namespace, factor: int) -> None:
    crop, size = _crop(args), (args.width, args.height)
    given = f" --crop {args.crop}" if args.crop else ""
    fits = crop[0] <= args.width and crop[1] <= args.height
    if min(crop) < 4 * factor or not fits or any(side % factor for side in size + crop):
        raise ValueError(
            f"--width {args.width} --height {args.height}{given}: expected multiples "
            f"of {factor} of at least {4 * factor}, the crop no larger than the image"
        )


def _train(args: argparse.Namespace, config, all_examples, remarks: List[str]) -> None:
    """Train the autoencoder, and its discriminator where it has one."""
    from jseg.ldm import autoencoder_training as parts
    from jseg.ldm.validation import autoencoder_validation

    device = training.choose_device(args)
    held_back = {"validate_count": args.validate_count or 0}
    training.check_newest(args, device, held_back)
    for remark in remarks:
        say(remark)

    # Crops to train on, the networks, crops to validate on.
    examples, held_out = training.hold_out(args, all_examples)
    batches, validate = _batches(args, examples), None
    networks, plain_loss = parts.trained_networks(args, config, batches)
    autoencoder = networks[0].module
    if held_out:
        validate = autoencoder_validation(autoencoder, plain_loss, _batches(args, held_out))

    def first_batch(count: int) -> dict:
        # With the discriminator at work, for that needs the most memory.
        return {**batches.first(count), "step": max(args.critic_start, 0)}

    training.train(
        args,
        say,
        device,
        result="autoencoder",
        networks=networks,
        config=config,
        settings={**parts.settings(args, examples), **held_back},
        batches=batches,
        examples=len(examples),
        validated=len(held_out),
        first_batch=first_batch,
        preview=lambda path: parts.write_preview(path, autoencoder, batches),
        finish=None if args.decoder_only else lambda: parts.standardize(autoencoder, batches),
        validate=validate,
    )


def _batches(args: argparse.Namespace, examples):
    """The crops of these images, in the batches that `args` ask for."""
    from jseg.ldm.dataset import ImageBatches

    paths, size = [example.image for example in examples], (args.width, args.height)
    return ImageBatches(paths, size, _crop(args), training.batch_shards(args), args.seed)


if __name__ == "__main__":
    sys.exit(cli.run(main))
