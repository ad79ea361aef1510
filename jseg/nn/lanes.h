// Vectors of floats for jseg's convolutions, and the product of matrices on them.
//
// A vector has LANES floats, in QUADS groups of four: as wide as the processor's registers, or as
// JSEG_QUADS says. Wider ones than its own are computed in parts, so that every width can be tested
// on every machine.
#include <immintrin.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lanes {

#ifndef JSEG_QUADS
#if defined(__AVX512F__)
#define JSEG_QUADS 4
#elif defined(__AVX2__)
#define JSEG_QUADS 2
#else
#define JSEG_QUADS 1
#endif
#endif

const int QUADS = JSEG_QUADS, LANES = 4 * QUADS;
// A product keeps ROWS x WIDEST vectors in registers: 12 of 16, or of AVX-512's 32, 24.
const int ROWS = QUADS == 4 ? 8 : 4, WIDEST = QUADS == 1 ? 2 : 3;
const long DEPTH = 128;  // of a product: its panels, 12 and 2 KB with AVX2, stay in the first cache

typedef float Lanes __attribute__((vector_size(4 * LANES)));

inline Lanes load(const float* p) {
    Lanes v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Lanes v) { std::memcpy(p, &v, sizeof v); }
inline Lanes all(float value) { return Lanes{} + value; }

// low, high, front, back: unpacklo, unpackhi and shuffles 0x44, 0xEE of every quad.
// gather: quads from p + at[0], p + at[4], ...; quad: the i-th of a vector.
#if JSEG_QUADS == 4 && defined(__AVX512F__)
#define JSEG_KEEP(v) asm("" : "+v"(v))
inline Lanes low(Lanes a, Lanes b) { return (Lanes)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
inline Lanes high(Lanes a, Lanes b) { return (Lanes)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
inline Lanes front(Lanes a, Lanes b) {
    return (Lanes)_mm512_shuffle_ps((__m512)a, (__m512)b, 0x44);
}
inline Lanes back(Lanes a, Lanes b) {
    return (Lanes)_mm512_shuffle_ps((__m512)a, (__m512)b, 0xEE);
}
inline Lanes gather(const float* p, const long* at) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p + at[0]));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + at[4]), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + at[8]), 2);
    return (Lanes)_mm512_insertf32x4(v, _mm_loadu_ps(p + at[12]), 3);
}
inline __m128 quad(Lanes v, int i) {
    if (i == 1) return _mm512_extractf32x4_ps((__m512)v, 1);
    if (i == 2) return _mm512_extractf32x4_ps((__m512)v, 2);
    if (i == 3) return _mm512_extractf32x4_ps((__m512)v, 3);
    return _mm512_castps512_ps128((__m512)v);
}
#elif JSEG_QUADS == 2 && defined(__AVX2__)
#define JSEG_KEEP(v) asm("" : "+x"(v))
inline Lanes low(Lanes a, Lanes b) { return (Lanes)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
inline Lanes high(Lanes a, Lanes b) { return (Lanes)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
inline Lanes front(Lanes a, Lanes b) {
    return (Lanes)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x44);
}
inline Lanes back(Lanes a, Lanes b) {
    return (Lanes)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xEE);
}
inline Lanes gather(const float* p, const long* at) {
    __m256 v = _mm256_castps128_ps256(_mm_loadu_ps(p + at[0]));
    return (Lanes)_mm256_insertf128_ps(v, _mm_loadu_ps(p + at[4]), 1);
}
inline __m128 quad(Lanes v, int i) {
    return i ? _mm256_extractf128_ps((__m256)v, 1) : _mm256_castps256_ps128((__m256)v);
}
#else
#define JSEG_KEEP(v)
union Quads {
    Lanes lanes;
    __m128 quad[QUADS];
};
template <class F> inline Lanes by_quad(Lanes a, Lanes b, F f) {
    Quads x, y, z;
    x.lanes = a, y.lanes = b;
    for (int i = 0; i < QUADS; i++) z.quad[i] = f(x.quad[i], y.quad[i]);
    return z.lanes;
}
inline Lanes low(Lanes a, Lanes b) {
    return by_quad(a, b, [](__m128 x, __m128 y) { return _mm_unpacklo_ps(x, y); });
}
inline Lanes high(Lanes a, Lanes b) {
    return by_quad(a, b, [](__m128 x, __m128 y) { return _mm_unpackhi_ps(x, y); });
}
inline Lanes front(Lanes a, Lanes b) {
    return by_quad(a, b, [](__m128 x, __m128 y) { return _mm_shuffle_ps(x, y, 0x44); });
}
inline Lanes back(Lanes a, Lanes b) {
    return by_quad(a, b, [](__m128 x, __m128 y) { return _mm_shuffle_ps(x, y, 0xEE); });
}
inline Lanes gather(const float* p, const long* at) {
    Quads v;
    for (int i = 0; i < QUADS; i++) v.quad[i] = _mm_loadu_ps(p + at[4 * i]);
    return v.lanes;
}
inline __m128 quad(Lanes v, int i) {
    Quads x;
    x.lanes = v;
    return x.quad[i];
}
#endif

// The 4x4 matrix of every quad, turned.
inline void turn(Lanes* v) {
    Lanes a = low(v[0], v[1]), b = low(v[2], v[3]), c = high(v[0], v[1]), d = high(v[2], v[3]);
    v[0] = front(a, b), v[1] = back(a, b), v[2] = front(c, d), v[3] = back(c, d);
}

// Four vectors of LANES tiles, one for each of four neighbouring channels, turned and stored:
// tile t's four numbers at `to` + t `width`.
inline void store_turned(Lanes* v, float* to, long width) {
    turn(v);
    for (int j = 0; j < 4; j++)
        for (int q = 0; q < QUADS; q++) _mm_storeu_ps(to + (4 * q + j) * width, quad(v[j], q));
}

// Factors on the left of a product. Of a matrix that is packed for it, [panel, depth, ROWS]:
struct Panel {
    const float* start;
    long next;  // to the panel that comes next, which is asked for meanwhile
    float operator()(long k, int r) const { return start[k * ROWS + r]; }
    void ask(long k) const { _mm_prefetch((const char*)(start + k * ROWS + next), _MM_HINT_T0); }
};
struct Panels {
    const float* start;
    long depth;
    Panel operator()(long p, long k) const {
        return {start + (p * depth + k) * ROWS, depth * ROWS};
    }
};
// Of a matrix in place, the factor k of the row i at start[i * of_row + at[k]]:
struct PanelInPlace {
    const float* row[ROWS];
    const long* at;
    float operator()(long k, int r) const { return row[r][at[k]]; }
    void ask(long) const {}
};
struct MatrixInPlace {
    const float* start;
    long rows, of_row;
    const long* at;
    PanelInPlace operator()(long p, long k) const {
        PanelInPlace panel;
        for (int r = 0; r < ROWS; r++)
            panel.row[r] = start + std::min(p * ROWS + r, rows - 1) * of_row;
        panel.at = at + k;
        return panel;
    }
};

// c [ROWS, N vectors] (+)= left [ROWS, depth] times b [depth, N vectors]. Inlined, g++ would run
// out of registers.
template <int N, class Left>
__attribute__((noinline)) void product(long depth, const Left left, const float* b, float* c,
                                       long stride, bool add) {
    Lanes sum[ROWS][N] = {};
    for (long k = 0; k < depth; k++, b += N * LANES) {
        left.ask(k);
        Lanes right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            right[n] = load(b + n * LANES);
            JSEG_KEEP(right[n]);  // else it is loaded once for each row
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            Lanes factor = all(left(k, r));
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) sum[r][n] += factor * right[n];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            float* to = c + r * stride + n * LANES;
            store(to, add ? load(to) + sum[r][n] : sum[r][n]);
        }
}

// Columns are stored in panels, [panel, depth, its vectors]. Vectors of the panel that starts at
// vector v: WIDEST, but none is of one alone if it can be helped.
inline long panel_width(long vectors, long v) {
    long rest = vectors - v;
    return rest == WIDEST + 1 ? (rest + 1) / 2 : std::min<long>(rest, WIDEST);
}
// (first vector, vectors) of the panel with vector v.
inline void find_panel(long vectors, long v, long& first, long& width) {
    for (first = 0; v >= first + (width = panel_width(vectors, first)); first += width) {}
}

// Panels start ... stop - 1 of ROWS rows each, of the matrix a, times b, whose panels have room for
// b_depth, from its row b_start on: c [rows, stride] (+)= their product over `depth`.
template <class Matrix>
inline void products(long start, long stop, long vectors, long depth, const Matrix& a,
                     const float* b, long b_depth, long b_start, float* c, long stride, bool add) {
    for (long k = 0; k < depth; k += DEPTH) {
        long some = std::min(DEPTH, depth - k);
        for (long v = 0, n; v < vectors; v += n) {
            n = panel_width(vectors, v);
            const float* right = b + (v * b_depth + (b_start + k) * n) * LANES;
            for (long p = start; p < stop; p++) {
                float* to = c + p * ROWS * stride + v * LANES;
                auto left = a(p, k);
                typedef decltype(left) L;
                auto multiply = n == 3 ? product<3, L> : n == 2 ? product<2, L> : product<1, L>;
                multiply(some, left, right, to, stride, add || k);
            }
        }
    }
}
inline long up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

struct Room {
    float* start;
    explicit Room(long floats) {
        void* found = nullptr;
        if (posix_memalign(&found, 64, 4 * floats)) throw std::bad_alloc();
        start = static_cast<float*>(found);
    }
    Room(const Room&) = delete;
    ~Room() { std::free(start); }
};
}  // namespace lanes
