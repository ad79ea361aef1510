"""The groups of checks, each run in a process of its own with a time limit; failures, crashes and
hangs become records like any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

# Groups with the most seconds each may take; the first compiles Jittor where that has not been
# done.
GROUPS = {
    "bring-up": 300,
    "layers": 180,
    "networks": 120,
    "losses": 90,
    "release": 150,
    "speed float32": 150,
    "speed tf32": 90,
    "speed float16": 60,
    "speed bfloat16": 60,
    "kernels": 240,
    "kernel-times": 60,
    "sdm": 60,
}
GPU_ONLY = ("speed tf32", "speed float16", "speed bfloat16")
EXACT = "NVIDIA_TF32_OVERRIDE"  # 0: float32 without TF32, which cuDNN uses unless told not to
ROOT = Path(__file__).resolve().parents[3]


def run_group(group: str, args, folder: str, deadline: float) -> Iterator[Dict]:
    """The records of a group, as they come; `args`: device, size and sdm of the command.

    After a crash or a case that hangs, a new process continues with the next case.
    """
    skip, until = 0, min(time.monotonic() + GROUPS[group], deadline)
    while True:
        if time.monotonic() >= until:
            case = "the rest" if skip else "all"
            yield {"group": group, "case": case, "ok": None, "why": "out of time"}
            return

        # `pending` is the case that has begun and has not ended.
        pending, begun, code, errors = "", 0, None, []
        for kind, content in run_child(
            command(group, args, folder, skip), environment(group), until
        ):
            if kind == "end":
                code, errors = content
            elif "begins" in content:
                pending, begun = content["begins"], begun + 1
            else:
                pending = ""
                yield content
        if not pending and code == 0:
            return
        why = "out of time"
        if code is not None:
            why = f"the process ended with {code}: {errors[-1][:200] if errors else ''}"
        yield {"group": group, "case": pending or "start", "ok": False, "why": why}
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
    if group not in GPU_ONLY:
        variables[EXACT] = "0"
    if group.startswith("kernel"):
        variables.pop("JSEG_FUSED", None)  # these groups compare with and without our operators
    return variables


def run_child(
    words: List[str], variables: Dict[str, str], until: float
) -> Iterator[Tuple[str, object]]:
    """("record", each line of JSON) as it comes, then ("end", (exit code, or None if it was
    stopped; last lines on stderr)).
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=variables,
    )
    stopped, errors = threading.Event(), []

    def stop():
        stopped.set()
        process.kill()

    def read_errors():
        errors.extend(text.strip() for text in process.stderr if text.strip())

    # A timer ends the process, a thread empties its standard error, this one reads its output.
    timer = threading.Timer(max(0.0, until - time.monotonic()), stop)
    reader = threading.Thread(target=read_errors, daemon=True)
    timer.start()
    reader.start()
    try:
        for text in process.stdout:
            if text.startswith("{"):
                try:
                    yield "record", json.loads(text)
                except ValueError:  # cut short when the process was stopped
                    pass
        process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        reader.join(5)
        process.stderr.close()
    yield "end", (None if stopped.is_set() else process.returncode, errors[-20:])
