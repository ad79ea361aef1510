"""A transformer block of PixNerd as one operator on the CPU, for inference: the forward pass alone.

At the sizes that segment images (192 patches, 128 channels) a block is 40 operations of a few dozen
microseconds, and building them in Python takes as long as computing them. Here the products are
oneDNN's and the attention is `jseg.nn.attention`'s, in tiles; norms, adaptive scales and shifts,
turning, gates and residuals are loops between them. The twin, with gradients and for other devices,
is `jseg.flowseg.blocks.TransformerBlock`.
"""

from __future__ import annotations

from jseg.nn import precision
from jseg.nn.attention_source import CPU_HEADER
from jseg.nn.kernels import compiles, onednn
from jseg.runtime import jt

NAME = "transformer_block"


def fused(s) -> bool:
    """Whether this operator takes tokens s: float32 on the CPU, with oneDNN, without gradients."""
    here = jt.flags.no_grad and not jt.flags.use_cuda and not precision.is_half()
    return here and compiles(NAME, s) and s.dtype == "float32" and onednn()


def transformer_block(block, s, condition, cosines, sines, eps: float):
    """block(s, condition, cosines, sines) of a `TransformerBlock`: tokens s [B, L, D] -> [B, L, D].

    condition [B, D]; cosines and sines [L, D / heads]; eps of the norms.
    """
    attention, mlp, adaptive = block.attn, block.mlp, block.adaLN_modulation[0]

    # In the order in which the source reads them: adaLN, attention, SwiGLU.
    inputs = [s, condition, adaptive.weight, adaptive.bias, block.norm1.weight]
    inputs += [attention.qkv.weight, attention.q_norm.weight, attention.k_norm.weight]
    inputs += [cosines, sines, attention.proj.weight, attention.proj.bias]
    inputs += [block.norm2.weight, mlp.w1.weight, mlp.w3.weight, mlp.w2.weight]
    return jt.code(
        s.shape,
        "float32",
        inputs,
        cpu_header=CPU_HEADER + HEADER,
        cpu_src=SOURCE,
        data={"eps": eps, "scale": (s.shape[2] // attention.heads) ** -0.5},
    )


HEADER = """
namespace {
// y = x / rms(x) weight (1 + scale) + shift, on rows of n values; x and y may be the same.
inline void modulated(long n, float eps, const float* x, const float* weight, const float* scale,
                      const float* shift, float* y) {
    float squares = 0;
    for (long j = 0; j < n; j++) squares += x[j] * x[j];
    float q = 1 / std::sqrt(squares / n + eps);
    for (long j = 0; j < n; j++) y[j] = x[j] * q * (weight[j] * (1 + scale[j])) + shift[j];
}

// A head's d values, normalised and turned by the angles of their patch.
inline void turned(long d, float eps, const float* x, const float* weight, const float* cosines,
                   const float* sines, float* y) {
    float squares = 0;
    for (long j = 0; j < d; j++) squares += x[j] * x[j];
    float q = 1 / std::sqrt(squares / d + eps);
    for (long j = 0; j < d; j += 2) {
        float a = x[j] * q * weight[j], b = x[j + 1] * q * weight[j + 1];
        y[j] = a * cosines[j] + b * sines[j];
        y[j + 1] = b * cosines[j + 1] + a * sines[j + 1];
    }
}
}
"""

# The modulation holds shift, scale and gate of the attention, then of the MLP.
SOURCE = """
long batch = in0_shape0, length = in0_shape1, n = in0_shape2, d = in8_shape1, heads = n / d,
    rows = batch * length, hidden = in13_shape0, failed = 0;
long tiles = (length + QUERIES - 1) / QUERIES;
float eps = data["eps"], scale = data["scale"];
std::vector<float> modulation(batch * 6 * n), h(rows * n), qkv(rows * 3 * n), q(rows * n),
    k(rows * n), v(rows * n), result(rows * n), sums(heads * rows), first(rows * hidden),
    second(rows * hidden);
auto multiply_by = [&](long rows, long inner, long columns, const float* a, const float* w,
                       float* c) {
    failed += !multiply(false, true, rows, columns, inner, 1, a, w, 0, c);
};

multiply_by(batch, n, 6 * n, in1_p, in2_p, modulation.data());
for (long i = 0; i < batch; i++)
    for (long j = 0; j < 6 * n; j++) modulation[i * 6 * n + j] += in3_p[j];
auto of = [&](long row, long part) {
    return modulation.data() + (row / length * 6 + part) * n;
};

// Queries, keys and values [batch, heads, length, d].
#pragma omp parallel for
for (long i = 0; i < rows; i++)
    modulated(n, eps, in0_p + i * n, in4_p, of(i, 1), of(i, 0), h.data() + i * n);
multiply_by(rows, n, 3 * n, h.data(), in5_p, qkv.data());
#pragma omp parallel for
for (long i = 0; i < rows; i++) for (long head = 0; head < heads; head++) {
    const float* x = qkv.data() + i * 3 * n + head * d;
    long to = ((i / length * heads + head) * length + i % length) * d, angle = i % length * d;
    turned(d, eps, x, in6_p, in8_p + angle, in9_p + angle, q.data() + to);
    turned(d, eps, x + n, in7_p, in8_p + angle, in9_p + angle, k.data() + to);
    std::copy(x + 2 * n, x + 2 * n + d, v.data() + to);
}

#pragma omp parallel for reduction(+: failed)
for (long task = 0; task < batch * heads * tiles; task++) {
    long head = task / tiles, i = task % tiles * QUERIES, at = head * length + i;
    failed += !tile_forward(std::min(QUERIES, length - i), length, d, scale, q.data() + at * d,
                            k.data() + head * length * d, v.data() + head * length * d,
                            result.data() + at * d, sums.data() + at);
}
#pragma omp parallel for
for (long i = 0; i < rows; i++) for (long head = 0; head < heads; head++) {
    const float* x = result.data() + ((i / length * heads + head) * length + i % length) * d;
    std::copy(x, x + d, h.data() + i * n + head * d);
}

// The first residual; then the MLP's input.
multiply_by(rows, n, n, h.data(), in10_p, q.data());
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float *x = in0_p + i * n, *gate = of(i, 2), *a = q.data() + i * n;
    float* y = out_p + i * n;
    for (long j = 0; j < n; j++) y[j] = x[j] + gate[j] * (a[j] + in11_p[j]);
    modulated(n, eps, y, in12_p, of(i, 4), of(i, 3), h.data() + i * n);
}

multiply_by(rows, n, hidden, h.data(), in13_p, first.data());
multiply_by(rows, n, hidden, h.data(), in14_p, second.data());
#pragma omp parallel for simd
for (long i = 0; i < rows * hidden; i++)
    first[i] *= second[i] / (1 + std::exp(std::min(-first[i], 80.f)));
multiply_by(rows, hidden, n, first.data(), in15_p, q.data());
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float *gate = of(i, 5), *a = q.data() + i * n;
    float* y = out_p + i * n;
    for (long j = 0; j < n; j++) y[j] += gate[j] * a[j];
}
CHECK(!failed) << "dnnl_sgemm refused a product";
"""
