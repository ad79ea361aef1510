"""Cases that measure: release-size networks against the CPU, and times, errors and peak memory in
every precision.

The best of the repetitions counts, the first (which compiles) does not. Peak memory on CUDA is what
the process holds at the end: Jittor's pool keeps its largest. Errors are differences to float32's
results, which the first of these processes leaves in a file.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Dict, Iterator

import numpy as np

from jseg.flowseg.encoding import class_codes, encode
from jseg.flowseg.field import training_loss as flow_training_loss
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.presets import NETWORKS
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import training_loss
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.samplers import ddim, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.nn.layers import nn, one_hot
from jseg.parity.gpu.parity import compared, compiled, difference, filled, kernel_functions, random
from jseg.parity.gpu.records import Case
from jseg.runtime import device, jt
from jseg.training.loop import TrainedNetwork, take_step
from jseg.training.memory import peak_gigabytes
from jseg.training.optimizer import AdamW, trainable

SCALE, STAGE_STEPS = 3.5, 20
BOUNDS = {"float32": 2e-4, "tf32": 5e-3, "float16": 3e-2, "bfloat16": 2e-1}


def cast(module, kind: str):
    """Every floating array of a module in that type, its constants too; what is computed from them
    then is, norms and softmax excepted.
    """
    seen, waiting = set(), [module]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for name, held in list(vars(one).items()):
            if isinstance(held, jt.Var) and str(held.dtype) == "float32":
                setattr(one, name, held.detach().cast(kind).stop_grad())
        waiting += [child for child in one.modules() if child is not one]
    return module


def seconds(compute: Callable, repetitions: int = 5, limit: float = 20.0) -> float:
    """The best time of compute(), after one call that is not counted."""
    best, spent = float("inf"), 0.0
    for number in range(repetitions + 1):
        jt.sync_all(True)
        before = time.perf_counter()
        compute()
        jt.sync_all(True)
        taken = time.perf_counter() - before
        best = min(best, taken) if number else best
        spent += taken
        if number and spent > limit:
            break
    return best


def kernel_time_cases(target: str) -> Iterator[Case]:
    """Each operator of ours against what the networks do without it, result and gradients."""
    device(target)
    for name, told, function, arrays, wanted in kernel_functions():

        def compare(name=name, function=function, arrays=arrays, wanted=wanted):
            variables, found = [jt.array(array) for array in arrays], {}
            factor = jt.array(random(*function(*variables).shape, seed=9)).stop_grad()

            def once(gradients):
                if not gradients:
                    with jt.no_grad():
                        return function(*variables).sync()
                jt.sync(jt.grad(function(*variables) * factor, [variables[i] for i in wanted]))

            for what, gradients in (("forward", False), ("gradients", True)):
                for on in (True, False):
                    with compiled(name, on):
                        found[what, on] = seconds(lambda: once(gradients), 10)
            return {
                "seconds": found["forward", True],
                "ratio": found["forward", False] / found["forward", True],
                "ratio with gradients": found["gradients", False] / found["gradients", True],
            }

        yield Case(told, compare)


def release_cases(target: str, size: str) -> Iterator[Case]:
    """Networks at release size: the CPU's results against the device's."""
    config, codec, field = (
        UNETS[size],
        AUTOENCODERS[size],
        NETWORKS["pixnerd-L/16" if size == "release" else "small"],
    )
    held = {}

    def module(name, make):
        if name not in held:
            held.clear()
            held[name] = filled(make())
            held[name].eval()
        return held[name]

    def step():
        unet = module("unet", lambda: UNet(config))
        labels = np.random.default_rng(0).integers(
            0, config.classes, (1, config.height, config.width)
        )
        predictor = guided(unet, one_hot(labels, config.classes), SCALE)
        return [
            predictor(
                jt.array(random(1, 3, config.height, config.width)),
                jt.array(np.array([600], np.int32)),
            )
        ], []

    def decoded():
        network = module("codec", lambda: Autoencoder(codec))
        with jt.no_grad():
            return [network.decode(jt.array(random(1, 3, config.height, config.width)))], []

    def flow():
        network = module("field", lambda: PixNerd(field))
        with jt.no_grad():
            return [
                network(
                    jt.array(random(1, 3, field.height, field.width)),
                    jt.array(np.array([0.3], np.float32)),
                )
            ], []

    yield compared(f"guided step, {size}", target, step, 1e-3)
    yield compared(f"decode, {size}", target, decoded, 1e-3)
    yield compared(
        f"velocity, {'pixnerd-L/16' if size == 'release' else 'small'}", target, flow, 1e-3
    )


def speed_cases(target: str, size: str, precision: str, folder: str) -> Iterator[Case]:
    """Times of one precision: "float32", "tf32", "float16" or "bfloat16"; the last two have no
    training and no decoding.
    """
    device(target)
    jt.flags.use_tensorcore = (
        1 if precision == "tf32" else 0
    )  # float16 and bfloat16 are summed in float32 at 0, at 1 they are not
    config, kind = UNETS[size], precision if precision.endswith("16") else "float32"
    latent, t = random(1, 3, config.height, config.width), jt.array(np.array([600], np.int32))
    labels = np.random.default_rng(0).integers(0, config.classes, (1, config.height, config.width))

    def told(name: str, best: float, result) -> Dict[str, object]:
        found, path = (
            {"seconds": best, "gigabytes": peak_gigabytes()},
            os.path.join(folder, name + ".npy"),
        )
        if precision == "float32":
            np.save(path, result)
        elif os.path.exists(path):
            found["difference"] = difference([result], [np.load(path)])
        return found

    def inference():
        network = cast(filled(UNet(config)), kind) if kind != "float32" else filled(UNet(config))
        network.eval()
        condition = network.condition
        network.condition = lambda y: condition(y.cast(kind))  # the guidance's null map is float32
        inner = guided(network, one_hot(labels, config.classes), SCALE)
        return lambda x, t: inner(x.cast(kind), t).float32()

    held = []

    def predictor():
        held[:] = held or [inference()]
        return held[0]

    def step():
        x, guide = jt.array(latent), predictor()
        best = seconds(lambda: guide(x, t).sync())
        return told("step", best, guide(x, t).numpy())

    def stage():
        guide, found = predictor(), []

        def once():
            found[:] = list(ddim(guide, jt.array(latent), Schedule("ddim50"), STAGE_STEPS))[-1:]

        best = seconds(once, 2)
        return {**told("stage", best, found[0].numpy()), "seconds a step": best / STAGE_STEPS}

    def decode():
        held[:] = []
        network = filled(Autoencoder(AUTOENCODERS[size]))
        z = jt.array(latent)
        with jt.no_grad():
            best = seconds(lambda: network.decode(z).sync(), 3)
            return told("decode", best, network.decode(z).numpy())

    bound = BOUNDS[precision] if precision != "float32" else None
    yield Case(f"guided step, {size}", _bounded(step, bound), bound)
    yield Case(
        f"stage of {STAGE_STEPS} steps, {size}",
        _bounded(stage, 10 * bound if bound else None),
        10 * bound if bound else None,
    )
    if kind == "float32":
        yield Case(f"decode, {size}", _bounded(decode, bound), bound)
        batch = {
            "z": latent,
            "t": np.array([500]),
            "labels": labels,
            "noise": random(*latent.shape, seed=1),
            "seed": 0,
            "step": 0,
            "start": 0,
        }
        yield Case(
            f"training step, {size}",
            lambda: _training(
                held, UNet(config), lambda unet: (training_loss(unet, Schedule()), batch)
            ),
        )
        field = NETWORKS["pixnerd-L/16" if size == "release" else "small"]
        yield Case(
            "training step, " + ("pixnerd-L/16" if size == "release" else "FlowSeg small"),
            lambda: _training(
                held,
                PixNerd(field),
                lambda network: (
                    flow_training_loss(network, class_codes(field.labels)),
                    _flow_batch(field),
                ),
            ),
        )


def _bounded(compute, bound):
    """compute(), with a difference of 0 where there is nothing to differ from."""
    return compute if bound is None else lambda: {"difference": 0.0, **compute()}


def _flow_batch(field):
    shape = (1, field.height, field.width)
    labels = np.random.default_rng(0).integers(0, field.labels, shape).astype(np.uint8)
    x1, mask = encode(labels, class_codes(field.labels))
    return {
        "images": np.tanh(random(1, 3, *shape[1:])),
        "labels": labels,
        "x1": x1,
        "mask": mask,
        "t": np.array([0.3], np.float32),
        "noise": random(1, 3, *shape[1:], seed=1),
    }


def _training(held, network, of: Callable) -> Dict[str, object]:
    """Seconds of a loss, its gradient and an update by AdamW, one example."""
    held[:] = []
    filled(network)
    assert isinstance(network, nn.Module)
    network.train()
    loss, batch = of(network)
    part = TrainedNetwork("", network, loss, AdamW(trainable(network), 1e-4))
    losses = {}
    best = seconds(lambda: losses.update(take_step(part, [(batch, 1.0)], 0)), 3)
    return {"seconds": best, "gigabytes": peak_gigabytes(), "loss": losses["loss"]}
