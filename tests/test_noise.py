"""Noise depends on (seed, stem, stage, shape) and on nothing else."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from support.refusals import refusal

from jseg.noise import check_seed, normal

SHAPE = (3, 96, 128)


def test_values_never_change():
    expected = np.array(
        [[-2.2017476558685303, 1.5127850770950317, 0.5044217109680176, -1.9248294830322266]],
        np.float32,
    )
    assert np.array_equal(normal(7, "sample_1", 2, (1, 4)), expected)


def test_construction_as_documented():
    key = hashlib.sha256("3/1/f\u00e9e".encode()).digest()[:16]
    stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
    expected = stream.standard_normal(3 * 4 * 5).reshape(3, 4, 5).astype(np.float32)
    assert np.array_equal(normal(3, "f\u00e9e", 1, (3, 4, 5)), expected)
    assert np.array_equal(
        normal(3, "fe\u0301e", "1", [3, 4, 5]), expected
    )  # decomposed, as macOS names files


def test_moments_are_right():
    x = normal(0, "x", 0, (400000,)).astype(float)
    assert x.shape == (400000,) and abs(x.mean()) < 0.006 and abs(x.std() - 1) < 0.005
    assert abs((x**3).mean()) < 0.02 and abs((x**4).mean() - 3) < 0.06
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.006
    assert normal(0, "x", 0, SHAPE).dtype == np.float32


def test_streams_are_uncorrelated():
    keys = [
        (seed, stem, stage)
        for seed in (0, 1, 10)
        for stem in ("a", "b", "1", "\u98ce\u666f")
        for stage in (0, 1, "noise")
    ]
    samples = np.stack([normal(*key, SHAPE).ravel() for key in keys])
    correlation = np.corrcoef(samples) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / np.sqrt(samples.shape[1])


def test_neighbouring_keys_are_not_confused():
    assert not np.array_equal(normal(1, "2", 1, (4,)), normal(1, "1", 2, (4,)))
    assert not np.array_equal(normal(11, "x", 1, (4,)), normal(1, "x", 11, (4,)))
    assert not np.array_equal(normal(1, "3/x", 2, (4,)), normal(1, "x", "23", (4,)))


def test_global_state_and_process_do_not_matter():
    first = normal(5, "x", 0, (8,))
    np.random.seed(3)
    np.random.rand(100)
    state = np.random.get_state()[1].copy()
    assert np.array_equal(normal(5, "x", 0, (8,)), first)
    assert np.array_equal(np.random.get_state()[1], state)
    program = "from jseg.noise import normal; print(normal(5, 'x', 0, (8,)).tobytes().hex())"
    assert (
        subprocess.check_output([sys.executable, "-c", program]).decode().strip()
        == first.tobytes().hex()
    )


def test_odd_stems_and_numpy_integers():
    assert normal(np.int64(5), "x", np.int32(0), (4,)).tolist() == normal(5, "x", 0, (4,)).tolist()
    assert normal(2**70, "a" * 10000, 0, (2,)).shape == (2,)
    assert normal(0, "bytes\udcff", 0, ()).shape == ()


@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True])
def test_bad_seeds(seed):
    for call in (lambda: normal(seed, "x", 0, (1,)), lambda: check_seed(seed)):
        refusal(call, match="whole number")


def test_bad_stage():
    for stage in ("a/b", ""):
        with pytest.raises(ValueError, match="stage"):
            normal(0, "x", stage, (1,))
