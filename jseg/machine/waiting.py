"""How OpenMP's threads wait for each other, chosen before their library is loaded.

Jittor's and oneDNN's threads are libgomp's. A thread that waits spins before it sleeps, by default
for some milliseconds; where other programs want the cores, it spins on a core that the thread it
waits for could have. A short spin costs nothing on a quiet machine; a shorter one costs 8 % of a
training step (docs/benchmarks.md). libgomp reads its variables once, when it is loaded. Standard
library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from typing import Dict

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # a user who sets either has chosen
SPINS = "5000"  # rounds before a thread sleeps; libgomp's own are 300000
LIBRARY = "libgomp.so.1"


def variables() -> Dict[str, str]:
    """The variable for Jittor's import; none where the user has chosen, or it comes too late."""
    if sys.platform != "linux" or _user_choice() or _is_loaded():
        return {}
    return {"GOMP_SPINCOUNT": SPINS}


def description() -> str:
    """How threads will wait, and who says so; to be asked before Jittor is imported."""
    user_choice, own = _user_choice(), variables()
    if user_choice:
        settings = ", ".join(f"{name}={value}" for name, value in user_choice.items())
        return f"{settings} (your choice)"
    if own:
        wins = "your own OMP_WAIT_POLICY or GOMP_SPINCOUNT wins"
        return f"GOMP_SPINCOUNT={own['GOMP_SPINCOUNT']} (jseg's choice; {wins})"
    if sys.platform == "linux":
        return (
            f"OpenMP's default: {LIBRARY} was loaded before Jittor, which is too late for jseg's "
            f"choice; set GOMP_SPINCOUNT={SPINS} before Python starts"
        )
    return "OpenMP's default"


def threads() -> int:
    """The threads that compute, as libgomp has counted them; without it, those that may run."""
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(LIBRARY).omp_get_max_threads()
    return os.cpu_count() or 1


def _user_choice() -> Dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _is_loaded() -> bool:
    """Whether this process has Jittor's libgomp; copies in wheels of others have other names."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            return re.search(rf"/{re.escape(LIBRARY)}", file.read()) is not None
    except OSError:
        return False
