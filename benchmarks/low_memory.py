"""Peak memory and time of a guided step with all modulations kept (`full`) and with those of large
maps computed again at every step (`low`), at the release's widths.

Each measurement is a process of its own; the two kinds alternate, so that both meet the same
machine. Weights are the recipe of jseg.parity.stand_in. "begin" is what is computed once a stage,
"step" the best of the repetitions after one that may compile, both on the clock and of the process
(for machines with other work), "kept" the memory that the modulations hold between the steps,
"peak" the process's largest resident memory. The results of both kinds are compared bit by bit.

  python benchmarks/low_memory.py                           # one 128x96 latent, the release's size
  python benchmarks/low_memory.py --preset small --batch 4
  python benchmarks/low_memory.py --blocks                  # what each block's modulations cost
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

KINDS = ("full", "low")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="release")
    parser.add_argument("--batch", type=int, default=1, help="label maps at a time")
    parser.add_argument("--rounds", type=int, default=2, help="processes per kind")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--blocks", action="store_true", help="by size of map, and nothing else")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.blocks:
        return blocks(args)
    if args.child:
        return measure(args)
    runs = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            runs[kind].append(run_child(kind, args))
    report(runs)


def run_child(kind, args):
    names = ("preset", "batch", "repetitions")
    options = [f"--{name}={getattr(args, name)}" for name in names]
    call = [sys.executable, __file__, "--child", kind, *options]
    done = subprocess.run(call, stdout=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        sys.exit(f"{kind} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(runs):
    """Print the table of the best of each kind, and whether their results are equal."""
    units = dict.fromkeys(("begin", "begin, process", "step", "step, process"), "s")
    units.update(kept="GB", peak="GB")
    best = {kind: {name: min(run[name] for run in runs[kind]) for name in units} for kind in KINDS}
    print(f"| kind | {' | '.join(units)} |\n|{'---|' * (len(units) + 1)}")
    for kind, values in best.items():
        cells = [f"{values[name]:.2f} {unit}" for name, unit in units.items()]
        print(f"| {' | '.join([kind, *cells])} |")
    ratios = [f"{best['low'][name] / best['full'][name]:.2f}" for name in units]
    print(f"| {' | '.join(['ratio', *ratios])} |")
    digests = {run["digest"] for kind in KINDS for run in runs[kind]}
    print(f"weights {runs['full'][0]['weights']:.2f} GB; {len(digests)} different result(s)")


def network(args):
    """The UNet with its weights, and a batch of label maps."""
    import numpy as np

    from jseg.ldm.presets import UNETS
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.parity.stand_in import value
    from jseg.runtime import device, jt

    device("cpu")
    config = UNETS[args.preset]
    unet = UNet(config)
    for name, v in unet.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
        v.sync()
    unet.eval()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, config.classes, (args.batch, config.height, config.width))
    return unet, one_hot(labels, config.classes)


def measure(args):
    import numpy as np

    from jseg.ldm.modulations import variables
    from jseg.ldm.samplers import guided
    from jseg.runtime import jt

    unet, y = network(args)
    low = args.child == "low"
    config, batch = unet.config, args.batch
    shape = (batch, config.latent_channels, config.height, config.width)
    x = jt.array(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    t = jt.array(np.full(batch, 600, np.int32))

    # What is computed once, then the steps.
    stamps = [clocks()]
    predictor = guided(unet, y, 3.5, low_memory=low)
    jt.sync_all(True)
    stamps.append(clocks())
    for _ in range(args.repetitions + 1):
        eps = predictor(x, t).numpy()
        stamps.append(clocks())
    begin, _, *steps = np.diff(stamps, axis=0)
    step = np.min(steps, axis=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-9

    entries = unet.with_null(y, unet.condition(y, low))
    facts = {
        "begin": begin[0],
        "begin, process": begin[1],
        "step": step[0],
        "step, process": step[1],
        "kept": sum(v.numel() for v in variables(entries)) * 4e-9,
        "peak": peak,
        "weights": sum(v.numel() for v in unet.parameters()) * 4e-9,
        "digest": hashlib.sha256(eps.tobytes()).hexdigest(),
    }
    print(json.dumps(facts))


def clocks():
    return time.perf_counter(), time.process_time()


def blocks(args):
    """Print what a label map's modulations hold and cost, by the size of the map."""
    from jseg.runtime import jt

    unet, y = network(args)
    sizes = {}
    with jt.no_grad():
        for block, maps in zip(unet.conditioned_blocks(), unet.label_maps(y)):
            for norm, label_map in zip((block.in_norm, block.out_norm), maps):
                megabytes, macs, seconds = cost(norm, label_map.sync(), args.repetitions)
                row = sizes.setdefault(tuple(label_map.shape[2:]), [0, 0, 0])
                row[:] = row[0] + megabytes, row[1] + macs, row[2] + seconds
    print("| map | modulations | multiply-adds | of a byte | time | of a MB |")
    print("|---|---|---|---|---|---|")
    for (height, width), (megabytes, macs, seconds) in sizes.items():
        each = f"{macs / megabytes / 1e6:.0f}", f"{seconds / megabytes * 1e3:.1f} ms"
        cells = f"{megabytes:.1f} MB", f"{macs / 1e9:.1f}e9", each[0], f"{seconds:.2f} s", each[1]
        print(f"| {width}x{height} | {' | '.join(cells)} |")


def cost(norm, label_map, repetitions):
    """(megabytes, multiply-adds, best seconds) of one norm's modulation."""
    from jseg.runtime import jt

    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        modulation = norm.condition(label_map)
        jt.sync(list(modulation))
        times.append(time.perf_counter() - start)
    batch, channels, height, width = modulation[0].shape
    hidden, classes = norm.mlp_shared[0].weight.shape[:2]
    macs = 9 * hidden * (classes + 2 * channels) * batch * height * width
    return 8e-6 * batch * channels * height * width, macs, min(times[1:])


if __name__ == "__main__":
    main()
