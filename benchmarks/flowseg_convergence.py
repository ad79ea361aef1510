"""Plain flow matching against FlowSeg's corrected velocity: same network, data, noise and number of
iterations, two weights of the loss.

toy: pixels as vectors. 40 classes in 8 groups of 5 that are easily confused, 10 features each; a
network of 3 x 160 units learns the flow from noise to the class's code with the features fed in
(512 points an iteration, Adam, learning rate by cosine to 1 %), through jseg.training.loop and
jseg.flowseg.field. Each arm's learning rate comes from the same short grid, on seeds that are in no
table. Accuracy and mIoU are of 4,000 points that are never trained on, 10 Euler steps if nothing
else is said. camvid: the command train_flowseg on CamVid's train split, mIoU on its val split; each
arm's learning rate by the mIoU on a seed that is in no table. Every run can be stopped and goes on
where it was.

Each finished run is a JSON file in --runs; the same command again takes only those that are
missing, and `report` makes tables, and with matplotlib the figure, of those that are there.

  python benchmarks/flowseg_convergence.py toy --runs runs/convergence
  python benchmarks/flowseg_convergence.py camvid --runs runs/convergence --data CAMVID --steps 4000
  python benchmarks/flowseg_convergence.py report --runs runs/convergence --figure runs/convergence/convergence.png
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

import numpy as np

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

CLASSES, GROUP, FEATURES, SPREAD = (
    40,
    5,
    10,
    0.67,
)  # SPREAD of the classes in a group, for a Bayes accuracy near .79
BATCH, WIDTH, HELD_OUT, VOID = 512, 160, 4000, 255
EVERY = 100  # iterations between evaluations
STEPS = (1, 2, 5, 10, 25)
RATES = (5e-4, 1.5e-3, 5e-3, 1.5e-2, 5e-2)
TUNING_SEEDS, SEEDS = (101, 102), (1, 2, 3, 4, 5)
CAMVID_RATES = (1e-3, 2e-3, 4e-3)
GRIDS = {"toy": (RATES, "accuracy"), "camvid": (CAMVID_RATES, "miou")}
SHOWN = (100, 200, 400, 800, 1500, 3000)


@dataclass(frozen=True)
class Arm:
    """What is compared; all but `rate` is the loss's, the codes', or how much of the training data
    has no label.
    """

    weight: float
    schedule: str = "static"
    codes: str = "kronecker"
    unknown: float = 0.0  # share of the training points without a label
    masked: bool = True  # False: they are drawn to the centre of the cube, as a class of their own

    @property
    def name(self) -> str:
        told = [
            "fm" if self.weight == 0 else f"flowseg-w{self.weight:g}-{self.schedule}",
            self.codes,
        ]
        return "-".join(
            told
            + (
                [f"unknown{self.unknown:g}-{'masked' if self.masked else 'unmasked'}"]
                if self.unknown
                else []
            )
        )


PLAIN, CORRECTED = Arm(0.0), Arm(1.0)
SHORT = (750, 1000, 1500)  # budgets of FlowSeg with the learning rate's whole course in them
ABLATIONS = (
    [Arm(1.0, "1-t"), Arm(1.0, "t"), Arm(0.1)]
    + [Arm(w, codes=kind) for kind in ("r3", "grid", "lattice") for w in (0.0, 1.0)]
    + [Arm(w, unknown=0.2, masked=masked) for masked in (True, False) for w in (0.0, 1.0)]
)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("toy", "camvid", "report"))
    p.add_argument(
        "--runs", type=Path, required=True, help="folder of the results, one file per finished run"
    )
    p.add_argument("--iterations", type=int, default=3000, help="of the toy (default 3000)")
    p.add_argument("--no_ablations", action="store_true", help="of the toy, the two arms alone")
    p.add_argument("--data", help="CamVid's folder: train/ and val/")
    p.add_argument(
        "--steps", type=int, default=4000, help="of each training on CamVid (default 4000)"
    )
    p.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[1, 2, 3],
        help="of the trainings on CamVid (default 1 2 3)",
    )
    p.add_argument(
        "--rates",
        type=float,
        nargs=2,
        metavar=("PLAIN", "FLOWSEG"),
        help="learning rates on CamVid (default: the best of the grid)",
    )
    p.add_argument("--preset", default="small", help="network for CamVid (default small)")
    p.add_argument("--options", default="", help="further options of train_flowseg, in one string")
    p.add_argument("--figure", type=Path, help="PNG of the report; needs matplotlib")
    return p


def main() -> None:
    args = parser().parse_args()
    if args.figure:
        from jseg.outputs.places import check_file

        check_file(args.figure, "--figure")
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.what == "camvid" and not args.data:
        sys.exit("camvid: give CamVid's folder with --data")
    {"toy": run_toy, "camvid": run_camvid, "report": report}[args.what](args)


# ---------------------------------------------------------------- toy


class Points:
    """The task: class centres, drawn once for all runs, and points around them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        groups = rng.normal(0, 3.0, (CLASSES // GROUP, 1, FEATURES))
        self.centres = (
            groups + rng.normal(0, SPREAD, (CLASSES // GROUP, GROUP, FEATURES))
        ).reshape(CLASSES, FEATURES)

    def draw(self, count: int, *seed: int):
        """(features float32 [count, FEATURES], labels int64 [count], the generator that drew
        them).
        """
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        x = self.centres[labels] + rng.standard_normal((count, FEATURES))
        return x.astype(np.float32), labels, rng

    def bayes(self) -> float:
        x, labels, _ = self.draw(50_000, 9, 9)
        distance = ((x[:, None, :] - self.centres) ** 2).sum(2)
        return float((distance.argmin(1) == labels).mean())


def run_toy(args) -> None:
    print(f"Bayes accuracy of the toy {Points().bayes():.3f}", flush=True)
    rates = {}
    for arm in (PLAIN, CORRECTED):
        found = {
            rate: [toy(args, arm, seed, rate)["final"]["10"]["accuracy"] for seed in TUNING_SEEDS]
            for rate in RATES
        }
        rates[arm.weight > 0] = max(found, key=lambda rate: np.mean(found[rate]))
        print(
            f"{arm.name}: accuracy by learning rate "
            + ", ".join(f"{r:g}: {np.mean(a):.3f}" for r, a in found.items()),
            flush=True,
        )
    for seed in SEEDS:
        for arm in (PLAIN, CORRECTED):
            for rate in sorted({rates[False], rates[True]}):
                toy(args, arm, seed, rate)
        for budget in SHORT:
            toy(args, CORRECTED, seed, rates[True], budget)
    for arm in [] if args.no_ablations else ABLATIONS:
        for seed in SEEDS:
            toy(args, arm, seed, rates[arm.weight > 0])


def toy(args, arm: Arm, seed: int, rate: float, iterations: Optional[int] = None) -> Dict:
    """The result of one training, from its file if there is one."""
    iterations = iterations or args.iterations
    path = args.runs / f"toy-{arm.name}-rate{rate:g}-{iterations}-seed{seed}.json"
    if not path.exists():
        started = time.perf_counter()
        result = {
            "kind": "toy",
            "arm": asdict(arm),
            "seed": seed,
            "rate": rate,
            "iterations": iterations,
            **train_toy(arm, seed, rate, iterations),
        }
        result["seconds"] = time.perf_counter() - started
        store(path, result)
        print(
            f"{path.stem}: accuracy {result['final']['10']['accuracy']:.3f} in "
            f"{result['seconds']:.0f} s",
            flush=True,
        )
    return json.loads(path.read_text())


def train_toy(arm: Arm, seed: int, rate: float, iterations: int) -> Dict:
    from jseg import runtime
    from jseg.flowseg.encoding import class_codes, encode
    from jseg.flowseg.field import flow_loss, interpolate
    from jseg.runtime import jt
    from jseg.training.loop import TrainedNetwork, train
    from jseg.training.optimizer import AdamW, trainable

    runtime.seed(seed)
    network, points, codes = toy_network(), Points(), class_codes(CLASSES, arm.codes)
    known_codes = codes if arm.masked else np.vstack([codes, np.zeros((1, 3))])

    def batches(step):
        features, labels, rng = points.draw(BATCH, seed, step)
        x0, t = (
            rng.standard_normal((BATCH, 3, 1, 1)).astype(np.float32),
            rng.random(BATCH).astype(np.float32),
        )
        labels = np.where(
            rng.random(BATCH) < arm.unknown, VOID if arm.masked else CLASSES, labels
        ).reshape(BATCH, 1, 1)
        x1, mask = encode(labels, known_codes, VOID)
        yield (features, x0, x1, interpolate(x0, x1, t), t, labels, mask), 1.0

    def loss(batch):
        features, x0, x1, x_t, t, labels, mask = batch
        velocity = network(jt.array(x_t), jt.array(t), jt.array(features))
        return flow_loss(
            velocity,
            x_t,
            x0,
            x1,
            t,
            labels,
            known_codes,
            weight=arm.weight,
            schedule=arm.schedule,
            mask=mask,
        )

    part, curve = TrainedNetwork("", network, loss, AdamW(trainable(network), rate)), []
    for update in train(
        [part],
        batches,
        iterations,
        0,
        lambda step: rate * (0.01 + 0.99 * (1 + np.cos(np.pi * step / iterations)) / 2),
    ):
        if update.step % EVERY == 0 or update.step == iterations:
            curve.append(
                {"iteration": update.step, **update.losses, **score(network, points, codes, 10)}
            )
    return {
        "curve": curve,
        "final": {str(steps): score(network, points, codes, steps) for steps in STEPS},
    }


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
    features, x = jt.array(features), rng.standard_normal((HELD_OUT, 3, 1, 1)).astype(np.float32)
    for x in euler(lambda x, t: network(x, t, features), jt.array(x), steps):
        pass
    found = decode(
        x.numpy().reshape(HELD_OUT, 3).T[:, None, :], codes
    )  # one map of HELD_OUT pixels
    matrix = confusion(found[0], labels, CLASSES)
    return {"accuracy": pixel_accuracy(matrix), "miou": mean_iou(matrix)}


# ---------------------------------------------------------------- CamVid


def run_camvid(args) -> None:
    rates = dict(zip((0.0, 1.0), args.rates or ()))
    for weight in () if rates else (0.0, 1.0):
        found = {
            rate: camvid(args, weight, TUNING_SEEDS[0], rate, args.steps, (10,))["final"]["10"][
                "miou"
            ]
            for rate in CAMVID_RATES
        }
        rates[weight] = max(found, key=found.get)
        print(
            f"weight {weight:g}: mIoU by learning rate "
            + ", ".join(f"{r:g}: {miou:.3f}" for r, miou in found.items()),
            flush=True,
        )
    for seed in args.seeds:
        for weight, rate in rates.items():
            camvid(args, weight, seed, rate, args.steps, STEPS)


def camvid(args, weight: float, seed: int, rate: float, steps: int, shown: Sequence[int]) -> Dict:
    """The result of one training, from its file if there is one; `shown`: steps of the flow to
    segment with in the end.
    """
    name = (
        f"camvid-{args.preset}-{'fm' if weight == 0 else 'flowseg'}-rate{rate:g}-{steps}-seed{seed}"
    )
    path = args.runs / f"{name}.json"
    if not path.exists():
        store(path, train_camvid(args, args.runs / name, weight, seed, rate, steps, shown))
    return json.loads(path.read_text())


def train_camvid(
    args, folder: Path, weight: float, seed: int, rate: float, steps: int, shown: Sequence[int]
) -> Dict:
    from jseg.commands import train_flowseg
    from jseg.data.datasets import open_dataset
    from jseg.flowseg.predict import Segmenter
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    options = {
        "--data": args.data,
        "--layout": "camvid",
        "--output": folder,
        "--preset": args.preset,
        "--steps": steps,
        "--seed": seed,
        "--weight": weight,
        "--learning_rate": rate,
        "--validate_interval": max(steps // len(shown) // 2, 1),
        "--keep": 1,
    }
    started = time.perf_counter()
    stopped = train_flowseg.main(
        [str(word) for pair in options.items() for word in pair] + args.options.split()
    )
    if stopped or not (folder / "flowseg.safetensors").exists():
        sys.exit(f"{folder.name} was stopped; the same command goes on")
    dataset, final = open_dataset(args.data, "camvid"), {}
    for count in shown:
        segmenter, total = (
            Segmenter.from_file(folder / "flowseg.safetensors", steps=count, shift=1.0),
            0,
        )
        for example in dataset.val:
            image, label = dataset.load(example)
            total = total + confusion(
                segmenter.segment(image, example.stem), label, len(dataset.classes)
            )
        final[str(count)] = {"accuracy": pixel_accuracy(total), "miou": mean_iou(total)}
    with open(folder / "log.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("validation/miou")]
    curve = [
        {
            "iteration": int(row["step"]),
            "accuracy": float(row["validation/accuracy"]),
            "miou": float(row["validation/miou"]),
        }
        for row in rows
    ]
    return {
        "kind": "camvid",
        "preset": args.preset,
        "options": args.options,
        "arm": asdict(Arm(weight)),
        "seed": seed,
        "rate": rate,
        "iterations": steps,
        "curve": curve,
        "final": final,
        "seconds": time.perf_counter() - started,
    }


# ---------------------------------------------------------------- report


def store(path: Path, result: Dict) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    os.replace(part, path)


def report(args) -> None:
    every = [json.loads(path.read_text()) for path in sorted(args.runs.glob("*.json"))]
    found, shown = [run for run in every if run["seed"] not in TUNING_SEEDS], {}
    for kind in ("toy", "camvid"):
        runs = [run for run in found if run["kind"] == kind]
        full = max((run["iterations"] for run in runs if run["arm"] == asdict(PLAIN)), default=0)
        arms = {}
        for weight, arm in ((0, PLAIN), (1, CORRECTED)):
            mine = [run for run in runs if run["arm"] == asdict(arm) and run["iterations"] == full]
            rate = best_rate(
                [run for run in every if run["kind"] == kind and run["arm"] == asdict(arm)],
                *GRIDS[kind],
            )
            arms[weight] = {run["seed"]: run for run in mine if run["rate"] == rate}
        if arms[0] and arms[1]:
            shown[kind] = arms
            print("\n".join(tables(kind, arms, runs, full)))
    if args.figure and shown:
        draw(shown, args.figure)


def best_rate(runs: List[Dict], rates: Sequence[float], metric: str) -> float:
    """The learning rate whose runs on the tuning seeds are best; the second lowest if they are not
    complete.
    """
    found = {
        rate: [
            run["final"]["10"][metric]
            for run in runs
            if run["rate"] == rate and run["seed"] in TUNING_SEEDS
        ]
        for rate in rates
    }
    return max(rates, key=lambda rate: np.mean(found[rate])) if all(found.values()) else rates[1]


def tables(kind: str, arms: Dict, runs: List[Dict], full: int) -> Iterator[str]:
    metrics = ("accuracy", "miou")
    pairs = sorted(set(arms[0]) & set(arms[1]))
    yield f"\n### {kind}: {len(pairs)} seeds, {full} iterations; mean (least to most)\n"
    heads = " | ".join(f"{m}, {a}" for m in metrics for a in ("plain", "FlowSeg"))
    yield f"| | {heads} | seeds FlowSeg wins (mIoU) |\n|---|---|---|---|---|---|"
    curve = {w: {s: {p["iteration"]: p for p in arms[w][s]["curve"]} for s in pairs} for w in arms}
    common = sorted(set.intersection(*(set(c) for w in curve.values() for c in w.values())))
    points = [i for i in common if kind == "camvid" or i in SHOWN]
    rows = [(f"iteration {i}", {w: [curve[w][s][i] for s in pairs] for w in arms}) for i in points]
    rows += [
        (
            f"{n} step{'s' * (n > 1)}",
            {w: [arms[w][s]["final"][str(n)] for s in pairs] for w in arms},
        )
        for n in STEPS
    ]
    for name, values in rows:
        cells = [spread([v[m] for v in values[w]]) for m in metrics for w in (0, 1)]
        wins = sum(b["miou"] > a["miou"] for a, b in zip(values[0], values[1]))
        yield f"| {name} | " + " | ".join(cells) + f" | {wins} of {len(pairs)} |"
    for metric in metrics:
        shares = [
            reached(arms[1][s]["curve"], arms[0][s]["curve"][-1][metric], metric) / full
            for s in pairs
        ]
        there = [share for share in shares if share <= 1]
        yield (
            f"\nIterations FlowSeg needs for plain flow matching's final {metric}, share of "
            f"{full}: "
            + (spread(there) if there else "")
            + (
                f"; not reached by {len(shares) - len(there)} of {len(shares)} seeds"
                if len(there) < len(shares)
                else ""
            )
        )
    others: Dict[str, List[Dict]] = {}
    for run in runs:
        others.setdefault(
            f"{Arm(**run['arm']).name} | {run['rate']:g} | {run['iterations']}", []
        ).append(run)
    yield (
        "\n| arm | rate | iterations | seeds | accuracy, 1 step | accuracy, 10 | mIoU, 10 "
        "|\n|---|---|---|---|---|---|---|"
    )
    for name, group in sorted(others.items()):
        cells = [
            spread([run["final"][n][m] for run in group])
            for n, m in (("1", "accuracy"), ("10", "accuracy"), ("10", "miou"))
        ]
        yield f"| {name} | {len(group)} | " + " | ".join(cells) + " |"
    seconds = [spread([arms[w][s]["seconds"] for s in pairs], 0) for w in (0, 1)]
    yield f"\nSeconds of a run: plain {seconds[0]}, FlowSeg {seconds[1]}"


def reached(curve: List[Dict], target: float, metric: str) -> float:
    """The first iteration at which the curve is at the target; infinite if it never is."""
    return next((p["iteration"] for p in curve if p[metric] >= target), float("inf"))


def spread(values, digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(shown: Dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(shown), 2, figsize=(8, 3.1 * len(shown)), squeeze=False)
    for row, (kind, arms) in zip(axes, shown.items()):
        for w, name, colour in ((0, "plain flow matching", "#888888"), (1, "FlowSeg", "#c03a2b")):
            runs = list(arms[w].values())
            curves = (
                (
                    [p["iteration"] for p in runs[0]["curve"]],
                    [[p["miou"] for p in run["curve"]] for run in runs],
                ),
                (
                    range(len(STEPS)),
                    [[run["final"][str(n)]["miou"] for n in STEPS] for run in runs],
                ),
            )
            for axis, (x, values) in zip(row, curves):
                axis.plot(x, np.mean(values, 0), color=colour, label=name)
                axis.fill_between(
                    x, np.min(values, 0), np.max(values, 0), color=colour, alpha=0.25, linewidth=0
                )
        row[0].set(xlabel="iterations", ylabel=f"mIoU, {kind}, 10 steps")
        row[1].set(xlabel="Euler steps, final weights", xticks=range(len(STEPS)), xticklabels=STEPS)
        row[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
