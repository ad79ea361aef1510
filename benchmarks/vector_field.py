"""Figures of the two failures of plain flow matching on class codes, and of their cure, from
jseg.flowseg's own functions.

force: what pulls an estimate at a distance r from its class's code, median over classes and
directions. Plain flow matching's pull is r itself and vanishes; the correction's is largest where
the class is decided, at half the distance between neighbouring codes. field: the pull towards one
of six codes in a plane, on the cells of the nearest codes: plain flow matching's crosses other
classes' codes as if they were not there, the corrected one turns away from them. trajectories:
points whose class is uncertain, one of two codes with probabilities .6 and .4, under the velocities
that are optimal for each loss (plain: the posterior mean, in closed form; corrected: the zero of
the loss's mean gradient), Euler steps from noise.

The numbers are kept in --numbers; where that file exists it is only drawn, so drawing, which needs
matplotlib, may have a Python of its own. Markdown tables go to standard output.

  python benchmarks/vector_field.py --numbers runs/vector_field.npz --figures runs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Dict

import numpy as np

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

DISTANCES = np.geomspace(0.001, 1.0, 31)
PRINTED = (0.001, 0.01, 0.032, 0.1, 0.2, 0.5)
FORCES = {
    "N = 150, eps 1e-2": (150, 1e-2),
    "N = 150, eps 1e-3": (150, 1e-3),
    "N = 11, eps 1e-2": (11, 1e-2),
}
DIRECTIONS = 64
ANGLES = np.pi / 2 + 2 * np.pi * np.arange(5) / 5
SIX = np.array(
    [[0.0, 0.0, 0.0]] + [[0.85 * np.cos(a), 0.85 * np.sin(a), 0.0] for a in ANGLES]
)  # one in the middle of five
OWN = 1  # the class to which the field belongs
PAIR, CHANCES = (1, 3), (0.6, 0.4)  # the classes in question, with the middle one between them
GRID, POINTS, STEPS = 19, 400, (1, 2, 5, 10, 25)
DESCENT, RATE = 600, 0.01  # to the zero of the corrected loss's gradient
FIGURES = ("flowseg_force.png", "flowseg_field.png", "flowseg_trajectories.png")


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--numbers", type=Path, required=True, help="file of the numbers, .npz")
    p.add_argument(
        "--figures", type=Path, help="folder of the figures flowseg_*.png (default: none)"
    )
    args = p.parse_args()
    if args.figures:
        from jseg.outputs.places import check_file

        for name in FIGURES:
            check_file(args.figures / name, "--figures")
    if not args.numbers.exists():
        args.numbers.parent.mkdir(parents=True, exist_ok=True)
        np.savez(args.numbers, **{**forces(), **field(), **trajectories()})
    with np.load(args.numbers) as file:
        numbers = dict(file)
    report(numbers)
    if args.figures:
        draw(numbers, args.figures)


def pull(
    points: np.ndarray, labels: np.ndarray, codes: np.ndarray, eps: float = 1e-2
) -> np.ndarray:
    """The correction's pull -grad Phi at points [n, 3] of those classes [n]."""
    from jseg.flowseg.potential import correction
    from jseg.runtime import jt

    x = jt.array(
        np.ascontiguousarray(points.T[None, :, None, :]).astype(np.float32)
    )  # [1, 3, 1, n]
    gradient, _ = correction(
        x, labels.astype(np.int32).reshape(1, 1, -1), jt.array(codes.astype(np.float32)), 1.0, eps
    )
    return -gradient.numpy()[0, :, 0].T.astype(np.float64)


def forces() -> Dict[str, np.ndarray]:
    from jseg.flowseg.encoding import class_codes

    directions = np.random.default_rng(0).standard_normal((DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = []
    for classes, eps in FORCES.values():
        codes = class_codes(classes)
        labels = np.repeat(np.arange(classes), DIRECTIONS)
        sizes = [
            np.linalg.norm(
                pull(codes[labels] + r * np.tile(directions, (classes, 1)), labels, codes, eps),
                axis=1,
            )
            for r in DISTANCES
        ]
        found.append([np.percentile(size, (25, 50, 75)) for size in sizes])
    return {"forces": np.array(found)}


def field() -> Dict[str, np.ndarray]:
    axis = np.linspace(-1.1, 1.1, GRID)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    points = np.hstack([points, np.zeros((len(points), 1))])
    plain = SIX[OWN] - points
    return {
        "grid": points,
        "plain": plain,
        "corrected": plain + pull(points, np.full(len(points), OWN), SIX),
    }


def posterior(x: np.ndarray, t: float) -> np.ndarray:
    """Probabilities [n, 2] of the pair's classes at x [n, 3] on the path from Gaussian noise at
    time t.
    """
    logits = np.stack(
        [
            np.log(chance) - ((x - t * SIX[k]) ** 2).sum(1) / (2 * (1 - t) ** 2)
            for k, chance in zip(PAIR, CHANCES)
        ],
        1,
    )
    share = np.exp(logits - logits.max(1, keepdims=True))
    return share / share.sum(1, keepdims=True)


def velocity(x: np.ndarray, t: float, corrected: bool) -> np.ndarray:
    """The optimal velocity [n, 3]: its estimate of the end is the posterior mean, or where the
    corrected loss's mean gradient is 0.

    That gradient is, per unit of velocity, (end - mean) / (1 - t) + sum_k p_k grad Phi_k(end); it
    is followed down from the mean.
    """
    share = posterior(x, t)
    mean = share @ SIX[list(PAIR)]
    end = mean.copy()
    for _ in range(DESCENT if corrected else 0):
        drawn = sum(
            share[:, i : i + 1] * pull(end, np.full(len(end), k), SIX) for i, k in enumerate(PAIR)
        )
        end += RATE * (drawn - (end - mean) / (1 - t)) * (1 - t)
    return (end - x) / (1 - t)


def trajectories() -> Dict[str, np.ndarray]:
    from jseg.flowseg.encoding import decode

    start = np.random.default_rng(1).standard_normal((POINTS, 3))
    start[:, 2] = 0  # in the codes' plane, where the figure can show them
    ends, paths = [], []
    for corrected in (False, True):
        for steps in STEPS:
            path = [start]
            for step in range(steps):
                path.append(path[-1] + velocity(path[-1], step / steps, corrected) / steps)
            ends.append(decode(path[-1].T[:, None, :], SIX)[0])
            if steps == 10:
                paths.append(path)
    return {"ends": np.array(ends).reshape(2, len(STEPS), POINTS), "paths": np.array(paths)}


def report(numbers: Dict[str, np.ndarray]) -> None:
    print(
        "| pull at distance | "
        + " | ".join(f"{r:g}" for r in PRINTED)
        + " |\n|---|"
        + "---|" * len(PRINTED)
    )
    print("| plain flow matching (t = 0) | " + " | ".join(f"{r:g}" for r in PRINTED) + " |")
    at = [int(np.abs(np.log(DISTANCES / r)).argmin()) for r in PRINTED]
    for name, force in zip(FORCES, numbers["forces"]):
        print(f"| correction, {name} | " + " | ".join(f"{force[i, 1]:.3g}" for i in at) + " |")
    print(
        "\n| where points of an uncertain class end, steps | "
        + " | ".join(map(str, STEPS))
        + " |\n|---|"
        + "---|" * len(STEPS)
    )
    for name, ends in zip(("plain", "corrected"), numbers["ends"]):
        for told, classes in (
            ("the likelier class", PAIR[:1]),
            ("the other of the two", PAIR[1:]),
            ("a third class", [k for k in range(len(SIX)) if k not in PAIR]),
        ):
            print(
                f"| {name}: {told} | "
                + " | ".join(f"{np.isin(one, classes).mean():.1%}" for one in ends)
                + " |"
            )
    codes = SIX[[k for k in range(len(SIX)) if k not in PAIR]]
    for name, path in zip(("plain", "corrected"), numbers["paths"]):
        late = path[len(path) // 2 :]
        near = np.linalg.norm(late[:, :, None] - codes, axis=-1).min((0, 2)) < 0.2
        print(
            f"\n{name}: {near.mean():.1%} of the paths of 10 steps come, in the second half, "
            "nearer than 0.2 to a third class's code"
        )


def draw(numbers: Dict[str, np.ndarray], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 3.4))
    axis.loglog(DISTANCES, DISTANCES, color="#888888", label="plain flow matching")
    for name, force, colour in zip(FORCES, numbers["forces"], ("#c03a2b", "#e6953c", "#3b6fb5")):
        axis.loglog(DISTANCES, force[:, 1], color=colour, label=f"correction, {name}")
        axis.fill_between(
            DISTANCES, force[:, 0], force[:, 2], color=colour, alpha=0.15, linewidth=0
        )
    axis.set(xlabel="distance from the class's code", ylabel="pull")
    axis.legend(frameon=False, fontsize=8)
    save(figure, folder / FIGURES[0])
    names = ("plain flow matching", "FlowSeg")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    for axis, name, arrows in zip(axes, names, (numbers["plain"], numbers["corrected"])):
        size = np.linalg.norm(arrows, axis=1)
        shown = arrows / np.maximum(size, 1e-9)[:, None]
        cells(axis)
        grid = numbers["grid"]
        drawn = axis.quiver(
            grid[:, 0],
            grid[:, 1],
            shown[:, 0],
            shown[:, 1],
            np.log10(size),
            cmap="viridis",
            scale=22,
            width=0.005,
            clim=(-0.7, 1.2),
        )
        axis.plot(*SIX[OWN, :2], "*", color="#c03a2b", markersize=14)
        axis.set_title(name)
    figure.colorbar(drawn, ax=axes, label="log10 of the pull", shrink=0.8)
    save(figure, folder / FIGURES[1], tight=False)
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 4))
    for axis, name, path in zip(axes, names, numbers["paths"]):
        cells(axis)
        axis.plot(path[:, :60, 0], path[:, :60, 1], color="#444444", linewidth=0.6, alpha=0.6)
        axis.plot(path[-1, :60, 0], path[-1, :60, 1], ".", color="#222222", markersize=4)
        axis.plot(SIX[list(PAIR), 0], SIX[list(PAIR), 1], "*", color="#c03a2b", markersize=14)
        axis.set_title(f"{name}, 10 steps")
    save(figure, folder / FIGURES[2])


def cells(axis) -> None:
    """The codes, and the regions that decode to each."""
    side = np.linspace(-1.2, 1.2, 300)
    points = np.stack(np.meshgrid(side, side), -1)
    nearest = ((points[:, :, None] - SIX[:, :2]) ** 2).sum(-1).argmin(-1)
    axis.imshow(
        nearest,
        origin="lower",
        extent=(-1.2, 1.2, -1.2, 1.2),
        cmap="Pastel1",
        alpha=0.7,
        interpolation="nearest",
    )
    axis.plot(SIX[:, 0], SIX[:, 1], "o", color="black", markersize=4)
    axis.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xticks=[], yticks=[])


def save(figure, path: Path, tight: bool = True) -> None:
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
