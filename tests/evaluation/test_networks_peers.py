"""Inception, LPIPS and DINOv2 against pytorch-fid, the lpips package and the official code, under
the recipe's weights.
"""

import numpy as np
import pytest
from support.peers import apart, fill, peer

from jseg.evaluation.inception import Inception, prepared
from jseg.flowseg.dinov2 import Dinov2, Dinov2Config
from jseg.ldm.lpips import Lpips
from jseg.runtime import jt


def of_inception(name, array):
    if name.endswith("conv.weight"):
        return array * np.sqrt(2)
    if name.endswith("running_var"):
        return 1 + np.abs(array)
    return 0 * array if name.endswith("running_mean") else array


def test_inception_is_pytorch_fid_s_block_by_block():
    arrays, network = peer("inception_pytorch_fid.npz"), fill(Inception(), of_inception)
    image = arrays["picture"]
    signed = (2 * (image.astype(np.float32) / 255) - 1).transpose(2, 0, 1)[None]
    layers = {name: x.mean((2, 3)).numpy()[0] for name, x in network.layers(signed)}
    for block, name in enumerate(("pool1", "pool2", "Mixed_6e", "Mixed_7c")):
        assert apart(layers[name], arrays[f"block{block}"]) < 1e-5, name
    assert apart(network(prepared([image])).numpy()[0], arrays["resized"]) < 1e-5


def of_lpips(name, array):
    if name.startswith("lin"):
        return np.abs(array)
    return array * np.sqrt(2) if array.ndim == 4 else array


def test_distances_and_gradient_are_the_lpips_package_s():
    arrays, network = peer("lpips_package.npz"), Lpips()
    scaling = {
        name: v.numpy()
        for name, v in network.state_dict().items()
        if name.startswith("scaling_layer.")
    }
    fill(network, lambda name, array: scaling.get(name, of_lpips(name, array)))
    image = jt.array(arrays["picture"])
    distance = network(arrays["reference"], image)
    np.testing.assert_allclose(distance.numpy(), arrays["distance"], rtol=1e-5)
    largest = np.abs(arrays["gradient"]).max()
    assert (
        np.abs(jt.grad(distance.sum(), image).numpy() - arrays["gradient"]).max() < 1e-3 * largest
    )


@pytest.mark.parametrize("size", ["native", "up", "down"])
def test_tokens_are_those_of_the_official_dinov2(size):
    """The image is not in the file: waves, of another length in each channel."""
    arrays = peer("dinov2_official.npz")
    network = fill(Dinov2(Dinov2Config(width=48, depth=3, heads=4, grid=6)))
    height, width = arrays[size + "_size"]
    channel, row, column = np.mgrid[:3, :height, :width]
    image = np.sin(column / (3 + channel)) * np.cos(row / (4 + channel))
    assert apart(network(image[None].astype(np.float32)), arrays[size]) < 1e-5
