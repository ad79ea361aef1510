"""What is compared: parts, each a process of its own per side, and their rows in the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from jseg.ldm.presets import PIPELINES

BOUND = 1e-4  # largest relative difference of a row
SIDES = ("release", "ours")
EXACT = "exact"  # the release with group norms in float64, asked where a row is above the bound
STAGES = PIPELINES["release"].stages
REPOSITORY = "ader47/jittor-jieke-semantic_images_synthesis"

# What is read of the release.
FILES = (
    "image_sample.py",
    "merge_model.py",
    "models/guided_diffusion/script_util.py",
    "models/guided_diffusion/unet.py",
    "models/guided_diffusion/gaussian_diffusion.py",
    "models/guided_diffusion/respace.py",
    "models/autoencoder/autoencoder.py",
    "models/autoencoder/model.py",
    "models/autoencoder/quantize.py",
)

# The largest and the relative difference between two sets of arrays, a (ours) and b (the
# release's), by how they are compared.
MEASURES = {
    "values": "largest |a - b|; that over the largest |b|",
    "norm": "largest |a - b|; ||a - b|| over ||b||, of all arrays as one vector",
    "levels": "largest difference of 8-bit levels; their mean over 255",
    "entries": "number of entries that differ; their fraction",
    "names": "number of names, with their shapes, that are on one side only; their fraction",
}


@dataclass(frozen=True)
class Row:
    """A line of the table; its arrays in a part's results are called NAME or NAME/..."""

    name: str
    title: str
    measure: str = "values"
    note: str = ""
    # Number in docs/differences.md of a row that differs on purpose; it has no bound. 0: none.
    purpose: int = 0


@dataclass(frozen=True)
class Part:
    """Rows that one process computes.

    exact: it has group norms, so that the third side can show whose error a difference is.
    """

    rows: Tuple[Row, ...]
    exact: bool = False


PARTS: Dict[str, Part] = {
    "layout": Part(
        (
            Row("unet", "UNet: names and shapes", "names"),
            Row("autoencoder", "autoencoder: names and shapes", "names"),
            Row(
                "zero",
                "new UNet: which tensors are zero",
                "entries",
                purpose=29,
                note="ours starts every block's last layer at zero, as the release means to; "
                "--zero_init release does not",
            ),
        )
    ),
    "encode": Part((Row("latent", "encode"),), exact=True),
    "codes": Part((Row("codes", "codes", "entries"),)),
    "decode": Part((Row("image", "decode"),), exact=True),
    "unet": Part(
        (Row("conditional", "UNet, label map"), Row("null", "UNet, empty map")), exact=True
    ),
    "noise": Part(
        tuple(
            Row(f"stage {number}", f"add noise, index {stage.start_index} of {stage.respacing}")
            for number, stage in enumerate(STAGES)
        )
    ),
    "step": Part(
        (
            Row(
                "latent",
                "guided step",
                note="ours without the label map's modulations, which are computed once a stage",
            ),
        ),
        exact=True,
    ),
    "stage": Part(
        (
            Row("latent", "whole stage: latent"),
            Row("decoded", "whole stage: decoded"),
            Row("image", "whole stage: image, 8 bits", "levels"),
        ),
        exact=True,
    ),
    "colour": Part(
        (
            Row("image", "colour transfer", "levels"),
            Row(
                "flat",
                "colour transfer, an image of one colour",
                "levels",
                purpose=13,
                note="the release divides by a deviation of zero, ours only shifts",
            ),
        )
    ),
    "merge": Part(
        (
            Row(
                "merged",
                "merge of two autoencoders",
                note="the release writes float64, ours float32 (no. 21)",
            ),
        )
    ),
    "train": Part(
        (
            Row("mse", "training: mse"),
            Row("vb", "training: vb"),
            Row("loss", "training: loss"),
            Row("gradient", "training: gradient", "norm"),
        ),
        exact=True,
    ),
}
