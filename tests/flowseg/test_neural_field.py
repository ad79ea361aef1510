"""The neural field's parts against the official code's numbers and their formulas."""

import numpy as np

from jseg.flowseg.neural_field import from_pixel_rows, pixel_rows, place_table, unit_columns
from jseg.flowseg.pixnerd import patch_rows
from jseg.runtime import jt


def test_places_in_a_patch_are_the_official_table():
    table = place_table(16, 8).astype(np.float64)
    assert table.shape == (256, 64)
    np.testing.assert_allclose(
        [table.sum(), (table**2).sum()], [339.4103072, 2195.388755], rtol=1e-6
    )
    np.testing.assert_allclose(table[0, :10], [1] * 9 + [0.4336283], atol=1e-6)
    np.testing.assert_allclose(table[1, [8, 9, 63]], [0.9714900, 0.4212656, -0.0016081], atol=1e-6)
    np.testing.assert_allclose(table[16, 1], 0.9714900, atol=1e-6)
    np.testing.assert_allclose(
        table[255, [1, 8, 9, 63]], [-0.9009687, -0.9009687, 0.3519954, 0.0153846], atol=1e-6
    )


def test_generated_columns_have_unit_length_and_zero_ones_no_nan():
    weights = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    weights[0, :, 1] = 0
    weights = jt.array(weights)
    unit = unit_columns(weights)
    np.testing.assert_allclose((unit.numpy() ** 2).sum(1), [[1, 0, 1], [1, 1, 1]], atol=1e-6)
    assert np.isfinite(jt.grad((unit * unit * unit).sum(), weights).numpy()).all()


def test_patches_are_taken_apart_and_put_together():
    x = np.arange(2 * 3 * 16 * 24, dtype=np.float32).reshape(2, 3, 16, 24)
    rows, pixels = patch_rows(jt.array(x), 8).numpy(), pixel_rows(jt.array(x), 8)
    assert np.array_equal(rows[1, 4], x[1, :, 8:, 8:16].reshape(-1))  # by channel, then by row
    assert np.array_equal(pixels.numpy()[6 + 4], x[1, :, 8:, 8:16].reshape(3, 64).T)
    assert np.array_equal(from_pixel_rows(pixels, 16, 24, 8).numpy(), x)
