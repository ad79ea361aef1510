"""The C++ and CUDA source of `jseg.nn.attention`; no size is written into it but the tiles'."""

from jseg.nn.kernels import LAUNCHED, PRODUCTS_HEADER

WIDEST = 128  # channels of a head that the CUDA source has room for

CPU_HEADER = (
    PRODUCTS_HEADER
    + """
#include <algorithm>
#include <cmath>
#include <vector>
namespace {
const long QUERIES = 256, KEYS = 512;      // of a tile: its scores take 512 KB

// c [rows, columns] (+)= alpha a b; ta, tb: a or b is stored turned. All are rows of `inner` or
// `columns` floats without gaps.
inline bool multiply(bool ta, bool tb, long rows, long columns, long inner, float alpha,
                     const float* a, const float* b, float beta, float* c) {
    long of_a = ta ? rows : inner, of_b = tb ? inner : columns;
    return dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', rows, columns, inner, alpha, a, of_a, b, of_b,
                      beta, c, columns) == 0;
}

// `rows` queries of one head: result [rows, d] and sums [rows].
inline bool tile_forward(long rows, long others, long d, float scale, const float* q,
                         const float* k, const float* v, float* out, float* sums) {
    std::vector<float> scores(rows * std::min(KEYS, others)), largest(rows), total(rows);
    bool fine = true;
    for (long j = 0; j < others; j += KEYS) {
        long columns = std::min(KEYS, others - j);
        fine &= multiply(false, true, rows, columns, d, scale, q, k + j * d, 0, scores.data());
        for (long r = 0; r < rows; r++) {
            float *s = scores.data() + r * columns, most = s[0], sum = 0;
            #pragma omp simd reduction(max: most)
            for (long c = 0; c < columns; c++) most = s[c] > most ? s[c] : most;
            if (j) most = std::max(most, largest[r]);
            #pragma omp simd reduction(+: sum)
            for (long c = 0; c < columns; c++) { s[c] = std::exp(s[c] - most); sum += s[c]; }
            if (j) {
                float kept = std::exp(largest[r] - most), *o = out + r * d;
                sum += total[r] * kept;
                if (kept != 1) for (long c = 0; c < d; c++) o[c] *= kept;
            }
            largest[r] = most;
            total[r] = sum;
        }
        float before = j ? 1 : 0;
        fine &= multiply(false, false, rows, d, columns, 1, scores.data(), v + j * d, before, out);
    }
    for (long r = 0; r < rows; r++) {
        float inverse = 1 / total[r], *o = out + r * d;
        for (long c = 0; c < d; c++) o[c] *= inverse;
        sums[r] = largest[r] + std::log(total[r]);
    }
    return fine;
}

inline bool head_backward(long length, long others, long d, float scale, const float* g,
                          const float* q, const float* k, const float* v,
                          const float* sums, const float* delta, float* of_q, float* of_k,
                          float* of_v) {
    std::vector<float> weights(QUERIES * std::min(KEYS, others)), of_scores(weights.size());
    float *p = weights.data(), *of_p = of_scores.data();
    bool fine = true;
    for (long i = 0; i < length; i += QUERIES) {
        long rows = std::min(QUERIES, length - i);
        for (long j = 0; j < others; j += KEYS) {
            long columns = std::min(KEYS, others - j);
            fine &= multiply(false, true, rows, columns, d, scale, q + i * d, k + j * d, 0, p);
            fine &= multiply(false, true, rows, columns, d, 1, g + i * d, v + j * d, 0, of_p);
            #pragma omp parallel for if (!omp_in_parallel())
            for (long r = 0; r < rows; r++) {
                float *w = p + r * columns, *s = of_p + r * columns;
                float sum = sums[i + r], rest = delta[i + r];
                #pragma omp simd
                for (long c = 0; c < columns; c++) {
                    w[c] = std::exp(w[c] - sum);
                    s[c] = scale * w[c] * (s[c] - rest);
                }
            }
            float row = j ? 1 : 0, col = i ? 1 : 0;  // whether there is a sum to add to
            fine &= multiply(false, false, rows, d, columns, 1, of_p, k + j * d, row, of_q + i * d);
            fine &= multiply(true, false, columns, d, rows, 1, of_p, q + i * d, col, of_k + j * d);
            fine &= multiply(true, false, columns, d, rows, 1, p, g + i * d, col, of_v + j * d);
        }
    }
    return fine;
}
}
"""
)

CPU_FORWARD = """
long heads = in0_shape0, length = in0_shape1, others = in1_shape1, d = in0_shape2, failed = 0;
long tiles = (length + QUERIES - 1) / QUERIES;
float scale = data["scale"];
#pragma omp parallel for reduction(+: failed)
for (long task = 0; task < heads * tiles; task++) {
    long head = task / tiles, i = task % tiles * QUERIES, at = head * length + i;
    failed += !tile_forward(std::min(QUERIES, length - i), others, d, scale, in0_p + at * d,
                            in1_p + head * others * d, in2_p + head * others * d, out0_p + at * d,
                            out1_p + at);
}
CHECK(!failed) << "dnnl_sgemm refused a product";
"""

CPU_BACKWARD = """
long heads = in1_shape0, length = in1_shape1, others = in2_shape1, d = in1_shape2, failed = 0;
float scale = data["scale"];
auto compute = [&](long i) {
    long own = i * length * d, other = i * others * d;
    return head_backward(length, others, d, scale, in0_p + own, in1_p + own, in2_p + other,
                         in3_p + other, in4_p + i * length, in5_p + i * length, out0_p + own,
                         out1_p + other, out2_p + other);
};
if (heads >= omp_get_max_threads()) {
    #pragma omp parallel for reduction(+: failed)
    for (long i = 0; i < heads; i++) failed += !compute(i);
} else
    for (long i = 0; i < heads; i++) failed += !compute(i);
CHECK(!failed) << "dnnl_sgemm refused a product";
"""

# A block is TILE / 2 x TILE / 2 threads; a thread has two rows, TILE / 2 apart, and every (TILE /
# 2)th column. Rows past the end are zero.
CUDA_HEADER = (
    LAUNCHED
    + """
#include <type/fp16_compute.h>
namespace {
template <int TILE, int WIDTH, class T>
__device__ inline void load(float (*to)[WIDTH + 1], const T* from, long start, long length, int d) {
    const int threads = TILE * TILE / 4;
    for (int i = threadIdx.x; i < TILE * WIDTH; i += threads) {
        int row = i / WIDTH, c = i % WIDTH;
        to[row][c] = start + row < length && c < d ? float(from[(start + row) * d + c]) : 0.f;
    }
}

// found[r][c]: rows y + H r of a times rows x + H c of b.
template <int H, int WIDTH>
__device__ inline void multiply(const float (*a)[WIDTH + 1], const float (*b)[WIDTH + 1], int y,
                                int x, int d, float (*found)[2]) {
    for (int r = 0; r < 2; r++) for (int c = 0; c < 2; c++) found[r][c] = 0;
    for (int j = 0; j < d; j++) {
        float a0 = a[y][j], a1 = a[y + H][j], b0 = b[x][j], b1 = b[x + H][j];
        found[0][0] += a0 * b0; found[0][1] += a0 * b1;
        found[1][0] += a1 * b0; found[1][1] += a1 * b1;
    }
}

// total[r][c] += row y + H r of the tile of weights times column x + H c of b.
template <int TILE, int WIDTH>
__device__ inline void add(const float (*weights)[TILE + 1], const float (*b)[WIDTH + 1], int y,
                           int x, float (*total)[2 * WIDTH / TILE]) {
    const int H = TILE / 2;
    for (int j = 0; j < TILE; j++)
        for (int c = 0; c < WIDTH / H; c++) {
            float value = b[j][x + H * c];
            total[0][c] += weights[y][j] * value;
            total[1][c] += weights[y + H][j] * value;
        }
}

template <int TILE, int WIDTH, class T>
__global__ void tile_forward(long length, long others, int d, float scale, const T* q, const T* k,
                             const T* v, T* out, float* sums) {
    const int H = TILE / 2, COLUMNS = WIDTH / H;
    __shared__ float own[TILE][WIDTH + 1], other[TILE][WIDTH + 1], weights[TILE][TILE + 1];
    long tiles = (length + TILE - 1) / TILE, head = blockIdx.x / tiles,
        start = blockIdx.x % tiles * TILE;
    int y = threadIdx.x / H, x = threadIdx.x % H;
    q += head * length * d; out += head * length * d; sums += head * length;
    k += head * others * d; v += head * others * d;
    float total[2][COLUMNS], largest[2] = {-1e30f, -1e30f}, sum[2] = {0, 0}, s[2][2];
    for (int r = 0; r < 2; r++) for (int c = 0; c < COLUMNS; c++) total[r][c] = 0;
    load<TILE, WIDTH>(own, q, start, length, d);
    for (long j = 0; j < others; j += TILE) {
        load<TILE, WIDTH>(other, k, j, others, d);
        __syncthreads();
        multiply<H, WIDTH>(own, other, y, x, d, s);
        for (int r = 0; r < 2; r++) for (int c = 0; c < 2; c++) {
            s[r][c] = j + x + H * c < others ? s[r][c] * scale : -1e30f;
            weights[y + H * r][x + H * c] = s[r][c];
        }
        __syncthreads();
        for (int r = 0; r < 2; r++) {
            float most = largest[r];
            for (int c = 0; c < TILE; c++) most = fmaxf(most, weights[y + H * r][c]);
            float kept = expf(largest[r] - most);
            largest[r] = most;
            sum[r] *= kept;
            for (int c = 0; c < COLUMNS; c++) total[r][c] *= kept;
        }
        __syncthreads();
        for (int r = 0; r < 2; r++) for (int c = 0; c < 2; c++)
            weights[y + H * r][x + H * c] =
                j + x + H * c < others ? expf(s[r][c] - largest[r]) : 0.f;
        load<TILE, WIDTH>(other, v, j, others, d);
        __syncthreads();
        for (int r = 0; r < 2; r++) for (int c = 0; c < TILE; c++) sum[r] += weights[y + H * r][c];
        add<TILE, WIDTH>(weights, other, y, x, total);
        __syncthreads();
    }
    for (int r = 0; r < 2; r++) {
        long row = start + y + H * r;
        if (row >= length) continue;
        for (int c = 0; c < COLUMNS; c++)
            if (x + H * c < d) out[row * d + x + H * c] = T(total[r][c] / sum[r]);
        if (x == 0) sums[row] = largest[r] + logf(sum[r]);
    }
}

// The gradient of q (a block has queries a1 = q and a2 = dO, and goes over keys b1 = k and b2 = v),
// or, with OF_KEYS, of k and v (a block has keys a1 = k and a2 = v, and goes over queries b1 = q
// and b2 = dO).
template <bool OF_KEYS, int TILE, int WIDTH, class T>
__global__ void tile_backward(long length, long others, int d, float scale, const T* a1,
                              const T* a2, const T* b1, const T* b2,
                              const float* sums, const float* delta, float* of_a1, float* of_a2) {
    const int H = TILE / 2, COLUMNS = WIDTH / H;
    __shared__ float own1[TILE][WIDTH + 1], own2[TILE][WIDTH + 1];
    __shared__ float other1[TILE][WIDTH + 1], other2[TILE][WIDTH + 1];
    __shared__ float weights[TILE][TILE + 1], of_scores[TILE][TILE + 1];
    long tiles = (length + TILE - 1) / TILE, head = blockIdx.x / tiles,
        start = blockIdx.x % tiles * TILE;
    int y = threadIdx.x / H, x = threadIdx.x % H;
    a1 += head * length * d; a2 += head * length * d;
    of_a1 += head * length * d; of_a2 += head * length * d;
    b1 += head * others * d; b2 += head * others * d;
    sums += head * (OF_KEYS ? others : length); delta += head * (OF_KEYS ? others : length);
    float total1[2][COLUMNS], total2[2][COLUMNS], s[2][2], g[2][2];
    for (int r = 0; r < 2; r++) for (int c = 0; c < COLUMNS; c++) total1[r][c] = total2[r][c] = 0;
    load<TILE, WIDTH>(own1, a1, start, length, d);
    load<TILE, WIDTH>(own2, a2, start, length, d);
    for (long j = 0; j < others; j += TILE) {
        load<TILE, WIDTH>(other1, b1, j, others, d);
        load<TILE, WIDTH>(other2, b2, j, others, d);
        __syncthreads();
        multiply<H, WIDTH>(own1, other1, y, x, d, s);
        multiply<H, WIDTH>(own2, other2, y, x, d, g);
        for (int r = 0; r < 2; r++) for (int c = 0; c < 2; c++) {
            long row = start + y + H * r, column = j + x + H * c, query = OF_KEYS ? column : row;
            float p = row < length && column < others ? expf(s[r][c] * scale - sums[query]) : 0.f;
            weights[y + H * r][x + H * c] = p;
            of_scores[y + H * r][x + H * c] = p > 0 ? p * (g[r][c] - delta[query]) * scale : 0.f;
        }
        __syncthreads();
        add<TILE, WIDTH>(of_scores, other1, y, x, total1);
        if (OF_KEYS) add<TILE, WIDTH>(weights, other2, y, x, total2);
        __syncthreads();
    }
    for (int r = 0; r < 2; r++) {
        long row = start + y + H * r;
        for (int c = 0; c < COLUMNS; c++) if (row < length && x + H * c < d) {
            of_a1[row * d + x + H * c] = total1[r][c];
            if (OF_KEYS) of_a2[row * d + x + H * c] = total2[r][c];
        }
    }
}
}
"""
)

CUDA_FORWARD = """
long heads = in0_shape0, length = in0_shape1, others = in1_shape1;
int d = in0_shape2;
float scale = data["scale"];
CHECK(d <= 128) << "heads of at most 128 channels";
long small = heads * ((length + 31) / 32), large = heads * ((length + 15) / 16);
if (d <= 64)
    tile_forward<32, 64><<<small, 256>>>(length, others, d, scale, in0_p, in1_p, in2_p, out0_p,
                                         out1_p);
else
    tile_forward<16, 128><<<large, 64>>>(length, others, d, scale, in0_p, in1_p, in2_p, out0_p,
                                         out1_p);
launched("attention", {heads, length, d});
"""

CUDA_BACKWARD = """
long heads = in1_shape0, length = in1_shape1, others = in2_shape1;
int d = in1_shape2;
float scale = data["scale"];
CHECK(d <= 128) << "heads of at most 128 channels";
long small = heads * ((length + 31) / 32), large = heads * ((length + 15) / 16);
long small_keys = heads * ((others + 31) / 32), large_keys = heads * ((others + 15) / 16);
if (d <= 64) {
    tile_backward<false, 32, 64><<<small, 256>>>(length, others, d, scale, in1_p, in0_p, in2_p,
                                                 in3_p, in4_p, in5_p, out0_p, out0_p);
    launched("attention's gradient of queries", {heads, length, d});
    tile_backward<true, 32, 64><<<small_keys, 256>>>(others, length, d, scale, in2_p, in3_p, in1_p,
                                                     in0_p, in4_p, in5_p, out1_p, out2_p);
    launched("attention's gradients of keys and values", {heads, others, d});
} else {
    tile_backward<false, 16, 128><<<large, 64>>>(length, others, d, scale, in1_p, in0_p, in2_p,
                                                 in3_p, in4_p, in5_p, out0_p, out0_p);
    launched("attention's gradient of queries", {heads, length, d});
    tile_backward<true, 16, 128><<<large_keys, 64>>>(others, length, d, scale, in2_p, in3_p, in1_p,
                                                     in0_p, in4_p, in5_p, out1_p, out2_p);
    launched("attention's gradients of keys and values", {heads, others, d});
}
"""
