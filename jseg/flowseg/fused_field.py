"""The neural field as one operator on the CPU, patch by patch: nothing of a patch leaves the cache.

The field (`jseg.flowseg.neural_field`, Eq. 9 and 12 of PixNerd) in plain Jittor goes over the
values of all patches a dozen times, with products of 16 and 32 columns that are small for oneDNN.
Here a patch's pixels go through all blocks at once. Kept for the gradient are the inputs; the
gradient computes the rest again, block by block. With u = norm(h), z = u W1, s = silu(z), y = h +
s W2 and dy the gradient of y,

    dW2 = s^T dy,   dz = silu'(z) (dy W2^T),   dW1 = u^T dz,   dh = dy + (gradient of the norm)(dz W1^T),

and the gradient of a generated column w with unit column e is (de - e (e . de)) / |w|. Gradients of
what all patches share are added up in runs of patches, so that results do not depend on the number
of threads. float32 only; on CUDA the twin, plain Jittor in `neural_field`, computes.
"""

from __future__ import annotations

from typing import List

from jseg.flowseg.field_source import BACKWARD, FORWARD, HEADER, SETUP
from jseg.nn.kernels import Function, compiles
from jseg.runtime import jt

NAME = "neural_field"
RUN = 32  # patches whose gradients of shared weights are added up at a time
FLOOR = 1e-24  # of a generated column's squared length
COLOURS = 8  # of a pixel, at most: x_t's and the image's


def fused(x) -> bool:
    """Whether this operator takes a field whose pixels are x [n, p^2, C]."""
    fits = x.dtype == "float32" and x.shape[2] <= COLOURS
    return fits and not jt.flags.use_cuda and compiles(NAME, x)


def neural_field(pixels, colour, place, norms, last, bias, generated: List, eps: float):
    """The field of pixels [n, p^2, C] -> [n, p^2, 3].

    colour [C, X] and place [p^2, X]: the embedding of a pixel's colours and of its place. norms
    [blocks + 1, X]: the weights of each block's norm and of the last. last [3, X], bias [3]: the
    final layer. generated: for each block, weights [n, 2 X hidden], W1 before W2. Gradients of
    gradients are not supported.
    """
    return NeuralFieldFunction(eps)(pixels, colour, place, norms, last, bias, *generated)


class NeuralFieldFunction(Function):
    """As `neural_field`, on Vars alone."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, *inputs):
        self.keep(*inputs)
        pixels = inputs[0]
        with jt.no_grad():
            return jt.code(
                [pixels.shape[0], pixels.shape[1], 3],
                "float32",
                list(inputs),
                cpu_header=header(),
                cpu_src=source(FORWARD, len(inputs)),
                data={"eps": self.eps},
            )

    def grad(self, gradient):
        inputs = list(self.recall())
        pixels, shared, generated = inputs[0], inputs[1:6], inputs[6:]
        sizes = [v.numel() for v in shared]
        with jt.no_grad():
            of_pixels, parts, *of_generated = jt.code(
                [pixels.shape, [-(-pixels.shape[0] // RUN), sum(sizes)]]
                + [v.shape for v in generated],
                ["float32"] * (2 + len(generated)),
                [*inputs, gradient],
                cpu_header=header(),
                cpu_src=source(BACKWARD, len(inputs)),
                data={"eps": self.eps},
            )
            total, of_shared, start = parts.sum(0), [], 0
            for v, size in zip(shared, sizes):
                of_shared.append(total[start : start + size].reshape(v.shape))
                start += size
            return (of_pixels, *of_shared, *of_generated)


def header() -> str:
    return HEADER.replace("@RUN@", str(RUN)).replace("@FLOOR@", f"{FLOOR}f")


def source(text: str, count: int) -> str:
    """A kernel's source for that number of inputs, the gradient apart."""
    blocks = range(count - 6)
    names = {
        "@GENERATED@": ", ".join(f"in{6 + k}_p" for k in blocks),
        "@OF_GENERATED@": ", ".join(f"out{2 + k}_p" for k in blocks),
        "@GRADIENT@": f"in{count}_p",
    }
    text = SETUP + text
    for name, value in names.items():
        text = text.replace(name, value)
    return text
