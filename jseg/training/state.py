"""All that a training goes on from, as arrays: into a checkpoint, out of one, and to the other
processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from jseg.checkpoint import load_into
from jseg.training import distributed
from jseg.training.loop import TrainedNetwork


def stored(parts: Sequence[TrainedNetwork]) -> Dict[str, Mapping]:
    """Sets of arrays by name beside the first part's parameters."""
    first = parts[0]
    groups: Dict[str, Mapping] = {"optimizer": first.optimizer.state()}
    if first.average is not None:
        groups["ema"] = first.average.values
    if first.companion is not None:
        groups["companion"] = first.companion.state_dict()
    for part in parts[1:]:
        groups.update(
            {part.name: part.module.state_dict(), f"{part.name}_optimizer": part.optimizer.state()}
        )
    return groups


def restore(parts: Sequence[TrainedNetwork], sets: Mapping, optimizer_steps: Sequence) -> None:
    """Put everything back; sets: the arrays of a checkpoint, as `load_sets` gives them."""
    load_into(parts[0].module, sets[""])
    for part, steps in zip(parts, optimizer_steps):
        prefix = f"{part.name}_" if part.name else ""
        if part.name:
            load_into(part.module, sets[part.name])
        if part.companion is not None:
            load_into(part.companion, sets["companion"])
        part.optimizer.restore(sets[prefix + "optimizer"], steps)
        if part.average is not None:
            # Without one so far (--ema was 0), it begins at the parameters as they are.
            part.average.restore(
                sets[prefix + "ema"]
                if prefix + "ema" in sets
                else {name: value.numpy() for name, value in part.average.parameters.items()}
            )


def share_out(parts: Sequence[TrainedNetwork]) -> None:
    """Give every process the state of process 0."""
    for part in parts:
        steps = distributed.all_reduce_numbers(
            {"steps": float(part.optimizer.steps if distributed.rank() == 0 else 0)}
        )["steps"]
        part.optimizer.steps = int(steps)
        distributed.broadcast(part.optimizer.state().values())
        if part.average is not None:
            distributed.broadcast(part.average.values.values())
    for module in _modules(parts):
        distributed.broadcast(module.state_dict().values())


def check_space(folder: Path, parts: Sequence[TrainedNetwork]) -> None:
    """Raise OSError if the disk of `folder` has no room for one checkpoint."""
    sizes = [sum(4 * v.numel() for v in module.state_dict().values()) for module in _modules(parts)]
    needed = sum(3 * size for size in sizes) + (sizes[0] if parts[0].average is not None else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, one checkpoint takes {needed / 1e9:.1f} GB; "
            "make room or give another --output"
        )


def _modules(parts: Sequence[TrainedNetwork]) -> List:
    return [
        module for part in parts for module in (part.module, part.companion) if module is not None
    ]
