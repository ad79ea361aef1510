"""A small run of the training loop in a folder: what each process of
tests/training/test_distributed.py and tests/training/test_run.py runs.
"""

import sys

import numpy as np


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((10, 3, 12, 16)).astype(np.float32), rng.integers(
        0, 29, (10, 12, 16)
    ).astype(np.uint8)


def run_in(folder, steps, first_seed=0, dropout=0.0, say=print, **plan):
    """The TrainingRun of a tiny UNet on drawn latents, and its batches: global batches of 4 in
    micro-batches of 2.
    """
    import dataclasses

    from jseg import runtime
    from jseg.ldm.dataset import BatchShards, LatentBatches
    from jseg.ldm.loss import training_loss
    from jseg.ldm.presets import UNETS
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.training import distributed
    from jseg.training.loop import TrainedNetwork
    from jseg.training.optimizer import EMA, AdamW, trainable
    from jseg.training.run import Plan, TrainingRun

    runtime.device("cpu")
    runtime.seed(first_seed)
    unet = UNet(dataclasses.replace(UNETS["tiny"], dropout=dropout))
    unet.train()
    parameters = trainable(unet)
    network = TrainedNetwork(
        "", unet, training_loss(unet, Schedule()), AdamW(parameters, 1e-3), EMA(parameters, 0.9)
    )
    batches = LatentBatches(
        *data(), BatchShards(4, 2, distributed.rank(), distributed.world_size()), seed=1
    )
    settings = {"learning_rate": 1e-3, "dropout": dropout}
    plan = Plan(steps, **{"save_interval": 3, "log_interval": 1, **plan})
    return TrainingRun(folder, [network], unet.config, settings, plan, "unet", say), batches


def main(folder, steps, lost=None):
    """As a program: the exit code of a command. lost: the step whose images process 1 misses."""
    from jseg.commands import cli
    from jseg.files import DataError
    from jseg.training import curve, distributed

    curve.draw_curve = lambda *arguments: True  # it takes longer than the training

    def train(argv=None):
        training, batches = run_in(
            folder, steps, first_seed=distributed.rank(), say=lambda line: print(line, flush=True)
        )

        def load(step):
            if step == lost and distributed.rank() == 1:
                raise DataError("image 7 is gone; put it back")
            return batches(step)

        # The first weights differ: process 0's are everyone's.
        training.follow(load, training.resume("auto"))

    train.__module__ = "jseg.commands.train"
    sys.exit(cli.run(train))
