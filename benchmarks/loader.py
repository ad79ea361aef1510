"""What a training step waits for its batch: `jseg.training.loader` beside the loop itself, threads
and Jittor's own data set, on the crops of FlowSeg's training.

  OMP_NUM_THREADS=1 python benchmarks/loader.py --data camvid --layout camvid

Each step computes products of Jittor's for about twice as long as a batch takes to make, on one
core: a loader that is ahead of them hides the batch.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jseg import runtime
from jseg.data.datasets import open_dataset
from jseg.flowseg.dataset import CropBatches
from jseg.runtime import jt
from jseg.training.loader import Loader
from jseg.training.sampling import BatchShards, positions

SIDE = 1024  # of the product's matrices


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True)
    p.add_argument("--layout", default="camvid")
    p.add_argument("--width", type=int, default=512)
    p.add_argument("--height", type=int, default=512)
    p.add_argument("--batch_size", type=int, default=8)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = p.parse_args()

    runtime.device("cpu")
    dataset = open_dataset(args.data, args.layout)
    division = BatchShards(args.batch_size, args.batch_size)
    size = (args.width, args.height)
    classes = len(dataset.classes)
    batches = CropBatches(dataset.train, dataset.load, classes, size, division, seed=0, noise=False)
    making = seconds(lambda: list(batches(0)), 3)
    products = products_of(2 * making)
    computing = seconds(lambda: compute(products), 3)
    print(f"a batch: {making:.3f} s to make, {computing:.3f} s computed on it")

    print("| batches from | seconds a step | waited |\n|---|---|---|")
    rows = {"the loop": alone, "2 threads": threads}
    rows.update({f"{n} worker[s] of jseg": processes(n) for n in args.workers})
    rows.update({f"{n} worker[s] of jittor.dataset": jittor_workers(n) for n in args.workers})
    for name, source in rows.items():
        each = step_seconds(source(batches, range(args.steps)), products, args.steps)
        print(f"| {name} | {each:.3f} | {max(0.0, each - computing):.3f} |", flush=True)


def alone(batches, steps):
    for step in steps:
        yield list(batches(step))


def threads(batches, steps):
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(lambda step: list(batches(step)), step) for step in steps]
        for future in ahead:
            yield future.result()


def processes(workers):
    def source(batches, steps):
        with Loader(batches, steps, workers) as loader:
            for step in steps:
                yield loader(step)

    return source


def jittor_workers(workers):
    def source(batches, steps):
        crops = Crops(batches, steps)
        crops.set_attrs(batch_size=batches.division.batch_size, num_workers=workers)
        crops.keep_numpy_array = True
        yield from crops
        crops.terminate()

    return source


class Crops(jt.dataset.Dataset):
    """The same crops, one by one, for Jittor to batch."""

    def __init__(self, batches, steps):
        super().__init__()
        self.batches, self.steps = batches, steps
        self.count = batches.division.batch_size
        self.total_len = len(steps) * self.count

    def __getitem__(self, number):
        step, position = divmod(int(number), self.count)
        order = positions(len(self.batches.examples), self.count, step, self.batches.seed)
        example = self.batches._example(order[position], step, position)
        return tuple(np.asarray(value) for value in example)


def step_seconds(source, products, steps):
    """Mean seconds of the steps after the first, whose batch nobody could make ahead."""
    for step, _ in enumerate(source):
        if step == 0:
            begun = time.perf_counter()
        compute(products)
    return (time.perf_counter() - begun) / steps


def products_of(wanted):
    """How many products take that many seconds."""
    compute(1)
    return max(1, round(wanted / seconds(lambda: compute(4), 3) * 4))


def compute(products):
    x = matrix = jt.array(np.full((SIDE, SIDE), 1e-3, np.float32))
    for _ in range(products):
        x = x @ matrix
    x.sync()


def seconds(function, times):
    """The least of several."""
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return best


if __name__ == "__main__":
    main()
