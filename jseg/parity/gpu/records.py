"""How a check's process reports to the one that waits for it: a line of JSON when a case begins and
one when it has ended.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Callable, Dict, Iterable, NamedTuple, Optional

from jseg.machine.compilation import telling_line


class Case(NamedTuple):
    """compute() gives {column: number}; the case is fine if "difference", where there is one, is
    within the bound.
    """

    name: str
    compute: Callable[[], Dict[str, object]]
    bound: Optional[float] = None


class LeftOut(Exception):
    """A case that this machine cannot run; the message says why."""


def run(group: str, cases: Iterable[Case], skip: int = 0) -> None:
    """Compute the cases after the first `skip` and print {"begins"} and then {"case", "ok",
    "seconds", ...} of each; after a failure comes the next case.
    """
    for case in list(cases)[skip:]:
        print(json.dumps({"begins": case.name}), flush=True)
        before = time.perf_counter()
        try:
            columns = dict(case.compute())
            ok: Optional[bool] = case.bound is None or bool(columns["difference"] <= case.bound)
            if not ok:
                size = f"{columns['difference']:.1e}"
                columns["why"] = f"differs by {size}, expected at most {case.bound:.0e}"
        except LeftOut as reason:
            columns, ok = {"why": f"left out: {reason}"}, None
        except Exception as error:
            columns, ok = {"why": f"{type(error).__name__}: {_cause(str(error))[:200]}"}, False
            print(str(error)[-4000:], file=sys.stderr)
        took = time.perf_counter() - before
        record = {"group": group, "case": case.name, "ok": ok, "bound": case.bound, "took": took}
        print(json.dumps({**record, **columns}), flush=True)


def _cause(message: str) -> str:
    """The reason that Jittor gives, else the line that most likely names the cause."""
    reason = re.search(r"\[Reason\]: *(.+)", message)
    if reason is None:
        return telling_line(message)
    return re.sub(r"\x1b\[[0-9;]*m", "", reason.group(1))
