"""Operators compiled from source (jt.code), each beside its twin in plain Jittor, and used only where it was measured to be faster.

On the CPU, Jittor's reductions over the last axis run at a twentieth of the memory's speed; the kernels here take one pass a sum.
Sums go in blocks of `BLOCK` floats, added in double precision.
"""
from __future__ import annotations

from jseg.runtime import jt

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
}
"""

FORWARD = """
long rows = in0_shape0, n = in0_shape1;
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float* x = in0_p + i * n;
    float* y = out0_p + i * n;
    double sum, rest, squares;
    sums(n, sum, rest, [&](long j) { return x[j]; }, [&](long j) { return 0.f; });
    float first = sum / n;
    sums(n, rest, squares, [&](long j) { return x[j] - first; }, [&](long j) { return (x[j] - first) * (x[j] - first); });
    rest /= n;
    float mean = rest, scale = 1 / std::sqrt(squares / n - rest * rest + data["eps"]);
    for (long j = 0; j < n; j++) y[j] = (x[j] - first - mean) * scale;
    out1_p[i] = scale;
}
"""

BACKWARD = """
long rows = in0_shape0, n = in0_shape1;
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float *g = in0_p + i * n, *y = in1_p + i * n;
    float* d = out0_p + i * n;
    double sum, product;
    sums(n, sum, product, [&](long j) { return g[j]; }, [&](long j) { return g[j] * y[j]; });
    float a = sum / n, b = product / n, scale = in2_p[i];
    for (long j = 0; j < n; j++) d[j] = scale * (g[j] - a - y[j] * b);
}
"""


def standardize(x, eps: float):
    """x [..., n] minus its mean over the last axis, divided by sqrt(variance + eps); two passes, the second corrects the first's mean.

    Gradients of gradients are not supported.
    """
    return _Standardize(eps)(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class _Standardize(jt.Function):
    """x [rows, n] -> y [rows, n]; the gradient needs y and the scales only: dx = scale (g - mean(g) - y mean(g y))."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x):
        with jt.no_grad():
            self.y, self.scale = _compiled_forward(x, self.eps) if _compiles(x) else plain_forward(x, self.eps)
        return self.y

    def grad(self, gradient):
        with jt.no_grad():
            return (_compiled_backward if _compiles(gradient) else plain_backward)(gradient, self.y, self.scale)


def _compiles(x) -> bool:
    return not jt.flags.use_cuda and x.dtype == "float32"


def _compiled_forward(x, eps: float):
    return jt.code([x.shape, [x.shape[0], 1]], ["float32", "float32"], [x], cpu_header=HEADER, cpu_src=FORWARD, data={"eps": eps})


def _compiled_backward(gradient, y, scale):
    return jt.code(gradient.shape, "float32", [gradient, y, scale], cpu_header=HEADER, cpu_src=BACKWARD)


def plain_forward(x, eps: float):
    """(standardized x, scale [rows, 1]) of x [rows, n]."""
    centred = x - x.mean(-1, keepdims=True)
    rest = centred.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True) - rest * rest
    scale = 1 / jt.sqrt(variance + eps)
    return (centred - rest) * scale, scale


def plain_backward(gradient, y, scale):
    """The gradient of x [rows, n] from that of y."""
    return scale * (gradient - gradient.mean(-1, keepdims=True) - y * (gradient * y).mean(-1, keepdims=True))
