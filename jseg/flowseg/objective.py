"""The training loss of FlowSeg as a function of a batch: source, path, network and corrected
velocity put together.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional

import numpy as np

from jseg.flowseg.field import flow_loss, interpolate, shifted, source
from jseg.runtime import jt


def training_loss(
    network,
    codes: np.ndarray,
    weight: float = 1.0,
    tau: float = 1.0,
    eps: float = 1e-2,
    schedule: str = "static",
    shift: float = 1.0,
    alignment: Optional[Callable] = None,
    block: int = 1,
) -> Callable[[Mapping[str, np.ndarray]], Dict[str, object]]:
    """loss(batch) -> {"loss", "fm", "correction_norm"} of a `batches.CropBatches` batch, its noise
    and times being in it.

    Means over all pixels, in which those that nothing is known of count 0: `flow_loss`, whose means
    are over the known ones, times their share. So micro-batches add up to their batch whatever is
    known in each. weight, tau, eps, schedule: of `field.flow_loss`; shift: of `field.shifted`.
    alignment: a `repa.Alignment`, which is given the tokens after the transformer block of that
    number, counted from 1.
    """
    kind = network.config.source

    def loss(batch: Mapping[str, np.ndarray]) -> Dict[str, object]:
        x0, x1, t = (
            source(kind, batch["images"], batch["noise"]),
            batch["x1"],
            shifted(batch["t"], shift).astype(np.float32),
        )
        x_t = interpolate(x0, x1, t)
        image = jt.array(batch["images"]) if network.config.sees_image else None
        made = network(jt.array(x_t), jt.array(t), image, tap=block if alignment else None)
        velocity, tokens = made if alignment else (made, None)
        found = flow_loss(
            velocity,
            x_t,
            x0,
            x1,
            t,
            batch["labels"],
            codes,
            weight=weight,
            tau=tau,
            eps=eps,
            schedule=schedule,
            mask=batch["mask"],
        )
        known = jt.array(np.array([batch["mask"].mean(dtype=np.float64)], np.float32))
        found = {name: value * known for name, value in found.items()}
        return alignment(found, tokens, batch["images"]) if alignment else found

    return loss
