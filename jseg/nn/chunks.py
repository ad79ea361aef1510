"""How much memory attention's scores take where they are computed in chunks of queries
(`jseg.nn.layers.attention`), for it and for those who plan memory. Needs no Jittor.
"""

from __future__ import annotations

# Of one block of scores: 32 MB, about a CPU's cache, hold 682 queries of a 96x128 map. A GPU's
# products of matrices want to be large.
ATTENTION_CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
# Arrays of a chunk's size at a time. Result: the scores and their exponentials. Gradient: these
# divided by their sums, and the gradients of both, too; measured: 3.0 to 4.0 (docs/benchmarks.md).
IN_RESULT, IN_GRADIENT = 2, 4
FLOAT = 4  # bytes of a score, whatever type the queries have


def queries_at_a_time(heads: int, keys: int, device: str) -> int:
    """Queries of each head whose scores fill a chunk, at least 1; heads: of all images."""
    return max(1, ATTENTION_CHUNK_BYTES[device] // (FLOAT * keys * heads))


def score_bytes(heads: int, positions: int) -> int:
    """The scores of one image's self-attention, all at once."""
    return FLOAT * heads * positions**2


def working_bytes(scores: int, arrays: int, device: str = "cuda") -> int:
    """What attention takes beside its operands; scores: the bytes of all of them; arrays: IN_RESULT
    or IN_GRADIENT.
    """
    return arrays * min(scores, ATTENTION_CHUNK_BYTES[device])
