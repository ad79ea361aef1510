"""What the commands share: the list of them, a parser built from a docstring, and errors as one line and exit code 2."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from typing import Callable, Dict, List, NoReturn, Optional

from jseg.machine import RuntimeProblem

FOLDER = os.path.dirname(os.path.abspath(__file__))


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument gets one line instead of the whole usage."""

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
    """A parser whose description is the docstring's first paragraph and whose epilogue is the rest (the examples)."""
    summary, _, rest = (docstring or "").strip().partition("\n\n")
    return Parser(prog=f"jseg {name}", description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)


def run(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None) -> int:
    """Call a command's `main(argv)` and return its exit code; an error a user can cause becomes `jseg NAME: ...` on stderr and 2.

    Ctrl-C gives 130. With JSEG_TRACEBACK=1 in the environment, errors are raised instead.
    """
    name = main.__module__.rpartition(".")[2]
    if name == "__main__":
        name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    try:
        code = main(argv) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say(name, "interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (RuntimeProblem, ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("JSEG_TRACEBACK") == "1" or isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("jseg"):
            raise
        _say(name, _one_line(error))
        return 2


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed for {sys.executable}: run `make venv` and use .venv/bin/python, or pip install -e ."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _say(name: str, message: str) -> None:
    print(f"jseg {name}: {message}", file=sys.stderr)
