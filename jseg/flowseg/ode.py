"""From source to data: Euler, Heun and Adams-Bashforth-2 steps of dx/dt = v(x, t), as generators.

Clock: real t, 0 at the source, 1 at the data. A solver knows a callable velocity(x, t [B]) and a
grid of times, nothing of networks, codes or files; guidance is a wrapper around that callable.
Mirrors the Euler, Heun and Adams samplers of the official PixNerd code. In the formulas h is the
step's length, t_next - t.
"""

from __future__ import annotations

import functools
from typing import Callable, Iterator, Sequence, Union

import numpy as np

from jseg.nn.layers import as_var
from jseg.runtime import jt

Velocity = Callable[[object, object], object]
Steps = Union[int, Sequence[float]]


def times(steps: int, shift: float = 1.0) -> np.ndarray:
    """The times 0 = t_0 < ... < t_steps = 1, float64 [steps + 1], even by default.

    shift: t becomes t / (t + (1 - t) shift); above 1, more times lie near the source. Raises
    ValueError for steps < 1, and for a shift that is not finite and above 0.
    """
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"times: {steps!r} steps; expected a whole number from 1 on")
    if not 0 < shift < np.inf:
        raise ValueError(
            f"times: shift {shift}; expected a finite number above 0 (1 leaves the times even)"
        )
    even = np.append(np.linspace(0.0, 1.0 - 1 / steps, steps), 1.0)
    return even / (even + (1 - even) * shift)


def _solver(rule):
    """A rule over an array of times as a solver that also takes a number of steps.

    Wrong times raise ValueError when the solver is called, before its first step.
    """

    @functools.wraps(rule)
    def solver(velocity: Velocity, x, steps: Steps, **options) -> Iterator:
        return rule(velocity, as_var(x), _grid(steps), **options)

    return solver


@_solver
def euler(velocity: Velocity, x, steps: Steps) -> Iterator:
    """Yield x [B, ...] after every Euler step; the last is the result.

        x_next = x + h v(x, t)

    steps: a number of even steps, or increasing times such as `times` gives; x is at the first of
    them. Of first order, one evaluation a step, none at the last time.
    """
    for t, t_next in zip(steps, steps[1:]):
        h = t_next - t
        with jt.no_grad():
            x = _plus(x, (h, _at(velocity, x, t)))
        yield x


@_solver
def heun(velocity: Velocity, x, steps: Steps, reuse: bool = False) -> Iterator:
    """As `euler`, by Heun's rule: the mean of the velocities at both ends of an Euler step.

        x' = x + h v(x, t)
        x_next = x + h/2 v(x, t) + h/2 v(x', t_next)

    The last step is Euler's, so that nothing is evaluated at the last time. Of second order, two
    evaluations a step; with reuse one, as v(x', t_next) stands in for the next step's v(x, t).
    official (PixNerd): reuses by default; here: as an option.
    """
    v = None
    for t, t_next in zip(steps, steps[1:]):
        h = t_next - t
        with jt.no_grad():
            v = _at(velocity, x, t) if v is None else v
            x_euler = _plus(x, (h, v))
            if t_next == steps[-1]:
                x = x_euler
            else:
                v_next = _at(velocity, x_euler, t_next)
                x = _plus(x, (h / 2, v), (h / 2, v_next))
                v = v_next if reuse else None
        yield x


@_solver
def adams2(velocity: Velocity, x, steps: Steps) -> Iterator:
    """As `euler`, by the two-step Adams-Bashforth rule on uneven times, from an Euler step on.

        x_next = x + h (1 + r) v(x, t) - h r v_prev,   r = h / (2 h_prev)

    The line through both velocities, integrated over the step. Of second order, one evaluation a
    step, none at the last time.
    """
    v_prev, h_prev = None, None
    for t, t_next in zip(steps, steps[1:]):
        h = t_next - t
        with jt.no_grad():
            v = _at(velocity, x, t)
            if v_prev is None:
                x = _plus(x, (h, v))
            else:
                r = h / (2 * h_prev)
                x = _plus(x, (h * (1 + r), v), (-h * r, v_prev))
        v_prev, h_prev = v, h
        yield x


METHODS = {"euler": euler, "heun": heun, "adams2": adams2}


def _at(velocity: Velocity, x, t: float):
    return velocity(x, jt.array(np.full(x.shape[0], t, np.float32)))


def _plus(x, *terms):
    """x plus the sum of factor times velocity, computed now: a lazy graph would hold the network of
    every step at once.

    Factors become Vars, since Jittor compiles some Python scalars into a kernel.
    """
    for factor, v in terms:
        x = x + jt.array(np.array([factor], np.float32)) * v
    x.sync()
    return x


def _grid(steps: Steps) -> np.ndarray:
    """The times of a solver's steps, float64; raises ValueError for times that do not increase."""
    if isinstance(steps, (int, np.integer)):
        return times(steps)
    grid = np.asarray(steps, np.float64)
    listed = grid.ndim == 1 and len(grid) > 1 and np.isfinite(grid).all()
    if not (listed and (np.diff(grid) > 0).all()):
        raise ValueError(
            f"ode: times {np.array2string(grid, threshold=8)}; expected at least two, increasing, "
            "or a number of steps"
        )
    return grid
