"""What a CUDA source of ours is called with in the emulation, and what it must compute."""

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from jseg.parity.cuda_emulation.device_types import UNITS, rounded
from jseg.parity.cuda_emulation.programs import Call, Kernel, compile_kernels

UNIT = UNITS["float32"]


@dataclass(frozen=True)
class Expected:
    """Values in float64, and how far from each of them the result may be."""

    values: np.ndarray
    bound: np.ndarray


@dataclass(frozen=True)
class Case:
    name: str
    source: str  # its name in the operator's table
    inputs: List[Tuple[np.ndarray, str]]  # values that the type has, and the type
    outputs: List[Tuple[Tuple[int, ...], str, Optional[Expected]]]  # None: anything but NaN
    data: Dict[str, float] = field(default_factory=dict)

    def kernel(self, sources):
        inputs, outputs = ([item[1] for item in items] for items in (self.inputs, self.outputs))
        return Kernel(sources[self.source], tuple(inputs), tuple(outputs))


@dataclass(frozen=True)
class Operator:
    module: str  # the one that hands the sources to jt.code
    header: str
    sources: Dict[str, str]
    cases: Callable[[str], List[Case]]  # for inputs of a type
    kinds: Tuple[str, ...] = ("float32", "float16", "bfloat16")


def close(values, units, natural, kind="float32"):
    """Expected values that are computed in float32 and rounded to `kind`.

    units: of float32's rounding, relative to natural, the size of the terms that the values are
    sums of: a number or an array of the values' shape.
    """
    bound = units * UNIT * natural + np.full(values.shape, 1e-34)  # float32 underflows
    if kind != "float32":
        bound = bound + 1.001 * UNITS[kind] * np.abs(values) + 2.0**-25  # float16 has denormals
    return Expected(values, bound)


def normal(rng, shape, kind="float32", mean=0.0, spread=1.0):
    return rounded(mean + spread * rng.standard_normal(shape), kind)


def run(operator, cases, folder, mode="plain", order="forward"):
    """The outcome of one call for each case."""
    kernels = list(dict.fromkeys(case.kernel(operator.sources) for case in cases))
    program = compile_kernels(folder, operator.header, kernels, mode)
    calls = [
        Call(
            kernels.index(case.kernel(operator.sources)),
            [values for values, _ in case.inputs],
            [shape for shape, _, _ in case.outputs],
            case.data,
        )
        for case in cases
    ]
    return program.run(calls, order)


def errors(cases, outputs):
    """The results that are wrong, a line each."""
    lines = [f"{case.name}: no result" for case in cases[len(outputs) :]]
    for case, arrays in zip(cases, outputs):
        for number, ((_, _, expected), array) in enumerate(zip(case.outputs, arrays)):
            where = f"{case.name}, {case.source}, output {number}"
            if not np.isfinite(array).all():
                wrong = np.count_nonzero(~np.isfinite(array))
                lines.append(f"{where}: {wrong} of {array.size} values are not finite")
            elif expected is not None and worst(expected, array) > 1:
                times = worst(expected, array)
                lines.append(f"{where}: an error of {times:.3g} times what may be")
    return lines


def worst(expected, array):
    """The largest error relative to its bound."""
    error = np.abs(array - expected.values)
    return float((error / np.maximum(expected.bound, 1e-300)).max()) if error.any() else 0.0
