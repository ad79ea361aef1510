"""A computation on the CPU and on the device, and how far the results lie apart.

A difference is the largest of any array, relative to that array's largest value. Among gradients,
arrays below 1e-5 of the largest gradient are zero apart from rounding and are compared with that
one instead.
"""

from __future__ import annotations

import functools
from typing import Callable, List, Sequence

import numpy as np

from jseg.parity.gpu.records import Case
from jseg.parity.stand_in import value
from jseg.runtime import device, jt
from jseg.training.optimizer import trainable

BOUND = 2e-4  # float32 without TF32, convolutions included
FLOOR = 1e-5  # of the largest gradient


def random(*shape, seed: int = 0) -> np.ndarray:
    """N(0, 1), float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(module):
    """The module under weights that are a function of their names and shapes."""
    for name, v in module.state_dict().items():
        if not v.is_stop_grad():
            v.assign(jt.array(value(name, v.shape)))
    jt.sync_all()
    return module


def difference(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], floor: float = 0.0
) -> float:
    """The largest relative difference; infinite where something is not finite."""
    if not all(np.isfinite(a).all() for a in ours):
        return float("inf")
    least = floor * max((float(np.abs(b).max()) for b in theirs), default=0.0)

    def relative(a, b):
        return float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), least, 1e-30))

    return max(relative(a, b) for a, b in zip(ours, theirs))


def compared(
    name: str, target: str, compute: Callable[[], Sequence[List]], bound: float = BOUND
) -> Case:
    """The case of compute(), which gives (results, gradients), lists of Vars, on the current
    device: first on the CPU, then on `target`.
    """

    def both():
        sides = []
        for where in ("cpu", target):
            device(where)
            sides.append([[v.float32().numpy() for v in part] for part in compute()])
        (expected, expected_gradients), (results, gradients) = sides
        parts = {"results": difference(results, expected), "gradients": None}
        if gradients:
            parts["gradients"] = difference(gradients, expected_gradients, FLOOR)
        return {"difference": max(v for v in parts.values() if v is not None), **parts}

    return Case(name, both, bound)


def of_function(function, *arrays, wanted: Sequence[int] = ()):
    """Results of function(*Vars), a Var, and its gradients to the inputs of those numbers."""

    def compute():
        variables = [jt.array(array) for array in arrays]
        y = function(*variables)
        factor = jt.array(random(*y.shape, seed=9)).stop_grad()
        return [y], jt.grad(y * factor, [variables[i] for i in wanted]) if wanted else []

    return compute


def of_module(make: Callable, *arrays):
    """Results of a module that `make` makes, and its gradients to parameters and inputs."""
    module = functools.lru_cache(maxsize=None)(lambda: filled(make()))

    def compute():
        variables = [jt.array(array) for array in arrays]
        y = module()(*variables)
        factor = jt.array(random(*y.shape, seed=9)).stop_grad()
        inputs = [v for v in variables if str(v.dtype) == "float32"]
        return [y], jt.grad(y * factor, list(trainable(module()).values()) + inputs)

    return compute
