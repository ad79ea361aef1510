"""The records of a comparison as a page in Markdown, as JSON and as an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Mapping, Optional

import numpy as np

from jseg.contact_sheet import contact_sheet
from jseg.images import from_signed
from jseg.parity.release.differences import FINE, arrays
from jseg.parity.release.inputs import result_paths
from jseg.parity.release.parts import BOUND, EXACT, MEASURES, SIDES

HEADINGS = (
    "what",
    "largest difference",
    "relative",
    "release",
    "ours",
    "ratio",
    "release, peak",
    "ours, peak",
    "verdict",
    "note",
)
# Part, row and the input beside it.
IMAGES = (
    ("decode", "image", None),
    ("stage", "decoded", "reference"),
    ("colour", "image", "source"),
    ("colour", "flat", "flat"),
)
COLUMNS = ("input", "release", "ours", "difference, largest white")


def line(record: Dict) -> str:
    """A record as one line of the Markdown table."""
    seconds, gigabytes = record.get("seconds", {}), record.get("gigabytes", {})
    differences = ["", ""]
    if "largest" in record:
        differences = [f"{record['largest']:.3g}", f"{record['relative']:.1e}"]
    verdict = record["verdict"]
    if verdict == "on purpose":
        verdict += f" (no. {record['purpose']})"
    cells = [
        record["title"],
        *differences,
        *(_duration(seconds.get(side)) for side in SIDES),
        f"{seconds['release'] / seconds['ours']:.2f}" if seconds.get("ours") else "",
        *(f"{gigabytes[side]:.2f} GB" if side in gigabytes else "" for side in SIDES),
        verdict,
        record["note"].replace("|", "/"),
    ]
    return f"| {' | '.join(cells)} |"


def _duration(seconds: Optional[float]) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def table(records: List[Dict]) -> str:
    """The Markdown table of these records."""
    heading = [f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|"]
    return "\n".join(heading + [line(record) for record in records])


def page(records: List[Dict], facts: Mapping[str, str], nudges: List[str], image: bool) -> str:
    """comparison.md."""
    fine = sum(record["verdict"] in FINE for record in records)
    titles: Dict[str, List[str]] = {name: [] for name in MEASURES}
    for record in records:
        titles[record["measure"]].append(record["title"])
    lines = [
        "# The official release and jseg on the same inputs",
        "",
        f"{fine} of {len(records)} rows are fine: relative difference at most {BOUND:g}, or a "
        "reason in the row.",
        "",
        table(records),
        "",
    ]
    if image:
        lines += ["![input, release, ours, difference](comparison.png)", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]

    # How to read it.
    lines += ["", "Differences, a being ours and b the release's:", ""]
    lines += [f"- {MEASURES[name]}: {'; '.join(of)}." for name, of in titles.items() if of]
    lines += [
        "",
        "Times are the best of the repetitions, after one that is not counted; peak memory is "
        "that of the process.",
        "",
        "Nudges from outside without which the release does not run here:",
        "",
    ]
    return "\n".join(lines + ["- " + nudge for nudge in nudges or ["none"]]) + "\n"


def plain(value):
    """Records with null for what is infinite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def nudges_of(folder: Path, records: List[Dict]) -> List[str]:
    """What the release needed in the parts of these records, each once."""
    results = []
    for record in records:
        if "release" in record.get("seconds", ()):
            results.append((record["part"], "release"))
        if "exact" in record:
            results.append((record["part"], EXACT))
    nudges: List[str] = []
    for part, side in dict.fromkeys(results):
        about = json.loads(result_paths(folder, part, side)[1].read_text(encoding="utf-8"))
        nudges += about["nudges"]
    return list(dict.fromkeys(nudges))


def sheet(
    folder: Path, inputs: Mapping[str, np.ndarray], records: List[Dict]
) -> Optional[np.ndarray]:
    """The images of both sides beside their input and their difference, uint8 [H, W, 3]; None
    where no part gives images.
    """
    by_row = {(record["part"], record["row"]): record for record in records}
    rows, names = [], []
    for part, row, source in IMAGES:
        record = by_row.get((part, row))
        if record is None or not np.isfinite(record.get("largest", np.inf)):
            continue
        with arrays(folder, part, "ours") as ours, arrays(folder, part, "release") as theirs:
            a, b = ours[row].read(), theirs[row].read()

        # The largest difference is white.
        difference = np.abs(a.astype(np.float64) - b)
        difference = difference / max(float(difference.max()), 1e-12) * 255
        if a.ndim == 4:
            a, b, difference = (
                from_signed(a[0]),
                from_signed(b[0]),
                difference[0].transpose(1, 2, 0),
            )
        original = None if source is None else inputs[source]
        rows.append([original, b, a, difference.astype(np.uint8)])
        names.append(record["title"])
    return contact_sheet(rows, COLUMNS, names) if rows else None
