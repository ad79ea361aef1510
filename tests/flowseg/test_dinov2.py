import dataclasses
import functools
import math

import numpy as np
import pytest
from support.refusals import refusal

from jseg.checkpoint import CheckpointError, save
from jseg.flowseg import dinov2 as module
from jseg.flowseg.dinov2 import VIT_B14, Dinov2, Dinov2Config, bicubic, load_dinov2, resize
from jseg.runtime import jt

SMALL = Dinov2Config(width=24, depth=2, heads=3, patch=4, grid=5)


@functools.lru_cache(maxsize=None)
def state(config=SMALL):
    """Random weights under the official names; scales and norms around 1."""
    rng, d, hidden = np.random.default_rng(0), config.width, config.ratio * config.width
    shapes = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + config.grid**2, d),
        "mask_token": (1, d),
        "patch_embed.proj.weight": (d, 3, config.patch, config.patch),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    for i in range(config.depth):
        parts = {
            "norm1.weight": (d,),
            "norm1.bias": (d,),
            "attn.qkv.weight": (3 * d, d),
            "attn.qkv.bias": (3 * d,),
            "attn.proj.weight": (d, d),
            "attn.proj.bias": (d,),
            "ls1.gamma": (d,),
            "norm2.weight": (d,),
            "norm2.bias": (d,),
            "mlp.fc1.weight": (hidden, d),
            "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (d, hidden),
            "mlp.fc2.bias": (d,),
            "ls2.gamma": (d,),
        }
        shapes.update({f"blocks.{i}.{name}": shape for name, shape in parts.items()})
    around_one = ("norm.weight", "norm1.weight", "norm2.weight", "gamma")
    return {
        name: (
            rng.standard_normal(shape) / math.sqrt(np.prod(shape[1:]) or 1)
            + name.endswith(around_one)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


@functools.lru_cache(maxsize=None)
def network():
    dinov2 = Dinov2(SMALL)
    for name, value in dinov2.state_dict().items():
        value.assign(jt.array(state()[name]))
    return dinov2


def random_images(height=12, width=16):
    return np.random.default_rng(1).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)


# An independent forward pass, image by image, patch by patch
# -----------------------------------------------------


def cubic(x):
    x = abs(x)
    return (
        1.25 * x**3 - 2.25 * x**2 + 1
        if x <= 1
        else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
        if x < 2
        else 0.0
    )


def sampled(values, wanted, scale):
    """values [n, ...] resized along the first axis to `wanted`, places computed with 1 / scale, as
    torch's bicubic does.
    """
    found = []
    for i in range(wanted):
        place = (i + 0.5) / scale - 0.5
        first = math.floor(place)
        found.append(
            sum(
                cubic(place - j) * values[min(max(j, 0), len(values) - 1)]
                for j in range(first - 1, first + 3)
            )
        )
    return np.stack(found)


def positions(w, config, rows, columns):
    table = w["pos_embed"][0, 1:].reshape(config.grid, config.grid, -1)
    if (rows, columns) != (config.grid, config.grid):
        table = sampled(table, rows, (rows + 0.1) / config.grid)
        table = sampled(table.transpose(1, 0, 2), columns, (columns + 0.1) / config.grid).transpose(
            1, 0, 2
        )
    return table.reshape(rows * columns, -1)


def norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6
    ) * weight + bias


def twin(images, config=SMALL):
    w, p = {name: value.astype(np.float64) for name, value in state(config).items()}, config.patch
    mean, std = (
        np.array(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    results = []
    for image in images.astype(np.float64):
        image = ((image + 1) / 2 - mean) / std
        rows, columns = image.shape[1] // p, image.shape[2] // p
        x = np.stack(
            [
                (w["patch_embed.proj.weight"] * image[:, i * p : i * p + p, j * p : j * p + p]).sum(
                    (1, 2, 3)
                )
                for i in range(rows)
                for j in range(columns)
            ]
        )
        x = x + w["patch_embed.proj.bias"] + positions(w, config, rows, columns)
        x = np.concatenate([w["cls_token"][0] + w["pos_embed"][0, :1], x])
        for number in range(config.depth):
            b = {
                name.split(".", 2)[2]: value
                for name, value in w.items()
                if name.startswith(f"blocks.{number}.")
            }
            y = (
                norm(x, b["norm1.weight"], b["norm1.bias"]) @ b["attn.qkv.weight"].T
                + b["attn.qkv.bias"]
            )
            q, k, v = np.split(y, 3, axis=1)
            heads = []
            for part in np.split(np.arange(config.width), config.heads):
                scores = q[:, part] @ k[:, part].T / math.sqrt(len(part))
                scores = np.exp(scores - scores.max(1, keepdims=True))
                heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
            x = x + b["ls1.gamma"] * (
                np.concatenate(heads, axis=1) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
            )
            y = (
                norm(x, b["norm2.weight"], b["norm2.bias"]) @ b["mlp.fc1.weight"].T
                + b["mlp.fc1.bias"]
            )
            y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
            x = x + b["ls2.gamma"] * (y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
        results.append(norm(x, w["norm.weight"], w["norm.bias"])[1:])
    return np.stack(results)


@pytest.mark.parametrize("height, width", [(12, 16), (20, 20)])
def test_tokens_are_the_twin_s(height, width):
    found = network()(random_images(height, width)).numpy()
    expected = twin(random_images(height, width))
    assert found.shape == (2, height * width // 16, 24)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_names_and_shapes_are_those_of_the_public_file():
    """ViT-B/14: 175 tensors."""
    expected = {
        name: list(value.shape)
        for name, value in state(dataclasses.replace(VIT_B14, depth=1)).items()
    }
    for name in [name for name in expected if name.startswith("blocks.0.")]:
        expected.update(
            {name.replace("blocks.0.", f"blocks.{i}."): expected[name] for i in range(12)}
        )
    dinov2 = Dinov2()
    assert {name: list(value.shape) for name, value in dinov2.state_dict().items()} == expected
    assert len(expected) == 175
    assert sum(int(np.prod(shape)) for shape in expected.values()) == 86580480
    assert expected["pos_embed"] == [1, 1370, 768] and expected["patch_embed.proj.weight"] == [
        768,
        3,
        14,
        14,
    ]


def test_all_weights_are_constants_and_no_gradient_passes():
    x = jt.array(random_images())
    assert all(value.is_stop_grad() for value in network().parameters())
    assert not np.abs(jt.grad(network()(x).sum() + 0 * x.sum(), x).numpy()).any()


def test_images_do_not_meet():
    both, alone = network()(random_images()).numpy(), network()(random_images()[1:]).numpy()
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)


def test_resizing_is_torch_s_bicubic():
    x = random_images(12, 16)
    expected = sampled(x.astype(np.float64).transpose(2, 3, 0, 1), 21, 21 / 12)
    expected = sampled(expected.transpose(1, 0, 2, 3), 28, 28 / 16).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(resize(jt.array(x), 21, 28).numpy(), expected, atol=1e-5)
    assert np.array_equal(resize(jt.array(x), 12, 16).numpy(), x)
    np.testing.assert_allclose(bicubic(9, 4).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 1, 12, 16), (1, 3, 13, 16), (1, 3, 12, 0)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"DINOv2: images of shape .* multiples of 4"):
        network()(np.zeros(shape, np.float32))


def test_weights_are_loaded_strictly(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VIT_B14", SMALL)
    monkeypatch.setitem(module.PUBLISHED, (24, 2), "small")
    save(tmp_path / "dinov2.npz", state())
    x = random_images()
    assert np.array_equal(load_dinov2(tmp_path / "dinov2.npz")(x).numpy(), network()(x).numpy())
    for name in ("norm.bias", "head.weight"):
        save(tmp_path / "other.npz", {**state(), name: np.zeros(23, np.float32)})
        with pytest.raises(CheckpointError, match=r"other\.npz.*" + name):
            load_dinov2(tmp_path / "other.npz")


@pytest.mark.parametrize("prefix", ["", "model.", "backbone.", "model.backbone."])
def test_the_layout_of_timm_is_read(tmp_path, monkeypatch, prefix):
    """timm's vit_base_patch14_dinov2 has the official names but no mask_token; training programs
    put a prefix before both.
    """
    monkeypatch.setattr(module, "VIT_B14", SMALL)
    monkeypatch.setitem(module.PUBLISHED, (24, 2), "small")
    timm = {prefix + name: array for name, array in state().items() if name != "mask_token"}
    x = random_images()
    np.savez(tmp_path / "timm.npz", **timm)
    found = load_dinov2(tmp_path / "timm.npz")
    assert np.array_equal(found(x).numpy(), network()(x).numpy())
    assert not found.mask_token.numpy().any()
    np.savez(
        tmp_path / "damaged.npz",
        **{name: array for name, array in timm.items() if not name.endswith("cls_token")},
    )
    with pytest.raises(CheckpointError, match=r"damaged\.npz.*cls_token"):
        load_dinov2(tmp_path / "damaged.npz")


@pytest.mark.parametrize(
    "width, depth, extra, words",
    [
        (384, 12, {}, "holds DINOv2 ViT-S/14, width 384 in 12 blocks; expected ViT-B/14"),
        (1024, 24, {}, "ViT-L/14"),
        (
            768,
            12,
            {"register_tokens": np.zeros((1, 4, 768), np.float32)},
            "ViT-B/14 with registers",
        ),
        (768, 12, {"reg_token": np.zeros((1, 4, 768), np.float32)}, "ViT-B/14 with registers"),
        (100, 3, {}, "DINOv2 weights, width 100 in 3 blocks"),
        (None, 0, {"a": np.zeros(3, np.float32)}, "holds no DINOv2 network"),
    ],
)
def test_weights_of_another_size_are_called_by_it(tmp_path, width, depth, extra, words):
    arrays = dict(extra)
    if width:
        arrays["pos_embed"] = np.zeros((1, 2, width), np.float32)
        arrays["patch_embed.proj.weight"] = np.zeros((width, 3, 14, 14), np.float32)
        arrays.update(
            {f"blocks.{i}.norm1.weight": np.zeros(width, np.float32) for i in range(depth)}
        )
    save(tmp_path / "weights.npz", arrays)
    said = r"weights\.npz .*" + words
    line = refusal(load_dinov2, tmp_path / "weights.npz", kind=CheckpointError, match=said)
    assert "dinov2_vitb14_pretrain.pth" in line
