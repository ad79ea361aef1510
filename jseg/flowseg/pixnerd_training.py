"""What a training of FlowSeg moves, and what its numbers depend on.

`options` are those of the command train_flowseg.
"""

from __future__ import annotations

import hashlib
from typing import Dict

import numpy as np

from jseg import runtime
from jseg.checkpoint import CheckpointError, weights_sha256
from jseg.data.examples import contents_of
from jseg.flowseg.dinov2 import load_dinov2
from jseg.flowseg.field import training_loss
from jseg.flowseg.pixnerd import PixNerd, load_pretrained
from jseg.flowseg.predict import stored_classes
from jseg.flowseg.repa import Alignment
from jseg.training.loop import TrainedNetwork
from jseg.training.optimizer import EMA, AdamW, trainable

SETTINGS = ("scales", "jitter", "shift", "weight", "schedule", "tau", "eps")


def trained_network(options, config, codes: np.ndarray, repa_block: int) -> TrainedNetwork:
    """The network with its loss and optimiser; with --repa, tokens after that block are aligned.

    Raises CheckpointError for weights that do not fit.
    """
    # Drawn before anything else draws: the first weights are the same with --repa.
    runtime.seed(options.seed)
    network = PixNerd(config)
    runtime.jt.sync(network.parameters())
    network.train()
    network.recompute = options.recompute
    if options.model_path:
        try:
            load_pretrained(network, options.model_path)
        except CheckpointError as error:
            raise CheckpointError.at(options.model_path, error) from None

    # REPA's projection is trained along, and has no part in the moving average.
    parameters, alignment = trainable(network), _alignment(options, config)
    projection = {} if alignment is None else trainable(alignment)
    moved = {**parameters, **{f"repa.{name}": value for name, value in projection.items()}}
    loss = training_loss(
        network,
        codes,
        options.weight,
        options.tau,
        options.eps,
        options.schedule,
        options.shift,
        alignment,
        repa_block,
    )
    return TrainedNetwork(
        "",
        network,
        loss,
        AdamW(moved, options.learning_rate, weight_decay=options.weight_decay),
        EMA(parameters, options.ema, warm_up=True) if options.ema else None,
        companion=alignment,
    )


def _alignment(options, config):
    """The loss that draws the network's tokens to DINOv2's, or None."""
    if not options.repa:
        return None
    encoder = load_dinov2(options.repa)
    return Alignment(
        encoder,
        config.hidden_size,
        config.patch,
        options.repa_weight,
        encoder.config.width,
        encoder.config.patch,
    )


def settings(options, dataset, repa_block: int) -> Dict[str, object]:
    """Everything of FlowSeg's own that the numbers of a step depend on.

    Files are known by name and size, since a data set may have a hundred thousand; those whose size
    does not change with their pixels are known by content.
    """
    digest = hashlib.sha256(dataset.numbering.key)
    for example in dataset.train:
        sizes = [path.stat().st_size for path in (example.image, example.label)]
        digest.update(f"{example.stem}/{sizes}\n".encode("utf-8", "surrogateescape"))

    values = {name: getattr(options, name) for name in SETTINGS}
    values.update(data=digest.hexdigest(), classes=stored_classes(dataset.classes))
    contents = contents_of(dataset.train)
    if contents:
        values["contents"] = contents
    if options.repa:
        values.update(repa_block=repa_block, repa_weight=options.repa_weight)
        values["repa"] = weights_sha256(options.repa)
    return values
