"""A computation on the CPU and on the device, and how far the results lie apart.

A difference is the largest of any array, relative to that array's largest value. Among gradients,
an array whose values are all below `FLOOR` of the largest gradient is held against that fraction
of the largest one instead.
"""

from __future__ import annotations

import functools
import os
import zlib
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence

import numpy as np

from jseg.parity.cuda_emulation import device_types
from jseg.parity.gpu.records import Case, LeftOut
from jseg.parity.gpu.running import TRIAL
from jseg.parity.stand_in import value
from jseg.runtime import device, jt
from jseg.training.optimizer import trainable

# Of float32 without TF32. A product that adds up n terms in another order differs by about sqrt(n)
# units of rounding, 6e-8 each: 3e-6 for the 2304 terms of a 3x3 convolution of 256 channels, and
# in a network some ten of them follow each other. Measured between the CPU's algorithms: 1e-5.
BOUND = 2e-4
# Gradients that are zero by construction, such as that of a bias before a norm, are sums of
# rounding errors: measured up to 3e-7 of the largest gradient. FLOOR times BOUND, 2e-6, exceeds
# that. What still fails is a gradient whose error is more than 2e-6 of the largest gradient.
FLOOR = 1e-2

TABLE = 1_000_003  # a prime, so that no two rows of a matrix are the same
TOGETHER = "kernels compiled together"
Parts = Sequence[List]  # results and gradients


def rounded(array: np.ndarray, kind: str) -> np.ndarray:
    """The array, float32, with its values rounded to the nearest that `kind` can hold: Jittor's
    CPU casts cut digits off in bfloat16, and CUDA's do not.
    """
    return device_types.rounded(array, kind).astype(np.float32)


def random(*shape, seed: int = 0) -> np.ndarray:
    """N(0, 1), float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def filled(module):
    """The module under weights that are a function of their names and shapes."""
    for name, v in module.state_dict().items():
        if not v.is_stop_grad():
            v.assign(jt.array(_weight(name, v.shape)))
    jt.sync_all()
    return module


def _weight(name: str, shape: Sequence[int]) -> np.ndarray:
    """As of stand_in.value; a large array is cut out of a table that repeats, since to draw the
    500 million weights of a large network takes half a minute.
    """
    count = int(np.prod(shape))
    if count <= TABLE:
        return value(name, shape)
    table = _normal_table() / np.sqrt(np.float32(count // shape[0]))
    start = zlib.crc32(name.encode()) % TABLE
    return np.resize(np.roll(table, -start), shape)


@functools.lru_cache(maxsize=None)
def _normal_table() -> np.ndarray:
    return random(TABLE)


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
    name: str,
    target: str,
    compute: Callable[[], Parts],
    bound: float = BOUND,
    reference: Optional[Callable[[], Parts]] = None,
    about: Optional[Dict[str, str]] = None,
) -> Case:
    """The case of compute(), which gives (results, gradients), lists of Vars or arrays, on
    `target`, held against reference() on the CPU; without a reference, against compute() there.
    """
    sides = (reference or compute, compute)

    def both():
        device("cpu")
        expected, expected_gradients = _arrays(sides[0]())
        device(target)
        results, gradients = _arrays(compute())

        parts = {"results": difference(results, expected), "gradients": None}
        if gradients:
            parts["gradients"] = difference(gradients, expected_gradients, FLOOR)
        return {"difference": max(v for v in parts.values() if v is not None), **parts}

    return Case(name, both, bound, about or {}, sides)


def compiled_together(cases: Iterable[Case], target: str) -> Iterator[Case]:
    """The cases, and before them one that has Jittor compile all of their kernels in one go.

    Jittor compiles the kernels of one go in parallel, and nvcc takes seconds for each: a case after
    the other would leave most cores idle. What fails there is left to the case that it belongs to.
    """
    listed = list(cases)
    yield Case(TOGETHER, lambda: _compile(listed, target), about={TRIAL: TOGETHER})
    yield from listed


def _compile(cases: Sequence[Case], target: str) -> Dict[str, object]:
    problems, before = [], _compiled()
    for side, where in enumerate(("cpu", target)):
        device(where)
        variables = []
        for case in cases:
            try:
                parts = case.sides[side]() if case.sides else ()
                variables += [v for part in parts for v in part if isinstance(v, jt.Var)]
            except Exception as error:
                problems += [] if isinstance(error, LeftOut) else [case.name]
        try:
            jt.sync(variables)
        except Exception:
            problems.append(f"the kernels for the {where}")
    if problems:
        raise LeftOut(f"failed together: {', '.join(problems)}; each case is tried alone")
    return {"note": f"{_compiled() - before} kernels"}


def _compiled() -> int:
    """The number of kernels in Jittor's cache."""
    with os.scandir(os.path.join(jt.flags.cache_path, "jit")) as files:
        return sum(file.name.endswith(".so") for file in files)


def _arrays(parts: Parts) -> List[List[np.ndarray]]:
    """The parts as float32 arrays, computed in one go: Jittor compiles the kernels of one go in
    parallel.
    """
    values = [[v.float32() if isinstance(v, jt.Var) else v for v in part] for part in parts]
    jt.sync([v for part in values for v in part if isinstance(v, jt.Var)])
    return [[v.numpy() if isinstance(v, jt.Var) else v for v in part] for part in values]


def of_function(function, *arrays, wanted: Sequence[int] = ()):
    """Results of function(*Vars), a Var, and its gradients to the inputs of those numbers."""

    def compute():
        variables = [jt.array(array) for array in arrays]
        y = function(*variables)
        return [y], gradients_of(y, [variables[i] for i in wanted]) if wanted else []

    return compute


def of_module(make: Callable, *arrays):
    """Results of a module that `make` makes, and its gradients to parameters and inputs."""
    module = functools.lru_cache(maxsize=None)(lambda: filled(make()))

    def compute():
        variables = [jt.array(array) for array in arrays]
        y = module()(*variables)
        inputs = [v for v in variables if str(v.dtype) == "float32"]
        return [y], gradients_of(y, list(trainable(module()).values()) + inputs)

    return compute


def gradients_of(y, variables: List, kind: str = "float32") -> List:
    """The gradients of the sum of y times random numbers that `kind` can hold."""
    factor = jt.array(rounded(random(*y.shape, seed=9), kind)).cast(y.dtype).stop_grad()
    return jt.grad(y * factor, variables)
