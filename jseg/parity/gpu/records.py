"""How a check's process reports to the one that waits for it: a line of JSON when a case begins and
one when it has ended.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Callable, Dict, Iterable, NamedTuple, Optional, Tuple

from jseg.machine.compilation import telling_line


class Case(NamedTuple):
    """compute() gives {column: value}; the case is fine if "difference", where there is one, is
    within the bound. `about` is added to the record, whatever becomes of the case. sides: what it
    computes on the CPU and on the device, where it compares the two.
    """

    name: str
    compute: Callable[[], Dict[str, object]]
    bound: Optional[float] = None
    about: Dict[str, str] = {}
    sides: Tuple[Callable, ...] = ()


class LeftOut(Exception):
    """A case that this machine cannot run; the message says why."""


def run(group: str, cases: Iterable[Case], skip: int = 0) -> None:
    """Compute the cases after the first `skip` and print {"begins"} and then {"case", "ok",
    "seconds", ...} of each; after a failure comes the next case.
    """
    for case in list(cases)[skip:]:
        print(json.dumps({"begins": case.name, "about": case.about}), flush=True)
        record = {"group": group, "case": case.name, **_result(case)}
        print(json.dumps(record), flush=True)


def _result(case: Case) -> Dict[str, object]:
    """The columns of a case once it has been computed; ok: None if it was left out."""
    before, why = time.perf_counter(), {}
    ok: Optional[bool] = True
    columns: Dict[str, object] = {}
    try:
        columns = dict(case.compute())
        size = columns.get("difference")
        if None not in (case.bound, size) and not size <= case.bound:
            ok, why = False, {"why": f"differs by {size:.1e}, expected at most {case.bound:.0e}"}
    except LeftOut as reason:
        ok, why = None, {"why": str(reason)}
    except Exception as error:
        ok, why = False, {"why": f"{type(error).__name__}: {_cause(str(error))[:200]}"}
        print(str(error)[-4000:], file=sys.stderr)
    took = time.perf_counter() - before
    return {"ok": ok, "bound": case.bound, "took": took, **case.about, **columns, **why}


def _cause(message: str) -> str:
    """The reason that Jittor gives, else the line that most likely names the cause."""
    reason = re.search(r"\[Reason\]: *(.+)", message)
    if reason is None:
        return telling_line(message)
    return re.sub(r"\x1b\[[0-9;]*m", "", reason.group(1))
