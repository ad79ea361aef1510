"""`python -m jseg NAME ...`, also installed as `jseg NAME ...` and called by scripts/NAME.py: run
one of jseg/commands.
"""

from __future__ import annotations

import sys  # and nothing more up here: Ctrl-C would be answered by a traceback


def main(argv: list[str] | None = None) -> int:
    """Run the command named first in `argv` with the rest; without one, list them.

    Ctrl-C gives one line and 130, however early.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        return _run(words)
    except KeyboardInterrupt:  # the imports, before the command can answer, take half a second
        from jseg.machine import streams

        with streams.kept():  # not by cli.say: its import may be what was interrupted
            print(" ".join(["jseg", *words[:1]]) + ": interrupted", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    from jseg.machine import streams

    with streams.kept():
        return _chosen(argv)


def _chosen(argv: list[str]) -> int:
    import difflib
    import importlib

    from jseg.commands import cli

    if not argv or argv[0] in ("-h", "--help", "help"):
        return cli.run(_overview)
    if argv[0] in ("-V", "--version"):
        return cli.run(_version)
    names = list(cli.commands())
    name = argv[0].replace("-", "_")
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        cli.say("", f"no command {argv[0]!r}: {hint}")
        return 2
    return cli.run(importlib.import_module(f"jseg.commands.{name}").main, argv[1:])


def _overview(argv: list[str] | None) -> None:
    from jseg import __version__
    from jseg.commands import cli

    names = cli.commands()
    width = max(map(len, names), default=0)
    lines = [
        f"jseg {__version__}: images from semantic maps, and semantic maps from images, in Jittor",
        "",
        "commands:",
    ]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in names.items()]
    lines += [
        "",
        "jseg NAME --help shows a command's options; with JSEG_TRACEBACK=1 in the environment, "
        "errors show where they arose.",
    ]
    print("\n".join(lines))


def _version(argv: list[str] | None) -> None:
    from jseg import __version__

    print(f"jseg {__version__}")


if __name__ == "__main__":
    sys.exit(main())
