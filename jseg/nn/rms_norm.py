"""RMS norm with an adaptive scale and shift: y = q x s + b with q = (mean(x^2) + eps)^(-1/2), the
mean over the last axis.

With s = weight (1 + scale) and a shift b of each image's own it is the modulated norm of DiT's
blocks (Peebles and Xie 2023, adaLN) on Zhang and Sennrich's RMS norm (2019); with s = weight alone,
the plain norm. Sums are float32, whatever the type of x; q is kept:

    g = dy s,   dx = q (g - x q mean(g x q)),
    ds = sum dy x q,   db = sum dy,   over the tokens that share them.

On CUDA a warp takes a token, which it reads once from memory and once from its cache. ds and db are
added up in shared memory over the tokens of a block, and by a second kernel over the blocks, in a
fixed order.
"""

from __future__ import annotations

from jseg.nn.kernels import LAUNCHED, Function, compiles
from jseg.runtime import jt

NAME = "rms_norm"
RUN = 64  # tokens whose terms of ds and db the CPU adds up at a time
# Such runs on CUDA, where a block takes one: as many as fill a large GPU, of two tokens for each
# warp at least.
BLOCKS, SHORTEST = 1024, 8
WIDEST = 6144  # channels that CUDA's gradient has room for: 48 KB, for the sums of ds and db

CPU_HEADER = "#include <cmath>"

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
long tokens = in1_shape1, n = in1_shape2, stride = in2_shape0 == 1 ? 0 : n, runs = out3_shape1,
    run = data["run"];
#pragma omp parallel for
for (long k = 0; k < in1_shape0 * runs; k++) {
    const float* s = in2_p + k / runs * stride;
    float *of_s = out3_p + 2 * n * k, *of_b = of_s + n;
    for (long j = 0; j < n; j++) of_s[j] = of_b[j] = 0;
    long start = k % runs * run, stop = start + run < tokens ? start + run : tokens;
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
for (long image = 0; image < in1_shape0; image++) {
    const float* parts = out3_p + 2 * n * runs * image;
    float *of_s = out1_p + image * n, *of_b = out2_p + image * n;
    for (long j = 0; j < n; j++) of_s[j] = of_b[j] = 0;
    for (long k = 0; k < runs; k++, parts += 2 * n)
        for (long j = 0; j < n; j++) of_s[j] += parts[j], of_b[j] += parts[n + j];
}
"""

CUDA_HEADER = (
    LAUNCHED
    + """
#include <type/fp16_compute.h>
namespace {
const int WARP = 32, WARPS = 4, THREADS = WARPS * WARP;
const int ROWS = 8;  // runs whose parts a block of rms_totals reads at a time

// The sum of the values of a warp, the same for every lane.
__device__ inline float warp_sum(float value) {
    for (int bits = WARP / 2; bits; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}

// A warp takes a token.
template <class T>
__global__ void rms_forward(long count, long tokens, long n, long stride, bool shifts, float eps,
                            const T* x, const float* s, const float* b, T* y, float* kept) {
    long i = blockIdx.x * (long)WARPS + threadIdx.x / WARP, of = i / tokens * stride;
    int lane = threadIdx.x % WARP;
    if (i >= count) return;
    x += i * n;
    y += i * n;
    float squares = 0;
    for (long j = lane; j < n; j += WARP) squares += float(x[j]) * float(x[j]);
    float q = 1 / sqrtf(warp_sum(squares) / n + eps);
    if (lane == 0) kept[i] = q;
    for (long j = lane; j < n; j += WARP)
        y[j] = T(float(x[j]) * q * s[of + j] + (shifts ? b[of + j] : 0.f));
}

// A block takes a run of tokens of an image, a warp every so many of them. parts [images, runs, 2,
// n]: a run's sums for s and b, which each warp has of its own until the end.
template <class T>
__global__ void rms_backward(long tokens, long n, long stride, long runs, long run, const T* g,
                             const T* x, const float* s, const float* kept, float* of_x,
                             float* parts) {
    extern __shared__ float sums[];  // [warps, 2, n]
    long k = blockIdx.x, image = k / runs, of = image * stride;
    long start = k % runs * run, stop = start + run < tokens ? start + run : tokens;
    int warp = threadIdx.x / WARP, warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
    float *of_s = sums + 2 * n * warp, *of_b = of_s + n;
    for (long j = lane; j < n; j += WARP) of_s[j] = of_b[j] = 0;
    for (long i = image * tokens + start + warp; i < image * tokens + stop; i += warps) {
        float q = kept[i], sum = 0;
        for (long j = lane; j < n; j += WARP)
            sum += float(g[i * n + j]) * s[of + j] * float(x[i * n + j]);
        float slope = q * q * warp_sum(sum) / n;
        for (long j = lane; j < n; j += WARP) {
            float gradient = g[i * n + j], value = x[i * n + j];
            of_x[i * n + j] = q * (gradient * s[of + j] - value * slope);
            of_s[j] += gradient * value * q;
            of_b[j] += gradient;
        }
    }
    __syncthreads();
    for (long j = threadIdx.x; j < 2 * n; j += blockDim.x) {
        float sum = 0;
        for (int w = 0; w < warps; w++) sum += sums[2 * n * w + j];
        parts[2 * n * k + j] = sum;
    }
}

// A block adds up the parts of 32 columns of an image, a warp every ROWS-th of them.
__global__ void rms_totals(long n, long runs, const float* parts, float* of_s, float* of_b) {
    __shared__ float sums[ROWS][WARP];
    long blocks = (2 * n + WARP - 1) / WARP, image = blockIdx.x / blocks;
    int row = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    long column = blockIdx.x % blocks * WARP + lane;
    parts += 2 * n * runs * image;
    float sum = 0;
    if (column < 2 * n) for (long k = row; k < runs; k += ROWS) sum += parts[2 * n * k + column];
    sums[row][lane] = sum;
    __syncthreads();
    if (row || column >= 2 * n) return;
    for (int k = 1; k < ROWS; k++) sum += sums[k][lane];
    if (column < n) of_s[image * n + column] = sum;
    else of_b[image * n + column - n] = sum;
}
}
"""
)

CUDA_FORWARD = """
long tokens = in0_shape1, n = in0_shape2, stride = in1_shape0 == 1 ? 0 : n,
    count = in0_shape0 * tokens, blocks = (count + WARPS - 1) / WARPS;
bool shifts = in2_shape1 == n;
rms_forward<<<blocks, THREADS>>>(count, tokens, n, stride, shifts, data["eps"], in0_p, in1_p, in2_p,
                                 out0_p, out1_p);
launched("rms_norm", {in0_shape0, tokens, n});
"""

CUDA_BACKWARD = f"""
long tokens = in1_shape1, n = in1_shape2, stride = in2_shape0 == 1 ? 0 : n, runs = out3_shape1,
    run = data["run"], blocks = in1_shape0 * runs;
long slices = in1_shape0 * ((2 * n + WARP - 1) / WARP);
CHECK(n <= {WIDEST}) << "rows of at most {WIDEST} values";
int warps = n <= {WIDEST} / 4 ? 4 : n <= {WIDEST} / 2 ? 2 : 1;  // what 48 KB of sums are enough for
rms_backward<<<blocks, warps * WARP, warps * 2 * n * sizeof(float)>>>(
    tokens, n, stride, runs, run, in0_p, in1_p, in2_p, in3_p, out0_p, out3_p);
launched("the gradient of rms_norm", {{in1_shape0, tokens, n}});
rms_totals<<<slices, ROWS * WARP>>>(n, runs, out3_p, out1_p, out2_p);
launched("the sums of rms_norm's gradient", {{in1_shape0, tokens, n}});
"""


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
        forward = compiled_forward if computes(x) else plain_forward
        with jt.no_grad():
            y, q = forward(x, scale, shift, self.eps)
        self.keep(x, scale, shift, q)
        return y

    def grad(self, gradient):
        x, scale, shift, q = self.recall()
        backward = compiled_backward if computes(x) else plain_backward
        with jt.no_grad():
            of_x, of_scale, of_shift = backward(gradient, x, scale, q)
        return of_x.cast(x.dtype), of_scale, of_shift if shift.shape[1] == x.shape[2] else None


def computes(x) -> bool:
    """Whether the operator takes x [N, L, C]."""
    return compiles(NAME, x) and (not jt.flags.use_cuda or x.shape[2] <= WIDEST)


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
    run = cuda_run(batch * tokens) if jt.flags.use_cuda else RUN
    return jt.code(
        [x.shape, [batch, channels], [batch, channels], [batch, -(-tokens // run), 2, channels]],
        ["float32"] * 4,
        [gradient.cast(x.dtype), x, scale, q],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_BACKWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_BACKWARD,
        data={"run": run},
    )[:3]


def cuda_run(tokens: int) -> int:
    """Of all images' tokens, those that a block takes."""
    return max(SHORTEST, -(-tokens // BLOCKS))


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
