"""Files of SDM, taming-transformers, latent-diffusion and the release become files of ours,
complete and with their configuration.
"""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support.places import GOLDEN, ROOT

from jseg.checkpoint import load, load_config, load_extra, save, weights_sha256
from jseg.commands import cli, convert_weights
from jseg.configs import looks_like
from jseg.formats.tensor import CheckpointError
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.state_dict import (
    LayoutError,
    Unreadable,
    autoencoder_config,
    autoencoder_shapes,
    unet_config,
    unet_shapes,
)

TINY_VQ, TINY_UNET = AUTOENCODERS["tiny"], UNETS["tiny"]


def release_layout():
    layout = json.loads((GOLDEN / "release_layout.json").read_text())
    return {
        network: {name: tuple(shape) for name, shape in shapes.items()}
        for network, shapes in layout.items()
    }


def filled(shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pickled(name, tree):
    with open(name, "wb") as file:
        pickle.dump(tree, file)
    return name


def convert(capsys, *arguments):
    code = cli.run(convert_weights.main, list(map(str, arguments)))
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *arguments):
    before = sorted(os.listdir("."))
    code, _, err = convert(capsys, *arguments)
    assert code == 2 and err.count("\n") == 1 and err.startswith("jseg convert_weights: ")
    assert sorted(os.listdir(".")) == before
    return err


# Layouts
# --------------------------------------------------------------------------------------------------


def test_the_layouts_are_the_release_s():
    layout = release_layout()
    assert unet_shapes(UNETS["release"]) == layout["unet"] and len(layout["unet"]) == 660
    assert autoencoder_shapes(AUTOENCODERS["release"]) == layout["autoencoder"]
    assert len(layout["autoencoder"]) == 205
    assert sum(int(np.prod(shape)) for shape in layout["unet"].values()) == 501540358


def test_the_configuration_is_read_from_the_shapes():
    assert unet_config(release_layout()["unet"]) == UNETS["release"]
    assert autoencoder_config(release_layout()["autoencoder"]) == AUTOENCODERS["release"]
    variants = [
        *UNETS.values(),
        dataclasses.replace(
            TINY_UNET, channel_mult=(2, 3), blocks=3, attention_downsampling=(1,), head_channels=32
        ),
        dataclasses.replace(TINY_UNET, channel_mult=(1,), attention_downsampling=(), classes=151),
    ]
    for config in variants:
        unreadable = Unreadable(config.head_channels, config.width, config.height, config.groups)
        assert unet_config(unet_shapes(config), unreadable) == config
    for config in [
        *AUTOENCODERS.values(),
        dataclasses.replace(TINY_VQ, latent_channels=4, channel_mult=(1,), picture_channels=1),
    ]:
        assert (
            autoencoder_config(autoencoder_shapes(config), Unreadable(groups=config.groups))
            == config
        )
    for read, shapes in (
        (unet_config, unet_shapes(TINY_UNET)),
        (autoencoder_config, autoencoder_shapes(TINY_VQ)),
    ):
        with pytest.raises(LayoutError, match="do not divide into 24 groups; give --groups"):
            read(shapes, Unreadable(groups=24))


def test_the_layouts_are_those_of_the_networks():
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.unet import UNet

    for network, shapes in (
        (UNet(TINY_UNET), unet_shapes(TINY_UNET)),
        (Autoencoder(TINY_VQ), autoencoder_shapes(TINY_VQ)),
    ):
        assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes


def test_shapes_of_nothing_known():
    for read in (unet_config, autoencoder_config):
        with pytest.raises(LayoutError):
            read({"w": (3,)})
    assert looks_like({"w": (3,)}) is None
    said = "holds no network to convert; it looks like nothing that is known"
    with pytest.raises(CheckpointError, match=said):
        convert_weights.extract({"w": (3,)}, None, None, Unreadable())


# Conversions
# --------------------------------------------------------------------------------------------------


def test_an_sdm_unet(folder, capsys):
    arrays = filled(unet_shapes(TINY_UNET))
    np.savez("ema.npz", **{name: array.astype(np.float64) for name, array in arrays.items()})
    code, out, _ = convert(
        capsys, "ema.npz", "unet.safetensors", "--head_channels", 16, "--width", 16, "--height", 12
    )
    assert code == 0 and load_config("unet.safetensors") == TINY_UNET
    given = load("unet.safetensors")
    assert list(given) == list(arrays)
    assert {array.dtype for array in given.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(given[name], arrays[name]) for name in arrays)
    assert "head_channels 16, latent 16x12" in out and weights_sha256("unet.safetensors") in out
    assert str(len(arrays)) in out
    assert load_extra("unet.safetensors")["converted_from"] == "ema.npz"


def test_head_channels_that_do_not_divide(folder, capsys):
    np.savez("ema.npz", **filled(unet_shapes(dataclasses.replace(TINY_UNET, channels=48))))
    assert "[96] channels does not divide into heads of 64; give --head_channels" in failure(
        capsys, "ema.npz", "unet.npz"
    )


def taming(arrays):
    state = {
        name.replace("quantize.embedding", "quantize.embed"): array
        for name, array in arrays.items()
    }
    state.update({f"loss.discriminator.main.{number}.weight": np.ones(2) for number in range(3)})
    state.update(
        {
            "loss.perceptual_loss.lin0.model.1.weight": np.ones(1),
            "colorize": np.ones((3, 2, 1, 1)),
            "quantize.used": np.arange(3),
        }
    )
    return {
        "state_dict": state,
        "epoch": 1,
        "optimizer_states": [{"state": {0: {"exp_avg": np.ones(2)}}}],
    }


def test_a_vq_gan_of_taming_transformers(folder, capsys):
    arrays = filled(autoencoder_shapes(TINY_VQ))
    code, out, _ = convert(capsys, pickled("last.ckpt", taming(arrays)), "autoencoder.pkl")
    given = load("autoencoder.pkl")
    assert code == 0 and load_config("autoencoder.pkl") == TINY_VQ
    assert list(given) == list(autoencoder_shapes(TINY_VQ))
    assert all(np.array_equal(given[name], arrays[name]) for name in arrays)
    assert "quantize.embed.weight -> quantize.embedding.weight" in out and "4 of loss.*" in out
    assert "1 of quantize.used" in out


def test_a_vq_autoencoder_of_latent_diffusion_with_its_average(folder, capsys):
    arrays = filled(autoencoder_shapes(TINY_VQ))
    averages = {"model_ema." + name.replace(".", ""): array * 2 for name, array in arrays.items()}
    tree = {
        "state_dict": {
            **arrays,
            **averages,
            "model_ema.decay": np.ones(()),
            "model_ema.num_updates": np.ones((), np.int32),
        }
    }
    for weights, factor in (("ema", 2), ("model", 1)):
        code, out, _ = convert(
            capsys, pickled("model.ckpt", tree), weights + ".npz", "--weights", weights
        )
        given = load(weights + ".npz")
        assert code == 0
        assert all(np.array_equal(given[name], arrays[name] * factor) for name in arrays)
        assert ("moving average" in out.split("arrays")[0]) == (weights == "ema")


def test_the_first_stage_of_a_whole_latent_diffusion_model(folder, capsys):
    arrays = filled(autoencoder_shapes(TINY_VQ))
    tree = {"first_stage_model." + name: array for name, array in arrays.items()}
    tree.update(
        {
            "model.diffusion_model.input_blocks.0.0.weight": np.ones((2, 2)),
            "betas": np.ones(3),
            "model_ema.diffusion_modelinput_blocks00weight": np.zeros((2, 2)),
            "first_stage_model.loss.logvar": np.ones(1),
            "cond_stage_model.encoder.conv_in.weight": np.ones((1, 1, 3, 3)),
        }
    )
    code, out, _ = convert(
        capsys, pickled("model.ckpt", {"state_dict": tree}), "autoencoder.safetensors"
    )
    given = load("autoencoder.safetensors")
    assert code == 0 and load_config("autoencoder.safetensors") == TINY_VQ
    assert all(np.array_equal(given[name], arrays[name]) for name in arrays)
    assert "first_stage_model.* -> *" in out and "1 of cond_stage_model.*" in out
    assert "1 of first_stage_model.loss.*" in out


def test_the_release_s_files_and_ours(folder, capsys):
    arrays = filled(autoencoder_shapes(TINY_VQ), np.float64)
    pickled("merged.pkl", arrays)  # merge_model.py pickles float64
    assert convert(capsys, "merged.pkl", "one.safetensors")[0] == 0
    assert all(
        np.array_equal(array, arrays[name].astype(np.float32))
        for name, array in load("one.safetensors").items()
    )
    save("ours.pkl", filled(unet_shapes(TINY_UNET)), TINY_UNET)
    code, out, _ = convert(capsys, "ours.pkl", "two.npz")
    assert code == 0 and load_config("two.npz") == TINY_UNET and "assumed" not in out
    assert convert(capsys, "ours.pkl", "three.npz", "--head_channels", 32)[0] == 0
    assert load_config("three.npz").head_channels == 32


def test_a_flowseg_network_of_ours_is_halved_under_its_own_names(folder, capsys):
    from jseg.flowseg.presets import NETWORKS

    save(
        folder / "best.safetensors",
        {"blocks.0.attn.qkv.weight": np.full((2, 3), 0.1, np.float32)},
        NETWORKS["tiny"],
        step=3,
    )
    assert cli.run(convert_weights.main, ["best.safetensors", "half.safetensors", "--half"]) == 0
    assert load_config("half.safetensors") == NETWORKS["tiny"]
    assert load_extra("half.safetensors")["step"] == 3
    assert load("half.safetensors")["blocks.0.attn.qkv.weight"].dtype == np.float16
    call = ["best.safetensors", "other.safetensors", "--to", "unet"]
    assert cli.run(convert_weights.main, call) == 2
    assert "holds a network of FlowSeg (PixNerdConfig), not unet" in capsys.readouterr().err
    assert not (folder / "other.safetensors").exists()


def test_trailing_dimensions_of_one(folder, capsys):
    arrays = filled(autoencoder_shapes(TINY_VQ))
    flat = {
        name: array[:, :, 0, 0] if ".attn_1." in name and array.ndim == 4 else array
        for name, array in arrays.items()
    }
    code, out, _ = convert(capsys, pickled("linear.pkl", flat), "autoencoder.npz")
    assert code == 0 and "reshaped    8 arrays" in out
    assert all(
        np.array_equal(array, arrays[name]) for name, array in load("autoencoder.npz").items()
    )


def test_a_dry_run_writes_nothing(folder, capsys):
    np.savez("vq.npz", **filled(autoencoder_shapes(TINY_VQ)))
    code, out, _ = convert(capsys, "vq.npz", "autoencoder.safetensors", "--dry_run")
    assert code == 0 and "dry run" in out and "AutoencoderConfig(channels=32" in out
    assert os.listdir(".") == ["vq.npz"]


def test_a_file_with_both_networks(folder, capsys):
    tree = {
        **{"unet." + name: array for name, array in filled(unet_shapes(TINY_UNET)).items()},
        **{
            "first_stage_model." + name: array
            for name, array in filled(autoencoder_shapes(TINY_VQ)).items()
        },
    }
    pickled("both.pkl", tree)
    assert "--to unet or --to autoencoder" in failure(capsys, "both.pkl", "out.npz")
    assert convert(capsys, "both.pkl", "a.npz", "--to", "autoencoder")[0] == 0
    assert load_config("a.npz") == TINY_VQ
    options = "--to unet --head_channels 16 --width 16 --height 12"
    assert convert(capsys, "both.pkl", "u.npz", *options.split())[0] == 0
    assert load_config("u.npz") == TINY_UNET


def without(arrays, start):
    return {key: array for key, array in arrays.items() if not key.startswith(start)}


VQ = filled(autoencoder_shapes(TINY_VQ))
NETWORK = filled(unet_shapes(TINY_UNET))
ATTENTION, BIAS = "encoder.down.2.attn.0.norm.weight", "quant_conv.bias"
REFUSED = {
    "no codebook": (without(VQ, "quantize.embedding.weight"), "KL autoencoder"),
    "gumbel": ({**VQ, "quantize.proj.weight": np.ones((2, 2, 1, 1))}, "Gumbel"),
    "attention in levels": ({**VQ, ATTENTION: np.ones(2)}, "attention in encoder.down.2"),
    "incomplete": (without(VQ, "decoder.conv_out.bias"), r"1 missing (decoder.conv_out.bias)"),
    "more": ({**VQ, "decoder.extra": np.ones(2)}, "1 unexpected (decoder.extra)"),
    "another shape": ({**VQ, BIAS: np.ones(5)}, "quant_conv.bias is [5], expected [3]"),
    "not finite": (
        {**VQ, BIAS: np.array([1, np.nan, 1])},
        "array quant_conv.bias holds NaN or infinite values (1 of 3)",
    ),
    "no spade": ({"input_blocks.0.0.weight": np.ones((2, 2, 3, 3))}, "UNet without SPADE norms"),
    "strided convolutions": (without(NETWORK, "output_blocks.1.2"), "differs"),
    "nothing": ({"w": np.ones(1)}, "nothing that is known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted(name, folder, capsys):
    tree, word = REFUSED[name]
    message = failure(capsys, pickled("in.pkl", tree), "out.npz", "--head_channels", "16")
    assert word in message and "in.pkl: " in message
    assert word in failure(capsys, "in.pkl", "out.npz", "--head_channels", "16", "--dry_run")


def test_targets(folder, capsys):
    pickled("in.pkl", VQ)
    assert "ends in" in failure(capsys, "in.pkl", "out.pth")
    assert "one of the inputs" in failure(capsys, "in.pkl", "in.pkl")
    assert "nowhere.pkl does not exist" in failure(capsys, "nowhere.pkl", "out.npz")


def test_only_an_older_result_of_the_same_file_is_replaced(folder, capsys):
    pickled("in.pkl", VQ)
    assert "wrote       out.npz" in convert(capsys, "in.pkl", "out.npz")[1]
    assert "replaced    out.npz" in convert(capsys, "in.pkl", "out.npz", "--half")[1]
    pickled("other.pkl", VQ)
    assert "it exists and was made from others (in.pkl)" in failure(capsys, "other.pkl", "out.npz")
    pickled(
        "in.pkl", {name: array + 1 for name, array in VQ.items()}
    )  # another file under the same name
    assert "it exists and was made from others" in failure(capsys, "in.pkl", "out.npz")
    tree = {f"unet.{name}": array for name, array in NETWORK.items()}
    tree.update({f"first_stage_model.{name}": array for name, array in VQ.items()})
    pickled("both.pkl", tree)
    assert convert(capsys, "both.pkl", "vq.npz", "--to", "autoencoder")[0] == 0
    assert "holds another network (AutoencoderConfig)" in failure(
        capsys, "both.pkl", "vq.npz", "--to", "unet", "--head_channels", 16
    )


def test_what_something_else_wrote_is_never_replaced(folder, capsys):
    pickled("in.pkl", VQ)
    os.link("in.pkl", "hard.pkl")
    os.symlink("in.pkl", "link.pkl")
    for name in ("hard.pkl", "link.pkl"):
        assert "one of the inputs" in failure(capsys, "in.pkl", name)
    pickled("foreign.pkl", VQ)
    save("trained.npz", VQ, TINY_VQ, step=3)
    before = {name: weights_sha256(name) for name in ("foreign.pkl", "trained.npz")}
    for name in before:
        for options in ((), ("--dry_run",)):
            assert "it exists and" in failure(capsys, "in.pkl", name, *options)
    assert {name: weights_sha256(name) for name in before} == before


def test_a_missing_folder_is_made_and_told_and_goes_again_if_nothing_was_written(folder, capsys):
    pickled("in.pkl", VQ)
    assert "made        the folder" not in convert(capsys, "in.pkl", "new/out.npz", "--dry_run")[1]
    assert not os.path.exists("new")
    code, out, _ = convert(capsys, "in.pkl", "new/out.npz")
    assert code == 0 and f"made        the folder {folder / 'new'}, which was missing" in out
    pickled("nan.pkl", {**VQ, "quant_conv.bias": np.array([1, np.nan, 1])})
    failure(capsys, "nan.pkl", "other/out.npz")


def test_what_is_too_large_for_half_is_told_apart_from_what_is_not_finite(folder, capsys):
    pickled("large.pkl", {**VQ, "quant_conv.bias": np.array([1, -1e6, 1])})
    message = failure(capsys, "large.pkl", "out.npz", "--half")
    assert (
        "array quant_conv.bias holds -1e+06, too large for float16, which ends at 65504; leave "
        "out --half" in message
    )
    assert "diverged" not in message and convert(capsys, "large.pkl", "out.npz")[0] == 0
    pickled("huge.pkl", {**VQ, "quant_conv.bias": np.array([1, 1e300, 1])})
    assert "holds 1e+300, too large for float32" in failure(capsys, "huge.pkl", "huge.npz")
    pickled("inf.pkl", {**VQ, "quant_conv.bias": np.array([1, np.inf, 1])})
    message = failure(capsys, "inf.pkl", "inf.npz", "--half")
    assert "holds NaN or infinite values (1 of 3); its training diverged" in message
    assert "--half" not in message
    pickled("small.pkl", {**VQ, "quant_conv.bias": np.array([1, 1e-9, 1])})
    assert "rounded     1 value to 0" in convert(capsys, "small.pkl", "small.npz", "--half")[1]


def test_networks_of_pixels_are_told_from_networks_of_latents(folder, capsys):
    pixels = dataclasses.replace(
        TINY_UNET, channel_mult=(1, 1, 1, 1, 1, 1), attention_downsampling=(32,)
    )
    pickled("ade20k.pkl", filled(unet_shapes(pixels)))
    pickled("latent.pkl", NETWORK)
    out = convert(capsys, "ade20k.pkl", "a.npz", "--head_channels", 16)[1]
    assert (
        "assumed     a latent network, though 3 input channels and 6 levels (1, 1, 1, 1, 1, 1) "
        "are those of SDM's own networks" in out
    )
    out = convert(capsys, "latent.pkl", "b.npz", "--head_channels", 16)[1]
    assert "assumed     a network of VQ-f4's latents, which have 3 channels as pixels have" in out
    assert "6 levels" not in out


def test_options_of_another_network_are_named_as_ignored(folder, capsys):
    pickled("vq.pkl", VQ)
    out = convert(capsys, "vq.pkl", "out.npz", "--head_channels", 16, "--width", 8)[1]
    assert "ignored     --head_channels, --width: AutoencoderConfig has no such field" in out


# PixNerd
# --------------------------------------------------------------------------------------------------


def pixnerd_file(name, config, wrapped):
    from jseg.flowseg.state_dict import pixnerd_shapes

    state = filled(pixnerd_shapes(config))
    if wrapped:
        tree = {f"ema_denoiser.{key}": array for key, array in state.items()}
        tree.update({f"denoiser.{key}": array * 0 for key, array in state.items()})
        tree["diffusion_trainer.proj.0.0.weight"] = np.ones((2, 2))
        pickled(name, {"state_dict": tree, "epoch": 1, "optimizer_states": [{}]})
    else:
        pickled(name, state)
    return state


@pytest.mark.parametrize("wrapped", (False, True), ids=("plain", "lightning"))
def test_a_pixnerd_becomes_a_plain_file_with_its_configuration(wrapped, folder, capsys):
    from jseg.flowseg.predict import network_config
    from jseg.flowseg.presets import NETWORKS

    size = dataclasses.replace(NETWORKS["tiny"], classes=4)
    state = pixnerd_file("pixnerd.ckpt", size, wrapped)
    code, out, _ = convert(
        capsys, "pixnerd.ckpt", "pixnerd.safetensors", "--width", 64, "--height", 32
    )
    config = load_config("pixnerd.safetensors")
    assert code == 0 and config == dataclasses.replace(size, labels=150, width=64, height=32)
    given = load("pixnerd.safetensors")
    assert list(given) == list(state)
    assert all(np.array_equal(given[name], state[name]) for name in state)
    assert "for         train_flowseg --model_path OUT --preset tiny" in out
    assert ("1 of diffusion_trainer.*" in out) == wrapped
    said = "PixNerd's own weights .* segment nothing; start a training from them"
    with pytest.raises(CheckpointError, match=said):
        network_config("pixnerd.safetensors")
    assert convert(capsys, "pixnerd.safetensors", "half.npz", "--half")[0] == 0
    with pytest.raises(CheckpointError, match="segment nothing"):
        network_config("half.npz")


def test_an_incomplete_pixnerd_is_refused(folder, capsys):
    from jseg.flowseg.presets import NETWORKS

    state = pixnerd_file("whole.pkl", NETWORKS["tiny"], False)
    pickled("part.pkl", without(state, "blocks.1.mlp.w2.weight"))
    assert "1 missing (blocks.1.mlp.w2.weight)" in failure(capsys, "part.pkl", "out.npz")
    pickled("head.pkl", without(state, "x_embedder.embedder.0.weight"))
    assert "not the names and shapes of a PixNerd network" in failure(capsys, "head.pkl", "out.npz")


def test_help_and_the_script_run_at_once_and_without_jittor(folder):
    code = (
        "import sys; from jseg.commands import cli, convert_weights\ncode = "
        "cli.run(convert_weights.main, ['vq.npz', 'out.npz'])\nsys.exit(code or any('jittor' in "
        "name for name in sys.modules if not name.startswith('jseg')))"
    )
    np.savez("vq.npz", **VQ)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )
    for name in ("convert_weights", "merge_weights"):
        command = [sys.executable, str(ROOT / "scripts" / (name + ".py")), "--help"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0 and "Examples:" in result.stdout
