"""One group of checks in a process of its own: python -m jseg.parity.gpu.child GROUP DEVICE SIZE
FOLDER SKIP.
"""

from __future__ import annotations

import sys
from typing import Iterator, List

from jseg.machine import cuda
from jseg.parity.gpu import cost, fallbacks, layers, losses, networks, operators, processes
from jseg.parity.gpu.comparing import compiled_together
from jseg.parity.gpu.records import Case, run
from jseg.runtime import device, jt

TOGETHER = ("kernels", "layers", "networks", "losses", "fallbacks")  # groups of many small cases


def bring_up(target: str) -> Iterator[Case]:
    """Whether Jittor computes, with its versions."""

    def facts():
        chosen = device(target)
        versions = {"jittor": jt.__version__, "device": chosen}
        if chosen == "cuda":
            versions.update(
                cuda=cuda.choose().reason,
                archs=str(jt.flags.cuda_archs),
                cudnn=str(getattr(jt, "cudnn", None) is not None),
            )
        return versions

    yield Case("jittor computes", facts)


def cases(group: str, target: str, size: str, folder: str) -> Iterator[Case]:
    """The cases of a group of `running.GROUPS`; raises KeyError for another."""
    kind, _, precision = group.partition(" ")
    listed = {
        "bring-up": lambda: bring_up(target),
        "kernels": lambda: operators.kernel_cases(target, size),
        "layers": lambda: layers.layer_cases(target),
        "networks": lambda: networks.network_cases(target, size, folder),
        "losses": lambda: losses.loss_cases(target),
        "fallbacks": lambda: fallbacks.fallback_cases(target),
        "kernel-times": lambda: operators.kernel_time_cases(target, size),
        "speed": lambda: cost.speed_cases(target, size, precision, folder),
        "processes": lambda: processes.process_cases(target, folder),
        "release": lambda: cost.release_cases(target, size),
    }[kind]()
    return compiled_together(listed, target) if kind in TOGETHER else listed


def main(argv: List[str]) -> None:
    group, target, size, folder, skip = argv
    run(group, cases(group, target, size, folder), int(skip))


if __name__ == "__main__":
    main(sys.argv[1:])
