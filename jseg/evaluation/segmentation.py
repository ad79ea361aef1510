"""The results segmented by FlowSeg: label maps for the mask accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Sequence

from jseg.checkpoint import WeightFile
from jseg.data.classes import ClassSet
from jseg.data.examples import Example
from jseg.evaluation.inputs import Item
from jseg.evaluation.results import PREDICTIONS
from jseg.flowseg import results
from jseg.flowseg.predict import Segmenter, network_config
from jseg.flowseg.segment import code, options_of, segment_folder


class Segmentation:
    """The folder of label maps of the results in a folder of scores.

    A label map is taken again only if all that it depends on is as it was. The folder is score's
    own, so label maps of other settings are made again; `remarks` says so.
    """

    def __init__(
        self, weights: WeightFile, items: Sequence[Item], output: Path, device: str, asked: str
    ):
        """weights: FlowSeg's network, its SHA-256 known. output: of the scores. asked: the device
        that was given.
        """
        self.weights, self.items = weights, items
        self.images = [Example(item.stem, item.result) for item in items]
        self.digests = results.digests_of(self.images)
        self.segmenter = Segmenter.from_file(weights, device=asked)
        settings = {
            "weights": weights.sha256,
            "device": device,
            "code": code(),
            **options_of(self.segmenter),
        }
        self.run, self.remarks = results.resumed(
            output / PREDICTIONS, settings, self.images, self.digests, remake=True
        )

    def done(self) -> int:
        """The number of label maps that are there."""
        return len(results.finished(self.images, self.run, self.digests))

    def make(self, classes: ClassSet) -> Iterator[None]:
        """Make the label maps that are missing, yielding after each."""
        for _ in segment_folder(self.segmenter, self.images, self.run, classes, self.digests):
            yield

    def items_with_predictions(self) -> List[Item]:
        """The items, each with its label map."""
        folder = self.run.folder
        return [replace(item, prediction=folder / f"{item.stem}.png") for item in self.items]


def check_network(weights: WeightFile, classes: ClassSet, name: str) -> None:
    """Raise ValueError unless the network knows as many classes as the set, given as `name`."""
    count = network_config(weights).labels
    if count != len(classes):
        raise ValueError(
            f"--flowseg {weights} knows {count} classes, --classes {name} has {len(classes)}; "
            "expected equal classes"
        )
