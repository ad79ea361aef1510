"""The records of gpu_check as lines on the screen and as a table in Markdown."""

from __future__ import annotations

from typing import Dict, List

# Column of a record, its heading and its form.
NUMBERS = (
    ("difference", "difference", ".1e", ""),
    ("seconds", "time", ".4f", " s"),
    ("gigabytes", "memory", ".2f", " GB"),
    ("ratio", "before / ours", ".2f", ""),
    ("ratio with gradients", "with gradients", ".2f", ""),
)


def line(record: Dict) -> str:
    """A record on the screen."""
    mark = {True: "ok    ", False: "FAILED", None: "      "}[record["ok"]]
    numbers = [
        f"{name} {record[name]:{form}}{unit}"
        for name, _, form, unit in NUMBERS
        if record.get(name) is not None
    ]
    words = [record[name] for name in ("why", "cuda") if name in record]
    return f"{mark} {record['group']}: {record['case']}  " + ", ".join(numbers + words)


def table(records: List[Dict]) -> List[str]:
    """The lines of the Markdown table."""
    headings = [heading for _, heading, _, _ in NUMBERS]
    headings = ["group", "case", "", headings[0], "at most", *headings[1:], "note"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for record in records:
        numbers = [
            f"{record[name]:{form}}{unit}" if record.get(name) is not None else ""
            for name, _, form, unit in NUMBERS
        ]
        facts = [str(record[name]) for name in ("cuda", "archs", "jittor") if name in record]
        cells = [
            record["group"],
            record["case"],
            {True: "ok", False: "FAILED", None: "left out"}[record["ok"]],
            numbers[0],
            f"{record['bound']:.0e}" if record.get("bound") else "",
            *numbers[1:],
            record.get("why", ", ".join(facts)).replace("|", "/"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
