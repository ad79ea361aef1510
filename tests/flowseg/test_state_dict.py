"""PixNerd's sizes are read from names and shapes, and a file of another size is answered with
the preset to give."""

import dataclasses
import json

import numpy as np
import pytest
from support.places import GOLDEN
from support.small_flowseg import write_scenes

from jseg.checkpoint import mismatch, save
from jseg.commands import cli, train_flowseg
from jseg.flowseg.presets import NETWORKS
from jseg.flowseg.state_dict import another_size, pixnerd_config, pixnerd_shapes, preset_of

GOLDEN = {
    name: {key: tuple(shape) for key, shape in shapes.items()}
    for name, shapes in json.loads((GOLDEN / "pixnerd_layout.json").read_text()).items()
}


@pytest.mark.parametrize("size", GOLDEN)
def test_the_layouts_are_the_official_code_s(size):
    assert pixnerd_shapes(NETWORKS[f"pixnerd-{size}"]) == GOLDEN[size]
    assert (
        pixnerd_config(GOLDEN[size]) == NETWORKS[f"pixnerd-{size}"]
        and preset_of(GOLDEN[size]) == f"pixnerd-{size}"
    )


@pytest.mark.parametrize(
    "changed",
    (
        {},
        {"source": "noise"},
        {"depth": 3, "patch": 4, "classes": 9},
        {"pixel_ratio": 3, "heads": 2},
    ),
)
def test_the_layout_is_that_of_the_network_and_tells_its_size(changed):
    from jseg.flowseg.pixnerd import PixNerd

    config = dataclasses.replace(NETWORKS["tiny"], **changed)
    shapes = {name: tuple(value.shape) for name, value in PixNerd(config).state_dict().items()}
    assert pixnerd_shapes(config) == shapes
    found = pixnerd_config(shapes)
    assert (
        dataclasses.replace(found, labels=config.labels, width=config.width, height=config.height)
        == config
    )


def test_another_size_is_answered_with_its_preset():
    text = mismatch(GOLDEN["L/16"], GOLDEN["XL/16"], explain=another_size)
    assert (
        "this is XL/16, the network is pixnerd-L/16: give --preset pixnerd-XL/16" in text
        and "give the complete file" not in text
    )
    odd = pixnerd_shapes(dataclasses.replace(NETWORKS["tiny"], depth=5))
    assert "a size that no preset has (depth 5 for 2), the network is tiny" in mismatch(
        pixnerd_shapes(NETWORKS["tiny"]), odd, explain=another_size
    )
    assert (
        another_size(GOLDEN["L/16"], GOLDEN["L/16"]) is None
        and another_size(GOLDEN["L/16"], {"w": (3,)}) is None
    )
    assert preset_of(odd) is None and preset_of({"w": (3,)}) is None


def test_shapes_of_another_network():
    for shapes in (
        {},
        {"s_embedder.proj.weight": (3,)},
        {**GOLDEN["L/16"], "blocks.0.attn.q_norm.weight": (0,)},
    ):
        with pytest.raises(ValueError, match="not the names and shapes of a PixNerd network"):
            pixnerd_config(shapes)


def test_a_training_refuses_another_size_before_it_reads_the_data(tmp_path, capsys):
    write_scenes(tmp_path / "data", range(4))
    data = tmp_path / "data"
    for name in ("small", "tiny"):
        save(
            tmp_path / f"{name}.npz",
            {
                key: np.zeros(shape, np.float32)
                for key, shape in pixnerd_shapes(NETWORKS[name]).items()
            },
        )
    code = cli.run(
        train_flowseg.main,
        [
            "--data",
            str(data),
            "--preset",
            "tiny",
            "--output",
            str(tmp_path / "run"),
            "--device",
            "cpu",
            "--model_path",
            str(tmp_path / "small.npz"),
        ],
    )
    message = capsys.readouterr().err
    assert code == 2 and message.count("\n") == 1 and not (tmp_path / "run").exists()
    assert (
        f"{tmp_path / 'small.npz'}: does not fit the network: this is small, the network is tiny: "
        f"give --preset small" in message
    )
