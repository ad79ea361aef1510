"""Activation memory and time of one loss and gradient of the UNet, plain and with recompute, at the
release's widths.

Each measurement is a process of its own; the two kinds alternate, so that both meet the same
machine. Weights are the recipe of jseg.parity.stand_in, so no checkpoint is needed; losses and
gradients of both kinds are compared. Each gradient is reduced to its norm and freed as soon as it
is there, so that what is measured above the parameters is the activations:

- kept: with the loss computed and its graph alive, what waits for the backward pass (resident
  memory; Linux);
- arrays: the most that Jittor's arrays take at any time of loss and gradient;
- resident: the most of the process's memory at any time, oneDNN's working memory and free blocks
  that Jittor keeps included.

Times are the best of the repetitions after one that may compile: on the clock, and of the process
(for machines with other work).

  python benchmarks/recompute.py                           # one 128x96 latent, the release's size
  python benchmarks/recompute.py --batch 4 --rounds 2
"""

import argparse
import ctypes
import json
import re
import subprocess
import sys
import time

KINDS = ("plain", "recompute")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="release")
    parser.add_argument("--width", type=int, default=128, help="of the latent")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="processes per kind")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return measure(args)
    runs = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            runs[kind].append(run_child(kind, args))
    report(runs)


def run_child(kind, args):
    options = [
        f"--{name}={getattr(args, name)}"
        for name in ("preset", "width", "height", "batch", "repetitions")
    ]
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind] + options,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    if done.returncode:
        sys.exit(f"{kind} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(runs):
    """Print the table of the best of each kind, and how far their numbers are apart."""
    print(
        "| kind | time | process time | kept for the backward pass | arrays, peak | resident, "
        "peak |\n|---|---|---|---|---|---|"
    )
    units = {"seconds": "s", "cpu": "s", "kept": "GB", "arrays": "GB", "resident": "GB"}
    best = {kind: {name: min(run[name] for run in runs[kind]) for name in units} for kind in KINDS}
    for kind, values in best.items():
        cells = [f"{values[name]:.2f} {unit}" for name, unit in units.items()]
        print(f"| {' | '.join([kind, *cells])} |")
    ratios = [f"{best['recompute'][name] / best['plain'][name]:.2f}" for name in units]
    print(f"| {' | '.join(['ratio', *ratios])} |")

    plain, recompute = (runs[kind][0] for kind in KINDS)
    pairs = list(zip(plain["norms"], recompute["norms"]))
    apart = max(abs(a - b) / max(a, 1e-6) for a, b in pairs)
    print(
        f"losses {plain['loss']:.7g} and {recompute['loss']:.7g}; norms of {len(pairs)} gradients "
        f"differ by {apart:.1e} relative at most"
    )


def measure(args):
    import dataclasses

    import numpy as np

    from jseg.ldm.loss import diffusion_loss
    from jseg.ldm.presets import UNETS
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.parity.stand_in import value
    from jseg.runtime import jt
    from jseg.training.optimizer import trainable

    # The network, and one batch.
    unet = UNet(dataclasses.replace(UNETS[args.preset], width=args.width, height=args.height))
    for name, v in unet.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
        v.sync()
    unet.train()
    unet.recompute = args.child == "recompute"
    parameters = list(trainable(unet).values())
    rng = np.random.default_rng(0)
    z, noise = rng.standard_normal((2, args.batch, 3, args.height, args.width)).astype(np.float32)
    labels = rng.integers(0, 29, (args.batch, args.height, args.width))
    t, schedule = np.arange(args.batch) * 997 % 1000, Schedule()

    def loss():
        y = one_hot(labels, unet.config.classes)
        return diffusion_loss(unet, schedule, z, t, y, noise)["loss"].mean()

    def norms_of_gradients():
        value = loss()
        gradients = jt.grad(value, parameters, retain_graph=False)
        with jt.flag_scope(node_order=1):  # as soon as possible
            norms = [(gradient * gradient).sum() for gradient in gradients]
        del gradients
        return [float(v[0]) for v in jt.fetch_sync([value] + norms)]

    # Time, then the peaks, then what the graph of a loss keeps.
    times, values = [], norms_of_gradients()
    for _ in range(args.repetitions):
        start = time.perf_counter(), time.process_time()
        values = norms_of_gradients()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    before = settled()
    with jt.flag_scope(profile_memory_enable=1):
        norms_of_gradients()
        most = int(jt.get_max_memory_info().split("[")[0]) / 1e9
        arrays = most - sum(v.numel() for v in parameters) * 4e-9
    peak = resident("VmHWM") - before
    before = settled()
    alive = loss().sync()
    release()
    kept = resident("VmRSS") - before
    del alive
    print(
        json.dumps(
            {
                "seconds": min(wall for wall, _ in times),
                "cpu": min(cpu for _, cpu in times),
                "kept": kept,
                "arrays": arrays,
                "resident": peak,
                "loss": values[0],
                "norms": [value**0.5 for value in values[1:]],
            }
        )
    )


def settled():
    """Resident GB with all free memory given back; the count of the largest begins anew."""
    release()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return resident("VmRSS")


def release():
    from jseg.runtime import jt

    jt.sync_all()
    jt.gc()
    ctypes.CDLL(None).malloc_trim(0)


def resident(field):
    """A field of /proc/self/status in GB."""
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read()).group(1)) * 1024e-9


if __name__ == "__main__":
    main()
