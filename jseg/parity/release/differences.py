"""Differences between the results of both sides, and what to think of them: a record per row."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Tuple

import numpy as np

from jseg import checkpoint
from jseg.parity.release.inputs import result_paths
from jseg.parity.release.parts import BOUND, EXACT, PARTS, SIDES, Row

FINE = ("ok", "release's rounding", "on purpose")  # verdicts
INFINITE = (np.inf, np.inf)


def records(
    folder: Path, part: str, failures: Mapping[str, str], exact: bool = False
) -> List[Dict]:
    """A dict per row of a part.

    `failures` says by side why there is no result, `exact` whether there is one of the third side.
    """
    if failures:
        note = "; ".join(f"{side}: {why}" for side, why in failures.items())
        return [dict(_heading(part, row), verdict="FAILED", note=note) for row in PARTS[part].rows]

    # What each side's process has recorded.
    about = {}
    for side in SIDES:
        text = result_paths(folder, part, side)[1].read_text(encoding="utf-8")
        about[side] = json.loads(text)

    # The differences, and the third side's word on those above the bound.
    rows = []
    with arrays(folder, part, "ours") as ours, arrays(folder, part, "release") as theirs:
        for row in PARTS[part].rows:
            largest, relative = compare(row, ours, theirs)
            record = dict(
                _heading(part, row),
                largest=largest,
                relative=relative,
                bound=None if row.purpose else BOUND,
                note=row.note,
                seconds={side: about[side]["seconds"][row.name] for side in SIDES},
                gigabytes={side: about[side]["gigabytes"] for side in SIDES},
                verdict=_verdict(row, relative),
            )
            if record["verdict"] == "DIFFERS" and exact:
                with arrays(folder, part, EXACT) as third:
                    record.update(_judgement(row, ours, theirs, third))
            rows.append(record)
    return rows


def doubtful(rows: List[Dict]) -> bool:
    """Whether one of these rows is above the bound, so that the third side should be asked."""
    return any(record["verdict"] == "DIFFERS" for record in rows)


@contextlib.contextmanager
def arrays(folder: Path, part: str, side: str) -> Iterator[Dict]:
    """A side's arrays by name; each is read when it is asked for."""
    with checkpoint.open_state(result_paths(folder, part, side)[0]) as selection:
        yield selection.tensors


def compare(row: Row, ours: Mapping, theirs: Mapping) -> Tuple[float, float]:
    """(largest difference, relative difference) of a row by its measure; infinite where arrays are
    missing, of different shapes or not finite.

    `ours` and `theirs` give objects with `read()` by name.
    """
    names = sorted(name for name in {**ours, **theirs} if name.partition("/")[0] == row.name)
    if not names or any(name not in ours or name not in theirs for name in names):
        return INFINITE
    pairs = ((ours[name].read(), theirs[name].read()) for name in names)
    if row.measure == "names":
        a, b = (set(array.tobytes().decode().split("\n")) for array in next(pairs))
        return float(len(a ^ b)), len(a ^ b) / len(b)

    # All arrays of a row count as one vector.
    largest = scale = total = squares = norm = count = 0.0
    for a, b in pairs:
        if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return INFINITE
        if row.measure == "entries":
            difference = a != b
        else:
            difference = np.abs(a.astype(np.float64) - b)
            squares += float((difference**2).sum())
            norm += float((b.astype(np.float64) ** 2).sum())
            scale = max(scale, float(np.abs(b).max(initial=0)))
        largest = max(largest, float(difference.max(initial=0)))
        total += float(difference.sum())
        count += difference.size
    return {
        "values": (largest, _ratio(largest, scale)),
        "norm": (largest, _ratio(squares**0.5, norm**0.5)),
        "levels": (largest, total / count / 255),
        "entries": (total, total / count),
    }[row.measure]


def _ratio(difference: float, scale: float) -> float:
    if scale:
        return difference / scale
    return np.inf if difference else 0.0


def _verdict(row: Row, relative: float) -> str:
    if row.purpose:
        return "on purpose"
    return "ok" if relative <= BOUND else "DIFFERS"


def _judgement(row: Row, ours: Mapping, theirs: Mapping, exact: Mapping) -> Dict:
    """What changes in the record of a row above the bound: both sides against the release with its
    group norms in float64, which shows whose error the difference is.
    """
    ours_off, release_off = (compare(row, side, exact)[1] for side in (ours, theirs))
    text = (
        f"to the release with its group norms in float64: ours {ours_off:.1e}, the release itself "
        f"{release_off:.1e}"
    )
    return {
        "exact": {"ours": ours_off, "release": release_off},
        "note": f"{row.note}; {text}" if row.note else text,
        "verdict": "release's rounding" if ours_off <= BOUND else "DIFFERS",
    }


def _heading(part: str, row: Row) -> Dict:
    return {
        "part": part,
        "row": row.name,
        "title": row.title,
        "measure": row.measure,
        "purpose": row.purpose,
    }
