"""The image of a training's curves, drawn from its log: every column over the steps, raw and
smoothed.
"""

from __future__ import annotations

import io
import math
import time
import warnings
from pathlib import Path
from typing import Callable, List, NamedTuple, Union

import numpy as np

from jseg.files import PathLike, write_atomic
from jseg.outputs.record import writing
from jseg.training.log import Log

SECONDS = 20  # between two drawings of a CurveFile
DRAWN_POINTS = 1000  # more cannot be told apart in a panel
SMOOTHED_PART = 25  # the running mean of a curve spans one in so many of its points
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
    "codes_used": "fraction of the codebook",
    "perplexity": "codebook entries",
    "real": "mean logit",
    "fake": "mean logit",
    "deception": "negative mean logit",
    "weight": "factor",
    "fm": "mean squared error",
    "correction_norm": "mean length",
    "repa": "1 - cosine",
    "miou": "mean IoU",
    "accuracy": "fraction of pixels",
}


class NoMatplotlib(Exception):
    """No curve can be drawn; one line: why, what to do."""


class CurveFile:
    """The curves of a training that goes on, at `path`; `say` hears once why there are none."""

    def __init__(self, log: Log, path: PathLike, title: str, say: Callable[[str], None]):
        self.log, self.path, self.title, self.say = log, Path(path), title, say
        self.last, self.is_drawn = time.monotonic(), True

    def draw_unless_new(self) -> None:
        """Draw at most every SECONDS: it takes as long as saving a small network."""
        if time.monotonic() - self.last >= SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw the log so far. Raises OSError where the file cannot be written."""
        try:
            with writing(self.path):
                draw_curve(self.log, self.path, self.title)
        except NoMatplotlib as problem:
            if self.is_drawn:
                self.say(f"no {self.path.name}: {problem}")
            self.is_drawn = False
        self.last = time.monotonic()


def draw_curve(log: Union[Log, PathLike], path: PathLike, title: str) -> bool:
    """Draw each column of a log over the steps, raw and smoothed, into the PNG file `path`, whole
    or not at all.

    False, and no image, where the log has no finite number yet. Raises NoMatplotlib, ValueError as
    `Log.read`, and OSError where `path` cannot be written.
    """
    columns = (log if isinstance(log, Log) else Log(log)).read()
    curves = [
        _curve(name, columns["step"], values)
        for name, values in columns.items()
        if name != "step" and np.isfinite(values).any()
    ]
    if not curves:
        return False

    # Matplotlib warns of characters that the font lacks, and of axes of one value.
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        style, make_figure = _matplotlib()
        with style.context(["default", STYLE]):
            _figure(make_figure, curves, title).savefig(image, format="png", dpi=200)
    write_atomic(path, lambda file: file.write(image.getvalue()))
    return True


def _matplotlib():
    """(its module `style`, its class Figure); raises NoMatplotlib."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise NoMatplotlib(f"{error.name} is not installed; pip install matplotlib") from error
    except Exception as error:
        # A broken matplotlib, or a bad MPLBACKEND, must not end a training either.
        raise NoMatplotlib(
            f"matplotlib cannot be imported ({type(error).__name__}: {error})"
        ) from error
    return style, Figure


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


def _curve(name: str, all_steps: np.ndarray, all_values: np.ndarray) -> Curve:
    finite = np.isfinite(all_values)
    count = finite.sum()
    interval = max(1, int(np.median(np.diff(all_steps[finite])))) if count > 1 else 1

    # No more points than can be told apart.
    size = math.ceil(count / DRAWN_POINTS)
    steps, values = grouped(all_steps[finite], size), grouped(all_values[finite], size)
    half = len(values) // (2 * SMOOTHED_PART)
    return Curve(name, steps, values, running_mean(values, half), interval * size, 2 * half + 1)


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
    # Each mean of its own: differences of a running sum would lose everything after a spike.
    return np.array([values[one:other].mean() for one, other in zip(start, stop)])


def _figure(make_figure, curves: List[Curve], title: str):
    columns = 2 if len(curves) == 4 else min(PANELS_IN_ROW, len(curves))
    rows = math.ceil(len(curves) / columns)
    size = max(3.4, PANEL_SIZE[0] * columns), PANEL_SIZE[1] * rows + 0.3
    figure = make_figure(figsize=size, constrained_layout=True)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()

    # One panel a curve; what is left over is not shown.
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

    # The raw values, and beside many of them their running mean.
    if curve.span == 1:
        panel.plot(curve.steps, curve.values, color=FIRM, linewidth=1.0, marker="o", markersize=2.0)
    else:
        raw = "each step" if curve.interval == 1 else f"mean of {curve.interval:,} steps"
        smooth = f"mean of {curve.interval * curve.span:,}"
        panel.plot(curve.steps, curve.values, color=FAINT, linewidth=0.5, label=raw)
        panel.plot(curve.steps, curve.smooth, color=FIRM, linewidth=1.1, label=smooth)

    panel.set_title(curve.name)
    panel.set_ylabel(UNITS.get(curve.name.rpartition("/")[2], ""))
    panel.set_xlim(0, max(1, last * 1.02))
    panel.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))

    # What falls far is drawn on a logarithmic axis.
    low, high = _limits(curve)
    if low > 0 and curve.smooth.max() > LOG_RATIO * curve.smooth[-1]:
        panel.set_yscale("log")
        panel.set_ylim(low / 1.1, high * 1.1)
        decades = math.log10(high / low)
        if decades < 2:
            marks = (1, 2, 3, 5, 7) if decades < 1 else (1, 2, 5)
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=marks))
            panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, place: f"{value:g}"))
            panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        margin = 0.05 * (high - low)
        panel.set_ylim(low - margin, high + margin)


def _limits(curve: Curve):
    """The range of the axis: all of the running mean and, where there are many values, all but
    their rarest spikes.
    """
    percent = 0.5 if len(curve.values) >= 200 else 0.0
    low, high = np.percentile(curve.values, [percent, 100 - percent])
    return min(low, curve.smooth.min()), max(high, curve.smooth.max())
