"""The small networks of the golden files, filled by the weights recipe, and relative differences;
shared by several test files.
"""

import dataclasses
import functools
import json

import numpy as np
from support.places import GOLDEN

from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.parity.stand_in import value
from jseg.runtime import jt

SMALL_UNET = dataclasses.replace(UNETS["release"], channels=32, head_channels=16)
SMALL_AUTOENCODER = dataclasses.replace(AUTOENCODERS["release"], channels=32, codebook_size=256)


def golden(name):
    return np.load(GOLDEN / name, allow_pickle=False)


def release_layout(network):
    return json.loads((GOLDEN / "release_layout.json").read_text())[network]


def layout_of(module):
    return {name: list(v.shape) for name, v in module.state_dict().items()}


def filled(module):
    for name, v in module.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
    module.eval()
    return module


@functools.lru_cache(maxsize=None)
def small_unet():
    from jseg.ldm.unet import UNet

    return filled(UNet(SMALL_UNET))


@functools.lru_cache(maxsize=None)
def small_autoencoder():
    from jseg.ldm.autoencoder import Autoencoder

    return filled(Autoencoder(SMALL_AUTOENCODER))


def difference(ours, theirs):
    """Largest absolute difference over largest absolute value."""
    ours = ours.numpy() if hasattr(ours, "numpy") else np.asarray(ours)
    assert ours.shape == theirs.shape, f"{ours.shape} against {theirs.shape}"
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
