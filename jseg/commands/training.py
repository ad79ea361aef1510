"""What the training commands share beside their options: who checks the data, the settings that a
checkpoint remembers, and the run itself; no command itself.

A training command opens its data and builds its networks; everything else is here.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from jseg.commands import cli
from jseg.commands import training_options as options
from jseg.counting import counted

SETTINGS = ("batch_size", "learning_rate", "weight_decay", "ema", "seed", "warmup", "decay")
SLOW_CHECK = 2000  # examples whose check takes a while, which is then said


def processes() -> int:
    """The number of processes that mpirun started, also before Jittor is there."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)


def reads_first(args: argparse.Namespace, examples: int, say: Callable[[str], None]) -> bool:
    """Whether this process reads every file before the training: process 0 does, for all.

    Where that takes a while, it says so.
    """
    if args.trust_data or not cli.speaks():
        return False
    if examples >= SLOW_CHECK:
        say(f"reading all {examples} examples, to check them (--trust_data: not)")
    return True


def check_hold_out(args: argparse.Namespace, examples: int) -> None:
    """Raise ValueError if `hold_out` would leave nothing to train on, or has nothing to do."""
    if args.validate_interval and not args.validate_count:
        raise ValueError(
            f"--validate_interval is {args.validate_interval} and nothing is held out to validate "
            "on; give --validate_count too"
        )
    if (args.validate_count or 0) >= examples:
        raise ValueError(
            f"--validate_count is {args.validate_count}; expected fewer than {examples}, the "
            "number of examples"
        )


def hold_out(args: argparse.Namespace, examples: Sequence) -> Tuple[List, List]:
    """(the examples to train on, the --validate_count ones, evenly chosen, to validate on)."""
    chosen = {example.stem for example in evenly_chosen(examples, args.validate_count or 0)}
    trained = [example for example in examples if example.stem not in chosen]
    return trained, [example for example in examples if example.stem in chosen]


def evenly_chosen(examples: Sequence, number: Optional[int]) -> List:
    """At most `number` of the examples, evenly chosen; None: all."""
    from jseg.training.sampling import evenly

    return [examples[place] for place in evenly(len(examples), number)]


def total_steps(args: argparse.Namespace, examples: int) -> int:
    """--steps, or --epochs in steps, or the default."""
    if args.epochs is not None:
        return max(1, round(args.epochs * examples / args.batch_size))
    return args.default_steps if args.steps is None else args.steps


def shared_settings(args: argparse.Namespace, steps: int) -> Dict[str, object]:
    """Everything among the shared options that the numbers of a step depend on."""
    from jseg.checkpoint import describe

    values = {name: getattr(args, name) for name in SETTINGS}
    if args.decay == "linear":
        values["steps"] = steps
    if args.model_path:
        values["model_path"] = describe(args.model_path, sha256=True).sha256
    return values


def check_newest(args: argparse.Namespace, device: str, settings: Mapping[str, object]) -> None:
    """Raise CheckpointError where the run in --output cannot go on with these settings and the
    precision on that device.

    settings: others that are known before the data are prepared. `train` compares all of them.
    """
    from jseg.nn import precision
    from jseg.training.changes import check_changes
    from jseg.training.records import checkpoints, record

    folder = Path(args.output)
    saved = checkpoints(folder) if args.resume == "auto" and folder.is_dir() else []
    earlier = record(saved[-1]).get("settings", {}) if saved else {}
    if earlier:
        asked = {**settings, "precision": precision.chosen(args.precision, device)}
        stored = {name: earlier[name] for name in asked if name in earlier}
        check_changes(saved[-1], stored, asked, args.given)


def choose_device(args: argparse.Namespace) -> str:
    """The device. Raises ValueError for a --precision that it does not have."""
    from jseg import runtime
    from jseg.nn import precision

    device = runtime.device(args.device)
    precision.chosen(args.precision, device)
    return device


def activation_bytes(args: argparse.Namespace, device: str) -> int:
    """Of a value in the chosen precision."""
    from jseg.nn import precision

    return precision.PRECISIONS[precision.chosen(args.precision, device)].bytes


def planned(
    args: argparse.Namespace, device: str, needs: Tuple, say: Callable[[str], None]
) -> argparse.Namespace:
    """The options with --micro_batch and --recompute where they are not given: on CUDA by the free
    memory, told in one line; elsewhere everything at once and kept.

    needs: (without, with recompute), each a `jseg.training.memory_plan.Need`. Raises ValueError
    where not even one example fits.
    """
    from jseg.machine.free_memory import gpu_memory
    from jseg.training.memory_plan import choose

    memory = gpu_memory() if device == "cuda" else None
    if memory is None:
        return options.with_values(args, {"recompute": bool(args.recompute)})
    part = max(1, -(-args.batch_size // processes()))
    plan = choose(part, memory, *needs, args.micro_batch, args.recompute)
    if args.micro_batch is None or args.recompute is None:
        say(plan.line(memory, part))
    values = {"micro_batch": plan.micro_batch, "recompute": plan.recompute}
    return options.with_values(args, {**values, "planned": args.micro_batch is None})


def train(
    args: argparse.Namespace,
    say: Callable[[str], None],
    device: str,
    *,
    result: str,
    networks: Sequence,
    config,
    settings: Mapping[str, object],
    batches,
    examples: int,
    validated: int,
    about: str = "",
    first_batch: Optional[Callable] = None,
    **hooks,
) -> None:
    """Resume the run in --output or begin it, and follow it to its end.

    result: name of the file of weights that comes out. settings: what the command adds to
    `shared_settings`. batches, examples: what a step takes, out of how many. validated: examples to
    validate on. about: more of the data for the line that says what begins. first_batch(count): a
    micro-batch, to see whether it fits into memory. hooks: `preview`, `finish` and `validate` of
    `TrainingRun.follow`.
    """
    from jseg.nn import precision
    from jseg.training.loader import default_workers
    from jseg.training.loss_scale import LossScale
    from jseg.training.optimizer import rates
    from jseg.training.run import Plan, TrainingRun

    steps, shards = total_steps(args, examples), batch_shards(args)
    kind = precision.chosen(args.precision, device)
    all_settings = {**shared_settings(args, steps), **settings, "precision": kind}
    for network in networks:
        network.loss_scale = LossScale() if kind == "fp16" else None
    plan = Plan.of(args, steps, default_workers(device))
    run = TrainingRun(args.output, networks, config, all_settings, plan, result, say, args.given)

    # Memory is asked about where a step is ahead, and what is ahead is said in one line.
    start = run.resume(args.resume)
    if device == "cuda":
        say(cli.precision_line(kind))
    ahead = f"{start} steps done, {steps} asked for"
    if start < steps:
        with precision.computing_in(kind):
            _fit(args, say, device, networks[0], batches, first_batch or batches.first)
        ahead = f"steps {start} to {steps} in batches of {args.batch_size}"
    data = [counted(examples, "example[s]"), f"{validated} to validate on", about]
    say(
        f"{', '.join(filter(None, data))}, {networks[0].size:,} parameters, {ahead} on {device}, "
        f"{counted(shards.world, 'process[es]')}, into {args.output}"
    )

    decay = steps if args.decay == "linear" else 0
    rate = rates(args.learning_rate, args.warmup, decay)
    with precision.computing_in(kind):
        run.follow(batches, start, learning_rate=rate, **hooks)


def _fit(args: argparse.Namespace, say, device: str, network, batches, examples) -> None:
    """See by measurement that a micro-batch fits. On CUDA one that was chosen is made smaller, and
    one that was given is taken as it is; else raises ValueError where it does not fit.
    """
    from jseg.training.memory import check_batch, fitting_batch

    size = batch_shards(args).micro_batch
    if not getattr(args, "planned", False):
        if device != "cuda" or args.micro_batch is None:
            check_batch(network, examples, size)
        return
    fits = fitting_batch(network, examples, size)
    if fits < size:
        batches.division = replace(batches.division, micro_batch=fits)
        say(f"measured on the GPU, {fits} examples at a time fit and {size} do not: {fits} it is")


def batch_shards(args: argparse.Namespace):
    """How the batch is cut, for this process."""
    from jseg.training import distributed
    from jseg.training.sampling import BatchShards

    return BatchShards.of(args, distributed.rank(), distributed.world_size())
