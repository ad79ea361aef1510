import dataclasses

import numpy as np
import pytest

from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.presets import AUTOENCODERS
from jseg.ldm.whitening import balancing_rotation, encoded, standardize_latents, start_codebook
from jseg.runtime import jt


def network():
    jt.set_global_seed(1)
    return Autoencoder(dataclasses.replace(AUTOENCODERS["tiny"], codebook_size=64))


def images(count=3):
    rows, columns = np.mgrid[:24, :24] / 12 - 1
    rng = np.random.default_rng(0)
    return np.clip(
        [
            [
                a * rows + b * columns + 0.2 * rng.standard_normal((24, 24))
                for a, b in rng.uniform(-1, 1, (3, 2))
            ]
            for _ in range(count)
        ],
        -1,
        1,
    ).astype(np.float32)


def test_the_start_has_unit_latents_and_uses_every_entry():
    autoencoder, x = network(), images()
    before = encoded(autoencoder, x, autoencoder.encode)
    with jt.no_grad():
        used = len(
            set(autoencoder.codes(autoencoder.encode(jt.array(x))).numpy().reshape(-1).tolist())
        )
    start_codebook(autoencoder, x, seed=0)
    after = encoded(autoencoder, x, autoencoder.encode)
    np.testing.assert_allclose(after.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(after, rowvar=False, bias=True), np.eye(3), atol=1e-3)
    assert before.std(0).max() < 0.5 and used <= 16  # what it is for
    with jt.no_grad():
        codes = autoencoder.codes(autoencoder.encode(jt.array(x))).numpy()
    assert len(set(codes.reshape(-1).tolist())) == 64
    entries = autoencoder.quantize.embedding.weight.numpy()
    assert np.abs(after[:, None] - entries[None]).max(-1).min(0).max() < 1e-3  # each is a latent
    assert all(not v.is_stop_grad() for v in autoencoder.parameters())  # and all can be trained


def test_the_seed_chooses_the_entries_and_the_network_stays_otherwise():
    books, kept = [], []
    for seed in (0, 0, 1):
        autoencoder = network()
        start_codebook(autoencoder, images(), seed)
        books.append(autoencoder.quantize.embedding.weight.numpy())
        kept.append(autoencoder.encoder.conv_in.weight.numpy())
    assert (books[0] == books[1]).all()
    assert (books[0] != books[2]).any()
    assert (kept[0] == kept[2]).all()


def test_too_few_latents_are_refused_with_the_number_needed():
    autoencoder, x = network(), images(1)
    weight = autoencoder.quant_conv.weight.numpy()
    with pytest.raises(ValueError, match="1 image has 36; give at least 2 images"):
        start_codebook(autoencoder, x)
    assert (autoencoder.quant_conv.weight.numpy() == weight).all()


def test_standard_latents_change_no_reconstruction():
    autoencoder, x = network(), images()
    rng = np.random.default_rng(2)
    start_codebook(autoencoder, x)
    mixing = np.array([[0.3, 0.2, 0.0], [0.1, 0.9, -0.3], [0.0, 0.2, 0.15]], np.float32)
    autoencoder.quant_conv.weight.assign(jt.array(mixing.reshape(3, 3, 1, 1)))
    autoencoder.quantize.embedding.weight.assign(
        jt.array(rng.standard_normal((64, 3)).astype(np.float32))
    )
    with jt.no_grad():
        before = autoencoder.reconstruct(jt.array(x))
    spread = encoded(autoencoder, x, autoencoder.encode)
    scale = standardize_latents(autoencoder, x)
    assert scale == pytest.approx(np.sqrt(spread.var(0).mean()), rel=1e-4)
    with jt.no_grad():
        after = autoencoder.reconstruct(jt.array(x))
    z = encoded(autoencoder, x, autoencoder.encode)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.var(0), 1, atol=1e-3)
    assert (
        before.codes.numpy() == after.codes.numpy()
    ).mean() > 0.98  # but for ties within rounding
    np.testing.assert_allclose(
        autoencoder.decode(after.quantized, quantize=False).numpy(),
        autoencoder.decode(after.z).numpy(),
        atol=1e-5,
    )
    same = (before.codes.numpy() == after.codes.numpy()).all((1, 2))
    assert same.any()
    np.testing.assert_allclose(after.image.numpy()[same], before.image.numpy()[same], atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_the_rotation_makes_all_variances_equal(size):
    rng = np.random.default_rng(size)
    for _ in range(20):
        factor = rng.standard_normal((size, size)) * rng.uniform(0.01, 3, size)
        covariance = factor @ factor.T
        rotation = balancing_rotation(covariance)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(size), atol=1e-12)
        np.testing.assert_allclose(
            np.diag(rotation @ covariance @ rotation.T), np.trace(covariance) / size, rtol=1e-9
        )
    np.testing.assert_allclose(balancing_rotation(np.eye(size)), np.eye(size))
