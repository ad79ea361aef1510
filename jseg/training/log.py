"""The log of a training as a CSV file that outlives kill -9 and resuming.

step,loss,mse,vb
10,0.39586,0.38,0.01586

A column that begins later (a discriminator's loss) is empty in the rows before. Mirrors the logging
of the release's train_util.py and logger.py, whose progress.csv begins anew with every start.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Dict, List, Mapping, Optional

import numpy as np

from jseg.files import PathLike, write_atomic
from jseg.outputs.record import writing


class Means:
    """The means of numbers by name since they were last taken: a row of the log."""

    def __init__(self):
        self.sums: Dict[str, List[float]] = {}

    def add(self, losses: Mapping[str, float]) -> None:
        """Count the numbers of one more step."""
        for name, value in losses.items():
            self.sums.setdefault(name, []).append(value)

    def __bool__(self) -> bool:
        return bool(self.sums)

    def take(self) -> Dict[str, float]:
        """The means; those of the next row begin anew."""
        means = {name: sum(values) / len(values) for name, values in self.sums.items()}
        self.sums = {}
        return means


class Log:
    """Numbers by step in the CSV file `path`, whose folder exists; written by one process only.

    What a killed process left of its last line is dropped by the next reader or writer. Every
    method raises ValueError for a file that is no such log, and OSError, naming the file, where it
    cannot be read or written; the file is then as it was.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        self._columns: Optional[List[str]] = None  # those of the file; None: not looked at yet

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; it is with the operating system on return. Names not seen before become
        columns, absent ones stay empty.
        """
        if self._columns is None:
            self.rewind()
        new = [name for name in values if name not in self._columns[1:]]
        if new:
            self._extend(new)
        cells = (_number(values[name]) if name in values else "" for name in self._columns[1:])
        row = [str(int(step)), *cells]

        # In one write, or not at all.
        with writing(self.path), open(self.path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            lines = _lines([row] if size else [self._columns, row])
            try:
                if file.write(lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def rewind(self, step: Optional[int] = None) -> None:
        """Drop the rows after `step` and all lines that are broken: a run resumed at `step` then
        has each step once.
        """
        content = self._content()
        columns, rows = _parsed(content, self.path)
        rows = [row for row in rows if step is None or int(row[0]) <= step]
        whole = _lines([columns] + rows) if rows else b""
        if content != whole:
            self._replace(whole)
        self._columns = columns if rows else ["step"]

    def read(self) -> Dict[str, np.ndarray]:
        """Each column by name, in the order of the file: "step" int64 [rows], all others float64
        [rows] with NaN where empty.
        """
        columns, rows = _parsed(self._content(), self.path)
        arrays = {"step": np.array([int(row[0]) for row in rows], dtype=np.int64)}
        for place, name in enumerate(columns[1:], start=1):
            arrays[name] = np.array([float(row[place] or "nan") for row in rows], dtype=np.float64)
        return arrays

    def _extend(self, names: List[str]) -> None:
        wrong = [name for name in names if name == "step" or not name or set(name) & set('",\r\n')]
        if wrong:
            raise ValueError(
                f"{wrong[0]!r} cannot be a column of {self.path}: expected a name other than "
                "step, without commas, quotes and line ends"
            )
        columns, rows = _parsed(self._content(), self.path)
        if rows:
            self._replace(_lines([columns + names] + [row + [""] * len(names) for row in rows]))
        self._columns = self._columns + names

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _replace(self, content: bytes) -> None:
        with writing(self.path):
            write_atomic(self.path, lambda file: file.write(content))


def _number(value: float) -> str:
    return f"{value:.8g}"


def _lines(rows) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode("utf-8")


def _parsed(content: bytes, path: Path):
    """(columns, rows of text) of a log's whole lines; a line with another number of fields or
    without numbers is broken and left out.
    """
    lines = content.decode("utf-8", "replace").split("\n")[:-1]
    columns = lines[0].rstrip("\r").split(",") if lines else ["step"]
    if columns[0].lstrip("\ufeff") != "step" or len(set(columns)) < len(columns):
        raise ValueError(
            f"{path} is no log of a training: its first line is {lines[0]!r:.60}, expected "
            "step,loss,...; move it away"
        )
    rows = [line.rstrip("\r").split(",") for line in lines[1:]]
    return ["step"] + columns[1:], [
        row for row in rows if len(row) == len(columns) and _numbers(row)
    ]


def _numbers(row: List[str]) -> bool:
    """Whether a row is a step and numbers or empty fields."""
    try:
        for value in row[1:]:
            float(value or 0)
        return int(row[0]) >= 0
    except ValueError:
        return False
