"""A strip of a feature map with its neighbours' border rows, normalised and activated.

On the CPU one compiled operator makes it in one pass: it reads the border rows where they are, in
the neighbouring strips, and writes what the convolution reads. `plain_with_halo` is its twin.
"""

from __future__ import annotations

from typing import List

from jseg.nn.kernels import compiles
from jseg.nn.layers import silu
from jseg.runtime import jt

NAME = "halo"


def with_halo(
    strips: List, i: int, coefficients=None, above: int = 1, below: int = 1, right: int = 0
):
    """silu((x - shift) scale + bias) of strip i [B, C, h, W], or x itself without coefficients,
    with `above` and `below` rows of the neighbours: [B, C, above + h + below, W + right].

    coefficients [3, B, C]: shift, scale and bias. above, below, right: 0 or 1; rows beyond the map
    and the column on the right are zero, after the activation.
    """
    form = compiled_with_halo if _compiles(strips[i]) else plain_with_halo
    return form(strips, i, coefficients, above, below, right)


def _compiles(x) -> bool:
    on_cpu = compiles(NAME, x) and not jt.flags.use_cuda
    return on_cpu and x.dtype == "float32" and bool(jt.flags.no_grad)


def compiled_with_halo(strips: List, i: int, coefficients, above: int, below: int, right: int):
    """The operator, without gradient; where no neighbour is read, strip i stands in for it."""
    first, last = i == 0, i == len(strips) - 1
    x = strips[i]
    upper = strips[i - 1] if above and not first else x
    lower = strips[i + 1] if below and not last else x
    batch, channels, height, width = x.shape
    others = [] if coefficients is None else [coefficients]
    return jt.code(
        [batch, channels, above + height + below, width + right],
        "float32",
        [x, upper, lower, *others],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_SOURCE.replace("COEFFICIENTS", "in3_p" if others else "nullptr"),
        data={"above": above, "below": below, "first": int(first), "last": int(last)},
    )


def plain_with_halo(strips: List, i: int, coefficients, above: int, below: int, right: int):
    """The twin of `compiled_with_halo`."""
    # The neighbours' rows.
    parts = [strips[i]]
    first, last = i == 0, i == len(strips) - 1
    if above and not first:
        parts.insert(0, strips[i - 1][:, :, -1:])
    if below and not last:
        parts.append(strips[i + 1][:, :, :1])
    y = jt.concat(parts, dim=2) if len(parts) > 1 else strips[i]  # [B, C, h + halo, W]

    # Norm and activation.
    batch, channels, height, width = y.shape
    if coefficients is not None:
        shift, scale, bias = (v.reshape(batch, channels, 1, 1) for v in coefficients)
        y = silu((y - shift) * scale + bias)

    # Zeros beyond the map.
    zeros_above, zeros_below = int(first and above), int(last and below)
    if zeros_above or zeros_below or right:
        y = y.reindex(
            [batch, channels, height + zeros_above + zeros_below, width + right],
            ["i0", "i1", f"i2-{zeros_above}", "i3"],
            overflow_value=0,
        )
    return y


CPU_HEADER = """
#include <algorithm>
#include <cmath>
namespace {
// What is done to the values of a channel: silu((x - shift) scale + bias), or nothing.
struct Channel {
    bool activates;
    float shift, scale, bias;

    void line(long n, const float* x, float* y) const {
        if (!activates) { std::copy_n(x, n, y); return; }
        #pragma omp simd
        for (long j = 0; j < n; j++) {
            float z = (x[j] - shift) * scale + bias;
            y[j] = z / (1 + std::exp(z < -80 ? 80 : -z));
        }
    }

    // Rows of x, each with zeros behind it; returns the end of y.
    float* rows(long count, long width, long zeros, const float* x, float* y) const {
        if (zeros == 0) { line(count * width, x, y); return y + count * width; }
        for (long row = 0; row < count; row++, x += width, y += width + zeros) {
            line(width, x, y);
            std::fill_n(y + width, zeros, 0.f);
        }
        return y;
    }
};
}
"""

CPU_SOURCE = """
long height = in0_shape2, width = in0_shape3, zeros = out_shape3 - width, channels = in0_shape0 *
    in0_shape1;
bool above = data["above"] != 0, below = data["below"] != 0, first = data["first"] != 0,
     last = data["last"] != 0;
const float* coefficients = COEFFICIENTS;
#pragma omp parallel for
for (long c = 0; c < channels; c++) {
    Channel channel{coefficients != nullptr, 0, 1, 0};
    if (coefficients) {
        channel.shift = coefficients[c];
        channel.scale = coefficients[channels + c];
        channel.bias = coefficients[2 * channels + c];
    }
    const float *upper = in1_p + ((c + 1) * in1_shape2 - 1) * width,
                *lower = in2_p + c * in2_shape2 * width;
    float* y = out_p + c * out_shape2 * out_shape3;
    if (above && first) y = std::fill_n(y, out_shape3, 0.f);
    if (above && !first) y = channel.rows(1, width, zeros, upper, y);
    y = channel.rows(height, width, zeros, in0_p + c * height * width, y);
    if (below && !last) y = channel.rows(1, width, zeros, lower, y);
    if (below && last) std::fill_n(y, out_shape3, 0.f);
}
"""
