"""The settings that the numbers of a training depend on: which may change on the way, and what a
checkpoint that lacks one was trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Collection, Dict, Mapping

from jseg.checkpoint import CheckpointError
from jseg.outputs.settings import UNKNOWN, compared, said

# What a person may change on the way, by giving the option: how the work is done, not which work it
# is.
CHANGEABLE = frozenset(
    ("batch_size", "learning_rate", "weight_decay", "ema", "warmup", "decay", "steps")
    + ("drop", "scales", "jitter", "shift", "repa_weight", "critic_weight")
)
LABEL = "class_set"  # a name for people, which decides nothing
# What a checkpoint without the setting was trained with: whoever adds a setting adds the old
# behaviour here, or UNKNOWN.
WHEN_MISSING: Dict[str, object] = {
    "classes": UNKNOWN,
    "contents": UNKNOWN,
    "precision": "float32",
    "weight_decay": 0.0,
    "drop": 0.2,
    "zero_init": "zero",
    "warmup": 0,
    "decay": "none",
    "validate_count": 0,
    "scales": [0.5, 2.0],
    "jitter": 0.0,
    "shift": 1.0,
    "weight": 1.0,
    "schedule": "static",
    "tau": 1.0,
    "eps": 1e-2,
}


def differences(stored: Mapping[str, object], asked: Mapping[str, object]) -> Dict[str, tuple]:
    """{setting: (was, is)} of those that differ; a missing one is as in WHEN_MISSING."""
    sides = ({k: v for k, v in one.items() if k != LABEL} for one in (stored, asked))
    return compared(*sides, WHEN_MISSING)


def same_but_changeable(stored: Mapping[str, object], asked: Mapping[str, object]) -> bool:
    """Whether two runs differ in nothing that may not change on the way."""
    return set(differences(stored, asked)) <= CHANGEABLE


def check_changes(
    path: Path, stored: Mapping[str, object], asked: Mapping[str, object], given: Collection[str]
) -> Dict[str, tuple]:
    """`differences` of a checkpoint that is to be gone on from; CheckpointError unless all that
    differs may be changed and is among the options `given`.
    """
    pairs = differences(stored, asked)
    refused = [name for name in pairs if name not in CHANGEABLE & frozenset(given)]
    if not refused:
        return pairs
    options = [f"--{name}" for name in refused if name in CHANGEABLE]
    all_may = len(options) == len(refused)
    purpose = f" (or {' '.join(options)}, to change it on purpose)" if all_may else ""
    values = said({name: pairs[name] for name in refused})
    raise CheckpointError(
        f"{path} was trained with other settings: {values}; give the old ones to go on{purpose}, "
        "or another --output and this file as --model_path to start anew from its weights"
    )
