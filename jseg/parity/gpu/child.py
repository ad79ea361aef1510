"""One group of checks in a process of its own: python -m jseg.parity.gpu.child GROUP DEVICE SIZE
FOLDER SKIP.
"""

from __future__ import annotations

import sys
from typing import Iterator, List

from jseg.machine import cuda
from jseg.parity.gpu import cost, parity
from jseg.parity.gpu.records import Case, run
from jseg.runtime import device, jt


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
    """The cases of a group."""
    kind, _, precision = group.partition(" ")
    if kind == "speed":
        return cost.speed_cases(target, size, precision, folder)
    if kind == "release":
        return cost.release_cases(target, size)
    return {
        "bring-up": bring_up,
        "layers": parity.layer_cases,
        "kernels": parity.kernel_cases,
        "networks": parity.network_cases,
        "losses": parity.loss_cases,
        "kernel-times": cost.kernel_time_cases,
    }[kind](target)


def main(argv: List[str]) -> None:
    group, target, size, folder, skip = argv
    run(group, cases(group, target, size, folder), int(skip))


if __name__ == "__main__":
    main(sys.argv[1:])
