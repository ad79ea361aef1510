"""All items scored, and what the scores of a call cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from jseg.data.classes import ClassSet
from jseg.data.numbering import Numbering
from jseg.evaluation.inputs import Item
from jseg.evaluation.measures import ImageScores, score_image
from jseg.evaluation.predictions import load_prediction
from jseg.images import read_image

ENOUGH = 2048  # images of a set below which FID is far too large


def score_items(
    items: Sequence[Item], classes: ClassSet, ignore: Sequence[int], aesthetic: Mapping[str, float]
) -> Iterator[Tuple[ImageScores, np.ndarray]]:
    """Yield the scores of every item and its confusion matrix [classes, classes].

    aesthetic: values by stem, where people brought some.
    """
    numbering = Numbering.of(classes, ignore)
    for item in items:
        label = numbering.read(item.label).ids
        prediction = item.prediction and load_prediction(item.prediction, label.shape, classes)
        yield score_image(
            item.stem,
            read_image(item.result),
            read_image(item.reference),
            label,
            prediction,
            len(classes),
            aesthetic.get(item.stem),
        )


def limits(
    count: int, real: Sequence[Path], aesthetic: Dict[str, float], best: float, inception: bool
) -> List[str]:
    """What the scores of `count` results cannot say, for the user.

    real: images that FID compares with. best: the best aesthetic value possible. inception: whether
    FID's own network is there.
    """
    remarks = []
    if aesthetic and max(aesthetic.values()) <= 1 < best:
        remarks.append(
            f"no aesthetic value is above 1, the best possible is taken to be {best:g}: if it is "
            "1, give --aesthetic_max 1"
        )
    if not inception:
        remarks.append(
            "no --inception: FID is not computed; bring pytorch-fid's "
            "pt_inception-2015-12-05-6726825d.pth. KID of our autoencoder's features stands in "
            "for it, which is no FID"
        )
    elif min(count, len(real)) < ENOUGH:
        remarks.append(
            f"FID of {count} results and {len(real)} real images is too large by what few images "
            "bring; compare it only with FIDs of as many"
        )
    return remarks
