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
from functools import partial
from pathlib import Path
from typing import List, Optional, Tuple

from jseg.commands import cli
from jseg.counting import counted

RECORD, STAGES_FILE, SHEET = "demo.json", "stages.json", "segmented.png"
say = partial(cli.say, "demo")

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
    """Prepare the data, then call the other commands as a user would."""
    args = parser().parse_args(argv)
    if args.count < 1 or args.seed < 0:
        raise ValueError(
            f"--count {args.count} --seed {args.seed}: expected a count of 1 or more and a seed "
            "of 0 or more"
        )
    from jseg.files import sha256
    from jseg.landscapes.challenge_folder import write_challenge
    from jseg.ldm.weights import SHIPPED_AUTOENCODER, SHIPPED_MODEL, expected_networks
    from jseg.outputs.locks import held
    from jseg.outputs.record import FORMAT, write_json, write_text

    unet, autoencoder = expected_networks(SHIPPED_MODEL, SHIPPED_AUTOENCODER)
    size = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    folder, settings = Path(args.output), {"count": args.count, "seed": args.seed}
    _check(folder, settings, *size)
    with held(folder):
        _check(folder, settings, *size)  # once more: another process may have written there since
        record = {"format": FORMAT, "command": "demo", "settings": settings}
        write_json(folder / RECORD, record)
        say(
            f"drawing {counted(args.count, 'landscape[s]')} of {size[0]}x{size[1]} into "
            f"{folder / 'data'}"
        )
        write_challenge(folder / "data", args.count, args.seed, *size)
        write_text(folder / STAGES_FILE, _stages())
        _synthesize(folder, args.seed)
        _segment(folder)
        write_json(folder / RECORD, {**record, "files": {SHEET: sha256(folder / SHEET)}})
    say(
        f"look at {folder / 'results' / 'grid.png'}: label map, reference, stages, result, made by "
        "the small weights that ship with jseg (jseg/weights/CARD.md)"
    )
    say(f"look at {folder / SHEET}: label map, result, what FlowSeg sees in it")
    return 0


def _check(folder: Path, settings: dict, width: int, height: int) -> None:
    """Refuse, before anything is drawn, a folder of anything but what the same call has begun."""
    from jseg.landscapes.challenge_folder import check_challenge
    from jseg.landscapes.draw import REFERENCE_SEEDS
    from jseg.outputs.places import OutputError, check_empty, check_folder, check_origin
    from jseg.outputs.record import is_own, own_record
    from jseg.outputs.settings import check_same

    count, seed = settings["count"], settings["seed"]
    most = REFERENCE_SEEDS - count
    if seed > most:
        raise ValueError(
            f"--seed {seed} with --count {count}: expected a seed from 0 to {max(0, most)}"
        )
    begun = (folder / RECORD).exists()
    check_folder(folder, "--output", 0 if begun else 16 * count * width * height)
    check_origin(folder, "--output", "demo")
    record = own_record(folder / RECORD, "demo", "--output")
    if record is None:
        check_empty(folder, "--output", RECORD)
        return

    # What the same call has begun, unchanged by others.
    check_same(folder, "--output", record["settings"], settings)
    stages = folder / STAGES_FILE
    as_written = not stages.exists() or stages.read_bytes() == _stages().encode()
    for path, own in (
        (stages, as_written),
        (folder / SHEET, is_own(folder, SHEET, record.get("files", {}))),
    ):
        if not own:
            raise OutputError(
                f"{path} was changed since the demo wrote it; move it away, or give another "
                "--output"
            )
    check_challenge(folder / "data", count, seed, width, height)


def _stages() -> str:
    return json.dumps(STAGES, indent=1)


def _synthesize(folder: Path, seed: int) -> None:
    """The way there: the test command on the landscapes, as a user would call it."""
    from jseg.commands import test
    from jseg.ldm.weights import SHIPPED_AUTOENCODER, SHIPPED_MODEL

    options = {
        "input_path": folder / "data" / "test",
        "img_path": folder / "data" / "train",
        "output_path": folder / "results",
        "model_path": SHIPPED_MODEL,
        "ae_path": SHIPPED_AUTOENCODER,
        "stages": folder / STAGES_FILE,
        "seed": seed,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    call = [*words, "--grid"]
    say("python scripts/test.py " + " ".join(call))
    test.main(call)


def _segment(folder: Path) -> None:
    """The way back: segment what was made, and hold it against the label maps.

    The references, segmented as well, show what can be had.
    """
    from jseg.contact_sheet import contact_sheet
    from jseg.data.classes import CLASS_SETS, colorize
    from jseg.data.label_maps import read_label
    from jseg.images import read_image, save_image
    from jseg.outputs.record import writing

    # Results and references, each segmented and compared with the label maps.
    train = folder / "data" / "train"
    maps = sorted((folder / "data" / "test" / "val_B_labels_resized").glob("*.png"))
    results = [folder / "results" / f"{path.stem}.jpg" for path in maps]
    references = sorted((train / "imgs").glob("*.jpg"))
    accuracy, mean = _agreement(results, maps, folder / "labels")
    best = _agreement(
        references, sorted((train / "labels").glob("*.png")), folder / "reference_labels"
    )

    shown, rows = CLASS_SETS["landscape-29"], []
    for label, result in zip(maps, results):
        seen = read_label(folder / "labels" / label.name)
        rows.append([colorize(read_label(label), shown), read_image(result), colorize(seen, shown)])
    sheet = contact_sheet(rows, ["label", "result", "FlowSeg"], [path.stem for path in maps])
    with writing(folder / SHEET):
        save_image(folder / SHEET, sheet)
    say(
        f"in the results FlowSeg sees the label maps that they were made from at {accuracy:.0%} of "
        f"the pixels (mIoU {mean:.2f}), in the references theirs at {best[0]:.0%} (mIoU "
        f"{best[1]:.2f})"
    )


def _agreement(images, labels, output: Path) -> Tuple[float, float]:
    """Segment the images into `output`: (fraction of the labels' pixels that are met, mIoU)."""
    from jseg.commands import segment
    from jseg.data.classes import CLASS_SETS
    from jseg.data.label_maps import read_label
    from jseg.metrics import confusion, mean_iou, pixel_accuracy

    call = ["--input", *map(str, images), "--output", str(output)]
    say("python scripts/segment.py " + " ".join([*call[:2], "...", *call[-2:]]))
    segment.main(call)
    count = len(CLASS_SETS["landscape-29"])
    total = sum(
        confusion(read_label(output / f"{image.stem}.png"), read_label(label), count)
        for image, label in zip(images, labels)
    )
    return pixel_accuracy(total), mean_iou(total)


if __name__ == "__main__":
    sys.exit(cli.run(main))
