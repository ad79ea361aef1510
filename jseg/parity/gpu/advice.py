"""What to do after gpu_check, from its records alone."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Tuple

OUT_OF_TIME = "out of time"
# Times of one kernel repeat within a few percent; a smaller gain than that is none.
LEAST_GAIN = 1.05


def recommended(records: List[Dict]) -> Optional[Tuple[str, ...]]:
    """The operators for `FASTER["cuda"]` of jseg/nn/kernels.py, None if none was timed: those that
    gain `LEAST_GAIN` over their twins in the geometric mean of their cases, forward and with
    gradients, and of which no case failed.
    """
    timed = [r for r in records if r["group"] == "kernel-times" and r.get("operator")]
    if not any("ratio" in r for r in timed):
        return None
    failed = {r.get("operator") for r in records if r["ok"] is False}
    operators = dict.fromkeys(r["operator"] for r in timed)
    return tuple(
        name
        for name in operators
        if name not in failed and _gains([r for r in timed if r["operator"] == name])
    )


def _gains(records: List[Dict]) -> bool:
    return all(
        _geometric_mean([record[column] for record in records if column in record]) >= LEAST_GAIN
        for column in ("ratio", "ratio with gradients")
    )


def _geometric_mean(ratios: List[float]) -> float:
    """0 where there are none."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 0.0


def next_step(records: List[Dict], device: str, name: str) -> str:
    """One line: what the person who sees these records does next.

    device: "cuda", "cpu", or "emulated", whose times say nothing of a GPU's; name: of both files.
    """
    failed = [record for record in records if record["ok"] is False]
    if failed:
        first = failed[0]
        step = f"mend what failed, at first {first['group']}: {first['case']} ({first['why']})"
    elif any(record.get("why") == OUT_OF_TIME for record in records):
        step = "call it again: what was compiled stays, so it gets further"
    elif device == "cpu":
        step = "call it on a machine with a GPU; here the CPU was held against itself"
    elif device == "emulated":
        step = (
            "call it on a machine with a GPU; the device here is emulated, its times are no GPU's"
        )
    else:
        step = f"write the table of {name}.md into docs/benchmarks.md"

    # Also after failures elsewhere, and where time ran out later.
    operators = recommended(records) if device == "cuda" else None
    if operators is None:
        return step
    return f'{step}; set FASTER["cuda"] of jseg/nn/kernels.py to {operators!r}'
