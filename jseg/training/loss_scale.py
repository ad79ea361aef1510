"""The factor on losses that keeps the gradients of a training in float16 above its least number.

Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): halved at each step whose gradients
are not finite, which is left out, and doubled after `GROWTH_STEPS` steps that were.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping

import numpy as np

from jseg.runtime import jt

FIRST, LEAST, LARGEST = 2.0**14, 1.0, 2.0**24
GROWTH_STEPS = 2000


class LossScale:
    """value: the factor now, a power of 2, so that it changes no digit of a gradient; good_steps:
    those since it changed; left_out: all steps so far whose gradients were not finite.
    """

    def __init__(self):
        self.value, self.good_steps, self.left_out = FIRST, 0, 0

    def unscaled(self, gradients: List) -> List:
        """The gradients without the factor."""
        inverse = jt.array(np.array([1 / self.value], np.float32))
        with jt.no_grad():
            return [gradient * inverse for gradient in gradients]

    def update(self, finite: bool) -> None:
        """Take in whether a step's gradients were all finite."""
        if not finite:
            self.value, self.good_steps = max(self.value / 2, LEAST), 0
            self.left_out += 1
            return
        self.good_steps += 1
        if self.good_steps >= GROWTH_STEPS:
            self.value, self.good_steps = min(2 * self.value, LARGEST), 0

    def state(self) -> Dict[str, np.ndarray]:
        """For a checkpoint."""
        return {name: np.array([number], np.float32) for name, number in vars(self).items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state()`; one of an earlier version did not count the steps left out."""
        self.value, self.good_steps = float(state["value"][0]), int(state["good_steps"][0])
        self.left_out = int(state["left_out"][0]) if "left_out" in state else 0


def all_finite(gradients: List) -> bool:
    """Whether every number of the gradients is finite."""
    with jt.no_grad():
        sums = jt.concat([gradient.abs().max().reshape(1) for gradient in gradients])
    return bool(np.isfinite(sums.numpy()).all())


def left_out(networks: Iterable) -> int:
    """The steps that the loss scales of trained networks have left out."""
    return sum(n.loss_scale.left_out for n in networks if n.loss_scale is not None)


def overflow_line(step: int, scale: LossScale) -> str:
    """What is said of the first step that is left out."""
    return (
        f"step {step}: its gradients overflow float16; it is left out and the loss scale halved to "
        f"{scale.value:g}, as happens now and then (log.csv counts such steps as left_out)"
    )
