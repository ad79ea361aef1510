"""Draw procedural landscapes with their label maps into a folder in the challenge's layout.

OUT/test/val_B_labels_resized/*.png are label maps, OUT/test/label_to_img.json names each one's
style reference, OUT/train/imgs/*.jpg are the references (images of other scenes) and
OUT/train/labels/*.png their own label maps. The same seed gives the same files. OUT must be new or
empty; OUT/landscapes.json tells how the files were drawn, so the same call goes on and another one
is refused.

examples:
  python scripts/landscapes.py --output landscapes --count 12 --sheet landscapes/sheet.png
  python -m jseg landscapes --output landscapes --count 1000 --seed 7 --width 256 --height 192
  python scripts/test.py --input_path landscapes/test --img_path landscapes/train --output_path results
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

SHOWN = 24  # pairs on a sheet at most
ACROSS = 3  # pairs in a row of the sheet


def parser() -> argparse.ArgumentParser:
    result = cli.make_parser("landscapes", __doc__)
    result.add_argument(
        "--output", required=True, metavar="DIR", help="the folder to write, created if missing"
    )
    result.add_argument("--count", type=int, default=12, help="number of pairs (default 12)")
    result.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the first scene's seed; the others follow it (default 0)",
    )
    result.add_argument("--width", type=int, default=512, help="pixels (default 512)")
    result.add_argument("--height", type=int, default=384, help="pixels (default 384)")
    result.add_argument(
        "--sheet",
        metavar="FILE",
        help="also write the references and their label maps as one .png or .jpg",
    )
    return result


def main(argv: Optional[List[str]] = None) -> int:
    args = parser().parse_args(argv)
    if args.sheet and Path(args.sheet).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--sheet {args.sheet}: expected a name that ends in .png, .jpg or .jpeg")
    from jseg.landscapes import draw

    # Everything is checked before the first folder is made.
    draw.check_challenge(args.output, args.count, args.seed, args.width, args.height)
    if not args.sheet:
        _draw(args)
        return 0
    from jseg.outputs.rules import held_files

    _check_sheet(args)
    with held_files([args.sheet]):
        _check_sheet(args)
        _draw(args)
        _write_sheet(Path(args.output), Path(args.sheet), args.count)
    print(f"wrote {args.sheet}")
    return 0


def _draw(args) -> None:
    """The pairs that are not there yet."""
    from jseg.landscapes import draw

    def tell(number: int) -> None:
        if number % 100 == 0:
            print(f"jseg landscapes: {number} of {args.count}", file=sys.stderr)

    kept = draw.write_challenge(args.output, args.count, args.seed, args.width, args.height, tell)
    if kept:
        print(
            f"jseg landscapes: {kept} of {args.count} pairs were there already and are kept",
            file=sys.stderr,
        )
    print(
        f"wrote {args.count} pairs of {args.width}x{args.height}: --input_path "
        f"{Path(args.output) / 'test'} --img_path {Path(args.output) / 'train'}"
    )


def _check_sheet(args) -> None:
    """Refuse a sheet in the place of any other file: it may replace only the sheet that the same
    call wrote.
    """
    from jseg.files import sha256
    from jseg.landscapes.draw import PLACES, RECORD, TABLE
    from jseg.outputs.records import read_record
    from jseg.outputs.rules import OutputError, check_file

    folder, sheet = Path(args.output), Path(args.sheet)
    place = os.path.realpath(str(sheet.parent))
    data = [os.path.realpath(str(folder / name)) for name in PLACES + (os.path.dirname(TABLE),)]
    if place in data:
        raise OutputError(
            "--sheet %s lies among the landscapes; give a place outside of %s and %s"
            % (sheet, *sorted(str(folder / name) for name in ("test", "train")))
        )
    about = read_record(folder / RECORD) or {}
    own = (
        about.get("sheet") == _name(folder, sheet)
        and sheet.is_file()
        and about.get("sheet_sha256") == sha256(sheet)
    )
    check_file(sheet, "--sheet", known=own)


def _name(folder: Path, sheet: Path) -> str:
    """How the record names a sheet: relative to the folder where it lies in it, else whole."""
    found, root = os.path.realpath(str(sheet)), os.path.realpath(str(folder))
    return os.path.relpath(found, root) if found.startswith(root + os.sep) else found


def _write_sheet(folder: Path, target: Path, count: int) -> None:
    """The first references beside their label maps in colour; the record then knows the sheet."""
    from jseg.contact_sheet import contact_sheet
    from jseg.data.classes import CLASS_SETS, colorize
    from jseg.data.label_maps import read_label
    from jseg.files import sha256
    from jseg.images import read_image, save_image
    from jseg.landscapes.draw import RECORD, write_record
    from jseg.outputs.records import read_record
    from jseg.outputs.rules import held

    train, cells = folder / "train", []
    for number in range(min(count, SHOWN)):
        stem = f"style_{number:04d}"
        cells += [
            read_image(train / "imgs" / (stem + ".jpg")),
            colorize(read_label(train / "labels" / (stem + ".png")), CLASS_SETS["landscape-29"]),
        ]
    rows = [cells[start : start + 2 * ACROSS] for start in range(0, len(cells), 2 * ACROSS)]
    across = min(ACROSS, len(cells) // 2)
    save_image(target, contact_sheet(rows, ["image", "label map"] * across, [""] * len(rows)))
    with held(folder):
        about = {
            **(read_record(folder / RECORD) or {}),
            "sheet": _name(folder, target),
            "sheet_sha256": sha256(target),
        }
        write_record(folder, about)


if __name__ == "__main__":
    sys.exit(cli.run(main))
