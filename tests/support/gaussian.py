"""A predictor with a closed form, for samplers: the data are normal."""

import numpy as np

from jseg.ldm.schedule import Schedule
from jseg.runtime import jt

MEAN, SPREAD = 0.7, 0.5


def gaussian_predictor(schedule):
    """The exact noise prediction when the data are N(MEAN, SPREAD^2): the sampler's oracle has a
    closed form.
    """
    alpha_bar = Schedule().alpha_bar

    def predictor(x, t):
        a = alpha_bar[t.numpy()].reshape(-1, 1, 1, 1)
        return jt.array(
            (np.sqrt(1 - a) * (x.numpy() - np.sqrt(a) * MEAN) / (a * SPREAD**2 + 1 - a)).astype(
                np.float32
            )
        )

    return predictor


def exact_solution(x, start, end):
    """Probability-flow solution from alpha_bar `start` to `end` for N(MEAN, SPREAD^2)."""
    spread = [np.sqrt(a * SPREAD**2 + 1 - a) for a in (start, end)]
    return np.sqrt(end) * MEAN + spread[1] / spread[0] * (x - np.sqrt(start) * MEAN)


def noise(shape=(2, 3, 32, 48), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
