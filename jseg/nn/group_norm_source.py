"""The C++ and CUDA source of `jseg.nn.group_norm`; no size is written into it, so it is compiled
once for each combination of types.

On the CPU a thread takes a group. On CUDA a block takes a piece of a group for the statistics
(whose means and squares are put together after Chan et al. 1983), a row of a channel for the sums
of the gradient, any 256 values for the rest. Reductions are trees in a fixed order: the same
numbers in every run.
"""

from jseg.nn.kernels import BLOCK_SUM, HEADER, LAUNCHED

PIECE = 8192  # values of a group whose statistics one block of a GPU takes

CPU_HEADER = (
    HEADER
    + """
namespace {
inline float sigmoid(float z) { return 1 / (1 + std::exp(z < -80 ? 80 : -z)); }

// The row of s and t, which are of `images` images, that a row of x takes: the last image's serve
// the images beyond.
inline long map_row(long row, long images, long channels) {
    return row < images * channels ? row : (images - 1) * channels + row % channels;
}

// One channel of one image. SMALL: s and t are one number each.
template <bool SMALL, bool ACTIVATE, class T, class S>
void scaled(long n, const T* x, const S* s, const S* t, float a, float b, const float* statistics,
            T* y) {
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    float s0 = float(s[0]), t0 = float(t[0]);
    #pragma omp simd
    for (long j = 0; j < n; j++) {
        float factor = SMALL ? s0 : float(s[j]), summand = SMALL ? t0 : float(t[j]);
        float z = (float(x[j]) - first - rest) * scale * factor + summand;
        z = z * a + b;
        y[j] = T(ACTIVATE ? z * sigmoid(z) : z);
    }
}

// total: sums of dz, dz (x_hat s + t), dz x_hat, u, u x_hat; u is left in of_x.
template <bool SMALL, bool ACTIVATE, class T, class S>
void row_gradient(long n, const T* g, const T* x, const S* s, const S* t, float a, float b,
                  const float* statistics, float* of_x, float* of_s, float* of_t, double* total) {
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    float s0 = float(s[0]), t0 = float(t[0]);
    for (long start = 0; start < n; start += BLOCK) {
        long stop = start + BLOCK < n ? start + BLOCK : n;
        float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0, sum4 = 0;
        #pragma omp simd reduction(+: sum0, sum1, sum2, sum3, sum4)
        for (long j = start; j < stop; j++) {
            float normal = (float(x[j]) - first - rest) * scale, factor = SMALL ? s0 : float(s[j]);
            float m = normal * factor + (SMALL ? t0 : float(t[j])), z = m * a + b, d = float(g[j]);
            if (ACTIVATE) {
                float sigma = sigmoid(z);
                d *= sigma * (1 + z * (1 - sigma));
            }
            float u = d * a * factor;
            of_x[j] = u;
            if (!SMALL) { of_s[j] = d * a * normal; of_t[j] = d * a; }
            sum0 += d; sum1 += d * m; sum2 += d * normal; sum3 += u; sum4 += u * normal;
        }
        total[0] += sum0; total[1] += sum1; total[2] += sum2; total[3] += sum3; total[4] += sum4;
    }
}
}
"""
)

CPU_FORWARD = """
long channels = in0_shape1, pixels = in0_shape2, groups = data["groups"], own = channels / groups,
    n = own * pixels;
bool small = in1_shape2 < pixels || pixels == 1, activate = data["activate"] != 0;
auto form = small ? (activate ? scaled<true, true, in0_type, in1_type>
                              : scaled<true, false, in0_type, in1_type>)
                  : (activate ? scaled<false, true, in0_type, in1_type>
                              : scaled<false, false, in0_type, in1_type>);
#pragma omp parallel for
for (long i = 0; i < in0_shape0 * groups; i++) {
    const in0_type* x = in0_p + i * n;
    float* statistics = out1_p + 3 * i;
    double variance;
    statistics_of(n, x, statistics[0], statistics[1], variance);
    statistics[2] = 1 / std::sqrt(variance + data["eps"]);
    for (long c = 0; c < own; c++) {
        long row = i * own + c, at = row * pixels,
            of_s = map_row(row, in1_shape0, channels) * (small ? 1 : pixels);
        long of_a = in3_shape1 == 1 ? 0 : row;
        form(pixels, in0_p + at, in1_p + of_s, in2_p + of_s, in3_p[of_a], in4_p[of_a], statistics,
             out0_p + at);
    }
}
"""

CPU_BACKWARD = """
long channels = in1_shape1, pixels = in1_shape2, groups = data["groups"], own = channels / groups,
    n = own * pixels;
bool small = in2_shape2 < pixels || pixels == 1, activate = data["activate"] != 0;
auto form = small ? (activate ? row_gradient<true, true, in1_type, in2_type>
                              : row_gradient<true, false, in1_type, in2_type>)
                  : (activate ? row_gradient<false, true, in1_type, in2_type>
                              : row_gradient<false, false, in1_type, in2_type>);
#pragma omp parallel for
for (long i = 0; i < in1_shape0 * groups; i++) {
    const float* statistics = in6_p + 3 * i;
    double u = 0, product = 0;
    for (long c = 0; c < own; c++) {
        long row = i * own + c, at = row * pixels,
            of_s = map_row(row, in2_shape0, channels) * (small ? 1 : pixels);
        long of_a = in4_shape1 == 1 ? 0 : row;
        float a = in4_p[of_a];
        double total[5] = {0, 0, 0, 0, 0};
        form(pixels, in0_p + at, in1_p + at, in2_p + of_s, in3_p + of_s, a, in5_p[of_a],
             statistics, out0_p + at, out1_p + (small ? 0 : at), out2_p + (small ? 0 : at), total);
        out3_p[row] = total[1];
        out4_p[row] = total[0];
        if (small) out1_p[row] = a * total[2], out2_p[row] = a * total[0];
        u += total[3];
        product += total[4];
    }
    float mean = u / n, slope = product / n;
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    const in1_type* x = in1_p + i * n;
    float* d = out0_p + i * n;
    #pragma omp simd
    for (long j = 0; j < n; j++)
        d[j] = scale * (d[j] - mean - (float(x[j]) - first - rest) * scale * slope);
}
"""

CUDA_HEADER = f"""
#include <type/fp16_compute.h>
{LAUNCHED}""" + """
namespace {
const int THREADS = 256, PIECE = @PIECE@;
const int EACH = 4;  // values that a thread of `scaled` and `x_gradient` takes at most

__device__ inline float sigmoid(float z) { return 1 / (1 + expf(z < -80 ? 80 : -z)); }

// The row of s and t, which are of `images` images, that a row of x takes: the last image's serve
// the images beyond.
__device__ inline long map_row(long row, long images, long channels) {
    return row < images * channels ? row : (images - 1) * channels + row % channels;
}

// The block's sum of every thread's value, for every thread; ends with all threads past it.
@BLOCK_SUM@
// found[2 piece]: mean and sum of squared differences from it, of a piece of a group.
template <class T> __global__ void piece_statistics(const T* x, long n, long pieces, float* found) {
    long start = blockIdx.x % pieces * PIECE, count = n - start < PIECE ? n - start : PIECE;
    x += blockIdx.x / pieces * n + start;
    float sum = 0, rest = 0, squares = 0;
    for (long j = threadIdx.x; j < count; j += THREADS) sum += float(x[j]);
    float first = block_sum(sum) / count;
    for (long j = threadIdx.x; j < count; j += THREADS) {
        float d = float(x[j]) - first;
        rest += d;
        squares += d * d;
    }
    rest = block_sum(rest) / count;
    squares = block_sum(squares) - count * rest * rest;
    if (threadIdx.x) return;
    found[2 * blockIdx.x] = first + rest;
    found[2 * blockIdx.x + 1] = squares;
}

__global__ void group_statistics(const float* found, long groups, long n, long pieces, float eps,
                                 float* statistics) {
    long i = blockIdx.x * (long)THREADS + threadIdx.x;
    if (i >= groups) return;
    found += 2 * i * pieces;
    float first = found[0], rest = 0, squares = 0;
    for (long k = 0; k < pieces; k++)
        rest += (found[2 * k] - first) * (n - k * PIECE < PIECE ? n - k * PIECE : PIECE);
    rest /= n;
    for (long k = 0; k < pieces; k++) {
        float d = found[2 * k] - first - rest;
        squares += found[2 * k + 1] + d * d * (n - k * PIECE < PIECE ? n - k * PIECE : PIECE);
    }
    statistics[3 * i] = first;
    statistics[3 * i + 1] = rest;
    statistics[3 * i + 2] = 1 / sqrtf(squares / n + eps);
}

struct Sizes { long channels, pixels, own, maps; bool small, one_a, activate; };

// A block takes some values of a row, which is a channel of an image; blockIdx.y says which.
template <class T, class S>
__global__ void scaled(Sizes z, const T* x, const S* s, const S* t, const float* a, const float* b,
                       const float* statistics, T* y) {
    long row = blockIdx.x, place = map_row(row, z.maps, z.channels) * (z.small ? 1 : z.pixels);
    statistics += 3 * (row / z.own);
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    float a0 = a[z.one_a ? 0 : row], b0 = b[z.one_a ? 0 : row];
    x += row * z.pixels, y += row * z.pixels;
    long start = blockIdx.y * blockDim.x + threadIdx.x, step = gridDim.y * blockDim.x;
    for (long j = start; j < z.pixels; j += step) {
        long of = z.small ? place : place + j;
        float v = (float(x[j]) - first - rest) * scale * float(s[of]) + float(t[of]);
        v = v * a0 + b0;
        y[j] = T(z.activate ? v * sigmoid(v) : v);
    }
}

// One block per channel and image; sums: of u and of u x_hat.
template <class T, class S>
__global__ void row_gradients(Sizes z, const T* g, const T* x, const S* s, const S* t,
                              const float* a, const float* b, const float* statistics, float* of_x,
                              float* of_s, float* of_t, float* of_a, float* of_b, float* sums) {
    long row = blockIdx.x, start = row * z.pixels,
        place = map_row(row, z.maps, z.channels) * (z.small ? 1 : z.pixels);
    statistics += 3 * (row / z.own);
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    float a0 = a[z.one_a ? 0 : row], b0 = b[z.one_a ? 0 : row];
    float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0, sum4 = 0;
    for (long j = threadIdx.x; j < z.pixels; j += THREADS) {
        long at = start + j, of = z.small ? place : place + j;
        float normal = (float(x[at]) - first - rest) * scale, factor = float(s[of]);
        float m = normal * factor + float(t[of]);
        float v = m * a0 + b0, d = float(g[at]);
        if (z.activate) {
            float sigma = sigmoid(v);
            d *= sigma * (1 + v * (1 - sigma));
        }
        float u = d * a0 * factor;
        of_x[at] = u;
        if (!z.small) { of_s[at] = d * a0 * normal; of_t[at] = d * a0; }
        sum0 += d; sum1 += d * m; sum2 += d * normal; sum3 += u; sum4 += u * normal;
    }
    sum0 = block_sum(sum0); sum1 = block_sum(sum1); sum2 = block_sum(sum2);
    sum3 = block_sum(sum3); sum4 = block_sum(sum4);
    if (threadIdx.x) return;
    of_a[row] = sum1;
    of_b[row] = sum0;
    if (z.small) { of_s[row] = a0 * sum2; of_t[row] = a0 * sum0; }
    sums[2 * row] = sum3;
    sums[2 * row + 1] = sum4;
}

// As `scaled`; every thread adds up its group's sums.
template <class T>
__global__ void x_gradient(Sizes z, const T* x, const float* statistics, const float* sums,
                           float* of_x) {
    long row = blockIdx.x, group = row / z.own;
    statistics += 3 * group;
    sums += 2 * group * z.own;
    float mean = 0, slope = 0, n = z.own * z.pixels;
    for (long c = 0; c < z.own; c++) { mean += sums[2 * c]; slope += sums[2 * c + 1]; }
    mean /= n, slope /= n;
    float first = statistics[0], rest = statistics[1], scale = statistics[2];
    x += row * z.pixels, of_x += row * z.pixels;
    long start = blockIdx.y * blockDim.x + threadIdx.x, step = gridDim.y * blockDim.x;
    for (long j = start; j < z.pixels; j += step) {
        float normal = (float(x[j]) - first - rest) * scale;
        of_x[j] = scale * (of_x[j] - mean - normal * slope);
    }
}
}
""".replace("@PIECE@", str(PIECE)).replace("@BLOCK_SUM@", BLOCK_SUM)


def _sizes(x: int, s: int, a: int) -> str:
    """The sizes for the inputs of those numbers."""
    return f"""
long groups = in{x}_shape0 * (long)data["groups"];
long n = (long)in{x}_shape0 * in{x}_shape1 * in{x}_shape2 / groups, count = groups * n;
Sizes z;
z.channels = in{x}_shape1, z.pixels = in{x}_shape2, z.own = n / in{x}_shape2;
z.small = in{s}_shape2 < z.pixels || z.pixels == 1, z.maps = in{s}_shape0;
z.one_a = in{a}_shape1 == 1, z.activate = data["activate"] != 0;
long rows = count / z.pixels;
unsigned threads = z.pixels < THREADS ? (z.pixels + 31) / 32 * 32 : THREADS;
unsigned runs = (z.pixels + EACH * threads - 1) / (EACH * threads);
"""


CUDA_FORWARD = (
    _sizes(x=0, s=1, a=3)
    + """
long pieces = (n + PIECE - 1) / PIECE, some = (groups + THREADS - 1) / THREADS;
CHECK(out2_shape0 == 2 * groups * pieces);
piece_statistics<<<groups * pieces, THREADS>>>(in0_p, n, pieces, out2_p);
launched("group_norm's moments of pieces", {in0_shape0, in0_shape1, in0_shape2});
group_statistics<<<some, THREADS>>>(out2_p, groups, n, pieces, data["eps"], out1_p);
launched("group_norm's moments", {in0_shape0, in0_shape1, in0_shape2});
scaled<<<dim3(rows, runs), threads>>>(z, in0_p, in1_p, in2_p, in3_p, in4_p, out1_p, out0_p);
launched("group_norm", {in0_shape0, in0_shape1, in0_shape2});
"""
)

CUDA_BACKWARD = (
    _sizes(x=1, s=2, a=4)
    + """
row_gradients<<<rows, THREADS>>>(z, in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, in6_p, out0_p, out1_p,
                                 out2_p, out3_p, out4_p, out5_p);
launched("group_norm's gradients of rows", {in1_shape0, in1_shape1, in1_shape2});
x_gradient<<<dim3(rows, runs), threads>>>(z, in1_p, in6_p, out5_p, out0_p);
launched("the gradient of group_norm", {in1_shape0, in1_shape1, in1_shape2});
"""
)
