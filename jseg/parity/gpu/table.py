"""The records of gpu_check as lines on the screen and as a page in Markdown."""

from __future__ import annotations

from typing import Dict, List

# Column of a record, its heading, and how a value is written.
NUMBERS = (
    ("difference", "difference", lambda value: f"{value:.1e}"),
    ("seconds", "time", lambda seconds: f"{1000 * seconds:.4g} ms"),
    ("gigabytes", "memory", lambda gigabytes: f"{gigabytes:.2f} GB"),
    ("ratio", "twin / ours", lambda ratio: f"{ratio:.2f}"),
    ("ratio with gradients", "with gradients", lambda ratio: f"{ratio:.2f}"),
    ("took", "all of it", lambda seconds: f"{seconds:.1f} s"),
)
MARKS = {True: "ok", False: "FAILED", None: "left out"}
MEANING = """\
- difference: the largest of any array, relative to that array's largest value, from the CPU's
  results, or in the groups `speed` from those of float32; at most: the bound beyond which it fails
- time: the best of several runs, without the first, which compiles; of `kernel-times`, our
  operator's, forward
- memory: what the process holds at the end
- twin / ours: the twin's time over our operator's, forward; with gradients: forward and backward;
  above 1, ours is faster
- all of it: with compiling, the CPU's part and all repetitions"""


def line(record: Dict) -> str:
    """A record on the screen."""
    numbers = [
        f"{heading} {written(record[name])}"
        for name, heading, written in NUMBERS
        if record.get(name) is not None
    ]
    words = [record[name] for name in ("note", "why", "cuda") if name in record]
    mark = MARKS[record["ok"]]
    return f"{mark:8} {record['group']}: {record['case']}  " + ", ".join(numbers + words)


def table(records: List[Dict]) -> List[str]:
    """The lines of the Markdown table."""
    headings = [heading for _, heading, _ in NUMBERS]
    headings = ["group", "case", "", headings[0], "at most", *headings[1:], "note"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for record in records:
        numbers = [
            written(record[name]) if record.get(name) is not None else ""
            for name, _, written in NUMBERS
        ]
        bound = record.get("bound")
        words = [str(record[n]) for n in ("note", "cuda", "archs", "jittor") if n in record]
        cells = [
            record["group"],
            record["case"],
            MARKS[record["ok"]],
            numbers[0],
            "" if bound is None else f"{bound:.0e}",
            *numbers[1:],
            record.get("why", ", ".join(words)).replace("|", "/"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page(records: List[Dict], meanings: Dict[str, str], step: str) -> str:
    """The table, what its groups and columns mean, and what to do next."""
    groups = dict.fromkeys(record["group"] for record in records)
    explained = [f"- {name}: {meanings[name]}" for name in groups]
    parts = ["\n".join(table(records)), "\n".join(explained), MEANING, f"Next: {step}"]
    return "\n\n".join(parts) + "\n"
