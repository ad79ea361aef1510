"""Previews of a UNet in training: label map | reference | sample, for a few examples."""

from __future__ import annotations

from pathlib import Path

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
    """preview(path) writes a sheet of SHOWN examples, each with the image of another example as
    its reference.
    """

    def __init__(
        self, unet, autoencoder, latents, examples, classes: ClassSet, seed: int, fit: str = ""
    ):
        self.unet, self.autoencoder, self.latents, self.examples = (
            unet,
            autoencoder,
            latents,
            examples,
        )
        self.classes, self.seed, self.fit = classes, seed, fit

    def __call__(self, path: Path) -> None:
        count = min(SHOWN, len(self.examples))
        chosen = np.linspace(0, len(self.examples) - 1, count).astype(int)
        synthesizer = Synthesizer(self.unet, self.autoencoder, PIPELINE)
        width, height = synthesizer.size
        rows, names = [], []
        try:
            for index, other in zip(chosen, np.roll(chosen, 1)):
                label = np.array(self.latents.labels[2 * index])  # the even ones are not mirrored
                reference = load_image(self.examples[other], width, height, self.fit)
                stem = self.examples[index].stem
                for progress in synthesizer.run([label], [reference], self.seed, [stem]):
                    image = progress.images
                shown = np.where(label < len(self.classes), label, 255)
                rows.append(
                    [
                        colorize(resize_label(shown, width, height), self.classes),
                        reference,
                        image[0],
                    ]
                )
                names.append(stem)
        finally:
            self.unet.train()
        save_image(path, contact_sheet(rows, ["label", "reference", "sample"], names))
