"""The processes of a run: one, or several under mpirun that share its work.

Open MPI's own variables tell rank and number before Jittor is there (`jseg.machine.mpirun`).
Gradients go through Jittor's MPI operators, which are NCCL on CUDA, and everything else through
MPI on the host. With one process every function here is the identity, so callers are the same for
both. Except for `rank` and `world_size`, every process has to call them, in the same order.
"""

from __future__ import annotations

import pickle
from typing import Callable, Dict, Iterable, Iterator, List, Sequence, TypeVar

import numpy as np

from jseg.runtime import jt

BUCKET_BYTES = 25 << 20  # what one all_reduce takes at once: large enough to hide its latency
Value = TypeVar("Value")


def rank() -> int:
    """This process's number, from 0; process 0 alone writes records and speaks."""
    return int(jt.rank) if jt.in_mpi else 0


def world_size() -> int:
    """The number of processes."""
    return int(jt.world_size) if jt.in_mpi else 1


def all_reduce(values: Sequence) -> List:
    """Each Var of the list summed over all processes.

    Neighbours of one type travel together, BUCKET_BYTES at a time: a network has hundreds of small
    gradients, and every message costs a wait.
    """
    if world_size() == 1:
        return list(values)
    summed: List = []
    for bucket in buckets(values):
        if len(bucket) == 1:
            parts = [bucket[0].mpi_all_reduce("add")]
        else:
            flat = jt.concat([value.reshape(-1) for value in bucket])
            parts = _split(flat.mpi_all_reduce("add"), bucket)
        jt.sync(parts)  # bucket after bucket, the same on each process
        summed += parts
    return summed


def buckets(values: Sequence) -> Iterator[List]:
    """The Vars in their order, in lists of one type and of BUCKET_BYTES at most; a larger one is
    alone.
    """
    bucket: List = []
    filled = 0
    for value in values:
        size = value.numel() * value.dtype.dsize()
        if bucket and (filled + size > BUCKET_BYTES or value.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(value)
        filled += size
    if bucket:
        yield bucket


def _split(flat, like: Sequence) -> List:
    """The Vars that `flat` holds one after another, in the shapes of those in `like`."""
    edges = np.cumsum([0] + [value.numel() for value in like]).tolist()
    return [
        flat[start:stop].reshape(value.shape) for start, stop, value in zip(edges, edges[1:], like)
    ]


def all_reduce_numbers(numbers: Dict[str, float]) -> Dict[str, float]:
    """Numbers of the same names on every process, summed."""
    if world_size() == 1 or not numbers:
        return numbers
    names = sorted(numbers)
    own = jt.array(np.array([numbers[name] for name in names], np.float32))
    total = all_reduce([own])[0].numpy()
    sums = dict(zip(names, total))
    return {name: float(sums[name]) for name in numbers}


def broadcast(variables: Iterable) -> None:
    """Give every process the values of process 0."""
    if world_size() > 1:
        for variable in variables:
            variable.assign(variable.mpi_broadcast(0))
        jt.sync_all()


def from_process(root: int, value: Value) -> Value:
    """The value that process `root` has; it must be one that pickle can copy."""
    if world_size() == 1:
        return value
    data = pickle.dumps(value) if rank() == root else b""
    size = np.array([len(data)], np.int64)
    jt.compile_extern.mpi.broadcast(size, root)
    content = np.zeros(int(size[0]), np.uint8)
    content[: len(data)] = np.frombuffer(data, np.uint8)
    jt.compile_extern.mpi.broadcast(content, root)
    return value if rank() == root else pickle.loads(content.tobytes())


def from_first(make: Callable[[], Value]) -> Value:
    """What `make()` returns in process 0, which alone calls it."""
    return from_process(0, make() if rank() == 0 else None)


def gather(value: Value) -> List[Value]:
    """The values of all processes, by rank."""
    return [from_process(root, value) for root in range(world_size())]


def rounds(work: Sequence[Value]) -> List[List[Value]]:
    """The pieces of work in rounds of one piece for each process, by rank; the last may be short.

    All end a round together: what they then tell each other is complete.
    """
    world = world_size()
    return [list(work[start : start + world]) for start in range(0, len(work), world)]


def barrier() -> None:
    """Return when every process has come here."""
    gather(None)
