"""The table of FlowSeg's networks, one row per published or shipped size: PixNerd (arXiv 2507.23268) with class codes as its pictures.

Rows are frozen dataclasses; `dataclasses.replace(NETWORKS["small"], labels=11)` makes a variant. "pixnerd-L/16" and "pixnerd-XL/16" are
configs_c2i/ of the official PixNerd code; which of them FlowSeg used is not known, the small sizes are ours.
"""
from dataclasses import dataclass
from typing import Optional

SOURCES = ("image", "noise", "image+noise")


@dataclass(frozen=True)
class PixNerdConfig:
    """A patch transformer with a neural field per patch, and the task it was trained for: both are stored with its weights.

    source: where the flow starts, since weights are only good for the source they were trained with. image_input: whether the network
    sees the picture beside x_t; None: exactly if the source has noise ("image+noise" without it is possible, but poor). Raises
    ValueError for what does not fit together, a deterministic source with the picture as an input above all.
    """
    hidden_size: int = 1024                              # width of the transformer's tokens
    heads: int = 16
    depth: int = 22                                      # transformer blocks
    pixel_blocks: int = 2                                # neural-field blocks
    pixel_channels: int = 64                             # width of the neural field
    pixel_ratio: int = 2                                 # its hidden width, in multiples of pixel_channels
    frequencies: int = 8                                 # cosines per axis with which the field knows a pixel's place in its patch
    patch: int = 16                                      # pixels; pictures are multiples of it
    classes: int = 1000                                  # rows of the label embedding less one; the last row is the null class
    labels: int = 150                                    # classes of the segmentation
    codes: str = "kronecker"                             # kind of their codes, `encoding.class_codes`
    source: str = "image"                                # "image", "noise" or "image+noise"
    image_input: Optional[bool] = None
    width: int = 512                                     # of the training crops, and of the windows at inference
    height: int = 512

    def __post_init__(self):
        if self.source not in SOURCES:
            raise ValueError(f"PixNerdConfig: source is {self.source!r}; choose one of {', '.join(SOURCES)}")
        if self.image_input and self.source == "image":
            raise ValueError("PixNerdConfig: source 'image' with image_input: the velocity (x_t - image) / t can then be read off without "
                             "looking at the picture, and nothing is learnt; drop image_input, or start from 'noise' or 'image+noise'")
        if self.image_input is False and self.source == "noise":
            raise ValueError("PixNerdConfig: source 'noise' without image_input never sees the picture; leave image_input out")
        for name in ("hidden_size", "heads", "pixel_blocks", "pixel_channels", "pixel_ratio", "frequencies", "patch", "width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"PixNerdConfig: {name} is {getattr(self, name)}; expected 1 or more")
        if self.depth < 0 or self.classes < 0 or self.labels < 2:
            raise ValueError(f"PixNerdConfig: depth {self.depth}, classes {self.classes}, labels {self.labels}; expected 0, 0, 2 or more")
        if self.hidden_size % (4 * self.heads):
            raise ValueError(f"PixNerdConfig: hidden_size {self.hidden_size}, heads {self.heads}; expected a multiple of 4 heads, since "
                             f"positions turn pairs of each head's channels, for x and for y")

    @property
    def sees_image(self) -> bool:
        """Whether the picture is fed in beside x_t."""
        return self.source != "image" if self.image_input is None else self.image_input


NETWORKS = {
    "pixnerd-L/16": PixNerdConfig(),                                                            # 452,113,795 parameters
    "pixnerd-XL/16": PixNerdConfig(hidden_size=1152, depth=26, pixel_blocks=4),                 # 700,589,219 parameters
    # 2,116,003 parameters; a training step of 8 crops: 0.63 s of one core.
    "small": PixNerdConfig(hidden_size=128, heads=2, depth=6, pixel_channels=16, patch=8, classes=0, labels=11, width=160, height=120),
    # 120,619 parameters, for tests.
    "tiny": PixNerdConfig(hidden_size=48, heads=3, depth=2, pixel_blocks=1, pixel_channels=8, frequencies=4, patch=8, classes=0, labels=11,
                          width=48, height=32),
}

# What the numbers of the loss may be. Codes lie in [-1, 1], where float32 points are 6e-8 apart;
# beyond these, float32 overflows or divides by 0.
RANGES = {"weight": (0, 1e6), "tau": (1e-6, 1e6), "eps": (1e-12, 1e6), "shift": (1e-6, 1e6)}


def check_numbers(mark: str, **values) -> None:
    """Raise ValueError for the first of the values, given by its name in `RANGES`, that is not in its range; NaN is in none.

    mark: what stands before the name in the message, such as "--".
    """
    for name, value in values.items():
        least, most = RANGES[name]
        if not least <= value <= most:
            raise ValueError(f"{mark}{name} is {value}; expected a number from {least:g} to {most:g}")
