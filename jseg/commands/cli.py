"""What the commands share: the list of them, a parser built from a docstring, one voice on standard
error, and errors as one line and exit code 2.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import os
import sys
import time
import traceback
from typing import Callable, Dict, List, Mapping, NoReturn, Optional, Tuple

from jseg.machine import out_of_memory, streams
from jseg.machine.facts import RuntimeProblem
from jseg.machine.jittor_flags import EXACT

FOLDER = os.path.dirname(os.path.abspath(__file__))
NO_COMMANDS = ("__init__", "cli", "training", "training_options")  # files in that folder
# Seconds in which the first process of several has said what fails on all, and mpirun ended them.
FIRST_SPEAKS = 10.0


class _Once(argparse._StoreAction):
    """The value of an option, which may be given once.

    Of two values one would be forgotten without a word. An empty one, which a shell makes of a
    variable that is not set, is an error as well.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        name = option_string or self.dest
        if values != self.const and "" in (values if isinstance(values, list) else [values]):
            parser.error(f"{name} is given an empty value; give one, or leave the option out")
        first = parser.given.setdefault(self.dest, values)
        one, other = (value if isinstance(value, list) else [value] for value in (first, values))
        if one != other:
            both = f"{' '.join(map(str, one))} and {' '.join(map(str, other))}"
            parser.error(f"{name} is given twice ({both}); give one")
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument, and an option with two values, get one line each."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.given: Dict[str, object] = {}
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args=None, namespace=None):
        self.given.clear()
        found, unknown = super().parse_known_args(args, namespace)
        if getattr(found, "precision", None) == "float32" and found.device != "cpu":
            os.environ.setdefault(EXACT, "0")  # read when CUDA's libraries are loaded
        return found, unknown

    def print_help(self, file=None) -> None:
        if speaks():
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        let_the_first_speak()
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def commands() -> Dict[str, str]:
    """Each command's name and the first sentence about it, read without importing it."""
    summaries = {}
    for file in sorted(os.listdir(FOLDER)):
        name, suffix = os.path.splitext(file)
        if suffix == ".py" and name not in NO_COMMANDS:
            with open(os.path.join(FOLDER, file), encoding="utf-8") as source:
                docstring = ast.get_docstring(ast.parse(source.read())) or ""
            summaries[name] = " ".join(docstring.partition("\n\n")[0].split())
    return summaries


def make_parser(name: str, docstring: str) -> argparse.ArgumentParser:
    """A parser described by the docstring's first paragraph, with the rest below the options."""
    summary, _, rest = (docstring or "").strip().partition("\n\n")
    return Parser(
        prog=f"jseg {name}",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_label_options(p: argparse.ArgumentParser, ignored: str) -> None:
    """Add --ignore and --map, which say how values in label files are read.

    ignored: the end of the first one's help.
    """
    p.add_argument(
        "--ignore",
        type=int,
        nargs="*",
        default=[],
        metavar="ID",
        help=f"values in label files that mean nothing is known{ignored}",
    )
    p.add_argument(
        "--map",
        nargs="*",
        default=[],
        metavar="VALUE:CLASS",
        help="values in label files that stand for another class, such as 255:1; CLASS is an id as "
        "stored, or a name",
    )


def add_device(p: argparse.ArgumentParser) -> None:
    """Add --device and --precision."""
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument(
        "--precision",
        choices=("float32", "tf32", "bf16", "fp16"),
        help="of products and convolutions; weights, norms, softmax and losses are float32 in each "
        "(default: tf32 on CUDA, float32 on the CPU)",
    )


def choose_device(args, say: Callable[[str], None]) -> Tuple[str, Dict[str, str]]:
    """The device, on which networks compute in --precision from now on, and what results record of
    that. On CUDA the precision is said.
    """
    from jseg import runtime
    from jseg.nn import precision

    device = runtime.device(args.device)
    name = precision.use(args.precision, device)
    if device == "cuda":
        say(precision_line(name))
    return device, {"precision": name}


def precision_line(name: str) -> str:
    """What is said of a precision on CUDA."""
    exact = "" if name == "float32" else "; --precision float32 is exact and slower"
    return f"products and convolutions are {name}{exact}"


def at_least(args: argparse.Namespace, least: Mapping[str, float]) -> None:
    """Raise ValueError for the first option that is below its least value."""
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and not bound <= value < math.inf:
            raise ValueError(f"--{name} is {value}; expected {bound} or more")


def no_file(path: str) -> str:
    """Why there is no file to be read at `path`, as the predicate of a message."""
    if os.path.isdir(path):
        return "is a folder"
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "is no plain file" if os.path.exists(path) else "does not exist"


def speaks() -> bool:
    """Whether this process is the one that talks: the only one, or the first under mpirun."""
    return os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0"


def say(name: str, line: str) -> None:
    """Write `jseg NAME: line` on standard error, where all lines of a command go.

    Without a name it is `jseg: line`. A progress bar stays below the line. Under mpirun only the
    process that `speaks` writes it.
    """
    if speaks():
        _write(name, line)


def _write(name: str, line: str) -> None:
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with bars.external_write_mode(sys.stderr) if bars else contextlib.nullcontext():
        print(f"{f'jseg {name}'.strip()}: {line}", file=sys.stderr, flush=True)


def let_the_first_speak() -> None:
    """Where this process fails and is not the one that `speaks`, wait until that one, which mostly
    fails alike, has said why: its end ends this process. A process that goes on fails alone.
    """
    if not speaks():
        time.sleep(FIRST_SPEAKS)


def run(
    main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None
) -> int:
    """Call a command's `main(argv)` and return its exit code.

    An error that a user can cause becomes `jseg NAME: ...` on standard error, and 2. Ctrl-C gives
    130, a reader of standard output that is gone 141. Standard error that cannot be written changes
    nothing (`streams`). With JSEG_TRACEBACK=1 in the environment, errors are raised instead.
    """
    with streams.guard():
        try:
            code = _called(main, argv)
        except BaseException:
            let_the_first_speak()
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
    """Whether MPI has joined this process with others, also where Jittor's import failed since."""
    mpi = sys.modules.get("jittor_mpi_core")
    return mpi is not None and mpi.world_size() > 1


def _called(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]]) -> int:
    """The exit code of `main(argv)`; raises what is no user's error."""
    name = _name_of(main)
    out_of_memory.begin(name, sys.modules.get(main.__module__), argv)
    try:
        try:
            code = main(argv) or 0
        except SystemExit:  # --help, whose reader may be gone: noticed here, it is quiet
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code

    # Whoever ends the command, or no longer reads what it prints, needs no explanation.
    except KeyboardInterrupt:
        say(name, "interrupted")
        return 130
    except BrokenPipeError:
        return 141

    # What a user can cause is one line.
    except Exception as error:
        if os.environ.get("JSEG_TRACEBACK") == "1":
            raise
        let_the_first_speak()
        if out_of_memory.is_shortage(error):
            print(out_of_memory.line_for(error), file=sys.stderr)
            return 2
        if not _can_be_caused(error):
            raise
        _write(name, _of_process(_one_line(error)))
        return 2


def _name_of(main: Callable) -> str:
    """The command that `main` is of, for the lines that it writes."""
    name = main.__module__.rpartition(".")[2]
    return os.path.splitext(os.path.basename(sys.argv[0]))[0] if name == "__main__" else name


def _can_be_caused(error: Exception) -> bool:
    """Whether a user can cause an error: all but mistakes of ours, such as a module of jseg that is
    not there.
    """
    ours = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("jseg")
    return not ours and isinstance(
        error, (RuntimeProblem, ValueError, OSError, ModuleNotFoundError)
    )


def _of_process(line: str) -> str:
    """The line, with the number of the process where that is not the one that `speaks`."""
    return line if speaks() else f"process {os.environ['OMPI_COMM_WORLD_RANK']}: {line}"


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error.name} is not installed for {sys.executable}: run `make venv` and use "
            ".venv/bin/python, or pip install -e ."
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
