"""mIoU, accuracy and seconds an image of a FlowSeg network on a validation split, by Euler steps.

At the times that the network was trained at, then with the mirrored image, then at even times.

  python benchmarks/segment_score.py --weights runs/flowseg/best.safetensors --data camvid --layout camvid
"""

import argparse
import os
import sys
import time

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument(
        "--data", required=True, help="folder of the data set, as for train_flowseg"
    )
    parser.add_argument("--layout", default="folders")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10, 25])
    parser.add_argument(
        "--mirror",
        type=int,
        nargs="*",
        default=[1, 10],
        help="steps with the mirrored image (default 1 10)",
    )
    parser.add_argument(
        "--even",
        type=int,
        nargs="*",
        default=[2, 5, 10, 25],
        help="steps at even times (default 2 5 10 25)",
    )
    args = parser.parse_args()
    from jseg.data.datasets import open_dataset
    from jseg.flowseg.predict import Segmenter
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    dataset = open_dataset(args.data, args.layout)
    loaded = [(example.stem, *dataset.load(example)) for example in dataset.val]
    print("| steps | mIoU | accuracy | seconds an image |\n|---|---|---|---|")
    ways = [
        ("%d", args.steps, {}),
        ("%d, mirrored too", args.mirror, {"mirror": True}),
        ("%d, at even times", args.even, {"shift": 1.0}),
    ]
    for name, options in [
        (name % steps, dict(options, steps=steps))
        for name, counts, options in ways
        for steps in counts
    ]:
        segmenter, total = Segmenter.from_file(args.weights, **options), 0
        segmenter.segment(loaded[0][1], loaded[0][0])  # compiles
        start = time.perf_counter()
        found = [segmenter.segment(image, stem) for stem, image, _ in loaded]
        seconds = (time.perf_counter() - start) / len(loaded)
        for (_, _, label), labels in zip(loaded, found):
            total = total + confusion(labels, label, len(dataset.classes))
        print(
            f"| {name} | {mean_iou(total):.3f} | {pixel_accuracy(total):.3f} | {seconds:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
