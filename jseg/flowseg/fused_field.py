"""The neural field as one operator on the CPU, patch by patch: nothing of a patch leaves the cache.

The field (`jseg.flowseg.neural_field`, Eq. 9 and 12 of PixNerd) in plain Jittor goes over the
values of all patches a dozen times, with products of 16 and 32 columns that are small for oneDNN.
Here a patch's pixels go through all blocks at once. Kept for the gradient are the inputs and the
generated weights; the gradient computes the rest again, block by block. With u = norm(h), z = u W1,
s = silu(z), y = h + s W2 and dy the gradient of y,

    dW2 = s^T dy,   dz = silu'(z) (dy W2^T),   dW1 = u^T dz,
    dh = dy + (gradient of the norm)(dz W1^T),

and the gradient of a generated column w with unit column e is (de - e (e . de)) / |w|. Gradients of
what all patches share are added up in runs of patches, so results do not depend on the number of
threads. float32 only; on CUDA and without oneDNN the twin computes, plain Jittor in
`jseg.flowseg.neural_field`.
"""

from __future__ import annotations

from typing import List, Tuple

from jseg.flowseg.field_source import BACKWARD, FORWARD, GENERATOR, HEADER, SETUP
from jseg.nn import precision
from jseg.nn.kernels import PRODUCTS_HEADER, Function, compiles, onednn
from jseg.runtime import jt

NAME = "neural_field"
RUN = 32  # patches whose gradients of shared weights are added up at a time
FLOOR = 1e-24  # of a generated column's squared length
COLOURS = 8  # of a pixel, at most: x_t's and the image's
# Floats behind each patch's gradient of generated weights: with rows of 4096 bytes, oneDNN's
# product over patches takes twice as long, since their columns share lines of the cache.
GAP = 16


def fused(x) -> bool:
    """Whether this operator takes a field whose pixels are x [n, p^2, C]."""
    fits = x.dtype == "float32" and x.shape[2] <= COLOURS
    here = not jt.flags.use_cuda and not precision.is_half()
    return fits and here and compiles(NAME, x) and onednn()


def neural_field(
    pixels, colour, place, norms, last, bias, tokens, generators: List[Tuple], eps: float
):
    """The field of pixels [n, p^2, C] -> [n, p^2, 3].

    colour [C, X] and place [p^2, X]: the embedding of a pixel's colours and of its place. norms
    [blocks + 1, X]: the weights of each block's norm and of the last. last [3, X], bias [3]: the
    final layer. tokens [n, D]; generators: for each block, weight [2 X hidden, D] and bias of the
    layer that makes a token W1 and W2. Gradients of gradients are not supported.
    """
    layers = [v for layer in generators for v in layer]
    return NeuralFieldFunction(eps)(pixels, colour, place, norms, last, bias, tokens, *layers)


class NeuralFieldFunction(Function):
    """As `neural_field`, on Vars alone."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, *inputs):
        shared, tokens, layers = inputs[:6], inputs[6], inputs[7:]
        with jt.no_grad():
            generated = [
                jt.nn.matmul_transpose(tokens, weight) + of_weight
                for weight, of_weight in zip(layers[::2], layers[1::2])
            ]
            self.keep(shared, tokens, layers[::2], generated)
            return jt.code(
                list(inputs[0].shape[:2]) + [3],
                "float32",
                [*shared, *generated],
                cpu_header=header(),
                cpu_src=source(FORWARD, len(generated)),
                data={"eps": self.eps},
            )

    def grad(self, gradient):
        shared, tokens, weights, generated = self.recall()
        patches, sizes = tokens.shape[0], [v.numel() for v in shared[1:]]
        with jt.no_grad():
            of_pixels, parts, *of_generated = jt.code(
                [shared[0].shape, [-(-patches // RUN), sum(sizes)]]
                + [[patches, v.shape[1] + GAP] for v in generated],
                ["float32"] * (2 + len(generated)),
                [*shared, *generated, gradient],
                cpu_header=header(),
                cpu_src=source(BACKWARD, len(generated)),
                data={"eps": self.eps},
            )

            # What all patches share, out of one row.
            total, of_shared, start = parts.sum(0), [], 0
            for v, size in zip(shared[1:], sizes):
                of_shared.append(total[start : start + size].reshape(v.shape))
                start += size

            of_tokens, of_layers = 0, []
            for of_weights, weight in zip(of_generated, weights):
                part, *of_layer = _of_generator(of_weights, tokens, weight)
                of_tokens = of_tokens + part
                of_layers += of_layer
            return (of_pixels, *of_shared, of_tokens, *of_layers)


def _of_generator(gradient, tokens, weight):
    """Gradients of tokens, weight and bias of a layer, from that of its result with a gap."""
    return jt.code(
        [tokens.shape, weight.shape, weight.shape[:1]],
        ["float32"] * 3,
        [gradient, tokens, weight],
        cpu_header=PRODUCTS_HEADER,
        cpu_src=GENERATOR,
    )


def header() -> str:
    """The C++ functions with this module's numbers in them."""
    text = HEADER.replace("@RUN@", str(RUN)).replace("@GAP@", str(GAP))
    return text.replace("@FLOOR@", f"{FLOOR}f")


def source(text: str, blocks: int) -> str:
    """A kernel's source for a number of blocks."""
    names = {
        "@GENERATED@": ", ".join(f"in{6 + k}_p" for k in range(blocks)),
        "@OF_GENERATED@": ", ".join(f"out{2 + k}_p" for k in range(blocks)),
        "@GRADIENT@": f"in{6 + blocks}_p",
    }
    text = SETUP + text
    for name, value in names.items():
        text = text.replace(name, value)
    return text
