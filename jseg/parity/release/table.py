"""Results of both sides into a table: differences, verdicts, Markdown, JSON and an image."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from jseg import checkpoint
from jseg.contact_sheet import contact_sheet
from jseg.images import from_signed
from jseg.parity.release.inputs import result_paths
from jseg.parity.release.parts import BOUND, EXACT, MEASURES, PARTS, SIDES, Row

FINE = ("ok", "release's rounding", "on purpose")
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
IMAGES = (
    ("decode", "picture", None),
    ("stage", "decoded", "reference"),
    ("colour", "picture", "source"),
    ("colour", "flat", "flat"),
)


def records(
    folder: Path, part: str, failures: Mapping[str, str], exact: bool = False
) -> List[Dict]:
    """A dict per row of a part; `failures` says by side why there is no result, `exact` whether
    there is one of the third side.
    """
    if failures:
        note = "; ".join("%s: %s" % failure for failure in failures.items())
        return [dict(_named(part, row), verdict="FAILED", note=note) for row in PARTS[part].rows]
    about = {
        side: json.loads(result_paths(folder, part, side)[1].read_text(encoding="utf-8"))
        for side in SIDES
    }
    found = []
    with _opened(folder, part, "ours") as ours, _opened(folder, part, "release") as theirs:
        for row in PARTS[part].rows:
            largest, relative = compare(row, ours, theirs)
            record = dict(
                _named(part, row),
                largest=largest,
                relative=relative,
                bound=None if row.purpose else BOUND,
                note=row.note,
                seconds={side: about[side]["seconds"][row.name] for side in SIDES},
                gigabytes={side: about[side]["gigabytes"] for side in SIDES},
            )
            record["verdict"] = (
                "on purpose" if row.purpose else "ok" if relative <= BOUND else "DIFFERS"
            )
            if record["verdict"] == "DIFFERS" and exact:
                _judge(record, row, folder, part, ours, theirs)
            found.append(record)
    return found


def doubtful(found: List[Dict]) -> bool:
    """Whether a row of these is above the bound, so that the third side should be asked."""
    return any(record["verdict"] == "DIFFERS" for record in found)


def _judge(record: Dict, row: Row, folder: Path, part: str, ours: Mapping, theirs: Mapping) -> None:
    """Whose error a difference above the bound is: both sides against the release with its group
    norms in float64.
    """
    with _opened(folder, part, EXACT) as exact:
        record["exact"] = {
            "ours": compare(row, ours, exact)[1],
            "release": compare(row, theirs, exact)[1],
        }
    text = (
        "to the release with its group norms in float64: ours %(ours).1e, the release itself "
        "%(release).1e" % record["exact"]
    )
    record["note"] = "; ".join(told for told in (row.note, text) if told)
    if record["exact"]["ours"] <= BOUND:
        record["verdict"] = "release's rounding"


def _named(part: str, row: Row) -> Dict:
    return {
        "part": part,
        "row": row.name,
        "title": row.title,
        "measure": row.measure,
        "purpose": row.purpose,
    }


@contextlib.contextmanager
def _opened(folder: Path, part: str, side: str) -> Iterator[Dict]:
    """A side's arrays by name, each read when asked for."""
    with checkpoint.opened_state(result_paths(folder, part, side)[0]) as selection:
        yield selection.tensors


def compare(row: Row, ours: Mapping, theirs: Mapping) -> Tuple[float, float]:
    """(largest difference, relative difference) of a row by its measure; infinite where arrays are
    missing, mis-shaped or not finite.

    `ours` and `theirs` give everything with `read()` by name.
    """
    names = sorted(name for name in {**ours, **theirs} if name.partition("/")[0] == row.name)
    if not names or any(name not in ours or name not in theirs for name in names):
        return np.inf, np.inf
    pairs = ((ours[name].read(), theirs[name].read()) for name in names)
    if row.measure == "names":
        a, b = (set(array.tobytes().decode().split("\n")) for array in next(pairs))
        return float(len(a ^ b)), len(a ^ b) / len(b)
    largest = scale = total = squares = norm = count = 0.0
    for a, b in pairs:
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return np.inf, np.inf
        if row.measure == "entries":
            differs = a != b
        else:
            differs = np.abs(a.astype(np.float64) - b)
            squares, norm = (
                squares + float((differs**2).sum()),
                norm + float((b.astype(np.float64) ** 2).sum()),
            )
            scale = max(scale, float(np.abs(b).max(initial=0)))
        largest = max(largest, float(differs.max(initial=0)))
        total, count = total + float(differs.sum()), count + differs.size
    return {
        "values": (largest, _ratio(largest, scale)),
        "norm": (largest, _ratio(squares**0.5, norm**0.5)),
        "levels": (largest, total / count / 255),
        "entries": (total, total / count),
    }[row.measure]


def _ratio(difference: float, scale: float) -> float:
    return difference / scale if scale else 0.0 if not difference else np.inf


def line(record: Dict) -> str:
    """A row as one line of the Markdown table."""
    seconds, gigabytes = record.get("seconds", {}), record.get("gigabytes", {})
    differences = (
        [f"{record['largest']:.3g}", f"{record['relative']:.1e}"]
        if "largest" in record
        else ["", ""]
    )
    times = [_duration(seconds.get(side)) for side in SIDES]
    ratio = f"{seconds['release'] / seconds['ours']:.2f}" if seconds.get("ours") else ""
    memory = [f"{gigabytes[side]:.2f} GB" if side in gigabytes else "" for side in SIDES]
    verdict = record["verdict"] + (
        f" (no. {record['purpose']})" if record["verdict"] == "on purpose" else ""
    )
    return (
        "| "
        + " | ".join(
            [
                record["title"],
                *differences,
                *times,
                ratio,
                *memory,
                verdict,
                record["note"].replace("|", "/"),
            ]
        )
        + " |"
    )


def _duration(seconds: Optional[float]) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def table(found: List[Dict]) -> str:
    """The Markdown table of these records."""
    return "\n".join(
        ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
        + [line(record) for record in found]
    )


def page(found: List[Dict], facts: Mapping[str, str], nudges: List[str], image: bool) -> str:
    """comparison.md."""
    fine = sum(record["verdict"] in FINE for record in found)
    used = [name for name in MEASURES if any(record["measure"] == name for record in found)]
    titles = {
        name: [record["title"] for record in found if record["measure"] == name] for name in used
    }
    lines = [
        "# The official release and jseg on the same inputs",
        "",
        f"{fine} of {len(found)} rows are fine: relative difference at most {BOUND:g}, or a "
        "reason in the row.",
        "",
        table(found),
        "",
    ]
    if image:
        lines += ["![input, release, ours, difference](comparison.png)", ""]
    lines += ["- %s: %s" % fact for fact in facts.items()]
    lines += ["", "Differences, a being ours and b the release's:", ""]
    lines += [f"- {MEASURES[name]}: {'; '.join(titles[name])}." for name in used]
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
    """Records with what is infinite as null, which is JSON."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def nudges_of(folder: Path, found: List[Dict]) -> List[str]:
    """What the release needed in the parts of these records, each once."""
    lines: List[str] = []
    for part, side in dict.fromkeys(
        (record["part"], side)
        for record in found
        for side in ("release", EXACT)
        if side in record.get("seconds", ()) or side == EXACT and "exact" in record
    ):
        about = json.loads(result_paths(folder, part, side)[1].read_text(encoding="utf-8"))
        lines += [text for text in about["nudges"] if text not in lines]
    return lines


def sheet(
    folder: Path, arrays: Mapping[str, np.ndarray], found: List[Dict]
) -> Optional[np.ndarray]:
    """The images of both sides beside their input and their difference, uint8 [H, W, 3]; None
    where no part gives images.
    """
    rows, names = [], []
    for part, row, given in IMAGES:
        record = next(
            (record for record in found if (record["part"], record["row"]) == (part, row)), None
        )
        if record is None or not np.isfinite(record.get("largest", np.inf)):
            continue
        with _opened(folder, part, "ours") as ours, _opened(folder, part, "release") as theirs:
            a, b = ours[row].read(), theirs[row].read()
        size = np.abs(a.astype(np.float64) - b)
        shown = size / max(float(size.max()), 1e-12) * 255
        if a.ndim == 4:
            a, b, shown = from_signed(a[0]), from_signed(b[0]), shown[0].transpose(1, 2, 0)
        rows.append([None if given is None else arrays[given], b, a, shown.astype(np.uint8)])
        names.append(record["title"])
    return (
        contact_sheet(rows, ("input", "release", "ours", "difference, largest white"), names)
        if rows
        else None
    )
