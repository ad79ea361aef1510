"""Queries, keys and values of attention's heads as one operator on the CPU, which takes them apart,
and normalises and turns queries and keys.

With r = 1 / rms(x) over a head's d values, queries are R (x r w), where R turns pairs of values; so
with g = R^T dq,

    dx = r (g w - x r^2 mean(g w x)),   dw = sum over patches of g x r,

and the same for keys. Plain Jittor (`jseg.flowseg.blocks.Attention`) does this in six passes over
the arrays; here it is one each way. float32 only.
"""

from __future__ import annotations

from jseg.nn.kernels import Function, compiles
from jseg.runtime import jt

NAME = "turned_heads"
RUN = 64  # rows whose terms of dw are added up at a time


def fused(qkv) -> bool:
    """Whether this operator takes the layer's output qkv."""
    return qkv.dtype == "float32" and not jt.flags.use_cuda and compiles(NAME, qkv)


def turned_heads(qkv, q_weight, k_weight, cosines, sines, eps: float):
    """qkv [B, L, 3 D], norms' weights [d], cosines and sines [L, d] -> queries, keys and values,
    each [B heads, L, d].

    Gradients of gradients are not supported; cosines and sines have none.
    """
    return TurnedHeadsFunction(eps)(qkv, q_weight, k_weight, cosines, sines)


class TurnedHeadsFunction(Function):
    """As `turned_heads`, on Vars alone."""

    def __init__(self, eps: float):
        self.eps = eps

    def execute(self, qkv, q_weight, k_weight, cosines, sines):
        self.keep(qkv, q_weight, k_weight, cosines, sines)
        batch, length, channels = qkv.shape
        head = cosines.shape[1]
        with jt.no_grad():
            return jt.code(
                [[batch * channels // (3 * head), length, head]] * 3,
                ["float32"] * 3,
                [qkv, q_weight, k_weight, cosines, sines],
                cpu_header=HEADER,
                cpu_src=FORWARD,
                data={"eps": self.eps},
            )

    def grad(self, of_q, of_k, of_v):
        inputs = list(self.recall())
        rows, head = inputs[0].shape[0] * inputs[0].shape[1], inputs[3].shape[1]
        with jt.no_grad():
            of_qkv, parts = jt.code(
                [inputs[0].shape, [-(-rows // RUN), 2, head]],
                ["float32"] * 2,
                [*inputs, of_q, of_k, of_v],
                cpu_header=HEADER,
                cpu_src=BACKWARD,
                data={"eps": self.eps},
            )
            of_q_weight, of_k_weight = parts.sum(0)
            return of_qkv, of_q_weight, of_k_weight, None, None


HEADER = """
#include <algorithm>
#include <cmath>
namespace {
const long RUN = @RUN@;

inline float inverse_rms(long d, float eps, const float* x) {
    float squares = 0;
    for (long j = 0; j < d; j++) squares += x[j] * x[j];
    return 1 / std::sqrt(squares / d + eps);
}

inline void turn(long d, float eps, const float* x, const float* w, const float* cosines,
                 const float* sines, float* y) {
    float r = inverse_rms(d, eps, x);
    for (long j = 0; j < d; j += 2) {
        float a = x[j] * r * w[j], b = x[j + 1] * r * w[j + 1];
        y[j] = a * cosines[j] + b * sines[j];
        y[j + 1] = b * cosines[j + 1] + a * sines[j + 1];
    }
}

// of_x holds the gradient, turned back, on the way.
inline void of_turn(long d, float eps, const float* g, const float* x, const float* w,
                    const float* cosines, const float* sines, float* of_x, float* of_w) {
    float r = inverse_rms(d, eps, x), sum = 0;
    for (long j = 0; j < d; j += 2) {
        of_x[j] = g[j] * cosines[j] + g[j + 1] * sines[j + 1];
        of_x[j + 1] = g[j] * sines[j] + g[j + 1] * cosines[j + 1];
    }
    for (long j = 0; j < d; j++) sum += of_x[j] * w[j] * x[j];
    float slope = r * r * sum / d;
    for (long j = 0; j < d; j++) {
        of_w[j] += of_x[j] * x[j] * r;
        of_x[j] = r * (of_x[j] * w[j] - x[j] * slope);
    }
}
}
""".replace("@RUN@", str(RUN))

SIZES = """
long length = in0_shape1, n = in0_shape2 / 3, d = in3_shape1, heads = n / d,
    rows = in0_shape0 * length;
float eps = data["eps"];
"""

FORWARD = (
    SIZES
    + """
#pragma omp parallel for
for (long i = 0; i < rows; i++) for (long head = 0; head < heads; head++) {
    const float* x = in0_p + i * 3 * n + head * d;
    long to = ((i / length * heads + head) * length + i % length) * d, at = i % length * d;
    turn(d, eps, x, in1_p, in3_p + at, in4_p + at, out0_p + to);
    turn(d, eps, x + n, in2_p, in3_p + at, in4_p + at, out1_p + to);
    std::copy(x + 2 * n, x + 2 * n + d, out2_p + to);
}
"""
)

BACKWARD = (
    SIZES
    + """
#pragma omp parallel for
for (long run = 0; run < out1_shape0; run++) {
    float *of_q = out1_p + run * 2 * d, *of_k = of_q + d;
    std::fill(of_q, of_q + 2 * d, 0.f);
    for (long i = run * RUN; i < std::min(rows, (run + 1) * RUN); i++)
        for (long head = 0; head < heads; head++) {
            const float* x = in0_p + i * 3 * n + head * d;
            float* of_x = out0_p + i * 3 * n + head * d;
            long to = ((i / length * heads + head) * length + i % length) * d,
                at = i % length * d;
            of_turn(d, eps, in5_p + to, x, in1_p, in3_p + at, in4_p + at, of_x, of_q);
            of_turn(d, eps, in6_p + to, x + n, in2_p, in3_p + at, in4_p + at, of_x + n, of_k);
            std::copy(in7_p + to, in7_p + to + d, of_x + 2 * n);
        }
}
"""
)
