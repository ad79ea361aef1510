// The transforms of Winograd's F(4x4, 3x3), LANES tiles at a time.
//
// Y = A^T ((G g G^T) * (B^T d B)) A, where * is summed over channels (Lavin and Gray 2016, "Fast
// Algorithms for Convolutional Neural Networks"). The points are 0, +-5/8 and +-3/2: all entries of
// A and B are exact, and rounding errors are half of those of 0, +-1, +-2 (Barabasz et al. 2020,
// "Error Analysis and Improving the Accuracy of Winograd Convolution").
#include <algorithm>
#include <cstring>
#include <vector>

namespace winograd {
using namespace lanes;

const float A = 0.625f, B = 1.5f, AA = A * A, BB = B * B;
const float G0 = 1 / (AA * BB), GA = 1 / (2 * AA * (AA - BB)), GB = 1 / (2 * BB * (BB - AA));

// B^T d
inline void of_input(const Lanes* d, Lanes* t) {
    Lanes even = d[4] - BB * d[2], odd = A * (d[3] - BB * d[1]);
    Lanes wide_even = d[4] - AA * d[2], wide_odd = B * (d[3] - AA * d[1]);
    t[0] = AA * BB * d[0] - (AA + BB) * d[2] + d[4];
    t[1] = even + odd, t[2] = even - odd;
    t[3] = wide_even + wide_odd, t[4] = wide_even - wide_odd;
    t[5] = AA * BB * d[1] - (AA + BB) * d[3] + d[5];
}
// A^T m
inline void of_product(const Lanes* m, Lanes* y) {
    Lanes even = m[1] + m[2], odd = m[1] - m[2], wide_even = m[3] + m[4], wide_odd = m[3] - m[4];
    y[0] = m[0] + even + wide_even;
    y[1] = A * odd + B * wide_odd;
    y[2] = AA * even + BB * wide_even;
    y[3] = A * AA * odd + B * BB * wide_odd + m[5];
}
// A y
inline void of_gradient(const Lanes* y, Lanes* m) {
    Lanes even = y[0] + AA * y[2], odd = A * (y[1] + AA * y[3]);
    Lanes wide_even = y[0] + BB * y[2], wide_odd = B * (y[1] + BB * y[3]);
    m[0] = y[0], m[1] = even + odd, m[2] = even - odd;
    m[3] = wide_even + wide_odd, m[4] = wide_even - wide_odd, m[5] = y[3];
}
// G g
inline void of_weight(const Lanes* g, Lanes* u) {
    Lanes even = GA * (g[0] + AA * g[2]), odd = GA * A * g[1];
    Lanes wide_even = GB * (g[0] + BB * g[2]), wide_odd = GB * B * g[1];
    u[0] = G0 * g[0], u[1] = even + odd, u[2] = even - odd;
    u[3] = wide_even + wide_odd, u[4] = wide_even - wide_odd, u[5] = g[2];
}
// G^T u
inline void to_weight(const Lanes* u, Lanes* g) {
    Lanes even = GA * (u[1] + u[2]), odd = GA * A * (u[1] - u[2]);
    Lanes wide_even = GB * (u[3] + u[4]), wide_odd = GB * B * (u[3] - u[4]);
    g[0] = G0 * u[0] + even + wide_even;
    g[1] = odd + wide_odd;
    g[2] = AA * even + BB * wide_even + u[5];
}

// Floats between two of the 36 matrices: such that they do not meet in one set of a cache.
inline long apart(long n) { return up(n, 1024) + 80; }

struct Sizes {
    long batch, channels, height, width;       // of the input, doubled if `doubled`
    long outputs, out_height, out_width;       // of the result
    long above, left;                          // zeros around the (doubled) input
    bool doubled;                              // every pixel of the input counts as 2x2
    long down, across, rows, tiles, line;      // tiles of a map; rows of tiles in a block; padded

    // at_once: tiles in a block, about.
    void cut(long at_once) {
        down = up(out_height, 4) / 4, across = up(out_width, 4) / 4;
        rows = std::max(1L, std::min((at_once + across / 2) / across, batch * down));
        tiles = up(rows * across, LANES);
        line = up(4 * across + 4, LANES);
    }
    long all_rows() const { return batch * down; }
    // Where the block's tiles begin in lines of `of_row` to a row of tiles.
    std::vector<long> places(long of_row) const {
        std::vector<long> at(tiles, 0);
        for (long i = 0; i < rows * across; i++)
            at[i] = i / across * of_row * line + i % across * 4;
        return at;
    }
};

// Row y of a map of the (doubled) input, with zeros around it.
inline void read_row(const Sizes& s, const float* map, long y, float* line) {
    long height = s.height << s.doubled, width = s.width << s.doubled;
    if (y < 0 || y >= height) return std::fill(line, line + s.line, 0.f);
    long stop = std::min(s.line, width + s.left);
    const float* row = map + (y >> s.doubled) * s.width;
    std::fill(line, line + s.left, 0.f);
    if (s.doubled)
        for (long x = s.left; x < stop; x++) line[x] = row[(x - s.left) >> 1];
    else
        std::memcpy(line + s.left, row, (stop - s.left) * sizeof(float));
    std::fill(line + stop, line + s.line, 0.f);
}

// A transform of N lines down their columns, into six lines.
template <int N, class Transform>
inline void down_columns(long line, const float* lines, float* columns, Transform transform) {
    for (long i = 0; i < line; i += LANES) {
        Lanes d[N], t[6];
        for (int j = 0; j < N; j++) d[j] = load(lines + j * line + i);
        transform(d, t);
        for (int j = 0; j < 6; j++) store(columns + j * line + i, t[j]);
    }
}

// B^T d down the columns of one channel: [rows, 6, line]; `lines` has room for six.
inline void columns_of_input(const Sizes& s, const float* x, long channel, long row, long rows,
                             float* lines, float* columns) {
    for (long r = 0; r < rows; r++, columns += 6 * s.line) {
        long n = (row + r) / s.down, y = (row + r) % s.down;
        const float* map = x + (n * s.channels + channel) * s.height * s.width;
        long known = r && y ? 2 : 0;  // lines of the tile above
        std::memcpy(lines, lines + 4 * s.line, known * s.line * sizeof(float));
        for (long i = known; i < 6; i++)
            read_row(s, map, 4 * y + i - s.above, lines + i * s.line);
        down_columns<6>(s.line, lines, columns, of_input);
    }
}

// (B^T d) B of a row of LANES tiles.
inline void row_of_input(const float* line, const long* at, Lanes* t) {
    Lanes d[6];
    for (int j = 0; j < 4; j++) d[j] = gather(line, at + j);
    turn(d);
    Lanes a = low(gather(line + 4, at), gather(line + 4, at + 1));
    Lanes b = low(gather(line + 4, at + 2), gather(line + 4, at + 3));
    d[4] = front(a, b), d[5] = back(a, b);
    of_input(d, t);
}

// A dY down the columns of one output: [rows, 6, line].
inline void columns_of_gradient(const Sizes& s, const float* gradient, long output, long row,
                                long rows, float* lines, float* columns) {
    for (long r = 0; r < rows; r++, columns += 6 * s.line) {
        long n = (row + r) / s.down, y = (row + r) % s.down * 4;
        const float* map = gradient + (n * s.outputs + output) * s.out_height * s.out_width;
        for (long i = 0; i < 4; i++) {
            float* line = lines + i * s.line;
            long known = y + i < s.out_height ? s.out_width : 0;
            std::memcpy(line, map + (y + i) * s.out_width, known * sizeof(float));
            std::fill(line + known, line + s.line, 0.f);
        }
        down_columns<4>(s.line, lines, columns, of_gradient);
    }
}

// (A dY) A^T of a row of LANES tiles.
inline void row_of_gradient(const float* line, const long* at, Lanes* t) {
    Lanes d[4];
    for (int j = 0; j < 4; j++) d[j] = gather(line, at + j);
    turn(d);
    of_gradient(d, t);
}

const long AHEAD = 256;  // weights are asked for so many floats before they are used

// G g G^T of the ROWS outputs from `first` on and of all channels: 36 matrices [channels, ROWS].
// g is at w + output * of_output + channel * of_channel; turned: by half a turn.
inline void transform_weights(const float* w, long of_output, long of_channel, bool turned,
                              long first, long outputs, long channels, float* to,
                              long distance) {
    const int some = LANES / ROWS;
    long at[LANES];
    for (long c = 0; c < channels; c += some, w += some * of_channel) {
        if (!c || c + some > channels)
            for (int l = 0; l < LANES; l++) {
                long k = std::min(first + l % ROWS, outputs - 1);
                at[l] = k * of_output + std::min<long>(l / ROWS, channels - 1 - c) * of_channel;
            }
        for (int l = 0; l < ROWS; l++)
            _mm_prefetch((const char*)(w + at[l] + AHEAD), _MM_HINT_T0);

        // taps 0 to 3, 4 to 7, and 5 to 8
        Lanes tap[12], u[6][3];
        for (int part = 0; part < 3; part++) {
            for (int j = 0; j < 4; j++)
                tap[4 * part + j] = gather(w + (part == 2 ? 5 : 4 * part), at + j);
            turn(tap + 4 * part);
        }
        tap[8] = tap[11];
        if (turned)
            for (int i = 0; i < 4; i++) std::swap(tap[i], tap[8 - i]);

        for (int j = 0; j < 3; j++) {
            Lanes g[3] = {tap[j], tap[3 + j], tap[6 + j]}, v[6];
            of_weight(g, v);
            for (int i = 0; i < 6; i++) u[i][j] = v[i];
        }
        for (int i = 0; i < 6; i++) {
            Lanes v[6];
            of_weight(u[i], v);
            for (int j = 0; j < 6; j++) store(to + (6 * i + j) * distance + c * ROWS, v[j]);
        }
    }
}

// A^T m A of one output's tiles: lines [rows, 4, line].
inline void transform_products(const Sizes& s, const float* m, long distance, const long* at,
                               float* lines) {
    for (long g = 0; g < s.tiles; g += LANES) {
        Lanes half[6][4];
        for (int j = 0; j < 6; j++) {
            Lanes v[6];
            for (int i = 0; i < 6; i++) v[i] = load(m + (6 * i + j) * distance + g);
            of_product(v, half[j]);
        }
        for (int i = 0; i < 4; i++) {
            Lanes v[6], y[4];
            for (int j = 0; j < 6; j++) v[j] = half[j][i];
            of_product(v, y);
            turn(y);
            for (int j = 0; j < 4; j++)
                for (int q = 0; q < QUADS; q++)
                    _mm_storeu_ps(lines + at[g + 4 * q + j] + i * s.line, quad(y[j], q));
        }
    }
}

// One output's lines [rows, 4, line], plus its bias and `rest`, into the result.
inline void write_rows(const Sizes& s, const float* lines, long output, long row, long rows,
                       float bias, const float* rest, float* out) {
    for (long r = 0; r < rows; r++) {
        long n = (row + r) / s.down, y = (row + r) % s.down * 4;
        for (long i = 0; i < std::min(4L, s.out_height - y); i++) {
            long place = ((n * s.outputs + output) * s.out_height + y + i) * s.out_width;
            const float* line = lines + (4 * r + i) * s.line;
            for (long x = 0; x < s.out_width; x++)
                out[place + x] = line[x] + bias + (rest ? rest[place + x] : 0);
        }
    }
}
}  // namespace winograd
