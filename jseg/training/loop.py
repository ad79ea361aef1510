"""The one training loop: a generator of updates over any network, with exact accumulation, several
processes and several networks.

It knows losses and batches, nothing of files, data sets or devices; saving, logging and previews
stand around it (`jseg.training.run`). Everything random comes inside of a batch, as a function of
seed and step, so a resumed run repeats an uninterrupted one. Mirrors run_loop, run_step and
forward_backward of the release's train_util.py.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from jseg.runtime import jt
from jseg.training import distributed
from jseg.training.loss_scale import LEAST, LossScale, all_finite
from jseg.training.optimizer import EMA, AdamW

Loss = Callable[[object], Dict[str, object]]
Batches = Callable[[int], Iterable[Tuple[object, float]]]


class TrainingProblem(ValueError):
    """Training that cannot go on; one line.

    step: the last that was finished; whole: no network has gone beyond it.
    """

    def __init__(self, message: str, step: int = 0, whole: bool = True):
        super().__init__(message)
        self.step, self.whole = step, whole


@dataclass
class TrainedNetwork:
    """A network and the loss that moves it; a training has several where one judges another, as
    the discriminator does an autoencoder.

    `loss(batch)` gives {"loss": scalar Var, further scalars for the log}, each the mean over a
    micro-batch, and is a function of the batch alone. The network is left alone before
    `start_step`. A companion is a module that the loss trains along with the network, such as the
    projection of an alignment: it is kept in checkpoints and is not in the result. loss_scale: of
    a training in float16. The first network of a training has the name "".
    """

    name: str
    module: object
    loss: Loss
    optimizer: AdamW
    ema: Optional[EMA] = None
    start_step: int = 0
    companion: object = None
    loss_scale: Optional[LossScale] = None

    @property
    def size(self) -> int:
        """The number of parameters that are trained."""
        return sum(value.numel() for value in self.optimizer.parameters.values())


class Update(NamedTuple):
    """What one optimisation step reports; `step` counts finished steps, so the first is 1."""

    step: int
    losses: Dict[str, float]
    seconds: float
    skipped: bool = False


def train(
    networks: Sequence[TrainedNetwork],
    batches: Batches,
    steps: int,
    start_step: int = 0,
    learning_rate: Optional[Callable[[int], float]] = None,
    skip: int = 0,
) -> Iterator[Update]:
    """Take optimisation steps start_step ... steps - 1, yielding an `Update` after each.

    batches(step) gives this process's micro-batches as (batch, weight), the weight being its
    fraction of the global batch: all weights of all processes add up to 1, and so the sum of
    gradients is that of the whole batch. learning_rate(step): for a rate that is not constant.
    skip: how many steps may have a loss that is no finite number; they leave the network as it is.
    Beyond them, raises TrainingProblem; the parameters are then those of the step before, except
    where an earlier network has taken the step.
    """
    skips_left = skip
    for step in range(start_step, steps):
        begun = time.perf_counter()
        losses: Dict[str, float] = {}
        skipped = moved = False
        for network in networks:
            if step < network.start_step:
                continue
            if learning_rate is not None:
                network.optimizer.learning_rate = learning_rate(step)

            # A loss that is no number: the step is left out while that is allowed.
            try:
                losses.update(take_step(network, batches(step), step))
                moved = True
            except TrainingProblem as problem:
                if skips_left <= 0:
                    problem.whole = not moved
                    raise
                skipped = True
                if not moved:
                    break  # the networks after it look at what it makes
        skips_left -= skipped
        yield Update(step + 1, losses, time.perf_counter() - begun, skipped)


def take_step(
    network: TrainedNetwork, micro_batches: Iterable[Tuple[object, float]], step: int
) -> Dict[str, float]:
    """One optimiser step of one network from its micro-batches; its losses as numbers, named
    NAME/... for all but the first network.

    release: adds the mean losses of micro-batches, so their number scales the gradient; here:
    weighted by their fraction of the batch.
    """
    own_gradients, own_losses = accumulate(network, micro_batches)
    losses = distributed.all_reduce_numbers(own_losses)
    if not all(math.isfinite(value) for value in losses.values()):
        values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise TrainingProblem(f"step {step + 1}: {values}; the training diverged", step)

    gradients = distributed.all_reduce(own_gradients)
    scale, finite = network.loss_scale, True
    if scale is not None:
        losses["loss_scale"], finite = scale.value, all_finite(gradients)
        if not finite and scale.value <= LEAST:
            raise TrainingProblem(
                f"step {step + 1}: its gradients overflow at the least loss scale, {LEAST:g}; the "
                "training diverged",
                step,
            )
        gradients = scale.unscaled(gradients)
        scale.update(finite)
    if finite:
        network.optimizer.step(dict(zip(network.optimizer.parameters, gradients)))
    if finite and network.ema is not None:
        network.ema.update(network.optimizer.steps)
    prefix = f"{network.name}/" if network.name else ""
    return {prefix + name: value for name, value in losses.items()}


def accumulate(
    network: TrainedNetwork, micro_batches: Iterable[Tuple[object, float]]
) -> Tuple[List, Dict[str, float]]:
    """This process's part of the gradient and of the losses.

    Each micro-batch is computed and its graph freed before the next begins: memory is that of one,
    and one more set of gradients.
    """
    parameters = list(network.optimizer.parameters.values())
    scale = 1.0 if network.loss_scale is None else network.loss_scale.value
    total: List = []
    losses: Dict[str, float] = {}
    for batch, weight in micro_batches:
        terms = network.loss(batch)
        gradients = [
            gradient.float32().stop_grad()
            for gradient in jt.grad(
                terms["loss"] * (weight * scale), parameters, retain_graph=False
            )
        ]
        logged = {name: value.stop_grad() for name, value in terms.items()}
        del terms

        # Computed here, or the micro-batches' graphs would pile up; and before they are added, or
        # the addition would be fused into the gradient's last product and rounded in another way
        # than the sum over processes is.
        jt.sync(gradients + list(logged.values()))
        total = [old + new for old, new in zip(total, gradients)] if total else gradients
        jt.sync(total)
        for name, value in logged.items():
            losses[name] = losses.get(name, 0.0) + weight * float(value.item())
    return total, losses
