"""AdamW and the moving average of a network's parameters, by name, on the parameters' device.

Mirrors torch.optim.AdamW (Loshchilov and Hutter 2019), which Jittor's own AdamW equals except for
its count of steps: Jittor counts calls of backward, so accumulating gradients spoils the bias
correction. All scalars of a step are run-time values: no step compiles.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Dict, Iterator, Mapping, Tuple

import numpy as np

from jseg.runtime import jt


def trainable(module) -> Dict[str, object]:
    """{state-dict name: Var} of the parameters that gradients reach."""
    return {name: value for name, value in module.state_dict().items() if not value.is_stop_grad()}


class AdamW:
    """AdamW over {name: Var}; `step` changes the parameters in place.

    learning_rate may be changed between steps. `steps` counts optimiser steps, not backward passes.
    Raises ValueError for a learning_rate or weight_decay that is below 0 or not finite. release:
    jittor.optim.AdamW, whose bias correction counts every micro-batch; here: every step.
    """

    def __init__(
        self,
        parameters: Mapping[str, object],
        learning_rate: float,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if not 0 <= value < np.inf:
                raise ValueError(f"AdamW: {name} is {value}; expected a finite number, 0 or more")
        self.parameters, self.learning_rate = dict(parameters), learning_rate
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.steps = 0
        self.first = {name: _constant(jt.zeros(p.shape)) for name, p in self.parameters.items()}
        self.second = {name: _constant(jt.zeros(p.shape)) for name, p in self.parameters.items()}

    def step(self, gradients: Mapping[str, object]) -> None:
        """One update from the gradient of every parameter."""
        self.steps += 1
        beta_1, beta_2 = self.betas
        decay = _scalar(1 - self.learning_rate * self.weight_decay)
        rate = _scalar(self.learning_rate / (1 - beta_1**self.steps))
        root = _scalar(1 / np.sqrt(1 - beta_2**self.steps))
        with jt.no_grad():
            for name, p in self.parameters.items():
                g, m, v = gradients[name], self.first[name], self.second[name]
                m.update(m * beta_1 + g * (1 - beta_1))
                v.update(v * beta_2 + g * g * (1 - beta_2))
                p.update(p * decay - rate * m / (jt.sqrt(v) * root + self.eps))
        jt.sync([*self.parameters.values(), *self.first.values(), *self.second.values()])
        _reachable(self.parameters)

    def state(self) -> Dict[str, object]:
        """Both moments as {"first.NAME", "second.NAME": Var}, for a checkpoint."""
        moments = (("first", self.first), ("second", self.second))
        return {f"{order}.{name}": m for order, values in moments for name, m in values.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], steps: int) -> None:
        """Go on from the `state()` saved after `steps` steps; raises ValueError if it is another
        network's.
        """
        fill(self.state(), arrays, "the optimiser's state")
        self.steps = steps


def rates(peak: float, warm_up: int = 0, decay: int = 0) -> Callable[[int], float]:
    """rate(step), step counted from 0: rising evenly to `peak` over `warm_up` steps, falling evenly
    to 0 at step `decay`; 0: neither.

    A function of the step alone, so that a resumed training goes on with the rate of one that was
    not interrupted.
    """

    def rate(step: int) -> float:
        rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
        return peak * rising * (max(0.0, 1 - step / decay) if decay else 1.0)

    return rate


class EMA:
    """Exponential moving average of {name: Var}: average <- average + (parameter - average) (1 -
    rate) after every step.

    In this form, which is torch.lerp's, float32 does not drift: rate average + (1 - rate) parameter
    is off by the rounding of 1 - rate beside rate, 1.7e-4 after 12,000 steps at 0.9999. warm_up:
    the rate of step n is at most (1 + n) / (10 + n), so that a short run's average forgets where it
    began.
    """

    def __init__(self, parameters: Mapping[str, object], rate: float, warm_up: bool = False):
        if not 0 <= rate < 1:
            raise ValueError(
                f"the moving average's rate is {rate}; expected 0 to below 1, such as 0.9999"
            )
        self.parameters, self.rate, self.warm_up = dict(parameters), rate, warm_up
        self.values = {name: _constant(p.copy()) for name, p in self.parameters.items()}

    def update(self, step: int = 0) -> None:
        """Take the parameters' values after that step, counted from 1, in; the number matters for
        `warm_up` alone.
        """
        rate = min(self.rate, (1 + step) / (10 + step)) if self.warm_up else self.rate
        take = _scalar(1 - rate)
        with jt.no_grad():
            for name, p in self.parameters.items():
                value = self.values[name]
                value.update(value + (p - value) * take)
        jt.sync(list(self.values.values()))

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from saved values; raises ValueError if they are another network's."""
        fill(self.values, arrays, "the moving average")

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside of the `with`, the parameters have the average's values."""
        with unchanged(self.parameters):
            _copy(self.values, self.parameters)
            yield


@contextlib.contextmanager
def unchanged(parameters: Mapping[str, object]) -> Iterator[None]:
    """After the `with`, the parameters have the values that they had before it."""
    before = {name: p.copy().stop_grad() for name, p in parameters.items()}
    jt.sync(list(before.values()))
    try:
        yield
    finally:
        _copy(before, parameters)


def fill(variables: Mapping[str, object], arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Assign arrays to Vars of the same names and shapes; raises ValueError naming the first that
    differs.
    """
    wrong = sorted(set(variables) ^ set(arrays)) + sorted(
        name
        for name in set(variables) & set(arrays)
        if tuple(variables[name].shape) != tuple(np.shape(arrays[name]))
    )
    if wrong:
        raise ValueError(
            f"{what} does not fit this network: {len(wrong)} names or shapes differ ({wrong[0]}, "
            "...)"
        )
    for name, variable in variables.items():
        variable.update(jt.array(np.asarray(arrays[name], np.float32)))
    jt.sync(list(variables.values()))


def _copy(source: Mapping[str, object], target: Mapping[str, object]) -> None:
    with jt.no_grad():
        for name, value in target.items():
            value.update(source[name].copy())
    jt.sync(list(target.values()))
    _reachable(target)


def _reachable(parameters: Mapping[str, object]) -> None:
    """Let gradients reach the parameters again: a Var that was made under no_grad, as their new
    values were, stops them.
    """
    for value in parameters.values():
        value.start_grad()


def _constant(value):
    value = value.stop_grad()
    value.sync()
    return value


def _scalar(value: float):
    return jt.array(np.array([value], np.float32))
