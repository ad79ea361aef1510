"""RMS norm with an adaptive scale and shift: y = q x s + b with q = (mean(x^2) + eps)^(-1/2), the
mean over the last axis.

With s = weight (1 + scale) and a shift b of each image's own it is the modulated norm of DiT's
blocks (Peebles and Xie 2023, adaLN) on Zhang and Sennrich's RMS norm (2019); with s = weight alone,
the plain norm. Sums are float32, whatever the type of x; q is kept:

    g = dy s,   dx = q (g - x q mean(g x q)),
    ds = sum dy x q,   db = sum dy,   over the tokens that share them.
"""

from __future__ import annotations

from jseg.nn.kernels import BLOCK_SUM, LAUNCHED, Function, compiles
from jseg.runtime import jt

NAME = "rms_norm"
RUN = 64  # tokens whose terms of ds and db are added up at a time

CPU_HEADER = """
#include <cmath>
namespace {
const long RUN = @RUN@;
}
"""

CPU_FORWARD = """
long tokens = in0_shape1, n = in0_shape2, stride = in1_shape0 == 1 ? 0 : n;
bool shifts = in2_shape1 == n;
float eps = data["eps"];
#pragma omp parallel for
for (long i = 0; i < in0_shape0 * tokens; i++) {
    const in0_type* x = in0_p + i * n;
    const float *s = in1_p + i / tokens * stride, *b = in2_p + (shifts ? i / tokens * stride : 0);
    in0_type* y = out0_p + i * n;
    float squares = 0;
    for (long j = 0; j < n; j++) squares += float(x[j]) * float(x[j]);
    float q = 1 / std::sqrt(squares / n + eps);
    out1_p[i] = q;
    if (shifts) for (long j = 0; j < n; j++) y[j] = in0_type(float(x[j]) * q * s[j] + b[j]);
    else for (long j = 0; j < n; j++) y[j] = in0_type(float(x[j]) * q * s[j]);
}
"""

CPU_BACKWARD = """
long tokens = in1_shape1, n = in1_shape2, stride = in2_shape0 == 1 ? 0 : n,
    runs = (tokens + RUN - 1) / RUN;
#pragma omp parallel for
for (long k = 0; k < in1_shape0 * runs; k++) {
    const float* s = in2_p + k / runs * stride;
    float *of_s = out1_p + k * n, *of_b = out2_p + k * n;
    for (long j = 0; j < n; j++) of_s[j] = of_b[j] = 0;
    long start = k % runs * RUN, stop = start + RUN < tokens ? start + RUN : tokens;
    for (long i = k / runs * tokens + start; i < k / runs * tokens + stop; i++) {
        const in0_type* g = in0_p + i * n;
        const in1_type* x = in1_p + i * n;
        float *d = out0_p + i * n, q = in3_p[i], sum = 0;
        for (long j = 0; j < n; j++) sum += float(g[j]) * s[j] * float(x[j]);
        float slope = q * q * sum / n;
        for (long j = 0; j < n; j++) {
            float gradient = g[j], value = x[j];
            d[j] = q * (gradient * s[j] - value * slope);
            of_s[j] += gradient * value * q;
            of_b[j] += gradient;
        }
    }
}
"""

CUDA_HEADER = (
    LAUNCHED
    + """
#include <type/fp16_compute.h>
namespace {
const int RUN = @RUN@, THREADS = 128;

@BLOCK_SUM@
// One block per token.
template <class T>
__global__ void rms_forward(long tokens, long n, long stride, bool shifts, float eps, const T* x,
                            const float* s, const float* b, T* y, float* kept) {
    long i = blockIdx.x, of = i / tokens * stride;
    x += i * n;
    y += i * n;
    float squares = 0;
    for (long j = threadIdx.x; j < n; j += THREADS) squares += float(x[j]) * float(x[j]);
    float q = 1 / sqrtf(block_sum(squares) / n + eps);
    if (threadIdx.x == 0) kept[i] = q;
    for (long j = threadIdx.x; j < n; j += THREADS)
        y[j] = T(float(x[j]) * q * s[of + j] + (shifts ? b[of + j] : 0.f));
}

// One block per run of tokens; a thread adds up its own channels.
template <class T>
__global__ void rms_backward(long tokens, long n, long stride, long runs, const T* g, const T* x,
                             const float* s, const float* kept, float* of_x, float* of_s,
                             float* of_b) {
    long k = blockIdx.x, of = k / runs * stride;
    long start = k % runs * RUN, stop = start + RUN < tokens ? start + RUN : tokens;
    of_s += k * n;
    of_b += k * n;
    for (long j = threadIdx.x; j < n; j += THREADS) of_s[j] = of_b[j] = 0;
    for (long i = k / runs * tokens + start; i < k / runs * tokens + stop; i++) {
        float q = kept[i], sum = 0;
        for (long j = threadIdx.x; j < n; j += THREADS)
            sum += float(g[i * n + j]) * s[of + j] * float(x[i * n + j]);
        float slope = q * q * block_sum(sum) / n;
        for (long j = threadIdx.x; j < n; j += THREADS) {
            float gradient = g[i * n + j], value = x[i * n + j];
            of_x[i * n + j] = q * (gradient * s[of + j] - value * slope);
            of_s[j] += gradient * value * q;
            of_b[j] += gradient;
        }
    }
}
}
"""
)

CUDA_FORWARD = """
long tokens = in0_shape1, n = in0_shape2, stride = in1_shape0 == 1 ? 0 : n,
    blocks = in0_shape0 * tokens;
bool shifts = in2_shape1 == n;
rms_forward<<<blocks, THREADS>>>(tokens, n, stride, shifts, data["eps"], in0_p, in1_p, in2_p,
                                 out0_p, out1_p);
launched("rms_norm", {in0_shape0, tokens, n});
"""

CUDA_BACKWARD = """
long tokens = in1_shape1, n = in1_shape2, stride = in2_shape0 == 1 ? 0 : n,
    runs = (tokens + RUN - 1) / RUN, blocks = in1_shape0 * runs;
rms_backward<<<blocks, THREADS>>>(tokens, n, stride, runs, in0_p, in1_p, in2_p, in3_p, out0_p,
                                  out1_p, out2_p);
launched("the gradient of rms_norm", {in1_shape0, tokens, n});
"""

CPU_HEADER, CUDA_HEADER = (
    header.replace("@RUN@", str(RUN)).replace("@BLOCK_SUM@", BLOCK_SUM)
    for header in (CPU_HEADER, CUDA_HEADER)
)


def rms_norm(x, eps: float, scale, shift=None):
    """x [B, L, C] (or [L, C]) over the root of its mean square, times scale, plus shift: each [C]
    for all, or [B, C]; of x's type.

    Gradients of gradients are not supported.
    """
    channels = x.shape[-1]
    scale = scale.float32().reshape(-1, channels)
    shift = jt.zeros((1, 1)).stop_grad() if shift is None else shift.float32().reshape(-1, channels)
    if shift.shape[1] == channels and shift.shape[0] != scale.shape[0]:
        images = max(scale.shape[0], shift.shape[0])
        scale, shift = scale.expand(images, channels), shift.expand(images, channels)
    rows = x.reshape(scale.shape[0], -1, channels)
    return RMSNormFunction(eps)(rows, scale, shift).reshape(x.shape)


class RMSNormFunction(Function):
    """(x [N, L, C], scale [N, C], shift [N, C] or [1, 1]) -> [N, L, C]."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, x, scale, shift):
        forward = compiled_forward if compiles(NAME, x) else plain_forward
        with jt.no_grad():
            y, q = forward(x, scale, shift, self.eps)
        self.keep(x, scale, shift, q)
        return y

    def grad(self, gradient):
        x, scale, shift, q = self.recall()
        backward = compiled_backward if compiles(NAME, x) else plain_backward
        with jt.no_grad():
            of_x, of_scale, of_shift = backward(gradient, x, scale, q)
        return of_x.cast(x.dtype), of_scale, of_shift if shift.shape[1] == x.shape[2] else None


def compiled_forward(x, scale, shift, eps: float):
    """(y, q [N, L])."""
    return jt.code(
        [x.shape, x.shape[:2]],
        [x.dtype, "float32"],
        [x, scale, shift],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_FORWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_FORWARD,
        data={"eps": eps},
    )


def compiled_backward(gradient, x, scale, q):
    """Gradients of x, scale and shift, float32."""
    batch, tokens, channels = x.shape
    part = [batch, -(-tokens // RUN), channels]
    of_x, of_scale, of_shift = jt.code(
        [x.shape, part, part],
        ["float32"] * 3,
        [gradient.cast(x.dtype), x, scale, q],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_BACKWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_BACKWARD,
    )
    return of_x, of_scale.sum(1), of_shift.sum(1)


def plain_forward(x, scale, shift, eps: float):
    """The twin of `compiled_forward`."""
    values = x.float32()
    q = 1 / jt.sqrt((values * values).mean(-1, keepdims=True) + eps)
    y = values * q * scale.reshape(scale.shape[0], 1, -1)
    if shift.shape[1] == x.shape[2]:
        y = y + shift.reshape(shift.shape[0], 1, -1)
    return y.cast(x.dtype), q.reshape(x.shape[:2])


def plain_backward(gradient, x, scale, q):
    """The twin of `compiled_backward`."""
    gradient, q = gradient.float32(), q.reshape(q.shape[0], q.shape[1], 1)
    normal = x.float32() * q
    g = gradient * scale.reshape(scale.shape[0], 1, -1)
    of_x = q * (g - normal * (g * normal).mean(-1, keepdims=True))
    return of_x, (gradient * normal).sum(1), gradient.sum(1)
