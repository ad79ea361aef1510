"""The operators with CUDA source: each against its twin, in every type, forward and gradients; and
how long both take.
"""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Iterator, List, NamedTuple, Tuple

import numpy as np

from jseg.flowseg import potential
from jseg.flowseg.blocks import rms_scaled
from jseg.flowseg.encoding import class_codes
from jseg.nn import attention, group_norm, kernels, layers, rms_norm
from jseg.parity.gpu.comparing import compared, gradients_of, random, rounded
from jseg.parity.gpu.records import Case, LeftOut
from jseg.runtime import device, jt

# A type's unit of rounding: 2^-p for significands of p bits.
UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
CORRECTION = "correction"  # computed by its operator on every device, float32 alone


class OperatorCase(NamedTuple):
    """A function of arrays that asks for an operator; `wanted` numbers the inputs that have
    gradients.
    """

    operator: str
    title: str
    function: Callable
    arrays: List[np.ndarray]
    wanted: Tuple[int, ...]


@contextlib.contextmanager
def compiled(*names: str, on: bool = True) -> Iterator[None]:
    """Inside of the `with`, the operators of jseg with those names compute on every device, all
    others' twins do; with on=False, every twin does.
    """
    before = kernels.FASTER
    kernels.FASTER = dict.fromkeys(("cpu", "cuda"), names if on else ())
    try:
        yield
    finally:
        kernels.FASTER = before


def operator_cases(large: bool = False) -> Iterator[OperatorCase]:
    """Every form of every operator that has a twin to choose; large: in the shapes of the release's
    UNet and of PixNerd-L/16, in which times mean something.
    """
    yield from _group_norms(*((2, 256, 96, 128) if large else (2, 64, 24, 32)))

    # Heads of 64 and 72 channels are those of PixNerd-L/16 and -XL/16; 16 is that of small UNets.
    for channels in (64, 72, 16):
        heads, lengths = (16, (1024,) * 3) if large else (6, (200, 190, 190))
        yield OperatorCase(
            attention.NAME,
            f"attention, heads of {channels}",
            lambda q, k, v, d=channels: layers.attention(q, k, v, d**-0.5),
            [random(heads, n, channels, seed=i) for i, n in enumerate(lengths)],
            (0, 1, 2),
        )

    images, tokens, channels = (2, 1024, 1024) if large else (4, 150, 128)
    x, weight = random(images, tokens, channels), random(channels, seed=5)
    adaptive = [x, *(random(images, channels, seed=i) for i in (1, 2))]
    yield OperatorCase(rms_norm.NAME, "RMS norm", rms_scaled, [x, weight], (0, 1))
    yield OperatorCase(rms_norm.NAME, "RMS norm, adaLN", rms_scaled, adaptive, (0, 1, 2))
    pixels = random(*((1024, 256, 64) if large else (12, 16, 24)))
    weight = random(pixels.shape[2], seed=5)
    yield OperatorCase(rms_norm.NAME, "RMS norm, pixels", rms_scaled, [pixels, weight], (0, 1))


def _group_norms(batch: int, channels: int, height: int, width: int) -> Iterator[OperatorCase]:
    x, *maps = (random(batch, channels, height, width, seed=i) for i in range(3))
    film = [random(batch, channels, 1, 1, seed=i) for i in (3, 4)]
    rows = [random(channels, seed=i) for i in (5, 6)]

    def norm(activate):
        return lambda x, s, t, *film: group_norm.group_norm(
            x, 32, 1e-5, s, t, film or None, activate
        )

    for title, arrays in {
        "group norm": [x, *rows],
        "group norm, SiLU": [x, *rows],
        "group norm, FiLM, SiLU": [x, *rows, *film],
        "group norm, SPADE, SiLU": [x, *maps],
        "group norm, SPADE, FiLM, SiLU": [x, *maps, *film],
    }.items():
        function, wanted = norm("SiLU" in title), tuple(range(len(arrays)))
        yield OperatorCase(group_norm.NAME, title, function, arrays, wanted)


def bound_of(kind: str) -> float:
    """How far an operator may lie from its float32 twin on the same inputs, which are exact in
    `kind`.

    In half precision the sums are float32, so what remains is one rounding of each result, and in
    the gradients that of the kept result (attention) and their own: 4 units leave room for both. In
    float32 the sums of up to 3072 terms in another order come on top: 168 units, 1e-5.
    """
    return 1e-5 if kind == "float32" else 4 * UNITS[kind]


def kernel_cases(target: str, size: str) -> Iterator[Case]:
    """Each operator on the device, in every type, against its float32 twin on the CPU."""
    for case in operator_cases():
        for kind in UNITS:
            compute, twin = (_computation(case, kind, on) for on in (True, False))
            about = {"operator": case.operator}
            title = f"{case.title}, {kind}"
            yield compared(title, target, compute, bound_of(kind), twin, about)
    yield from _correction_cases(target, size)


def _computation(case: OperatorCase, kind: str, operator: bool) -> Callable:
    """The operator on inputs of type `kind`, or its float32 twin on the same numbers."""

    def compute():
        types = [kind if array.ndim > 1 else "float32" for array in case.arrays]
        pairs = zip(case.arrays, types)
        variables = [jt.array(rounded(array, type)).cast(type) for array, type in pairs]
        variables = variables if operator else [v.float32() for v in variables]
        with compiled(case.operator, on=operator):
            if operator and case.operator == attention.NAME and not attention.tiled(variables[0]):
                where = "GPU" if jt.flags.use_cuda else "CPU"
                raise LeftOut(f"the {where} has no operator for attention in {kind}")
            y = case.function(*variables)
            gradients = gradients_of(y, [variables[i] for i in case.wanted], kind)
        return [y], gradients

    return compute


def _correction_cases(target: str, size: str) -> Iterator[Case]:
    """FlowSeg's correction in the size of a training crop, against its twin in float64 on some of
    the rows, evenly spaced.
    """
    side, classes = (64 if size == "tiny" else 512), 150
    x, codes = random(1, 3, side, side) * 0.6, class_codes(classes).astype(np.float32)
    labels = np.random.default_rng(0).integers(-1, classes, (1, side, side)).astype(np.int32)
    rows = np.linspace(0, side - 1, 16).astype(int)

    def operator(tau):
        gradient, phi = potential.correction(x, labels, codes, tau)
        return [gradient.numpy()[:, :, rows], phi.numpy()[:, rows]], []

    def twin(tau):
        points, numbers = (jt.array(v, dtype="float64") for v in (x[:, :, rows], codes))
        gradient, phi = potential.correction(points, labels[:, rows], numbers, tau)
        return [gradient, phi], []

    # On the CPU 6e-7. A GPU's fast exponential and logarithm err by up to 20 units of rounding in
    # powers, 1e-6: 2e-5 leaves room for the sums of such.
    for tau in (1.0, 0.5):
        title = f"correction {side}x{side}, {classes} classes, tau {tau:g}"
        compute, reference = (lambda f=f, tau=tau: f(tau) for f in (operator, twin))
        yield compared(title, target, compute, 2e-5, reference, {"operator": CORRECTION})


def kernel_time_cases(target: str, size: str) -> Iterator[Case]:
    """Each operator against what the networks do without it, result and gradients, float32."""
    for case in operator_cases(large=size == "release"):

        def compare(case=case):
            device(target)
            variables = [jt.array(array) for array in case.arrays]
            inputs = [variables[i] for i in case.wanted]
            factor = jt.array(random(*case.function(*variables).shape)).stop_grad()

            def forward():
                with jt.no_grad():
                    case.function(*variables).sync()

            def backward():
                jt.sync(jt.grad(case.function(*variables) * factor, inputs))

            best = {}
            for compute in (forward, backward):
                for on in (True, False):
                    with compiled(case.operator, on=on):
                        best[compute, on] = seconds(compute, 10, 3.0)
            return {
                "seconds": best[forward, True],
                "ratio": best[forward, False] / best[forward, True],
                "ratio with gradients": best[backward, False] / best[backward, True],
            }

        shape = "x".join(map(str, case.arrays[0].shape))
        yield Case(case.title, compare, None, {"operator": case.operator, "note": shape})


def seconds(compute: Callable, repetitions: int = 5, limit: float = 20.0) -> float:
    """The best time of compute(), after one call that is not counted."""
    best, spent = float("inf"), 0.0
    for number in range(repetitions + 1):
        jt.sync_all(True)
        before = time.perf_counter()
        compute()
        jt.sync_all(True)
        duration = time.perf_counter() - before
        best = min(best, duration) if number else best
        spent += duration
        if number and spent > limit:
            break
    return best
