"""The groups of checks, each run in a process of its own with a time limit; failures, crashes and
hangs become records like any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Union

from jseg.machine.jittor_flags import EXACT
from jseg.parity.gpu.advice import OUT_OF_TIME

MINUTES = 9.0  # for all groups; with more, each may take more


class Group(NamedTuple):
    """seconds: the most that it may take of `MINUTES`; meaning: what its records say."""

    seconds: int
    meaning: str


# The most valuable first: --minutes may end before the last. The first compiles Jittor where that
# has not been done, and without it there is nothing.
GROUPS = {
    "bring-up": Group(420, "Jittor comes up and computes; versions"),
    "kernels": Group(
        150, "our operators with CUDA source, in each type, against float32 twins on the CPU"
    ),
    "layers": Group(90, "layers with their gradients, float32, against the CPU"),
    "networks": Group(
        90, "small networks, recompute, flows and an image segmented, against the CPU"
    ),
    "losses": Group(90, "losses with all gradients, the optimiser's steps, against the CPU"),
    "fallbacks": Group(
        45, "what the CPU computes by operators of its own and CUDA by Jittor's, against each other"
    ),
    "kernel-times": Group(60, "our operators timed beside their twins; above 1, ours are faster"),
    "speed float32": Group(
        120, "times without TF32: guided step, stage, decoding, training steps of one example"
    ),
    "speed tf32": Group(
        75, "the same with TF32, as it is used unless switched off; against float32's results"
    ),
    "processes": Group(240, "gradients summed by two processes against those of one"),
    # Their case with the most kernels, a training step, asks for about 100.
    "speed bf16": Group(180, "the same as --precision bf16 computes, against float32's results"),
    "release": Group(120, "the release's networks at full size against the CPU"),
    "speed fp16": Group(180, "the same as --precision fp16 computes, with scaled losses"),
    "sdm": Group(60, "PyTorch's SDM, to hold our guided step against"),
}
# The most that one case may take, as a fraction of its group's time: a hang leaves time for others.
CASE_FRACTION = 0.5
# In what is said of a case: it spares time and shows nothing, so nothing fails with it.
TRIAL = "trial"
GPU_ONLY = ("speed tf32", "speed bf16", "speed fp16")
OWN_OPERATORS = ("kernels", "layers", "fallbacks", "kernel-times")  # they choose, not JSEG_FUSED
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
ROOT = Path(__file__).resolve().parents[3]


def run_group(group: str, args, folder: str, deadline: float) -> Iterator[Dict]:
    """The records of a group, as they come; `args`: device, size, minutes and sdm of the
    command.

    After a crash or a case that hangs, a new process continues with the next case.
    """
    limit, skip = GROUPS[group].seconds * max(1.0, args.minutes / MINUTES), 0
    until = min(time.monotonic() + limit, deadline)
    while True:
        if time.monotonic() >= until:
            case = "the rest" if skip else "all"
            yield {"group": group, "case": case, "ok": None, "why": OUT_OF_TIME}
            return

        # `pending` is the beginning of a case that has not ended.
        pending, begun, end = {}, 0, None
        words, variables = command(group, args, folder, skip), environment(group)
        for content in run_child(words, variables, until, CASE_FRACTION * limit):
            if isinstance(content, End):
                end = content
            elif "begins" in content:
                pending, begun = content, begun + 1
            else:
                pending = {}
                yield content
        if not pending and end.code == 0:
            return

        # Out of time is no failure: compiling may have taken it.
        about = pending.get("about", {})
        fails = end.code is not None and TRIAL not in about
        case = pending.get("begins", "start")
        ok = False if fails else None
        yield {"group": group, "case": case, "ok": ok, "why": end.why, **about}
        if not pending:
            return
        skip += begun


def command(group: str, args, folder: str, skip: int) -> List[str]:
    """The words of a group's process, which leaves out the first `skip` cases."""
    if group == "sdm":
        script = str(ROOT / "benchmarks" / "sdm_speed.py")
        options = ["--sdm", args.sdm, "--device", args.device, "--size", args.size]
        return [sys.executable, script, *options]
    module = "jseg.parity.gpu.child"
    return [sys.executable, "-m", module, group, args.device, args.size, folder, str(skip)]


def environment(group: str) -> Dict[str, str]:
    """The environment of a group's process."""
    path = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    variables = dict(os.environ, PYTHONPATH=os.pathsep.join(path).strip(os.pathsep))
    variables.pop(EXACT, None)  # a precision that is timed is not switched off
    if group not in GPU_ONLY:
        variables[EXACT] = "0"
    if group in OWN_OPERATORS:
        variables.pop("JSEG_FUSED", None)
    return variables


class End(NamedTuple):
    """How a process ended; code: None if it was stopped because time was over."""

    code: Optional[int]
    why: str


def run_child(
    words: List[str], variables: Dict[str, str], until: float, case_seconds: float
) -> Iterator[Union[Dict, End]]:
    """Each line of JSON that a process prints, as it comes, then its `End`.

    It is stopped at the time `until`, or when a case has taken more than case_seconds, which counts
    as a failure.
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=variables,
        start_new_session=True,  # so that its compilers and processes end with it
        preexec_fn=_end_with_parent,
    )
    watch, errors = _Watch(process, until, case_seconds), []

    def read_errors():
        errors.extend(text.strip() for text in process.stderr if text.strip())

    # The watch ends the process, a thread empties its standard error, this one reads its output.
    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    watch.start()
    try:
        for text in process.stdout:
            content = _parsed(text)
            if content is not None:
                watch.see(content)
                yield content
        process.wait()
    finally:
        watch.done.set()
        watch.join()
        if process.poll() is None:
            _end(process)
            process.wait()
        process.stdout.close()
        reader.join(5)
        process.stderr.close()
    yield watch.end(errors[-1][:200] if errors else "")


def _end_with_parent() -> None:
    """Have the kernel kill this process when gpu_check is killed: it is in no terminal's group."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _parsed(text: str) -> Optional[Dict]:
    """The JSON object in a line; None for other output and for what was cut short at the end."""
    try:
        return json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None


class _Watch(threading.Thread):
    """Ends a process at the time `until`, or `case_seconds` after a case of it began."""

    def __init__(self, process: subprocess.Popen, until: float, case_seconds: float):
        super().__init__(daemon=True)
        self.process, self.until, self.case_seconds = process, until, case_seconds
        self.case_until = float("inf")
        self.why, self.done = "", threading.Event()

    def see(self, content: Dict) -> None:
        """A case begins or ends."""
        begins = "begins" in content
        self.case_until = time.monotonic() + self.case_seconds if begins else float("inf")

    def run(self):
        while not self.done.wait(0.1):
            now = time.monotonic()
            if now >= min(self.until, self.case_until) and self.process.poll() is None:
                hangs = self.case_until < self.until
                self.why = f"no end after {self.case_seconds:.0f} s" if hangs else OUT_OF_TIME
                _end(self.process)
                return

    def end(self, error: str) -> End:
        """Of the process, whose last line on standard error that is."""
        if self.why == OUT_OF_TIME:
            return End(None, OUT_OF_TIME)
        code = self.process.returncode
        return End(code, self.why or f"the process ended with {code}: {error}")


def _end(process: subprocess.Popen) -> None:
    """Kill a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
