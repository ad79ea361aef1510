// 3x3 convolution with stride 1 by Winograd's F(4x4, 3x3), for the CPU: 36 products instead of 144
// for the 4x4 results of a tile. winograd_tiles.h has the transforms.
//
// Work goes in blocks of tiles whose matrices stay in the last cache. Weights are transformed for
// each block again, a few at a time; keeping them would take four times their memory, and reading
// them would take as long. The gradient of the input is a convolution with turned weights; that of
// the weights is G^T (sum over tiles of (A dY A^T) * (B^T d B)) G.
#include <omp.h>

namespace winograd {

// A block's transformed inputs, in floats, for the last cache; those of the weights that a thread
// has at hand stay in its second cache.
const long INPUTS = 36L * 256 * 96;
const long OUTPUTS = 16, CHANNELS = 128;  // at most, that a thread takes at once
const int ROWS_AT_ONCE = 2;  // of the six rows of 6x6 matrices, for the gradient of the weights

// out = x convolved with w [outputs, channels, 3, 3], plus bias [outputs] and rest (like out) if
// they are given; backward: with w [channels, outputs, 3, 3] turned by half a turn.
inline void convolve(Sizes s, const float* x, const float* w, bool backward, const float* bias,
                     const float* rest, float* out) {
    s.cut(std::max(24L, std::min(768L, INPUTS / 36 / s.channels)));
    const long channels = s.channels, groups = s.tiles / LANES;
    const long of_output = backward ? 9 : 9 * channels, of_channel = backward ? 9 * s.outputs : 9;

    // The 36 matrices of inputs v, for all threads; of weights u and of products m, for each.
    const long each = up(s.outputs / omp_get_max_threads(), ROWS);
    const long at_once = std::max<long>(ROWS, std::min(OUTPUTS, each));
    const long deep = std::min(up(channels, LANES / ROWS), CHANNELS);
    const long of_v = apart(channels * s.tiles), of_u = apart(at_once * deep);
    const long of_m = apart(at_once * s.tiles);
    Room inputs(36 * of_v);
    float* v = inputs.start;
    const std::vector<long> at_in = s.places(6), at_out = s.places(4);

    #pragma omp parallel
    {
        Room own(36 * (of_u + of_m));
        float *u = own.start, *m = u + 36 * of_u;
        std::vector<float> lines(6 * s.line), columns(6 * s.rows * s.line + LANES);
        for (long row = 0; row < s.all_rows(); row += s.rows) {
            long rows = std::min(s.rows, s.all_rows() - row);
            #pragma omp for schedule(dynamic, 4)
            for (long c = 0; c < channels; c++) {
                columns_of_input(s, x, c, row, rows, lines.data(), columns.data());
                for (long g = 0; g < groups; g++) {
                    long first, width;
                    find_panel(groups, g, first, width);
                    float* to = v + (first * channels + c * width + g - first) * LANES;
                    for (int i = 0; i < 6; i++) {
                        Lanes t[6];
                        row_of_input(columns.data() + i * s.line, at_in.data() + g * LANES, t);
                        for (int j = 0; j < 6; j++) store(to + (6 * i + j) * of_v, t[j]);
                    }
                }
            }

            #pragma omp for schedule(dynamic)
            for (long k = 0; k < s.outputs; k += at_once) {
                long some = std::min(at_once, s.outputs - k);
                for (long c = 0; c < channels; c += CHANNELS) {
                    long depth = std::min(CHANNELS, channels - c);
                    for (long p = 0; p < some; p += ROWS)
                        transform_weights(w + k * of_output + c * of_channel, of_output, of_channel,
                                          backward, p, some, depth, u + p * deep, of_u);
                    for (int i = 0; i < 36; i++)
                        products(0, up(some, ROWS) / ROWS, groups, depth,
                                 Panels{u + i * of_u, deep}, v + i * of_v, channels, c,
                                 m + i * of_m, s.tiles, c > 0);
                }
                for (long i = 0; i < some; i++) {
                    transform_products(s, m + i * s.tiles, of_m, at_out.data(), columns.data());
                    write_rows(s, columns.data(), k + i, row, rows, bias ? bias[k + i] : 0, rest,
                               out);
                }
            }
        }
    }
}

// Transposed for the product over tiles: numbers of four neighbouring channels (or outputs) and
// all tiles of a block, for the rows i0, i0 + 1, ... of the 6x6 matrices.
template <class Columns, class Row>
inline void transform_four(const Sizes& s, long channel, long channels, int i0, const long* at,
                           float* columns, float* to, long width, long distance,
                           Columns read_columns, Row transform_row) {
    const long size = 6 * s.rows * s.line + LANES;
    for (long c = 0; c < 4; c++)
        read_columns(std::min(channel + c, channels - 1), columns + c * size);
    for (long g = 0; g < s.tiles; g += LANES)
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            Lanes t[4][6];
            for (int c = 0; c < 4; c++)
                transform_row(columns + c * size + (i0 + i) * s.line, at + g, t[c]);
            for (int j = 0; j < 6; j++) {
                Lanes four[4] = {t[0][j], t[1][j], t[2][j], t[3][j]};
                store_turned(four, to + (6 * i + j) * distance + g * width, width);
            }
        }
}

// Adds G^T m G of the rows i0, i0 + 1, ... of one output's m, [its matrices, wide], to its nine
// sums [9, wide].
inline void add_rows(const float* m, long distance, long wide, int i0, float* sums) {
    static const float down[3][6] = {{G0, GA, GA, GB, GB, 0},
                                     {0, GA * A, -GA * A, GB * B, -GB * B, 0},
                                     {0, GA * AA, GA * AA, GB * BB, GB * BB, 1}};
    for (long c = 0; c < wide; c += LANES)
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            Lanes d[6], g[3];
            for (int j = 0; j < 6; j++) d[j] = load(m + (6 * i + j) * distance + c);
            to_weight(d, g);
            for (int a = 0; a < 3; a++)
                for (int b = 0; b < 3; b++) {
                    float* to = sums + (3 * a + b) * wide + c;
                    Lanes part = down[a][i0 + i] * g[b];
                    store(to, i0 + i ? load(to) + part : part);
                }
        }
}

// Gradient of the weights [outputs, channels, 3, 3] from that of the result.
inline void weight_gradient(Sizes s, const float* x, const float* gradient, float* out) {
    // Rows i of the 6x6 matrices, a few at a time: their products stay in the cache. If those of
    // all outputs do not, outputs are cut too, and the inputs are transformed at once.
    const int matrices = 6 * ROWS_AT_ONCE;
    const long channels = s.channels, vectors = up(channels, LANES) / LANES;
    const long panels = up(s.outputs, ROWS) / ROWS, wide = vectors * LANES;
    const bool whole = matrices * panels * ROWS * wide <= INPUTS;
    s.cut(whole ? std::max(24L, INPUTS / 2 / matrices / std::max(channels, s.outputs)) : 1L << 40);
    const long at_once =
        whole ? panels : std::min(panels, std::max(8L, INPUTS / 2 / (matrices * ROWS * wide)));

    // Transformed inputs v, gradients e, their products m; what the rows i have given so far.
    const long of_v = apart(wide * s.tiles), of_e = apart(at_once * ROWS * s.tiles);
    const long of_m = apart(at_once * ROWS * wide), every = panels * ROWS * 9 * wide;
    Room room(matrices * (of_v + of_e + of_m) + every);
    float *v = room.start, *e = v + matrices * of_v, *m = e + matrices * of_e;
    float* total = m + matrices * of_m;
    const std::vector<long> at = s.places(6);
    const long chunk = std::max(1L, at_once / 4);

    #pragma omp parallel
    {
        std::vector<float> lines(6 * s.line), columns(4 * (6 * s.rows * s.line + LANES));
        for (int i0 = 0; i0 < 6; i0 += ROWS_AT_ONCE)
            for (long panel = 0; panel < panels; panel += at_once) {
                long some = std::min(at_once, panels - panel);
                for (long row = 0; row < s.all_rows(); row += s.rows) {
                    long rows = std::min(s.rows, s.all_rows() - row);
                    if (!panel) {
                        #pragma omp for schedule(dynamic) nowait
                        for (long c = 0; c < wide; c += 4) {
                            long first, width;
                            find_panel(vectors, c / LANES, first, width);
                            float* to = v + first * LANES * s.tiles + c - first * LANES;
                            transform_four(
                                s, c, channels, i0, at.data(), columns.data(), to, width * LANES,
                                of_v,
                                [&](long channel, float* out) {
                                    columns_of_input(s, x, channel, row, rows, lines.data(), out);
                                },
                                row_of_input);
                        }
                    }
                    #pragma omp for schedule(dynamic)
                    for (long k = 0; k < some * ROWS; k += 4)
                        transform_four(
                            s, panel * ROWS + k, s.outputs, i0, at.data(), columns.data(),
                            e + k / ROWS * ROWS * s.tiles + k % ROWS, ROWS, of_e,
                            [&](long output, float* out) {
                                columns_of_gradient(s, gradient, output, row, rows, lines.data(),
                                                    out);
                            },
                            row_of_gradient);

                    const long chunks = (some + chunk - 1) / chunk;
                    #pragma omp for schedule(dynamic)
                    for (long i = 0; i < matrices * chunks; i++) {
                        long one = i / chunks, start = i % chunks * chunk;
                        products(start, std::min(start + chunk, some), vectors, rows * s.across,
                                 Panels{e + one * of_e, s.tiles}, v + one * of_v, s.tiles, 0,
                                 m + one * of_m, wide, row > 0);
                    }
                }

                // G^T m G, of these rows
                #pragma omp for schedule(dynamic, 4)
                for (long k = 0; k < std::min(some * ROWS, s.outputs - panel * ROWS); k++)
                    add_rows(m + k * wide, of_m, wide, i0, total + (panel * ROWS + k) * 9 * wide);
            }
        #pragma omp for
        for (long k = 0; k < s.outputs; k++)
            for (long c = 0; c < channels; c++)
                for (int tap = 0; tap < 9; tap++)
                    out[(k * channels + c) * 9 + tap] = total[(k * 9 + tap) * wide + c];
    }
}
}  // namespace winograd
