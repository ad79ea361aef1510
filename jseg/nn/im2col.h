// Convolutions as one product of matrices, for the CPU: out = w times a map's columns (im2col).
//
// The columns are packed in blocks that stay in the last cache, for all threads; each of these
// multiplies them with the weights of a few outputs at a time. Of few columns, weights are read in
// place, once; for more they are packed first.
#include <omp.h>

#include <vector>

namespace im2col {
using namespace lanes;

const long PACKED = 1L << 20;                // floats of a block, about
const long PART = 96 * LANES, OUTPUTS = 32;  // that a thread multiplies at once
const long FEW = 12 * LANES;                 // columns for which weights are not worth packing

struct Map {
    long batch, channels, height, width;
    long side;                   // of the kernel: 1 or 3
    long out_height, out_width;  // of the result
    long above, left;            // zeros around the map
    long taps() const { return side * side; }
    long positions() const { return out_height * out_width; }
};

// `count` neighbours, from position `start` of all images' results on, of what they see of the map
// through row k of the weights: channel k / taps at tap k % taps.
inline void read_positions(const Map& s, const float* x, long k, long start, long count,
                           float* line) {
    long channel = k / s.taps(), down = k % s.taps() / s.side, across = k % s.side;
    for (long i = 0, some; i < count; i += some) {
        long n = (start + i) / s.positions(), y = (start + i) % s.positions() / s.out_width;
        long from = (start + i) % s.out_width + across - s.left;
        some = std::min(s.out_width - (start + i) % s.out_width, count - i);
        y += down - s.above;

        long before = std::min(std::max(0L, -from), some);
        long after = std::min(std::max(0L, from + some - s.width), some - before);
        if (y < 0 || y >= s.height) before = some, after = 0;
        const float* row = x + ((n * s.channels + channel) * s.height + y) * s.width;
        std::fill(line + i, line + i + before, 0.f);
        if (before + after < some)
            std::memcpy(line + i + before, row + from + before, 4 * (some - before - after));
        std::fill(line + i + some - after, line + i + some, 0.f);
    }
}

// `count` neighbours, from `start` on, of what position k of all images' results sees of the map:
// channel i / taps at tap i % taps.
inline void read_taps(const Map& s, const float* x, long k, long start, long count, float* line) {
    long n = k / s.positions(), y = k % s.positions() / s.out_width, column = k % s.out_width;
    long at[9];
    for (int tap = 0; tap < s.taps(); tap++) {
        long row = y + tap / s.side - s.above, from = column + tap % s.side - s.left;
        bool inside = row >= 0 && row < s.height && from >= 0 && from < s.width;
        at[tap] = inside ? (n * s.channels * s.height + row) * s.width + from : -1;
    }
    long channel = start / s.taps(), tap = start % s.taps();
    for (long i = 0; i < count; i++) {
        line[i] = at[tap] < 0 ? 0 : x[at[tap] + channel * s.height * s.width];
        if (++tap == s.taps()) tap = 0, channel++;
    }
}

// Row k of a block's columns, into the panels of each of its parts.
inline void pack_row(long k, long inner, long part, long count, const float* line, float* to) {
    for (long j = 0; j < count; j += part) {
        long vectors = up(std::min(part, count - j), LANES) / LANES;
        for (long v = 0, n; v < vectors; v += n) {
            n = panel_width(vectors, v);
            std::memcpy(to + j * inner + (v * inner + k * n) * LANES, line + j + v * LANES,
                        4 * n * LANES);
        }
    }
}

// The rows of a as panels [panel, inner, ROWS].
inline Panels pack(const MatrixInPlace& a, long inner, float* to) {
    for (long p = 0; p * ROWS < a.rows; p++) {
        PanelInPlace panel = a(p, 0);
        for (long k = 0; k < inner; k++)
            for (int r = 0; r < ROWS; r++) to[(p * inner + k) * ROWS + r] = panel(k, r);
    }
    return {to, inner};
}

// One output's line of `count` neighbours, plus its bias and `rest`, into the result.
inline void write_positions(long outputs, long positions, long output, long start, long count,
                            const float* line, float bias, const float* rest, float* out) {
    for (long i = 0, some; i < count; i += some) {
        long n = (start + i) / positions, p = (start + i) % positions;
        long place = (n * outputs + output) * positions + p - i;
        some = std::min(positions - p, count - i);
        for (long l = i; l < i + some; l++)
            out[place + l] = line[l] + bias + (rest ? rest[place + l] : 0);
    }
}

// out [images, outputs, positions] = w [outputs, inner] times the columns that `read` gives, inner
// of them for each position of each image, plus bias [outputs] and rest, which is like out.
template <class Read>
inline void multiply(long images, long outputs, long inner, long positions, MatrixInPlace w,
                     Read read, const float* bias, const float* rest, float* out) {
    const long columns = images * positions, part = std::min(PART, up(columns, LANES));
    const long parts = std::max(1L, std::min(up(columns, part), PACKED / inner) / part);
    const long each = up(up(outputs, omp_get_max_threads()) / omp_get_max_threads(), ROWS);
    const long at_once = std::min(OUTPUTS, each), chunks = (outputs + at_once - 1) / at_once;
    Room packed(parts * part * inner);

    #pragma omp parallel
    {
        std::vector<float> line(parts * part), products_of_part(at_once * part);
        std::vector<float> weights(part > FEW ? at_once * inner : 0);
        for (long start = 0; start < columns; start += parts * part) {
            // The columns.
            const long count = std::min(parts * part, columns - start);
            #pragma omp for schedule(dynamic, 8)
            for (long k = 0; k < inner; k++) {
                read(k, start, count, line.data());
                pack_row(k, inner, part, count, line.data(), packed.start);
            }

            // A few outputs of one part.
            const long here = (count + part - 1) / part;
            float* m = products_of_part.data();
            #pragma omp for schedule(dynamic)
            for (long task = 0; task < here * chunks; task++) {
                long first = task / here * at_once, j = task % here * part;
                long some = std::min(at_once, outputs - first), wide = std::min(part, count - j);
                MatrixInPlace own{w.start + first * w.of_row, some, w.of_row, w.at};
                auto by = [&](const auto& a) {
                    products(0, up(some, ROWS) / ROWS, up(wide, LANES) / LANES, inner, a,
                             packed.start + j * inner, inner, 0, m, part, false);
                };
                if (part > FEW) by(pack(own, inner, weights.data()));
                else by(own);
                for (long k = 0; k < some; k++)
                    write_positions(outputs, positions, first + k, start + j, wide, m + k * part,
                                    bias ? bias[first + k] : 0, rest, out);
            }
        }
    }
}
}  // namespace im2col
