"""In what precision networks compute: float32, TF32 or half.

Weights, sums, norms, softmax, losses, samplers and optimisers are float32 in each. "tf32" rounds
the operands of float32 products to 10 bits of mantissa, which tensor cores of GPUs from 8.0 on do.
In "bf16" and "fp16" convolutions, linear layers and the products of attention and of the neural
field take their operands in bfloat16 or float16, and their results are of that type, which norms
and activations pass on (mixed precision, Micikevicius et al. 2018). On a CPU, which has no such
products, the same operands, results and gradients are rounded and stay float32: numbers near a
GPU's, at float32's speed. Jittor's own casts to bfloat16 would cut digits off there.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, NamedTuple, Optional

from jseg.machine.jittor_flags import EXACT
from jseg.runtime import jt


class Precision(NamedTuple):
    """kind: the type of products' operands, None for float32. unit: half of the distance of 1 to
    the next number. bytes: of an activation.
    """

    kind: Optional[str]
    unit: float
    bytes: int


PRECISIONS = {
    "float32": Precision(None, 2.0**-24, 4),
    "tf32": Precision(None, 2.0**-11, 4),
    "bf16": Precision("bfloat16", 2.0**-8, 2),
    "fp16": Precision("float16", 2.0**-11, 2),
}

# Compute capability, times ten, from which on GPUs have tensor cores for TF32 and bfloat16.
AMPERE = 80

_kind: Optional[str] = None


def chosen(name: Optional[str], device: str) -> str:
    """The precision of that name on that device, None being float32 on the CPU and TF32 on CUDA,
    unless the environment switches that off or the GPU lacks it.

    Raises ValueError for a name that there is not, or not on the device.
    """
    capability = _capability() if device == "cuda" else AMPERE
    exact = device != "cuda" or capability < AMPERE or os.environ.get(EXACT) == "0"
    if name is None:
        return "float32" if exact else "tf32"

    # What there is, and what the device has of it.
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r}; expected {', '.join(PRECISIONS)}")
    if name == "tf32" and device != "cuda":
        raise ValueError("precision tf32: a CPU has no TF32; expected float32, bf16 or fp16")
    if name in ("tf32", "bf16") and capability < AMPERE:
        raise ValueError(
            f"precision {name}: the GPU's compute capability is {capability / 10}; expected 8.0 or "
            "more, or float32 or fp16"
        )

    # TF32 is switched for the whole process, when CUDA's libraries are loaded.
    if name == "tf32" and exact:
        raise ValueError(f"precision tf32: {EXACT}=0 in the environment switches it off; unset it")
    if name == "float32" and not exact:
        raise ValueError(
            f"precision float32 on CUDA: cuDNN's convolutions use TF32; set {EXACT}=0 before "
            "Python starts"
        )
    return name


def _capability() -> int:
    """The least compute capability of the GPUs, times ten, as Jittor compiles for it."""
    return min(getattr(jt.flags, "cuda_archs", ()), default=AMPERE)  # a flag with CUDA alone


def use(name: Optional[str], device: str) -> str:
    """Compute in that precision from now on, as `chosen` names it; the name."""
    global _kind
    precision = chosen(name, device)
    jt.sync_all()  # Jittor looks at its flag when a product runs
    _kind, jt.flags.use_tensorcore = PRECISIONS[precision].kind, int(precision == "tf32")
    return precision


@contextlib.contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Inside of the `with`, networks compute in that precision of `PRECISIONS`.

    Gradients are to be asked for inside too.
    """
    global _kind
    before, flag = _kind, jt.flags.use_tensorcore
    jt.sync_all()
    _kind, jt.flags.use_tensorcore = PRECISIONS[name].kind, int(name == "tf32")
    try:
        yield
    finally:
        jt.sync_all()
        _kind, jt.flags.use_tensorcore = before, flag


def is_half() -> bool:
    """Whether products take their operands in half precision."""
    return _kind is not None


def operands(*values):
    """The Vars as a product takes them; None stays None."""
    if _kind is None:
        return values
    return tuple(v if v is None else _as_operand(v) for v in values)


def result(y, *summands):
    """A product and what is added to it, each a Var or None, of the type of results.

    The sum is float32, and so is the gradient of a bias.
    """
    parts = [v for v in (y, *summands) if v is not None]
    if _kind is None:
        return sum(parts[1:], parts[0])
    total = sum((v.float32() for v in parts[1:]), parts[0].float32())
    return total.cast(_kind) if jt.flags.use_cuda else _Rounded(_kind)(total)


def _as_operand(v):
    if not jt.flags.use_cuda:
        return _Rounded(_kind)(v)
    return v if v.dtype == _kind else v.cast(_kind)


class _Rounded(jt.Function):
    """float32 values as that type holds them, and their gradients likewise."""

    def __init__(self, kind: str):
        self.kind = kind

    def execute(self, x):
        with jt.no_grad():
            return rounded(x, self.kind)

    def grad(self, gradient):
        with jt.no_grad():
            return rounded(gradient, self.kind)


ROUND_BFLOAT16 = """
#pragma omp parallel for
for (long i = 0; i < in0->num; i++) {
    unsigned bits = ((const unsigned*)in0_p)[i];
    bool number = (bits & 0x7fffffff) <= 0x7f800000;
    ((unsigned*)out0_p)[i] = number ? (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000 : bits;
}
"""


def rounded(x, kind: str):
    """x, float32 on the CPU, rounded to the nearest number of that type, ties to even."""
    if kind == "bfloat16":
        return jt.code(x.shape, "float32", [x], cpu_src=ROUND_BFLOAT16)
    return x.cast(kind).float32()
