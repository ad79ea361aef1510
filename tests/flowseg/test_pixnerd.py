"""PixNerd against the official class, against itself in runs and with recompute, and its files."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from support.golden_networks import GOLDEN, difference, filled, golden, layout_of
from support.refusals import refusal

from jseg import checkpoint
from jseg.checkpoint import CheckpointError, load_config, load_into, save
from jseg.flowseg import neural_field
from jseg.flowseg.pixnerd import PixNerd, load_pretrained
from jseg.flowseg.presets import NETWORKS
from jseg.flowseg.state_dict import IMAGE_LAYERS
from jseg.parity.stand_in import fill
from jseg.runtime import jt

# The network of pixnerd_small.npz.
SMALL = dataclasses.replace(
    NETWORKS["pixnerd-L/16"],
    hidden_size=64,
    heads=4,
    depth=2,
    pixel_blocks=1,
    pixel_channels=16,
    patch=8,
    classes=10,
)
FED = dataclasses.replace(SMALL, source="noise")


def small(config=SMALL):
    network = filled(PixNerd(config))
    network.train()
    return network


def inputs(batch=2):
    arrays = dict(golden("pixnerd_small.npz"))
    return arrays, jt.array(arrays["x"][:batch]), jt.array(arrays["t"][:batch])


def output(network, *inputs, **options):
    with jt.no_grad():
        return network(*inputs, **options).numpy()


def gradients(network, *inputs):
    """The output, and the gradients of its squares to the first input and to all parameters."""
    out = network(*inputs)
    targets = [inputs[0], *network.state_dict().values()]
    arrays = jt.grad((out * out).sum(), targets, retain_graph=False)
    return [array.numpy() for array in [out, *arrays]]


def worst(arrays, expected):
    """The largest difference, of each array in units of its largest value."""
    assert len(arrays) == len(expected)
    return max(difference(a, b) for a, b in zip(arrays, expected) if np.abs(b).max() > 1e-6)


def in_runs_of(patches, network, monkeypatch):
    values = network._field[0].values_per_patch
    monkeypatch.setattr(neural_field, "CHUNK_BYTES", 4 * patches * values)


# Against the official class
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, official, tensors, parameters",
    [("pixnerd-L/16", "L/16", 282, 452113795), ("pixnerd-XL/16", "XL/16", 336, 700589219)],
)
def test_published_sizes_have_the_official_layout(name, official, tensors, parameters):
    ours = layout_of(PixNerd(NETWORKS[name]))
    theirs = json.loads((GOLDEN / "pixnerd_layout.json").read_text())[official]
    assert ours == theirs and len(ours) == tensors
    assert sum(int(np.prod(shape)) for shape in ours.values()) == parameters


def test_output_and_gradient_are_the_official_ones():
    arrays, x, t = inputs()
    network = small()
    assert layout_of(network) == json.loads(str(arrays["layout"]))
    out = network(x, t, labels=arrays["y"])
    gradient = jt.grad((out * out).sum(), x)
    assert difference(out, arrays["out"]) < 1e-5 and difference(gradient, arrays["grad_x"]) < 1e-5


def test_no_labels_are_the_null_class():
    arrays, x, t = inputs()
    network = small()
    null = output(network, x, t, labels=np.array([10, 10]))
    assert np.array_equal(output(network, x, t), null)
    assert difference(output(network, x, t, labels=jt.array(arrays["y"])), arrays["out"]) < 1e-5
    assert difference(null, arrays["out"]) > 1e-3


# A network of ours
# --------------------------------------------------------------------------------------------------


def test_a_fresh_network_does_nothing_and_is_initialised_as_the_official_one():
    _, x, t = inputs()
    network = PixNerd(SMALL)
    assert SMALL.source == "image" and np.abs(output(network, x, t)).max() == 0
    largest = {name: float(np.abs(v.numpy()).max()) for name, v in network.state_dict().items()}
    assert largest["s_embedder.proj.bias"] == 0
    for name, bound in (
        ("s_embedder.proj.weight", np.sqrt(6 / (192 + 64))),
        ("blocks.0.attn.qkv.weight", 1 / 8),
        ("blocks.2.param_generator1.0.weight", 1 / 8),
    ):
        assert 0.9 < largest[name] / bound <= 1, name
    assert abs(network.y_embedder.embedding_table.weight.numpy().std() - 0.02) < 0.003


def test_a_patch_sees_others_through_tokens_only():
    _, x, t = inputs(1)
    network, changed = small(), x.numpy().copy()
    changed[:, :, 24:, 40:] += 1

    def change():
        return np.abs(output(network, x, t) - output(network, jt.array(changed), t))

    assert change()[:, :, :8, :8].max() > 1e-4
    network.s_embedder.proj.weight.assign(jt.zeros([64, 192]))  # tokens no longer see the image
    assert change()[:, :, :24].max() == 0 and change()[:, :, 24:, 40:].max() > 1e-4


def test_any_multiple_of_the_patch_will_do_and_images_do_not_meet():
    _, x, t = inputs()
    network = small()
    both = output(network, x, t)
    assert difference(output(network, x[1:], t[1:]), both[1:]) < 1e-5
    assert output(network, x[:1, :, :8, :8], t[:1]).shape == (1, 3, 8, 8)
    turned = output(network, x.transpose(0, 1, 3, 2), t)
    assert turned.shape == (2, 3, 48, 32) and np.isfinite(turned).all()


def test_recompute_gives_the_same_gradients_also_in_runs(monkeypatch):
    _, x, t = inputs()
    network = small()
    plain = gradients(network, x, t)
    network.recompute = True
    assert worst(gradients(network, x, t), plain) < 1e-5
    in_runs_of(20, network, monkeypatch)
    assert worst(gradients(network, x, t), plain) < 1e-5


def test_runs_of_patches_change_no_output(monkeypatch):
    _, x, t = inputs()
    network, runs = small(), []
    whole = output(network, x, t)
    execute = neural_field.NeuralField.execute

    def recorded(self, tokens, *rest):
        runs.append(tokens.shape[0])
        return execute(self, tokens, *rest)

    monkeypatch.setattr(neural_field.NeuralField, "execute", recorded)
    in_runs_of(20, network, monkeypatch)
    assert difference(output(network, x, t), whole) < 1e-6 and runs == [20, 20, 8]


def test_tokens_can_be_tapped_for_alignment():
    _, x, t = inputs()
    network = small()
    velocity, tokens = network(x, t, tap=1)
    assert list(tokens.shape) == [2, 24, 64] and difference(velocity, output(network, x, t)) < 1e-6
    weights = [network.blocks[0].mlp.w2.weight, network.s_embedder.proj.weight]
    slopes = jt.grad((tokens * tokens).sum(), weights)
    assert all(np.abs(slope.numpy()).max() > 0 for slope in slopes)
    with pytest.raises(ValueError, match="blocks 1 to 2"):
        network(x, t, tap=3)


# With the image fed in
# ----------------------------------------------------------------------------------------------


def test_layers_for_the_image_exist_where_it_is_fed_in_and_start_at_zero():
    _, x, t = inputs()
    network, plain = PixNerd(FED), small()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    assert set(state) - set(plain.state_dict()) == set(IMAGE_LAYERS)
    assert not any(state[name].any() for name in IMAGE_LAYERS)
    load_into(network, {**state, **fill(layout_of(plain))})
    assert difference(output(network, x, t, x * 2), output(plain, x, t)) < 1e-6


def test_the_image_goes_through_parallel_linear_layers():
    """With the image's layers equal to x_t's, the network sees the sum of both."""
    _, x, t = inputs()
    network, plain = small(FED), small()
    network.c_embedder.proj.weight.assign(plain.s_embedder.proj.weight.copy())
    network.xc_embedder.weight.assign(plain.x_embedder.embedder[0].weight[:, :3])
    image = jt.array(np.random.default_rng(1).uniform(-1, 1, (2, 3, 32, 48)).astype(np.float32))
    expected = output(plain, x + image, t)
    assert difference(output(network, x, t, image), expected) < 1e-5
    with jt.no_grad():
        condition = network.condition(image)
    assert difference(output(network, x, t, condition), expected) < 1e-5
    assert difference(output(plain, x, t), expected) > 1e-2


def test_gradients_with_an_image_are_those_without_recompute(monkeypatch):
    _, x, t = inputs()
    network = small(dataclasses.replace(FED, source="image+noise"))
    plain = gradients(network, x, t, x * 0.5)
    network.recompute = True
    in_runs_of(20, network, monkeypatch)
    assert worst(gradients(network, x, t, x * 0.5), plain) < 1e-5
    slopes = dict(zip(network.state_dict(), plain[2:]))
    assert all(np.abs(slopes[name]).max() > 0 for name in IMAGE_LAYERS)


def test_an_image_that_is_the_source_is_refused_as_an_input():
    _, x, t = inputs()
    blind = dataclasses.replace(SMALL, source="image+noise", image_input=False)  # poor, but allowed
    assert layout_of(PixNerd(blind)) == layout_of(PixNerd(SMALL))
    for refused, words in (
        (lambda: dataclasses.replace(SMALL, image_input=True), "image_input.*nothing is learnt"),
        (lambda: dataclasses.replace(FED, source="image", image_input=True), "image_input"),
        (lambda: dataclasses.replace(SMALL, source="noise", image_input=False), "never sees"),
        (lambda: PixNerd(SMALL)(x, t, x), "starts from the image"),
        (lambda: PixNerd(SMALL).condition(x), "starts from the image"),
        (lambda: PixNerd(blind)(x, t, x), "without image_input"),
    ):
        with pytest.raises(ValueError, match=words):
            refused()


def test_what_does_not_fit_is_refused_in_one_line():
    _, x, t = inputs()
    network, fed = PixNerd(SMALL), PixNerd(FED)
    for refused, words in (
        (lambda: network(x[:, :, :30], t), r"x_t of shape \[2, 3, 30, 48\].*multiples of 8"),
        (lambda: network(x[:, :2], t), "x_t of shape"),
        (lambda: network(x, t[:1]), r"times of shape \[1\]; expected \[2\]"),
        (lambda: network(x, t, labels=[0, 11]), "labels .*0 to 10"),
        (lambda: network(x, t, labels=[0.5, 1]), "labels"),
        (lambda: fed(x, t), "no image given.*'noise'"),
        (lambda: fed(x, t, x[:1]), "a batch of 1 images of 24 patches; x_t is one of 2 of 24"),
        (lambda: fed(x, t, x[:, :, :, :32]), "2 images of 16 patches"),
        (lambda: fed(x, t, x[:, :, :, :30]), "image of shape"),
    ):
        refusal(refused, match=words)


# Configurations and files
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_presets_are_complete(name):
    config = NETWORKS[name]
    assert config.source == "image" and not config.sees_image and config.codes == "kronecker"
    assert config.width % config.patch == 0 and config.height % config.patch == 0
    parameters = sum(v.numel() for v in PixNerd(config).state_dict().values())
    assert parameters < {"small": 3e6, "tiny": 2e5}.get(name, 1e9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "picture"},
        {"heads": 3},
        {"hidden_size": 20, "heads": 2},
        {"patch": 0},
        {"labels": 1},
        {"pixel_blocks": 0},
        {"classes": -1},
    ],
)
def test_configurations_that_do_not_fit_together_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


def test_files_carry_the_configuration(tmp_path):
    path = tmp_path / "network.safetensors"
    config = dataclasses.replace(FED, source="image+noise", labels=29, codes="grid")
    network = PixNerd(config)
    save(path, network.state_dict(), config)
    assert load_config(path) == config
    load_into(PixNerd(load_config(path)), path)
    save(path, {"w": np.zeros(2)}, SMALL)
    with pytest.raises(CheckpointError, match="missing"):
        load_into(network, path)


@pytest.fixture(scope="module")
def lightning(tmp_path_factory):
    """A file as PixNerd's trainer writes it."""
    path = tmp_path_factory.mktemp("files") / "epoch=1-step=2.ckpt"
    state = fill(layout_of(PixNerd(SMALL)))
    tree = {
        "state_dict": {
            **{f"denoiser.{name}": value + 1 for name, value in state.items()},
            **{f"ema_denoiser.{name}": value for name, value in state.items()},
            "diffusion_trainer.proj.0.0.weight": np.zeros((4, 4), np.float32),
        },
        "epoch": 1,
        "global_step": 2,
    }
    path.write_bytes(pickle.dumps(tree))
    return path


def test_official_files_load_with_either_prefix(lightning):
    arrays, x, t = inputs()
    network = PixNerd(SMALL)
    load_into(network, lightning)
    assert difference(output(network, x, t, labels=arrays["y"]), arrays["out"]) < 1e-5
    averaged = network.final_layer.linear.bias.numpy()
    load_into(network, lightning, weights="model")
    assert np.array_equal(network.final_layer.linear.bias.numpy(), averaged + 1)
    assert set(checkpoint.load(lightning)) == set(network.state_dict())


def test_official_weights_start_a_network_that_sees_the_image(lightning):
    arrays, x, t = inputs()
    network = PixNerd(FED)
    with pytest.raises(CheckpointError, match="c_embedder"):
        load_into(network, lightning)
    load_pretrained(network, lightning)
    assert difference(output(network, x, t, x * 3, labels=arrays["y"]), arrays["out"]) < 1e-5
    with pytest.raises(CheckpointError):
        load_pretrained(PixNerd(dataclasses.replace(FED, depth=1)), lightning)
