import numpy as np
import pytest

from jseg.flowseg.dinov2 import Dinov2, Dinov2Config
from jseg.flowseg.repa import Alignment, distance, targets
from jseg.runtime import jt

ENCODER = Dinov2Config(width=24, depth=1, heads=3, patch=7, grid=3)
WIDTH, PATCH = 10, 8


@pytest.fixture(scope="module")
def encoder():
    """A small DINOv2 of random positions, so that places differ."""
    dinov2 = Dinov2(ENCODER)
    dinov2.pos_embed.assign(
        jt.array(np.random.default_rng(0).standard_normal((1, 10, 24)).astype(np.float32))
    )
    return dinov2


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_distance_is_one_minus_the_mean_cosine():
    a, b = drawn(1, 2, 6, 5), drawn(2, 2, 6, 5)
    expected = np.mean(
        [
            [1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(*pair)]
            for pair in zip(a, b)
        ]
    )
    assert distance(jt.array(a), jt.array(b)).item() == pytest.approx(expected, abs=1e-6)
    for factor, wanted in ((1, 0), (7, 0), (-3, 2), (1e-5, 0)):
        assert distance(jt.array(a), jt.array(a * np.float32(factor))).item() == pytest.approx(
            wanted, abs=1e-5
        )


def test_tokens_of_length_zero_have_a_finite_gradient():
    x = jt.zeros((1, 2, 5))
    assert np.isfinite(jt.grad(distance(x, jt.ones((1, 2, 5))), x).numpy()).all()


def test_the_encoder_sees_the_network_s_patches(encoder):
    """An image of 3x2 patches of 8 pixels becomes one of 3x2 patches of 7."""
    seen = []

    def watched(image):
        seen.append(image.numpy())
        return encoder(image)

    image = np.clip(drawn(3, 2, 3, 16, 24), -1, 1)
    found = targets(watched, image, PATCH, 7)
    assert list(found.shape) == [2, 6, 24] and found.is_stop_grad()
    assert seen[0].shape == (2, 3, 14, 21)
    constant = targets(watched, np.full((1, 3, 16, 24), 0.25, np.float32), PATCH, 7)
    np.testing.assert_allclose(seen[1], 0.25, atol=1e-6)
    assert list(constant.shape) == [1, 6, 24]


def test_the_loss_is_added_with_its_weight_and_logged(encoder):
    alignment = Alignment(encoder, WIDTH, PATCH, 0.5, 24, 7)
    tokens = jt.array(drawn(4, 2, 6, WIDTH))
    image = drawn(5, 2, 3, 16, 24)
    before = {"loss": jt.array([2.0]), "fm": jt.array([1.0])}
    found = alignment(before, tokens, image)
    w = {name: value.numpy().astype(np.float64) for name, value in alignment.state_dict().items()}
    x = tokens.numpy().astype(np.float64)
    for layer in (0, 2, 4):
        x = x @ w[f"proj.0.{layer}.weight"].T + w[f"proj.0.{layer}.bias"]
        x = x / (1 + np.exp(-x)) if layer < 4 else x
    y = targets(encoder, image, PATCH, 7).numpy().astype(np.float64)
    repa = (1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).mean()
    assert found["repa"].item() == pytest.approx(repa, abs=1e-5)
    assert found["loss"].item() == pytest.approx(2 + repa / 2, abs=1e-5)
    assert found["fm"] is before["fm"] and set(before) == {"loss", "fm"}


def test_gradients_reach_the_projection_and_the_tokens_and_no_encoder(encoder):
    alignment = Alignment(encoder, WIDTH, PATCH, 0.5, 24, 7)
    tokens = jt.array(drawn(6, 1, 6, WIDTH))
    assert {name: list(value.shape) for name, value in alignment.state_dict().items()} == {
        "proj.0.0.weight": [10, 10],
        "proj.0.0.bias": [10],
        "proj.0.2.weight": [10, 10],
        "proj.0.2.bias": [10],
        "proj.0.4.weight": [24, 10],
        "proj.0.4.bias": [24],
    }
    loss = alignment({"loss": jt.zeros(1)}, tokens, drawn(7, 1, 3, 16, 24))["loss"]
    assert all(
        np.abs(gradient.numpy()).max() > 0
        for gradient in jt.grad(loss, [tokens] + alignment.parameters())
    )
    assert all(value.is_stop_grad() for value in encoder.parameters())


def test_a_few_steps_bring_the_tokens_closer(encoder):
    from jseg.training.optimizer import AdamW, trainable

    alignment = Alignment(encoder, WIDTH, PATCH, 1.0, 24, 7)
    tokens = jt.array(drawn(8, 1, 6, WIDTH))
    image = drawn(9, 1, 3, 16, 24)
    optimizer, seen = AdamW(trainable(alignment), 1e-2), []
    for _ in range(30):
        loss = alignment({"loss": jt.zeros(1)}, tokens, image)["loss"]
        optimizer.step(
            dict(zip(optimizer.parameters, jt.grad(loss, list(optimizer.parameters.values()))))
        )
        seen.append(loss.item())
    assert seen[-1] < 0.5 * seen[0]


@pytest.mark.parametrize(
    "height, tokens, words",
    [(20, 6, "24x20; expected multiples of the patch, 8"), (16, 5, "expected equal shapes")],
)
def test_what_does_not_match_is_refused(encoder, height, tokens, words):
    with pytest.raises(ValueError, match="REPA: .*" + words):
        alignment = Alignment(encoder, WIDTH, PATCH, 0.5, 24, 7)
        alignment(
            {"loss": jt.zeros(1)}, jt.array(drawn(1, 1, tokens, WIDTH)), drawn(2, 1, 3, height, 24)
        )
