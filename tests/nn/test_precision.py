"""Why training is float32 only: what half precision does to a convolution in this Jittor. A release
that computes it right fails here.
"""

import numpy as np
import pytest
from scipy.signal import correlate2d

from jseg.commands import cli, train
from jseg.runtime import jt

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 64, 8, 8)).astype(np.float32)
WEIGHT = (RNG.standard_normal((4, 64, 3, 3)) / 24).astype(np.float32)


def exact(x, weight):
    maps = [
        sum(
            correlate2d(x[0, c].astype(np.float64), w[c].astype(np.float64), mode="same")
            for c in range(x.shape[1])
        )
        for w in weight
    ]
    return np.stack(maps)[None]


def error(kind):
    """Largest error of Jittor's convolution in that type, relative to the largest value."""
    y = jt.nn.conv2d(jt.array(X).cast(kind), jt.array(WEIGHT).cast(kind), padding=1)
    true = exact(X, WEIGHT)
    return np.abs(y.cast("float32").numpy() - true).max() / np.abs(true).max()


def test_float32_is_right():
    assert error("float32") < 1e-5


def test_half_precision_loses_far_more_than_rounding():
    true = exact(X, WEIGHT)
    rounding = np.abs(exact(X.astype(np.float16), WEIGHT.astype(np.float16)) - true)
    rounded = rounding.max() / np.abs(true).max()
    assert error("float16") > 5 * rounded, "fp16 products are summed in fp16"
    assert error("bfloat16") > 0.05, "bf16 convolutions are wrong"


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_so_the_command_does_not_offer_it(kind, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main, ["--input_path", "x", "--precision", kind])
    assert stopped.value.code == 2 and "float32" in capsys.readouterr().err
