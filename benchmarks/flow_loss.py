"""Memory and time of FlowSeg's loss with its gradient: plain flow matching, and with the corrected
velocity, each in its own process.

150 classes and 16 images of 512x512 by default. "above" is the peak of the process's resident
memory above what it holds before the loss, when velocity, images and labels are there. The size of
pixels times classes times 3 in float32, an array that is never made, is printed beside it.

  OMP_NUM_THREADS=1 python benchmarks/flow_loss.py
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--weight", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.weight is not None:
        return measure(args)
    print("| loss | above | time |\n|---|---|---|")
    for name, weight in (("plain flow matching", 0.0), ("with the correction", 1.0)):
        options = [f"--{key}={value}" for key, value in vars(args).items() if key != "weight"]
        done = subprocess.run(
            [sys.executable, __file__, f"--weight={weight}", *options],
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        if done.returncode:
            sys.exit(f"{name} ended with code {done.returncode}")
        cost = json.loads(done.stdout.splitlines()[-1])
        print(f"| {name} | {cost['above'] / 1e6:.0f} MB | {cost['seconds']:.2f} s |", flush=True)
    pixels = args.batch * args.size**2
    print(
        f"\nvelocity: {12 * pixels / 1e6:.0f} MB; pixels times classes times 3: "
        f"{12 * pixels * args.classes / 1e9:.1f} GB"
    )


def measure(args):
    from jseg.flowseg.encoding import class_codes, encode
    from jseg.flowseg.field import flow_loss, interpolate
    from jseg.machine.free_memory import resident_bytes
    from jseg.runtime import device, jt

    device("cpu")
    rng, codes = np.random.default_rng(0), class_codes(args.classes)
    shape = (args.batch, args.size, args.size)
    labels = rng.integers(0, args.classes, shape)
    x1, mask = encode(labels, codes)
    x0 = rng.standard_normal(x1.shape).astype(np.float32)
    t = rng.random(args.batch).astype(np.float32)
    velocity = jt.array(rng.standard_normal(x1.shape).astype(np.float32))
    arrays = (interpolate(x0, x1, t), x0, x1, t, labels.astype(np.int32))
    arguments = [*map(jt.array, arrays), codes]
    options = {"weight": args.weight, "mask": jt.array(mask.astype(np.float32))}

    def once():
        loss = flow_loss(velocity, *arguments, **options)["loss"]
        jt.sync([loss, *jt.grad(loss, [velocity])])
        jt.sync_all(True)

    jt.sync_all(True)
    before = resident_bytes("VmRSS")
    times = []
    for _ in range(args.repetitions + 1):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    print(json.dumps({"above": resident_bytes("VmHWM") - before, "seconds": min(times[1:])}))


if __name__ == "__main__":
    main()
