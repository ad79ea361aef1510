"""The loss of FlowSeg against golden numbers and against the formulas in float64."""

import math
import re

import numpy as np
import pytest

from jseg.flowseg import field, potential
from jseg.flowseg.encoding import class_codes, encode
from jseg.flowseg.field import flow_loss, interpolate
from jseg.machine.free_memory import resident_bytes
from jseg.runtime import jt


def pixels(*values):
    return np.array(values, np.float32).T.reshape(1, 3, 1, len(values))


def golden():
    """Velocity and the other arguments of the reference's three pixels, of which the last is
    ignored.
    """
    codes, labels, t = class_codes(11), np.array([[[2, 7, 255]]]), np.array([0.25], np.float32)
    x1, mask = encode(labels, codes)
    x0 = pixels((0.5, -0.25, 0.75), (-0.5, 0.25, 0), (0.1, 0.2, 0.3))
    return (
        pixels((-1, 0, 0.5), (0.25, 0.5, 1), (9, 9, 9)),
        [interpolate(x0, x1, t), x0, x1, t, labels, codes],
        mask,
    )


def example(n=11, batch=2, height=4, width=6, seed=0):
    """(velocity, arguments, mask) with a tenth of the pixels ignored."""
    rng = np.random.default_rng(seed)
    codes, labels = class_codes(n), rng.integers(0, n, (batch, height, width))
    labels[rng.random(labels.shape) < 0.1] = 255
    x1, mask = encode(labels, codes)
    x0, t = rng.standard_normal(x1.shape).astype(np.float32), rng.random(batch).astype(np.float32)
    velocity = x1 - x0 + rng.standard_normal(x1.shape).astype(np.float32) * 0.5
    return velocity, [interpolate(x0, x1, t), x0, x1, t, labels, codes], mask


def run(velocity, arguments, **options):
    """({name: value}, the loss's gradient with respect to the velocity)."""
    v = jt.array(velocity)
    losses = flow_loss(v, *arguments, **options)
    gradient = jt.grad(losses["loss"], v).numpy()
    return {name: value.item() for name, value in losses.items()}, gradient


def exact(velocity, arguments, mask, weight, tau=1.0, eps=1e-2, time=lambda t: 1.0):
    """({name: value}, gradient) in float64, pixel by pixel from the formulas."""
    x_t, x0, x1, t, labels, codes = (np.asarray(a, np.float64) for a in arguments)
    losses, gradient = np.zeros(3), np.zeros(velocity.shape)
    count = max(mask.sum(), 1)
    for b, i, j in np.argwhere(mask[:, 0] > 0):
        v, v_t = velocity[b, :, i, j].astype(np.float64), (x1 - x0)[b, :, i, j]
        away = x_t[b, :, i, j] + (1 - t[b]) * v - codes
        d = (away**2).sum(1) + eps
        p = (d / d.min()) ** (-1 / tau)
        own = np.arange(len(codes)) == labels[b, i, j]
        pull = weight * time(t[b]) * 2 / tau * (((own - p / p.sum()) / d)[:, None] * away).sum(0)
        residual = v - v_t + pull
        losses += residual @ residual / 3, (v - v_t) @ (v - v_t) / 3, np.linalg.norm(pull)
        gradient[b, :, i, j] = 2 * residual / (3 * count)
    return dict(zip(("loss", "fm", "correction_norm"), losses / count)), gradient


@pytest.mark.parametrize(
    "weight, schedule, loss, norm",
    [
        (0, "static", 0.1534368308, 0),
        (0, "1-t", 0.1534368308, 0),
        (1, "static", 1.4801969152, 1.4949191409),
        (1, "1-t", 1.0080811244, 1.1211893557),
        (1, "t", 0.3447010822, 0.3737297852),
        (0.5, "static", 0.6295825134, 0.7474595705),
    ],
)
def test_golden_losses(weight, schedule, loss, norm):
    velocity, arguments, mask = golden()
    losses, gradient = run(velocity, arguments, weight=weight, schedule=schedule, mask=mask)
    expected = {"loss": loss, "fm": 0.1534368308, "correction_norm": norm}
    assert losses == pytest.approx(expected, rel=1e-6)
    if (weight, schedule) == (1, "static"):
        expected = pixels(
            (0.174535, 0.48925319, 0.65385701), (0.41666051, -0.19165508, 0.2812475), (0, 0, 0)
        )
        np.testing.assert_allclose(gradient, expected, atol=4e-7)


@pytest.mark.parametrize(
    "options", [{}, {"tau": 2.0}, {"tau": 0.5, "eps": 1e-3}, {"weight": 0.1}, {"n": 150}]
)
def test_the_loss_and_its_gradient_are_the_formulas(options):
    velocity, arguments, mask = example(options.pop("n", 11))
    losses, gradient = run(velocity, arguments, mask=mask, **options)
    expected, slope = exact(velocity, arguments, mask, **{"weight": 1.0, **options})
    assert losses == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize(
    "schedule, time", [("static", lambda t: 1.0), ("1-t", lambda t: 1 - t), ("t", lambda t: t)]
)
def test_the_stop_gradient_makes_it_flow_matching_plus_a_cross_entropy_over_distances(
    schedule, time
):
    """The gradient is that of |v - v_t|^2 + 2 w(t) / (1 - t) Phi(x_t + (1 - t) v), by differences
    of that sum.
    """
    velocity, arguments, mask = example()
    x_t, x0, x1, t, labels, codes = (np.asarray(a, np.float64) for a in arguments)
    gradient = run(velocity, arguments, schedule=schedule, mask=mask)[1]
    t, known = t.reshape(-1, 1, 1), mask[:, 0]
    ids = np.where(known > 0, labels, 0).astype(int)[:, None]

    def surrogate(v):
        d = (x_t + (1 - t[:, None]) * v)[:, None] - codes.reshape(1, -1, 3, 1, 1)
        d = (d**2).sum(2) + 1e-2
        phi = np.log(np.take_along_axis(d, ids, 1)[:, 0]) + np.log((1 / d).sum(1))
        return known * (((v - x1 + x0) ** 2).sum(1) + 2 * time(t) / (1 - t) * phi)

    v, h = velocity.astype(np.float64), 1e-6
    steps = [np.eye(3)[c].reshape(1, 3, 1, 1) * h for c in range(3)]
    slopes = np.stack([surrogate(v + step) - surrogate(v - step) for step in steps], 1)
    slopes /= 2 * h * 3 * mask.sum()
    np.testing.assert_allclose(gradient, slopes, atol=1e-5 * np.abs(slopes).max())


def test_without_weight_it_is_plain_flow_matching_to_the_bit(monkeypatch):
    velocity, arguments, mask = example()
    with monkeypatch.context() as patch:
        patch.setattr(field, "correction", None)
        losses, gradient = run(velocity, arguments, weight=0, mask=mask)
    assert losses["loss"] == losses["fm"] and losses["correction_norm"] == 0
    corrected, _ = run(velocity, arguments, weight=1, mask=mask)
    assert corrected["fm"] == losses["fm"] and corrected["loss"] != losses["fm"]
    plain = 2 * mask * (velocity - (arguments[2] - arguments[1])) / (3 * mask.sum())
    np.testing.assert_allclose(gradient, plain, rtol=1e-6, atol=1e-8)


def test_without_weight_a_correction_that_is_not_finite_does_no_harm():
    codes, labels = class_codes(11), np.array([[[3]]])
    x1, _ = encode(labels, codes)
    zero, t = np.zeros_like(x1), np.zeros(1, np.float32)
    losses, gradient = run(x1, [zero, zero, x1, t, labels, codes], weight=0, eps=0.0)
    assert losses == {"loss": 0, "fm": 0, "correction_norm": 0} and not gradient.any()


def test_the_estimate_is_detached_and_the_velocity_stays_open():
    velocity, arguments, mask = example()
    factor = jt.array(np.float32([0.7]))
    v = factor * jt.array(velocity)
    loss = flow_loss(v, *arguments, mask=mask)["loss"]
    expected = (exact(0.7 * velocity, arguments, mask, 1.0)[1] * velocity).sum()
    assert jt.grad(loss, factor).item() == pytest.approx(expected, rel=1e-4)
    assert not v.is_stop_grad() and jt.grad((v * v).sum(), factor).item() > 0


@pytest.mark.parametrize("weight", [0, 1])
def test_only_the_velocity_gets_a_gradient_and_only_from_the_loss(weight):
    velocity, (*arrays, labels, codes), mask = example()
    v, *others = inputs = [jt.array(a) for a in [velocity, *arrays, codes]]
    losses = flow_loss(v, *others[:-1], labels, others[-1], mask=mask, weight=weight)
    first, *rest = jt.grad(losses["loss"], inputs)
    assert first.numpy().any() and not any(gradient.numpy().any() for gradient in rest)
    for name in ("fm", "correction_norm"):
        assert not jt.grad(losses[name], v).numpy().any()
    assert not any(x.is_stop_grad() for x in inputs)


def test_ignored_pixels_have_no_part_in_it():
    velocity, arguments, mask = example()
    losses, gradient = run(velocity, arguments, mask=mask)
    ignored = np.broadcast_to(mask == 0, velocity.shape)
    assert ignored.any() and not gradient[ignored].any() and gradient[~ignored].all()
    for value in (3.0, np.nan, np.inf):
        other, x1, labels = velocity.copy(), arguments[2].copy(), arguments[4].copy()
        other[ignored] = x1[ignored] = value
        labels[mask[:, 0] == 0] = -7
        changed = arguments[:2] + [x1, arguments[3], labels, arguments[5]]
        again, same = run(other, changed, mask=mask[:, 0])
        assert again == losses
        np.testing.assert_array_equal(same, gradient)


@pytest.mark.parametrize("weight", [0, 1])
def test_a_batch_without_a_pixel_that_counts_gives_zero(weight):
    velocity, arguments, mask = example()
    losses, gradient = run(velocity, arguments, weight=weight, mask=np.zeros_like(mask))
    assert losses == {"loss": 0, "fm": 0, "correction_norm": 0} and not gradient.any()


def test_the_velocity_s_error_is_the_estimate_s_over_the_time_left():
    velocity, (x_t, x0, x1, t, _, _), _ = example()
    rest = (1 - t).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose((velocity - (x1 - x0)) * rest, x_t + rest * velocity - x1, atol=1e-5)


@pytest.mark.parametrize("ends", [(5, 9), (5, 5)])
def test_estimates_on_a_code_are_finite(ends):
    codes, labels = class_codes(150), np.array([[[5, 5]]])
    x1, _ = encode(labels, codes)
    zero, t = np.zeros_like(x1), np.zeros(1, np.float32)
    end = codes[list(ends)].T.reshape(1, 3, 1, 2).astype(np.float32)
    losses, gradient = run(end, [zero, zero, x1, t, labels, codes], eps=1e-6)
    assert np.isfinite(list(losses.values())).all() and np.isfinite(gradient).all()


def test_arrays_variables_and_half_precision_are_taken():
    velocity, arguments, mask = example()
    losses, _ = run(velocity, arguments, mask=mask)
    arguments[4] = arguments[4].astype(np.int32)
    as_vars = [jt.array(a) for a in arguments]
    assert run(velocity, as_vars, mask=jt.array(mask))[0] == losses
    half = flow_loss(jt.array(velocity).float16(), *arguments, mask=mask)["loss"]
    assert half.dtype == "float32" and half.item() == pytest.approx(losses["loss"], rel=5e-3)


def test_a_loss_over_many_pixels_keeps_its_digits():
    x = np.full((2, 3, 512, 512), 0.1, np.float32)
    zero, t, labels = 0 * x, np.zeros(2, np.float32), np.zeros(x[:, 0].shape, np.uint8)
    losses, _ = run(x, [zero, zero, zero, t, labels, class_codes(2)], weight=0)
    assert losses["loss"] == pytest.approx(float(np.float32(0.1)) ** 2, rel=2e-5)


@pytest.mark.parametrize("form", ["compiled", "plain"])
def test_150_classes_need_no_array_of_pixels_times_classes(form, monkeypatch):
    """The distances of all pixels would be 157 MB, with their directions 472 MB; the loss's own
    arrays are 3 MB each.
    """
    if form == "plain":
        monkeypatch.setattr(potential, "_compiled", potential.plain)
    monkeypatch.setattr(potential, "CHUNK_BYTES", 1 << 20)
    velocity, arguments, mask = example(150, 1, 512, 512)
    run(velocity, arguments, mask=mask)  # compiles
    jt.gc()
    before = resident_bytes("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    run(velocity, arguments, mask=mask)
    assert resident_bytes("VmHWM") - before < 64e6


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("velocity", (2, 4, 4, 6), r"velocity of shape [2, 4, 4, 6]; expected [B, 3, H, W]"),
        ("x_t", (2, 3, 4, 5), "x_t of shape [2, 3, 4, 5]; expected [2, 3, 4, 6]"),
        ("x1", (1, 3, 4, 6), "x1 of shape"),
        ("t", (2, 1), "t of shape [2, 1]; expected [2]"),
        ("labels", (2, 1, 4, 6), "labels of shape [2, 1, 4, 6]; expected [2, 4, 6]"),
        ("codes", (11, 2), "codes of shape [11, 2]; expected [11, 3]"),
        ("mask", (4, 6), "mask of shape [4, 6]; expected [2, 1, 4, 6] or [2, 4, 6]"),
    ],
)
def test_wrong_shapes_are_refused(name, shape, message):
    velocity, arguments, mask = example()
    names = ("velocity", "x_t", "x0", "x1", "t", "labels", "codes", "mask")
    arrays = dict(zip(names, [velocity, *arguments, mask]))
    arrays[name] = np.zeros(shape, arrays[name].dtype)
    with pytest.raises(ValueError, match=re.escape(message)):
        flow_loss(**arrays)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; choose one of static, 1-t, t"),
        ({"weight": 0, "schedule": "cosine"}, "unknown schedule"),
        ({"weight": -1.0}, "weight is -1.0; expected a number from 0 to 1e"),
        ({"weight": math.nan}, "weight is nan"),
        ({"weight": math.inf}, "weight is inf"),
        ({"tau": 0}, "tau is 0; expected a number from 1e-06"),
        ({"weight": 0, "tau": 0}, "tau is 0"),
        ({"tau": math.inf}, "tau is inf"),
        ({"tau": 1e-45}, "tau is 1e-45"),
        ({"eps": 0}, "eps is 0; expected a number from 1e-12"),
        ({"eps": -1}, "eps is -1"),
        ({"weight": 0, "eps": -1}, "eps is -1"),
        ({"eps": math.nan}, "eps is nan"),
        ({"eps": 1e-45}, "eps is 1e-45"),
    ],
)
def test_options_that_would_make_the_loss_nan_are_refused(options, message):
    velocity, arguments, mask = example()
    with pytest.raises(ValueError, match=f"flow_loss: {message}"):
        flow_loss(velocity, *arguments, mask=mask, **options)


def test_labels_outside_the_classes_are_refused():
    velocity, arguments, mask = example()
    wrong = np.where(mask[:, 0] > 0, 12, arguments[4])
    for labels, where, message in (
        (arguments[4], None, r"label 255 outside 0 \.\.\. 10, the 11 classes"),
        (wrong, mask, "label 12 outside"),
        (wrong.astype(np.float32), mask, "labels are float32; expected integers"),
    ):
        with pytest.raises(ValueError, match=message):
            flow_loss(velocity, *arguments[:4], labels, arguments[5], mask=where)


def test_nothing_stays_behind():
    velocity, arguments, mask = example()
    for _ in range(2):
        run(velocity, arguments, mask=mask)
    before = jt.number_of_lived_vars()
    run(velocity, arguments, mask=mask)
    assert jt.number_of_lived_vars() <= before
