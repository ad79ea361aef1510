"""The likeliest class of each pixel of an enlarged map of probabilities, without the enlarged map.

An image of 1024x768 with 29 classes has 23 million probabilities once they are enlarged to its
size, of which only the place of the largest in each pixel is asked for. On the CPU one compiled
operator goes over the rows of the result, class by class, with the best probability so far in a
buffer of one row. `likeliest` is its twin in NumPy, for other devices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jseg.nn.kernels import compiles
from jseg.runtime import jt

NAME = "likeliest"


class Neighbours(NamedTuple):
    """For each new position on an axis, the two old ones around its centre, and the weight of the
    second.
    """

    before: np.ndarray  # intp [n]
    after: np.ndarray  # intp [n]
    weight: np.ndarray  # float32 [n], 0 to below 1

    def part(self, places: slice, first: int) -> "Neighbours":
        """Those of a run of new positions, counted from the old position `first`."""
        before, after, weight = (values[places] for values in self)
        return Neighbours(before - first, after - first, weight)


def neighbours(length: int, target: int) -> Neighbours:
    """How an axis of `length` positions becomes one of `target`, bilinearly, centres on centres."""
    centres = np.clip((np.arange(target) + 0.5) * (length / target) - 0.5, 0, length - 1)
    before = np.floor(centres).astype(np.intp)
    after = np.minimum(before + 1, length - 1)
    return Neighbours(before, after, (centres - before).astype(np.float32))


def interpolated(rows: np.ndarray, down: Neighbours, across: Neighbours) -> np.ndarray:
    """rows [N, h, w] at new positions of both axes: float32 [N, h', w']."""
    weight = down.weight[:, None]
    lines = rows[:, down.before] * (1 - weight) + rows[:, down.after] * weight  # [N, h', w]
    left, right = lines[:, :, across.before], lines[:, :, across.after]
    return left * (1 - across.weight) + right * across.weight  # [N, h', w']


def likeliest(rows: np.ndarray, down: Neighbours, across: Neighbours) -> np.ndarray:
    """The number of the largest of the N maps of probabilities that `interpolated` gives, int32
    [h', w'], the lowest on ties.
    """
    if jt.flags.use_cuda or not compiles(NAME, rows):
        return interpolated(rows, down, across).argmax(0).astype(np.int32)
    axes = [
        jt.array(values.astype(np.float32 if values.dtype.kind == "f" else np.int32))
        for values in (*down, *across)
    ]
    with jt.no_grad():
        labels = jt.code(
            [len(down.weight), len(across.weight)],
            "int32",
            [jt.array(rows), *axes],
            cpu_header=CPU_HEADER,
            cpu_src=CPU_SOURCE,
        )
        return labels.numpy()


# Without contraction: products are rounded before they are added, as NumPy does.
CPU_HEADER = """
#include <algorithm>
#include <numeric>
#include <vector>
namespace {
__attribute__((optimize("fp-contract=off")))
void between(long n, const float* a, const float* b, float weight, float* line) {
    #pragma omp simd
    for (long i = 0; i < n; i++) line[i] = a[i] * (1 - weight) + b[i] * weight;
}

// Where the class's values, interpolated along the line, exceed the best so far.
__attribute__((optimize("fp-contract=off")))
void compare(long n, const float* line, const int* left, const int* right, const float* weights,
             int number, float* best, int* labels) {
    #pragma omp simd
    for (long i = 0; i < n; i++) {
        float value = line[left[i]] * (1 - weights[i]) + line[right[i]] * weights[i];
        bool more = value > best[i] || (value == best[i] && number < labels[i]);
        best[i] = more ? value : best[i];
        labels[i] = more ? number : labels[i];
    }
}
}
"""

# Classes come by their largest value in the row, until that is below the best of every pixel, by
# more than rounding.
CPU_SOURCE = """
long classes = in0_shape0, rows = in0_shape1, width = in0_shape2, target = out_shape1;
#pragma omp parallel for
for (long row = 0; row < out_shape0; row++) {
    std::vector<float> lines(classes * width), most(classes), best(target, -1);
    std::vector<int> order(classes);
    for (long k = 0; k < classes; k++) {
        const float *above = in0_p + (k * rows + in1_p[row]) * width,
                    *below = in0_p + (k * rows + in2_p[row]) * width;
        float* line = lines.data() + k * width;
        between(width, above, below, in3_p[row], line);
        for (long i = 0; i < width; i++) most[k] = std::max(most[k], line[i]);
    }
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return most[a] > most[b]; });

    int* labels = out_p + row * target;
    float least = -1;
    for (int k : order) {
        if (most[k] * 1.000001f < least) break;
        compare(target, lines.data() + k * width, in4_p, in5_p, in6_p, k, best.data(), labels);
        least = best[0];
        for (long i = 0; i < target; i++) least = std::min(least, best[i]);
    }
}
"""
