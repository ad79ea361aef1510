"""A computation of a part; both sides run and time it in the same way."""

from __future__ import annotations

import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from jseg.runtime import jt
from jseg.training.optimizer import trainable


class Computation(NamedTuple):
    """run() gives {row: array or Var, or {name: array or Var}}; it is timed after warm(), which is
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

    A computation with a shorter warm(), which compiles everything, takes long and is run once.
    """
    if not computation.timed:
        return completed(computation.run), None
    arrays = completed(computation.warm or computation.run)
    best = float("inf")
    for _ in range(1 if computation.warm else repetitions):
        del arrays  # or two results would be in memory
        before = time.perf_counter()
        arrays = completed(computation.run)
        best = min(best, time.perf_counter() - before)
    return arrays, best


def completed(run: Callable) -> Dict[str, object]:
    """The arrays of run() as {row or row/name: array or Var}, computed."""
    arrays: Dict[str, object] = {}
    for row, result in run().items():
        if isinstance(result, dict):
            arrays.update((f"{row}/{name}", value) for name, value in result.items())
        else:
            arrays[row] = result
    variables: List = [value for value in arrays.values() if isinstance(value, jt.Var)]
    jt.sync(variables)
    jt.sync_all(True)
    return arrays
