"""How long FlowSeg takes: a photograph's way to its label map and overlay, stage by stage, with the
weights that ship, and a training step of the "small" preset.

With --beside, a clone of another commit takes turns with this one, each in processes of its own;
the least time of all rounds counts; with one thread it is the processor's time. "Network" is part
of "segmentation"; "photograph" is the sum of reading, segmentation, overlay and writing. "Whole
command" is `scripts/segment.py` from start to exit, imports included. With --profile, Jittor's
profiler adds up the kernels of one evaluation of the network and of one training step, by kind.
Without --image, the photograph is smooth noise.

  OMP_NUM_THREADS=1 python benchmarks/flowseg_speed.py --image photo.jpg --beside ../jseg-before
  OMP_NUM_THREADS=1 python benchmarks/flowseg_speed.py --profile
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent
STAGES = ("reading", "network", "segmentation", "overlay", "writing", "photograph")
WHOLE, TRAINING = "whole command", "training step"
KINDS = (
    ("neural_field, forward", "code«IN_SIZE:8«in0_dim:3«in0_type:float32«in1_dim:2"),
    ("neural_field, backward", "code«IN_SIZE:9«in0_dim:3"),
    ("neural_field, generators backward", "code«IN_SIZE:3«in0_dim:2"),
    ("turned_heads, forward", "code«IN_SIZE:5«in0_dim:3«in0_type:float32«in1_dim:1"),
    ("turned_heads, backward", "code«IN_SIZE:8«in0_dim:3«in0_type:float32«in1_dim:1"),
    ("transformer_block", "code«IN_SIZE:16"),
    ("attention, forward", "code«IN_SIZE:3«in0_dim:3«in0_type:float32«in1_dim:3"),
    ("attention, backward", "code«IN_SIZE:6"),
    ("rms_norm, forward", "code«IN_SIZE:3«in0_dim:3«in0_type:float32«in1_dim:2"),
    ("rms_norm, backward", "code«IN_SIZE:4"),
    ("other operators of ours", "code"),
    ("products by oneDNN", "mkl_matmul"),
)
COPIES = ("reindex", "transpose", "getitem", "setitem", "concat")


def main():
    args = options()
    if args.child:
        sys.path.insert(0, args.child)
        print(json.dumps(measured(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.image = str(photograph(args, Path(folder)))
        compare(args, Path(folder))
    if args.profile:
        sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]
        for name, step in (("evaluation", evaluation()), (TRAINING, training_step(args.crops))):
            profile(name, step, args.repetitions)


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", help="a photograph, resized to --size (default: noise)")
    parser.add_argument("--size", default="1024x768", help="of the photograph (default 1024x768)")
    parser.add_argument("--steps", type=int, default=10, help="of the flow (default 10)")
    parser.add_argument("--crops", type=int, default=8, help="of a training step (default 8)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2, help="processes a side (default 2)")
    parser.add_argument("--beside", help="the folder of another commit of jseg to take turns with")
    parser.add_argument("--profile", action="store_true", help="also the kernels by kind")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def photograph(args, folder):
    """The photograph as a JPEG of the size asked for."""
    from PIL import Image

    size = tuple(map(int, args.size.split("x")))
    if args.image:
        image = Image.open(args.image).convert("RGB")
    else:
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        image = Image.fromarray(noise)
    path = folder / "photograph.jpg"
    image.resize(size, Image.LANCZOS).save(path, quality=92)
    return path


def compare(args, folder):
    """A table of the least times of this clone and of the one beside it."""
    roots = [str(HERE)] + ([str(Path(args.beside).resolve())] if args.beside else [])
    best = [{} for _ in roots]
    for number in range(args.rounds):
        for root, times in zip(roots, best):
            fresh = {WHOLE: whole_command(root, args, folder / f"{number}-{roots.index(root)}")}
            words = [sys.executable, __file__, "--child", root]
            for name in ("image", "steps", "crops", "repetitions"):
                words += [f"--{name}", str(getattr(args, name))]
            out = subprocess.run(words, check=True, stdout=subprocess.PIPE, cwd=root).stdout
            fresh.update(json.loads(out.decode().splitlines()[-1]))
            for name, value in fresh.items():
                times[name] = min(times.get(name, value), value)

    columns = ["ours", "beside", "beside / ours"] if args.beside else ["ours"]
    print(f"| {' | '.join(['what', *columns])} |\n|{'---|' * (len(columns) + 1)}")
    for name in (*STAGES, WHOLE, TRAINING):
        values = [times[name] for times in best]
        cells = [f"{value * 1e3:.1f} ms" for value in values]
        cells += [f"{values[1] / values[0]:.2f}"] if args.beside else []
        print(f"| {' | '.join([name, *cells])} |")


def whole_command(root, args, output):
    """The seconds of scripts/segment.py, in a process of its own."""
    words = [sys.executable, "scripts/segment.py", "--input", args.image, "--output", str(output)]
    began = clock()
    subprocess.run([*words, "--steps", str(args.steps)], check=True, cwd=root, capture_output=True)
    return clock() - began


def measured(args):
    """{what: seconds} of this process's jseg."""
    from jseg.flowseg import predict, segment
    from jseg.images import read_image, resize_image, save_image, to_signed

    segmenter = predict.Segmenter.from_file(predict.SHIPPED, args.steps)
    classes = predict.trained_classes(predict.SHIPPED, len(segmenter.codes))
    image = read_image(args.image)
    crop = to_signed(resize_image(image, *segmenter.window))
    labels = segmenter.segment(image)
    drawn = segment.overlay(image, labels, classes)
    step = training_step(args.crops)
    with tempfile.TemporaryDirectory() as folder:

        def write():
            save_image(Path(folder, "overlay.jpg"), drawn)
            save_image(Path(folder, "labels.png"), labels.astype(np.uint8))

        calls = {
            "reading": lambda: read_image(args.image),
            "network": lambda: segmenter._flow([crop], [(0, "0-0", "x")]),
            "segmentation": lambda: segmenter.segment(image),
            "overlay": lambda: segment.overlay(image, labels, classes),
            "writing": write,
            TRAINING: step,
        }
        times = {name: least(call, args.repetitions) for name, call in calls.items()}
    stages = ("reading", "segmentation", "overlay", "writing")
    return {**times, "photograph": sum(times[name] for name in stages)}


def least(call, repetitions):
    """The least seconds of a call, after two that are not counted."""
    times = []
    for _ in range(repetitions + 2):
        began = clock()
        call()
        times.append(clock() - began)
    return min(times[2:])


def clock():
    """Seconds; with one thread, of this process and those it waited for alone, which other work on
    the machine changes little.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        return time.perf_counter()
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def training_step(crops):
    from kernels import pixnerd_step

    from jseg.flowseg.presets import NETWORKS

    return pixnerd_step(NETWORKS["small"], crops)


def evaluation():
    from kernels import velocity

    from jseg.checkpoint import load_config
    from jseg.flowseg.predict import SHIPPED

    return velocity(load_config(SHIPPED))


def profile(name, step, repetitions):
    """A table of a step's kernels by kind."""
    from jseg.runtime import jt

    alone = least(step, repetitions)
    with jt.log_capture_scope(log_silent=1, log_v=0), jt.profile_scope() as report:
        for _ in range(repetitions):
            step()
    rows = [dict(zip(report[0], row)) for row in report[1:]]
    rows = [row for row in rows if float(row["TotalTime"])]

    spent = {}
    for row in rows:
        seconds, runs = spent.get(kind(row["Name"]), (0, 0))
        seconds += float(row["TotalTime"]) / 1e9 / repetitions
        spent[kind(row["Name"])] = seconds, runs + int(row["Count"]) / repetitions
    total = sum(seconds for seconds, _ in spent.values())
    print(
        f"\n{name}: {alone * 1e3:.1f} ms, kernels {total * 1e3:.1f} ms\n\n"
        "| kind | kernels run | time | fraction |\n|---|---|---|---|"
    )
    for which, (seconds, runs) in sorted(spent.items(), key=lambda item: -item[1][0]):
        print(f"| {which} | {runs:.0f} | {seconds * 1e3:.2f} ms | {seconds / total:.1%} |")


def kind(name):
    """What a kernel is, by its name in the profile."""
    for which, beginning in KINDS:
        if name.startswith(beginning):
            return which
    arithmetic = "binary" in name or "unary" in name or "reduce" in name
    return "copies" if any(word in name for word in COPIES) and not arithmetic else "element-wise"


if __name__ == "__main__":
    main()
