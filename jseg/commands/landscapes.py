"""Draw procedural landscapes with their label maps into a folder in the challenge's layout.

DIR/test/val_B_labels_resized/*.png are label maps, DIR/test/label_to_img.json names each one's
style reference, DIR/train/imgs/*.jpg are the references (images of other scenes) and
DIR/train/labels/*.png their own label maps. The same seed gives the same files. DIR must be new or
empty; DIR/landscapes.json tells how the files were drawn, so the same call goes on and another one
is refused.

Examples:
  python scripts/landscapes.py --output landscapes --count 12 --sheet landscapes/sheet.png
  python -m jseg landscapes --output landscapes --count 1000 --seed 7 --width 256 --height 192
  python scripts/test.py --input_path landscapes/test --img_path landscapes/train \\
      --output_path results
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli
from jseg.counting import agreeing, counted

SHOWN = 24  # pairs on a sheet at most
ACROSS = 3  # pairs in a row of the sheet
TOLD = 100  # pairs between two lines
say = partial(cli.say, "landscapes")


def parser() -> argparse.ArgumentParser:
    p = cli.make_parser("landscapes", __doc__)
    p.add_argument(
        "--output", required=True, metavar="DIR", help="the folder to write, created if missing"
    )
    p.add_argument("--count", type=int, default=12, help="number of pairs (default 12)")
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the first scene's seed; the others follow it (default 0)",
    )
    p.add_argument("--width", type=int, default=512, help="pixels (default 512)")
    p.add_argument("--height", type=int, default=384, help="pixels (default 384)")
    p.add_argument(
        "--sheet",
        metavar="FILE",
        help="also write the references and their label maps as one .png or .jpg",
    )
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Draw what is not there yet, and the sheet; 0 when all is there."""
    args = parser().parse_args(argv)
    if args.sheet and Path(args.sheet).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--sheet {args.sheet}: expected a name that ends in .png, .jpg or .jpeg")
    from jseg.landscapes.challenge_folder import check_challenge
    from jseg.outputs.locks import held_files

    # Everything is checked before the first folder is made.
    check_challenge(args.output, args.count, args.seed, args.width, args.height)
    if not args.sheet:
        _draw(args)
        return 0
    folder, sheet = Path(args.output), Path(args.sheet)
    _check_sheet(folder, sheet)
    with held_files([sheet]):
        _check_sheet(folder, sheet)  # once more: another process may have written there since
        _draw(args)
        _write_sheet(folder, sheet, args.count)
    print(f"wrote {sheet}")
    return 0


def _draw(args) -> None:
    """The pairs that are not there yet."""
    from jseg.landscapes.challenge_folder import written_pairs

    kept = 0
    pairs = written_pairs(args.output, args.count, args.seed, args.width, args.height)
    for number, drawn in enumerate(pairs, 1):
        kept += not drawn
        if number % TOLD == 0:
            say(f"{number} of {args.count}")
    if kept:
        words = "[was|were] there already and [is|are] kept"
        say(f"{kept} of {counted(args.count, 'pair[s]')} {agreeing(kept, words)}")
    folder = Path(args.output)
    print(
        f"wrote {counted(args.count, 'pair[s]')} of {args.width}x{args.height}: --input_path "
        f"{folder / 'test'} --img_path {folder / 'train'}"
    )


def _check_sheet(folder: Path, sheet: Path) -> None:
    """Refuse a sheet in the place of any other file: it may replace only one of the same call."""
    from jseg.files import sha256
    from jseg.landscapes.challenge_folder import PLACES, RECORD, TABLE
    from jseg.outputs.places import OutputError, check_file
    from jseg.outputs.record import read_record

    drawings = [os.path.realpath(str(folder / n)) for n in (*PLACES, os.path.dirname(TABLE))]
    if os.path.realpath(str(sheet.parent)) in drawings:
        raise OutputError(
            f"--sheet {sheet} lies among the landscapes; give a place outside of "
            f"{folder / 'test'} and {folder / 'train'}"
        )
    record = read_record(folder / RECORD) or {}
    named = record.get("sheet") == _name(folder, sheet)
    own = named and sheet.is_file() and record.get("sheet_sha256") == sha256(sheet)
    check_file(sheet, "--sheet", known=own)


def _name(folder: Path, sheet: Path) -> str:
    """How the record names a sheet: relative to the folder where it lies in it, else whole."""
    path, root = os.path.realpath(str(sheet)), os.path.realpath(str(folder))
    return os.path.relpath(path, root) if path.startswith(root + os.sep) else path


def _write_sheet(folder: Path, sheet: Path, count: int) -> None:
    """The first references beside their label maps in colour; the record then knows the sheet."""
    from jseg.contact_sheet import contact_sheet
    from jseg.data.classes import CLASS_SETS, colorize
    from jseg.data.label_maps import read_label
    from jseg.files import sha256
    from jseg.images import read_image, save_image
    from jseg.landscapes.challenge_folder import RECORD, pair_names, read
    from jseg.outputs.locks import held
    from jseg.outputs.record import write_json, writing

    cells = []
    for number in range(min(count, SHOWN)):
        reference, label, _ = (folder / name for name in pair_names(number))
        cells += [read_image(reference), colorize(read_label(label), CLASS_SETS["landscape-29"])]
    across = min(ACROSS, len(cells) // 2)
    rows = [cells[start : start + 2 * across] for start in range(0, len(cells), 2 * across)]
    image = contact_sheet(rows, ["image", "label map"] * across, [""] * len(rows))
    with writing(sheet):
        save_image(sheet, image)
    with held(folder):
        known = {"sheet": _name(folder, sheet), "sheet_sha256": sha256(sheet)}
        write_json(folder / RECORD, {**(read(folder) or {}), **known})


if __name__ == "__main__":
    sys.exit(cli.run(main))
