"""Peak memory and time of a guided step with all modulations kept (`full`) and with those of large
maps computed again at every step (`low`), at the release's widths.

"begin" is what is computed once a stage, "kept" the memory that the modulations hold between the
steps, "peak" the largest resident memory of a process that takes two steps and does nothing else.
The times are of one process in which the two kinds take turns, the best of the repetitions after
one that may compile, on the clock and of the process (for machines with other work). The results of
both kinds are compared bit by bit. Weights are the recipe of jseg.parity.stand_in.

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
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--blocks", action="store_true", help="by size of map, and nothing else")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return print(json.dumps(memory(args)))
    if args.blocks:
        return blocks(args)
    memories = {kind: in_child(kind, args) for kind in KINDS}
    report(memories, times(args))


def in_child(kind, args):
    options = [f"--preset={args.preset}", f"--batch={args.batch}"]
    call = [sys.executable, __file__, "--child", kind, *options]
    done = subprocess.run(call, stdout=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        sys.exit(f"{kind} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def report(memories, times):
    """Print the table, and whether the results are equal."""
    print("| kind | begin | step | step, process | kept | peak |\n|---|---|---|---|---|---|")
    rows = {kind: [*times[kind], memories[kind]["kept"], memories[kind]["peak"]] for kind in KINDS}
    for kind, row in rows.items():
        cells = [f"{value:.2f} {unit}" for value, unit in zip(row, ("s", "s", "s", "GB", "GB"))]
        print(f"| {' | '.join([kind, *cells])} |")
    ratios = [f"{low / full:.2f}" for full, low in zip(*rows.values())]
    print(f"| {' | '.join(['ratio', *ratios])} |")
    equal = memories["full"]["digest"] == memories["low"]["digest"]
    weights = memories["full"]["weights"]
    print(f"weights {weights:.2f} GB; the results are {'equal' if equal else 'NOT equal'}")


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


def memory(args):
    """What one kind takes, in a process of its own."""
    from jseg.ldm.modulations import variables
    from jseg.ldm.samplers import guided

    unet, y = network(args)
    x, t = latent(unet.config, args.batch)
    low = args.child == "low"
    predictor = guided(unet, y, 3.5, low_memory=low)
    for _ in range(2):
        eps = predictor(x, t).numpy()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-9
    entries = unet.with_null(y, unet.condition(y, low))
    return {
        "kept": sum(v.numel() for v in variables(entries)) * 4e-9,
        "peak": peak,
        "weights": sum(v.numel() for v in unet.parameters()) * 4e-9,
        "digest": hashlib.sha256(eps.tobytes()).hexdigest(),
    }


def times(args):
    """{kind: [seconds of the beginning, of a step, of its process]}, the kinds in turn."""
    import numpy as np

    from jseg.ldm.samplers import guided

    unet, y = network(args)
    x, t = latent(unet.config, args.batch)
    rounds = {kind: [] for kind in KINDS}
    for _ in range(args.repetitions + 1):
        for kind, rows in rounds.items():
            stamps = [clocks()]
            predictor = guided(unet, y, 3.5, low_memory=kind == "low")
            stamps.append(clocks())
            predictor(x, t).sync()
            stamps.append(clocks())
            del predictor
            (begin, _), step = np.diff(stamps, axis=0)
            rows.append([begin, *step])
    return {kind: np.min(rows[1:], axis=0).tolist() for kind, rows in rounds.items()}


def latent(config, batch):
    import numpy as np

    from jseg.runtime import jt

    shape = (batch, config.latent_channels, config.height, config.width)
    x = jt.array(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    return x, jt.array(np.full(batch, 600, np.int32))


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
