"""What the commands share: the list of them, a parser built from a docstring, and errors as one
line and exit code 2.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import os
import sys
import traceback
from typing import Callable, Dict, FrozenSet, List, NoReturn, Optional

from jseg.machine import out_of_memory, streams
from jseg.machine.facts import RuntimeProblem

FOLDER = os.path.dirname(os.path.abspath(__file__))


class _Once(argparse._StoreAction):
    """An option's value; another one for the same option is an error, since one of both would be
    forgotten without a word.

    So is an empty one, which a shell makes of a variable that is not set.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        if values != self.const and "" in (values if isinstance(values, list) else [values]):
            parser.error(
                f"{option_string or self.dest} is given an empty value; give one, or leave the "
                "option out"
            )
        known = parser.given.setdefault(self.dest, values)
        one, other = (
            " ".join(map(str, value)) if isinstance(value, list) else str(value)
            for value in (known, values)
        )
        if one != other:
            parser.error(
                f"{option_string or self.dest} is given twice ({one} and {other}); give one"
            )
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument gets one line instead of the whole usage, and so does an
    option with two values.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.given: Dict[str, object] = {}
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args=None, namespace=None):
        self.given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def commands() -> Dict[str, str]:
    """Each command's name and first docstring line, read without importing it."""
    found = {}
    for file in sorted(os.listdir(FOLDER)):
        name, suffix = os.path.splitext(file)
        if suffix == ".py" and name not in ("__init__", "cli"):
            with open(os.path.join(FOLDER, file), encoding="utf-8") as source:
                found[name] = (ast.get_docstring(ast.parse(source.read())) or "").partition("\n")[0]
    return found


def make_parser(name: str, docstring: str) -> argparse.ArgumentParser:
    """A parser whose description is the docstring's first paragraph and whose epilogue is the rest
    (the examples).
    """
    summary, _, rest = (docstring or "").strip().partition("\n\n")
    return Parser(
        prog=f"jseg {name}",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_training_options(
    p: argparse.ArgumentParser,
    output: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    ema: float,
    interval: int,
) -> None:
    """The options that every training command has, with its defaults."""
    p.add_argument(
        "--output",
        default=output,
        metavar="DIR",
        help=f"folder of the run: checkpoints, log, curve, previews (default {output})",
    )
    p.add_argument(
        "--steps", type=int, default=None, help=f"optimisation steps in all (default {steps})"
    )
    p.add_argument("--epochs", type=float, help="instead of --steps: passes over the data")
    p.add_argument(
        "--batch_size",
        type=int,
        default=batch_size,
        help=f"global batch, over all processes (default {batch_size})",
    )
    p.add_argument(
        "--micro_batch",
        type=int,
        help="examples a process computes at a time (default: its share of the batch); "
        "less needs less memory and gives the same update",
    )
    p.add_argument(
        "--learning_rate", type=float, default=learning_rate, help=f"default {learning_rate}"
    )
    p.add_argument("--weight_decay", type=float, default=0.0, help="of AdamW (default 0)")
    p.add_argument(
        "--ema",
        type=float,
        default=ema,
        metavar="RATE",
        help=f"rate of the moving average; 0: none (default {ema})",
    )
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first weights, the order and every draw (default 0)",
    )
    p.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FILE",
        help="auto: go on from the newest checkpoint in --output if there is one (default); never; "
        "or a checkpoint file",
    )
    p.add_argument("--model_path", help="start from the weights in this file instead of new ones")
    p.add_argument(
        "--save_interval",
        type=int,
        default=interval,
        help=f"steps between checkpoints (default {interval})",
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
        "--skip_bad_steps",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N steps in all whose loss is no finite "
        "number, and count them in the log (default 0: the training is saved and ends)",
    )
    p.add_argument(
        "--precision",
        default="float32",
        choices=("float32",),
        help="float32 only: Jittor's half precision sums convolutions in half precision on CUDA "
        "and has no fast path on the CPU",
    )
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.set_defaults(default_steps=steps)


def check_training_options(args: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that cannot be meant."""
    for name, value in vars(args).items():
        if any(
            isinstance(one, float) and not math.isfinite(one)
            for one in (value if isinstance(value, (list, tuple)) else [value])
        ):
            given = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else f"is {value}"
            raise ValueError(f"--{name} {given}; expected finite numbers")
    for name, least in (
        ("steps", 1),
        ("skip_bad_steps", 0),
        ("batch_size", 1),
        ("micro_batch", 1),
        ("seed", 0),
        ("save_interval", 1),
        ("keep", 0),
        ("preview_interval", 0),
        ("log_interval", 1),
    ):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; expected {least} or more")
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
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise ValueError(
            f"--output {args.output} is a file; expected a folder, which is created if missing"
        )
    if args.model_path and not (os.path.isfile(args.model_path) or os.path.isdir(args.model_path)):
        raise ValueError(
            f"--model_path {args.model_path} {no_file(args.model_path)}; expected a file of weights"
        )
    if args.resume not in ("auto", "never") and not os.path.isfile(args.resume):
        remedy = "give auto, never or the file of a checkpoint"
        if os.path.isdir(args.resume):
            remedy = f"give a checkpoint in it, or --output {args.resume} --resume auto"
        raise ValueError(f"--resume {args.resume or repr('')} {no_file(args.resume)}; {remedy}")


def no_file(path: str) -> str:
    """Why there is no file to be read at `path`, as the predicate of a message."""
    if os.path.isdir(path):
        return "is a folder"
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "is no plain file" if os.path.exists(path) else "does not exist"


def steps_asked(args: argparse.Namespace, examples: int) -> int:
    """--steps, or --epochs in steps, or the command's default."""
    if args.epochs is not None:
        return max(1, round(args.epochs * examples / args.batch_size))
    return args.default_steps if args.steps is None else args.steps


def steps_told(start: int, steps: int, batch_size: int) -> str:
    """What of the training is ahead, for its first line."""
    return (
        f"steps {start} to {steps} of {batch_size}"
        if start < steps
        else f"{start} steps done, {steps} asked for"
    )


def options_given(p: argparse.ArgumentParser, argv: Optional[List[str]]) -> FrozenSet[str]:
    """The names of the options that stand on the command line itself; `p` is a parser of its own
    for this, whose defaults go.
    """
    for action in p._actions:
        action.default = argparse.SUPPRESS
    p._defaults.clear()
    return frozenset(vars(p.parse_args(argv))) | (
        frozenset(("steps",)) if "--epochs" in (argv or sys.argv[1:]) else frozenset()
    )


def speaks() -> bool:
    """Whether this process is the one that talks: the only one, or the first under mpirun."""
    return os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0"


def run(
    main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None
) -> int:
    """Call a command's `main(argv)` and return its exit code; an error a user can cause becomes
    `jseg NAME: ...` on stderr and 2.

    Ctrl-C gives 130, a reader of standard output that is gone 141. Standard error that cannot be
    written changes nothing (`streams`). With JSEG_TRACEBACK=1 in the environment, errors are raised
    instead.
    """
    with streams.guard():
        try:
            code = _called(main, argv)
        except BaseException:
            if not _others_wait():
                raise
            traceback.print_exc()
            code = 1
        if code and _others_wait():
            # A normal exit would wait for the others, which wait for this process in a sum; mpirun
            # ends them all when one is gone.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code


def _others_wait() -> bool:
    """Whether Jittor runs in several processes."""
    return getattr(sys.modules.get("jittor"), "world_size", 1) > 1


def _called(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]]) -> int:
    name = main.__module__.rpartition(".")[2]
    if name == "__main__":
        name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    out_of_memory.begin(name, sys.modules.get(main.__module__), argv)
    try:
        try:
            code = main(argv) or 0
        except SystemExit:  # --help, whose reader may be gone: noticed here, it is quiet
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say(name, "interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has had enough
        return 141
    except Exception as error:
        if os.environ.get("JSEG_TRACEBACK") == "1":
            raise
        if out_of_memory.is_shortage(error):
            print(out_of_memory.line_for(error), file=sys.stderr)
            return 2
        ours = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("jseg")
        if ours or not isinstance(
            error, (RuntimeProblem, ValueError, OSError, ModuleNotFoundError)
        ):
            raise
        _say(name, _one_line(error))
        return 2


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error.name} is not installed for {sys.executable}: run `make venv` and use "
            ".venv/bin/python, or pip install -e ."
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _say(name: str, message: str) -> None:
    print(f"jseg {name}: {message}", file=sys.stderr)
