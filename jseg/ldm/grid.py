"""The contact sheet of a synthesis: label map, reference, stages and result of every image."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from jseg.contact_sheet import contact_sheet
from jseg.counting import counted
from jseg.data.challenge import Pair, load_pair
from jseg.data.classes import CLASS_SETS, ClassSet, colorize, spread_palette
from jseg.data.numbering import Classes
from jseg.images import read_image, resize_label, save_image
from jseg.ldm.results import GRID, stage_name
from jseg.ldm.synthesize import Inputs
from jseg.outputs.record import is_own
from jseg.outputs.run import Run

Row = List[Optional[np.ndarray]]


def write_grid(
    run: Run,
    pairs: Sequence[Pair],
    inputs: Inputs,
    stages: int,
    size: Tuple[int, int],
    ignore: Sequence[int],
    classes: Classes,
) -> List[str]:
    """Write the sheet of `pairs` from the files in the run's folder; remarks for the user.

    A sheet that shows more, or that someone has changed, is kept. inputs: those of the pairs that
    were read already. size: (width, height) of the images.
    """
    colours = _palette_of(classes)
    rows: List[Row] = []
    for pair in pairs:
        label, reference = inputs.get(pair.stem) or load_pair(pair, *size, ignore, classes)
        shown = colorize(resize_label(label, *size), colours)
        result = read_image(run.folder / f"{pair.stem}.jpg")
        rows.append([shown, reference, *_stages(run, pair, stages), result])

    # What the sheet does not show.
    blank = sum(cell is None for row in rows for cell in row)
    filled = sum(map(len, rows)) - blank
    remarks = []
    if blank:
        remarks.append(
            f"{counted(blank, 'cell[s] of the grid [is|are]')} blank: stages of images that were "
            "made without --grid are not kept"
        )

    # Versions that did not record how much a sheet shows left no stage away.
    path, known = run.folder / GRID, "grid" in run.fields
    shows = run.fields["grid"] if known else filled + bool(blank)
    if path.exists() and filled < shows:
        why = "shows more" if known else "was made by an older version, may show more"
        return [*remarks, f"{path} {why} and is kept; move it away to have another one"]
    if not is_own(run.folder, GRID, run.files):
        return [
            *remarks,
            f"{path} was changed by others since it was made and is kept; move it away to have "
            "another one",
        ]

    numbers = range(stages - 1)
    headings = ["label", "reference", *(f"stage {number}" for number in numbers), "result"]
    sheet = contact_sheet(rows, headings, [pair.stem for pair in pairs])
    run.fields["grid"] = filled
    run.save([GRID])  # first, so that a process that is killed knows the file as its own
    run.write(GRID, lambda target: save_image(target, sheet))
    run.save()
    return remarks


def _palette_of(classes: Classes) -> ClassSet:
    """The classes with the colours that they are shown in."""
    challenge = CLASS_SETS["landscape-29"]
    if not isinstance(classes, int):
        return classes
    if classes == len(challenge):
        return challenge
    names = tuple(map(str, range(classes)))
    return ClassSet("the network's classes", names, spread_palette(classes))


def _stages(run: Run, pair: Pair, stages: int) -> Row:
    """The stages before the last; None for those of an image that was made without the grid."""
    paths = [run.folder / stage_name(pair.stem, stage) for stage in range(stages - 1)]
    kept = pair.stem in run.fields["stages"]
    return [read_image(path) if kept and path.is_file() else None for path in paths]
