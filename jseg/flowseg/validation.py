"""What a training of FlowSeg looks at on the side: mIoU on the validation examples, and previews of
the same.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Callable, Dict, List, Optional

import numpy as np

from jseg.contact_sheet import contact_sheet
from jseg.data.classes import ClassSet, colorize
from jseg.data.examples import Example, contents_of
from jseg.flowseg.dataset import Load
from jseg.flowseg.predict import Segmenter
from jseg.images import save_image
from jseg.metrics import confusion, mean_iou, pixel_accuracy

SHOWN = 6
PROTOCOL = 1  # counted up whenever the same network would get another score


class Validation:
    """The network, which may be changing, against the label maps of `examples`; load(example) gives
    (image, label).

    Called with stop() -> bool it gives {"miou", "accuracy"}, of one confusion matrix over all
    pixels that are known, each image in its own size; or None as soon as stop() is true.
    `preview(path)` writes a sheet of a few: image, label map, result.
    """

    def __init__(
        self, network, examples: List[Example], load: Load, classes: ClassSet, steps: int = 10
    ):
        self.network, self.examples, self.load, self.classes, self.steps = (
            network,
            examples,
            load,
            classes,
            steps,
        )

    @property
    def measured(self) -> Dict[str, object]:
        """What a score depends on beside the network: scores of different ones are not compared."""
        digest = hashlib.sha256()
        for example in self.examples:
            sizes = [
                os.stat(path).st_size if os.path.isfile(path) else -1
                for path in (example.image, example.label)
            ]
            digest.update(f"{example.stem}/{sizes}\n".encode("utf-8", "surrogateescape"))
        digest.update(contents_of(self.examples).encode("ascii"))
        return {
            "protocol": PROTOCOL,
            "examples": len(self.examples),
            "steps": self.steps,
            "data": digest.hexdigest(),
        }

    def __call__(self, stop: Callable[[], bool] = lambda: False) -> Optional[Dict[str, float]]:
        total = np.zeros((len(self.classes),) * 2, np.int64)
        try:
            segmenter = Segmenter(self.network, self.steps)
            for example in self.examples:
                if stop():
                    return None
                image, label = self.load(example)
                total += confusion(segmenter.segment(image, example.stem), label, len(self.classes))
        finally:
            self.network.train()
        return {"miou": mean_iou(total), "accuracy": pixel_accuracy(total)}

    def preview(self, path: Path) -> None:
        """Write a contact sheet."""
        chosen = np.unique(
            np.linspace(0, len(self.examples) - 1, min(SHOWN, len(self.examples))).astype(int)
        )
        rows = []
        try:
            segmenter = Segmenter(self.network, self.steps)
            for index in chosen:
                image, label = self.load(self.examples[index])
                found = segmenter.segment(image, self.examples[index].stem)
                rows.append([image, colorize(label, self.classes), colorize(found, self.classes)])
        finally:
            self.network.train()
        save_image(
            path,
            contact_sheet(
                rows,
                ["image", "label", "result"],
                [self.examples[index].stem for index in chosen],
            ),
        )
