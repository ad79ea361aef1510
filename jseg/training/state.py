"""All that a training goes on from, as arrays: into a checkpoint, out of one, and to the other
processes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

import numpy as np

from jseg.checkpoint import CheckpointError, load_into, load_sets
from jseg.training import distributed
from jseg.training.loop import TrainedNetwork


def state_sets(networks: Sequence[TrainedNetwork]) -> Dict[str, Mapping]:
    """The sets of arrays by name that a checkpoint has beside the first network's parameters."""
    first = networks[0]
    sets: Dict[str, Mapping] = {"optimizer": first.optimizer.state()}
    if first.ema is not None:
        sets["ema"] = first.ema.values
    if first.companion is not None:
        sets["companion"] = first.companion.state_dict()
    if first.loss_scale is not None:
        sets["loss_scale"] = first.loss_scale.state()
    for network in networks[1:]:
        sets[network.name] = network.module.state_dict()
        sets[f"{network.name}_optimizer"] = network.optimizer.state()
    return sets


def restore(networks: Sequence[TrainedNetwork], path: Path, optimizer_steps: Sequence[int]) -> None:
    """Put everything back as the checkpoint `path` has it, whose record says how many steps each
    optimiser took.

    Raises CheckpointError, or ValueError for the state of another network.
    """
    sets = load_sets(path)
    try:
        for network, steps in zip(networks, optimizer_steps):
            _restore_one(network, sets, steps)
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None


def _restore_one(
    network: TrainedNetwork, sets: Mapping[str, Mapping[str, np.ndarray]], steps: int
) -> None:
    prefix = f"{network.name}_" if network.name else ""
    load_into(network.module, sets[network.name])
    if network.companion is not None:
        load_into(network.companion, sets["companion"])
    network.optimizer.restore(sets[prefix + "optimizer"], steps)
    if network.loss_scale is not None and not network.name and "loss_scale" in sets:
        network.loss_scale.restore(sets["loss_scale"])
    if network.ema is not None:
        # Without one so far (--ema was 0), it begins at the parameters as they are.
        parameters = {name: value.numpy() for name, value in network.ema.parameters.items()}
        network.ema.restore(sets.get(prefix + "ema", parameters))


def broadcast_state(networks: Sequence[TrainedNetwork]) -> None:
    """Give every process the state of process 0."""
    for network in networks:
        own_steps = network.optimizer.steps if distributed.rank() == 0 else 0
        steps = distributed.all_reduce_numbers({"steps": float(own_steps)})["steps"]
        network.optimizer.steps = int(steps)
        if network.loss_scale is not None:
            network.loss_scale.restore(distributed.from_first(network.loss_scale.state))
        distributed.broadcast(network.optimizer.state().values())
        if network.ema is not None:
            distributed.broadcast(network.ema.values.values())
    for module in _modules(networks):
        distributed.broadcast(module.state_dict().values())


def check_space(folder: Path, networks: Sequence[TrainedNetwork]) -> None:
    """Raise OSError if the disk of `folder` has no room for one checkpoint."""
    modules = _modules(networks)
    sizes = [sum(4 * v.numel() for v in module.state_dict().values()) for module in modules]
    needed = 3 * sum(sizes) + (sizes[0] if networks[0].ema is not None else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, one checkpoint takes {needed / 1e9:.1f} GB; "
            "make room or give another --output"
        )


def _modules(networks: Sequence[TrainedNetwork]) -> List:
    both = (module for network in networks for module in (network.module, network.companion))
    return [module for module in both if module is not None]
