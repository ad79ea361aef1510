"""Calls of the commands as a user makes them, and what they leave behind."""

import csv

from jseg.commands import cli


def words(*others, **options):
    """The words of a call: a list gives its words, True no word, None and False no option."""
    found = list(map(str, others))
    for name, value in options.items():
        if value is not None and value is not False:
            values = value if isinstance(value, (list, tuple)) else [value]
            found += [f"--{name}"] + ([] if value is True else list(map(str, values)))
    return found


def answered(command, capsys, *others, **options):
    """(exit code, standard output, lines on standard error) of a command with these options."""
    capsys.readouterr()
    try:
        code = cli.run(command.main, words(*others, **options))
    except SystemExit as stopped:  # argparse
        code = stopped.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err.splitlines()


def called(command, capsys, **options):
    """(exit code, lines on standard error) of a command that prints no results."""
    code, out, lines = answered(command, capsys, **options)
    assert out == "", "standard output is for results"
    return code, lines


def everything(folder):
    """{path: bytes} of what is below a folder, folders without bytes: equal snapshots mean that
    nothing was written.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


class TrainingFolder:
    """A folder of a training command: its data, and the output that `into` changes."""

    def __init__(self, root, capsys):
        self.root, self.capsys, self.output, self.data = root, capsys, root / "run", root / "data"

    def into(self, name):
        self.output = self.root / name
        return self

    def rows(self):
        with open(self.output / "log.csv") as file:
            return list(csv.DictReader(file))
