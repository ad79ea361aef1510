"""3x3 convolutions one by one, the result and both gradients: ours beside Jittor's own, in one run
on the CPU.

Ours is Winograd's (jseg/nn/winograd.py), or of the smallest maps the product with a map's columns
(jseg/nn/im2col.py). The shapes are those of the networks, and some at the edge of where ours pay,
which is what `winograd.pays` and `im2col.pays` say and the last column repeats. Sides take turns,
the best of the repetitions counts. Errors are the largest at 200 places of the result, computed in
float64, relative to the largest value of the result; of the gradients, the difference of the sides.

  OMP_NUM_THREADS=2 python benchmarks/convolutions.py
  DNNL_MAX_CPU_ISA=AVX2 cc_flags=" -mno-avx512f" python benchmarks/convolutions.py   # as on AVX2
"""

import argparse
import os
import sys
import time

import numpy as np

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# of each: batch, channels, outputs, height, width, and whether the map is doubled
SHAPES = [
    (2, 256, 256, 96, 128, False),
    (2, 512, 256, 96, 128, False),
    (1, 128, 512, 96, 128, False),
    (2, 512, 512, 48, 64, False),
    (2, 1024, 512, 24, 32, False),
    (2, 1536, 768, 12, 16, False),
    (2, 1024, 1024, 12, 16, False),
    (2, 1024, 1024, 6, 8, False),
    (1, 1024, 1024, 6, 8, False),
    (1, 29, 128, 96, 128, False),
    (1, 3, 256, 96, 128, False),
    (2, 256, 3, 96, 128, False),
    (2, 256, 256, 48, 64, True),
    (2, 1024, 1024, 6, 8, True),
    (1, 128, 128, 96, 512, False),
    (1, 128, 128, 96, 256, True),
    (2, 32, 32, 96, 128, False),
    (2, 64, 64, 24, 32, False),
    (2, 128, 128, 6, 8, False),
    (4, 8, 8, 24, 32, False),
]
PLACES = 200


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    from jseg.runtime import device

    device("cpu")
    print(
        "| maps | Jittor's | ours | ratio | errors | of the input | ratio | of the weights | "
        "ratio | differences | used |\n|" + "---|" * 11
    )
    for shape in SHAPES:
        print(row(*shape, args.repetitions), flush=True)


def row(batch, channels, outputs, height, width, doubled, repetitions):
    from jseg.nn import convolution, im2col, winograd
    from jseg.runtime import jt

    rng = np.random.default_rng(0)
    form = (1, 1), doubled
    sides = (height * (1 + doubled), width * (1 + doubled))
    sizes = batch, outputs, channels, *sides
    small = not doubled and not winograd.pays(*sizes) and im2col.pays(*sizes)
    algorithm, own_form = (im2col, form[:1]) if small else (winograd, form)

    def array(*dimensions):
        return jt.array(rng.standard_normal(dimensions).astype(np.float32))

    x, weight = array(batch, channels, height, width), array(outputs, channels, 3, 3) / 8
    gradient = array(batch, outputs, *sides)

    def plain_gradient(of):
        y = convolution.plain_conv3x3(x, weight, None, *form)
        return jt.grad(y * gradient.stop_grad(), of)

    times, results = timed(
        {
            "plain": lambda: convolution.plain_conv3x3(x, weight, None, *form),
            "ours": lambda: algorithm.convolve(x, weight, *own_form),
            "plain, input": lambda: plain_gradient(x),
            "ours, input": lambda: algorithm.input_gradient(gradient, x, weight, *own_form),
            "plain, weight": lambda: plain_gradient(weight),
            "ours, weight": lambda: algorithm.weight_gradient(gradient, x, *own_form),
        },
        repetitions,
    )

    # What the table says of it.
    cells = [f"{batch} x {channels} -> {outputs}, {height}x{width}" + (", doubled" * doubled)]
    cells += [f"{1e3 * times[side]:.2f} ms" for side in ("plain", "ours")]
    cells.append(f"{times['plain'] / times['ours']:.2f}")
    wanted = exact(x.numpy(), weight.numpy(), doubled)
    cells.append(" / ".join(f"{error(results[side], wanted):.1e}" for side in ("plain", "ours")))
    for of in ("input", "weight"):
        pair = times[f"plain, {of}"], times[f"ours, {of}"]
        cells += [f"{1e3 * pair[1]:.2f} ms", f"{pair[0] / pair[1]:.2f}"]
    cells.append(
        " / ".join(
            f"{difference(results[f'plain, {of}'], results[f'ours, {of}']):.1e}"
            for of in ("input", "weight")
        )
    )
    forward, training = (winograd.pays(*sizes, gradients=gradients) for gradients in (False, True))
    when = "always" if small or training else "without gradients" if forward else "never"
    cells.append(when + (", im2col" if small else ""))
    return "| " + " | ".join(cells) + " |"


def timed(sides, repetitions):
    """({side: best seconds}, {side: its result}), the sides in turn."""
    from jseg.runtime import jt

    best, results = dict.fromkeys(sides, float("inf")), {}
    for repetition in range(repetitions + 1):
        for side, compute in sides.items():
            before = time.perf_counter()
            result = compute()
            result.sync()
            jt.sync_all(True)
            if repetition:
                best[side] = min(best[side], time.perf_counter() - before)
            else:
                results[side] = result.numpy()
    return best, results


def exact(x, weight, doubled):
    """[(place, value)] of the result, float64, at PLACES places."""
    rng = np.random.default_rng(1)
    whole = x.repeat(2, 2).repeat(2, 3) if doubled else x
    whole = np.pad(whole, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    size = (x.shape[0], weight.shape[0], whole.shape[2] - 2, whole.shape[3] - 2)
    found = []
    for place in zip(*(rng.integers(0, side, PLACES) for side in size)):
        n, k, i, j = place
        found.append((place, (whole[n, :, i : i + 3, j : j + 3] * weight[k]).sum()))
    return found


def error(result, wanted):
    largest = np.abs(result).max()
    return max(abs(result[place] - value) for place, value in wanted) / largest


def difference(a, b):
    return np.abs(a - b).max() / np.abs(a).max()


if __name__ == "__main__":
    main()
