"""3x3 convolution with stride 1 by Winograd's F(4x4, 3x3) on the CPU.

A tile of 4x4 results takes 36 products in place of 144 (Lavin and Gray 2016). The source is in
winograd.h and the headers it names; vectors are as wide as the processor's. Both gradients are
computed the same way. The twin in plain Jittor, and the choice between the two, are in
`jseg.nn.convolution`.
"""

from __future__ import annotations

from typing import List, Tuple

from jseg.nn import lanes
from jseg.nn.kernels import compiles
from jseg.runtime import jt

NAME = "winograd"
# Where it is faster than Jittor's convolution, by benchmarks/convolutions.py: with so many channels
# on both sides (for the result alone, of the input), and so many tiles of 4x4 results for weights
# that have to come from memory.
LEAST_CHANNELS, LEAST_TILES, WEIGHTS_IN_CACHE = 8, 8, 1 << 18


HEADER = lanes.source("winograd_tiles.h", "winograd.h")
SIZES = """
winograd::Sizes s{};
s.batch = in0_shape0, s.channels = in0_shape1, s.height = in0_shape2, s.width = in0_shape3;
s.above = (long)data["above"], s.left = (long)data["left"], s.doubled = data["doubled"] != 0;
"""
CONVOLVE = (
    SIZES
    + """
s.outputs = out_shape1, s.out_height = out_shape2, s.out_width = out_shape3;
winograd::convolve(s, in0_p, in1_p, data["backward"] != 0, BIAS, REST, out_p);
"""
)
OF_WEIGHT = (
    SIZES
    + """
s.outputs = in1_shape1, s.out_height = in1_shape2, s.out_width = in1_shape3;
winograd::weight_gradient(s, in0_p, in1_p, out_p);
"""
)


def faster(x, weight, padding: Tuple[int, int], doubled: bool) -> bool:
    """Whether this operator is the one for x [B, C, H, W] and weight [O, C, 3, 3]: float32 on an
    x86 CPU with AVX2 or AVX-512, and of a shape for which it was measured to be faster.
    """
    if not compiles(NAME, x) or not lanes.suit(x, weight):
        return False
    height, width = result_size(x, padding, doubled)
    return pays(x.shape[0], *weight.shape[:2], height, width, gradients=not jt.flags.no_grad)


def pays(batch: int, outputs: int, channels: int, height: int, width: int, gradients=False) -> bool:
    """Whether it was measured to be faster for results of that size."""
    tiles = batch * -(-height // 4) * -(-width // 4)
    least = min(channels, outputs) if gradients else channels
    in_cache = 9 * channels * outputs <= WEIGHTS_IN_CACHE
    return least >= LEAST_CHANNELS and tiles >= (1 if in_cache else LEAST_TILES)


def result_size(x, padding: Tuple[int, int], doubled: bool) -> List[int]:
    """[H', W'] of the convolution of x [B, C, H, W]."""
    return [side * (1 + doubled) + 2 * more - 2 for side, more in zip(x.shape[2:], padding)]


def convolve(x, weight, padding: Tuple[int, int], doubled: bool, bias=None, rest=None):
    """x [B, C, H, W] convolved with weight [O, C, 3, 3], plus bias [O] and rest, which is like the
    result [B, O, H', W'].

    padding: zero rows above and below, zero columns left and right; -1 leaves out the map's first
    and last row. doubled: every pixel of x counts as 2x2 of them.
    """
    above, left = padding
    shape = [x.shape[0], weight.shape[0], *result_size(x, padding, doubled)]
    data = dict(above=above, left=left, doubled=int(doubled), backward=0)
    return lanes.convolution(HEADER, CONVOLVE, shape, x, weight, bias, rest, **data)


def input_gradient(gradient, x, weight, padding: Tuple[int, int], doubled: bool):
    """The gradient of `convolve` for x."""
    height, width = (side * (1 + doubled) for side in x.shape[2:])
    shape = [x.shape[0], x.shape[1], height, width]
    above, left = (2 - side for side in padding)
    data = dict(above=above, left=left, doubled=0, backward=1)
    of_x = lanes.convolution(HEADER, CONVOLVE, shape, gradient, weight, **data)
    if doubled:
        of_x = of_x.reshape(*x.shape[:3], 2, x.shape[3], 2).sum((3, 5))
    return of_x  # [B, C, H, W]


def weight_gradient(gradient, x, padding: Tuple[int, int], doubled: bool):
    """The gradient of `convolve` for its weight [O, C, 3, 3]."""
    above, left = padding
    return jt.code(
        [gradient.shape[1], x.shape[1], 3, 3],
        "float32",
        [x, gradient],
        cpu_header=HEADER,
        cpu_src=OF_WEIGHT,
        data={"above": above, "left": left, "doubled": int(doubled)},
    )
