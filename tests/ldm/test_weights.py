import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.tiny import saved

from jseg import checkpoint
from jseg.ldm import weights as module
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.weights import (
    autoencoder_line,
    autoencoder_of,
    encoder_digest,
    find_autoencoder,
    find_weights,
)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two tiny autoencoders, the first as the one that ships; no official weights."""
    monkeypatch.chdir(tmp_path)
    shipped = saved(tmp_path / "shipped.safetensors", AUTOENCODERS["tiny"])
    other = saved(
        tmp_path / "other.safetensors",
        AUTOENCODERS["tiny"],
        **{"quant_conv.bias": np.ones(3, np.float32)},
    )
    monkeypatch.setattr(module, "SHIPPED_AUTOENCODER", shipped)
    return shipped, other


def trained_with(path, autoencoder):
    config = UNETS["tiny"]
    from jseg.ldm.state_dict import unet_shapes
    from jseg.parity.stand_in import fill

    checkpoint.save(
        path,
        fill(unet_shapes(config)),
        config,
        step=3,
        settings={"autoencoder": encoder_digest(autoencoder)},
    )
    return path


def found_autoencoder(*arguments):
    return find_autoencoder(*arguments)[0].path


def test_an_autoencoder_is_known_by_its_latents_in_any_kind_of_file(shelf, tmp_path):
    shipped, other = shelf
    state = checkpoint.load(shipped)
    checkpoint.save(tmp_path / "same.pkl", state, AUTOENCODERS["tiny"])
    decoder = {
        name: value + 1 if name.startswith("decoder.") else value for name, value in state.items()
    }
    checkpoint.save(tmp_path / "tuned.npz", decoder, AUTOENCODERS["tiny"])
    digest = encoder_digest(shipped)
    assert (
        digest
        == encoder_digest(tmp_path / "same.pkl")
        == encoder_digest(tmp_path / "tuned.npz")
        != encoder_digest(other)
    )


def assert_found(weights, model, autoencoder, *remarks):
    assert (weights.model.path, weights.autoencoder.path) == (Path(model), Path(autoencoder))
    assert weights.autoencoder.digest == encoder_digest(autoencoder)
    assert weights.remarks == list(remarks)


def test_the_autoencoder_of_a_unet_is_found_by_its_record(shelf, tmp_path):
    shipped, other = shelf
    model = trained_with(tmp_path / "unet.safetensors", shipped)
    digest = encoder_digest(shipped)
    assert autoencoder_of(model) == digest
    assert_found(find_weights(model), model, shipped)
    warning = (
        f"warning: {model} was trained on latents of another autoencoder (digest "
        f"{digest[:12]}...) than {other}; expect wrong images"
    )
    assert_found(find_weights(model, other), model, other, warning)


def test_both_files_are_described_once_and_the_description_is_handed_on(shelf, tmp_path):
    model = trained_with(tmp_path / "unet.safetensors", shelf[0])
    weights = find_weights(model, shelf[0], sha256=True)
    assert weights.configs() == (UNETS["tiny"], AUTOENCODERS["tiny"])
    assert weights.model.sha256 == checkpoint.weights_sha256(model)
    again = find_weights(weights.model, weights.autoencoder)
    assert again.model is weights.model and again.autoencoder is weights.autoencoder
    with pytest.raises(checkpoint.CheckpointError, match="UNetConfig; expected AutoencoderConfig"):
        find_weights(model, model).configs()


def test_a_unet_of_an_autoencoder_that_is_not_here_is_refused(shelf, tmp_path):
    model = trained_with(tmp_path / "unet.safetensors", shelf[1])
    said = "neither the official nor the shipped one; give it as --ae_path"
    with pytest.raises(FileNotFoundError, match=said):
        find_weights(model)


def test_a_unet_that_does_not_say_wants_the_official_autoencoder(shelf, tmp_path):
    model = saved(tmp_path / "unet.safetensors", UNETS["tiny"])
    assert autoencoder_of(model) == ""
    with pytest.raises(FileNotFoundError, match="no autoencoder: put the official weights"):
        find_weights(model)
    Path("checkpoints").mkdir()
    saved(Path("checkpoints/autoencoder.pkl"), AUTOENCODERS["tiny"])
    assert_found(find_weights(model), model, "checkpoints/autoencoder.pkl")
    assert found_autoencoder() == Path("checkpoints/autoencoder.pkl")
    assert found_autoencoder(shelf[1]) == shelf[1]


@pytest.mark.parametrize("suffix", (".pkl", ".safetensors", ".npz", ".pth", ".pt", ".ckpt"))
def test_official_weights_are_found_with_any_suffix_that_is_read(suffix, shelf):
    Path("checkpoints").mkdir()
    for config, name in ((UNETS["tiny"], "unet"), (AUTOENCODERS["tiny"], "autoencoder")):
        saved(Path("saved.pkl"), config)
        Path("saved.pkl").rename(f"checkpoints/{name}{suffix}")
    unet, autoencoder = (f"checkpoints/{name}{suffix}" for name in ("unet", "autoencoder"))
    usual = suffix == ".pkl"  # the official name of an autoencoder
    remarks = [f"{unet} is taken"] + ([] if usual else [f"{autoencoder} is taken"])
    assert_found(find_weights(), unet, autoencoder, *remarks)
    assert found_autoencoder(None, "release") == Path(autoencoder)


def test_official_weights_are_found_in_parts(shelf):
    state = checkpoint.load(shelf[0])
    folder = Path("checkpoints/autoencoder")
    folder.mkdir(parents=True)
    names = list(state)
    for number, part in enumerate((names[:9], names[9:]), 1):
        checkpoint.save(
            folder / f"model-0000{number}-of-00002.safetensors",
            {name: state[name] for name in part},
        )
    assert found_autoencoder() == folder and encoder_digest(folder) == encoder_digest(shelf[0])
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert found_autoencoder() == shelf[0]
    said = "--ae_path checkpoints/autoencoder: holds 1 of the 2 parts .* missing: 2"
    with pytest.raises(checkpoint.CheckpointError, match=said):
        find_autoencoder(folder)


def test_of_two_official_files_it_is_said_which_is_taken(shelf):
    Path("checkpoints").mkdir()
    for name in ("average-176k-266k.pkl", "average-176k-266k.safetensors", "unet.npz"):
        saved(Path("checkpoints") / name, UNETS["tiny"])
    saved(Path("checkpoints/autoencoder.pkl"), AUTOENCODERS["tiny"])
    assert_found(
        find_weights(),
        "checkpoints/average-176k-266k.pkl",
        "checkpoints/autoencoder.pkl",
        "3 files for one network: checkpoints/average-176k-266k.pkl is taken, "
        "checkpoints/average-176k-266k.safetensors, checkpoints/unet.npz not",
    )


def test_the_autoencoder_of_the_record_is_taken_before_the_official_one_and_named(shelf, tmp_path):
    shipped, other = shelf
    model = trained_with(tmp_path / "unet.safetensors", shipped)
    Path("checkpoints").mkdir()
    Path("checkpoints/autoencoder.npz").write_bytes(other.read_bytes())
    remark = f"{shipped} is taken: {model} was trained with this autoencoder"
    assert_found(find_weights(model), model, shipped, remark)


def test_a_training_names_its_autoencoder_and_release_refuses_the_shipped_one_unless_it_is_given(
    shelf,
):
    shipped, other = shelf
    said = "--preset release .* official autoencoder.* --ae_path.*drawings of 128x96"
    with pytest.raises(FileNotFoundError, match=said):
        find_autoencoder(None, "release")
    assert found_autoencoder(shipped, "release") == shipped
    assert found_autoencoder(None, "landscape") == shipped
    digest = encoder_digest(shipped)[:12]
    assert (
        autoencoder_line(shipped)
        == f"autoencoder {shipped} (the small one that ships with jseg), digest {digest}..."
    )
    assert autoencoder_line(other) == f"autoencoder {other}, digest {encoder_digest(other)[:12]}..."


def test_the_training_command_refuses_the_shipped_autoencoder_for_release(
    tmp_path, monkeypatch, capsys
):
    from jseg.commands import cli, train

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for options in ((), ("--release",)):
        assert cli.run(train.main, ["--input_path", "data", *options]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "official autoencoder" in message
        assert "--ae_path" in message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_ships_belongs_together():
    weights = find_weights(sha256=True)
    model, autoencoder = module.SHIPPED_MODEL, module.SHIPPED_AUTOENCODER
    assert (weights.model.path, weights.autoencoder.path) == (model, autoencoder)
    assert autoencoder_of(model) == weights.autoencoder.digest
    unet, codec = weights.configs()
    assert unet == UNETS["landscape"] and codec == AUTOENCODERS["landscape"]
    assert model.stat().st_size + autoencoder.stat().st_size < 25_000_000
    for path in (model, autoencoder):
        assert {value.dtype for value in checkpoint.load(path).values()} == {np.dtype(np.float16)}
    card = (module.SHIPPED / "CARD.md").read_text(encoding="utf-8")
    for file in (weights.model, weights.autoencoder):
        assert file.sha256 in card, "the card's hash is of another file"
    assert dataclasses.asdict(unet)["width"] == 32


def test_what_ships_for_flowseg():
    from jseg.flowseg.predict import SHIPPED, trained_classes
    from jseg.flowseg.presets import NETWORKS

    config = checkpoint.load_config(SHIPPED)
    assert config == dataclasses.replace(NETWORKS["small"], labels=29, width=128, height=96)
    assert trained_classes(SHIPPED, 29).names[0] == "mountain"
    assert {value.dtype for value in checkpoint.load(SHIPPED).values()} == {np.dtype(np.float16)}
    assert SHIPPED.stat().st_size < 15_000_000
    assert checkpoint.weights_sha256(SHIPPED) in (module.SHIPPED / "CARD.md").read_text(
        encoding="utf-8"
    ), "the card's hash is of another file"
