import subprocess

import numpy as np
import pytest

from jseg.nn import convolution, im2col, kernels, lanes, winograd
from jseg.nn.layers import Pointwise
from jseg.runtime import jt

nn = jt.nn
# (channels, outputs, height, width, padding, doubled): tiles that overhang, channels that fill no
# vector, one tile alone, strips, more channels than a block of a product is deep
SHAPES = {
    "odd sides": (9, 13, 9, 11, (1, 1), False),
    "a pixel": (8, 8, 1, 1, (1, 1), False),
    "wide": (8, 12, 5, 150, (1, 1), False),
    "tall": (8, 12, 150, 3, (1, 1), False),
    "a strip": (16, 9, 10, 13, (0, 1), False),
    "unpadded": (16, 9, 10, 13, (0, 0), False),
    "deep": (300, 70, 6, 8, (1, 1), False),
    "doubled": (16, 10, 7, 9, (1, 1), True),
    "a strip, doubled": (16, 10, 7, 9, (-1, 1), True),
}


def arrays(channels, outputs, height, width, padding, doubled, mean=0.0, seed=0):
    """float32 x [2, C, H, W], weight, bias, skip, and a factor like the result."""
    rng = np.random.default_rng(seed)
    sides = [side * (1 + doubled) + 2 * more - 2 for side, more in zip((height, width), padding)]
    shapes = [(2, channels, height, width), (outputs, channels, 3, 3), (outputs,)]
    shapes += [(2, outputs, *sides)] * 2
    found = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    found[0] += np.float32(mean)
    return found


def windows(x, padding, doubled):
    """The map that is convolved, float64, as [3, 3] maps shifted against each other."""
    whole = x.astype(np.float64)
    whole = whole.repeat(2, 2).repeat(2, 3) if doubled else whole
    above, left = padding
    whole = whole[:, :, 1:-1] if above < 0 else whole
    above = max(0, above)
    whole = np.pad(whole, ((0, 0), (0, 0), (above, above), (left, left)))
    height, width = whole.shape[2] - 2, whole.shape[3] - 2
    return [[whole[:, :, i : i + height, j : j + width] for j in range(3)] for i in range(3)]


def exact(x, weight, bias, skip, padding, doubled):
    parts = windows(x, padding, doubled)
    sums = sum(
        np.einsum("oc,bchw->bohw", weight[:, :, i, j].astype(np.float64), parts[i][j])
        for i in range(3)
        for j in range(3)
    )
    return sums + bias.reshape(1, -1, 1, 1) + skip


def exact_gradients(x, weight, factor, padding, doubled):
    """Of sum(result * factor), for x and weight."""
    factor = factor.astype(np.float64)
    parts = windows(x, padding, doubled)
    of_weight = np.empty(weight.shape)
    above, left = padding
    rows, columns = x.shape[2] * (1 + doubled), x.shape[3] * (1 + doubled)
    of_x = np.zeros((*x.shape[:2], rows + 4, columns + 4))
    for i in range(3):
        for j in range(3):
            of_weight[:, :, i, j] = np.einsum("bohw,bchw->oc", factor, parts[i][j])
            part = np.einsum("oc,bohw->bchw", weight[:, :, i, j].astype(np.float64), factor)
            y, x_ = 2 + i - above, 2 + j - left
            of_x[:, :, y : y + factor.shape[2], x_ : x_ + factor.shape[3]] += part
    of_x = of_x[:, :, 2:-2, 2:-2]
    if doubled:
        of_x = of_x.reshape(*x.shape[:3], 2, x.shape[3], 2).sum((3, 5))
    return of_x, of_weight


def difference(ours, expected):
    """Of Var and array, relative to the largest value."""
    return np.abs(ours.numpy() - expected).max() / np.abs(expected).max()


ALGORITHMS = {"winograd": winograd, "im2col": im2col}


@pytest.fixture(params=[*ALGORITHMS, "plain"])
def form(request, monkeypatch):
    """The algorithm that computes all convolutions that it can."""
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    monkeypatch.setattr(kernels, "FASTER", {"cpu": (request.param,)})
    monkeypatch.setattr(im2col, "pays", lambda *sizes: True)
    if request.param in ALGORITHMS and not lanes.has_avx2():
        pytest.skip("this processor has no AVX2")
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_all_forms_and_their_gradients_are_the_convolution(form, shape):
    *_, padding, doubled = SHAPES[shape]
    if doubled and form == "im2col":
        pytest.skip("im2col has no doubled maps")
    x, weight, bias, skip, factor = arrays(*SHAPES[shape])
    inputs = [jt.array(v) for v in (x, weight, bias, skip)]
    assert winograd.faster(*inputs[:2], padding, doubled) == (form == "winograd")
    assert im2col.faster(*inputs[:2], padding) == (form == "im2col")

    y = convolution.conv3x3(*inputs[:3], padding, doubled, inputs[3])
    assert difference(y, exact(x, weight, bias, skip, padding, doubled)) < 3e-6

    gradients = jt.grad(y * jt.array(factor).stop_grad(), inputs)
    of_x, of_weight = exact_gradients(x, weight, factor, padding, doubled)
    for gradient, expected in zip(
        gradients, (of_x, of_weight, factor.astype(np.float64).sum((0, 2, 3)), factor)
    ):
        assert difference(gradient, expected) < 5e-6


def test_bias_and_skip_may_be_missing(form):
    x, weight, bias, skip, factor = arrays(*SHAPES["odd sides"])
    inputs = [jt.array(x), jt.array(weight)]
    y = convolution.conv3x3(*inputs, skip=jt.array(skip))
    assert difference(y, exact(x, weight, 0 * bias, skip, (1, 1), False)) < 3e-6
    y = convolution.conv3x3(*inputs)
    assert difference(y, exact(x, weight, 0 * bias, 0 * skip, (1, 1), False)) < 3e-6
    gradients = jt.grad(y * jt.array(factor).stop_grad(), inputs)
    for gradient, expected in zip(gradients, exact_gradients(x, weight, factor, (1, 1), False)):
        assert difference(gradient, expected) < 5e-6


@pytest.mark.parametrize(
    "shapes",
    [
        dict(weight=(8, 9, 3, 3)),
        dict(weight=(8, 16, 5, 5)),
        dict(weight=(8, 16, 1, 1)),
        dict(bias=(3,)),
        dict(skip=(1, 8, 1, 1)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(shapes):
    """The operators would read what is not theirs."""
    fitting = dict(x=(1, 16, 6, 5), weight=(8, 16, 3, 3), bias=(8,), skip=(1, 8, 6, 5))
    with pytest.raises(ValueError, match="conv3x3: got .*expected"):
        convolution.conv3x3(**{name: jt.zeros(s) for name, s in {**fitting, **shapes}.items()})
    with pytest.raises(ValueError, match=r"Pointwise: got \[1, 16, 6, 5\]; expected \[B, 9"):
        Pointwise(9, 4)(jt.zeros((1, 16, 6, 5)))


def test_the_gradients_are_the_slope_by_finite_differences():
    padding, doubled = (1, 1), False
    x, weight, bias, skip, factor = arrays(*SHAPES["odd sides"])
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    of_x, of_weight = exact_gradients(x, weight, factor, padding, doubled)
    rng = np.random.default_rng(3)
    for values, gradient in ((x, of_x), (weight, of_weight)):
        for place in zip(*(rng.integers(0, side, 5) for side in values.shape)):
            value, sides = values[place], []
            for moved in (value + 1e-3, value - 1e-3):
                values[place] = moved
                sides.append((exact(x, weight, bias, skip, padding, doubled) * factor).sum())
            values[place] = value
            assert abs((sides[0] - sides[1]) / 2e-3 - gradient[place]) < 1e-6


@pytest.mark.parametrize("mean, scale", [(100.0, None), (0.0, 1e4)])
def test_all_forms_keep_digits_with_large_means_and_unequal_channels(mean, scale, form):
    """At most 5e-6 of the largest value of a map: of each output's, where the outputs differ."""
    x, weight, bias, skip, _ = arrays(64, 24, 24, 32, (1, 1), False, mean)
    if scale:
        x[:, ::3] *= scale
        weight[::2] *= scale
    y = convolution.conv3x3(*(jt.array(v) for v in (x, weight, bias)), skip=jt.array(skip)).numpy()
    expected = exact(x, weight, bias, skip, (1, 1), False)
    largest = np.abs(expected).max((0, 2, 3), keepdims=True)
    assert (np.abs(y - expected) / largest).max() < 5e-6


@pytest.mark.parametrize("quads", [1, 2, 4])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_vectors_of_every_width_give_the_convolution(name, quads, monkeypatch):
    """SSE, AVX2 and AVX-512 cut the work in other ways; a wider vector than the processor's is
    computed in parts.
    """
    algorithm = ALGORITHMS[name]
    monkeypatch.setattr(kernels, "FASTER", {"cpu": (name,)})
    monkeypatch.setattr(im2col, "pays", lambda *sizes: True)
    monkeypatch.setattr(algorithm, "HEADER", f"#define JSEG_QUADS {quads}\n" + algorithm.HEADER)
    for shape in ("odd sides", "deep", "doubled")[: 3 if name == "winograd" else 2]:
        *_, padding, doubled = SHAPES[shape]
        x, weight, bias, skip, factor = arrays(*SHAPES[shape])
        inputs = [jt.array(v) for v in (x, weight, bias, skip)]
        y = convolution.conv3x3(*inputs[:3], padding, doubled, inputs[3])
        assert difference(y, exact(x, weight, bias, skip, padding, doubled)) < 3e-6
        gradients = jt.grad(y * jt.array(factor).stop_grad(), inputs[:2])
        for gradient, expected in zip(
            gradients, exact_gradients(x, weight, factor, padding, doubled)
        ):
            assert difference(gradient, expected) < 5e-6


USES = {
    "winograd": "void (*used)() = (void (*)())winograd::convolve;",
    "im2col": """
typedef void (*Read)(long, long, long, float*);
void (*used)() = (void (*)())im2col::multiply<Read>;""",
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_source_compiles_for_avx512(name, tmp_path):
    """Few machines that test this have it."""
    source = tmp_path / "source.cc"
    source.write_text(ALGORITHMS[name].HEADER + USES[name] + "\n")
    flags = "-std=c++14 -O2 -fopenmp -mavx512f -mfma -S -o -".split()
    done = subprocess.run(
        [jt.flags.cc_path, *flags, str(source)], stdout=subprocess.PIPE, universal_newlines=True
    )
    assert done.returncode == 0 and done.stdout.count("zmm") > 100


def test_pointwise_is_the_product_at_every_pixel(monkeypatch):
    rng = np.random.default_rng(6)
    layer = Pointwise(37, 21)
    x = rng.standard_normal((2, 37, 31, 29)).astype(np.float32)
    factor = rng.standard_normal((2, 21, 31, 29)).astype(np.float32)
    weight, bias = (v.numpy().astype(np.float64) for v in (layer.weight[:, :, 0, 0], layer.bias))
    whole, of_y = x.astype(np.float64), factor.astype(np.float64)
    expected = [
        np.einsum("oc,bchw->bohw", weight, whole) + bias.reshape(1, -1, 1, 1),
        np.einsum("oc,bohw->bchw", weight, of_y),
        np.einsum("bohw,bchw->oc", of_y, whole)[:, :, None, None],
        of_y.sum((0, 2, 3)),
    ]
    for names in ((), ("im2col",)):
        monkeypatch.setattr(kernels, "FASTER", {"cpu": names})
        given = jt.array(x)
        y = layer(given)
        inputs = [given, layer.weight, layer.bias]
        gradients = jt.grad(y * jt.array(factor).stop_grad(), inputs)
        for result, wanted in zip([y, *gradients], expected):
            assert difference(result, wanted) < 3e-6


def test_jittor_computes_where_winograd_was_not_measured_to_be_faster(monkeypatch):
    monkeypatch.delenv("JSEG_FUSED", raising=False)

    def chosen(x, weight):
        return winograd.faster(jt.zeros(x), jt.zeros(weight), (1, 1), False)

    with jt.no_grad():
        assert chosen((1, 64, 8, 8), (3, 64, 3, 3)) == lanes.has_avx2()
        assert not chosen((1, 3, 32, 32), (64, 3, 3, 3))  # products with three columns
    assert not chosen((1, 64, 8, 8), (3, 64, 3, 3))  # its gradient would be one
    # four tiles for two million weights
    assert not chosen((1, 512, 6, 8), (512, 512, 3, 3))
    assert im2col.faster(jt.zeros((1, 512, 6, 8)), jt.zeros((512, 512, 3, 3)), (1, 1))
    assert not winograd.faster(
        jt.zeros((1, 64, 8, 8)).float64(), jt.zeros((64, 64, 3, 3)), (1, 1), False
    )
    for x, weight in (((0, 16, 4, 4), (8, 16, 1, 1)), ((1, 0, 4, 4), (8, 0, 1, 1))):  # empty
        assert not im2col.faster(jt.zeros(x), jt.zeros(weight))
    monkeypatch.setenv("JSEG_FUSED", "")
    assert not chosen((1, 64, 8, 8), (64, 64, 3, 3))


def test_upsample_repeats_rows_and_columns():
    x = np.random.default_rng(5).standard_normal((1, 2, 3, 4)).astype(np.float32)
    assert (convolution.upsample(jt.array(x)).numpy() == x.repeat(2, 2).repeat(2, 3)).all()
