"""The toy of flowseg_convergence.py: pixels as vectors, in classes that are easily confused."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Dict

import numpy as np
from flowseg_convergence_runs import (
    CORRECTED,
    PLAIN,
    SEEDS,
    STEPS,
    TOY_RATES,
    TUNING_SEEDS,
    Arm,
    finished,
)

CLASSES, GROUP, FEATURES = 40, 5, 10
SPREAD = 0.67  # of the classes in a group, for a Bayes accuracy near .79
BATCH, WIDTH, HELD_OUT, VOID = 512, 160, 4000, 255
EVERY = 100  # iterations between evaluations
SHORT = (750, 1000, 1500)  # budgets of FlowSeg with the learning rate's whole course in them
ABLATIONS = (
    [Arm(1.0, "1-t"), Arm(1.0, "t"), Arm(0.1)]
    + [Arm(weight, codes=kind) for kind in ("r3", "grid", "lattice") for weight in (0.0, 1.0)]
    + [Arm(weight, unknown=0.2, masked=masked) for masked in (True, False) for weight in (0.0, 1.0)]
)


class Points:
    """The task: class centres, drawn once for all runs, and points around them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        groups = rng.normal(0, 3.0, (CLASSES // GROUP, 1, FEATURES))
        centres = groups + rng.normal(0, SPREAD, (CLASSES // GROUP, GROUP, FEATURES))
        self.centres = centres.reshape(CLASSES, FEATURES)

    def draw(self, count: int, *seed: int):
        """(features float32 [count, FEATURES], labels int64 [count], the generator that drew
        them).
        """
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        x = self.centres[labels] + rng.standard_normal((count, FEATURES))
        return x.astype(np.float32), labels, rng

    def bayes(self) -> float:
        """The accuracy of the best possible classifier."""
        x, labels, _ = self.draw(50_000, 9, 9)
        distance = ((x[:, None, :] - self.centres) ** 2).sum(2)
        return float((distance.argmin(1) == labels).mean())


def run(folder: Path, iterations: int, ablations: bool) -> None:
    """All runs of the toy that are not finished."""
    print(f"Bayes accuracy of the toy {Points().bayes():.3f}", flush=True)

    # Each arm's learning rate.
    rates = {}
    for arm in (PLAIN, CORRECTED):
        by_rate = {}
        for rate in TOY_RATES:
            results = [toy(folder, arm, seed, rate, iterations) for seed in TUNING_SEEDS]
            by_rate[rate] = np.mean([result["final"]["10"]["accuracy"] for result in results])
        rates[arm.weight > 0] = max(by_rate, key=by_rate.get)
        listed = ", ".join(f"{rate:g}: {accuracy:.3f}" for rate, accuracy in by_rate.items())
        print(f"{arm.name}: accuracy by learning rate {listed}", flush=True)

    # Both arms at both rates, FlowSeg with shorter budgets, ablations.
    for seed in SEEDS:
        for arm in (PLAIN, CORRECTED):
            for rate in sorted({rates[False], rates[True]}):
                toy(folder, arm, seed, rate, iterations)
        for budget in SHORT:
            toy(folder, CORRECTED, seed, rates[True], budget)
    for arm in ABLATIONS if ablations else []:
        for seed in SEEDS:
            toy(folder, arm, seed, rates[arm.weight > 0], iterations)


def toy(folder: Path, arm: Arm, seed: int, rate: float, iterations: int) -> Dict:
    """The result of one training, from its file if there is one."""
    name = f"toy-{arm.name}-rate{rate:g}-{iterations}-seed{seed}"

    def result() -> Dict:
        started = time.perf_counter()
        scores = train(arm, seed, rate, iterations)
        seconds = time.perf_counter() - started
        accuracy = scores["final"]["10"]["accuracy"]
        print(f"{name}: accuracy {accuracy:.3f} in {seconds:.0f} s", flush=True)
        settings = {"seed": seed, "rate": rate, "iterations": iterations}
        return {"kind": "toy", "arm": asdict(arm), **settings, **scores, "seconds": seconds}

    return finished(folder / f"{name}.json", result)


def train(arm: Arm, seed: int, rate: float, iterations: int) -> Dict:
    from jseg import runtime
    from jseg.flowseg.encoding import class_codes, encode
    from jseg.flowseg.field import flow_loss, interpolate
    from jseg.runtime import jt
    from jseg.training import loop
    from jseg.training.optimizer import AdamW, trainable

    runtime.seed(seed)
    network, points, codes = toy_network(), Points(), class_codes(CLASSES, arm.codes)
    targets = codes if arm.masked else np.vstack([codes, np.zeros((1, 3))])

    def batches(step):
        features, classes, rng = points.draw(BATCH, seed, step)
        x0 = rng.standard_normal((BATCH, 3, 1, 1)).astype(np.float32)
        t = rng.random(BATCH).astype(np.float32)
        unknown = rng.random(BATCH) < arm.unknown
        labels = np.where(unknown, VOID if arm.masked else CLASSES, classes).reshape(BATCH, 1, 1)
        x1, mask = encode(labels, targets, VOID)
        yield (features, x0, x1, interpolate(x0, x1, t), t, labels, mask), 1.0

    def loss(batch):
        features, x0, x1, x_t, t, labels, mask = batch
        velocity = network(jt.array(x_t), jt.array(t), jt.array(features))
        options = {"weight": arm.weight, "schedule": arm.schedule, "mask": mask}
        return flow_loss(velocity, x_t, x0, x1, t, labels, targets, **options)

    def cosine(step):
        return rate * (0.01 + 0.99 * (1 + np.cos(np.pi * step / iterations)) / 2)

    part, curve = loop.TrainedNetwork("", network, loss, AdamW(trainable(network), rate)), []
    for update in loop.train([part], batches, iterations, 0, cosine):
        if update.step % EVERY == 0 or update.step == iterations:
            scores = score(network, points, codes, 10)
            curve.append({"iteration": update.step, **update.losses, **scores})
    final = {str(steps): score(network, points, codes, steps) for steps in STEPS}
    return {"curve": curve, "final": final}


def toy_network():
    from jseg.runtime import jt

    class Network(jt.nn.Module):
        def __init__(self):
            sizes = (3 + FEATURES + 1, WIDTH, WIDTH, WIDTH, 3)
            self.layers = jt.nn.ModuleList([jt.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])

        def execute(self, x, t, features):
            h = jt.concat([x.reshape(-1, 3), features, t.reshape(-1, 1)], 1)  # [B, 14]
            for i, layer in enumerate(self.layers):
                h = layer(h if i == 0 else h * jt.sigmoid(h))
            return h.reshape(-1, 3, 1, 1)

    return Network()


def score(network, points: Points, codes: np.ndarray, steps: int) -> Dict[str, float]:
    from jseg.flowseg.encoding import decode
    from jseg.flowseg.ode import euler
    from jseg.metrics import confusion, mean_iou, pixel_accuracy
    from jseg.runtime import jt

    features, labels, rng = points.draw(HELD_OUT, 7, 7, 7)
    seen, x = jt.array(features), rng.standard_normal((HELD_OUT, 3, 1, 1)).astype(np.float32)
    for x in euler(lambda x, t: network(x, t, seen), jt.array(x), steps):
        pass
    (classes,) = decode(x.numpy().reshape(HELD_OUT, 3).T[:, None, :], codes)  # one map of points
    matrix = confusion(classes, labels, CLASSES)
    return {"accuracy": pixel_accuracy(matrix), "miou": mean_iou(matrix)}
