"""The arrays that other people's programs made (golden/peers/README.md), and the largest difference
from them.
"""

import numpy as np
from support.places import GOLDEN

from jseg.parity.stand_in import value
from jseg.runtime import jt

PEERS = GOLDEN / "peers"


def peer(name):
    """{name: array} of one file."""
    with np.load(PEERS / name, allow_pickle=False) as arrays:
        return dict(arrays)


def apart(ours, theirs):
    """Largest absolute difference over the larger of 1 and the largest absolute value."""
    ours = ours.numpy() if hasattr(ours, "numpy") else np.asarray(ours)
    assert ours.shape == theirs.shape, f"{ours.shape} against {theirs.shape}"
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def fill(module, change=lambda name, array: array):
    """The module with the recipe's weights under its own names, each passed through `change`."""
    for name, variable in module.state_dict().items():
        variable.assign(jt.array(np.float32(change(name, value(name, variable.shape)))))
    return module
