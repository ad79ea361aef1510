"""One computation of a part, and how it is run, timed and measured, the same on both sides."""

from __future__ import annotations

import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from jseg.runtime import jt
from jseg.training.optimizer import trainable


class Computation(NamedTuple):
    """run() gives {row: array or Var, or {name: array or Var}}. It is timed after warm(), which is
    run() itself if None.
    """

    run: Callable[[], Dict[str, object]]
    warm: Optional[Callable[[], Dict[str, object]]] = None
    timed: bool = True


def inference(run: Callable, warm: Optional[Callable] = None) -> Computation:
    """A computation without gradients."""

    def plainly(compute):
        def computed():
            with jt.no_grad():
                return compute()

        return computed

    return Computation(plainly(run), warm and plainly(warm))


def gradient(module, losses) -> Dict[str, object]:
    """The gradient of the mean of `losses` [B] by parameter name."""
    parameters = trainable(module)
    return dict(zip(parameters, jt.grad(losses.mean(), list(parameters.values()))))


def measured(
    computation: Computation, repetitions: int
) -> Tuple[Dict[str, object], Optional[float]]:
    """({row or row/name: array or Var}, seconds: the best repetition's, None if it is not timed).

    Once where there is a shorter warm() to compile everything: what has one takes long.
    """
    if not computation.timed:
        return completed(computation.run), None
    found = completed(computation.warm or computation.run)
    best = float("inf")
    for _ in range(1 if computation.warm else repetitions):
        del found  # or two results would be in memory
        before = time.perf_counter()
        found = completed(computation.run)
        best = min(best, time.perf_counter() - before)
    return found, best


def completed(run: Callable) -> Dict[str, object]:
    """The arrays of run() as {row or row/name: array or Var}, computed."""
    arrays: Dict[str, object] = {}
    for row, found in run().items():
        arrays.update(
            {f"{row}/{name}": value for name, value in found.items()}
            if isinstance(found, dict)
            else {row: found}
        )
    variables: List = [value for value in arrays.values() if isinstance(value, jt.Var)]
    jt.sync(variables)
    jt.sync_all(True)
    return arrays
