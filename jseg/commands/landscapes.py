"""Draw procedural landscapes with their label maps into a folder in the challenge's layout.

OUT/test/val_B_labels_resized/*.png are label maps, OUT/test/label_to_img.json names each one's style reference, OUT/train/imgs/*.jpg are
the references (pictures of other scenes) and OUT/train/labels/*.png their own label maps. The same seed gives the same files.

examples:
  python scripts/landscapes.py --output landscapes --count 12 --sheet landscapes/sheet.png
  python -m jseg landscapes --output landscapes --count 1000 --seed 7 --width 256 --height 192
  python scripts/test.py --input_path landscapes/test --img_path landscapes/train --output_path results
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

SHOWN = 24  # pairs on a sheet at most
ACROSS = 3  # pairs in a row of the sheet


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("landscapes", __doc__)
    result.add_argument("--output", required=True, metavar="DIR", help="the folder to write, created if missing")
    result.add_argument("--count", type=int, default=12, help="number of pairs (default 12)")
    result.add_argument("--seed", type=int, default=0, help="the first scene's seed; the others follow it (default 0)")
    result.add_argument("--width", type=int, default=512, help="pixels (default 512)")
    result.add_argument("--height", type=int, default=384, help="pixels (default 384)")
    result.add_argument("--sheet", metavar="FILE", help="also write the references and their label maps as one .png or .jpg")
    return result


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    if args.sheet and Path(args.sheet).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError("--sheet %s: expected a name that ends in .png, .jpg or .jpeg" % args.sheet)
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise ValueError("--output %s is a file; expected a folder, which is created if missing" % args.output)
    from jseg import procedural

    def tell(number: int) -> None:
        if number % 100 == 0:
            print("jseg landscapes: %d of %d" % (number, args.count), file=sys.stderr)

    procedural.write_challenge(args.output, args.count, args.seed, args.width, args.height, tell)
    print("wrote %d pairs of %dx%d: --input_path %s --img_path %s" % (args.count, args.width, args.height, Path(args.output) / "test",
                                                                      Path(args.output) / "train"))
    if args.sheet:
        _write_sheet(Path(args.output) / "train", Path(args.sheet), args.count)
        print("wrote %s" % args.sheet)
    return 0


def _write_sheet(train: Path, target: Path, count: int) -> None:
    """The first references beside their label maps in colour."""
    from jseg.classes import CLASS_SETS, colorize
    from jseg.images import read_label, read_picture, save_picture
    from jseg.sheet import contact_sheet

    cells = []
    for number in range(min(count, SHOWN)):
        stem = "style_%04d" % number
        cells += [read_picture(train / "imgs" / (stem + ".jpg")),
                  colorize(read_label(train / "labels" / (stem + ".png")), CLASS_SETS["landscape-29"])]
    rows = [cells[start:start + 2 * ACROSS] for start in range(0, len(cells), 2 * ACROSS)]
    across = min(ACROSS, len(cells) // 2)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_picture(target, contact_sheet(rows, ["picture", "label map"] * across, [""] * len(rows)))


if __name__ == "__main__":
    sys.exit(cli.run(main))
