"""`python -m jseg NAME ...`, also installed as `jseg NAME ...`: run one of jseg/commands."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import List, Optional

from jseg import __version__
from jseg.commands import cli


def _overview() -> str:
    names = cli.commands()
    width = max(map(len, names), default=0)
    lines = [f"jseg {__version__}: pictures from semantic maps, and semantic maps from pictures, in Jittor", "", "commands:"]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in names.items()]
    lines += ["", "jseg NAME --help shows a command's options; with JSEG_TRACEBACK=1 in the environment, errors show where they arose."]
    return "\n".join(lines)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command named first in `argv` with the rest; without one, list them."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"jseg {__version__}")
        return 0
    names = list(cli.commands())
    name = argv[0].replace("-", "_")
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        print(f"jseg: no command {argv[0]!r}: {hint}", file=sys.stderr)
        return 2
    return cli.run(importlib.import_module(f"jseg.commands.{name}").main, argv[1:])


if __name__ == "__main__":
    sys.exit(main())
