"""Bytes that our operators move to and from a GPU's memory, and launches, beside their twins'.

Without a GPU at hand this decides which operators CUDA takes by default: norms and activations are
bound by memory, and every launch costs some microseconds. The twins are counted: Jittor's profiler
says what each kernel of the graph that it would run without our operators reads and writes. Ours
are read off their CUDA sources (`OURS`), where what a block reads again comes from its cache.

Of PixNerd's neural field, from the generated weights on, no CUDA source of ours exists: --field
counts what a kernel of one block a patch would move, and the products' multiply-adds.

  python benchmarks/kernel_traffic.py
  python benchmarks/kernel_traffic.py --field
"""

import argparse
import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FLOAT = 4
PARTS = 132  # in which a kernel a patch would sum what patches share: an H200's multiprocessors


def rms_parts(arrays):
    """Values of the parts of the gradients of scale and shift, as jseg/nn/rms_norm.py has them."""
    from jseg.nn.rms_norm import cuda_run

    channels = arrays[0].shape[-1]
    tokens, images = arrays[0].size // channels, arrays[1].size // channels
    return images * -(-tokens // images // cuda_run(tokens)) * 2 * channels


# Arrays of x's size that the CUDA sources read and write: (forward, gradients), and their launches.
# maps: 2 where SPADE's scale and shift are maps, else 0.
OURS = {
    # statistics: x; scaled: x, maps, y. Then g, x, maps, three gradients; x, one gradient twice.
    "group_norm": (lambda maps: (3 + maps, 6 + 2 * maps), (3, 2)),
    # x, y; g, x and the gradient, and on top the parts of the other gradients, written and read.
    "rms_norm": (lambda maps: (2, 3), (1, 2)),
    # q, k, v, y; for each of two kernels q, k, v, g, and three gradients. A block reads all keys
    # and values, which the device's second cache holds.
    "attention": (lambda maps: (4, 11), (1, 2)),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--field", action="store_true", help="the neural field alone")
    if parser.parse_args().field:
        return fields()
    from jseg.parity.gpu.comparing import random
    from jseg.parity.gpu.operators import compiled, operator_cases
    from jseg.runtime import device, jt

    device("cpu")
    print("| operator | of | twin | ours | ratio | launches, twin | ours |")
    print("|---|---|---|---|---|---|---|")
    for case in operator_cases(large=True):
        variables = [jt.array(array) for array in case.arrays]
        jt.sync(variables)

        def forward(case=case, variables=variables):
            return case.function(*variables)

        def gradients(case=case, variables=variables):
            y = forward()
            factor = jt.array(random(*y.shape)).stop_grad()
            return jt.grad(y * factor, [variables[i] for i in case.wanted])

        with compiled(on=False):
            there = traffic(lambda: forward().sync())
            and_back = traffic(lambda: jt.sync(gradients()))
        arrays, launches = OURS[case.operator]
        x = case.arrays[0]
        ours = arrays(sum(array.shape == x.shape for array in case.arrays[1:3]) * (x.ndim == 4))
        parts = 2 * rms_parts(case.arrays) if case.operator == "rms_norm" else 0
        sizes = [count * x.size + more for count, more in zip(ours, (0, parts))]
        twins = there, tuple(a - b for a, b in zip(and_back, there))
        for what, twin, count, own in zip(("result", "gradients"), twins, sizes, launches):
            line(f"{case.title}, {list(x.shape)}", what, twin, count * FLOAT, own)


def fields():
    """The table of the neural field: what its twin moves, what a kernel a patch would, and the
    multiply-adds of the products.
    """
    print("| network, image | of | twin | a kernel a patch | ratio | launches, twin | products |")
    print("|---|---|---|---|---|---|---|")
    for preset in ("pixnerd-L/16", "pixnerd-XL/16"):
        for side in (256, 512):
            field_rows(preset, side)


def field_rows(preset, side):
    from jseg.flowseg.presets import NETWORKS
    from jseg.parity.gpu.comparing import random
    from jseg.parity.gpu.operators import compiled
    from jseg.runtime import device, jt

    device("cpu")
    config = NETWORKS[preset]
    patches, pixels = (side // config.patch) ** 2, config.patch**2
    channels, blocks = config.pixel_channels, config.pixel_blocks
    own = 2 * channels * channels * config.pixel_ratio  # generated weights of a block
    generated = [jt.array(random(patches, own, seed=k)) for k in range(blocks)]
    colours = jt.array(random(patches, pixels, 3))
    field = generated_field(config, generated)
    inputs = [colours, *generated, *field.parameters()]
    jt.sync(inputs)

    def gradients():
        y = field(colours, colours)
        return jt.grad(y * jt.array(random(*y.shape)).stop_grad(), inputs)

    with compiled(on=False):
        there = traffic(lambda: field(colours, colours).sync())
        and_back = traffic(lambda: jt.sync(gradients()))
    twins = there, tuple(a - b for a, b in zip(and_back, there))

    # pixels in and out, weights; the gradients of both, and of what patches share in PARTS parts
    shared = channels * (pixels + 3 + blocks + 1 + 3)
    values = patches * (2 * 3 * pixels + blocks * own)
    ours = values, patches * (3 * 3 * pixels + 2 * blocks * own) + 2 * PARTS * shared
    products = patches * pixels * blocks * own
    for what, twin, count, times in zip(("result", "gradients"), twins, ours, (1, 3)):
        moved, kernels = twin
        print(
            f"| {preset}, {side}x{side} | {what} | {moved / 1e6:.0f} MB | "
            f"{count * FLOAT / 1e6:.0f} MB | {moved / count / FLOAT:.0f} | {kernels} | "
            f"{times * products / 1e9:.1f} G |",
            flush=True,
        )


def generated_field(config, generated):
    """The field of a configuration, whose blocks have these weights and generate none."""
    from jseg.flowseg import neural_field

    channels = config.pixel_channels
    embedder = neural_field.PixelEmbedding(channels, config.frequencies, config.patch)
    blocks = [neural_field.FieldBlock(1, channels, config.pixel_ratio) for _ in generated]
    for block, weights in zip(blocks, generated):
        block.param_generator1 = lambda tokens, weights=weights: weights
    return neural_field.NeuralField(config, embedder, blocks, neural_field.FinalLayer(channels))


def traffic(compute):
    """(bytes read and written, kernels run) of compute(), by Jittor's profiler."""
    from jseg.runtime import jt

    compute()
    with jt.log_capture_scope(log_silent=1, log_v=0), jt.profile_scope() as report:
        compute()
    rows = [dict(zip(report[0], row)) for row in report[1:]]
    rows = [row for row in rows if float(row["TotalTime"])]  # others are done by a library
    rates = [(float(row["Input"]) + float(row["Output"])) * float(row["TotalTime"]) for row in rows]
    return sum(rates) / 1e9, sum(int(row["Count"]) for row in rows)


def line(title, what, twin, own_bytes, own_launches):
    twin_bytes, kernels = twin
    print(
        f"| {title} | {what} | {twin_bytes / 1e6:.1f} MB | {own_bytes / 1e6:.1f} MB | "
        f"{twin_bytes / own_bytes:.1f} | {kernels} | {own_launches} |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
