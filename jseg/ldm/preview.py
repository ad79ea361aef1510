"""Previews of a UNet in training: label map | reference | sample, for a few examples."""

from __future__ import annotations

from pathlib import Path
from typing import List

import numpy as np

from jseg.contact_sheet import contact_sheet
from jseg.data.classes import ClassSet, colorize
from jseg.data.examples import load_image
from jseg.images import resize_label, save_image
from jseg.ldm.presets import Pipeline, Stage
from jseg.ldm.refine import Synthesizer

SHOWN = 6
# One short stage from the release's noise level: 15 of 25 steps, about t = 600.
PIPELINE = Pipeline(
    (Stage(guidance=2.5, respacing="ddim25", start_index=15),),
    aligned=True,
    float_handoff=True,
    rounding="round",
)


class Preview:
    """preview(path) writes a sheet of SHOWN examples, each with the image of another example as its
    reference.

    latents: a latent cache; examples: the files that it was made of; fit: as in `load_image`.
    """

    def __init__(
        self, unet, autoencoder, latents, examples, classes: ClassSet, seed: int, fit: str = ""
    ):
        self.unet, self.autoencoder = unet, autoencoder
        self.latents, self.examples = latents, examples
        self.classes, self.seed, self.fit = classes, seed, fit

    def __call__(self, path: Path) -> None:
        # Examples at equal distances; each takes the one before it as its reference.
        count = min(SHOWN, len(self.examples))
        indices = np.linspace(0, len(self.examples) - 1, count).astype(int)
        pairs = list(zip(indices, np.roll(indices, 1)))

        # A Synthesizer sets the UNet to evaluation; whatever happens, the training goes on.
        try:
            synthesizer = Synthesizer(self.unet, self.autoencoder, PIPELINE)
            rows = [self._row(synthesizer, *pair) for pair in pairs]
        finally:
            self.unet.train()
        names = [self.examples[index].stem for index in indices]
        save_image(path, contact_sheet(rows, ["label", "reference", "sample"], names))

    def _row(self, synthesizer: Synthesizer, index: int, other: int) -> List[np.ndarray]:
        width, height = synthesizer.size
        label = np.array(self.latents.labels[2 * index])  # the even ones are not mirrored
        reference = load_image(self.examples[other], width, height, self.fit)
        stem = self.examples[index].stem
        *_, last = synthesizer.run([label], [reference], self.seed, [stem])

        known = np.where(label < len(self.classes), label, 255)
        colours = colorize(resize_label(known, width, height), self.classes)
        return [colours, reference, last.images[0]]
