"""What flowseg_convergence.py compares, and the file of each finished run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict

STEPS = (1, 2, 5, 10, 25)  # Euler steps with which the final weights are scored
TUNING_SEEDS, SEEDS = (101, 102), (1, 2, 3, 4, 5)
TOY_RATES = (5e-4, 1.5e-3, 5e-3, 1.5e-2, 5e-2)
CAMVID_RATES = (1e-3, 2e-3, 4e-3)


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: the loss, the codes, and which training points have a label."""

    weight: float
    schedule: str = "static"
    codes: str = "kronecker"
    unknown: float = 0.0  # fraction of the training points without a label
    masked: bool = True  # False: they are drawn to the centre of the cube, as a class of their own

    @property
    def name(self) -> str:
        loss = "fm" if self.weight == 0 else f"flowseg-w{self.weight:g}-{self.schedule}"
        if not self.unknown:
            return f"{loss}-{self.codes}"
        mask = "masked" if self.masked else "unmasked"
        return f"{loss}-{self.codes}-unknown{self.unknown:g}-{mask}"


PLAIN, CORRECTED = Arm(0.0), Arm(1.0)


def finished(path: Path, run: Callable[[], Dict]) -> Dict:
    """The result in the file `path`; if there is none, that of `run`, which is stored there."""
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(run()))
        os.replace(part, path)
    return json.loads(path.read_text())
