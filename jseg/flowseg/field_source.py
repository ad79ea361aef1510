"""The C++ source of `jseg.flowseg.fused_field`; no size is written into it."""

# Rows of channels are padded to whole vectors of 8 floats; what is added is zero throughout.
HEADER = """
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#ifdef __x86_64__  // else g++ loads a line again for each row
#define HOLD(x) asm("" : "+x"(x));
#else
#define HOLD(x)
#endif
namespace {
typedef float V __attribute__((vector_size(32)));
typedef float Anywhere __attribute__((vector_size(32), aligned(4)));  // in memory
const long RUN = @RUN@, GAP = @GAP@;

inline long padded(long n) { return (n + 7) / 8 * 8; }
inline V load(const float* x) { return *(const Anywhere*)x; }

// R rows and C vectors of c (+)= a b; a[i, k] lies at a + i row + k column.
template <int R, int C>
inline void block(long inner, const float* a, long row, long column, const float* b, long width,
                  float* c, long out, bool add) {
    V sum[R][C];
    for (int r = 0; r < R; r++) for (int i = 0; i < C; i++)
        sum[r][i] = add ? load(c + r * out + 8 * i) : V{};
    for (long k = 0; k < inner; k++, a += column, b += width) {
        V line[C];
        for (int i = 0; i < C; i++) { line[i] = load(b + 8 * i); HOLD(line[i]) }
        for (int r = 0; r < R; r++) for (int i = 0; i < C; i++) sum[r][i] += a[r * row] * line[i];
    }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < C; i++) *(Anywhere*)(c + r * out + 8 * i) = sum[r][i];
}

template <int C>
inline void stripe(long rows, long inner, const float* a, long row, long column, const float* b,
                   long width, float* c, long out, bool add) {
    long i = 0;
    for (; i + 4 <= rows; i += 4)
        block<4, C>(inner, a + i * row, row, column, b, width, c + i * out, out, add);
    for (; i < rows; i++)
        block<1, C>(inner, a + i * row, row, column, b, width, c + i * out, out, add);
}

// c [rows, columns] (+)= a [rows, inner] b [inner, columns], for whole vectors of columns.
inline void multiply(long rows, long inner, long columns, const float* a, long row, long column,
                     const float* b, float* c, bool add) {
    long j = 0;
    for (; j + 16 <= columns; j += 16)
        stripe<2>(rows, inner, a, row, column, b + j, columns, c + j, columns, add);
    if (j < columns) stripe<1>(rows, inner, a, row, column, b + j, columns, c + j, columns, add);
}

// x [rows, columns] into rows of `width`, or turned, the other way round.
inline void spread(long rows, long columns, const float* x, float* y, long width) {
    for (long i = 0; i < rows; i++, x += columns, y += width) {
        for (long j = 0; j < columns; j++) y[j] = x[j];
        for (long j = columns; j < width; j++) y[j] = 0;
    }
}
inline void turned(long rows, long columns, const float* x, long from, float* y, long to) {
    for (long j = 0; j < columns; j++) {
        for (long i = 0; i < rows; i++) y[j * to + i] = x[i * from + j];
        std::fill(y + j * to + rows, y + (j + 1) * to, 0.f);
    }
}

// Columns of w [rows, columns] over their lengths, in rows of `width`; the inverse lengths.
inline void unit(long rows, long columns, const float* w, float* y, float* inverse, long width) {
    std::fill(inverse, inverse + width, 0.f);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) inverse[j] += w[i * columns + j] * w[i * columns + j];
    for (long j = 0; j < columns; j++) inverse[j] = 1 / std::sqrt(std::max(inverse[j], @FLOOR@));
    for (long i = 0; i < rows; i++, w += columns, y += width) {
        for (long j = 0; j < columns; j++) y[j] = w[j] * inverse[j];
        for (long j = columns; j < width; j++) y[j] = 0;
    }
}

// The gradient of w from that of its unit columns y, whose lengths the floor may have replaced.
inline void of_unit(long rows, long columns, const float* y, const float* of_y,
                    const float* inverse, long width, float* along, float* of_w) {
    std::fill(along, along + width, 0.f);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) along[j] += y[i * width + j] * of_y[i * width + j];
    for (long j = 0; j < columns; j++)
        if (inverse[j] * inverse[j] * @FLOOR@ > 0.9999f) along[j] = 0;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++)
            of_w[i * columns + j] =
                inverse[j] * (of_y[i * width + j] - y[i * width + j] * along[j]);
}

// y = x q scale, q = 1 / rms(x), on rows of n values in `width`.
inline void norm(long rows, long n, long width, float eps, const float* x, const float* scale,
                 float* q, float* y) {
    for (long i = 0; i < rows; i++, x += width, y += width) {
        float squares = 0;
        for (long j = 0; j < width; j++) squares += x[j] * x[j];
        q[i] = 1 / std::sqrt(squares / n + eps);
        for (long j = 0; j < width; j++) y[j] = x[j] * q[i] * scale[j];
    }
}

inline void of_norm(long rows, long n, long width, const float* g, const float* x,
                    const float* scale, const float* q, float* of_x, float* of_scale, bool add) {
    for (long i = 0; i < rows; i++, g += width, x += width, of_x += width) {
        float sum = 0, r = q[i];
        for (long j = 0; j < width; j++) sum += g[j] * scale[j] * x[j];
        float slope = r * r * sum / n;
        for (long j = 0; j < width; j++) {
            float value = r * (g[j] * scale[j] - x[j] * slope);
            of_x[j] = add ? of_x[j] + value : value;
            of_scale[j] += g[j] * x[j] * r;
        }
    }
}

inline float sigmoid(float x) { return 1 / (1 + std::exp(std::min(-x, 80.f))); }

// The sizes of a field and what all its patches share, in padded rows.
struct Field {
    long pixels, colours, channels, hidden, blocks, wide, deep;  // wide, deep: padded channels
    float eps;
    std::vector<float> colour, place, norms, last, last_turned, colour_turned;

    Field(long pixels, long colours, long channels, long hidden, long blocks, float eps,
          const float* of_colour, const float* of_place, const float* of_norms, const float* final)
        : pixels(pixels), colours(colours), channels(channels), hidden(hidden), blocks(blocks),
          wide(padded(channels)), deep(padded(hidden)), eps(eps), colour(colours * wide),
          place(pixels * wide), norms((blocks + 1) * wide), last(3 * wide),
          last_turned(channels * 8), colour_turned(channels * 8) {
        spread(colours, channels, of_colour, colour.data(), wide);
        spread(pixels, channels, of_place, place.data(), wide);
        spread(blocks + 1, channels, of_norms, norms.data(), wide);
        spread(3, channels, final, last.data(), wide);
        turned(3, channels, final, channels, last_turned.data(), 8);
        turned(colours, channels, of_colour, channels, colour_turned.data(), 8);
    }
};

// The values of one patch; with `keeps`, those of every block for the gradient.
struct Patch {
    const Field& f;
    bool keeps;
    long inputs, hiddens, weights;  // floats of one block, 0 where blocks share their room
    std::vector<float> h, u, q, z, gate, s, w1, w2, inverse1, inverse2, v;

    Patch(const Field& f, bool keeps)
        : f(f), keeps(keeps), inputs(keeps ? f.pixels * f.wide : 0),
          hiddens(keeps ? f.pixels * f.deep : 0), weights(keeps ? 1 : 0),
          h(f.pixels * f.wide * (keeps ? f.blocks + 1 : 1)), u(h.size()),
          q(f.pixels * (f.blocks + 1)), z(f.pixels * f.deep * (keeps ? f.blocks : 1)),
          gate(z.size()), s(f.pixels * f.deep), w1(f.channels * f.deep * (keeps ? f.blocks : 1)),
          w2(f.hidden * f.wide * (keeps ? f.blocks : 1)), inverse1(f.deep * f.blocks),
          inverse2(f.wide * f.blocks), v(f.pixels * 8) {}

    float* first(long k) { return w1.data() + k * weights * f.channels * f.deep; }
    float* second(long k) { return w2.data() + k * weights * f.hidden * f.wide; }

    void forward(const float* colours, const float* const* generated, long number) {
        long own = f.channels * f.hidden, rows = f.pixels, wide = f.wide, deep = f.deep;
        std::memcpy(h.data(), f.place.data(), rows * wide * sizeof(float));
        multiply(rows, f.colours, wide, colours, f.colours, 1, f.colour.data(), h.data(), true);
        for (long k = 0; k < f.blocks; k++) {
            float *x = h.data() + k * inputs, *y = x + inputs, *of_u = u.data() + k * inputs,
                *of_z = z.data() + k * hiddens, *part = gate.data() + k * hiddens;
            const float* w = generated[k] + number * 2 * own;
            unit(f.channels, f.hidden, w, first(k), inverse1.data() + k * deep, deep);
            unit(f.hidden, f.channels, w + own, second(k), inverse2.data() + k * wide, wide);
            norm(rows, f.channels, wide, f.eps, x, f.norms.data() + k * wide, q.data() + k * rows,
                 of_u);
            multiply(rows, f.channels, deep, of_u, wide, 1, first(k), of_z, false);
            #pragma omp simd
            for (long i = 0; i < rows * deep; i++) {
                part[i] = sigmoid(of_z[i]);
                s[i] = of_z[i] * part[i];
            }
            if (keeps) std::memcpy(y, x, rows * wide * sizeof(float));
            multiply(rows, f.hidden, wide, s.data(), deep, 1, second(k), y, true);
        }
        long k = f.blocks;
        norm(rows, f.channels, wide, f.eps, h.data() + k * inputs, f.norms.data() + k * wide,
             q.data() + k * rows, u.data() + k * inputs);
        multiply(rows, f.channels, 8, u.data() + k * inputs, wide, 1, f.last_turned.data(),
                 v.data(), false);
    }
};

// Gradients that all patches share, in padded rows, and what one patch needs on the way.
struct Gradients {
    const Field& f;
    std::vector<float> colour, place, norms, last, bias, g, of_h, of_u, of_z, of_w1, of_w2, turn1,
        turn2, along;

    Gradients(const Field& f)
        : f(f), colour(f.colour.size()), place(f.place.size()), norms(f.norms.size()),
          last(f.last.size()), bias(8), g(f.pixels * 8), of_h(f.pixels * f.wide),
          of_u(of_h.size()), of_z(f.pixels * f.deep), of_w1(f.channels * f.deep),
          of_w2(f.hidden * f.wide), turn1(f.hidden * f.wide), turn2(f.channels * f.deep),
          along(std::max(f.wide, f.deep)) {}

    void add(Patch& patch, const float* colours, const float* gradient, float* of_colours,
             float* const* of_generated, long number) {
        long own = f.channels * f.hidden, rows = f.pixels, wide = f.wide, deep = f.deep,
            k = f.blocks;

        // The last layer and its norm.
        spread(rows, 3, gradient, g.data(), 8);
        for (long i = 0; i < rows; i++) for (long c = 0; c < 8; c++) bias[c] += g[i * 8 + c];
        multiply(3, rows, wide, g.data(), 1, 8, patch.u.data() + k * patch.inputs, last.data(),
                 true);
        multiply(rows, 3, wide, g.data(), 8, 1, f.last.data(), of_u.data(), false);
        of_norm(rows, f.channels, wide, of_u.data(), patch.h.data() + k * patch.inputs,
                f.norms.data() + k * wide, patch.q.data() + k * rows, of_h.data(),
                norms.data() + k * wide, false);

        while (k-- > 0) {
            const float *x = patch.h.data() + k * patch.inputs,
                *u = patch.u.data() + k * patch.inputs, *z = patch.z.data() + k * patch.hiddens,
                *gate = patch.gate.data() + k * patch.hiddens;
            float *s = patch.s.data(), *d = of_z.data(),
                *of_w = of_generated[k] + number * (2 * own + GAP);
            turned(f.channels, f.hidden, patch.first(k), deep, turn1.data(), wide);
            turned(f.hidden, f.channels, patch.second(k), wide, turn2.data(), deep);
            multiply(rows, f.channels, deep, of_h.data(), wide, 1, turn2.data(), d, false);
            #pragma omp simd
            for (long i = 0; i < rows * deep; i++) {
                s[i] = z[i] * gate[i];
                d[i] *= gate[i] + s[i] * (1 - gate[i]);
            }
            multiply(f.hidden, rows, wide, s, 1, deep, of_h.data(), of_w2.data(), false);
            multiply(f.channels, rows, deep, u, 1, wide, d, of_w1.data(), false);
            multiply(rows, f.hidden, wide, d, deep, 1, turn1.data(), of_u.data(), false);
            of_norm(rows, f.channels, wide, of_u.data(), x, f.norms.data() + k * wide,
                    patch.q.data() + k * rows, of_h.data(), norms.data() + k * wide, true);
            of_unit(f.channels, f.hidden, patch.first(k), of_w1.data(),
                    patch.inverse1.data() + k * deep, deep, along.data(), of_w);
            of_unit(f.hidden, f.channels, patch.second(k), of_w2.data(),
                    patch.inverse2.data() + k * wide, wide, along.data(), of_w + own);
        }

        // The first layer; g has done its work.
        for (size_t i = 0; i < place.size(); i++) place[i] += of_h[i];
        multiply(f.colours, rows, wide, colours, 1, f.colours, of_h.data(), colour.data(), true);
        multiply(rows, f.channels, 8, of_h.data(), wide, 1, f.colour_turned.data(), g.data(),
                 false);
        for (long i = 0; i < rows; i++)
            for (long c = 0; c < f.colours; c++) of_colours[i * f.colours + c] = g[i * 8 + c];
    }

    // All that is shared, without the padding, one behind another.
    void write(float* to) const {
        auto rows = [&](const std::vector<float>& x) {
            for (size_t i = 0; i < x.size(); i += f.wide, to += f.channels)
                std::memcpy(to, x.data() + i, f.channels * sizeof(float));
        };
        rows(colour);
        rows(place);
        rows(norms);
        rows(last);
        std::memcpy(to, bias.data(), 3 * sizeof(float));
    }
};
}
"""

# Inputs: pixels [n, p^2, C], colour [C, X], place [p^2, X], norms [blocks + 1, X], last [3, X],
# bias [3], generated weights [n, 2 X hidden] of each block.
SETUP = """
long n = in0_shape0, blocks = in3_shape0 - 1, channels = in1_shape1;
const float* generated[] = {@GENERATED@};
Field field(in0_shape1, in0_shape2, channels, in6_shape1 / (2 * channels), blocks, data["eps"],
            in1_p, in2_p, in3_p, in4_p);
long colours = field.pixels * field.colours, values = field.pixels * 3;
"""

FORWARD = """
#pragma omp parallel
{
    Patch patch(field, false);
    #pragma omp for
    for (long i = 0; i < n; i++) {
        patch.forward(in0_p + i * colours, generated, i);
        for (long j = 0; j < field.pixels; j++) for (long c = 0; c < 3; c++)
            out_p[i * values + 3 * j + c] = patch.v[8 * j + c] + in5_p[c];
    }
}
"""

# The gradient comes as the last input. Outputs: the gradients of pixels, of all that is shared in a
# row for each run of patches, of each block's generated weights in rows with a gap behind them.
BACKWARD = """
float* of_generated[] = {@OF_GENERATED@};
#pragma omp parallel for
for (long run = 0; run < out1_shape0; run++) {
    Patch patch(field, true);
    Gradients gradients(field);
    for (long i = run * RUN; i < std::min(n, (run + 1) * RUN); i++) {
        patch.forward(in0_p + i * colours, generated, i);
        gradients.add(patch, in0_p + i * colours, @GRADIENT@ + i * values, out0_p + i * colours,
                      of_generated, i);
    }
    gradients.write(out1_p + run * out1_shape1);
}
"""

# The gradients of tokens [n, D], weight [W, D] and bias [W] of the layer that generated weights
# [n, W], from those of the weights, [n, W + gap].
GENERATOR = """
long n = in1_shape0, inner = in1_shape1, wide = in2_shape0, from = in0_shape1;
int failed = dnnl_sgemm('N', 'N', n, inner, wide, 1, in0_p, from, in2_p, inner, 0, out0_p, inner);
failed += dnnl_sgemm('T', 'N', wide, inner, n, 1, in0_p, from, in1_p, inner, 0, out1_p, inner);
CHECK(!failed) << "dnnl_sgemm refused a product";
for (long j = 0; j < wide; j++) out2_p[j] = 0;
for (long i = 0; i < n; i++) for (long j = 0; j < wide; j++) out2_p[j] += in0_p[i * from + j];
"""
