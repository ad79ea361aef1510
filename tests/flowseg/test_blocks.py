"""The transformer's parts against the official code's numbers and their formulas."""

import numpy as np

from jseg.flowseg import blocks
from jseg.runtime import jt


def test_time_is_embedded_with_periods_up_to_ten():
    table = blocks.TimeEmbedding(8).table(jt.array(np.array([0, 0.5, 1], np.float32))).numpy()
    np.testing.assert_allclose(
        table[1, [0, 1, 127, 128, 129, 255]],
        [0.8775825500, 0.8818212748, 0.9987044930, 0.4794255495, 0.4715837836, 0.0508855954],
        atol=1e-6,
    )
    np.testing.assert_allclose(table.sum(1), [128.0, 149.3833328, 161.9873232], atol=1e-3)


def test_turns_stretch_each_axis_over_sixteen():
    cosines, sines = (table.astype(np.float64) for table in blocks.turn_tables(16, 16, 64))
    angles = np.arctan2(sines[:, 1::2], cosines[:, 1::2])  # of a pair: minus, plus
    np.testing.assert_allclose(angles[1, :6], [1.0666667, 0, 0.5998308, 0, 0.3373096, 0], atol=1e-6)
    np.testing.assert_allclose(
        angles[16, :6], [0, 1.0666667, 0, 0.5998308, 0, 0.3373096], atol=1e-6
    )
    np.testing.assert_allclose([cosines[17, 0], -sines[17, 0]], [0.4830455, 0.8755953], atol=1e-6)
    wide, _ = blocks.turn_tables(2, 16, 64)
    np.testing.assert_allclose(wide[:16], cosines[:16], atol=1e-7)
    np.testing.assert_allclose(wide[16], cosines[240], atol=1e-6)  # both lie at x = 0, y = 16
    assert np.array_equal(blocks.turn_tables(1, 1, 16)[0], np.ones((1, 16)))


def test_turning_keeps_lengths_and_its_gradient_turns_back():
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((2, 6, 16)).astype(np.float32) for _ in range(2))
    cosines, sines = blocks.turn_tables(2, 3, 16)
    a, b, cos, sin = x[..., ::2], x[..., 1::2], cosines[:, ::2], sines[:, 1::2]
    expected = np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)
    x = jt.array(x)
    turned = blocks.Turn()(x, jt.array(cosines).stop_grad(), jt.array(sines).stop_grad())
    np.testing.assert_allclose(turned.numpy(), expected, atol=1e-6)
    back = jt.grad((turned * jt.array(g)).sum(), x).numpy()
    np.testing.assert_allclose((back * x.numpy()).sum(), (g * expected).sum(), rtol=1e-4)
    np.testing.assert_allclose((back**2).sum(-1), (g**2).sum(-1), rtol=1e-4)


def test_splitting_puts_gradients_together_where_some_are_missing():
    x = jt.array(np.arange(12, dtype=np.float32).reshape(3, 4))
    pair, last = blocks.split(x, (2, 1))
    assert list(pair.shape) == [2, 4] and list(last.shape) == [4]
    assert jt.grad((last * 3).sum(), x).numpy().tolist() == [[0] * 4] * 2 + [[3] * 4]
