"""Attention in tiles with an online softmax (Dao et al. 2022, FlashAttention): only the scores of a
tile exist at a time.

softmax(scale q k^T) v. Kept for the gradient are q, k, v, the result O and the logarithm of each
row's sum, from which the gradient makes the weights P again, tile by tile: with delta = rowsum(dO
O),

    dV = P^T dO,   dS = scale P (dO V^T - delta),   dQ = dS K,   dK = dS^T Q.

On the CPU the products of tiles are oneDNN's, a tile of queries to a thread; in the gradient a head
to a thread, or all threads to a head where there are few. On CUDA a block takes a tile of queries
(of keys, for dK and dV, so that no atomic additions are needed); the sums are float32, whatever the
type of q.
"""

from __future__ import annotations

from jseg.nn.attention_source import (
    CPU_BACKWARD,
    CPU_FORWARD,
    CPU_HEADER,
    CUDA_BACKWARD,
    CUDA_FORWARD,
    CUDA_HEADER,
    WIDEST,
)
from jseg.nn.kernels import compiles, onednn
from jseg.runtime import jt

NAME = "attention"


def tiled(q) -> bool:
    """Whether these operators take q [n, L, D]: float32 with oneDNN on the CPU, heads of at most
    128 channels on CUDA.
    """
    if not compiles(NAME, q):
        return False
    return q.shape[2] <= WIDEST if jt.flags.use_cuda else q.dtype == "float32" and onednn()


def forward(q, k, v, scale: float):
    """(softmax(scale q k^T) v [n, L, D], logarithm of each row's sum of exponentials [n, L])."""
    return jt.code(
        [q.shape, q.shape[:2]],
        [q.dtype, "float32"],
        [q, k, v],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_FORWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_FORWARD,
        data={"scale": scale},
    )


def backward(gradient, q, k, v, out, sums, scale: float):
    """Gradients of q, k and v, float32, from that of the result."""
    delta = (gradient.float32() * out.float32()).sum(-1)  # [n, L]
    return jt.code(
        [q.shape, k.shape, v.shape],
        ["float32"] * 3,
        [gradient.cast(q.dtype), q, k, v, sums, delta],
        cpu_header=CPU_HEADER,
        cpu_src=CPU_BACKWARD,
        cuda_header=CUDA_HEADER,
        cuda_src=CUDA_BACKWARD,
        data={"scale": scale},
    )
