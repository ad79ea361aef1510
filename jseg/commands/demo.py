"""See both branches work: procedural landscapes, the small trained networks that ship with jseg,
and contact sheets of what they make.

Draws label maps and, of other scenes, style references into a folder in the challenge's layout, and
runs the test command on it with three short stages: label map, reference, every stage and the
result side by side. Then FlowSeg segments the results, and tells how far its label maps agree with
those that the results were made from. The folder must be new or empty; a second call with the same
numbers goes on where the first one stopped.

Examples:
  python scripts/demo.py
  python scripts/demo.py --output somewhere --count 12 --seed 100
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import List, Optional, Tuple

from jseg.commands import cli

RECORD, SHEET = "demo.json", "segmented.png"

# Less noise than the release's (t = 600, 640, 400) and ten steps a stage: what keeps most of the
# reference's mood while the label map is still followed. More guidance than this oversaturates the
# small network.
STEPS = {
    "guidance": 2.5,
    "respacing": "",
    "sampler": "dpmpp_2m",
    "steps": 10,
    "spacing": "quadratic",
}
STAGES = {
    "base": "fine",
    "stages": [
        {"start_index": 500, **STEPS},
        {"start_index": 500, "color_transfer": True, **STEPS},
        {"start_index": 360, "color_transfer": True, **STEPS},
    ],
}


def parser():
    p = cli.make_parser("demo", __doc__)
    p.add_argument("--output", default="demo", help="folder for data and results (default ./demo)")
    p.add_argument("--count", type=int, default=6, help="number of images (default 6)")
    p.add_argument(
        "--seed", type=int, default=0, help="seed of the landscapes and of the noise (default 0)"
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Prepare the data, then call the test command as a user would."""
    args = parser().parse_args(argv)
    if args.count < 1 or args.seed < 0:
        raise ValueError(
            f"--count {args.count} --seed {args.seed}: expected a count of 1 or more and a seed "
            "of 0 or more"
        )
    from jseg.commands import test
    from jseg.files import sha256
    from jseg.landscapes import draw
    from jseg.ldm.weights import SHIPPED_AUTOENCODER, SHIPPED_MODEL, expected_networks
    from jseg.outputs.rules import held

    unet, autoencoder = expected_networks(SHIPPED_MODEL, SHIPPED_AUTOENCODER)
    width, height = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    folder, record = (
        Path(args.output),
        {"format": 1, "command": "demo", "count": args.count, "seed": args.seed},
    )
    _check(folder, record, width, height)
    with held(folder):
        _check(folder, record, width, height)  # once more: another run may have written there since
        _write(folder / RECORD, json.dumps(record, indent=1).encode())
        _tell(f"drawing {args.count} landscapes of {width}x{height} into {folder / 'data'}")
        draw.write_challenge(folder / "data", args.count, args.seed, width, height)
        stages = folder / "stages.json"
        _write(stages, _stages())
        call = [
            "--input_path",
            str(folder / "data" / "test"),
            "--img_path",
            str(folder / "data" / "train"),
            "--output_path",
            str(folder / "results"),
            "--model_path",
            str(SHIPPED_MODEL),
            "--ae_path",
            str(SHIPPED_AUTOENCODER),
            "--stages",
            str(stages),
            "--seed",
            str(args.seed),
            "--grid",
        ]
        _tell("python scripts/test.py " + " ".join(call))
        test.main(call)
        _segment(folder)
        _write(
            folder / RECORD,
            json.dumps({**record, "files": {SHEET: sha256(folder / SHEET)}}, indent=1).encode(),
        )
    _tell(
        f"look at {folder / 'results' / 'grid.png'}: label map, reference, stages, result, made "
        "by the small weights that ship with jseg (jseg/weights/CARD.md)"
    )
    _tell(f"look at {folder / SHEET}: label map, result, what FlowSeg sees in it")
    return 0


def _check(folder: Path, record: dict, width: int, height: int) -> None:
    """Refuse, before anything is drawn, a folder that holds anything but what the same call has
    begun.
    """
    from jseg.files import DataError
    from jseg.landscapes import draw
    from jseg.outputs.records import is_own, read_record
    from jseg.outputs.rules import check_empty, check_folder, check_origin

    count, seed, most = record["count"], record["seed"], draw.REFERENCE_SEEDS
    if not 0 <= seed <= most - count:
        raise ValueError(
            f"--seed {seed} with --count {count}: expected a seed from 0 to {max(0, most - count)}"
        )
    check_folder(
        folder, "--output", 0 if (folder / RECORD).exists() else 16 * count * width * height
    )
    check_origin(folder, "--output", "demo")
    if not (folder / RECORD).exists():
        check_empty(folder, "--output", RECORD)
        return
    old = read_record(folder / RECORD) or {}
    if old.get("command") != "demo":
        raise DataError(
            f"{folder / RECORD} is no record of the demo, or is damaged; move it away, or give "
            "another --output"
        )
    if (old.get("count"), old.get("seed")) != (count, seed):
        raise DataError(
            f"--output {folder} holds the demo of --count {old.get('count')} --seed "
            f"{old.get('seed')}, not of --count {count} --seed {seed}; give another --output, or "
            "the same numbers to go on"
        )
    stages = folder / "stages.json"
    if stages.exists() and stages.read_bytes() != _stages():
        raise DataError(
            f"{stages} is not as the demo wrote it; move it away, or give another --output"
        )
    if not is_own(folder, SHEET, old.get("files") or {}):
        raise DataError(
            f"{folder / SHEET} was changed since the demo wrote it; move it away, or give another "
            "--output"
        )
    draw.check_challenge(folder / "data", count, seed, width, height)


def _stages() -> bytes:
    return json.dumps(STAGES, indent=1).encode()


def _write(path: Path, content: bytes) -> None:
    from jseg.files import write_atomic

    write_atomic(path, lambda file: file.write(content))


def _segment(folder: Path) -> None:
    """The way back: segment what was made, as a user would, and hold it against the label maps; the
    references show what can be had.
    """
    from jseg.commands import segment
    from jseg.contact_sheet import contact_sheet
    from jseg.data.classes import CLASS_SETS, colorize
    from jseg.data.label_maps import read_label
    from jseg.images import read_image, save_image

    maps = sorted((folder / "data" / "test" / "val_B_labels_resized").glob("*.png"))
    results = [folder / "results" / f"{path.stem}.jpg" for path in maps]
    references = folder / "data" / "train"
    agreement = []
    for images, labels, output in (
        (results, maps, folder / "labels"),
        (
            sorted((references / "imgs").glob("*.jpg")),
            sorted((references / "labels").glob("*.png")),
            folder / "reference_labels",
        ),
    ):
        call = ["--input"] + [str(path) for path in images] + ["--output", str(output)]
        _tell("python scripts/segment.py " + " ".join(call[:2] + ["..."] + call[-2:]))
        segment.main(call)
        pairs = [
            (read_label(output / f"{image.stem}.png"), read_label(label))
            for image, label in zip(images, labels)
        ]
        agreement.append(_agreement(pairs))
    shown = CLASS_SETS["landscape-29"]
    rows = [
        [
            colorize(read_label(label), shown),
            read_image(result),
            colorize(read_label(folder / "labels" / label.name), shown),
        ]
        for label, result in zip(maps, results)
    ]
    save_image(
        folder / SHEET,
        contact_sheet(rows, ["label", "result", "FlowSeg"], [path.stem for path in maps]),
    )
    _tell(
        "in the results FlowSeg sees the label maps that they were made from at {:.0%} of the "
        "pixels (mIoU {:.2f}), in the references theirs at {:.0%} (mIoU {:.2f})".format(
            *(value for pair in agreement for value in pair)
        )
    )


def _agreement(pairs) -> Tuple[float, float]:
    """(share of equal pixels, mIoU) of (found, expected) label maps of the challenge's classes."""
    from jseg.data.classes import CLASS_SETS
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    total = sum(
        confusion(found, expected, len(CLASS_SETS["landscape-29"])) for found, expected in pairs
    )
    return pixel_accuracy(total), mean_iou(total)


def _tell(message: str) -> None:
    print(f"jseg demo: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
