"""A network whose gradient NumPy knows: least squares y = x w."""

import numpy as np

from jseg.runtime import jt
from jseg.training.loop import TrainedNetwork
from jseg.training.optimizer import EMA, AdamW, trainable

INPUTS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
TARGETS = np.random.default_rng(1).standard_normal((12, 2)).astype(np.float32)


def network(rate=0.01, ema=False, scale=1.0, start_step=0):
    jt.set_global_seed(0)
    module = jt.nn.Linear(5, 2, bias=False)
    parameters = trainable(module)

    def loss(batch):
        error = jt.array(batch["x"]) @ module.weight.transpose(1, 0) - jt.array(batch["y"])
        return {
            "loss": (error * error).mean() * scale,
            "size": jt.array(np.float32(len(batch["x"]))),
        }

    return TrainedNetwork(
        "",
        module,
        loss,
        AdamW(parameters, rate),
        EMA(parameters, 0.9) if ema else None,
        start_step,
    )
