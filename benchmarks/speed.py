"""Guided step, whole stage, encoding, decoding and training step: ours, the official release and
PyTorch's SDM on this device, in one run.

Sides alternate, each measurement in a process of its own; medians of all repetitions count, without
the first of each process, which may compile. Every side computes the same: a guided step in its own
way; the release's stage 2, 20 guided steps, between encoding and decoding; both of these alone; the
training loss with its gradient, all with gradient checkpoints and none with an optimiser. Ours and
the release have the same weights and inputs (jseg/parity/release); SDM, which has no autoencoder,
has the same network and sizes, and its loss is that of the noise alone. Multiply-adds are those of
benchmarks/multiply_adds.py, peak memory is the process's largest resident set.

  python benchmarks/speed.py                              # ours alone, small
  python benchmarks/speed.py --official PATH --size release --parts step --rounds 2
  python benchmarks/speed.py --official PATH --sdm PATH --torch PYTHON    # a PYTHON with torch
  python benchmarks/speed.py --products --size release    # convolutions in a guided step
  python benchmarks/speed.py --growth                     # cost as images, size and steps grow
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PARTS = {
    "step": "guided step",
    "stage": "stage of 20 steps",
    "encode": "encode",
    "decode": "decode",
    "train": "training step",
}
SIDES = {"release": "release", "sdm": "PyTorch SDM", "ours": "ours"}
OF_SDM = ("step", "train")
# forwards' worth of multiply-adds in a loss with its gradient: forward, forward again, backward (2)
CHECKPOINTED = 4
GROWTH = {"images": (1, 2, 4), "size": ((64, 48), (128, 96), (192, 144)), "steps": (5, 10, 20)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official", help="folder with a clone of the official release")
    parser.add_argument("--sdm", help="folder with a clone of WeilunWang/semantic-diffusion-model")
    parser.add_argument(
        "--torch",
        default=sys.executable,
        metavar="PYTHON",
        help="a Python with torch (default: this one)",
    )
    parser.add_argument("--size", default="small", choices=("small", "release"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=2, help="processes per side and part")
    parser.add_argument("--repetitions", type=int, default=2, help="timed in each")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--folder",
        default="runs/speed",
        help="where inputs and stand-in weights are kept (default runs/speed)",
    )
    parser.add_argument(
        "--products",
        action="store_true",
        help="ours: the guided step's products one by one, against the step",
    )
    parser.add_argument(
        "--growth", action="store_true", help="ours: cost as images, size and steps grow"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        with contextlib.redirect_stdout(sys.stderr):  # the release prints
            found = {"sdm": of_sdm, "products": of_products, "growth": of_growth}.get(
                args.child, of_side
            )(args)
        print(
            json.dumps(dict(found, peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))
        )
        return
    prepare(args)
    if args.products or args.growth:
        (products if args.products else growth)(args)
    else:
        compare(args)


def prepare(args):
    from jseg.ldm.presets import AUTOENCODERS, UNETS
    from jseg.parity.release import inputs

    folder = Path(args.folder) / args.size
    folder.mkdir(parents=True, exist_ok=True)
    weights = (str(path.resolve()) for path in inputs.stand_in_weights(folder, args.size))
    official = str(Path(args.official).resolve()) if args.official else ""
    inputs.write(
        folder,
        inputs.Setting(
            official,
            UNETS[args.size],
            AUTOENCODERS[args.size],
            *weights,
            2,
            inputs.SIZES[args.size][0],
            1,
            args.device,
        ),
    )
    args.folder = str(folder)


def run_child(args, side, part="", case=None):
    """What the child prints as its last line."""
    words = [
        args.torch if side == "sdm" else sys.executable,
        __file__,
        "--child",
        side,
        "--part",
        part,
        "--case",
        json.dumps(case),
    ]
    for name in ("folder", "size", "device", "sdm", "repetitions"):
        words += ["--" + name, str(getattr(args, name))] if getattr(args, name) else []
    print(f"{SIDES.get(side, side)} {case or PARTS.get(part, '')}", file=sys.stderr, flush=True)
    environment = dict(
        os.environ, PYTHONDONTWRITEBYTECODE="1"
    )  # nothing is written into the clones
    done = subprocess.run(words, stdout=subprocess.PIPE, universal_newlines=True, env=environment)
    if done.returncode:
        sys.exit(f"{side} {part} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


# The sides
# --------------------------------------------------------------------------------------------------


def compare(args):
    sides = [
        side
        for side in SIDES
        if side == "ours" or getattr(args, "official" if side == "release" else side)
    ]
    names, others = [SIDES[side] for side in sides], [side for side in sides if side != "ours"]
    heads = (
        ["part"]
        + names
        + [f"{SIDES[side]} / ours" for side in others]
        + [name + ", peak" for name in names]
        + [name + ", multiply-adds" for name in ("release", "ours")]
        + ["release / ours", "ours, a second"]
    )
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for part in args.parts:
        here = [side for side in sides if side != "sdm" or part in OF_SDM]
        found = {side: [] for side in here}
        for _ in range(args.rounds):
            for side in here:
                found[side].append(run_child(args, side, part))
        print(row(args, part, sides, found), flush=True)


def row(args, part, sides, found):
    median = {
        side: statistics.median(seconds for run in runs for seconds in run["seconds"])
        for side, runs in found.items()
    }
    peak = {side: max(run["peak"] for run in runs) for side, runs in found.items()}
    counts = multiply_adds(args, part)
    cells = [PARTS[part]] + [f"{median[side]:.2f} s" if side in median else "" for side in sides]
    cells += [
        f"{median[side] / median['ours']:.2f}" if side in median else ""
        for side in sides
        if side != "ours"
    ]
    cells += [f"{peak[side]:.2f} GB" if side in peak else "" for side in sides]
    cells += [f"{counts[side] / 1e9:.1f}e9" for side in ("release", "ours")]
    cells += [
        f"{counts['release'] / counts['ours']:.2f}",
        f"{counts['ours'] / median['ours'] / 1e9:.1f}e9",
    ]
    return "| " + " | ".join(cells) + " |"


def multiply_adds(args, part):
    """{"release", "ours"}: what each of them computes."""
    import multiply_adds as counts

    from jseg.ldm.presets import AUTOENCODERS, UNETS
    from jseg.parity.release.inputs import SIZES
    from jseg.parity.release.parts import STAGES

    unet, autoencoder = UNETS[args.size], AUTOENCODERS[args.size]
    step, forward = counts.guided_step(unet), counts.of_unet(unet)
    encoding, decoding = (
        of(autoencoder, unet.height, unet.width) for of in (counts.of_encoding, counts.of_decoding)
    )
    found = {}
    for side in ("release", "ours"):
        encode, decode, one = (
            counts.total(products, exact=side == "ours")
            for products in (encoding, decoding, forward)
        )
        conditioning = counts.conditioning(unet)["ours"] if side == "ours" else 0.0
        found[side] = {
            "step": step[side],
            "encode": encode,
            "decode": decode,
            "train": CHECKPOINTED * SIZES[args.size][0] * one,
            "stage": encode + conditioning + STAGES[2].start_index * step[side] + decode,
        }[part]
    return found


def of_side(args):
    """Ours or the release's, by the classes of a comparison."""
    from jseg.parity.release.computing import completed
    from jseg.parity.release.inputs import read
    from jseg.runtime import device

    setting, arrays = read(Path(args.folder))
    device(setting.device)
    if args.child == "ours":
        from jseg.parity.release.ours import Ours as Side
    else:
        from jseg.parity.release.official import Release as Side
    computation = getattr(Side(setting, arrays, Path(args.folder)), args.part)()[0]
    completed(computation.warm or computation.run)
    return {
        "seconds": [seconds(lambda: completed(computation.run)) for _ in range(args.repetitions)]
    }


def seconds(compute):
    before = time.perf_counter()
    compute()
    return time.perf_counter() - before


def of_sdm(args):
    """PyTorch's, by the functions of sdm_speed.py; needs neither jseg nor Jittor."""
    import sdm_speed
    import torch

    examples = {"small": 2, "release": 1}[args.size] if args.part == "train" else 1
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    unet, x, t, y = sdm_speed.network(
        torch, args.sdm, args.size, device, examples, use_checkpoint=args.part == "train"
    )

    def compute():
        if args.part == "step":
            sdm_speed.guided(torch, unet, x, t, y)
        else:
            unet.zero_grad(set_to_none=True)
            ((unet(x, t, y=y)[:, :3] - x) ** 2).mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    compute()
    return {"seconds": [seconds(compute) for _ in range(args.repetitions)]}


# Products of a guided step
# ------------------------------------------------------------------------------------------


def products(args):
    """What a guided step's products take one by one, each timed alone in its shape, against the
    step, and the step against one large product of matrices.
    """
    step, alone = run_child(args, "ours", "step"), run_child(args, "products")
    whole, kinds = statistics.median(step["seconds"]), alone["kinds"]
    print(
        "| products | number | multiply-adds by definition | computed | alone "
        "| computed a second | part of the step |"
    )
    print("|" + "---|" * 7)
    kinds["all"] = [sum(column) for column in zip(*kinds.values())]
    for name, (number, defined, computed, seconds) in kinds.items():
        counts = f"{number} | {defined / 1e9:.1f}e9 | {computed / 1e9:.1f}e9"
        times = f"{seconds:.3f} s | {computed / seconds / 1e9:.1f}e9"
        print(f"| {name} | {counts} | {times} | {100 * seconds / whole:.0f} % |")
    computed, rate = kinds["all"][2], alone["rate"]
    print(
        f"\nThe guided step takes {whole:.3f} s. At {rate / 1e9:.1f}e9 a second, as one product "
        f"of 2048x2048 matrices reaches, what it computes would take {computed / rate:.3f} s, "
        f"{100 * computed / rate / whole:.0f} % of it."
    )


def of_products(args):
    """{"kinds": {kind: (number, multiply-adds by definition, computed, seconds)} of our guided
    step's products, each shape timed alone, "rate": multiply-adds a second of a large product}.
    """
    import multiply_adds as counts

    from jseg.ldm.presets import UNETS
    from jseg.runtime import device

    chosen, kinds, known = device(args.device), {}, {}
    every = counts.of_unet(UNETS[args.size])
    without_variances = (every[-1].shape[0] // 2,) + every[-1].shape[1:]
    for one in every[:-1] + [every[-1]._replace(shape=without_variances)]:
        if one.half == "spade":
            continue
        batch = 2 if one.half == "decoder" else 1
        kind, compute = prepared(one, batch)
        if (one, batch) not in known:
            known[one, batch] = timed_alone(compute)
        number, defined, computed, taken = kinds.get(kind, (0, 0.0, 0.0, 0.0))
        kinds[kind] = (
            number + 1,
            defined + batch * counts.total([one]),
            computed + batch * counts.total([one], True, chosen),
            taken + known[one, batch],
        )
    side = 2048
    large = random_array(1, side, side)
    return {"kinds": kinds, "rate": side**3 / timed_alone(lambda: product_of(large, large))}


def prepared(one, batch):
    """(kind, function that computes it) of a product of the UNet."""
    from jseg.nn.convolution import conv3x3
    from jseg.nn.layers import Pointwise, attention

    outputs, inputs = one.shape[:2]
    if one.attention:
        q = random_array(batch * outputs, one.height * one.width, inputs)
        return "attention", lambda: attention(q, q, q, inputs**-0.5)
    if one.shape[2] == 1:
        layer = Pointwise(inputs, outputs, ndim=len(one.shape))
        if len(one.shape) == 3:
            tokens = random_array(batch * one.height * one.width, inputs)
            return "1x1", lambda: layer.tokens(tokens)
        x = random_array(batch, inputs, one.height, one.width)
        return "1x1", lambda: layer(x)

    weight, halved = random_array(outputs, inputs, 3, 3), 1 + one.doubled
    x = random_array(batch, inputs, one.height // halved, one.width // halved)
    kind = "3x3 of a doubled map" if one.doubled else "3x3"
    return kind, lambda: conv3x3(x, weight, doubled=one.doubled)


def random_array(*shape):
    import numpy as np

    from jseg.runtime import jt

    return jt.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32) / 8)


def product_of(a, b):
    from jseg.nn.kernels import products as of_matrices

    return of_matrices(a, b)


def timed_alone(compute):
    """The median of three runs after one that may compile."""
    from jseg.runtime import jt

    with jt.no_grad():
        times = [seconds(lambda: (compute().sync(), jt.sync_all(True))) for _ in range(4)]
    return statistics.median(times[1:])


# Growth
# --------------------------------------------------------------------------------------------------


def growth(args):
    """Ours alone: a guided step for more images and larger ones, and a stage of more steps,
    encoding and decoding left out.
    """
    print("| what | seconds | per image, pixel or step | peak |\n|---|---|---|---|")
    for what, values in GROWTH.items():
        first = None
        for value in values:
            size = value if what == "size" else (128, 96)
            case = {
                "images": value if what == "images" else 1,
                "size": size,
                "steps": value if what == "steps" else 0,
            }
            found = run_child(args, "growth", case=case)
            taken = statistics.median(found["seconds"])
            each = taken / (value[0] * value[1] if what == "size" else value)
            first = first or each
            name = f"latent of {value[0]}x{value[1]}" if what == "size" else f"{what}: {value}"
            print(
                f"| {name} | {taken:.2f} s | {each / first:.2f} | {found['peak']:.2f} GB |",
                flush=True,
            )


def of_growth(args):
    import dataclasses

    import numpy as np

    from jseg import checkpoint
    from jseg.ldm.samplers import ddim, guided
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.noise import normal
    from jseg.parity.release.inputs import read
    from jseg.runtime import device, jt

    setting, _ = read(Path(args.folder))
    device(setting.device)
    count, (width, height), steps = args.case["images"], args.case["size"], args.case["steps"]
    unet = UNet(dataclasses.replace(setting.unet, width=width, height=height))
    checkpoint.load_into(unet, setting.unet_weights)
    unet.eval()
    x = jt.array(normal(0, "growth", 0, (count, 3, height, width)))
    y = one_hot(
        np.random.default_rng(0).integers(0, setting.unet.classes, (count, height, width)),
        setting.unet.classes,
    )
    schedule = Schedule("ddim50")
    predictor = guided(unet, y, 3.5)

    def compute():
        if not steps:
            return next(ddim(predictor, x, schedule, 20)).sync()
        for _ in ddim(guided(unet, y, 3.5), x, schedule, 20, steps=steps):
            pass

    compute()
    return {"seconds": [seconds(compute) for _ in range(args.repetitions)]}


if __name__ == "__main__":
    main()
