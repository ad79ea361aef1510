"""Cases that measure: release-size networks against the CPU, and times, errors and peak memory in
every precision.

The best of the repetitions counts, the first (which compiles) does not. Peak memory on CUDA is what
the process holds at the end: Jittor's pool keeps its largest. Errors are differences to float32's
results, which the first of these processes leaves in a file.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, Iterator, Optional

import numpy as np

from jseg.flowseg.encoding import class_codes
from jseg.flowseg.field import training_loss as flow_training_loss
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import training_loss
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.samplers import ddim, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.nn.layers import one_hot
from jseg.nn.precision import PRECISIONS, chosen, computing_in
from jseg.parity.gpu.comparing import compared, difference, filled, random
from jseg.parity.gpu.losses import crop_batch, latent_batch
from jseg.parity.gpu.operators import seconds
from jseg.parity.gpu.records import Case, LeftOut
from jseg.runtime import device, jt
from jseg.training.loop import TrainedNetwork, take_step
from jseg.training.loss_scale import LossScale
from jseg.training.memory import peak_gigabytes
from jseg.training.optimizer import AdamW, trainable

SCALE = 3.5
STAGE_STEPS, TINY_STEPS = 20, 2  # the tiny size is for a trial: fewer steps, nothing repeated
DIFFERENT_ENTRIES = 1e-3  # where two entries are equally near, rounding decides
# A guided step is (1 + s) times one pass less s times another, s = SCALE, and so has 8 times the
# error of a pass. In half precision a pass rounds some 64 times in a row, along the residual path,
# and errors of random signs grow by the root of that: 8 * 8 units. TF32, of float16's unit, rounds
# the inputs of products alone, whose errors average out: 8 units.
BOUNDS = {
    name: (64 if PRECISIONS[name].kind else 8) * PRECISIONS[name].unit
    for name in ("tf32", "bf16", "fp16")
}
# A loss is the mean of a pass's squares, in which errors average out. Tiny networks: half a unit.
LOSS_UNITS = 8


def release_cases(target: str, size: str) -> Iterator[Case]:
    """Networks at release size: the CPU's results against the device's."""
    config, codec = UNETS[size], AUTOENCODERS[size]
    field_name = "pixnerd-L/16" if size == "release" else "small"
    field = NETWORKS[field_name]
    latent = random(1, 3, config.height, config.width)
    modules = {}  # one at a time

    def module(name, make):
        if name not in modules:
            modules.clear()
            modules[name] = filled(make())
            modules[name].eval()
        return modules[name]

    def step():
        unet = module("unet", lambda: UNet(config))
        shape = (1, config.height, config.width)
        labels = np.random.default_rng(0).integers(0, config.classes, shape)
        predictor = guided(unet, one_hot(labels, config.classes), SCALE)
        return [predictor(jt.array(latent), jt.array(np.array([600], np.int32)))], []

    def decoded():
        network = module("codec", lambda: Autoencoder(codec))
        with jt.no_grad():
            return [network.decode(jt.array(latent), quantize=False)], []

    def entries(where):
        device(where)
        network = module("codec", lambda: Autoencoder(codec))
        return network.codes(jt.array(latent)).numpy()

    def flow():
        network = module("field", lambda: PixNerd(field))
        x, t = random(1, 3, field.height, field.width), np.array([0.3], np.float32)
        with jt.no_grad():
            return [network(jt.array(x), jt.array(t))], []

    yield compared(f"guided step, {size}", target, step, 1e-3)
    yield compared(f"decode, {size}", target, decoded, 1e-3)
    yield Case(
        f"codebook entries, {size}: fraction that differs",
        lambda: {"difference": float((entries("cpu") != entries(target)).mean())},
        DIFFERENT_ENTRIES,
    )
    yield compared(f"velocity, {field_name}", target, flow, 1e-3)


def speed_cases(target: str, size: str, precision: str, folder: str) -> Iterator[Case]:
    """Times in one precision of `PRECISIONS`, chosen as users choose it."""
    device(target)
    speed, bound = _Speed(size, precision, folder), BOUNDS.get(precision)
    of_loss, of_entries = None, None
    if bound:
        of_loss, of_entries = LOSS_UNITS * PRECISIONS[precision].unit, DIFFERENT_ENTRIES
    field = speed.field if size == "release" else f"FlowSeg {speed.field}"

    for title, compute, most in (
        (f"guided step, {size}", speed.step, bound),
        (f"stage of {speed.steps} steps, {size}", speed.stage, bound),
        (f"training step, {size}", speed.train_unet, of_loss),
        (f"decode, {size}", speed.decode, bound),
        (f"codebook entries, {size}: fraction that differs", speed.entries, of_entries),
        (f"training step, {field}", speed.train_field, of_loss),
    ):
        yield Case(title, _computed_in(precision, target, compute), most)


def _computed_in(precision: str, target: str, compute: Callable) -> Callable:
    """compute() in that precision; raises LeftOut where the GPU does not have it."""

    def timed():
        if target == "cuda":
            try:
                chosen(precision, target)
            except ValueError as error:
                raise LeftOut(str(error)) from None
        with computing_in(precision):
            return compute()

    return timed


class _Speed:
    """What is timed in one precision, on inputs that are the same in each; one network is held at a
    time.
    """

    def __init__(self, size: str, precision: str, folder: str):
        self.size, self.precision, self.folder = size, precision, folder
        self.steps = TINY_STEPS if size == "tiny" else STAGE_STEPS
        self.field = {"release": "pixnerd-L/16", "tiny": "tiny"}.get(size, "small")
        self.config = config = UNETS[size]
        self.latent = random(1, 3, config.height, config.width)
        self.t = jt.array(np.array([600], np.int32))
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, config.classes, (1, config.height, config.width))
        self._network = self._predictor = None

    def step(self) -> Dict[str, object]:
        """A guided step of the UNet."""
        x, guide = jt.array(self.latent), self._guided()
        best = self._best(lambda: guide(x, self.t).sync(), 5)
        return self._record("step", best, guide(x, self.t).numpy())

    def stage(self) -> Dict[str, object]:
        """Several steps of DDIM."""
        guide, last = self._guided(), []

        def once():
            x = jt.array(self.latent)
            last[:] = list(ddim(guide, x, Schedule("ddim50"), self.steps))[-1:]

        best = self._best(once, 2)
        columns = self._record("stage", best, last[0].numpy())
        return {**columns, "seconds a step": best / self.steps}

    def train_unet(self) -> Dict[str, object]:
        """A training step of the UNet."""
        unet = self._held(UNet, self.config)
        loss = training_loss(unet, Schedule())
        return self._training("UNet", unet, loss, latent_batch(self.config, count=1))

    def decode(self) -> Dict[str, object]:
        """The autoencoder's decoder."""
        network = self._held(Autoencoder, AUTOENCODERS[self.size])
        z = jt.array(self.latent)

        # Timed as it is used; compared without the codebook, whose entries change in steps.
        with jt.no_grad():
            best = self._best(lambda: network.decode(z).sync(), 3)
            return self._record("decode", best, network.decode(z, quantize=False).numpy())

    def entries(self) -> Dict[str, object]:
        """The choice of codebook entries, whose distances are a product of matrices."""
        network = self._held(Autoencoder, AUTOENCODERS[self.size])
        return self._record("entries", None, network.codes(jt.array(self.latent)).numpy())

    def train_field(self) -> Dict[str, object]:
        """A training step of a PixNerd."""
        config = NETWORKS[self.field]
        network = self._held(PixNerd, config)
        loss = flow_training_loss(network, class_codes(config.labels))
        return self._training("PixNerd", network, loss, crop_batch(config, 1))

    def _best(self, compute: Callable, repetitions: int) -> float:
        return seconds(compute, 1 if self.size == "tiny" else repetitions)

    def _held(self, kind: Callable, config):
        """The network of that kind, made once and kept until another is asked for."""
        self._predictor = None
        if not isinstance(self._network, kind):
            self._network = None
            jt.sync_all()
            jt.gc()  # the memory of each network is told for itself
            self._network = filled(kind(config))
        return self._network

    def _guided(self):
        """The guided UNet, kept as long."""
        if self._predictor is None:
            network = self._held(UNet, self.config)
            network.eval()
            self._predictor = guided(network, one_hot(self.labels, self.config.classes), SCALE)
        return self._predictor

    def _training(self, name: str, network, loss: Callable, batch: Dict) -> Dict[str, object]:
        """A loss, its gradient and an update by AdamW, one example; the first loss is held against
        float32's.
        """
        network.train()
        part = TrainedNetwork("", network, loss, AdamW(trainable(network), 1e-4))
        part.loss_scale = LossScale() if self.precision == "fp16" else None
        losses = []
        best = self._best(lambda: losses.append(take_step(part, [(batch, 1.0)], 0)["loss"]), 3)

        columns = self._record(f"training of {name}", best, np.array(losses[:1], np.float32))
        if part.loss_scale is not None and part.loss_scale.left_out:
            columns["note"] = f"{part.loss_scale.left_out} of {len(losses)} updates left out"
        return {**columns, "loss": losses[0]}

    def _record(self, name: str, best: Optional[float], result) -> Dict[str, object]:
        """The columns of a measurement; its result is held against float32's, integers by
        the fraction that differs.
        """
        columns = {"seconds": best, "gigabytes": peak_gigabytes()}
        path = os.path.join(self.folder, name + ".npy")
        if self.precision == "float32":
            np.save(path, result)
        elif os.path.exists(path):
            expected, numbers = np.load(path), result.dtype.kind == "f"
            apart = difference([result], [expected]) if numbers else (result != expected).mean()
            columns["difference"] = float(apart)
        else:
            columns["note"] = "not compared: float32's result is missing"
        return columns
