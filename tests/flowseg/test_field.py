import numpy as np
import pytest

from jseg.flowseg import field, potential
from jseg.flowseg.encoding import class_codes, encode
from jseg.flowseg.field import flow_loss, interpolate, shifted, source
from jseg.runtime import jt
from jseg.training.memory import resident_bytes


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
    velocity = jt.array(velocity)
    found = flow_loss(velocity, *arguments, **options)
    gradient = jt.grad(found["loss"], velocity).numpy()
    return {name: value.item() for name, value in found.items()}, gradient


def exact(velocity, arguments, mask, weight, tau=1.0, eps=1e-2, time=lambda t: 1.0):
    """(loss, fm, correction_norm, gradient) in float64, pixel by pixel from the formulas."""
    x_t, x0, x1, t, labels, codes = (np.asarray(a, np.float64) for a in arguments)
    loss = fm = norm = 0.0
    gradient = np.zeros(velocity.shape)
    count = max(mask.sum(), 1)
    for b, i, j in np.argwhere(mask[:, 0] > 0):
        v, straight = velocity[b, :, i, j].astype(np.float64), (x1 - x0)[b, :, i, j]
        away = x_t[b, :, i, j] + (1 - t[b]) * v - codes
        d = (away**2).sum(1) + eps
        p = (d / d.min()) ** (-1 / tau)
        own = np.arange(len(codes)) == labels[b, i, j]
        pull = weight * time(t[b]) * 2 / tau * (((own - p / p.sum()) / d)[:, None] * away).sum(0)
        residual = v - straight + pull
        loss, fm, norm = (
            loss + residual @ residual,
            fm + (v - straight) @ (v - straight),
            norm + np.linalg.norm(pull),
        )
        gradient[b, :, i, j] = 2 * residual / (3 * count)
    return loss / (3 * count), fm / (3 * count), norm / count, gradient


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
    found, gradient = run(velocity, arguments, weight=weight, schedule=schedule, mask=mask)
    assert found["fm"] == pytest.approx(0.1534368308, rel=1e-6)
    assert found["loss"] == pytest.approx(loss, rel=1e-6) and found[
        "correction_norm"
    ] == pytest.approx(norm, rel=1e-6)
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
    found, gradient = run(velocity, arguments, mask=mask, **options)
    loss, fm, norm, of_velocity = exact(velocity, arguments, mask, **{"weight": 1.0, **options})
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["fm"] == pytest.approx(fm, rel=1e-5) and found["correction_norm"] == pytest.approx(
        norm, rel=1e-5
    )
    np.testing.assert_allclose(gradient, of_velocity, atol=1e-5 * np.abs(of_velocity).max())


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
    t = t.reshape(-1, 1, 1)
    counted = mask[:, 0]

    def surrogate(v):
        d = (x_t + (1 - t[:, None]) * v)[:, None] - codes.reshape(1, -1, 3, 1, 1)
        d = (d**2).sum(2) + 1e-2
        own = np.take_along_axis(d, np.where(counted > 0, labels, 0).astype(int)[:, None], 1)[:, 0]
        phi = np.log(own) + np.log((1 / d).sum(1))
        return counted * (((v - x1 + x0) ** 2).sum(1) + 2 * time(t) / (1 - t) * phi)

    v, h = velocity.astype(np.float64), 1e-6
    steps = [np.eye(3)[c].reshape(1, 3, 1, 1) * h for c in range(3)]
    slopes = np.stack(
        [(surrogate(v + step) - surrogate(v - step)) / (2 * h) for step in steps], 1
    ) / (3 * mask.sum())
    np.testing.assert_allclose(gradient, slopes, atol=1e-5 * np.abs(slopes).max())


def test_without_weight_it_is_plain_flow_matching_to_the_bit(monkeypatch):
    monkeypatch.setattr(field, "correction", None)
    velocity, arguments, mask = example()
    found, gradient = run(velocity, arguments, weight=0, mask=mask)
    assert found["loss"] == found["fm"] and found["correction_norm"] == 0
    monkeypatch.undo()
    corrected, _ = run(velocity, arguments, weight=1, mask=mask)
    assert corrected["fm"] == found["fm"] and corrected["loss"] != found["fm"]
    plain = 2 * mask * (velocity - (arguments[2] - arguments[1])) / (3 * mask.sum())
    np.testing.assert_allclose(gradient, plain, rtol=1e-6, atol=1e-8)


def test_without_weight_a_correction_that_is_not_finite_does_no_harm():
    codes, labels = class_codes(11), np.array([[[3]]])
    x1, _ = encode(labels, codes)
    found, gradient = run(
        x1,
        [np.zeros_like(x1), np.zeros_like(x1), x1, np.zeros(1, np.float32), labels, codes],
        weight=0,
        eps=0.0,
    )
    assert found == {"loss": 0, "fm": 0, "correction_norm": 0} and not gradient.any()


def test_the_estimate_is_detached_and_the_velocity_stays_open():
    velocity, arguments, mask = example()
    weight = jt.array(np.float32([0.7]))
    v = weight * jt.array(velocity)
    found = flow_loss(v, *arguments, mask=mask)
    of_velocity = exact(0.7 * velocity, arguments, mask, 1.0)[3]
    assert jt.grad(found["loss"], weight).item() == pytest.approx(
        (of_velocity * velocity).sum(), rel=1e-4
    )
    assert not v.is_stop_grad() and jt.grad((v * v).sum(), weight).item() > 0


@pytest.mark.parametrize("weight", [0, 1])
def test_only_the_velocity_gets_a_gradient_and_only_from_the_loss(weight):
    velocity, arguments, mask = example()
    given = [jt.array(a) for a in [velocity] + arguments[:4]] + [
        arguments[4],
        jt.array(arguments[5]),
    ]
    found = flow_loss(*given, mask=mask, weight=weight)
    inputs = given[:5] + given[6:]
    first, *others = jt.grad(found["loss"], inputs)
    assert first.numpy().any() and not any(gradient.numpy().any() for gradient in others)
    for name in ("fm", "correction_norm"):
        assert not jt.grad(found[name], given[0]).numpy().any()
    assert not any(v.is_stop_grad() for v in inputs)


def test_ignored_pixels_have_no_part_in_it():
    velocity, arguments, mask = example()
    found, gradient = run(velocity, arguments, mask=mask)
    ignored = np.broadcast_to(mask == 0, velocity.shape)
    assert ignored.any() and not gradient[ignored].any() and gradient[~ignored].all()
    for other in (3.0, np.nan, np.inf):
        changed, x1, labels = velocity.copy(), arguments[2].copy(), arguments[4].copy()
        changed[ignored] = x1[ignored] = other
        labels[mask[:, 0] == 0] = -7
        again, same = run(
            changed, arguments[:2] + [x1, arguments[3], labels, arguments[5]], mask=mask[:, 0]
        )
        assert again == found
        np.testing.assert_array_equal(same, gradient)


@pytest.mark.parametrize("weight", [0, 1])
def test_a_batch_without_a_pixel_that_counts_gives_zero(weight):
    velocity, arguments, mask = example()
    found, gradient = run(velocity, arguments, weight=weight, mask=np.zeros_like(mask))
    assert found == {"loss": 0, "fm": 0, "correction_norm": 0} and not gradient.any()


def test_the_velocity_s_error_is_the_estimate_s_over_the_time_left():
    velocity, (x_t, x0, x1, t, _, _), _ = example()
    rest = (1 - t).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose((velocity - (x1 - x0)) * rest, x_t + rest * velocity - x1, atol=1e-5)


def test_estimates_on_a_code_are_finite():
    codes = class_codes(150)
    for labels, ends in (
        (np.array([[[5, 5]]]), codes[[5, 9]]),
        (np.array([[[5, 5]]]), codes[[5, 5]]),
    ):
        x1, _ = encode(labels, codes)
        zero, end = np.zeros_like(x1), ends.T.reshape(1, 3, 1, 2).astype(np.float32)
        found, gradient = run(
            end, [zero, zero, x1, np.zeros(1, np.float32), labels, codes], eps=1e-6
        )
        assert np.isfinite(list(found.values())).all() and np.isfinite(gradient).all()


def test_arrays_variables_and_half_precision_are_taken():
    velocity, arguments, mask = example()
    found, _ = run(velocity, arguments, mask=mask)
    labels = arguments[4].astype(np.int32)
    as_vars = [jt.array(a) for a in arguments[:4]] + [jt.array(labels), jt.array(arguments[5])]
    assert run(velocity, as_vars, mask=jt.array(mask))[0] == found
    half = flow_loss(jt.array(velocity).float16(), *arguments, mask=mask)["loss"]
    assert half.dtype == "float32" and half.item() == pytest.approx(found["loss"], rel=5e-3)


def test_a_loss_over_many_pixels_keeps_its_digits():
    n = 1 << 19
    x = np.full((2, 3, 512, n // 1024), 0.1, np.float32)
    found, _ = run(
        x,
        [
            0 * x,
            0 * x,
            0 * x,
            np.zeros(2, np.float32),
            np.zeros(x[:, 0].shape, np.uint8),
            class_codes(2),
        ],
        weight=0,
    )
    assert found["loss"] == pytest.approx(float(np.float32(0.1)) ** 2, rel=2e-5)


@pytest.mark.parametrize("form", ["compiled", "plain"])
def test_150_classes_need_no_array_of_pixels_times_classes(form, monkeypatch):
    """The distances of all pixels would be 157 MB, with their directions 472 MB; the loss's own
    arrays are 3 MB each.
    """
    monkeypatch.setattr(
        potential,
        "_compiled",
        getattr(potential, {"compiled": "_compiled", "plain": "plain"}[form]),
    )
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
    "change, message",
    [
        (dict(velocity=(2, 4, 4, 6)), r"velocity of shape \[2, 4, 4, 6\]; expected \[B, 3, H, W\]"),
        (dict(x_t=(2, 3, 4, 5)), r"x_t of shape \[2, 3, 4, 5\]; expected \[2, 3, 4, 6\]"),
        (dict(x1=(1, 3, 4, 6)), r"x1 of shape"),
        (dict(t=(2, 1)), r"t of shape \[2, 1\]; expected \[2\]"),
        (dict(labels=(2, 1, 4, 6)), r"labels of shape \[2, 1, 4, 6\]; expected \[2, 4, 6\]"),
        (dict(codes=(11, 2)), r"codes of shape \[11, 2\]; expected \[11, 3\]"),
        (dict(mask=(4, 6)), r"mask of shape \[4, 6\]; expected \[2, 1, 4, 6\] or \[2, 4, 6\]"),
    ],
)
def test_wrong_shapes_are_told(change, message):
    velocity, arguments, mask = example()
    given = dict(
        zip(
            ("velocity", "x_t", "x0", "x1", "t", "labels", "codes", "mask"),
            [velocity] + arguments + [mask],
        )
    )
    given.update({name: np.zeros(shape, given[name].dtype) for name, shape in change.items()})
    with pytest.raises(ValueError, match=message):
        flow_loss(**given)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; choose one of static, 1-t, t"),
        ({"tau": 0}, "tau is 0; expected a number from 1e-06"),
        ({"eps": -1}, "eps is -1; expected a number from 1e-12"),
        ({"tau": float("inf")}, "tau is inf"),
        ({"eps": float("nan")}, "eps is nan"),
    ],
)
@pytest.mark.parametrize("weight", [0, 1])
def test_wrong_options_are_told(options, message, weight):
    velocity, arguments, mask = example()
    with pytest.raises(ValueError, match=message):
        flow_loss(velocity, *arguments, mask=mask, weight=weight, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0},
        {"eps": 1e-45},
        {"tau": 1e-45},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"weight": -1.0},
    ],
)
def test_numbers_that_would_make_the_loss_nan_are_refused(options):
    ((name, value),) = options.items()
    velocity, arguments, mask = example()
    with pytest.raises(ValueError, match=f"flow_loss: {name} is {value}; expected a number from"):
        flow_loss(velocity, *arguments, mask=mask, **options)


@pytest.mark.parametrize("shift", [0, -1, float("nan"), float("inf"), 1e-45])
def test_a_shift_that_would_make_times_nan_is_refused(shift):
    with pytest.raises(
        ValueError, match=f"shifted: shift is {shift}; expected a number from 1e-06 to 1e"
    ):
        shifted(np.zeros(3, np.float32), shift)


def test_labels_outside_the_classes_are_told():
    velocity, arguments, mask = example()
    with pytest.raises(ValueError, match=r"label 255 outside 0 \.\.\. 10, the 11 classes"):
        flow_loss(velocity, *arguments)
    arguments[4] = np.where(mask[:, 0] > 0, 12, arguments[4])
    with pytest.raises(ValueError, match="label 12 outside"):
        flow_loss(velocity, *arguments, mask=mask)
    arguments[4] = arguments[4].astype(np.float32)
    with pytest.raises(ValueError, match="labels are float32; expected integers"):
        flow_loss(velocity, *arguments, mask=mask)


def test_sources():
    image, noise = np.full((1, 3, 2, 2), 0.5), np.ones((1, 3, 2, 2))
    assert (source("image", image) == 0.5).all() and (source("noise", noise=noise) == 1).all()
    assert (source("image+noise", image, noise) == 1).all()
    for kind, given in (
        ("image", dict(noise=noise)),
        ("noise", dict(image=image)),
        ("image+noise", dict(image=image)),
    ):
        with pytest.raises(
            ValueError, match=f"source: kind '{kind.replace('+', '.')}' starts from"
        ):
            source(kind, **given)
    with pytest.raises(
        ValueError, match="unknown kind 'mask'; choose one of image, noise, image.noise"
    ):
        source("mask", image)


def test_the_path_runs_from_the_source_to_the_data():
    x0, x1 = np.zeros((3, 3, 1, 1)), np.ones((3, 3, 1, 1))
    assert interpolate(x0, x1, np.array([0, 0.25, 1]))[:, 0, 0, 0].tolist() == [0, 0.25, 1]
    assert interpolate(jt.array(x0), jt.array(x1), jt.array([0, 0.25, 1])).numpy()[
        :, 0, 0, 0
    ].tolist() == [0, 0.25, 1]
    t = np.linspace(0, 1, 5)
    assert (shifted(t) == t).all() and shifted(np.array([0, 0.5, 1]), 3.0).tolist() == [0, 0.25, 1]


def test_nothing_stays_behind():
    velocity, arguments, mask = example()
    for _ in range(2):
        run(velocity, arguments, mask=mask)
    before = jt.number_of_lived_vars()
    run(velocity, arguments, mask=mask)
    assert jt.number_of_lived_vars() <= before
