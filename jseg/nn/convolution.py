"""3x3 convolutions with stride 1, also of a map that is doubled first.

On the CPU Winograd's algorithm computes them (`jseg.nn.winograd`), or of the smallest maps one
product of matrices (`jseg.nn.im2col`), where they were measured to be faster; elsewhere Jittor
does.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from jseg.nn import im2col, lanes, precision, winograd
from jseg.nn.kernels import Function
from jseg.runtime import jt

nn = jt.nn


class Conv3x3(nn.Conv2d):
    """3x3 convolution with stride 1: `weight` [out, in, 3, 3] and, if `bias`, `bias` [out]."""

    def __init__(self, channels_in: int, channels_out: int, padding: int = 1, bias: bool = True):
        super().__init__(channels_in, channels_out, 3, padding=padding, bias=bias)

    def execute(self, x, skip=None):
        """x [B, C, H, W] -> [B, O, H, W] (with padding 1), plus `skip`, which is like the
        result.
        """
        return conv3x3(x, self.weight, self.bias, padding=self.padding, skip=skip)

    def inner_rows(self, x, skip=None):
        """All but the first and the last row of the result, [B, O, H - 2, W]: what a strip gives
        that has one more row at each end.
        """
        return conv3x3(x, self.weight, self.bias, padding=(0, 1), skip=skip)

    def doubled(self, x):
        """The convolution of x doubled to the nearest: [B, C, H, W] -> [B, O, 2H, 2W]."""
        return conv3x3(x, self.weight, self.bias, doubled=True)

    def inner_rows_doubled(self, x):
        """`doubled` without the first and the last two rows, [B, O, 2H - 4, 2W]."""
        return conv3x3(x, self.weight, self.bias, padding=(-1, 1), doubled=True)


def conv3x3(x, weight, bias=None, padding: Tuple[int, int] = (1, 1), doubled=False, skip=None):
    """x [B, C, H, W], doubled first where `doubled`, convolved with weight [O, C, 3, 3], plus bias
    [O] and skip [B, O, H', W'] where they are given.

    padding: zero rows above and below and zero columns left and right; (-1, 1) leaves out the first
    and the last row of the (doubled) map. Gradients of gradients are not supported. Raises
    ValueError for shapes that do not belong together.
    """
    _check_shapes(x, weight, bias, padding, doubled, skip)
    if precision.is_half():
        y = _convolved(*precision.operands(x, weight), None, padding, doubled, None)
        return precision.result(y, None if bias is None else bias.reshape(1, -1, 1, 1), skip)
    return _convolved(x, weight, bias, padding, doubled, skip)


def _convolved(x, weight, bias, padding, doubled: bool, skip):
    if lanes.suit(*(v for v in (x, weight, bias, skip) if v is not None)):
        if winograd.faster(x, weight, padding, doubled):
            return ConvolutionFunction(winograd, padding, doubled)(x, weight, bias, skip)
        if not doubled and im2col.faster(x, weight, padding):
            return ConvolutionFunction(im2col, padding)(x, weight, bias, skip)
    return plain_conv3x3(x, weight, bias, padding, doubled, skip)


def _check_shapes(x, weight, bias, padding, doubled, skip) -> None:
    """Operators read as far as the shapes say that they may."""
    shapes = {"x": x, "weight": weight, "bias": bias, "skip": skip}
    shapes = {name: list(v.shape) for name, v in shapes.items() if v is not None}
    if x.ndim != 4 or list(weight.shape[1:]) != [x.shape[1], 3, 3]:
        raise ValueError(f"conv3x3: got {shapes}; expected x [B, C, H, W] and weight [O, C, 3, 3]")

    sides = winograd.result_size(x, padding, doubled)
    expected = {"bias": [weight.shape[0]], "skip": [x.shape[0], weight.shape[0], *sides]}
    wrong = [name for name, shape in expected.items() if shapes.get(name, shape) != shape]
    if wrong:
        wanted = " and ".join(f"{name} {expected[name]}" for name in wrong)
        raise ValueError(f"conv3x3: got {shapes}; expected {wanted}")


class ConvolutionFunction(Function):
    """(x [B, C, H, W], weight [O, C, 3, 3], bias [O] or None, skip like the result or None) ->
    [B, O, H', W'], as `algorithm`, the module `winograd` or `im2col`, computes it.
    """

    def __init__(self, algorithm, *form):
        self.algorithm, self.form = algorithm, form

    def execute(self, x, weight, bias, skip):
        self.has = bias is not None, skip is not None
        self.keep(x, weight)
        with jt.no_grad():
            return self.algorithm.convolve(x, weight, *self.form, bias, skip)

    def grad(self, gradient):
        (x, weight), (has_bias, has_skip) = self.recall(), self.has
        with jt.no_grad():
            of_x = self.algorithm.input_gradient(gradient, x, weight, *self.form)
            of_weight = self.algorithm.weight_gradient(gradient, x, *self.form)
            of_bias = gradient.sum((0, 2, 3)) if has_bias else None
            return of_x, of_weight, of_bias, gradient if has_skip else None


def plain_conv3x3(x, weight, bias, padding: Tuple[int, int], doubled: bool, skip=None):
    """The twin of `ConvolutionFunction`."""
    if doubled and not jt.flags.use_cuda and tuple(padding) in ((1, 1), (-1, 1)):
        y = _conv_by_parity(x, weight, padding)
    else:
        above, left = padding
        whole = upsample(x) if doubled else x
        whole = whole[:, :, -above : whole.shape[2] + above] if above < 0 else whole
        y = nn.conv2d(whole, weight, padding=(max(0, above), left))
    y = y if bias is None else y + bias.reshape(1, -1, 1, 1)
    return y if skip is None else skip + y  # [B, O, H', W']


def upsample(x):
    """Nearest-neighbour doubling of height and width: [B, C, H, W] -> [B, C, 2H, 2W]."""
    batch, channels, height, width = x.shape
    return x.reindex([batch, channels, 2 * height, 2 * width], ["i0", "i1", "i2/2", "i3/2"])


# [parity, source, tap]: which of a 3-tap kernel's entries fall on the earlier and on the later of
# the two source pixels that an output pixel of that parity sees after nearest doubling.
_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def _conv_by_parity(x, weight, padding: Tuple[int, int]):
    """The convolution of upsample(x), at 4/9 of its multiply-adds.

    Doubled pixels are equal, so each output parity is a 2x2 convolution of x whose weights are sums
    of the nine.
    """
    # The four 2x2 kernels, one behind another.
    channels_out, channels = weight.shape[:2]
    taps = np.einsum("pay,qbx->yxpqab", _TAPS, _TAPS).reshape(9, 16)
    weights = jt.matmul(weight.reshape(-1, 9), jt.array(taps).cast(weight.dtype))
    weights = weights.reshape(channels_out, channels, 4, 2, 2).permute(2, 0, 1, 3, 4)
    weights = weights.reshape(4 * channels_out, channels, 2, 2)

    # Their results, interleaved. Rows at the ends are left out with the rows of x they come from.
    y = nn.conv2d(x, weights, padding=(1 if padding[0] > 0 else 0, 1))  # [B, 4 O, H + 1, W + 1]
    batch, _, height, width = y.shape
    y = y.reshape(batch, 4, channels_out, height, width)
    return y.reindex(
        [batch, channels_out, 2 * height - 2, 2 * width - 2],
        ["i0", "i2%2*2+i3%2", "i1", "i2/2+i2%2", "i3/2+i3%2"],
    )
