"""Quality against UNet calls: samplers, their steps, their spacing and the interval of guidance, on
trained weights.

The stages are the release's (noise at t = 600, 640 and 400, guidance 3.5, 3.7, 3.7) as the preset
`fine` runs them, on drawings that no training has seen (shipped_weights.py). The reference is DDIM
with 500 steps a stage, or all there are where t = 400 has fewer. Measured beside it, all from the
same noise: the distance of the latents after the first stage, which begins the same for all, and
after the last, in units of the reference's root mean square; the root mean square difference of the
images in levels of 255; and the score terms of shipped_weights.py: style similarity with the
image's reference, and label agreement by label_classifier.py. Calls are counted as the release
runs them: 2 for a guided step.

Each finished configuration is a file in --runs; the same command again takes only those that are
missing. `report` makes tables, and with matplotlib the figure, of those that are there.

  python benchmarks/samplers.py run --runs runs/samplers --classifier classifier.npz
  python benchmarks/samplers.py report --runs runs/samplers --figure runs/samplers/samplers.png
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

STARTS, GUIDANCE, ALL = (600, 640, 400), (3.5, 3.7, 3.7), (0, 999)
COUNTS = (10, 15, 20, 25, 50)
INTERVALS = ((100, 999), (200, 999), (300, 999), (0, 400), (0, 300), (100, 500))
SPLITS = ((8, 12, 12), (12, 12, 8), (6, 12, 14))  # of 32 guided steps, the first being the preset's
REFERENCE, AT = "ddim 500", 20


class Plan(NamedTuple):
    """A configuration: steps of each stage, or of all; original timesteps with guidance."""

    sampler: str
    steps: Tuple[int, ...]
    spacing: str = "uniform"
    interval: Tuple[int, int] = ALL
    guided: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        steps = self.steps if len(set(self.steps)) > 1 else self.steps[:1]
        parts = [self.sampler, "+".join(map(str, steps))]
        if self.spacing != "uniform":
            parts.append(self.spacing)
        if not self.guided:
            parts.append("unguided")
        if self.interval != ALL:
            parts.append(f"guided {self.interval[0]}-{self.interval[1]}")
        if self.seed:
            parts.append(f"seed {self.seed}")
        return " ".join(parts)


def plans() -> List[Plan]:
    # steps and spacing
    plans = [Plan("ddim", (500,)), Plan("dpmpp_2m", (50,), seed=1)]
    for count in COUNTS:
        plans += [Plan("dpmpp_2m", (count,)), Plan("ddim", (count,))]
        plans += [Plan("dpmpp_2m", (count,), "quadratic")]
    for count in (10, 20):
        plans += [Plan("dpmpp_2m", (count,), spacing) for spacing in ("lambda", "rho")]

    # steps of the stages, guidance, noise
    plans += [Plan("dpmpp_2m", steps, "quadratic") for steps in SPLITS]
    plans += [Plan("dpmpp_2m", SPLITS[0], "rho")]
    plans += [Plan("dpmpp_2m", (AT,), "quadratic", interval) for interval in INTERVALS]
    plans += [Plan("dpmpp_2m", (AT,), "quadratic", guided=False)]
    for count in (10, 25):
        plans += [Plan(sampler, (count,)) for sampler in ("dpmpp_2m_sde", "ancestral")]
    return plans


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("run", "report"))
    p.add_argument("--runs", type=Path, required=True, help="folder of the results")
    p.add_argument(
        "--model_path", help="weights of the UNet (default: as the test command finds them)"
    )
    p.add_argument("--ae_path", help="weights of the autoencoder (default: as --model_path)")
    p.add_argument("--count", type=int, default=16, help="images (default 16)")
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--classifier", metavar="FILE", help="as for shipped_weights.py")
    p.add_argument(
        "--plan",
        action="append",
        default=[],
        metavar="SAMPLER,STEPS[,STEPS,STEPS][,SPACING][,LOW-HIGH]",
        help="measure these instead of the list, as dpmpp_2m,12,12,8 or ddim,20,uniform,100-999",
    )
    p.add_argument("--figure", type=Path, help="PNG of the report; needs matplotlib")
    return p


def main() -> None:
    args = parser().parse_args()
    if args.figure:
        from jseg.outputs.places import check_file

        check_file(args.figure, "--figure")
    args.runs.mkdir(parents=True, exist_ok=True)
    {"run": run, "report": report}[args.what](args)


def plan_named(text: str) -> Plan:
    sampler, *others = text.split(",")
    steps = tuple(int(part) for part in others if part.isdigit())
    interval = [tuple(map(int, part.split("-"))) for part in others if "-" in part]
    spacing = [part for part in others if part.isalpha()]
    return Plan(sampler, steps, *(spacing or ["uniform"]), *(interval or [ALL]))


def pipeline_of(plan: Plan):
    from jseg.ldm.pipelines import check_pipeline
    from jseg.ldm.presets import PIPELINES, Pipeline, Stage

    fine, stages = PIPELINES["fine"], []
    for number, (start, guidance) in enumerate(zip(STARTS, GUIDANCE)):
        steps = plan.steps[number % len(plan.steps)]
        stages.append(
            Stage(
                guidance if plan.guided else 1.0,
                "",
                start,
                color_transfer=number > 0,
                sampler=plan.sampler,
                steps=min(steps, start + 1),
                spacing=plan.spacing,
                guidance_low=plan.interval[0],
                guidance_high=plan.interval[1],
            )
        )
    return check_pipeline(Pipeline(tuple(stages), fine.aligned, fine.float_handoff, fine.rounding))


# ---------------------------------------------------------------- runs


def run(args) -> None:
    import label_classifier
    from shipped_weights import held_out

    from jseg.ldm.refine import Synthesizer
    from jseg.ldm.weights import find_weights

    class Recorder(Synthesizer):
        """A Synthesizer that keeps the latent at every stage's end."""

        def _decoded(self, z):
            self.latents.append(z.numpy())
            return super()._decoded(z)

    weights = find_weights(args.model_path, args.ae_path, sha256=True)
    files = weights.model, weights.autoencoder
    synthesizer = Recorder.from_files(*files, "fine", args.device)
    pairs = held_out(args.count, *synthesizer.size)
    classifier = label_classifier.trained_or_loaded(args.classifier, 2000, 1000, *synthesizer.size)
    for plan in [plan_named(text) for text in args.plan] or plans():
        path = args.runs / (plan.name.replace(" ", "_") + ".json")
        if not path.exists():
            result = {
                "plan": plan._asdict(),
                "name": plan.name,
                "weights": [file.sha256[:16] for file in files],
                "count": args.count,
                **measured(synthesizer, plan, pairs, classifier, args, path.with_suffix(".npz")),
            }
            store(path, result)
            print(
                f"{plan.name}: {result['seconds']:.0f} s, style {np.mean(result['style']):.3f}, "
                f"labels {np.mean(result['agreement']):.3f}",
                file=sys.stderr,
                flush=True,
            )


def measured(synthesizer, plan: Plan, pairs, classifier, args, arrays: Path) -> Dict:
    import label_classifier
    from shipped_weights import made

    from jseg.ldm.pipelines import unet_calls
    from jseg.metrics import mask_accuracy, style_similarity

    synthesizer.pipeline, synthesizer.latents = pipeline_of(plan), []
    start = time.perf_counter()
    options = argparse.Namespace(batch_size=args.batch_size, seed=plan.seed)
    images = made(synthesizer, pairs, options)
    seconds = time.perf_counter() - start

    # The recorder has the latents batch by batch, stage by stage in each.
    stages = len(STARTS)
    by_stage = [np.concatenate(synthesizer.latents[stage::stages]) for stage in range(stages)]
    np.savez(arrays, latents=np.stack(by_stage), images=np.stack(images))  # [stages, N, 3, h, w]

    maps = label_classifier.predict(classifier, images)
    styles = [style_similarity(x, pair.reference, "corrected") for x, pair in zip(images, pairs)]
    return {
        "calls": unet_calls(synthesizer.pipeline),
        "seconds": seconds,
        "style": styles,
        "agreement": [float(mask_accuracy(x, pair.label)) for x, pair in zip(maps, pairs)],
    }


def store(path: Path, result: Dict) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    os.replace(part, path)


# ---------------------------------------------------------------- report


class Run:
    """A finished configuration beside the reference."""

    def __init__(self, path: Path, reference: Optional["Run"] = None):
        self.__dict__.update(json.loads(path.read_text()))
        lists = {name: value for name, value in self.plan.items() if isinstance(value, list)}
        self.plan = Plan(**{**self.plan, **{name: tuple(v) for name, v in lists.items()}})
        arrays = np.load(path.with_suffix(".npz"))
        self.latents = arrays["latents"].astype(np.float64)
        self.images = arrays["images" if "images" in arrays else "pictures"].astype(np.float64)
        if reference:
            difference = ((self.latents - reference.latents) ** 2).mean((2, 3, 4))  # [stages, N]
            distance = np.sqrt(difference / (reference.latents**2).mean((2, 3, 4)))
            self.first, self.last = distance[0].mean(), distance[-1].mean()
            self.levels = np.sqrt(((self.images - reference.images) ** 2).mean((1, 2, 3))).mean()
            self.gains = [
                np.array(getattr(self, term)) - getattr(reference, term)
                for term in ("style", "agreement")
            ]

    def row(self) -> str:
        distances = f"{self.first:.4f} | {self.last:.4f} | {self.levels:.2f}"
        cells = [self.name, str(self.calls), distances]
        for term, gain in zip((self.style, self.agreement), self.gains):
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            cells.append(f"{np.mean(term):.3f} ({gain.mean():+.3f} ± {error:.3f})")
        return "| " + " | ".join(cells) + " |"


LINES = {
    ("ddim", "uniform"): ("DDIM", "#888888"),
    ("dpmpp_2m", "uniform"): ("2M", "#e5a33b"),
    ("dpmpp_2m", "quadratic"): ("2M, quadratic", "#c03a2b"),
}


def report(args) -> None:
    reference = Run(args.runs / (REFERENCE.replace(" ", "_") + ".json"))
    runs = [Run(path, reference) for path in sorted(args.runs.glob("*.json"))]
    print(
        f"{reference.count} images of {'x'.join(map(str, reference.images.shape[2:0:-1]))}; "
        f"weights {', '.join(reference.weights)}; distances and, in brackets, differences ± "
        f"standard errors are from `{REFERENCE}` ({reference.calls:,} calls)."
    )
    plain = [r for r in runs if r.plan.interval == ALL and r.plan.guided]
    equal = [r for r in plain if len(r.plan.steps) == 1]
    curves = [r for r in equal if (r.plan.sampler, r.plan.spacing) in LINES and not r.plan.seed]
    spacings = [r for r in equal if r.plan.sampler == "dpmpp_2m" and r.plan.steps[0] in (10, AT)]
    splits = [r for r in plain if len(r.plan.steps) > 1 or r.name == "dpmpp_2m 10 quadratic"]
    noises = [r for r in plain if r.plan.sampler in ("ancestral", "dpmpp_2m_sde") or r.plan.seed]
    intervals = [r for r in runs if r not in plain or r.name == f"dpmpp_2m {AT} quadratic"]

    show("Steps", curves)
    show("Spacing of the steps", spacings)
    show("Steps of the three stages, 64 calls", splits)
    show("Other noise", noises)
    show("Interval of guidance", intervals)
    if args.figure:
        draw(runs, reference, args.figure)


def show(title: str, runs: List[Run]) -> None:
    print(
        f"\n### {title}\n\n| sampler, steps a stage | calls | latent, first stage | latent, "
        "last | image, levels | style similarity | label agreement "
        "|\n|---|---|---|---|---|---|---|"
    )

    def order(r):
        return r.plan.sampler, r.plan.spacing != "uniform", r.calls, r.name

    for r in sorted(runs, key=order):
        print(r.row())


def draw(runs: List[Run], reference: Run, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (distances, scores, intervals) = pyplot.subplots(1, 3, figsize=(12, 3.6))
    draw_curves(distances, scores, runs, reference)
    draw_intervals(intervals, runs)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def draw_curves(distances, scores, runs: List[Run], reference: Run) -> None:
    """Distances and score terms against calls: a line for each row of LINES, a star for `fine`."""
    for (sampler, spacing), (label, colour) in LINES.items():
        line = [r for r in runs if r.plan == Plan(sampler, r.plan.steps[:1], spacing)]
        line = sorted((r for r in line if r.name != REFERENCE), key=lambda r: r.calls)
        calls, style = [r.calls for r in line], {"color": colour}
        first, last = [r.first for r in line], [r.last for r in line]
        distances.plot(calls, first, "o-", label=f"{label}, first stage", **style)
        distances.plot(calls, last, "o--", label=f"{label}, last", **style)
        agreement = [np.mean(r.agreement) for r in line]
        similarity = [np.mean(r.style) for r in line]
        scores.plot(calls, agreement, "o-", label=f"{label}, label agreement", **style)
        scores.plot(calls, similarity, "o--", label=f"{label}, style similarity", **style)

    star = {"color": "black", "markersize": 10, "zorder": 3}
    for r in runs:
        if r.plan == Plan("dpmpp_2m", SPLITS[0], "quadratic"):
            distances.plot(r.calls, r.last, "*", label="preset fine, last", **star)
            scores.plot([r.calls] * 2, [np.mean(r.agreement), np.mean(r.style)], "*", **star)
    for values in (reference.agreement, reference.style):
        scores.axhline(np.mean(values), color="#bbbbbb", linewidth=0.8, zorder=0)

    ylabel = f"distance from {REFERENCE}"
    distances.set(xscale="log", yscale="log", xlabel="UNet calls", ylabel=ylabel)
    scores.set(xscale="log", xlabel="UNet calls", ylabel="score terms")
    for axis in (distances, scores):
        axis.legend(frameon=False, fontsize=7)
        axis.set_xticks([6 * count for count in COUNTS], [str(6 * count) for count in COUNTS])
        axis.minorticks_off()
    heights = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05)
    distances.set_yticks(heights, [str(height) for height in heights])


def draw_intervals(axis, runs: List[Run]) -> None:
    """Style similarity against label agreement for the intervals of guidance."""
    like = Plan("dpmpp_2m", (AT,), "quadratic")
    for r in runs:
        plan = r.plan
        if (plan.sampler, plan.steps, plan.spacing) != (like.sampler, like.steps, like.spacing):
            continue
        interval = "all" if plan.interval == ALL else f"{plan.interval[0]} to {plan.interval[1]}"
        name = interval if plan.guided else "unguided"
        point = np.mean(r.style), np.mean(r.agreement)
        axis.plot(*point, "o", color="#c03a2b")
        place = {"textcoords": "offset points", "xytext": (5, 3), "fontsize": 7}
        axis.annotate(f"{name} ({r.calls})", point, **place)
    axis.set(
        xlabel=f"style similarity, {AT} steps a stage",
        ylabel="label agreement",
        title="guided from t to t (UNet calls)",
    )
    axis.margins(x=0.22, y=0.1)
    axis.locator_params(axis="x", nbins=5)


if __name__ == "__main__":
    main()
