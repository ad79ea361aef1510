import dataclasses

import numpy as np
import pytest
from support.golden_networks import (
    SMALL_AUTOENCODER,
    difference,
    golden,
    layout_of,
    release_layout,
    small_autoencoder,
)

from jseg.ldm import autoencoder, strips
from jseg.ldm.halo import with_halo
from jseg.ldm.presets import AUTOENCODERS
from jseg.nn.layers import GroupNorm
from jseg.runtime import jt

STRIPS = {
    "whole": 16 << 20,
    "strips": 40000,
}  # bytes; the second cuts every map of the small network


@pytest.fixture(params=sorted(STRIPS))
def cut(request, monkeypatch):
    monkeypatch.setitem(strips.STRIP_BYTES, "cpu", STRIPS[request.param])
    return request.param


def test_full_size_layout_is_the_releases():
    ours = layout_of(autoencoder.Autoencoder(AUTOENCODERS["release"]))
    theirs = release_layout("autoencoder")
    assert ours == theirs and len(ours) == 205


def test_encode_codes_and_decode_are_the_releases(cut):
    arrays, ae = golden("autoencoder_small.npz"), small_autoencoder()
    latent = jt.array(arrays["latent"])
    with jt.no_grad():
        assert difference(ae.encode(jt.array(arrays["image"])), arrays["latent"]) < 1e-4
        assert (ae.codes(latent).numpy().reshape(-1) == arrays["codes"]).all()
        assert difference(ae.quantized(latent), arrays["quantised"]) < 1e-6
        assert difference(ae.decode(latent), arrays["decoded"]) < 1e-4
        assert difference(ae.decode(latent, quantize=False), arrays["decoded_unquantised"]) < 1e-4


def test_strips_are_really_cut_and_stay_within_the_budget(monkeypatch):
    seen = []
    settle = strips.settle
    monkeypatch.setattr(
        strips, "settle", lambda x: (seen.append(int(np.prod(x.shape)) * 4), settle(x))[1]
    )
    arrays, ae = golden("autoencoder_small.npz"), small_autoencoder()
    with jt.no_grad():
        ae.decode(jt.array(arrays["latent"]))
        whole = max(seen)
        seen.clear()
        monkeypatch.setitem(strips.STRIP_BYTES, "cpu", 100000)
        ae.decode(jt.array(arrays["latent"]))
    assert whole > 500000 and max(seen) <= 200000  # the coarsest map [2, 128, 12, 16] is never cut


def test_statistics_over_strips_keep_their_digits():
    """Of a map as large as the encoder's first: 98,304 numbers a group and strip, summed in float32
    without care, lose three digits.
    """
    x = (np.random.default_rng(0).standard_normal((1, 32, 384, 512)) + 3).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((2, 3), keepdims=True)) / np.sqrt(
        exact.var((2, 3), keepdims=True) + 1e-6
    )
    pieces = [jt.array(x[:, :, :192]), jt.array(x[:, :, 192:])]
    with jt.no_grad():
        coefficients = strips.normalization(GroupNorm(32, 32, 1e-6), pieces)
        found = [
            with_halo(pieces, i, coefficients, above=0, below=0).numpy() for i in range(len(pieces))
        ]
    assert np.abs(np.concatenate(found, axis=2) - exact / (1 + np.exp(-exact))).max() < 2e-6


def test_codes_are_the_nearest_entries():
    ae = small_autoencoder()
    z = np.random.default_rng(2).standard_normal((1, 3, 4, 6)).astype(np.float32)
    entries = ae.quantize.embedding.weight.numpy().astype(np.float64)
    distance = ((z[0].reshape(3, -1).T[:, None].astype(np.float64) - entries[None]) ** 2).sum(-1)
    with jt.no_grad():
        codes = ae.codes(jt.array(z)).numpy()
    assert codes.shape == (1, 4, 6) and (codes.reshape(-1) == distance.argmin(1)).all()


def test_gradients_flow_through_the_uncut_network():
    ae, x = small_autoencoder(), jt.array(golden("autoencoder_small.npz")["image"][:1, :, :16, :16])
    ae.train()
    gradients = jt.grad(
        (ae.decode(ae.encode(x), quantize=False) ** 2).sum(),
        [ae.encoder.conv_in.weight, ae.decoder.conv_out.bias],
    )
    assert all(np.isfinite(g.numpy()).all() and np.abs(g.numpy()).max() > 0 for g in gradients)
    ae.eval()


def test_reconstruct_passes_the_gradient_straight_through_the_quantiser():
    ae, x = small_autoencoder(), jt.array(golden("autoencoder_small.npz")["image"][:1, :, :16, :16])
    ae.train()
    made = ae.reconstruct(x)
    z = made.z.numpy()
    assert difference(ae.encode(x), z) < 1e-5
    assert (ae.codes(jt.array(z)).numpy() == made.codes.numpy()).all()
    assert difference(made.quantized, ae.quantized(jt.array(z)).numpy()) < 1e-6
    assert difference(made.quantized, z) > 1e-3
    # The decoder sees the entries.
    assert difference(ae.decode(jt.array(z)), made.image.numpy()) < 1e-4
    latents = jt.array(made.quantized.numpy())
    at_entries = jt.grad((ae.decode(latents, quantize=False) ** 2).sum(), latents).numpy()
    through, entries = jt.grad((made.image**2).sum(), [made.z, ae.quantize.embedding.weight])
    assert difference(through, at_entries) < 1e-4 and np.abs(at_entries).max() > 0.01
    assert np.abs(entries.numpy()).max() == 0  # nothing moves the codebook but its loss
    ae.eval()


def test_wrong_shapes_are_refused():
    ae = small_autoencoder()
    with pytest.raises(ValueError, match="multiples of 4"):
        ae.encode(jt.zeros((1, 3, 18, 16)))
    with pytest.raises(ValueError, match=r"expected \[B, 3, h, w\]"):
        ae.decode(jt.zeros((1, 4, 8, 8)))
    assert ae.config == SMALL_AUTOENCODER


def test_integer_keys_of_a_module_list_mean_positions():
    """Why the release's decoder crashes on this Jittor: filled under 2, 1, 0, its ModuleList
    answers `[2]` with the module named "0".
    """
    modules = jt.nn.ModuleList()
    for i in (2, 1, 0):
        modules.add_module(i, jt.nn.Linear(1, i + 1))
    assert list(modules.layers) == ["2", "1", "0"] and modules[2].weight.shape[0] == 1


def test_groups_are_those_of_the_configuration():
    for groups in (32, 8):
        ae = autoencoder.Autoencoder(dataclasses.replace(AUTOENCODERS["tiny"], groups=groups))
        assert {norm.groups for norm in ae.modules() if isinstance(norm, GroupNorm)} == {groups}
    for preset in ("release", "landscape"):
        channels_per_group = AUTOENCODERS[preset].channels // AUTOENCODERS[preset].groups
        assert channels_per_group >= 4, "with one channel a group, an image's mean colour is lost"
