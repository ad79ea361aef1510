import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from jseg.nn import kernels
from jseg.runtime import jt


def arrays(n, mean=0.0):
    rng = np.random.default_rng(n)
    return (rng.standard_normal((6, n)) + mean).astype(np.float32), rng.standard_normal(
        (6, n)
    ).astype(np.float32)


def exact(x, gradient, eps):
    """The standardized rows, and the gradient of their product with `gradient`, in float64 from the
    formulas.
    """
    x, g = x.astype(np.float64), gradient.astype(np.float64)
    scale = 1 / np.sqrt(x.var(1, keepdims=True) + eps)
    y = (x - x.mean(1, keepdims=True)) * scale
    return y, scale * (g - g.mean(1, keepdims=True) - y * (g * y).mean(1, keepdims=True))


def ours(x, gradient, eps):
    x = jt.array(x)
    y = kernels.standardize(x, eps)
    return y.numpy(), jt.grad(y * jt.array(gradient).stop_grad(), x).numpy()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "n, mean, tolerance", [(1, 0.0, 1e-6), (48, 0.0, 4e-6), (5000, 0.0, 4e-6), (5000, 1e3, 2e-3)]
)
def test_both_twins_are_the_formula(compiled, n, mean, tolerance, monkeypatch):
    monkeypatch.setattr(kernels, "_compiles", lambda x: compiled)
    x, gradient = arrays(n, mean)
    for found, expected in zip(ours(x, gradient, 1e-5), exact(x, gradient, 1e-5)):
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_the_compiled_one_is_used_on_the_cpu_only_and_for_float32(monkeypatch):
    x = jt.array(arrays(4)[0])
    assert kernels._compiles(x) and not kernels._compiles(x.float64())
    monkeypatch.setattr(kernels, "jt", SimpleNamespace(flags=SimpleNamespace(use_cuda=1)))
    assert not kernels._compiles(x)


def test_sums_of_many_numbers_keep_their_digits():
    x = np.full((1, 1 << 20), 0.1, np.float32)
    x[0, ::2] = 0.3
    assert np.abs(kernels.standardize(jt.array(x), 0.0).numpy()[0, :2] - [1, -1]).max() < 2e-6


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "n, mean, tolerance", [(1, 0.0, 1e-6), (48, 0.0, 1e-6), (5000, 0.0, 1e-6), (5000, 1e3, 1e-6)]
)
def test_moments_are_means_and_variances(compiled, n, mean, tolerance, monkeypatch):
    monkeypatch.setattr(kernels, "_compiles", lambda x: compiled)
    x = arrays(n, mean)[0]
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


def test_nothing_stays_behind():
    for _ in range(2):
        ours(*arrays(48), 1e-5)
    before = jt.number_of_lived_vars()
    ours(*arrays(48), 1e-5)
    assert jt.number_of_lived_vars() <= before


@pytest.mark.parametrize("once", [False, True])
def test_what_a_gradient_needed_is_free_before_the_run_ends_where_it_is_asked_for_once(once):
    x, gradient = (jt.array(array) for array in arrays(48))
    with kernels.graph_used_once() if once else contextlib.nullcontext():
        function = kernels._Standardize(1e-5)
        y = function(x)
    assert len(function.kept) == 2
    jt.grad(y * gradient.stop_grad(), x)
    assert (function.kept is None) == once
