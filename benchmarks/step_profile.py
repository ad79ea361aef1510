"""Where the time of one guided step goes, by Jittor's profiler: convolutions, products, norms, and
what is neither.

The guided step of jseg.ldm.samplers under the weights of jseg.parity.stand_in, one image. The
step is first timed without the profiler, then its kernels are timed one by one and added up by
kind. Winograd's convolutions compute a quarter of the multiply-adds of their definition
(benchmarks/multiply_adds.py).

  OMP_NUM_THREADS=1 python benchmarks/step_profile.py --size release
  JSEG_FUSED= python benchmarks/step_profile.py      # without the operators of jseg.nn
"""

import argparse
import os
import sys

import numpy as np

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

PRODUCTS = ("mkl_matmul", "cublas_matmul", "cublas_batched_matmul", "dnnl_sgemm")
COPIES = ("reindex", "transpose", "getitem", "setitem", "concat")
KINDS = (
    "convolutions",
    "products of matrices",
    "attention",
    "norms, with SPADE, FiLM and SiLU",
    "copies",
    "element by element",
)
CONVOLUTIONS, HEAVY = KINDS[0], KINDS[:3]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", default="small", help="a UNet of jseg.ldm.presets (default small)"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--every", action="store_true", help="a line for every kernel as well")
    args = parser.parse_args()
    from jseg.ldm.presets import UNETS
    from jseg.parity.gpu.operators import seconds
    from jseg.runtime import device, jt

    if args.size not in UNETS:
        sys.exit(f"step_profile: no UNet {args.size!r}; choose from {', '.join(UNETS)}")
    device(args.device)
    step = guided_step(UNETS[args.size])
    alone = seconds(step, args.repetitions, 60.0)
    with jt.log_capture_scope(log_silent=1, log_v=0), jt.profile_scope() as report:
        for _ in range(args.repetitions):
            step()
    rows = [dict(zip(report[0], row)) for row in report[1:]]
    show(rows, alone, args)


def guided_step(config):
    """A function that computes one guided step: conditional and unconditional prediction of the
    noise.
    """
    from jseg.ldm.samplers import guided
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.parity.gpu.comparing import filled, random
    from jseg.runtime import jt

    unet = filled(UNet(config))
    unet.eval()
    labels = np.random.default_rng(0).integers(0, config.classes, (1, config.height, config.width))
    x = jt.array(random(1, config.latent_channels, config.height, config.width))
    t = jt.array(np.array([600], np.int32))
    with jt.no_grad():
        predictor = guided(unet, one_hot(labels, config.classes), 3.5)

    def step():
        with jt.no_grad():
            predictor(x, t).sync()

    return step


def kind(name):
    """Which of KINDS a kernel is."""
    if "im2col::" in name:
        return KINDS[1]
    if "_conv" in name.split("«")[0] or (name.startswith("code") and "in1_dim:4" in name):
        return KINDS[0]  # Jittor's, or jseg.nn.winograd's
    if name.startswith("code") and "row_gradient" in name:
        return KINDS[3]
    if name.startswith("code") and "IN_SIZE:3" in name:
        return KINDS[2]
    if any(word in name for word in PRODUCTS):
        return KINDS[1]
    arithmetic = "binary" in name or "unary" in name or "reduce" in name
    return KINDS[4] if any(word in name for word in COPIES) and not arithmetic else KINDS[5]


def show(rows, alone, args):
    # What Jittor hands to a library appears a second time as the operation it replaced, with no
    # time.
    rows = [row for row in rows if float(row["TotalTime"])]
    for row in rows:
        row["kind"] = kind(row["Name"])
        row["seconds"] = float(row["TotalTime"]) / 1e9 / args.repetitions
        row["runs"] = int(row["Count"]) / args.repetitions
    total = sum(row["seconds"] for row in rows)
    print(
        f"guided step, UNet {args.size}, {args.device}: {alone * 1e3:.1f} ms; with the profiler "
        f"{total * 1e3:.1f} ms\n"
    )

    print("| kind | kernels run | time | fraction |\n|---|---|---|---|")
    spent = {}
    for which in KINDS:
        kernels = [row for row in rows if row["kind"] == which]
        runs, spent[which] = (sum(row[name] for row in kernels) for name in ("runs", "seconds"))
        line(which, runs, spent[which], total, 1)
        for row in sorted(kernels, key=lambda row: -row["seconds"]) if args.every else ():
            name = row["Name"][:90].replace("\n", " ").replace("|", "/")
            line(f"... {name}", row["runs"], row["seconds"], total, 2)

    counted, computed = multiply_adds(args.size, args.device)
    print(
        f"\nconvolutions, products and attention: {counted / 1e9:.1f}e9 multiply-adds by "
        f"definition, {computed / 1e9:.1f}e9 that are computed, at {computed / alone / 1e9:.1f}e9 "
        "a second of the step"
    )
    heavy = sum(spent[which] for which in HEAVY)
    print(f"convolutions, products and attention together: {heavy / total:.0%} of the time")


def multiply_adds(size, device):
    """Of a guided step: (by definition, as they are computed here)."""
    import multiply_adds as counts

    from jseg.ldm.presets import UNETS

    step = counts.guided_step(UNETS[size], device)
    return step["definition"], step["ours"]


def line(name, runs, seconds, total, digits):
    print(f"| {name} | {runs:.0f} | {seconds * 1e3:.{digits}f} ms | {seconds / total:.1%} |")


if __name__ == "__main__":
    main()
