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
from jseg.parity.gpu.comparing import compared, difference, filled, random
from jseg.parity.gpu.losses import crop_batch, latent_batch
from jseg.parity.gpu.operators import UNITS, seconds
from jseg.parity.gpu.records import Case
from jseg.runtime import device, jt
from jseg.training.loop import TrainedNetwork, take_step
from jseg.training.memory import peak_gigabytes
from jseg.training.optimizer import AdamW, trainable

SCALE, STAGE_STEPS = 3.5, 20
DIFFERENT_ENTRIES = 1e-3  # where two entries are equally near, rounding decides
# A guided step is (1 + s) times one pass less s times another, s = SCALE, and so has 8 times the
# error of a pass. In half precision a pass rounds some 64 times in a row, along the residual path,
# and errors of random signs grow by the root of that: 8 * 8 units. TF32, of float16's unit, rounds
# the inputs of products alone, whose errors average out: 8 units.
BOUNDS = {
    "tf32": 8 * UNITS["float16"],
    **{kind: 64 * UNITS[kind] for kind in ("float16", "bfloat16")},
}


def cast(module, kind: str):
    """The module with every float32 array in that type, its constants too; norms and softmax still
    compute in float32.
    """
    seen, waiting = set(), [module]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for name, array in list(vars(part).items()):
            if isinstance(array, jt.Var) and str(array.dtype) == "float32":
                setattr(part, name, array.detach().cast(kind).stop_grad())
        waiting += [child for child in part.modules() if child is not part]
    return module


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
    """Times of one precision: "float32", "tf32", "float16" or "bfloat16"; the last two have no
    training and no decoding.
    """
    device(target)

    # float16 and bfloat16 are summed in float32 at 0, at 1 they are not.
    jt.flags.use_tensorcore = 1 if precision == "tf32" else 0
    bound = BOUNDS.get(precision)
    speed = _Speed(size, precision, folder)
    yield Case(f"guided step, {size}", speed.step, bound)
    yield Case(f"stage of {STAGE_STEPS} steps, {size}", speed.stage, bound)
    if speed.kind != "float32":
        return
    yield Case(f"decode, {size}", speed.decode, bound)
    of_entries = DIFFERENT_ENTRIES if bound else None
    yield Case(f"codebook entries, {size}: fraction that differs", speed.entries, of_entries)

    yield Case(f"training step, {size}", speed.train_unet)
    field_name = "pixnerd-L/16" if size == "release" else "small"
    title = field_name if size == "release" else "FlowSeg small"
    yield Case(f"training step, {title}", lambda: speed.train_field(NETWORKS[field_name]))


class _Speed:
    """What is timed in one precision, on inputs that are the same in each; one network is held at a
    time.
    """

    def __init__(self, size: str, precision: str, folder: str):
        self.size, self.precision, self.folder = size, precision, folder
        self.kind = precision if precision.endswith("16") else "float32"
        self.config = config = UNETS[size]
        self.latent = random(1, 3, config.height, config.width)
        self.t = jt.array(np.array([600], np.int32))
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, config.classes, (1, config.height, config.width))
        self._predictor = None

    def step(self) -> Dict[str, object]:
        """A guided step of the UNet."""
        x, guide = jt.array(self.latent), self._guided()
        best = seconds(lambda: guide(x, self.t).sync())
        return self._record("step", best, guide(x, self.t).numpy())

    def stage(self) -> Dict[str, object]:
        """Several steps of DDIM."""
        guide, last = self._guided(), []

        def once():
            x = jt.array(self.latent)
            last[:] = list(ddim(guide, x, Schedule("ddim50"), STAGE_STEPS))[-1:]

        best = seconds(once, 2)
        columns = self._record("stage", best, last[0].numpy())
        return {**columns, "seconds a step": best / STAGE_STEPS}

    def decode(self) -> Dict[str, object]:
        """The autoencoder's decoder."""
        self._predictor = None
        network = filled(Autoencoder(AUTOENCODERS[self.size]))
        z = jt.array(self.latent)

        # Timed as it is used; compared without the codebook, whose entries change in steps.
        with jt.no_grad():
            best = seconds(lambda: network.decode(z).sync(), 3)
            return self._record("decode", best, network.decode(z, quantize=False).numpy())

    def entries(self) -> Dict[str, object]:
        """The choice of codebook entries, whose distances are a product of matrices."""
        codes = filled(Autoencoder(AUTOENCODERS[self.size])).codes(jt.array(self.latent)).numpy()
        return self._record("entries", None, codes)

    def train_unet(self) -> Dict[str, object]:
        """A training step of the UNet."""
        self._predictor = None
        unet = UNet(self.config)
        return _training(unet, training_loss(unet, Schedule()), latent_batch(self.config, count=1))

    def train_field(self, config) -> Dict[str, object]:
        """A training step of a PixNerd."""
        self._predictor = None
        network = PixNerd(config)
        loss = flow_training_loss(network, class_codes(config.labels))
        return _training(network, loss, crop_batch(config, 1))

    def _guided(self):
        """The guided UNet, made once and kept until another network comes."""
        if self._predictor is None:
            network = filled(UNet(self.config))
            network = cast(network, self.kind) if self.kind != "float32" else network
            network.eval()
            maps = one_hot(self.labels, self.config.classes).cast(self.kind)
            inner = guided(network, maps, SCALE)
            self._predictor = lambda x, t: inner(x.cast(self.kind), t).float32()
        return self._predictor

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


def _training(network, loss: Callable, batch: Dict) -> Dict[str, object]:
    """Seconds of a loss, its gradient and an update by AdamW, one example."""
    filled(network)
    network.train()
    part = TrainedNetwork("", network, loss, AdamW(trainable(network), 1e-4))
    losses = {}
    best = seconds(lambda: losses.update(take_step(part, [(batch, 1.0)], 0)), 3)
    return {"seconds": best, "gigabytes": peak_gigabytes(), "loss": losses["loss"]}
