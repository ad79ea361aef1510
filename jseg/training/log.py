"""The log of a training as a CSV file that outlives kill -9 and resuming, and the image of its
curves.

step,loss,mse,vb
10,0.39586,0.38,0.01586

A column that begins later (a critic's loss) is empty in the rows before. Mirrors the logging of the
release's train_util.py and logger.py, whose progress.csv begins anew with every start.
"""

from __future__ import annotations

import errno
import io
import math
import os
import warnings
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Union

import numpy as np

from jseg.files import PathLike, write_atomic

DRAWN_POINTS = 1000  # more cannot be told apart in a panel
SMOOTHED_SHARE = 25  # the running mean of a curve spans this part of its points
LOG_RATIO = 3.0  # a positive quantity whose running mean falls by more has a logarithmic axis
PANEL_SIZE, PANELS_IN_ROW = (2.5, 1.9), 3  # inches
FAINT, FIRM = "#a9c4e2", "#1f4e8c"
STYLE = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "ytick.minor.width": 0.4,
    "figure.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 6,
    "legend.borderaxespad": 0.0,
}
UNITS = {
    "mse": "mean squared error",
    "vb": "bits per dimension",
    "l1": "mean absolute error",
    "lpips": "LPIPS distance",
    "codebook": "mean squared error",
    "codes_used": "share of the codebook",
    "perplexity": "codebook entries",
    "real": "mean logit",
    "fake": "mean logit",
    "deception": "negative mean logit",
    "weight": "factor",
    "fm": "mean squared error",
    "correction_norm": "mean length",
    "repa": "1 - cosine",
    "miou": "mean IoU",
    "accuracy": "share of pixels",
}


class Means:
    """The means of numbers by name since they were last taken: a row of the log."""

    def __init__(self):
        self.sums: Dict[str, List[float]] = {}

    def add(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self.sums.setdefault(name, []).append(value)

    def __bool__(self) -> bool:
        return bool(self.sums)

    def taken(self) -> Dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self.sums.items()}
        self.sums = {}
        return means


class NoMatplotlib(Exception):
    """No curve can be drawn; one line: why, what to do."""


class Journal:
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
        row = [str(int(step))] + [
            _number(values[name]) if name in values else "" for name in self._columns[1:]
        ]
        try:
            with open(self.path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                lines = _lines([row] if size else [self._columns, row])
                try:
                    if file.write(lines) < len(lines):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise self._unwritable(error) from error

    def rewind(self, step: Optional[int] = None) -> None:
        """Drop the rows after `step` and all lines that are broken: a run resumed at `step` then
        has each step once.
        """
        content = self._content()
        columns, rows = _parsed(content, self.path)
        rows = [row for row in rows if step is None or int(row[0]) <= step]
        kept = _lines([columns] + rows) if rows else b""
        if content != kept:
            self._replace(kept)
        self._columns = columns if rows else ["step"]

    def read(self) -> Dict[str, np.ndarray]:
        """Each column by name, in the order of the file: "step" int64 [rows], all others float64
        [rows] with NaN where empty.
        """
        columns, rows = _parsed(self._content(), self.path)
        read = {"step": np.array([int(row[0]) for row in rows], dtype=np.int64)}
        for place, name in enumerate(columns[1:], start=1):
            read[name] = np.array([float(row[place] or "nan") for row in rows], dtype=np.float64)
        return read

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
        try:
            write_atomic(self.path, lambda file: file.write(content))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(f"cannot write {self.path} ({error.strerror or error})")


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


def draw_curve(log: Union[Journal, PathLike], path: PathLike, title: str) -> bool:
    """Draw each column of a log over the steps, raw and smoothed, into the PNG file `path`, whole
    or not at all.

    False, and no image, where the log has no finite number yet. Raises NoMatplotlib, as
    `Journal.read`, and OSError where `path` cannot be written.
    """
    columns = (log if isinstance(log, Journal) else Journal(log)).read()
    curves = [
        _curve(name, columns["step"], values)
        for name, values in columns.items()
        if name != "step" and np.isfinite(values).any()
    ]
    if not curves:
        return False
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # matplotlib's own, of characters that the font lacks, of axes of one value
        try:
            from matplotlib import style
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise NoMatplotlib(f"{error.name} is not installed; pip install matplotlib") from error
        except (
            Exception
        ) as error:  # a broken matplotlib, or a bad MPLBACKEND, must not end a training either
            raise NoMatplotlib(
                f"matplotlib cannot be imported ({type(error).__name__}: {error})"
            ) from error
        with style.context(["default", STYLE]):
            _figure(Figure, curves, title).savefig(image, format="png", dpi=200)
    write_atomic(path, lambda file: file.write(image.getvalue()))
    return True


class Curve(NamedTuple):
    """One quantity where it is finite: `values` [n] are means of `interval` steps each, `smooth`
    [n] running means over `span` of them.
    """

    name: str
    steps: np.ndarray
    values: np.ndarray
    smooth: np.ndarray
    interval: int
    span: int


def _curve(name: str, steps: np.ndarray, values: np.ndarray) -> Curve:
    there = np.isfinite(values)
    every = max(1, int(np.median(np.diff(steps[there])))) if there.sum() > 1 else 1
    size = math.ceil(there.sum() / DRAWN_POINTS)
    steps, values = grouped(steps[there], size), grouped(values[there], size)
    half = len(values) // (2 * SMOOTHED_SHARE)
    return Curve(name, steps, values, running_mean(values, half), every * size, 2 * half + 1)


def grouped(values: np.ndarray, size: int) -> np.ndarray:
    """The means of `size` values each, in turn; the last of those that are left."""
    starts = np.arange(0, len(values), size)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def running_mean(values: np.ndarray, half: int) -> np.ndarray:
    """The mean [n] of each value and `half` on either side; near the first, of fewer on both sides,
    near the last, of those there are.

    So a curve that falls steeply at first keeps its beginning, and its end is not the last value's
    noise.
    """
    places = np.arange(len(values))
    reach = np.minimum(half, np.maximum(places, half // 4))
    start, stop = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.array(
        [values[one:other].mean() for one, other in zip(start, stop)]
    )  # sums to subtract would lose all after a spike


def _figure(make, curves: List[Curve], title: str):
    columns = 2 if len(curves) == 4 else min(PANELS_IN_ROW, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = make(
        figsize=(max(3.4, PANEL_SIZE[0] * columns), PANEL_SIZE[1] * rows + 0.3),
        constrained_layout=True,
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    last = max(curve.steps[-1] for curve in curves)
    for panel, curve in zip(panels, curves):
        _panel(panel, curve, last)
    if curves[0].span > 1:
        panels[0].legend(loc="upper right")
    for place, panel in enumerate(panels):
        panel.set_visible(place < len(curves))
        if place + columns >= len(curves):
            panel.set_xlabel("optimisation step")
    figure.suptitle(title.replace("$", r"\$"))
    return figure


def _panel(panel, curve: Curve, last: float) -> None:
    from matplotlib import ticker

    if curve.span == 1:
        panel.plot(curve.steps, curve.values, color=FIRM, linewidth=1.0, marker="o", markersize=2.0)
    else:
        label = "each step" if curve.interval == 1 else f"mean of {curve.interval:,} steps"
        panel.plot(curve.steps, curve.values, color=FAINT, linewidth=0.5, label=label)
        panel.plot(
            curve.steps,
            curve.smooth,
            color=FIRM,
            linewidth=1.1,
            label=f"mean of {curve.interval * curve.span:,}",
        )
    panel.set_title(curve.name)
    panel.set_ylabel(UNITS.get(curve.name.rpartition("/")[2], ""))
    panel.set_xlim(0, max(1, last * 1.02))
    panel.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    low, high = _limits(curve)
    if low > 0 and curve.smooth.max() > LOG_RATIO * curve.smooth[-1]:
        decades = math.log10(high / low)
        panel.set_yscale("log")
        panel.set_ylim(low / 1.1, high * 1.1)
        if decades < 2:
            panel.yaxis.set_major_locator(
                ticker.LogLocator(subs=(1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5))
            )
            panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, place: f"{value:g}"))
            panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _limits(curve: Curve):
    """The range of the axis: all of the running mean and, where there are many values, all but
    their rarest spikes.
    """
    share = 0.5 if len(curve.values) >= 200 else 0.0
    low, high = np.percentile(curve.values, [share, 100 - share])
    return min(low, curve.smooth.min()), max(high, curve.smooth.max())
