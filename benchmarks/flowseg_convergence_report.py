"""Tables and the figure of flowseg_convergence.py, from the files of its finished runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

import numpy as np
from flowseg_convergence_runs import (
    CAMVID_RATES,
    CORRECTED,
    PLAIN,
    STEPS,
    TOY_RATES,
    TUNING_SEEDS,
    Arm,
)

METRICS = ("accuracy", "miou")
GRIDS = {"toy": (TOY_RATES, "accuracy"), "camvid": (CAMVID_RATES, "miou")}
SHOWN = (100, 200, 400, 800, 1500, 3000)  # iterations of the toy in the table
NAMES = {0: "plain", 1: "FlowSeg"}


def report(folder: Path, figure: Optional[Path]) -> None:
    """Print the tables of each task of which both arms are there, and draw its curves."""
    every = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    complete = {}
    for kind in ("toy", "camvid"):
        mine = [run for run in every if run["kind"] == kind]
        runs = [run for run in mine if run["seed"] not in TUNING_SEEDS]
        plain = [run["iterations"] for run in runs if run["arm"] == asdict(PLAIN)]
        full = max(plain, default=0)

        # Of each arm, the runs of full length at its best rate, by seed.
        arms = {}
        for weight, arm in ((0, PLAIN), (1, CORRECTED)):
            rate = best_rate([run for run in mine if run["arm"] == asdict(arm)], *GRIDS[kind])
            arms[weight] = {
                run["seed"]: run
                for run in runs
                if (run["arm"], run["iterations"], run["rate"]) == (asdict(arm), full, rate)
            }
        if arms[0] and arms[1]:
            complete[kind] = arms
            print("\n".join([*comparison(kind, arms, full), *budgets(arms, full), *all_arms(runs)]))
            seconds = [spread([run["seconds"] for run in arms[w].values()], 0) for w in (0, 1)]
            print(f"\nSeconds of a run: plain {seconds[0]}, FlowSeg {seconds[1]}")
    if figure and complete:
        draw(complete, figure)


def best_rate(runs: List[Dict], rates: Sequence[float], metric: str) -> float:
    """The learning rate whose runs on the tuning seeds are best; the second lowest if they are not
    complete.
    """
    tuning = [run for run in runs if run["seed"] in TUNING_SEEDS]
    values = {
        rate: [run["final"]["10"][metric] for run in tuning if run["rate"] == rate]
        for rate in rates
    }
    if not all(values.values()):
        return rates[1]
    return max(rates, key=lambda rate: np.mean(values[rate]))


def seeds_of(arms: Dict) -> List[int]:
    """The seeds with which both arms are there."""
    return sorted(set(arms[0]) & set(arms[1]))


def comparison(kind: str, arms: Dict, full: int) -> Iterator[str]:
    """Both arms over the iterations, and over the Euler steps of the final weights."""
    seeds = seeds_of(arms)
    yield f"\n### {kind}: {len(seeds)} seeds, {full} iterations; mean (least to most)\n"
    heads = " | ".join(f"{metric}, {name}" for metric in METRICS for name in NAMES.values())
    yield f"| | {heads} | seeds FlowSeg wins (mIoU) |\n|---|---|---|---|---|---|"

    # {row: {weight: [scores of each seed]}}
    curves = {
        weight: {
            seed: {point["iteration"]: point for point in arms[weight][seed]["curve"]}
            for seed in seeds
        }
        for weight in arms
    }
    common = set.intersection(*(set(curve) for arm in curves.values() for curve in arm.values()))
    rows = {
        f"iteration {i}": {w: [curves[w][seed][i] for seed in seeds] for w in arms}
        for i in sorted(common)
        if kind == "camvid" or i in SHOWN
    }
    for n in STEPS:
        name = f"{n} step{'s' * (n > 1)}"
        rows[name] = {w: [arms[w][seed]["final"][str(n)] for seed in seeds] for w in arms}

    for name, scores in rows.items():
        cells = [spread([s[metric] for s in scores[w]]) for metric in METRICS for w in (0, 1)]
        wins = sum(b["miou"] > a["miou"] for a, b in zip(scores[0], scores[1]))
        yield f"| {name} | " + " | ".join(cells) + f" | {wins} of {len(seeds)} |"


def budgets(arms: Dict, full: int) -> Iterator[str]:
    """How much of the iterations FlowSeg needs for the final score of plain flow matching."""
    for metric in METRICS:
        needed = [
            reached(arms[1][seed]["curve"], arms[0][seed]["curve"][-1][metric], metric) / full
            for seed in seeds_of(arms)
        ]
        fractions = [fraction for fraction in needed if fraction <= 1]
        missed = len(needed) - len(fractions)
        line = (
            f"\nIterations FlowSeg needs for plain flow matching's final {metric}, as a fraction "
            f"of {full}: {spread(fractions) if fractions else ''}"
        )
        yield line + (f"; not reached by {missed} of {len(needed)} seeds" if missed else "")


def all_arms(runs: List[Dict]) -> Iterator[str]:
    """Every arm, rate and budget, ablations among them."""
    groups: Dict[str, List[Dict]] = {}
    for run in runs:
        name = f"{Arm(**run['arm']).name} | {run['rate']:g} | {run['iterations']}"
        groups.setdefault(name, []).append(run)
    yield (
        "\n| arm | rate | iterations | seeds | accuracy, 1 step | accuracy, 10 | mIoU, 10 "
        "|\n|---|---|---|---|---|---|---|"
    )
    columns = (("1", "accuracy"), ("10", "accuracy"), ("10", "miou"))
    for name, group in sorted(groups.items()):
        cells = [spread([run["final"][n][metric] for run in group]) for n, metric in columns]
        yield f"| {name} | {len(group)} | " + " | ".join(cells) + " |"


def reached(curve: List[Dict], target: float, metric: str) -> float:
    """The first iteration at which the curve is at the target; infinite if it never is."""
    return next((p["iteration"] for p in curve if p[metric] >= target), float("inf"))


def spread(values, digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(complete: Dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height = 3.1 * len(complete)
    figure, axes = pyplot.subplots(len(complete), 2, figsize=(8, height), squeeze=False)
    for (left, right), (kind, arms) in zip(axes, complete.items()):
        for w, name, colour in ((0, "plain flow matching", "#888888"), (1, "FlowSeg", "#c03a2b")):
            runs = list(arms[w].values())
            iterations = [point["iteration"] for point in runs[0]["curve"]]
            over_iterations = [[point["miou"] for point in run["curve"]] for run in runs]
            over_steps = [[run["final"][str(n)]["miou"] for n in STEPS] for run in runs]
            band(left, iterations, over_iterations, name, colour)
            band(right, range(len(STEPS)), over_steps, name, colour)
        left.set(xlabel="iterations", ylabel=f"mIoU, {kind}, 10 steps")
        left.legend(frameon=False)
        right.set(xlabel="Euler steps, final weights", xticks=range(len(STEPS)), xticklabels=STEPS)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def band(axis, x, values, name: str, colour: str) -> None:
    """The mean of several curves, and the range that they cover."""
    axis.plot(x, np.mean(values, 0), color=colour, label=name)
    axis.fill_between(
        x, np.min(values, 0), np.max(values, 0), color=colour, alpha=0.25, linewidth=0
    )
