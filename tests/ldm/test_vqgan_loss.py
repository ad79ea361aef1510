import dataclasses
import functools

import numpy as np
import pytest

from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.discriminator import Discriminator
from jseg.ldm.presets import AUTOENCODERS
from jseg.ldm.vqgan_loss import (
    adaptive_weight,
    autoencoder_loss,
    codebook_use,
    discriminator_loss,
    hinge,
    squared_error,
    with_gradient,
)
from jseg.parity.stand_in import value
from jseg.runtime import jt
from jseg.training.loop import TrainedNetwork, accumulate, train
from jseg.training.optimizer import AdamW, trainable

SIZE, SCALE = 24, 4


def network(fresh=False):
    return made() if fresh else shared()


def made():
    with jt.enable_grad():  # the first to ask may stand under no_grad
        return filled()


def filled():
    autoencoder = Autoencoder(dataclasses.replace(AUTOENCODERS["tiny"], codebook_size=16))
    for name, v in autoencoder.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
    autoencoder.quantize.embedding.weight.assign(
        jt.array(np.random.default_rng(4).standard_normal((16, 3)).astype(np.float32))
    )
    autoencoder.train()
    return autoencoder


shared = functools.lru_cache(maxsize=None)(made)


@functools.lru_cache(maxsize=None)
def discriminator():
    """Narrow, with weights large enough for its opinion to matter."""
    network, rng = Discriminator(16), np.random.default_rng(3)
    for v in network.state_dict().values():
        v.assign(
            jt.array(
                (rng.standard_normal(v.shape) * (0.15 if v.ndim == 4 else 0.5)).astype(np.float32)
            )
        )
    return network


def images(count=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, SIZE, SIZE)).astype(np.float32)


def batch(count=2, seed=0, step=0):
    return {"images": images(count, seed), "step": step}


def numbers(found):
    return {name: float(v.item()) for name, v in found.items()}


def parts_of(made):
    """z, e as float64 rows and codes, of a reconstruction."""
    rows = [
        v.numpy().astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 3)
        for v in (made.z, made.quantized)
    ]
    return rows + [made.codes.numpy().reshape(-1)]


@pytest.mark.parametrize(
    "weights", [dict(), dict(commitment=0.25, codebook=1.0)], ids=["vq-f4", "paper"]
)
def test_the_loss_is_l1_and_both_sides_of_the_codebook(weights):
    with jt.no_grad():
        made = network().reconstruct(jt.array(images()))
    z, entries, _ = parts_of(made)
    l1, error = (
        np.abs(made.image.numpy().astype(np.float64) - images()).mean(),
        ((z - entries) ** 2).mean(),
    )
    found = numbers(autoencoder_loss(network(), **weights)(batch()))
    assert found["l1"] == pytest.approx(l1, rel=1e-5) and found["codebook"] == pytest.approx(
        1.25 * error, rel=1e-5
    )
    assert found["loss"] == pytest.approx(l1 + 1.25 * error, rel=1e-5)
    assert sorted(found) == ["codebook", "codes_used", "l1", "loss", "perplexity"]


@pytest.mark.parametrize("codebook", [0.25, 1.0])
def test_entries_move_towards_the_latents_they_stand_for_and_by_nothing_else(codebook):
    """VectorQuantizer2's gradient: the weight times 2 / (n D) times the sum of e - z over an
    entry's positions; nothing by the decoder.
    """
    weight = network().quantize.embedding.weight
    gradient = jt.grad(
        autoencoder_loss(network(), codebook=codebook)(batch())["loss"], weight
    ).numpy()
    z, entries, codes = parts_of(network().reconstruct(jt.array(images())))
    expected = np.zeros((16, 3))
    np.add.at(expected, codes, codebook * 2 / z.size * (entries - z))
    assert 1 < len(set(codes)) < 16
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert (gradient[sorted(set(range(16)) - set(codes))] == 0).all()


def test_gradients_are_finite_differences_with_quantiser_and_stop_gradients_held():
    """Held at their values, rounding to entries and stop-gradients make the loss differentiable,
    with this very gradient.
    """
    autoencoder, x = network(fresh=True), jt.array(images())
    state = trainable(autoencoder)
    names = list(state)
    gradients = [
        g.numpy().astype(np.float64)
        for g in jt.grad(autoencoder_loss(autoencoder)(batch())["loss"], list(state.values()))
    ]
    z, entries, codes = parts_of(autoencoder.reconstruct(x))
    values = {name: v.numpy() for name, v in state.items()}

    def held():
        with jt.no_grad():
            latents = autoencoder.encode(x)
            offset = jt.array(
                (entries - z)
                .astype(np.float32)
                .reshape(2, SIZE // SCALE, SIZE // SCALE, 3)
                .transpose(0, 3, 1, 2)
            )
            image = (
                autoencoder.decoder(autoencoder.post_quant_conv(latents + offset))
                .numpy()
                .astype(np.float64)
            )
        moved = latents.numpy().astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 3)
        book = autoencoder.quantize.embedding.weight.numpy().astype(np.float64)
        return (
            np.abs(image - images()).mean()
            + ((moved - entries) ** 2).mean()
            + 0.25 * ((z - book[codes]) ** 2).mean()
        )

    for prefix in ("encoder.", "quant_conv.", "quantize.", "post_quant_conv.", "decoder."):
        chosen = [(name, g) for name, g in zip(names, gradients) if name.startswith(prefix)]
        size = np.sqrt(sum((g**2).sum() for _, g in chosen))
        step, ends = 2e-3 / max(size, 1), []
        for sign in (1, -1):
            for name, g in chosen:
                state[name].update(
                    jt.array((values[name] + sign * step * g / size).astype(np.float32))
                )
            ends.append(held())
        for name, _ in chosen:
            state[name].update(jt.array(values[name]))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(size, rel=0.02), prefix


def test_the_critic_s_term_has_vq_gan_s_weight_and_gradient():
    """Against the formula as it is written: weight from the two terms' own gradients at the last
    layer, then plain back-propagation.
    """
    autoencoder, parameters = network(), list(trainable(network()).values())
    last = autoencoder.decoder.conv_out.weight
    x = jt.array(images())
    made = autoencoder.reconstruct(x)
    l1, deception = (x - made.image).abs().mean(), -discriminator()(made.image).mean()
    norms = [
        np.linalg.norm(jt.grad(term, last).numpy().astype(np.float64)) for term in (l1, deception)
    ]
    weight = 0.75 * norms[0] / (norms[1] + 1e-4)
    z, entries = made.z, made.quantized
    quantisation = squared_error(z, entries.detach()) + 0.25 * squared_error(entries, z.detach())
    expected = jt.grad(l1 + float(weight) * deception + quantisation, parameters)

    found = autoencoder_loss(autoencoder, discriminator())(batch())
    logged = numbers(found)
    assert logged["weight"] == pytest.approx(weight, rel=1e-4) and logged[
        "deception"
    ] == pytest.approx(deception.item(), rel=1e-4)
    assert logged["loss"] == pytest.approx(
        l1.item() + weight * deception.item() + quantisation.item(), rel=1e-4
    )
    plain = [g.numpy() for g in jt.grad(l1 + quantisation, parameters)]
    for ours, theirs, without in zip(jt.grad(found["loss"], parameters), expected, plain):
        theirs = theirs.numpy()
        np.testing.assert_allclose(
            ours.numpy(), theirs, rtol=1e-3, atol=1e-5 * max(1e-2, np.abs(theirs).max())
        )
    assert np.abs(theirs - without).max() > 1e-3  # the term matters


def test_the_weight_is_clamped():
    layer = jt.array(np.array([[2.0, 1.0]], np.float32))
    image = layer * 3.0
    pulls = [
        jt.array(np.array([[3.0, 4.0]], np.float32)),
        jt.array(np.array([[0.0, 1.0]], np.float32)),
    ]
    weight = adaptive_weight(image, *pulls, layer)
    assert weight.item() == pytest.approx(15 / 3.0001, rel=1e-6)
    assert adaptive_weight(image, pulls[0], pulls[1] * 0.0, layer).item() == 1e4


def test_with_gradient_keeps_the_value_and_has_the_gradient():
    x = jt.array(np.array([1.5, -2.0], np.float32))
    given = jt.array(np.array([7.0, 0.25], np.float32))
    y = with_gradient((x * x).sum(), x, given)
    assert y.item() == 6.25 and jt.grad(y, x).numpy().tolist() == [7.0, 0.25]


def test_the_critic_comes_in_at_its_step():
    loss = autoencoder_loss(network(), discriminator(), discriminator_start=5)
    assert "weight" not in loss(batch(step=4)) and "weight" in loss(batch(step=5))


def test_hinge_loss():
    real, fake = (np.array(v, np.float32) for v in ([2.0, 0.5, -1.0], [-3.0, 0.25]))
    expected = ((0 + 0.5 + 2) / 3 + (0 + 1.25) / 2) / 2
    assert hinge(jt.array(real), jt.array(fake)).item() == pytest.approx(expected)


def test_the_critic_s_loss_moves_the_critic_alone():
    found = discriminator_loss(network(), discriminator())(batch())
    x = jt.array(images())
    with jt.no_grad():
        real, fake = (discriminator()(v).numpy() for v in (x, network().reconstruct(x).image))
    logged = numbers(found)
    assert logged["real"] == pytest.approx(real.mean(), rel=1e-4) and logged[
        "fake"
    ] == pytest.approx(fake.mean(), rel=1e-4)
    assert logged["loss"] == pytest.approx(
        (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()) / 2, rel=1e-4
    )
    gradients = jt.grad(
        found["loss"], [discriminator().main[0].weight, network().decoder.conv_out.weight]
    )
    assert np.abs(gradients[0].numpy()).max() > 0 and np.abs(gradients[1].numpy()).max() == 0


def test_the_perceptual_distance_is_part_of_the_reconstruction():
    def distance(reference, image):
        return ((reference - image) * (reference - image)).mean((1, 2, 3))

    plain, found = (
        numbers(autoencoder_loss(network(), lpips=lpips, perceptual=2.0)(batch()))
        for lpips in (None, distance)
    )
    assert found["lpips"] > 0.01 and found["loss"] == pytest.approx(
        plain["loss"] + 2 * found["lpips"], rel=1e-5
    )


def test_codebook_use():
    found = numbers(
        codebook_use(jt.array(np.array([[[0, 0], [3, 3]], [[3, 3], [0, 0]]], np.int32)), 8)
    )
    assert found == {"codes_used": 0.25, "perplexity": pytest.approx(2.0, rel=1e-5)}
    share = np.array([6, 1, 1]) / 8
    found = numbers(codebook_use(jt.array(np.array([0, 0, 0, 0, 0, 0, 5, 2], np.int32)), 8))
    assert found["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


def test_micro_batches_add_up_to_the_whole_batch():
    autoencoder = network()
    part = TrainedNetwork(
        "", autoencoder, autoencoder_loss(autoencoder), AdamW(trainable(autoencoder), 1e-3)
    )
    x = images(4)
    whole, losses = accumulate(part, [({"images": x, "step": 0}, 1.0)])
    halves, summed = accumulate(
        part, [({"images": x[:3], "step": 0}, 0.75), ({"images": x[3:], "step": 0}, 0.25)]
    )
    assert summed["loss"] == pytest.approx(losses["loss"], rel=1e-5)
    for a, b in zip(whole, halves):
        a = a.numpy()
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-3, atol=2e-5 * max(1e-2, np.abs(a).max()))


def test_the_same_step_twice_is_the_same_to_the_last_bit():
    autoencoder = network()
    part = TrainedNetwork(
        "",
        autoencoder,
        autoencoder_loss(autoencoder, discriminator()),
        AdamW(trainable(autoencoder), 1e-3),
    )
    once, again = (accumulate(part, [(batch(), 1.0)])[0] for _ in range(2))
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(once, again))


def test_training_both_lowers_the_error():
    autoencoder, opponent = network(fresh=True), Discriminator(16)
    parts = [
        TrainedNetwork(
            "",
            autoencoder,
            autoencoder_loss(autoencoder, opponent, discriminator_start=6),
            AdamW(trainable(autoencoder), 3e-3),
        ),
        TrainedNetwork(
            "discriminator",
            opponent,
            discriminator_loss(autoencoder, opponent),
            AdamW(trainable(opponent), 1e-3),
            start_step=6,
        ),
    ]
    updates = list(train(parts, lambda step: [(batch(step=step), 1.0)], 10))
    assert updates[-1].losses["l1"] < 0.8 * updates[0].losses["l1"]
    assert (
        "discriminator/loss" in updates[-1].losses and "discriminator/loss" not in updates[0].losses
    )
