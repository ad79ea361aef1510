"""The options that the training commands share, and their checks; no command itself.

What one training can be asked for, all can: whoever adds an option for all adds it here.
"""

from __future__ import annotations

import argparse
import math
import os
from typing import List, Mapping, Optional

from jseg.commands import cli
from jseg.machine.facts import cores
from jseg.outputs.places import check_folder

DEFAULTS = ("steps", "batch_size", "learning_rate", "ema", "save_interval", "warmup", "decay")
LEAST = {
    "steps": 1,
    "warmup": 0,
    "skip_bad_steps": 0,
    "batch_size": 1,
    "micro_batch": 1,
    "num_workers": 0,
    "seed": 0,
    "save_interval": 1,
    "keep": 0,
    "preview_interval": 0,
    "log_interval": 1,
    "validate_interval": 0,
    "validate_count": 0,
}
WORKERS_PER_CORE = 8
LAYOUTS = ("folders", "ade20k", "coco_stuff", "camvid", "landscape")


def add_options(
    p: argparse.ArgumentParser,
    output: str,
    defaults: Optional[Mapping[str, object]],
    validate_count: str,
) -> None:
    """Add the options that every training has.

    defaults: {name: value} for all of DEFAULTS; None where they depend on --preset, which the
    command then fills in with `with_defaults`. validate_count: the help of that option.
    """
    values = defaults or {}

    def default(name: str) -> str:
        return f"default {values[name]}" if values else "default: the preset's"

    # Where to, and how long.
    p.add_argument(
        "--output",
        default=output,
        metavar="DIR",
        help=f"folder of the run: checkpoints, log, curve, previews (default {output})",
    )
    p.add_argument("--steps", type=int, help=f"optimisation steps in all ({default('steps')})")
    p.add_argument("--epochs", type=float, help="instead of --steps: passes over the data")
    p.add_argument("--model_path", help="start from the weights in this file instead of new ones")
    p.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FILE",
        help="auto: go on from the newest checkpoint in --output if there is one (default); never; "
        "or a checkpoint file",
    )

    # The batch.
    p.add_argument(
        "--batch_size",
        type=int,
        default=values.get("batch_size"),
        help=f"global batch, over all processes ({default('batch_size')})",
    )
    p.add_argument(
        "--micro_batch",
        type=int,
        help="examples a process computes at a time (default: its part of the batch, on a GPU what "
        "fits of it); less needs less memory and gives the same update",
    )
    p.add_argument(
        "--num_workers",
        type=int,
        metavar="N",
        help="processes that read and crop images ahead of each training process; no number "
        "depends on it (default: on a GPU one for each core but one, 8 at most; on the CPU 1; 0: "
        "the training itself reads them)",
    )
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first weights, the order and every draw (default 0)",
    )
    p.add_argument(
        "--trust_data",
        action="store_true",
        help="do not read every file before the training; a problem ends it when it is met",
    )

    # The optimiser.
    p.add_argument(
        "--learning_rate",
        type=float,
        default=values.get("learning_rate"),
        help=f"of AdamW ({default('learning_rate')})",
    )
    p.add_argument(
        "--warmup",
        type=int,
        default=values.get("warmup"),
        metavar="STEPS",
        help=f"over which the learning rate rises to its value ({default('warmup')})",
    )
    p.add_argument(
        "--decay",
        choices=("none", "linear"),
        default=values.get("decay"),
        help="of the learning rate: linear falls to 0 at --steps, which may then change only on "
        f"purpose ({default('decay')})",
    )
    p.add_argument("--weight_decay", type=float, default=0.0, help="of AdamW (default 0)")
    p.add_argument(
        "--ema",
        type=float,
        default=values.get("ema"),
        metavar="RATE",
        help=f"rate of the moving average; 0: none ({default('ema')})",
    )
    p.add_argument(
        "--skip_bad_steps",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N steps in all whose loss is no finite number, and count them in the "
        "log (default 0: the training is saved and ends)",
    )

    # What is written, and how often.
    p.add_argument(
        "--save_interval",
        type=int,
        default=values.get("save_interval"),
        help=f"steps between checkpoints ({default('save_interval')})",
    )
    p.add_argument(
        "--keep", type=int, default=3, help="checkpoints that stay; 0 keeps all (default 3)"
    )
    p.add_argument(
        "--preview_interval",
        type=int,
        help="steps between previews; 0: none (default: as --save_interval)",
    )
    p.add_argument(
        "--log_interval",
        type=int,
        default=10,
        help="steps that one row of log.csv is the mean of (default 10)",
    )
    p.add_argument(
        "--validate_interval",
        type=int,
        help="steps between validations; 0: at the end alone (default: as --save_interval)",
    )
    p.add_argument("--validate_count", type=int, metavar="N", help=validate_count)
    cli.add_device(p)
    p.set_defaults(default_steps=values.get("steps"))


def add_data_options(p: argparse.ArgumentParser) -> None:
    """Add the options of the trainings that read label maps."""
    cli.add_label_options(p, ", such as 255")
    either = p.add_mutually_exclusive_group()
    either.add_argument(
        "--recompute",
        action="store_true",
        default=None,
        help="compute blocks again in the backward pass: less memory, same update (default: on a "
        "GPU where its memory asks for it, else not)",
    )
    either.add_argument(
        "--no_recompute", dest="recompute", action="store_false", default=None, help="do not"
    )


def parse(p: cli.Parser, argv: Optional[List[str]]) -> argparse.Namespace:
    """The options, and as `given` the names of those on the command line."""
    args, unknown = p.parse_known_args(argv)
    if unknown:
        p.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.given = frozenset(p.given) | frozenset({"steps"} if "epochs" in p.given else ())
    return args


def with_values(args: argparse.Namespace, values: Mapping[str, object]) -> argparse.Namespace:
    """The options with these values in place of what was given."""
    return argparse.Namespace(**{**vars(args), **values})


def with_defaults(args: argparse.Namespace, defaults: Mapping[str, object]) -> argparse.Namespace:
    """The options with `defaults` for those that are not given."""
    missing = {name: value for name, value in defaults.items() if getattr(args, name) is None}
    return with_values(args, missing)


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError naming the first shared option that cannot be meant."""
    for name, value in vars(args).items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            said = " ".join(map(str, value)) if numbers is value else f"is {value}"
            raise ValueError(f"--{name} {said}; expected finite numbers")

    # One range each, then the options that have more to them.
    cli.at_least(args, LEAST)
    most = WORKERS_PER_CORE * cores()
    if (args.num_workers or 0) > most:
        raise ValueError(
            f"--num_workers is {args.num_workers}; expected {most} at most, {WORKERS_PER_CORE} a "
            "core: each is a process that holds the batch of a step"
        )
    if args.steps is not None and args.epochs is not None:
        raise ValueError("--steps and --epochs are both given; give one")
    if args.epochs is not None and not args.epochs > 0:
        raise ValueError(f"--epochs is {args.epochs}; expected more than 0")
    if not 0 < args.learning_rate < 1:
        raise ValueError(
            f"--learning_rate is {args.learning_rate}; expected more than 0 and less than 1, such "
            "as 1e-4"
        )
    if not 0 <= args.ema < 1 or args.weight_decay < 0:
        raise ValueError(
            f"--ema is {args.ema}, --weight_decay {args.weight_decay}; expected 0 to below 1, and "
            "0 or more"
        )
    _check_paths(args)


def _check_paths(args: argparse.Namespace) -> None:
    check_folder(args.output, "--output")
    if args.model_path and not (os.path.isfile(args.model_path) or os.path.isdir(args.model_path)):
        raise ValueError(
            f"--model_path {args.model_path} {cli.no_file(args.model_path)}; expected a file of "
            "weights"
        )
    if args.resume not in ("auto", "never") and not os.path.isfile(args.resume):
        remedy = "give auto, never or the file of a checkpoint"
        if os.path.isdir(args.resume):
            remedy = f"give a checkpoint in it, or --output {args.resume} --resume auto"
        raise ValueError(f"--resume {args.resume or repr('')} {cli.no_file(args.resume)}; {remedy}")


def check_preset(args: argparse.Namespace, presets: Mapping[str, object]) -> None:
    """Raise ValueError for an unknown --preset."""
    if args.preset not in presets:
        raise ValueError(f"--preset {args.preset} is unknown; expected one of {', '.join(presets)}")
