"""The table of FlowSeg's networks, one row per published or shipped size: PixNerd (arXiv
2507.23268) with class codes as its images.

Rows are frozen dataclasses; `dataclasses.replace(NETWORKS["small"], labels=11)` makes a variant.
"pixnerd-L/16" and "pixnerd-XL/16" are those of configs_c2i/ in the official PixNerd code; which of
them FlowSeg used is not known. The small sizes are ours.
"""

from jseg.configs import PixNerdConfig

NETWORKS = {
    # 452,113,795 parameters.
    "pixnerd-L/16": PixNerdConfig(),
    # 700,589,219 parameters.
    "pixnerd-XL/16": PixNerdConfig(hidden_size=1152, depth=26, pixel_blocks=4),
    # 2,116,003 parameters; a training step of 8 crops: 0.63 s of one core.
    "small": PixNerdConfig(
        hidden_size=128,
        heads=2,
        depth=6,
        pixel_channels=16,
        patch=8,
        classes=0,
        labels=11,
        width=160,
        height=120,
    ),
    # 120,619 parameters, for tests.
    "tiny": PixNerdConfig(
        hidden_size=48,
        heads=3,
        depth=2,
        pixel_blocks=1,
        pixel_channels=8,
        frequencies=4,
        patch=8,
        classes=0,
        labels=11,
        width=48,
        height=32,
    ),
}

# Least and largest values of the loss's numbers. Codes lie in [-1, 1], where float32 points are
# 6e-8 apart; outside these ranges, float32 overflows or divides by 0.
RANGES = {"weight": (0, 1e6), "tau": (1e-6, 1e6), "eps": (1e-12, 1e6), "shift": (1e-6, 1e6)}


def check_numbers(mark: str, **values) -> None:
    """Raise ValueError for the first of the values that is outside its range in `RANGES`; NaN is
    outside every range.

    mark: what stands before the name in the message, such as "--".
    """
    for name, value in values.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise ValueError(f"{mark}{name} is {value}; expected a number from {low:g} to {high:g}")
