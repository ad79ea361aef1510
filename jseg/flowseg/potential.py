"""The distance potential Phi of FlowSeg and its gradient, the correction of the velocity, in closed
form: an operator and its twin.

Formulas (3) to (6) of `jseg.flowseg.field`, with x for the estimate of the end:

    d_k = ||x - mu_k||^2                                                        (3)
    p_k = (d_k + eps)^(-1/tau) / sum_j (d_j + eps)^(-1/tau)                     (4)
    Phi = -log p_y                                                              (5)
    grad Phi = 2/tau sum_k w_k (x - mu_k),  w_k = (1[k = y] - p_k) / (d_k + eps)  (6)

The operator goes over the classes twice for each pixel, for the smallest distance and for the
sums, so no array of pixels times classes exists. Powers are taken relative to the smallest
distance. 1 - p_y cancels near the pixel's own code, so it is a sum over the other classes. The
twin in plain Jittor has such arrays for a run of pixels at a time; it computes in float64 for the
tests of the formulas.
"""

from __future__ import annotations

from typing import Tuple

from jseg.flowseg.presets import check_numbers
from jseg.nn.kernels import LAUNCHED
from jseg.nn.layers import as_var
from jseg.runtime import jt

CHUNK_BYTES = 8 << 20  # of one of the twin's arrays of classes times pixels

CPU_HEADER = """
#include <cmath>
namespace {
const int BLOCK = 256;   // pixels side by side, whose sums stay in the first-level cache

// x, g: n pixels of three planes of `plane` floats. UNIT: tau is 1, so a power is a quotient.
template <bool UNIT>
void correct(int n, long plane, const float* x, const int* y, const float* codes, int classes,
             float tau, float eps, float* g, float* phi) {
    float least[BLOCK], others[BLOCK], a[BLOCK], b[BLOCK], c[BLOCK];
    for (int j = 0; j < n; j++) {
        least[j] = 1e30f;
        others[j] = a[j] = b[j] = c[j] = 0;
    }

    // The smallest distance, (3).
    for (int k = 0; k < classes; k++) {
        float p = codes[3 * k], q = codes[3 * k + 1], r = codes[3 * k + 2];
        #pragma omp simd
        for (int j = 0; j < n; j++) {
            float u = x[j] - p, v = x[j + plane] - q, w = x[j + 2 * plane] - r;
            float d = u * u + v * v + w * w;
            least[j] = d < least[j] ? d : least[j];
        }
    }

    // Sums over the other classes, of the powers in (4) and of their part in (6).
    for (int k = 0; k < classes; k++) {
        float p = codes[3 * k], q = codes[3 * k + 1], r = codes[3 * k + 2];
        #pragma omp simd
        for (int j = 0; j < n; j++) {
            float u = x[j] - p, v = x[j + plane] - q, w = x[j + 2 * plane] - r;
            float inverse = 1 / (u * u + v * v + w * w + eps);
            float power = (least[j] + eps) * inverse;
            if (!UNIT) power = std::exp(std::log(power) / tau);
            power = y[j] == k ? 0 : power;
            others[j] += power;
            power *= inverse;
            a[j] += power * u;
            b[j] += power * v;
            c[j] += power * w;
        }
    }

    // The pixel's own class, and both results.
    for (int j = 0; j < n; j++) {
        bool known = y[j] >= 0 && y[j] < classes;
        const float* mu = codes + 3 * (known ? y[j] : 0);
        float u = x[j] - mu[0], v = x[j + plane] - mu[1], w = x[j + 2 * plane] - mu[2];
        float inverse = 1 / (u * u + v * v + w * w + eps), ratio = (least[j] + eps) * inverse;
        float total = others[j] + (UNIT ? ratio : std::exp(std::log(ratio) / tau));
        float scale = 2 / (tau * total), own = others[j] * inverse;
        g[j] = known ? scale * (own * u - a[j]) : 0;
        g[j + plane] = known ? scale * (own * v - b[j]) : 0;
        g[j + 2 * plane] = known ? scale * (own * w - c[j]) : 0;
        phi[j] = known ? std::log(total) - std::log(ratio) / tau : 0;
    }
}
}
"""

CPU = """
long maps = in0_shape0, plane = in0_shape2, blocks = (plane + BLOCK - 1) / BLOCK;
int classes = in2_shape0;
float tau = data["tau"], eps = data["eps"];
#pragma omp parallel for
for (long i = 0; i < maps * blocks; i++) {
    long map = i / blocks, start = i % blocks * BLOCK;
    int n = plane - start < BLOCK ? plane - start : BLOCK;
    long at = map * 3 * plane + start, pixel = map * plane + start;
    auto form = tau == 1 ? correct<true> : correct<false>;
    form(n, plane, in0_p + at, in1_p + pixel, in2_p, classes, tau, eps,
         out0_p + at, out1_p + pixel);
}
"""

CUDA_HEADER = (
    LAUNCHED
    + """
namespace {
template <bool UNIT>
__global__ void correct(long pixels, long plane, const float* x, const int* y, const float* codes,
                        int classes, float tau, float eps, float* g, float* phi) {
    long pixel = blockIdx.x * (long)blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    long at = pixel / plane * 3 * plane + pixel % plane;
    float x0 = x[at], x1 = x[at + plane], x2 = x[at + 2 * plane], least = 1e30f;
    int label = y[pixel];
    bool known = label >= 0 && label < classes;
    float g0 = 0, g1 = 0, g2 = 0, potential = 0;
    if (known) {
        for (int k = 0; k < classes; k++) {
            const float* mu = codes + 3 * k;
            float u = x0 - mu[0], v = x1 - mu[1], w = x2 - mu[2];
            least = fminf(least, u * u + v * v + w * w);
        }
        float others = 0, a = 0, b = 0, c = 0;
        for (int k = 0; k < classes; k++) {
            const float* mu = codes + 3 * k;
            float u = x0 - mu[0], v = x1 - mu[1], w = x2 - mu[2];
            float inverse = 1 / (u * u + v * v + w * w + eps), power = (least + eps) * inverse;
            if (!UNIT) power = expf(logf(power) / tau);
            if (k == label) power = 0;
            others += power;
            power *= inverse;
            a += power * u;
            b += power * v;
            c += power * w;
        }
        const float* mu = codes + 3 * label;
        float u = x0 - mu[0], v = x1 - mu[1], w = x2 - mu[2];
        float inverse = 1 / (u * u + v * v + w * w + eps), ratio = (least + eps) * inverse;
        float total = others + (UNIT ? ratio : expf(logf(ratio) / tau));
        float scale = 2 / (tau * total), own = others * inverse;
        g0 = scale * (own * u - a);
        g1 = scale * (own * v - b);
        g2 = scale * (own * w - c);
        potential = logf(total) - logf(ratio) / tau;
    }
    g[at] = g0;
    g[at + plane] = g1;
    g[at + 2 * plane] = g2;
    phi[pixel] = potential;
}
}
"""
)

CUDA = """
long plane = in0_shape2, pixels = in0_shape0 * plane, blocks = (pixels + 255) / 256;
int classes = in2_shape0;
float tau = data["tau"], eps = data["eps"];
if (tau == 1)
    correct<true><<<blocks, 256>>>(pixels, plane, in0_p, in1_p, in2_p, classes, tau, eps,
                                   out0_p, out1_p);
else
    correct<false><<<blocks, 256>>>(pixels, plane, in0_p, in1_p, in2_p, classes, tau, eps,
                                    out0_p, out1_p);
launched("correction", {in0_shape0, 3, plane});
"""


def correction(x, labels, codes, tau: float = 1.0, eps: float = 1e-2) -> Tuple[object, object]:
    """(grad Phi [B, 3, H, W], Phi [B, H, W]) at points x [B, 3, H, W], for labels int32 [B, H, W]
    and codes [N, 3].

    Both are 0 where a label is none of the N classes. They are constants: no gradient passes to x.
    Arrays or Vars; x and codes are float32, or both float64 Vars. A tau of 1 saves a logarithm and
    an exponential per pixel and class. Raises ValueError for a tau or eps outside
    `presets.RANGES`: with eps = 0, a point on its own code would divide 0 by 0.
    """
    check_numbers("correction: ", tau=tau, eps=eps)
    batch, _, height, width = x.shape
    with jt.no_grad():
        points = as_var(x).detach().reshape(batch, 3, -1)  # [B, 3, P]
        class_ids = as_var(labels).int32().reshape(batch, -1)  # [B, P]
        form = _compiled if points.dtype == "float32" else plain
        gradient, phi = form(points, class_ids, as_var(codes).detach(), tau, eps)
        return gradient.reshape(batch, 3, height, width), phi.reshape(batch, height, width)


def _compiled(x, labels, codes, tau: float, eps: float):
    return jt.code(
        [x.shape, labels.shape],
        [x.dtype, x.dtype],
        [x, labels, codes],
        cpu_header=CPU_HEADER,
        cpu_src=CPU,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA,
        data={"tau": tau, "eps": eps},
    )


def plain(x, labels, codes, tau: float, eps: float):
    """The twin: x [B, 3, P], labels [B, P] -> (gradient [B, 3, P], Phi [B, P]), in runs of pixels
    whose arrays keep to `CHUNK_BYTES`.
    """
    batch, _, pixels = x.shape
    run, parts = max(1, CHUNK_BYTES // (4 * batch * codes.shape[0])), []
    for start in range(0, pixels, run):
        stop = min(start + run, pixels)
        parts.append(_plain_run(x[:, :, start:stop], labels[:, start:stop], codes, tau, eps))
    gradients, potentials = zip(*parts)
    return jt.concat(gradients, dim=2), jt.concat(potentials, dim=1)


def _plain_run(x, labels, codes, tau: float, eps: float):
    batch, pixels, n = x.shape[0], x.shape[2], codes.shape[0]
    shape = [batch, n, pixels]

    # Distances to all codes, (3), and their powers, (4), relative to the smallest.
    differences = [
        x[:, c].reshape(batch, 1, pixels).expand(shape) - codes[:, c].reshape(1, n, 1).expand(shape)
        for c in range(3)
    ]
    distance = sum(u * u for u in differences) + eps  # [B, N, p]
    ratio = distance.min(1, keepdims=True) / distance
    power = ratio if tau == 1 else jt.exp(jt.log(ratio) / tau)

    # The pixel's own class against all others.
    classes = jt.arange(n).reshape(1, n, 1).expand(shape)
    own = (labels.reshape(batch, 1, pixels).expand(shape) == classes).cast(x.dtype)  # [B, N, p]
    other = power * (1 - own)
    others = other.sum(1, keepdims=True)  # [B, 1, p]
    total = others + (power * own).sum(1, keepdims=True)

    # The gradient, (6), and Phi, (5).
    weights = (own * others - other) / (total * distance)
    gradient = [(weights * u).sum(1) * (2 / tau) for u in differences]
    phi = jt.log(total[:, 0]) - (own * jt.log(ratio)).sum(1) / tau
    results = jt.stack(gradient + [phi], 1)  # [B, 4, p]
    known = own.sum(1, keepdims=True).expand(results.shape) > 0
    results = jt.ternary(known, results, jt.zeros_like(results))
    return results[:, :3], results[:, 3]
