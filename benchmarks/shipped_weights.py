"""What the weights that ship can do, measured on landscapes that no training has seen: mood of the
reference, agreement with the label map.

Pairs: scenes drawn by jseg.landscapes.draw from seeds far from those of the training, each with an
image of another scene as its reference. Style: jseg.metrics.style_similarity of each result with
its own reference and with other results' references; "nearest" is the share of results to which, of
all the references compared, their own is the most similar. Labels: a small classifier
(label_classifier.py), trained here on drawings of its own, says what each pixel of a result shows;
that is compared with the map that was asked for, and with the map of another scene. The same is
measured for the bounds: the scene drawn in the reference's style, which has both; the same weights
without a label map and UNets that were never trained; and the reference through the autoencoder,
which has only the style.

  python benchmarks/shipped_weights.py --stages stages.json --classifier classifier.npz --sheet sheet.png
  python benchmarks/shipped_weights.py --model_path unet.safetensors --ae_path autoencoder.safetensors --preset fine --count 48

The table goes to standard output. The classifier takes some minutes to train; with --classifier it
is kept in a file for the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

sys.path.insert(
    0, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # a clone need not be installed

SCENES = (
    1 << 29
)  # the training data have seeds from 1000 on, and their images 2^30 more (procedural.REFERENCE_SEEDS)
CLASSES, UNKNOWN = 29, 255
SHOWN = 8  # rows of the sheet
OURS = "weights"
MEANING = {
    "drawn": "the scene drawn in the reference's style",
    OURS: "the weights",
    "no label map": "the weights without a label map",
    "new UNet": "a new UNet, as training begins",
    "random UNet": "a UNet of random weights, none of them zero",
    "autoencoder": "the reference through the autoencoder",
}


class Pair(NamedTuple):
    stem: str
    label: np.ndarray  # uint8 [H, W], what is asked for
    image: np.ndarray  # that scene as it was drawn, in its own style
    ideal: np.ndarray  # the same in the reference's style
    reference: np.ndarray
    reference_label: np.ndarray


class Scores(NamedTuple):
    """Arrays [N], one value per image, and the confusion matrix of all."""

    style: np.ndarray
    other_styles: np.ndarray
    nearest: np.ndarray
    agreement: np.ndarray
    other_agreement: np.ndarray
    confusion: np.ndarray


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--model_path", help="weights of the UNet (default: as the test command finds them)"
    )
    p.add_argument("--ae_path", help="weights of the autoencoder (default: as --model_path)")
    p.add_argument(
        "--preset", "--pipeline", default="fine", help="inference pipeline (default fine)"
    )
    p.add_argument(
        "--stages", metavar="FILE", help="JSON file with other stages, as for the test command"
    )
    p.add_argument("--count", type=int, default=32, help="pairs (default 32)")
    p.add_argument(
        "--among",
        type=int,
        default=8,
        help="references that each result is compared with, its own included (default 8)",
    )
    p.add_argument(
        "--kind",
        default="corrected",
        choices=("corrected", "challenge"),
        help="of jseg.metrics.style_similarity",
    )
    p.add_argument(
        "--seed", type=int, default=0, help="of the sampling noise and the new UNet (default 0)"
    )
    p.add_argument("--batch_size", type=int, default=8)
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument(
        "--classifier",
        metavar="FILE",
        help="load the classifier from this file, or train it and save it there (.npz)",
    )
    p.add_argument(
        "--drawings",
        type=int,
        default=2000,
        help="landscapes that the classifier is trained on (default 2000)",
    )
    p.add_argument(
        "--classifier_steps", type=int, default=1000, help="steps of its training (default 1000)"
    )
    p.add_argument(
        "--sheet",
        metavar="FILE",
        help=f"also write a contact sheet of the first {SHOWN} pairs and all results",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    if not 2 <= args.among <= args.count or args.batch_size < 1:
        raise ValueError(
            f"--count {args.count} --among {args.among}: expected 2 or more pairs, and --among 2 "
            "to --count"
        )
    from jseg.outputs.places import check_file

    if args.sheet:
        check_file(args.sheet, "--sheet")
    from jseg.ldm.pipelines import load_pipeline
    from jseg.ldm.refine import Synthesizer
    from jseg.ldm.weights import find_weights

    pipeline = load_pipeline(args.stages, args.preset) if args.stages else args.preset
    weights = find_weights(args.model_path, args.ae_path, sha256=True)
    paths = weights.model, weights.autoencoder
    synthesizer = Synthesizer.from_files(*paths, pipeline, args.device)
    width, height = synthesizer.size
    if synthesizer.unet.config.classes != CLASSES or width % 16 or height % 16:
        raise ValueError(
            f"{paths[0]} makes images of {width}x{height} from "
            f"{synthesizer.unet.config.classes} classes; expected the landscapes' {CLASSES} "
            "classes and multiples of 16"
        )
    pairs = held_out(args.count, width, height)
    import label_classifier

    classifier = label_classifier.trained_or_loaded(
        args.classifier, args.drawings, args.classifier_steps, width, height
    )

    def seen(images):
        return label_classifier.predict(classifier, images)

    results = images_of(synthesizer, pairs, args)
    scores = {name: scored(images, pairs, seen(images), args) for name, images in results.items()}
    for path in paths:
        print(
            f"- `{os.path.basename(path)}`: {os.path.getsize(path) / 1e6:.1f} MB, SHA-256 "
            f"{path.sha256[:16]}..."
        )
    print(
        f"- {args.count} pairs of {width}x{height}, scenes {SCENES} to {SCENES + args.count - 1}; "
        f"noise seed {args.seed}; style similarity: {args.kind}"
    )
    print("- stages: " + "; ".join(described(stage) for stage in synthesizer.pipeline.stages))
    print("- the classifier on drawings it has not seen: " + classifier_row(seen, pairs))
    print("\n" + "\n".join(table(scores, args.among)))
    print("\n" + "\n".join(margins(scores)))
    if args.sheet:
        write_sheet(args.sheet, pairs, results)
    return 0


def held_out(count: int, width: int, height: int) -> List[Pair]:
    """`count` pairs of drawings, by seeds that neither the training nor the classifier has."""
    from jseg.landscapes.draw import REFERENCE_SEEDS, landscape

    pairs = []
    for number in range(count):
        scene, style = SCENES + number, REFERENCE_SEEDS + SCENES + number
        image, label = landscape(scene, width, height)
        ideal, _ = landscape(scene, width, height, style_seed=style)
        pairs.append(
            Pair(f"held_out_{number:04d}", label, image, ideal, *landscape(style, width, height))
        )
    return pairs


def images_of(synthesizer, pairs: Sequence[Pair], args) -> Dict[str, List[np.ndarray]]:
    """{row, a key of MEANING: images}, uint8 [H, W, 3] each."""
    from jseg import runtime
    from jseg.checkpoint import load_into
    from jseg.ldm.refine import Synthesizer
    from jseg.ldm.state_dict import unet_shapes
    from jseg.ldm.unet import UNet
    from jseg.parity.stand_in import fill

    config = synthesizer.unet.config

    def fresh():
        runtime.seed(args.seed)
        return UNet(config)

    def recipe():
        unet = UNet(config)
        load_into(unet, fill(unet_shapes(config)))
        return unet

    def untrained(build: Callable) -> Callable:
        return lambda: made(
            Synthesizer(build(), synthesizer.autoencoder, synthesizer.pipeline), pairs, args
        )

    rows = {
        "drawn": lambda: [pair.ideal for pair in pairs],
        OURS: lambda: made(synthesizer, pairs, args),
        "no label map": lambda: made(synthesizer, pairs, args, conditioned=False),
        "new UNet": untrained(fresh),
        "random UNet": untrained(recipe),
        "autoencoder": lambda: [
            round_trip(synthesizer.autoencoder, pair.reference) for pair in pairs
        ],
    }
    found = {}
    for name, make in rows.items():
        before = time.monotonic()
        found[name] = make()
        print(
            f"{name}: {len(pairs)} images in {time.monotonic() - before:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return found


def made(synthesizer, pairs: Sequence[Pair], args, conditioned: bool = True) -> List[np.ndarray]:
    """The synthesizer's images of the pairs; unconditioned, every pixel of the map is unknown."""
    from jseg.images import resize_label

    images = []
    for start in range(0, len(pairs), args.batch_size):
        batch = pairs[start : start + args.batch_size]
        labels = [resize_label(pair.label, *synthesizer.latent_size) for pair in batch]
        if not conditioned:
            labels = [np.full_like(label, UNKNOWN) for label in labels]
        for progress in synthesizer.run(
            labels, [pair.reference for pair in batch], args.seed, [pair.stem for pair in batch]
        ):
            last = progress.images
        images += last
    return images


def round_trip(autoencoder, image: np.ndarray) -> np.ndarray:
    from jseg.images import from_signed, to_signed
    from jseg.runtime import jt

    with jt.no_grad():
        return from_signed(
            autoencoder.decode(autoencoder.encode(jt.array(to_signed(image)[None]))).numpy()[0]
        )


def scored(
    images: Sequence[np.ndarray], pairs: Sequence[Pair], seen: Sequence[np.ndarray], args
) -> Scores:
    """The scores of one row; image i is compared with the references of pairs i, i + 1, ..., and
    with the map of pair i + 1.
    """
    from jseg.metrics import confusion, mask_accuracy, style_similarity

    count = len(pairs)
    likeness = np.array(
        [
            [
                style_similarity(image, pairs[(i + step) % count].reference, args.kind)
                for step in range(args.among)
            ]
            for i, image in enumerate(images)
        ]
    )
    own, others = likeness[:, 0], likeness[:, 1:]
    return Scores(
        own,
        others.mean(axis=1),
        own > others.max(axis=1),
        np.array([mask_accuracy(found, pair.label) for found, pair in zip(seen, pairs)]),
        np.array(
            [mask_accuracy(found, pairs[(i + 1) % count].label) for i, found in enumerate(seen)]
        ),
        sum(confusion(found, pair.label, CLASSES) for found, pair in zip(seen, pairs)),
    )


def classifier_row(seen: Callable, pairs: Sequence[Pair]) -> str:
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    told = []
    for name, images, labels in (
        ("the scenes in their own style", [p.image for p in pairs], [p.label for p in pairs]),
        ("the references", [p.reference for p in pairs], [p.reference_label for p in pairs]),
    ):
        matrix = sum(confusion(found, label, CLASSES) for found, label in zip(seen(images), labels))
        told.append(f"{name}: accuracy {pixel_accuracy(matrix):.3f}, mIoU {mean_iou(matrix):.3f}")
    return "; ".join(told)


def table(scores: Dict[str, Scores], among: int) -> List[str]:
    from jseg.metrics import mean_iou

    lines = [
        f"| images | style, own reference | style, others' | nearest of {among} (chance "
        f"{1 / among:.2f}) | label agreement | with another map | mIoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, s in scores.items():
        lines.append(
            f"| {MEANING[name]} | {spread(s.style)} | {s.other_styles.mean():.3f} | "
            f"{s.nearest.mean():.2f} | {spread(s.agreement)} | {s.other_agreement.mean():.3f} | "
            f"{mean_iou(s.confusion):.3f} |"
        )
    return lines


def margins(scores: Dict[str, Scores]) -> List[str]:
    """What the weights gain over the rows below theirs, image by image, with standard
    errors.
    """
    from jseg.metrics import mean_iou

    ours = scores[OURS]
    lines = [
        "| gain of the weights over | style, own minus others' | label agreement | mIoU |",
        "|---|---|---|---|",
    ]
    for name, s in list(scores.items())[2:]:
        gained = (ours.style - ours.other_styles) - (s.style - s.other_styles)
        lines.append(
            f"| {MEANING[name]} | {spread(gained, '+')} | "
            f"{spread(ours.agreement - s.agreement, '+')} | "
            f"{mean_iou(ours.confusion) - mean_iou(s.confusion):+.3f} |"
        )
    return lines


def spread(values: np.ndarray, sign: str = "") -> str:
    """'mean ± standard error of the mean'."""
    return f"{values.mean():{sign}.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def described(stage) -> str:
    colours = ", reference's colours first" if stage.color_transfer else ""
    steps = f", {stage.steps} {stage.spacing} steps of {stage.sampler}" if stage.steps else ""
    return (
        f"guidance {stage.guidance}, {stage.respacing or 'all 1000 steps'} from "
        f"{stage.start_index}{steps}{colours}"
    )


def write_sheet(path: str, pairs: Sequence[Pair], results: Dict[str, List[np.ndarray]]) -> None:
    from jseg.contact_sheet import contact_sheet
    from jseg.data.classes import CLASS_SETS, colorize
    from jseg.images import save_image

    rows = [
        [colorize(pair.label, CLASS_SETS["landscape-29"]), pair.reference]
        + [images[i] for images in results.values()]
        for i, pair in enumerate(pairs[:SHOWN])
    ]
    save_image(
        path,
        contact_sheet(
            rows,
            ["label map", "reference"] + list(results),
            [pair.stem[-4:] for pair in pairs[:SHOWN]],
            192,
        ),
    )


if __name__ == "__main__":
    from jseg.commands.cli import run

    sys.exit(run(main))
