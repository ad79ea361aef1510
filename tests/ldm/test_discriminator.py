import numpy as np
import pytest

from jseg.ldm.discriminator import Discriminator
from jseg.runtime import jt

# NLayerDiscriminator(ndf=64, n_layers=3) of taming-transformers, as PyTorch names and shapes it.
NORM = {
    "weight": [0],
    "bias": [0],
    "running_mean": [0],
    "running_var": [0],
    "num_batches_tracked": [],
}
TAMING = {
    "main.0.weight": [64, 3, 4, 4],
    "main.0.bias": [64],
    "main.2.weight": [128, 64, 4, 4],
    "main.5.weight": [256, 128, 4, 4],
    "main.8.weight": [512, 256, 4, 4],
    "main.11.weight": [1, 512, 4, 4],
    "main.11.bias": [1],
}
for _i, _width in ((3, 128), (6, 256), (9, 512)):
    TAMING.update({f"main.{_i}.{name}": [_width] if shape else [1] for name, shape in NORM.items()})


def convolve(x, weight, bias, stride):
    """4x4 convolution with one zero around, float64."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = ((n - 4) // stride + 1 for n in x.shape[2:])
    y = sum(
        np.einsum(
            "oc,bchw->bohw",
            weight[:, :, i, j],
            x[:, :, i : i + stride * height : stride, j : j + stride * width : stride],
        )
        for i in range(4)
        for j in range(4)
    )
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def twin(state, x, norm):
    """The discriminator once more in float64 NumPy, from its state by name; three layers."""
    w = {name: np.asarray(value, np.float64) for name, value in state.items()}
    x = x.astype(np.float64)
    for i, stride in ((0, 2), (2, 2), (5, 2), (8, 1)):
        x = convolve(x, w[f"main.{i}.weight"], w.get(f"main.{i}.bias"), stride)
        if i:
            if norm == "batch":
                groups, axes = x, (0, 2, 3)
            else:
                groups, axes = x.reshape(len(x), -1, 16, *x.shape[2:]), (2, 3, 4)
            centred = groups - groups.mean(axes, keepdims=True)
            y = centred / np.sqrt(groups.var(axes, keepdims=True) + 1e-5)
            scale, shift = (
                w[f"main.{i + 1}.{name}"].reshape(1, -1, 1, 1) for name in ("weight", "bias")
            )
            x = y.reshape(x.shape) * scale + shift
        x = np.where(x > 0, x, 0.2 * x)
    return convolve(x, w["main.11.weight"], w["main.11.bias"], 1)


def images(count=2, height=32, width=40, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


def lively(norm):
    """A narrow discriminator whose weights are large enough that its norms and slopes matter."""
    discriminator = Discriminator(16, norm=norm)
    rng = np.random.default_rng(0)
    for v in discriminator.state_dict().values():
        if "float" in str(v.dtype):
            values = rng.standard_normal(v.shape) * (0.2 if v.ndim == 4 else 1)
            v.assign(jt.array(values.astype(np.float32)))
    return discriminator


def test_full_size_layout_is_taming_transformers():
    assert {
        name: list(v.shape) for name, v in Discriminator(norm="batch").state_dict().items()
    } == TAMING
    ours = {name: list(v.shape) for name, v in Discriminator().state_dict().items()}
    assert ours == {
        name: shape
        for name, shape in TAMING.items()
        if "running" not in name and "tracked" not in name
    }


def test_only_weights_are_trained_and_they_start_as_in_taming():
    discriminator = Discriminator(norm="batch")
    assert all(
        v.is_stop_grad() == ("running" in name or "tracked" in name)
        for name, v in discriminator.state_dict().items()
    )
    state = {name: v.numpy() for name, v in discriminator.state_dict().items()}
    for name, centre in (("main.8.weight", 0.0), ("main.9.weight", 1.0)):
        assert abs(state[name].mean() - centre) < 4 * 0.02 / np.sqrt(state[name].size)
        assert 0.015 < state[name].std() < 0.025
    assert (state["main.9.bias"] == 0).all()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_logits_are_the_twins(norm):
    discriminator, x = lively(norm), images()
    logits = discriminator(jt.array(x)).numpy()
    assert logits.shape == (2, 1, 2, 3)
    np.testing.assert_allclose(
        logits, twin(discriminator.state_dict(to="numpy"), x, norm), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_gradients_are_finite_differences(norm):
    discriminator, x = lively(norm), images()
    names = ["main.0.weight", "main.5.weight", "main.6.weight", "main.9.bias", "main.11.weight"]
    state = discriminator.state_dict()
    out = discriminator(jt.array(x))
    for name, gradient in zip(names, jt.grad((out * out).mean(), [state[name] for name in names])):
        gradient = gradient.numpy().astype(np.float64)
        size, value = np.linalg.norm(gradient), state[name].numpy().astype(np.float64)
        moved = []
        for sign in (1, -1):
            shifted = {key: v.numpy() for key, v in state.items()}
            shifted[name] = value + sign * 1e-6 * gradient / size
            moved.append((twin(shifted, x, norm) ** 2).mean())
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(size, rel=1e-3), name


def test_an_image_s_logits_need_no_other_image():
    """taming: batch norm, so that an image's logits depend on its micro-batch; here: group
    norm.
    """
    x = images(3)
    for norm, tied in (("group", False), ("batch", True)):
        discriminator = lively(norm)
        together = discriminator(jt.array(x)).numpy()[:1]
        alone = discriminator(jt.array(x[:1])).numpy()
        assert (np.abs(together - alone).max() > 1e-2) == tied


def test_a_logit_sees_70_pixels():
    discriminator = Discriminator(16)
    x = jt.array(images(1, 160, 104))
    for layer in (3, 6, 9):  # without the norms, whose statistics see everything
        discriminator.main[layer].execute = lambda h: h
    height, width = discriminator(x).shape[2:]
    assert (height, width) == (160 // 8 - 2, 104 // 8 - 2)
    seen = np.abs(jt.grad(discriminator(x)[0, 0, 9, 5], x).numpy()[0]).sum(0) > 0
    assert seen.any(1).sum() == seen.any(0).sum() == 70


def test_what_it_cannot_take_is_refused():
    with pytest.raises(ValueError, match="expected at least 24 pixels"):
        Discriminator(16)(jt.zeros((1, 3, 16, 32)))
    with pytest.raises(ValueError, match="expected one of group, batch"):
        Discriminator(norm="layer")
