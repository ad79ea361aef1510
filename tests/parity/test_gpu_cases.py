"""What gpu_check computes, as far as the CPU can tell."""

import pytest

from jseg.parity.gpu import parity

LAYERS = {**parity._unet_layers(), **parity._field_layers()}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_can_be_made(name):
    make = LAYERS[name][0]
    assert make().parameters()
