"""Show on one screen whether jseg can compute on this machine, how fast, and what to do if it
cannot.

Exit code 0 if it can, 1 if it cannot.

Examples:
  python -m jseg doctor
  nvcc_path= python -m jseg doctor     as if there were no GPU
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional, Tuple

from jseg.commands import cli

CHANNELS, HEIGHT, WIDTH = 128, 96, 128
SIZE = f"{CHANNELS} to {CHANNELS} channels, 3x3, {WIDTH}x{HEIGHT}"
SLOW = 5.0  # GFLOP/s: plain loops reach about 0.7, oneDNN 35 and more on two busy cores
_CHILD = """
import os
try:
    from jseg.commands.doctor import _measure
    _measure()
except KeyboardInterrupt:
    os._exit(130)
"""


def parser() -> argparse.ArgumentParser:
    """No options."""
    return cli.make_parser("doctor", __doc__)


def main(argv: Optional[List[str]] = None) -> int:
    """Print the screen; 1 if jseg cannot compute here, else 0."""
    parser().parse_args(argv)
    rows, problems = examine()
    for name, text in rows:
        print(f"{name:<9} {text}")
    for problem in problems:
        print(f"PROBLEM   {problem}")
    print("verdict  ", "jseg cannot compute here" if problems else "jseg can compute here")
    return 1 if problems else 0


def examine() -> Tuple[List[Tuple[str, str]], List[str]]:
    """(rows of the screen, problems that keep jseg from computing). Jittor runs in a child process,
    which may crash.
    """
    from jseg import __version__
    from jseg.machine import facts as machine
    from jseg.machine import jittor_flags, onednn

    # What can be seen without Jittor.
    home = os.environ.get("JITTOR_HOME") or os.path.expanduser("~")
    facts = {
        "Python": machine.python(),
        "NumPy": machine.numpy(),
        "compiler": machine.compiler(),
        "Jittor": machine.jittor(),
        "oneDNN": onednn.fact(home),
        "jseg": machine.other_jseg(),
        "MPI": machine.mpi(),
        "flags": jittor_flags.check(),
    }
    problems = [fact.problem for fact in (*facts.values(), machine.paths()) if fact.problem]
    rows = {name: fact.text for name, fact in facts.items()}
    rows["jseg"] = f"{__version__}, {rows['jseg']}"

    # What Jittor itself shows, where nothing keeps it from running.
    measured = {} if problems else measure()
    if measured.get("problem"):
        problems.append(measured["problem"])
    elif measured:
        rows["Jittor"] += f", cache {measured['cache']} ({measured['megabytes']} MB)"
        speed = f"conv2d {measured['size']}: {measured['gflops']:.1f} GFLOP/s"
        if measured["winograd"]:
            speed += f", by Winograd's algorithm as if {measured['winograd']:.1f}"
        rows["threads"] = measured["threads"]
        rows["oneDNN"] = f"{onednn.fact(measured['home']).text}; {speed}"
        if measured["gflops"] < SLOW and not measured["onednn_off"]:
            problems.append(
                f"convolutions run at {measured['gflops']:.1f} GFLOP/s only, as if oneDNN were "
                f"not used: delete {measured['cache']} and run doctor again"
            )
    rows["memory"] = memory()
    rows["CUDA"] = measured.get("cuda") or unused_cuda()
    return list(rows.items()), problems


def memory() -> str:
    """What --memory auto would choose on the CPU for the release's networks."""
    from jseg.ldm import low_memory
    from jseg.ldm.presets import AUTOENCODERS, UNETS

    choice = low_memory.choose("auto", UNETS["release"], 1, autoencoder=AUTOENCODERS["release"])
    return f"--memory auto is {'low' if choice.low else 'full'} at release size: {choice.reason}"


def unused_cuda() -> str:
    """Why CUDA is not used; where only the driver is missing, also what would become of the toolkit
    with one.
    """
    from jseg.machine import cuda

    choice = cuda.choose()
    text = choice.reason if choice.nvcc else f"not used: {choice.reason}"
    if choice.toolkit is not None and not choice.devices:
        later = cuda.choose_for(choice.toolkit.version[0], ())
        text += f"; with a driver: {later.reason}"
    return text


def measure() -> Dict:
    """What a child process measures: {"problem"} or the facts of `_measure`."""
    words = [sys.executable, "-c", _CHILD]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, universal_newlines=True)
    try:
        lines = child.communicate()[0].splitlines()
    except KeyboardInterrupt:
        child.wait()
        raise
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        code = child.returncode
        how = f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
        return {
            "problem": f"Jittor crashed while it was imported or computed ({how}): delete "
            "~/.cache/jittor, unset nvcc_path if it is set, and run doctor again"
        }


def _measure() -> None:
    """Import Jittor, time it, and print the facts as one line of JSON."""
    from jseg.machine import cuda, waiting
    from jseg.machine.facts import RuntimeProblem

    waits = waiting.description()  # before Jittor loads what waits
    try:
        from jseg.runtime import device, jt
    except RuntimeProblem as problem:
        print(json.dumps({"problem": str(problem)}))
        return
    from jseg.nn.convolution import conv3x3
    from jseg.nn.kernels import compiles
    from jseg.nn.lanes import has_avx2

    def by_jittor(x, weight):
        return jt.nn.conv2d(x, weight, padding=1)

    device("cpu")
    facts = {
        "gflops": _rate(jt, by_jittor),
        "winograd": _rate(jt, conv3x3) if has_avx2() and compiles("winograd", jt.zeros(1)) else 0,
        "size": SIZE,
        "onednn_off": os.environ.get("use_mkl", "1") != "1",
        "threads": f"{waiting.threads()}, waiting: {waits}",
        "cuda": "",
    }

    # The same on the GPU, and what Jittor has compiled so far.
    if jt.has_cuda:
        device("cuda")
        facts["cuda"] = (
            f"used: {cuda.choose().reason}; the same conv2d: {_rate(jt, by_jittor):.0f} GFLOP/s"
        )
    cache = facts["cache"] = jt.flags.cache_path
    facts["home"] = cache.partition("/.cache/jittor/")[0]
    size = sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(cache)
        for name in names
    )
    print(json.dumps(dict(facts, megabytes=round(size / 2**20))))


def _rate(jt, convolve: Callable) -> float:
    """GFLOP/s of one convolution of the UNet's kind, by its definition, the best of a few."""
    import numpy as np

    x = jt.array(np.ones((1, CHANNELS, HEIGHT, WIDTH), np.float32))
    weight = jt.array(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32))
    times: List[float] = []
    while len(times) < 3 or len(times) < 10 and sum(times) < 1:
        start = time.perf_counter()
        convolve(x, weight).sync()
        jt.sync_all(True)
        times.append(time.perf_counter() - start)
    return 2 * 9 * CHANNELS**2 * HEIGHT * WIDTH / min(times) / 1e9
