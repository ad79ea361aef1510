"""Networks in half precision on the CPU: operands, results and gradients rounded, and bounds to
float32. Why Jittor's own half precision does not serve there: a release that computes it right
fails.
"""

import numpy as np
import pytest
from scipy.signal import correlate2d

from jseg.flowseg.encoding import class_codes
from jseg.flowseg.field import training_loss as flow_training_loss
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import training_loss
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.samplers import ddim, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.nn import layers, precision
from jseg.nn.layers import one_hot
from jseg.parity.cuda_emulation.device_types import rounded
from jseg.parity.gpu.comparing import filled, random
from jseg.parity.gpu.losses import crop_batch, latent_batch
from jseg.runtime import jt
from jseg.training.optimizer import trainable

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 64, 8, 8)).astype(np.float32)
WEIGHT = (RNG.standard_normal((4, 64, 3, 3)) / 24).astype(np.float32)


def exact(x, weight):
    maps = [
        sum(
            correlate2d(x[0, c].astype(np.float64), w[c].astype(np.float64), mode="same")
            for c in range(x.shape[1])
        )
        for w in weight
    ]
    return np.stack(maps)[None]


def error(kind):
    """Largest error of Jittor's convolution in that type, relative to the largest value."""
    y = jt.nn.conv2d(jt.array(X).cast(kind), jt.array(WEIGHT).cast(kind), padding=1)
    true = exact(X, WEIGHT)
    return np.abs(y.cast("float32").numpy() - true).max() / np.abs(true).max()


def test_float32_is_right():
    assert error("float32") < 1e-5


def test_half_precision_loses_far_more_than_rounding():
    true = exact(X, WEIGHT)
    rounding = np.abs(exact(X.astype(np.float16), WEIGHT.astype(np.float16)) - true)
    rounded = rounding.max() / np.abs(true).max()
    assert error("float16") > 5 * rounded, "fp16 products are summed in fp16"
    assert error("bfloat16") > 0.05, "bf16 convolutions are wrong"


HALVES = {"bf16": "bfloat16", "fp16": "float16"}


# -- one product -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HALVES.values())
def test_rounding_is_to_the_nearest_ties_to_even(kind):
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 2.0**-8, 0, -0.0]
    values = np.concatenate([random(5000), ties, [np.inf, -np.inf, np.nan]]).astype(np.float32)
    ours = precision.rounded(jt.array(values), kind).numpy()
    np.testing.assert_array_equal(ours, rounded(values, kind).astype(np.float32))


@pytest.mark.parametrize("name, kind", HALVES.items())
def test_a_linear_layer_rounds_operands_result_and_gradients(name, kind):
    def half(values):
        return rounded(values, kind)

    x, weight, bias, g = random(7, 30), random(4, 30, seed=1), random(4, seed=2), random(7, 4)
    variables = [jt.array(v) for v in (x, weight, bias)]
    with precision.computing_in(name):
        y = layers.linear(*variables)
        gradients = [v.numpy() for v in jt.grad(y * jt.array(g), variables)]
    unit = precision.PRECISIONS[name].unit
    products = half(x) @ half(weight).T
    np.testing.assert_allclose(y.numpy(), products + bias, rtol=1.01 * unit, atol=1e-6)
    np.testing.assert_array_equal(y.numpy(), half(y.numpy()))

    expected = [half(g) @ half(weight), half(g).T @ half(x), half(g).sum(0)]
    for ours, theirs in zip(gradients[:2], expected):
        np.testing.assert_allclose(ours, theirs, rtol=1.01 * unit, atol=1e-5)
        np.testing.assert_array_equal(ours, half(ours))
    np.testing.assert_allclose(gradients[2], expected[2], rtol=1e-5, atol=1e-5)  # float32 sums


def test_float32_is_untouched():
    x, weight = jt.array(random(7, 30)), jt.array(random(4, 30, seed=1))
    assert precision.operands(x, None, weight) == (x, None, weight)
    y = x + 1
    assert precision.result(y) is y and precision.result(y, None) is y


@pytest.mark.parametrize(
    "name, device, message",
    [
        ("half", "cpu", "expected float32, tf32, bf16, fp16"),
        ("tf32", "cpu", "a CPU has no TF32; expected float32, bf16 or fp16"),
        ("float32", "cuda", "set NVIDIA_TF32_OVERRIDE=0 before"),
    ],
)
def test_what_a_device_does_not_have_is_refused(name, device, message, monkeypatch):
    monkeypatch.delenv(precision.EXACT, raising=False)
    with pytest.raises(ValueError, match=message):
        precision.use(name, device)
    assert not precision.is_half()


def test_gpus_before_ampere_have_neither_tf32_nor_bfloat16(monkeypatch):
    monkeypatch.delenv(precision.EXACT, raising=False)
    for capability, names in ((75, ["float32", "fp16"]), (80, ["bf16", "fp16", "tf32"])):
        monkeypatch.setattr(precision, "_capability", lambda capability=capability: capability)
        taken = []
        for name in precision.PRECISIONS:
            try:
                taken.append(precision.chosen(name, "cuda"))
            except ValueError as error:
                assert name in str(error)
        assert sorted(taken) == names
        assert precision.chosen(None, "cuda") == ("float32" if capability < 80 else "tf32")
    assert precision.chosen("bf16", "cpu") == "bf16"


def test_defaults_and_flags(monkeypatch):
    for exact, given, device, name, flag in (
        *(("", None, "cpu", "float32", 0), ("", None, "cuda", "tf32", 1)),
        *(("0", None, "cuda", "float32", 0), ("0", "float32", "cuda", "float32", 0)),
        *(("0", "bf16", "cuda", "bf16", 0),),
    ):
        monkeypatch.setenv(precision.EXACT, exact)
        assert precision.use(given, device) == name
        assert jt.flags.use_tensorcore == flag and precision.is_half() == (name == "bf16")
    with precision.computing_in("tf32"):
        assert not precision.is_half() and jt.flags.use_tensorcore == 1
    assert precision.is_half() and jt.flags.use_tensorcore == 0
    precision.use("float32", "cpu")


# -- the networks ----------------------------------------------------------------------------------

# Of float32's results, relative to the largest; measured values are about half of the bounds.
BOUNDS = {"bf16": 3e-2, "fp16": 4e-3}
LOSS_BOUNDS = {"bf16": 3e-3, "fp16": 4e-4}
COSINES = {"bf16": 0.9995, "fp16": 0.99999}


def networks():
    for kind, config in ((UNet, UNETS), (Autoencoder, AUTOENCODERS), (PixNerd, NETWORKS)):
        yield filled(kind(config["tiny"]))


def results(unet, autoencoder, field):
    """What each network makes, without gradients."""
    batch, crop = latent_batch(unet.config), crop_batch(field.config)
    guide = guided(unet, one_hot(batch["labels"], unet.config.classes), 3.5)
    z = jt.array(batch["z"])
    with jt.no_grad():
        *_, stage = ddim(guide, z, Schedule("ddim50"), 4)
        return {
            "guided step": guide(z, jt.array(batch["t"].astype(np.int32))),
            "stage": stage,
            "encode": autoencoder.encode(jt.array(np.tanh(random(1, 3, 64, 96)))),
            "decode": autoencoder.decode(jt.array(random(1, 3, 16, 24))),
            "velocity": field(jt.array(random(*crop["images"].shape)), jt.array(crop["t"])),
        }


def gradients(unet, _, field):
    """Each training's loss, and its gradients end to end."""
    losses = (
        (unet, training_loss(unet, Schedule())(latent_batch(unet.config))),
        (
            field,
            flow_training_loss(field, class_codes(field.config.labels))(crop_batch(field.config)),
        ),
    )
    for network, terms in losses:
        parts = jt.grad(terms["loss"], list(trainable(network).values()))
        flat = np.concatenate([part.numpy().ravel() for part in parts]).astype(np.float64)
        yield float(terms["loss"].item()), flat


@pytest.fixture(scope="module")
def in_each_precision():
    made = list(networks())
    found = {}
    for name in ("float32", *HALVES):
        with precision.computing_in(name):
            values = {key: v.numpy() for key, v in results(*made).items()}
            found[name] = values, list(gradients(*made))
    return found


@pytest.mark.parametrize("name", HALVES)
def test_results_keep_to_bounds_of_float32(name, in_each_precision):
    exact, ours = in_each_precision["float32"][0], in_each_precision[name][0]
    for key, expected in exact.items():
        error = np.abs(ours[key] - expected).max() / np.abs(expected).max()
        assert precision.PRECISIONS[name].unit / 30 < error < BOUNDS[name], key


@pytest.mark.parametrize("name", HALVES)
def test_gradients_keep_to_bounds_of_float32(name, in_each_precision):
    exact, ours = in_each_precision["float32"][1], in_each_precision[name][1]
    for (loss, flat), (loss_32, flat_32) in zip(ours, exact):
        assert loss == pytest.approx(loss_32, rel=LOSS_BOUNDS[name])
        cosine = flat @ flat_32 / np.linalg.norm(flat) / np.linalg.norm(flat_32)
        assert cosine > COSINES[name]
        assert np.abs(flat - flat_32).max() < BOUNDS[name] * np.abs(flat_32).max()


def test_no_product_of_a_network_is_forgotten(monkeypatch):
    """Every convolution and product of matrices takes operands that bfloat16 can hold."""
    original = {name: getattr(layers.nn, name) for name in ("conv2d", "matmul_transpose", "bmm")}
    seen = []

    def watched(name):
        def product(a, b, *rest, **options):
            seen.append((name, a.numpy(), b.numpy()))
            return original[name](a, b, *rest, **options)

        return product

    for name in original:
        monkeypatch.setattr(layers.nn, name, watched(name))
    monkeypatch.setenv("JSEG_FUSED", "group_norm,rms_norm,attention")
    made = list(networks())
    with precision.computing_in("bf16"):
        for v in results(*made).values():
            v.sync()
    nearest = [pair for pair in seen if pair[2].shape == (64, 3)]  # codebook entries, exact
    assert len(seen) - len(nearest) > 100 and nearest
    for name, a, b in seen:
        # Entries of the codebook and the table of places are exact; kernels of 2x2 are sums of
        # rounded ones, a doubled map's on the CPU.
        exact = b.shape == (64, 3) or a.shape == (64, 16) or b.shape[2:] == (2, 2)
        for operand in () if exact else (a, b):
            np.testing.assert_array_equal(operand, rounded(operand, "bfloat16"), name)
