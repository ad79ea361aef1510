"""From source to data: Euler, Heun and Adams-Bashforth-2 steps of dx/dt = velocity(x, t), as
generators.

Clock: real t, 0 at the source, 1 at the data. The steps know a callable velocity(x, t [B]) and a
grid of times, nothing of networks, codes or files; guidance is a wrapper around that callable.
Mirrors the Euler, Heun and Adams samplers of the official PixNerd code.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional, Sequence, Union

import numpy as np

from jseg.nn.layers import as_var
from jseg.runtime import jt

Velocity = Callable[[object, object], object]
Steps = Union[int, Sequence[float]]


def times(steps: int, shift: float = 1.0, last: Optional[float] = None) -> np.ndarray:
    """The times 0 = t_0 < ... < t_steps = 1, float64 [steps + 1].

    Even by default; `last` is the length of the last step before shifting, the others sharing the
    rest. shift: t / (t + (1 - t) shift), above 1 more of them lie near the source. Raises
    ValueError for steps < 1, a shift that is not finite and above 0, and a `last` that leaves no
    room.
    """
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"times: {steps!r} steps; expected a whole number from 1 on")
    if not 0 < shift < np.inf:
        raise ValueError(
            f"times: shift {shift}; expected a finite number above 0 (1 leaves the times even)"
        )
    last = 1 / steps if last is None else last
    if not (0 < last < 1 or last == 1 == steps):
        raise ValueError(
            f"times: a last step of length {last} in {steps} steps; expected one between 0 and 1"
        )
    even = np.append(np.linspace(0.0, 1.0 - last, steps), 1.0)
    return even / (even + (1 - even) * shift)


def euler(velocity: Velocity, x, steps: Steps) -> Iterator:
    """x [B, ...] at t_0, moved by `steps` (a number, or times such as `times` gives), yielded after
    each step; the last is the result.

    One evaluation a step, none at t = 1; of first order. Deterministic. Raises ValueError, before
    any step, for times that do not increase.
    """
    return _euler(velocity, as_var(x), _grid(steps))


def heun(velocity: Velocity, x, steps: Steps, reuse: bool = False) -> Iterator:
    """As `euler`, by Heun's rule: an Euler step, then again with the mean of the velocities at both
    ends; of second order.

    Two evaluations a step; with reuse=True one, the velocity found at the end of a step serving as
    that of the next one's beginning. The last step is Euler's, so none is at t = 1; the order
    stays. official (PixNerd): reuses unless told not to; here: only when asked.
    """
    return _heun(velocity, as_var(x), _grid(steps), reuse)


def adams2(velocity: Velocity, x, steps: Steps) -> Iterator:
    """As `euler`, by the two-step Adams-Bashforth rule on the given times, starting with an Euler
    step; of second order.

    One evaluation a step, none at t = 1.
    """
    return _adams2(velocity, as_var(x), _grid(steps))


METHODS = {"euler": euler, "heun": heun, "adams2": adams2}


def _euler(velocity, x, grid):
    for now, then in zip(grid[:-1], grid[1:]):
        with jt.no_grad():
            x = _moved(x, (then - now, _at(velocity, x, now)))
        yield x


def _heun(velocity, x, grid, reuse):
    first = None
    for now, then in zip(grid[:-1], grid[1:]):
        with jt.no_grad():
            first = _at(velocity, x, now) if first is None else first
            predicted = _moved(x, (then - now, first))
            if then == grid[-1]:
                x = predicted
            else:
                second = _at(velocity, predicted, then)
                x = _moved(x, ((then - now) / 2, first), ((then - now) / 2, second))
                first = second if reuse else None
        yield x


def _adams2(velocity, x, grid):
    before, width_before = None, None
    for now, then in zip(grid[:-1], grid[1:]):
        width = then - now
        with jt.no_grad():
            v = _at(velocity, x, now)
            slope = (
                0.0 if before is None else width / (2 * width_before)
            )  # the line through both velocities, integrated over the step
            x = _moved(
                x, (width * (1 + slope), v), *([] if before is None else [(-width * slope, before)])
            )
        before, width_before = v, width
        yield x


def _at(velocity, x, t: float):
    return velocity(x, jt.array(np.full(x.shape[0], t, np.float32)))


def _moved(x, *moves):
    """x plus the sum of factor times velocity, computed now: a lazy graph would hold every step's
    network at once.
    """
    for factor, v in moves:
        x = (
            x + jt.array(np.array([factor], np.float32)) * v
        )  # a Var, since Jittor compiles some Python scalars into the kernel
    x.sync()
    return x


def _grid(steps: Steps) -> np.ndarray:
    if isinstance(steps, (int, np.integer)):
        return times(steps)
    grid = np.asarray(steps, np.float64)
    if (
        grid.ndim != 1
        or len(grid) < 2
        or not np.isfinite(grid).all()
        or not (np.diff(grid) > 0).all()
    ):
        raise ValueError(
            f"ode: times {np.array2string(grid, threshold=8)}; expected at least two, increasing, "
            "or a number of steps"
        )
    return grid
