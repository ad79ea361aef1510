"""What a process learns from mpirun through its environment, before MPI itself is there.

Standard library only.
"""

from __future__ import annotations

import os
import re
from typing import Dict, Mapping

# Variables by which the launchers of MPI (Open MPI, PMIx, PMI of MPICH and SLURM, MVAPICH, Intel
# MPI) make a process one of several.
_LAUNCHERS = re.compile(r"(OMPI|PMIX|PMI|PRTE|ORTE|OPAL|MPI|MPICH|MV2|I_MPI|HYDRA|HYDI|SLURM)_")


def is_inside() -> bool:
    """Whether Open MPI's mpirun started this process; Jittor knows no other MPI."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def local_rank() -> int:
    """A process's number among those that mpirun started on its machine; 0 outside mpirun."""
    return int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK") or "0")


def local_size() -> int:
    """How many processes mpirun started on this machine; 1 outside mpirun."""
    return int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") or "1")


def own_gpu(count: int) -> str:
    """CUDA_VISIBLE_DEVICES for this process alone: one of the `count` GPUs that CUDA sees, assigned
    to a machine's processes in turn.

    The user's list of numbers or UUIDs is respected: CUDA sees its entries up to the first that
    names no GPU. Of MIG instances CUDA shows a process only the first one, and each process may
    have another.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = [str(number) for number in range(count)]
    else:
        entries = [entry.strip() for entry in visible.split(",")]
        instances = [entry for entry in entries if entry.startswith("MIG-")]
        gpus = instances if entries[0] in instances else entries[:count]
    return gpus[local_rank() % len(gpus)]


def without(environment: Mapping[str, str]) -> Dict[str, str]:
    """The environment of a child that is no process of the MPI program: with its parent's, it would
    announce itself under its parent's rank and fail.
    """
    return {name: value for name, value in environment.items() if not _LAUNCHERS.match(name)}
