"""Convolutions as one product of matrices on the CPU: weights times a map's columns (im2col).

1x1 convolutions of any map, and 3x3 ones of maps so small that their weights, which come from
memory, take more time than their products: Winograd's algorithm would transform each of them for a
few tiles only. The weights are read in place; bias and skip connection are added to the product
while it is at hand. The source is in im2col.h. The twins in plain Jittor, and the choice, are in
`jseg.nn.convolution` and `jseg.nn.layers.Pointwise`.
"""

from __future__ import annotations

from typing import Tuple

from jseg.nn import lanes, winograd
from jseg.nn.kernels import compiles
from jseg.runtime import jt

NAME = "im2col"
HEADER = lanes.source("im2col.h")

# weight [O, C, ...], or for the gradient of the input [C, O, ...], turned by half a turn.
MULTIPLY = """
im2col::Map s{in0_shape0, in0_shape1, in0_shape2, in0_shape3, (long)data["side"],
              out_shape2, out_shape3, (long)data["above"], (long)data["left"]};
bool backward = data["backward"] != 0;
long inner = s.channels * s.taps(), outputs = out_shape1;
std::vector<long> at(inner);
for (long k = 0; k < inner; k++) {
    long tap = k % s.taps();
    at[k] = backward ? k / s.taps() * outputs * s.taps() + s.taps() - 1 - tap : k;
}
lanes::MatrixInPlace w{in1_p, outputs, backward ? s.taps() : inner, at.data()};
auto read = [&](long k, long start, long count, float* line) {
    im2col::read_positions(s, in0_p, k, start, count, line);
};
im2col::multiply(s.batch, outputs, inner, s.positions(), w, read, BIAS, REST, out_p);
"""
# The gradient of the result times what each of its positions sees.
OF_WEIGHT = """
im2col::Map s{in0_shape0, in0_shape1, in0_shape2, in0_shape3, (long)data["side"],
              in1_shape2, in1_shape3, (long)data["above"], (long)data["left"]};
long inner = s.batch * s.positions(), outputs = in1_shape1;
std::vector<long> at(inner);
for (long k = 0; k < inner; k++)
    at[k] = k / s.positions() * outputs * s.positions() + k % s.positions();
lanes::MatrixInPlace gradient{in1_p, outputs, s.positions(), at.data()};
auto read = [&](long k, long start, long count, float* line) {
    im2col::read_taps(s, in0_p, k, start, count, line);
};
im2col::multiply(1, outputs, inner, s.channels * s.taps(), gradient, read, nullptr, nullptr, out_p);
"""
# 3x3, by benchmarks/convolutions.py: the most results of one output.
MOST_POSITIONS = 64


def faster(x, weight, padding: Tuple[int, int] = (0, 0)) -> bool:
    """Whether this operator is the one for x [B, C, H, W] and weight [O, C, 1, 1] or
    [O, C, 3, 3].
    """
    if not compiles(NAME, x) or not lanes.suit(x, weight):
        return False
    side = weight.shape[2]
    height, width = (s + 2 * more - side + 1 for s, more in zip(x.shape[2:], padding))
    return side == 1 or pays(x.shape[0], *weight.shape[:2], height, width)


def pays(batch: int, outputs: int, channels: int, height: int, width: int) -> bool:
    """Whether a 3x3 convolution with results of that size was measured to be faster."""
    in_cache = 9 * channels * outputs <= winograd.WEIGHTS_IN_CACHE
    few = batch * height * width <= MOST_POSITIONS
    return few and not in_cache and min(channels, outputs) >= winograd.LEAST_CHANNELS


def convolve(x, weight, padding: Tuple[int, int] = (0, 0), bias=None, rest=None):
    """x [B, C, H, W] convolved with weight [O, C, s, s], s = 1 or 3, plus bias [O] and rest, which
    is like the result [B, O, H', W'].

    padding: zero rows above and below, zero columns left and right.
    """
    above, left = padding
    side = weight.shape[2]
    sides = [s + 2 * more - side + 1 for s, more in zip(x.shape[2:], padding)]
    shape = [x.shape[0], weight.shape[0], *sides]
    data = dict(side=side, above=above, left=left, backward=0)
    return lanes.convolution(HEADER, MULTIPLY, shape, x, weight, bias, rest, **data)


def input_gradient(gradient, x, weight, padding: Tuple[int, int] = (0, 0)):
    """The gradient of `convolve` for x [B, C, H, W]."""
    side = weight.shape[2]
    above, left = (side - 1 - more for more in padding)
    data = dict(side=side, above=above, left=left, backward=1)
    return lanes.convolution(HEADER, MULTIPLY, list(x.shape), gradient, weight, **data)


def weight_gradient(gradient, x, padding: Tuple[int, int]):
    """The gradient of `convolve` for its weight [O, C, 3, 3]."""
    above, left = padding
    return jt.code(
        [gradient.shape[1], x.shape[1], 3, 3],
        "float32",
        [x, gradient],
        cpu_header=HEADER,
        cpu_src=OF_WEIGHT,
        data={"side": 3, "above": above, "left": left},
    )
