import dataclasses

import numpy as np
import pytest
from support.golden_networks import (
    difference,
    filled,
    golden,
    layout_of,
    release_layout,
    small_unet,
)

from jseg.ldm import modulations
from jseg.ldm.blocks import AttentionBlock, LabelMaps, SpadeNorm
from jseg.ldm.presets import UNETS
from jseg.ldm.samplers import guided
from jseg.ldm.unet import UNet
from jseg.nn.dropout import seed_dropout
from jseg.nn.layers import GroupNorm, one_hot
from jseg.runtime import jt
from jseg.training.optimizer import trainable


def inputs():
    arrays = golden("unet_small.npz")
    return arrays, jt.array(arrays["x"]), jt.array(arrays["t"]), one_hot(arrays["label"][:, 0], 29)


def test_full_size_layout_is_the_releases():
    ours, theirs = layout_of(UNet(UNETS["release"])), release_layout("unet")
    assert ours == theirs and len(ours) == 660
    assert sum(int(np.prod(shape)) for shape in ours.values()) == 501540358


def test_output_is_the_releases_with_and_without_a_map():
    arrays, x, t, y = inputs()
    with jt.no_grad():
        assert difference(small_unet()(x, t, y), arrays["out"]) < 1e-4
        assert difference(small_unet()(x, t, jt.zeros(y.shape)), arrays["out_null"]) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_guidance_with_shared_work_equals_two_plain_forwards(scale):
    arrays, x, t, y = inputs()
    conditional, null = arrays["out"][:, :3], arrays["out_null"][:, :3]
    ours = guided(small_unet(), y, scale)(x, t)
    assert difference(ours, null + scale * (conditional - null)) < 1e-4


def test_guidance_shares_the_encoder_and_computes_no_modulations_or_variance(monkeypatch):
    _, x, t, y = inputs()
    unet, calls = small_unet(), {"condition": 0, "encode": [], "decode": []}
    condition, encode, decode = SpadeNorm.condition, UNet.encode, UNet.decode

    def counted_condition(self, y):
        calls["condition"] += 1
        return condition(self, y)

    monkeypatch.setattr(SpadeNorm, "condition", counted_condition)
    monkeypatch.setattr(
        UNet,
        "encode",
        lambda self, x, t: (calls["encode"].append(x.shape[0]), encode(self, x, t))[1],
    )

    def counted(self, *args, **options):
        out = decode(self, *args, **options)
        calls["decode"].append(tuple(out.shape[:2]))
        return out

    monkeypatch.setattr(UNet, "decode", counted)
    predictor = guided(unet, y, 3.5)
    assert calls["condition"] == 2 * 42  # 42 SPADE norms, for the maps and for the null map
    predictor(x, t).sync()
    predictor(x, t).sync()
    assert calls == {"condition": 84, "encode": [2, 2], "decode": [(4, 3), (4, 3)]}


def tiny_inputs():
    rng = np.random.default_rng(0)
    return (
        jt.array(rng.standard_normal((2, 3, 12, 16)).astype(np.float32)),
        np.array([5, 900], np.int32),
        one_hot(rng.integers(0, 29, (2, 12, 16)), 29),
    )


def test_a_new_network_predicts_zero_as_sdm_does_not_as_the_release():
    with jt.no_grad():
        assert np.abs(UNet(UNETS["tiny"])(*tiny_inputs()).numpy()).max() == 0
        assert np.abs(UNet(UNETS["tiny"], zero_init=False)(*tiny_inputs()).numpy()).max() > 0.01


def test_every_last_layer_starts_at_zero_and_no_other():
    """One per residual block, attention block and network; the release's zero_module leaves them as
    they are.
    """

    def zeros(unet):
        return {
            name.rsplit(".", 1)[0]
            for name, v in unet.state_dict().items()
            if name.endswith("weight") and np.abs(v.numpy()).max() == 0
        }

    names = {name.rsplit(".", 1)[0] for name in UNet(UNETS["tiny"]).state_dict()}
    last = {name for name in names if name.endswith(".proj_out") or name == "out.2"}
    last |= {
        name
        for name in names
        if name.endswith("out_layers.3")
        or (name.endswith("out_layers.2") and f"{name[:-1]}3" not in names)
    }
    assert zeros(UNet(UNETS["tiny"])) == last and len(last) == 15
    assert zeros(UNet(UNETS["tiny"], zero_init=False)) == set()


@pytest.mark.parametrize("dropout, small_level", [(0.0, 2), (0.2, 2), (0.0, 1)])
def test_recomputing_changes_no_gradient_and_keeps_no_large_modulations(
    dropout, small_level, monkeypatch
):
    monkeypatch.setattr("jseg.ldm.unet.SMALL_LEVEL", small_level)
    unet = filled(UNet(dataclasses.replace(UNETS["tiny"], dropout=dropout)))
    unet.train()
    parameters, conditions, condition = list(trainable(unet).values()), [], SpadeNorm.condition
    monkeypatch.setattr(
        SpadeNorm,
        "condition",
        lambda self, y: (conditions.append(jt.flags.no_grad), condition(self, y))[1],
    )
    found = {}
    for unet.recompute in (False, True):
        seed_dropout(0, 1)
        x, t, y = tiny_inputs()
        loss = (unet(x, t, y) ** 2).mean()
        found[unet.recompute] = [
            gradient.numpy() for gradient in jt.grad(loss, [x] + parameters, retain_graph=False)
        ]
    # The plain run; recomputed: forward without gradients, then backward.
    small = 8 if small_level == 1 else 0  # norms of 6x8 maps
    assert conditions == [0] * 14 + [0] * small + [1] * (14 - small) + [0] * (14 - small)
    largest = max(np.abs(gradient).max() for gradient in found[False])
    for plain, again in zip(found[False], found[True]):
        assert np.abs(plain - again).max() < 1e-5 * np.abs(plain).max() + 1e-7 * largest


def test_ignored_pixels_condition_on_nothing():
    arrays, x, t, _ = inputs()
    with jt.no_grad():
        ours = small_unet()(x, t, one_hot(np.full((2, 32, 48), 255), 29))
    assert difference(ours, arrays["out_null"]) < 1e-4


def test_wrong_inputs_are_refused():
    _, x, t, y = inputs()
    with pytest.raises(ValueError, match="multiples of 16"):
        small_unet()(x[:, :, :20], t, y[:, :, :20])
    with pytest.raises(ValueError, match="29 classes"):
        small_unet().condition(y[:, :20])
    with pytest.raises(ValueError, match="do not divide into heads"):
        AttentionBlock(96, UNETS["release"])
    with pytest.raises(ValueError, match="timestep"):
        small_unet().encode(x, np.array([3, 1000]))


def test_groups_are_those_of_the_configuration():
    for groups in (32, 16):
        unet = UNet(dataclasses.replace(UNETS["tiny"], groups=groups))
        assert {norm.groups for norm in unet.modules() if isinstance(norm, GroupNorm)} == {groups}


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (3, 4), (6, 8)])
def test_nine_positions_stand_for_the_null_map(height, width):
    block = small_unet().conditioned_blocks()[-1]
    nothing = jt.zeros((1, 29, height, width))
    with jt.no_grad():
        expected = block.condition(nothing, nothing)
        (entry,) = modulations.with_null(OneBlock(block), nothing, [expected])
        for norm, plain in zip(entry.kept, expected):
            for both, null in zip(norm, plain):
                assert both.shape[0] == 2 and np.array_equal(both[:1].numpy(), null.numpy())
                assert difference(both[1:], null.numpy()) < 1e-6


def test_the_null_map_s_modulations_are_kept_once_and_give_the_same_noise():
    _, x, t, y = inputs()
    unet = small_unet()
    with jt.no_grad():
        alone = unet.condition(y)
        both = unet.with_null(y, alone)
        assert [entry.batch for entry in both] == [4] * len(both)
        assert all(v.shape[0] == 3 for v in modulations.variables(both))

        # The same with the null map's behind every label map's.
        rows = [0, 1, 2, 2]
        repeated = [[[v[rows] for v in norm] for norm in entry.kept] for entry in both]
        features = unet.encode(x, t)
        expected = unet.decode(features, repeated)
        assert np.array_equal(unet.decode(features, both).numpy(), expected.numpy())


class OneBlock:
    """A network of one conditioned block, whose map has its own size at both norms."""

    def __init__(self, block):
        self.block = block

    def conditioned_blocks(self):
        return [self.block]

    def label_maps(self, y):
        return [LabelMaps(y, y)]


@pytest.mark.parametrize("scale, interval", [(1.0, (0, 999)), (3.5, (0, 999)), (3.5, (500, 999))])
def test_little_memory_changes_no_bit(scale, interval, monkeypatch):
    """Two label maps at a time, of blocks with large maps and with small ones."""
    monkeypatch.setattr(modulations, "KEPT_POSITIONS", 24)
    _, x, t, y = inputs()
    unet, kinds = small_unet(), [type(entry) for entry in small_unet().condition(y, low=True)]
    assert 0 < kinds.count(modulations.OnDemand) < len(kinds)
    full, low = (guided(unet, y, scale, interval, memory) for memory in (False, True))
    for times in (t, np.array([499, 500]), np.array([2, 3])):
        assert np.array_equal(low(x, times).numpy(), full(x, times).numpy())
        assert np.array_equal(low(x, times).numpy(), full(x, times).numpy()), "nor the second time"


def test_little_memory_keeps_label_maps_and_nine_positions_in_place_of_modulations(monkeypatch):
    monkeypatch.setattr(modulations, "KEPT_POSITIONS", 0)
    _, _, _, y = inputs()
    unet = small_unet()
    entries = unet.with_null(y, unet.condition(y, low=True))
    assert [entry.batch for entry in entries] == [4] * len(entries)
    for v in modulations.variables(entries):
        assert v.shape[1] == 29 or (v.shape[0], max(v.shape[2:])) == (1, 3)
