"""The files of scores in their output folder, and which of them may be written again.

OUTPUT/images.csv     a row per image
OUTPUT/summary.json   the record: settings, terms, scores, remarks, SHA-256 of the other two files
OUTPUT/gallery.html   all images and their numbers
OUTPUT/predictions/   label maps of the results by FlowSeg, as `jseg.flowseg.results` keeps them
"""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Iterable, Optional, Sequence

from jseg import __version__
from jseg.evaluation.measures import ImageScores, Score, Terms
from jseg.files import sha256
from jseg.outputs.places import OutputError, check_folder, check_origin, claim
from jseg.outputs.record import FORMAT, is_own, own_record, write_json, write_text

COMMAND, OPTION = "score", "--output"
SUMMARY, TABLE, GALLERY, PREDICTIONS = "summary.json", "images.csv", "gallery.html", "predictions"
FORMER_TABLE = "pictures.csv"  # what the table was called at first
ROOM = 1 << 20  # bytes without which not even the smallest tables fit
COLUMNS = ("image", "mask_accuracy", "style_challenge", "style_corrected", "aesthetic")


def check_output(
    output: Path, results: Path, inputs: Sequence[Path] = (), places: Sequence[Path] = ()
) -> None:
    """Raise DataError unless the scores of the images in `results` can be written to `output`.

    It may be new, or a folder without files of our names, or hold scores of these very results.
    inputs, places: as for `jseg.outputs.places.claim`.
    """
    check_folder(output, OPTION)
    check_origin(output, OPTION, COMMAND)
    summary = _read(output)
    known: Iterable[str] = ()
    if summary is not None:
        scored, known = summary["settings"]["results"], (TABLE, GALLERY)
        if scored != str(Path(results).resolve()):
            raise OutputError(f"{output} holds the scores of {scored}; give another {OPTION}")
        changed = [name for name in known if not is_own(output, name, summary.get("files", {}))]
        if changed:
            raise OutputError(
                f"{output / changed[0]} was changed by others since score wrote it; move it away, "
                f"or give another {OPTION}"
            )
    claim(output, OPTION, COMMAND, [TABLE, GALLERY], inputs, places, known, SUMMARY, ROOM)


def _read(output: Path) -> Optional[dict]:
    """The summary in the folder, None if there is none; raises DataError for a damaged one."""
    return own_record(
        output / SUMMARY, COMMAND, OPTION, lambda record: record["settings"]["results"]
    )


def write_claim(output: Path, settings: dict) -> None:
    """Write a summary without terms, so that the folder is known as one of these results' scores.

    An older summary stays, but lists no files any more, as they are about to be written again.
    """
    earlier = _read(output) or {**_head(settings), "unfinished": True}
    if earlier.get("files", {}).get(FORMER_TABLE) and is_own(
        output, FORMER_TABLE, earlier["files"]
    ):
        (output / FORMER_TABLE).unlink(missing_ok=True)  # the new table would stand beside it
    write_json(output / SUMMARY, {**earlier, "files": {}})


def write(
    output: Path,
    rows: Sequence[ImageScores],
    terms: Terms,
    scores: Sequence[Score],
    settings: dict,
    remarks: Sequence[str],
) -> None:
    """Write the table of images and then the summary; nan is never in them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS[1:]]
        writer.writerow([row.stem, *("" if value is None else f"{value:.6f}" for value in values)])
    write_text(output / TABLE, text.getvalue())

    files = [name for name in (TABLE, GALLERY) if (output / name).exists()]
    write_json(
        output / SUMMARY,
        {
            **_head(settings),
            "terms": dataclasses.asdict(terms),
            "scores": [dataclasses.asdict(score) for score in scores],
            "notes": list(remarks),
            "files": {name: sha256(output / name) for name in files},
        },
    )


def _head(settings: dict) -> dict:
    return {"format": FORMAT, "command": COMMAND, "version": __version__, "settings": settings}
