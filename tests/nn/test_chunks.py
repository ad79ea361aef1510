"""The memory of attention's scores, as layers.attention takes it and as memory is planned."""

import numpy as np
import pytest

from jseg.nn import chunks, layers
from jseg.runtime import jt

MB = 1 << 20


@pytest.mark.parametrize("device", chunks.ATTENTION_CHUNK_BYTES)
@pytest.mark.parametrize("heads, keys", [(8, 768), (16, 1024), (80, 1024), (1, 12288)])
def test_a_chunk_s_scores_keep_to_the_device_s_bytes(heads, keys, device):
    rows, most = chunks.queries_at_a_time(heads, keys, device), chunks.ATTENTION_CHUNK_BYTES[device]
    assert 4 * heads * keys * rows <= most < 4 * heads * keys * (rows + 1)
    assert chunks.queries_at_a_time(10**9, 10**9, device) == 1


def test_a_gpu_s_chunks_are_the_larger_ones():
    assert chunks.ATTENTION_CHUNK_BYTES["cuda"] >= 256 * MB > chunks.ATTENTION_CHUNK_BYTES["cpu"]


def test_no_more_than_a_chunk_is_planned():
    assert chunks.working_bytes(10 * MB, chunks.IN_GRADIENT) == 40 * MB
    assert chunks.working_bytes(900 * MB, chunks.IN_RESULT) == 512 * MB
    assert chunks.working_bytes(900 * MB, chunks.IN_RESULT, "cpu") == 64 * MB
    assert chunks.score_bytes(16, 1024) == 64 * MB


def test_attention_takes_the_memory_that_is_planned(monkeypatch):
    """The gradient's arrays, as Jittor's pool counts them: four of a chunk's size."""
    monkeypatch.setenv("JSEG_FUSED", "")
    scores, peaks = chunks.score_bytes(4, 1024), []
    variables = [jt.array(np.ones((4, 1024, 8), np.float32)) for _ in range(3)]
    jt.sync(variables)
    for chunk in (16 << 10, scores):
        monkeypatch.setitem(chunks.ATTENTION_CHUNK_BYTES, "cpu", chunk)
        jt.gc()
        before = jt.get_mem_info().total_cpu_used
        jt.sync(jt.grad(layers.attention(*variables, 0.35), variables))
        peaks.append(jt.get_mem_info().total_cpu_used - before)
    assert peaks[1] - peaks[0] <= 1.1 * chunks.working_bytes(scores, chunks.IN_GRADIENT, "cpu")
    assert peaks[1] >= 2 * scores
