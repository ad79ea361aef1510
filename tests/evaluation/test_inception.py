"""Inception against its structure written once more in NumPy, layer by layer, and what is refused
of weight files.
"""

import functools

import numpy as np
import pytest
from support.refusals import refusal

from jseg import checkpoint
from jseg.checkpoint import CheckpointError
from jseg.evaluation import inception as module
from jseg.evaluation.inception import (
    Inception,
    load_inception,
    maximum_around,
    mean_around,
    prepared,
)
from jseg.runtime import jt

SHAPE = (1, 3, 107, 91)  # the last maps are 2x1


@functools.lru_cache(maxsize=None)
def network():
    """Random weights that keep the activations' size; statistics and norms far from 0 and 1."""
    inception, rng = Inception(), np.random.default_rng(1)
    for name, v in inception.state_dict().items():
        if name.endswith("conv.weight"):
            drawn = rng.standard_normal(v.shape, dtype=np.float32) * np.float32(
                np.sqrt(2 / np.prod(v.shape[1:]))
            )
        else:
            drawn = (
                rng.uniform(0.5, 1.5, v.shape)
                if name.endswith(("weight", "var"))
                else 0.2 * rng.standard_normal(v.shape)
            )
        v.assign(jt.array(drawn.astype(np.float32)))
    return inception


@functools.lru_cache(maxsize=None)
def state():
    return {name: v.numpy() for name, v in network().state_dict().items()}


def conv(name, x, stride=1, down=0, across=0):
    """Convolution, batch norm and ReLU in float64."""
    w = {
        part: state()[name + part].astype(np.float64)
        for part in ".conv.weight .bn.weight .bn.bias .bn.running_mean .bn.running_var".split()
    }
    kernel, x = w[".conv.weight"], np.pad(x, ((0, 0), (0, 0), (down, down), (across, across)))
    rows = (x.shape[2] - kernel.shape[2]) // stride + 1
    columns = (x.shape[3] - kernel.shape[3]) // stride + 1
    y = sum(
        np.tensordot(
            kernel[:, :, i, j],
            x[0, :, i : i + stride * rows : stride, j : j + stride * columns : stride][
                :, :rows, :columns
            ],
            (1, 0),
        )
        for i in range(kernel.shape[2])
        for j in range(kernel.shape[3])
    )[None]
    mean, var, scale, shift = (
        w[".bn." + part].reshape(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return np.maximum((y - mean) / np.sqrt(var + 0.001) * scale + shift, 0)


def pooled(x, kind, stride=1, padding=1):
    """3x3 windows, cut at the map's edges."""
    rows, columns = ((n + 2 * padding - 3) // stride + 1 for n in x.shape[2:])
    y = np.empty(x.shape[:2] + (rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = stride * i - padding, stride * j - padding
            y[:, :, i, j] = kind(x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3], (2, 3))
    return y


def branches(name, x, pool):
    """The branches of a mixed block by its letter: each a chain of layers."""
    same = {"down": 1, "across": 1}
    ways = {
        "": {},
        "p": {"across": 3},
        "q": {"down": 3},
        "a": {"across": 1},
        "b": {"down": 1},
        "same": same,
        "5x5": {"down": 2, "across": 2},
        "2": {"stride": 2},
    }

    def chain(text):
        """The layers of "name1 name2:way"."""
        return [(layer, ways[way]) for layer, _, way in (w.partition(":") for w in text.split())]

    wide, double = "branch7x7_1 branch7x7_2:p branch7x7_3:q", "branch3x3dbl_1 branch3x3dbl_2:same"
    table = {
        "5": ["branch1x1", "branch5x5_1 branch5x5_2:5x5", f"{double} branch3x3dbl_3:same"],
        "6a": ["branch3x3:2", f"{double} branch3x3dbl_3:2"],
        "6": [
            "branch1x1",
            wide,
            "branch7x7dbl_1 branch7x7dbl_2:q branch7x7dbl_3:p branch7x7dbl_4:q branch7x7dbl_5:p",
        ],
        "7a": [
            "branch3x3_1 branch3x3_2:2",
            "branch7x7x3_1 branch7x7x3_2:p branch7x7x3_3:q branch7x7x3_4:2",
        ],
        "7": [
            "branch1x1",
            *(f"branch3x3_1 branch3x3_2{side}:{side}" for side in "ab"),
            *(f"{double} branch3x3dbl_3{side}:{side}" for side in "ab"),
        ],
    }
    found, block = [], name[len("Mixed_") :]
    for text in table.get(block) or table[block[0]]:
        y = x
        for layer, options in chain(text):
            y = conv(f"{name}.{layer}", y, **options)
        found.append(y)
    last = (
        pooled(x, np.max, 2, 0)
        if block.endswith("a")
        else conv(name + ".branch_pool", pooled(x, pool))
    )
    return np.concatenate(found + [last], 1)


def twin(x):
    x = x.astype(np.float64)
    for name, options in (
        ("Conv2d_1a_3x3", {"stride": 2}),
        ("Conv2d_2a_3x3", {}),
        ("Conv2d_2b_3x3", {"down": 1, "across": 1}),
        ("pool1", None),
        ("Conv2d_3b_1x1", {}),
        ("Conv2d_4a_3x3", {}),
        ("pool2", None),
    ):
        x = pooled(x, np.max, 2, 0) if options is None else conv(name, x, **options)
        yield name, x
    for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
        x = branches("Mixed_" + block, x, np.max if block == "7c" else np.mean)
        yield "Mixed_" + block, x


def test_every_layer_is_the_twin_s():
    x = np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)
    found, expected = list(network().layers(x)), list(twin(x))
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, y), (_, wanted) in zip(found, expected):
        assert tuple(y.shape) == wanted.shape and wanted.max() > 0, name
        assert np.abs(y.numpy() - wanted).max() < 1e-4 * wanted.max(), name
    np.testing.assert_allclose(
        network()(x).numpy(), wanted.mean((2, 3)), rtol=1e-3, atol=1e-4 * wanted.max()
    )


def test_the_layout():
    shapes = {name: tuple(v.shape) for name, v in Inception().state_dict().items()}
    assert len(shapes) == 94 * 5
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 21820000
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch_pool.bn.running_var"] == (192,)
    assert all(v.is_stop_grad() for v in network().parameters())


def test_pools_leave_the_padding_out():
    """Where a pool that counts zeros, torchvision's and Jittor's, would darken the edges."""
    ones = jt.ones((1, 2, 3, 5))
    assert np.abs(mean_around(ones).numpy() - 1).max() < 1e-6
    x = np.abs(np.random.default_rng(2).standard_normal((1, 2, 4, 3))).astype(np.float32)
    np.testing.assert_allclose(mean_around(jt.array(x)).numpy(), pooled(x, np.mean), rtol=1e-5)
    assert np.array_equal(maximum_around(jt.array(x)).numpy(), pooled(x, np.max).astype(np.float32))


def test_images_are_resized_without_antialiasing():
    rng = np.random.default_rng(3)
    exact = rng.integers(0, 256, (299, 299, 3), dtype=np.uint8)
    other = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    large = rng.integers(0, 256, (600, 700, 3), dtype=np.uint8)
    found = prepared([exact, other, large])
    assert found.shape == (3, 3, 299, 299) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], exact.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    for image, made in ((other, found[1]), (large, found[2])):
        for i, j in ((0, 0), (298, 298), (7, 200), (150, 31)):
            value = 0
            places = []
            for at, size in ((i, image.shape[0]), (j, image.shape[1])):
                at = max((at + 0.5) * size / 299 - 0.5, 0)
                places.append(
                    [(min(int(at), size - 1), 1 - at % 1), (min(int(at) + 1, size - 1), at % 1)]
                )
            for row, one in places[0]:
                for column, two in places[1]:
                    value = value + one * two * image[row, column].astype(float)
            np.testing.assert_allclose(made[:, i, j], value / 127.5 - 1, atol=1e-5)


def test_the_public_file_is_loaded_but_for_what_fid_does_not_use(tmp_path):
    extra = {
        "fc.weight": np.zeros((1008, 2048), np.float32),
        "fc.bias": np.zeros(1008, np.float32),
        "Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(1, np.int64),
    }
    checkpoint.save(tmp_path / "inception.npz", {**state(), **extra})
    loaded = load_inception(tmp_path / "inception.npz").state_dict()
    assert all(np.array_equal(loaded[name].numpy(), value) for name, value in state().items())
    with pytest.raises(FileNotFoundError):
        load_inception(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"fc.weight": np.zeros((1000, 2048), np.float32)},
            r"torchvision's InceptionV3 \(1000 classes\).*pt_inception-2015-12-05",
        ),
        ({"AuxLogits.conv0.conv.weight": np.zeros(1, np.float32)}, "torchvision's"),
        ({"Mixed_7c.branch_pool.conv.weight": None}, "holds no InceptionV3"),
        ({"Mixed_5b.branch1x1.bn.bias": None}, "Mixed_5b.branch1x1.bn.bias"),
        ({"Mixed_5b.branch1x1.bn.bias": np.zeros(3, np.float32)}, "Mixed_5b.branch1x1.bn.bias"),
    ],
)
def test_other_files_are_refused(monkeypatch, change, words):
    arrays = {name: value for name, value in {**state(), **change}.items() if value is not None}
    monkeypatch.setattr(module, "load", lambda path, weights: arrays)
    line = refusal(load_inception, "some.pth", kind=CheckpointError, match=words)
    assert line.startswith("some.pth")


@pytest.mark.parametrize("shape", [(3, 299, 299), (1, 1, 299, 299), (1, 3, 74, 299)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected .B, 3, 299, 299."):
        network()(np.zeros(shape, np.float32))
