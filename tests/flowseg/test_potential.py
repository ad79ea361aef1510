import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jseg.flowseg import potential
from jseg.flowseg.encoding import class_codes
from jseg.flowseg.potential import correction
from jseg.runtime import jt


def phi(x, labels, codes, tau, eps):
    """Phi [n] at points x [n, 3], written from its definition."""
    logits = -np.log(cdist(x, codes, "sqeuclidean") + eps) / tau
    logits -= logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), labels]


def slope(x, labels, codes, tau, eps, h=1e-5):
    """The gradient of phi [n, 3] by central differences."""
    sides = [
        [phi(x + sign * step, labels, codes, tau, eps) for sign in (1, -1)]
        for step in np.eye(3) * h
    ]
    return np.stack([(above - below) / (2 * h) for above, below in sides], 1)


def formula(x, labels, codes, tau, eps):
    """The closed form of the gradient [n, 3]."""
    d = cdist(x, codes, "sqeuclidean") + eps
    p = (d / d.min(1, keepdims=True)) ** (-1 / tau)
    w = (np.eye(len(codes))[labels] - p / p.sum(1, keepdims=True)) / d
    return 2 / tau * (w.sum(1, keepdims=True) * x - w @ codes)


def maps(n=40, batch=2, height=9, width=37, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(-1.2, 1.2, (batch, 3, height, width)),
        rng.integers(0, n, (batch, height, width)).astype(np.int32),
        class_codes(n),
    )


def rows(x):
    return x.transpose(0, 2, 3, 1).reshape(-1, 3)


def double(array):
    return jt.array(array, dtype="float64")


FORMS = {
    "compiled": potential._compiled,
    "plain": potential.plain,
}


@pytest.mark.parametrize(
    "n, tau, expected, gradient",
    [
        (150, 1, 5.6708487905, (1.0105126, -0.995415, -0.97042643)),
        (150, 2, 5.2457206999, (0.36728182, -0.56969645, -0.50812119)),
        (11, 1, 2.90036512, (0.48033578, -1.61600645, -1.77803676)),
    ],
)
def test_golden_potentials(n, tau, expected, gradient):
    x, labels = np.array([0.1, -0.2, 0.3]).reshape(1, 3, 1, 1), np.full((1, 1, 1), 7)
    codes = class_codes(n)
    assert phi(x.reshape(1, 3), [7], codes, tau, 1e-2) == pytest.approx(expected, rel=1e-9)
    for given, tolerance in (((x, codes), 2e-6), ((double(x), double(codes)), 1e-7)):
        found, value = correction(given[0], labels, given[1], tau, 1e-2)
        np.testing.assert_allclose(found.numpy().ravel(), gradient, rtol=tolerance)
        assert value.item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("tau", [0.5, 1, 2])
@pytest.mark.parametrize("eps", [1e-2, 2.0**-10])
def test_the_closed_form_is_the_slope_of_the_potential(tau, eps):
    x, labels, codes = maps(11, 1, 3, 5)
    found, value = correction(double(x), labels, double(codes), tau, eps)
    assert str(found.dtype) == "float64"
    arguments = rows(x), labels.ravel(), codes, tau, eps
    np.testing.assert_allclose(rows(found.numpy()), slope(*arguments), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows(found.numpy()), formula(*arguments), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(value.numpy().ravel(), phi(*arguments), rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tau, eps", [(1, 1e-2), (2, 1e-2), (0.5, 1e-3)])
def test_all_forms_are_the_formula(form, tau, eps, monkeypatch):
    monkeypatch.setattr(potential, "_compiled", FORMS[form])
    x, labels, codes = maps()
    labels[0, 0, :5], x[0, :, 0, 0], x[0, :, 0, 1] = [-1, 40, 255, -7, 41], np.nan, np.inf
    x[1, :, 0, 0] = codes[labels[1, 0, 0]] + 1e-3
    found, value = correction(x, labels, codes, tau, eps)
    known = ((labels >= 0) & (labels < 40)).ravel()
    arguments = rows(x)[known], labels.ravel()[known], codes, tau, eps
    expected = formula(*arguments)
    error = np.abs(rows(found.numpy())[known] - expected).max(1)
    assert (error <= 1e-5 * np.linalg.norm(expected, axis=1) + 2e-6).all()
    np.testing.assert_allclose(value.numpy().ravel()[known], phi(*arguments), rtol=1e-5, atol=1e-6)
    assert not rows(found.numpy())[~known].any() and not value.numpy().ravel()[~known].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tau", [0.1, 1, 2])
def test_on_the_codes_it_is_finite(form, tau, monkeypatch):
    monkeypatch.setattr(potential, "_compiled", FORMS[form])
    codes = class_codes(150)
    x = codes.T.reshape(1, 3, 1, 150)
    own, other = (
        correction(x, (np.arange(150) + shift).reshape(1, 1, 150) % 150, codes, tau, 1e-3)
        for shift in (0, 1)
    )
    assert np.isfinite([v.numpy().max() for v in own + other]).all()
    np.testing.assert_allclose(
        rows(own[0].numpy()), formula(codes, np.arange(150), codes, tau, 1e-3), atol=6e-5
    )
    assert (other[1].numpy() > own[1].numpy()).all()


@pytest.mark.parametrize(
    "tau, eps", [(1e-6, 1e-12), (1e-6, 1e6), (1e6, 1e-12), (1e6, 1e6), (1, 1e-12)]
)
def test_at_the_ends_of_the_ranges_it_is_finite(tau, eps):
    codes = class_codes(150).astype(np.float32)
    labels = (np.arange(150) + np.arange(2)[:, None]).reshape(2, 1, 150) % 150
    for found in correction(np.stack([codes.T.reshape(3, 1, 150)] * 2), labels, codes, tau, eps):
        assert np.isfinite(found.numpy()).all()


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0},
        {"eps": -1e-3},
        {"eps": float("nan")},
        {"eps": float("inf")},
        {"tau": 0},
        {"tau": float("nan")},
        {"tau": float("inf")},
    ],
)
def test_distances_that_divide_by_zero_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"correction: {name} is {value}; expected a number from"):
        correction(
            np.zeros((1, 3, 1, 1), np.float32),
            np.zeros((1, 1, 1), np.int32),
            class_codes(3),
            **options,
        )


def test_near_its_own_code_a_pixel_keeps_its_digits():
    """There 1 - p_y cancels: it is 2e-4 here, and seven digits of p_y would leave four."""
    codes = class_codes(150).astype(np.float32).astype(np.float64)
    x = (codes + 2.0**-13).T.reshape(1, 3, 1, 150)
    labels = np.arange(150).reshape(1, 1, 150)
    found = rows(correction(x, labels, codes, 1, 1e-6)[0].numpy())
    expected = formula(
        rows(x.astype(np.float32).astype(np.float64)), labels.ravel(), codes, 1, 1e-6
    )
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_twin_goes_in_runs_of_pixels(monkeypatch):
    x, labels, codes = maps()
    whole = [v.numpy() for v in correction(double(x), labels, double(codes))]
    monkeypatch.setattr(potential, "CHUNK_BYTES", 4 * 2 * 40 * 100)
    for a, b in zip(correction(double(x), labels, double(codes)), whole):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-14)


def test_no_gradient_passes():
    x, labels, codes = maps()
    x = jt.array(x)
    assert all(v.is_stop_grad() for v in correction(x, labels, codes))
    assert not x.is_stop_grad()


@pytest.mark.cuda
@pytest.mark.parametrize("tau", [0.5, 1, 2])
def test_a_gpu_agrees_with_the_cpu(tau):
    from jseg.runtime import device

    x, labels, codes = maps(150)
    labels[0, 0, 0] = -1
    on_cpu = [v.numpy() for v in correction(x, labels, codes, tau)]
    device("cuda")
    for found, expected in zip(correction(x, labels, codes, tau), on_cpu):
        np.testing.assert_allclose(
            found.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )
