"""The nearest entry of a codebook for each row of numbers.

On the CPU one compiled operator keeps the least distance so far of a few rows in registers while it
goes over the entries, a vector of them at a time; there is no matrix of distances. Its distances
are sums of (z - e)^2, which lose no digits where z and e are large and close. `plain_nearest_entry`
is its twin, with a chunk of the matrix at a time.
"""

from __future__ import annotations

from jseg.nn.kernels import compiles
from jseg.nn.layers import nn
from jseg.runtime import jt

NAME = "nearest_entry"
CHUNK_BYTES = 32 << 20  # of the twin's distances


def nearest_entry(z, entries):
    """Index of the entry that is nearest to each row of z, the lowest on ties: z [n, D], entries
    [K, D] -> int32 [n], without gradient. Of rows with NaN, some entry.
    """
    if z.ndim != 2 or list(entries.shape[1:]) != [z.shape[1]]:
        raise ValueError(
            f"nearest_entry: got z {list(z.shape)} and entries {list(entries.shape)}; expected "
            "[n, D] and [K, D]"
        )
    compiled = compiles(NAME, z) and not jt.flags.use_cuda
    compiled = compiled and z.dtype == "float32" and entries.dtype == "float32"
    if not compiled:
        return plain_nearest_entry(z, entries)
    with jt.no_grad():
        return jt.code(
            [z.shape[0]], "int32", [z, entries], cpu_header=CPU_HEADER, cpu_src=CPU_SOURCE
        )


def plain_nearest_entry(z, entries):
    """The twin of the operator, in chunks of rows: |z|^2 + |e|^2 - 2 z e, or on CUDA, where a
    product may be TF32's and choose other entries, the sum of (z - e)^2.
    """
    squares = (entries * entries).sum(1).reshape(1, -1)  # [1, K]
    rows = max(1, CHUNK_BYTES // (4 * entries.shape[0]))
    indices = []
    for start in range(0, z.shape[0], rows):
        part = z[start : min(start + rows, z.shape[0])]  # [n', D]
        if jt.flags.use_cuda:
            apart = part.unsqueeze(1) - entries.unsqueeze(0)
            distance = (apart * apart).sum(2)  # [n', K]
        else:
            of_part = (part * part).sum(1).reshape(-1, 1)  # [n', 1]
            distance = of_part + squares - 2 * nn.matmul_transpose(part, entries)  # [n', K]
        indices.append(jt.argmin(distance, dim=1)[0])

        # Else the lazy graph may hold the distances of every chunk at once.
        if jt.flags.no_grad:
            indices[-1].sync()
    return indices[0] if len(indices) == 1 else jt.concat(indices)


CPU_HEADER = """
#include <algorithm>
#include <cfloat>
#include <cstring>
#include <vector>
namespace {
const int LANES = 8, ROWS = 4;
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int Ints __attribute__((vector_size(4 * LANES)));

// The nearest of the entries for `rows` rows of z; entries[d * padded + k] is number d of entry k.
void nearest(long rows, long depth, long count, long padded, const float* z, const float* entries,
             int* index) {
    const float* row[ROWS];
    Floats least[ROWS];
    Ints at[ROWS], number;
    for (int lane = 0; lane < LANES; lane++) number[lane] = lane;
    for (long r = 0; r < ROWS; r++) {
        row[r] = z + std::min(r, rows - 1) * depth;
        least[r] = Floats{} + FLT_MAX, at[r] = Ints{};
    }

    // In every lane the nearest of its entries.
    for (long k = 0; k < padded; k += LANES, number += LANES) {
        Floats distance[ROWS] = {};
        for (long d = 0; d < depth; d++) {
            Floats entry;
            std::memcpy(&entry, entries + d * padded + k, sizeof entry);
            for (int r = 0; r < ROWS; r++) {
                Floats difference = row[r][d] - entry;
                distance[r] += difference * difference;
            }
        }
        for (int r = 0; r < ROWS; r++) {
            Ints nearer = distance[r] < least[r];
            least[r] = nearer ? distance[r] : least[r];
            at[r] = nearer ? number : at[r];
        }
    }

    // Of all lanes.
    for (long r = 0; r < rows; r++) {
        int best = 0;
        for (int lane = 1; lane < LANES; lane++) {
            float distance = least[r][lane], known = least[r][best];
            if (distance < known || (distance == known && at[r][lane] < at[r][best])) best = lane;
        }
        index[r] = std::min<long>(at[r][best], count - 1);  // comparisons with NaN say anything
    }
}
}
"""

# The last entry fills the last vector up: of equal distances the lowest number wins.
CPU_SOURCE = """
long rows = in0_shape0, depth = in0_shape1, count = in1_shape0,
     padded = (count + LANES - 1) / LANES * LANES;
std::vector<float> entries(depth * padded);
for (long d = 0; d < depth; d++)
    for (long k = 0; k < padded; k++)
        entries[d * padded + k] = in1_p[std::min(k, count - 1) * depth + d];
#pragma omp parallel for
for (long row = 0; row < rows; row += ROWS)
    nearest(std::min<long>(ROWS, rows - row), depth, count, padded, in0_p + row * depth,
            entries.data(), out_p + row);
"""
