"""mIoU, accuracy and seconds per image of a FlowSeg network on a validation split, by Euler steps.

At the times that the network was trained at, then with the mirrored image, then at even times.

  python benchmarks/segment_score.py --weights runs/flowseg/best.safetensors \\
      --data camvid --layout camvid
"""

import argparse
import os
import sys
import time

# A clone need not be installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


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
    examples = [(example.stem, *dataset.load(example)) for example in dataset.val]
    rows = [
        *((f"{steps}", steps, {}) for steps in args.steps),
        *((f"{steps}, mirrored too", steps, {"mirror": True}) for steps in args.mirror),
        *((f"{steps}, at even times", steps, {"shift": 1.0}) for steps in args.even),
    ]
    print("| steps | mIoU | accuracy | seconds per image |\n|---|---|---|---|")
    for name, steps, options in rows:
        segmenter = Segmenter.from_file(args.weights, steps=steps, **options)
        stem, image, _ = examples[0]
        segmenter.segment(image, stem)  # compiles

        start = time.perf_counter()
        predictions = [segmenter.segment(image, stem) for stem, image, _ in examples]
        seconds = (time.perf_counter() - start) / len(examples)

        matrix = 0
        for (_, _, label), prediction in zip(examples, predictions):
            matrix = matrix + confusion(prediction, label, len(dataset.classes))
        miou, accuracy = mean_iou(matrix), pixel_accuracy(matrix)
        print(f"| {name} | {miou:.3f} | {accuracy:.3f} | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
