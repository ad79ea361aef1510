"""What a check's process tells the one that waits for it: a line of JSON when a case begins and one
when it has ended.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Callable, Dict, Iterable, NamedTuple, Optional

from jseg.machine.compilation import telling_line


class Case(NamedTuple):
    """compute() gives {column: number}; the case is fine if "difference", where there is one, keeps
    to the bound.
    """

    name: str
    compute: Callable[[], Dict[str, object]]
    bound: Optional[float] = None


def run(group: str, cases: Iterable[Case], skip: int = 0) -> None:
    """Compute the cases after the first `skip` and print {"begins"} and then {"case", "ok",
    "seconds", ...} of each; failures go on.
    """
    for case in list(cases)[skip:]:
        print(json.dumps({"begins": case.name}), flush=True)
        before = time.perf_counter()
        try:
            found = dict(case.compute())
            ok = case.bound is None or bool(found["difference"] <= case.bound)
            if not ok:
                found["why"] = (
                    f"differs by {found['difference']:.1e}, expected at most {case.bound:.0e}"
                )
        except Exception as error:
            reason = re.search(r"\[Reason\]: *(.+)", str(error))  # Jittor's own word for it
            why = (
                re.sub(r"\x1b\[[0-9;]*m", "", reason.group(1))
                if reason
                else telling_line(str(error))
            )
            found, ok = {"why": f"{type(error).__name__}: {why[:200]}"}, False
            print(str(error)[-4000:], file=sys.stderr)
        print(
            json.dumps(
                {
                    "group": group,
                    "case": case.name,
                    "ok": ok,
                    "bound": case.bound,
                    "took": time.perf_counter() - before,
                    **found,
                }
            ),
            flush=True,
        )
