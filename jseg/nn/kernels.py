"""Operators compiled from source (jt.code), each beside its twin in plain Jittor, and used only
where it was measured to be faster.

- `moments`: the mean and variance of every row. Jittor's reductions over the last axis are slow on
  the CPU; here each is one pass, in blocks of `BLOCK` floats whose sums are added in double
  precision.
- `products`: on the CPU, Jittor hands only two-dimensional matrix products to oneDNN and compiles
  batches of them as plain loops. A product per head and example would reach it, but as thousands of
  operations; from 100,000 on, Jittor gives up being lazy.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from typing import Iterator

from jseg.runtime import jt

# The operators that were measured to be faster than their twins on each device (docs/kernels.md);
# on CUDA, which nobody has measured, those that move less memory and leave the arithmetic to tensor
# cores. JSEG_FUSED in the environment, names with commas between them or nothing, takes its place.
FASTER = {
    "cpu": (
        *("group_norm", "rms_norm", "attention", "winograd", "im2col"),
        *("neural_field", "turned_heads", "transformer_block", "likeliest"),
        *("halo", "nearest_entry"),
    ),
    "cuda": ("group_norm", "rms_norm"),
}
HALVES = ("float16", "bfloat16")
# CUDA source that follows every launch of ours: an error of CUDA raises RuntimeError at once, with
# the operator and the shape of its first array. Without it, a refused launch leaves its output as
# it was.
LAUNCHED = """\
#include <initializer_list>
#include <string>
namespace {
inline void launched(const char* operation, std::initializer_list<long> shape) {
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return;
    std::string sizes;
    for (long size : shape) {
        if (size == 0) return;  // an empty array needs no block, which CUDA refuses
        sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    }
    LOGf << "CUDA reports" << cudaGetErrorString(error) << "after the launch of" << operation
         << "for an array of [" + sizes + "]";
}
}
"""
# CUDA source of the sum of every thread's value, for every thread of a block of THREADS; ends with
# all threads past it.
BLOCK_SUM = """\
__device__ inline float block_sum(float value) {
    __shared__ float held[THREADS];
    held[threadIdx.x] = value;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) held[threadIdx.x] += held[threadIdx.x + half];
    }
    __syncthreads();
    float sum = held[0];
    __syncthreads();
    return sum;
}
"""

_once = False


def compiles(name: str, x) -> bool:
    """Whether jseg.nn's compiled operator of that name is the one for x, on the present
    device.
    """
    wish = os.environ.get("JSEG_FUSED")
    names = FASTER["cuda" if jt.flags.use_cuda else "cpu"] if wish is None else wish.split(",")
    return name in names and str(x.dtype) in ("float32",) + HALVES


class Function(jt.Function):
    """jt.Function that can forget what it saved for its gradient.

    Jittor frees such objects, and with them the arrays they hold, only after a whole forward and
    backward pass is done.
    """

    def keep(self, *arrays) -> None:
        """Save what the gradient will need."""
        self.saved, self.once = arrays, _once

    def recall(self):
        """What was saved; inside of `graph_used_once`, the last time."""
        saved = self.saved
        if self.once:
            self.saved = None
        return saved


@contextlib.contextmanager
def graph_used_once() -> Iterator[None]:
    """Functions that run inside of the `with` give their gradient once only, and free what they
    saved.
    """
    global _once
    before, _once = _once, True
    try:
        yield
    finally:
        _once = before


HEADER = """
#include <cmath>
namespace {
const long BLOCK = 1024;
// Sums of f(j) and of g(j) for j = 0 ... n - 1.
template <class F, class G> void sums(long n, double& of_f, double& of_g, F f, G g) {
    of_f = of_g = 0;
    for (long start = 0; start < n; start += BLOCK) {
        long stop = start + BLOCK < n ? start + BLOCK : n;
        float a = 0, b = 0;
        for (long j = start; j < stop; j++) { a += f(j); b += g(j); }
        of_f += a;
        of_g += b;
    }
}
// A first mean of the n numbers, what it lacks, and their variance.
template <class T> void statistics_of(long n, const T* x, float& first, float& rest,
                                      double& variance) {
    double sum, lacking, squares;
    sums(n, sum, lacking, [&](long j) { return float(x[j]); }, [&](long j) { return 0.f; });
    float mean = sum / n;
    sums(n, lacking, squares, [&](long j) { return float(x[j]) - mean; },
         [&](long j) { float d = float(x[j]) - mean; return d * d; });
    lacking /= n;
    first = mean, rest = lacking, variance = squares / n - lacking * lacking;
}
}
"""


def _compiles(x) -> bool:
    return not jt.flags.use_cuda and x.dtype == "float32"


MOMENTS = """
long rows = in0_shape0, n = in0_shape1;
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    float first, rest;
    double variance;
    statistics_of(n, in0_p + i * n, first, rest, variance);
    out0_p[i] = first + rest;
    out1_p[i] = variance;
}
"""


def moments(x):
    """(mean, variance), [rows] each, of the rows of x [rows, n].

    float32, or float64 if x is; without gradient.
    """
    with jt.no_grad():
        if not _compiles(x):
            return plain_moments(x)
        return tuple(
            jt.code([x.shape[:1]] * 2, ["float32"] * 2, [x], cpu_header=HEADER, cpu_src=MOMENTS)
        )


def plain_moments(x):
    """The twin of `moments`."""
    x = x.float32() if str(x.dtype) in HALVES else x
    mean = x.mean(-1)
    centred = x - mean.unsqueeze(1)
    rest = centred.mean(-1)
    return mean + rest, (centred * centred).mean(-1) - rest * rest


PRODUCTS_HEADER = """
#include <cstdint>
#include <omp.h>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""

PRODUCTS = """
bool ta = data["ta"] != 0, tb = data["tb"] != 0, total = data["total"] != 0;
int64_t rows = out_shape1, columns = out_shape2, inner = ta ? in0_shape1 : in0_shape2;
int64_t n = in0_shape0 > in1_shape0 ? in0_shape0 : in1_shape0, failed = 0;
auto multiply = [&](int64_t i, float* c, float beta) {
    const float* a = in0_p + (in0_shape0 == 1 ? 0 : i * rows * inner);
    const float* b = in1_p + (in1_shape0 == 1 ? 0 : i * inner * columns);
    int64_t of_a = ta ? rows : inner, of_b = tb ? inner : columns;
    return dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', rows, columns, inner, 1.f, a, of_a, b, of_b,
                      beta, c, columns);
};
if (total)
    for (int64_t i = 0; i < n; i++) failed += multiply(i, out_p, i ? 1.f : 0.f) != 0;
else if (n >= 2 * omp_get_max_threads()) {
    #pragma omp parallel for reduction(+: failed)
    for (int64_t i = 0; i < n; i++) failed += multiply(i, out_p + i * rows * columns, 0.f) != 0;
} else
    for (int64_t i = 0; i < n; i++) failed += multiply(i, out_p + i * rows * columns, 0.f) != 0;
CHECK(!failed) << "dnnl_sgemm refused a product";
"""


def products(a, b, transpose_a: bool = False, transpose_b: bool = False, total: bool = False):
    """The matrix products of a [n, L, K] and b [n, K, M] -> [n, L, M], or with `total` their sum
    [1, L, M]; no gradient.

    transpose_a, transpose_b: a is [n, K, L], b is [n, M, K]. One of them may be [1, ...] for all n.
    """
    with jt.no_grad():
        if not (_compiles(a) and b.dtype == "float32" and onednn()):
            return plain_products(a, b, transpose_a, transpose_b, total)
        rows, columns = a.shape[2 if transpose_a else 1], b.shape[1 if transpose_b else 2]
        n = 1 if total else max(a.shape[0], b.shape[0])
        return jt.code(
            [n, rows, columns],
            "float32",
            [a, b],
            cpu_header=PRODUCTS_HEADER,
            cpu_src=PRODUCTS,
            data={"ta": int(transpose_a), "tb": int(transpose_b), "total": int(total)},
        )


def plain_products(a, b, transpose_a: bool, transpose_b: bool, total: bool):
    """The twin of `products`."""
    # Jittor's batched products take equal batches only.
    n = max(a.shape[0], b.shape[0])
    a, b = (v.expand(n, *v.shape[1:]) if v.shape[0] < n else v for v in (a, b))
    a = a.transpose(0, 2, 1) if transpose_a else a
    y = jt.nn.bmm_transpose(a, b) if transpose_b else jt.nn.bmm(a, b)
    return y.sum(0, keepdims=True) if total else y


@functools.lru_cache(maxsize=None)
def onednn() -> bool:
    """Whether oneDNN's matrix product is in this process for every library to see: Jittor loads it
    so, unless use_mkl=0.
    """
    return hasattr(ctypes.CDLL(None), "dnnl_sgemm")
