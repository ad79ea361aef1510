"""Attention: softmax(scale q k^T) v."""

import numpy as np
from support.emulated.cases import Case, Operator, close, normal

from jseg.nn import attention_source as source

SCALE = 0.35
# heads, queries, keys, channels: tiles of 32 x 64 and 16 x 128 with a rest and without
SIZES = (
    (2, 24, 40, 8),
    (1, 1, 1, 1),
    (2, 33, 31, 20),
    (1, 70, 65, 64),
    (1, 17, 33, 65),
    (2, 15, 47, 100),
    (1, 16, 16, 128),
    (1, 5, 130, 3),
    (3, 32, 32, 32),
    (1, 1, 200, 64),
    (4, 97, 1, 40),
)


def cases(kind):
    rng = np.random.default_rng(0)
    return [c for spread in (1, 12) for size in SIZES for c in case(rng, kind, size, spread)]


def case(rng, kind, size, spread):
    heads, length, others, d = size
    q, k = (normal(rng, (heads, n, d), kind, spread=spread) for n in (length, others))
    v, g = (normal(rng, (heads, n, d), kind) for n in (others, length))

    # forward; an error in a score is one of its weight, relative to it
    scores = SCALE * np.einsum("nid,njd->nij", q, k)
    most = 1 + SCALE * np.einsum("nid,njd->nij", np.abs(q), np.abs(k)).max()
    largest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - largest)
    total = weights.sum(-1, keepdims=True)
    weights = weights / total
    out = np.einsum("nij,njd->nid", weights, v)
    sums = (np.log(total) + largest)[..., 0]
    sizes_of_out = most * np.einsum("nij,njd->nid", weights, np.abs(v))

    # backward
    delta = (g * out).sum(-1)
    of_weights = np.einsum("nid,njd->nij", g, v)
    sizes_of_weights = np.einsum("nid,njd->nij", np.abs(g), np.abs(v))
    of_scores = SCALE * weights * (of_weights - delta[..., None])
    sizes_of_scores = most * SCALE * weights * (sizes_of_weights + np.abs(delta)[..., None])
    products = {"q": "nij,njd->nid", "k": "nij,nid->njd", "v": "nij,nid->njd"}
    factors = {"q": (of_scores, k), "k": (of_scores, q), "v": (weights, g)}
    sizes = {"q": sizes_of_scores, "k": sizes_of_scores, "v": most * weights}
    backward = []
    for name, product in products.items():
        left, right = factors[name]
        values = np.einsum(product, left, right)
        natural = np.einsum(product, sizes[name], np.abs(right))
        backward.append((values.shape, "float32", close(values, 4, natural)))

    name = f"{kind} {size}, spread {spread}"
    f, inputs = "float32", [(q, kind), (k, kind), (v, kind)]
    forward = [
        (q.shape, kind, close(out, 4, sizes_of_out, kind)),
        (sums.shape, f, close(sums, 8, most)),
    ]
    return [
        Case(name, "forward", inputs, forward, {"scale": SCALE}),
        Case(
            name,
            "backward",
            [(g, kind), *inputs, (sums, f), (delta, f)],
            backward,
            {"scale": SCALE},
        ),
    ]


OPERATOR = Operator(
    "jseg.nn.attention",
    source.CUDA_HEADER,
    {"forward": source.CUDA_FORWARD, "backward": source.CUDA_BACKWARD},
    cases,
)
