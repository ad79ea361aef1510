"""PixNerd's sizes are read from names and shapes, and a file of another size is answered with
the preset to give."""

import dataclasses
import json

import numpy as np
import pytest
from support.calls import called
from support.places import GOLDEN
from support.small_flowseg import write_scenes

from jseg.checkpoint import mismatch, save
from jseg.commands import score, segment, train_flowseg
from jseg.flowseg.presets import NETWORKS
from jseg.flowseg.state_dict import (
    another_size,
    not_as_described,
    pixnerd_config,
    pixnerd_shapes,
    preset_of,
)

TINY = dataclasses.replace(NETWORKS["tiny"], labels=29)

GOLDEN = {
    name: {key: tuple(shape) for key, shape in shapes.items()}
    for name, shapes in json.loads((GOLDEN / "pixnerd_layout.json").read_text()).items()
}


@pytest.mark.parametrize("size", GOLDEN)
def test_the_layouts_are_the_official_code_s(size):
    assert pixnerd_shapes(NETWORKS[f"pixnerd-{size}"]) == GOLDEN[size]
    assert pixnerd_config(GOLDEN[size]) == NETWORKS[f"pixnerd-{size}"]
    assert preset_of(GOLDEN[size]) == f"pixnerd-{size}"


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


def test_another_size_is_answered_with_both_presets():
    text = mismatch(GOLDEN["L/16"], GOLDEN["XL/16"], explain=another_size)
    assert (
        "it holds a PixNerd of the size pixnerd-XL/16, the network is of the size pixnerd-L/16: "
        "give --preset pixnerd-XL/16 (hidden_size 1152, not 1024, depth 26, not 22, pixel_blocks"
    ) in text
    assert "give the complete file" not in text

    odd, tiny = pixnerd_shapes(dataclasses.replace(NETWORKS["tiny"], depth=5)), pixnerd_shapes(TINY)
    assert preset_of(odd) is None and preset_of({"w": (3,)}) is None
    assert another_size(tiny, odd) == (
        "it holds a PixNerd of the size that no preset has, the network is of the size tiny: give "
        "a file of the network's size (depth 5, not 2)"
    )
    for shapes in (GOLDEN["L/16"], {"w": (3,)}):
        assert another_size(GOLDEN["L/16"], shapes) is None
        assert not_as_described(GOLDEN["L/16"], shapes) is None


def test_shapes_of_another_network():
    for shapes in (
        {},
        {"s_embedder.proj.weight": (3,)},
        {**GOLDEN["L/16"], "blocks.0.attn.q_norm.weight": (0,)},
    ):
        with pytest.raises(ValueError, match="not the names and shapes of a PixNerd network"):
            pixnerd_config(shapes)


HOLDS = (
    "does not fit the network: it holds a PixNerd of the size small, the network is of the size "
)
TRAIN = "tiny: give --preset small (hidden_size 128, not 48, "
DESCRIBED = (
    "tiny by the file's own description: give the file that train_flowseg wrote (hidden_size"
)


@pytest.mark.parametrize(
    "command, option, described, words",
    [
        (train_flowseg, "model_path", None, TRAIN),
        (train_flowseg, "model_path", NETWORKS["small"], TRAIN),
        (segment, "weights", TINY, DESCRIBED),
        (score, "flowseg", TINY, DESCRIBED),
    ],
    ids=["train, plain file", "train, our file", "segment", "score"],
)
def test_every_command_answers_weights_of_another_size(
    command, option, described, words, tmp_path, capsys
):
    data, path = write_scenes(tmp_path / "data", range(2)), tmp_path / "small.safetensors"
    shapes = pixnerd_shapes(NETWORKS["small"])
    save(path, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, described)
    images, pairs = data / "images", {f"s{seed}.png": f"s{seed}.jpg" for seed in range(2)}
    (data / "label_to_img.json").write_text(json.dumps(pairs))
    options = {
        train_flowseg: {"data": data, "preset": "tiny"},
        segment: {"input": images},
        score: {"results": images, "labels": data / "labels", "references": images},
    }[command]
    output = tmp_path / "output"
    code, lines = called(command, capsys, **options, **{option: path}, output=output, device="cpu")
    assert code == 2 and not output.exists(), lines
    assert f"{path}: {HOLDS}{words}" in lines[-1], lines
