"""Plain flow matching against FlowSeg's corrected velocity: same network, data, noise and number of
iterations, two weights of the loss.

toy: pixels as vectors. 40 classes in 8 groups of 5 that are easily confused, 10 features each; a
network of 3 x 160 units learns the flow from noise to the class's code with the features fed in
(512 points an iteration, Adam, learning rate by cosine to 1 %), through jseg.training.loop and
jseg.flowseg.field. Each arm's learning rate comes from the same short grid, on seeds that are in no
table. Accuracy and mIoU are of 4,000 points that are never trained on, after 10 Euler steps unless
a table says otherwise. camvid: the command train_flowseg on CamVid's train split, mIoU on its val
split; each arm's learning rate by the mIoU on a seed that is in no table. Every run can be stopped,
and the same command resumes it.

Each finished run is a JSON file in --runs; the same command again makes only those that are
missing. `report` makes tables, and with matplotlib the figure, of the finished ones.

  python benchmarks/flowseg_convergence.py toy --runs runs/convergence
  python benchmarks/flowseg_convergence.py camvid --runs runs/convergence --data CAMVID
  python benchmarks/flowseg_convergence.py report --runs runs/convergence \\
      --figure runs/convergence/convergence.png
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Sequence

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from flowseg_convergence_runs import CAMVID_RATES, STEPS, TUNING_SEEDS, Arm, finished


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
    if args.what == "toy":
        from flowseg_convergence_toy import run

        run(args.runs, args.iterations, ablations=not args.no_ablations)
    elif args.what == "camvid":
        run_camvid(args)
    else:
        from flowseg_convergence_report import report

        report(args.runs, args.figure)


# CamVid
# --------------------------------------------------------------------------------------------------


def run_camvid(args) -> None:
    rates = dict(zip((0.0, 1.0), args.rates or ()))
    for weight in () if rates else (0.0, 1.0):
        by_rate = {}
        for rate in CAMVID_RATES:
            result = camvid(args, weight, TUNING_SEEDS[0], rate, (10,))
            by_rate[rate] = result["final"]["10"]["miou"]
        rates[weight] = max(by_rate, key=by_rate.get)
        listed = ", ".join(f"{rate:g}: {miou:.3f}" for rate, miou in by_rate.items())
        print(f"weight {weight:g}: mIoU by learning rate {listed}", flush=True)
    for seed in args.seeds:
        for weight, rate in rates.items():
            camvid(args, weight, seed, rate, STEPS)


def camvid(args, weight: float, seed: int, rate: float, counts: Sequence[int]) -> Dict:
    """The result of one training, from its file if there is one.

    counts: numbers of Euler steps with which the final weights segment.
    """
    arm = "fm" if weight == 0 else "flowseg"
    name = f"camvid-{args.preset}-{arm}-rate{rate:g}-{args.steps}-seed{seed}"
    return finished(
        args.runs / f"{name}.json",
        lambda: train_camvid(args, args.runs / name, weight, seed, rate, counts),
    )


def train_camvid(
    args, folder: Path, weight: float, seed: int, rate: float, counts: Sequence[int]
) -> Dict:
    from jseg.commands import train_flowseg

    options = {
        "--data": args.data,
        "--layout": "camvid",
        "--output": folder,
        "--preset": args.preset,
        "--steps": args.steps,
        "--seed": seed,
        "--weight": weight,
        "--learning_rate": rate,
        "--validate_interval": max(args.steps // len(counts) // 2, 1),
        "--keep": 1,
    }
    words = [str(word) for pair in options.items() for word in pair] + args.options.split()
    started = time.perf_counter()
    stopped = train_flowseg.main(words)
    if stopped or not (folder / "flowseg.safetensors").exists():
        sys.exit(f"{folder.name} was stopped; the same command resumes it")
    return {
        "kind": "camvid",
        "preset": args.preset,
        "options": args.options,
        "arm": asdict(Arm(weight)),
        "seed": seed,
        "rate": rate,
        "iterations": args.steps,
        "curve": _curve(folder / "log.csv"),
        "final": _scores(args.data, folder / "flowseg.safetensors", counts),
        "seconds": time.perf_counter() - started,
    }


def _scores(data: str, weights: Path, counts: Sequence[int]) -> Dict[str, Dict[str, float]]:
    """{number of Euler steps: accuracy and mIoU on the val split}."""
    from jseg.data.datasets import open_dataset
    from jseg.flowseg.predict import Segmenter
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    dataset, scores = open_dataset(data, "camvid"), {}
    for count in counts:
        segmenter, matrix = Segmenter.from_file(weights, steps=count, shift=1.0), 0
        for example in dataset.val:
            image, label = dataset.load(example)
            prediction = segmenter.segment(image, example.stem)
            matrix = matrix + confusion(prediction, label, len(dataset.classes))
        scores[str(count)] = {"accuracy": pixel_accuracy(matrix), "miou": mean_iou(matrix)}
    return scores


def _curve(log: Path) -> List[Dict]:
    """The validations of a training, from its log.csv."""
    with open(log, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("validation/miou")]
    return [
        {
            "iteration": int(row["step"]),
            "accuracy": float(row["validation/accuracy"]),
            "miou": float(row["validation/miou"]),
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
