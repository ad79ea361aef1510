from types import SimpleNamespace

import numpy as np
import pytest

from jseg.nn import kernels
from jseg.runtime import jt


def rows(n, mean=0.0):
    return (np.random.default_rng(n).standard_normal((6, n)) + mean).astype(np.float32)


def test_the_compiled_one_is_used_on_the_cpu_only_and_for_float32(monkeypatch):
    x = jt.array(rows(4))
    assert kernels._compiles(x) and not kernels._compiles(x.float64())
    monkeypatch.setattr(kernels, "jt", SimpleNamespace(flags=SimpleNamespace(use_cuda=1)))
    assert not kernels._compiles(x)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "n, mean, tolerance", [(1, 0.0, 1e-6), (48, 0.0, 1e-6), (5000, 0.0, 1e-6), (5000, 1e3, 1e-6)]
)
def test_moments_are_means_and_variances(compiled, n, mean, tolerance, monkeypatch):
    monkeypatch.setattr(kernels, "_compiles", lambda x: compiled)
    x = rows(n, mean)
    means, variances = (found.numpy() for found in kernels.moments(jt.array(x)))
    np.testing.assert_allclose(means, x.astype(np.float64).mean(1), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        variances, x.astype(np.float64).var(1), rtol=5e-6 if compiled else 5e-5, atol=tolerance
    )


def test_moments_of_half_precision_are_not_summed_in_it():
    x = np.full((2, 40000), 3.0, np.float16)
    means, variances = (found.numpy() for found in kernels.moments(jt.array(x)))
    assert (
        means.dtype == np.float32
        and np.abs(means - 3).max() < 1e-5
        and np.abs(variances).max() < 1e-5
    )


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("n_a, n_b", [(3, 3), (1, 3), (3, 1), (1, 1), (40, 40)])
@pytest.mark.parametrize(
    "transpose_a, transpose_b, total",
    [(False, False, False), (True, False, False), (False, True, False), (True, False, True)],
)
def test_products_are_matrix_products(
    n_a, n_b, transpose_a, transpose_b, total, compiled, monkeypatch
):
    monkeypatch.setattr(kernels, "onednn", lambda: compiled)
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal((n_a, 5, 7)).astype(np.float32),
        rng.standard_normal((n_b, 7, 6)).astype(np.float32),
    )
    expected = np.matmul(a.astype(np.float64), b)
    given = [
        jt.array(array.transpose(0, 2, 1).copy() if turned else array)
        for array, turned in ((a, transpose_a), (b, transpose_b))
    ]
    found = kernels.products(*given, transpose_a, transpose_b, total).numpy()
    np.testing.assert_allclose(
        found, expected.sum(0, keepdims=True) if total else expected, atol=1e-5
    )


def test_onednn_is_there_wherever_jittor_has_it():
    assert kernels.onednn() == (jt.compile_extern.mkl_ops is not None)
