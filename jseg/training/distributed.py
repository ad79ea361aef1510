"""The processes of a training run: one, or several under mpirun that add up their gradients.

Open MPI's own variables tell rank and number before Jittor is there (`jseg.machine.facts`); sums
and copies go through Jittor's MPI, which is NCCL on CUDA. With one process every function here is
the identity, so the loop is the same for both.
"""

from __future__ import annotations

from typing import Dict, Iterable, List

import numpy as np

from jseg.runtime import jt


def rank() -> int:
    """This process's number, from 0; process 0 alone writes files and speaks."""
    return int(jt.rank) if jt.in_mpi else 0


def world_size() -> int:
    """The number of processes."""
    return int(jt.world_size) if jt.in_mpi else 1


def all_reduce(values: List) -> List:
    """Each Var of the list summed over all processes, in the same order on each."""
    if world_size() == 1:
        return values
    summed = [value.mpi_all_reduce("add") for value in values]
    jt.sync(summed)
    return summed


def all_reduce_numbers(numbers: Dict[str, float]) -> Dict[str, float]:
    """Numbers of the same names on every process, summed."""
    if world_size() == 1 or not numbers:
        return numbers
    names = sorted(numbers)
    total = all_reduce([jt.array(np.array([numbers[name] for name in names], np.float32))])[
        0
    ].numpy()
    return dict(zip(names, (float(value) for value in total)))


def broadcast(variables: Iterable) -> None:
    """Give every process the values of process 0."""
    if world_size() > 1:
        for variable in variables:
            variable.assign(variable.mpi_broadcast(0))
        jt.sync_all()


def barrier() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        all_reduce([jt.ones(1)])[0].sync()
