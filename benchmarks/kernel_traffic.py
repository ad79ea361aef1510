"""Bytes that our operators move to and from a GPU's memory, and launches, beside their twins'.

Without a GPU at hand this decides which operators CUDA takes by default: norms and activations are
bound by memory, and every launch costs some microseconds. The twins are counted: Jittor's profiler
says what each kernel of the graph that it would run without our operators reads and writes. Ours
are read off their CUDA sources (`OURS`), where what a block reads again comes from its cache.

  python benchmarks/kernel_traffic.py
"""

import argparse
import os
import sys

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FLOAT = 4

# Arrays of x's size that the CUDA sources read and write: (forward, gradients), and their launches.
# maps: 2 where SPADE's scale and shift are maps, else 0.
OURS = {
    # statistics: x; scaled: x, maps, y. Then g, x, maps, three gradients; x, one gradient twice.
    "group_norm": (lambda maps: (3 + maps, 6 + 2 * maps), (3, 2)),
    # x, y; g, x and the gradient.
    "rms_norm": (lambda maps: (2, 3), (1, 1)),
    # q, k, v, y; for each of two kernels q, k, v, g, and three gradients. A block reads all keys
    # and values, which the device's second cache holds.
    "attention": (lambda maps: (4, 11), (1, 2)),
}


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
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
        twins = there, tuple(a - b for a, b in zip(and_back, there))
        for what, twin, count, own in zip(("result", "gradients"), twins, ours, launches):
            line(f"{case.title}, {list(x.shape)}", what, twin, count * x.size * FLOAT, own)


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
