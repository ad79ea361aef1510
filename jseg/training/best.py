"""The file of the network that a validation scored best, FOLDER/best.safetensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from jseg.outputs.settings import plain
from jseg.training.changes import CHANGEABLE, differences
from jseg.training.log import Log
from jseg.training.records import BEST, record, set_aside

VALIDATION = "validation/"  # before the names of a validation's numbers in the log
# A validation is called with stop() -> bool and gives numbers for the log, of which the first is
# the score; or None if stop() became true. Its attribute `measured` says what the score depends on
# beside the network, `smaller_is_better` is true of a loss.
Validate = Callable[[Callable[[], bool]], Optional[Dict[str, float]]]


class Best:
    """The best file of the run in `folder`, compared by its record alone.

    `first_step` is that which the run began or went on from: a best of before may have other
    settings, if they are such as may change on the way.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], say: Callable[[str], None]):
        self.folder, self.path, self.settings, self.say = folder, folder / BEST, settings, say

    def so_far(
        self, measured: Mapping[str, object], first_step: int
    ) -> Optional[Tuple[float, int]]:
        """(score, step) of the file; None if there is none. One that was measured in another way is
        set aside.
        """
        if not self.path.is_file():
            return None
        about = record(self.path)
        step = int(about.get("step", 0))
        changed = set(differences(about.get("settings", {}), self.settings))
        own = not changed or step <= first_step and changed <= CHANGEABLE
        alike = about.get("measured", measured) == measured
        if "score" in about and own and alike:
            return float(about["score"]), step
        target = set_aside(self.folder, step, [self.path])
        why = "was scored in another way or is of other settings"
        if not about:
            why = "is damaged, or no file of a training"
        self.say(f"{BEST} {why}: it is set aside in {target} and not compared")
        return None


def is_validated(log: Log, step: int) -> bool:
    """Whether the log has a validation's numbers of that step."""
    columns = log.read()
    rows = columns["step"] == step
    numbers = (values for name, values in columns.items() if name.startswith(VALIDATION))
    return any(np.isfinite(values[rows]).any() for values in numbers)


def measured_by(validate: Validate) -> Dict[str, object]:
    """What its scores depend on beside the network."""
    return plain(getattr(validate, "measured", {}))


def is_better(validate: Validate, score: float, best: Optional[Tuple[float, int]]) -> bool:
    """Whether a score beats (the best score, its step)."""
    if math.isnan(score) or best is None:
        return not math.isnan(score)
    return score < best[0] if getattr(validate, "smaller_is_better", False) else score > best[0]
