"""Tables of the look of landscapes: hours, weathers, seasons and materials.

The tables have colours as sRGB hex, several in one string, as they were chosen by eye; everything
that computes has linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, Tuple

import numpy as np

Interval = Tuple[float, float]


@lru_cache(maxsize=None)
def linear(code: str) -> np.ndarray:
    """sRGB "rrggbb" to linear float32 RGB, read-only."""
    value = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float64) / 255
    curve = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    colour = curve.astype(np.float32)
    colour.setflags(write=False)
    return colour


@lru_cache(maxsize=None)
def colours(codes: str) -> np.ndarray:
    """Several sRGB codes with spaces between them as linear float32 [n, 3], read-only."""
    table = np.stack([linear(code) for code in codes.split()])
    table.setflags(write=False)
    return table


# The colours of an hour's sky, of the sky near the sun, of direct light and of light from the sky.
TONES = ("zenith", "middle", "horizon", "glow", "sun", "ambient")
OVERCAST = "9aa6b2 b4bcc4 d2d7da e6e6e2 fff4e6 b8c4d0"


@dataclass(frozen=True)
class Hour:
    """One time of day."""

    chance: float
    tones: str  # as TONES
    sun_power: float
    ambient_power: float
    elevation: Interval  # of the sun, degrees
    ahead: float  # chance that the sun stands in the image's direction
    covered: float = 1.0  # brightness of a covered sky
    stars: float = 0.0


HOURS: Dict[str, Hour] = {
    "dawn": Hour(
        1.3, "5f7fb4 c3b4c6 f8d5b2 ffe2a8 ffb483 9a9fc0", 1.35, 0.75, (3, 9), 0.55, covered=0.8
    ),
    "morning": Hour(1.6, "3f78c0 8dbae2 dce8ea fff6dc ffe8c2 9ab6d8", 1.95, 0.55, (18, 34), 0.15),
    "noon": Hour(1.5, "2463b4 68a4dc c4dced ffffff fff6e4 93b4dc", 2.0, 0.6, (42, 62), 0.0),
    "afternoon": Hour(1.5, "3a72b6 88b3dc e2e4de fff1cf ffe2b0 98b0d2", 2.0, 0.55, (20, 36), 0.15),
    "golden": Hour(1.8, "5a86b8 c4bda6 ffd08a ffe9a0 ffb45c 9c9fb8", 1.95, 0.58, (6, 13), 0.45),
    "sunset": Hour(
        1.4, "3c4f8a b8707f ff9c50 ffd070 ff8a44 9088a8", 1.4, 0.62, (1.5, 5), 0.65, covered=0.72
    ),
    "dusk": Hour(
        0.9, "1d2f5e 5c6299 e8a08c ffb684 c98a8a 7a80ac", 0.4, 0.6, (1, 3), 0.5, covered=0.5
    ),
    "night": Hour(
        0.6, "070d22 122449 2c4468 c8d8f4 9fb8e8 5070ac", 0.5, 0.34, (25, 45), 0.5, 0.2, stars=1.0
    ),
}


@dataclass(frozen=True)
class Weather:
    """One weather: how it changes the hour."""

    chance: float
    clouds: Dict[str, float]  # cloud kinds and their chances
    cover: Interval
    haze: Interval  # extinction per kilometre at sea level
    mist: Interval = (0.0, 0.0)  # the same for the air of low ground
    grey: float = 0.0  # how far sky and light go to the overcast colours
    drops: float = 0.0  # falling rain
    flakes: float = 0.0  # falling snow
    wind: Interval = (0.15, 0.6)


WEATHERS: Dict[str, Weather] = {
    "clear": Weather(
        2.2, {"none": 0.3, "cirrus": 0.7}, (0.2, 0.55), (0.018, 0.05), wind=(0.05, 0.4)
    ),
    "fair": Weather(3.0, {"cumulus": 0.75, "altocumulus": 0.25}, (0.25, 0.5), (0.02, 0.06)),
    "cloudy": Weather(
        1.6,
        {"cumulus": 0.4, "stratocumulus": 0.6},
        (0.5, 0.72),
        (0.03, 0.08),
        grey=0.25,
        wind=(0.2, 0.7),
    ),
    "hazy": Weather(
        1.0, {"none": 0.4, "cirrus": 0.6}, (0.2, 0.5), (0.1, 0.22), grey=0.1, wind=(0.03, 0.25)
    ),
    "misty": Weather(
        1.0,
        {"none": 0.5, "cirrus": 0.5},
        (0.2, 0.4),
        (0.06, 0.14),
        mist=(1.0, 3.5),
        grey=0.3,
        wind=(0.0, 0.15),
    ),
    "overcast": Weather(
        0.8, {"stratus": 1.0}, (0.85, 1.0), (0.05, 0.14), grey=0.85, wind=(0.2, 0.7)
    ),
    "storm": Weather(0.5, {"storm": 1.0}, (0.7, 0.9), (0.06, 0.12), grey=0.6, wind=(0.5, 1.0)),
    "rain": Weather(
        0.45,
        {"stratus": 0.6, "storm": 0.4},
        (0.85, 1.0),
        (0.2, 0.5),
        grey=0.9,
        drops=1.0,
        wind=(0.4, 0.8),
    ),
    "snowfall": Weather(
        0.15, {"stratus": 1.0}, (0.9, 1.0), (0.25, 0.7), grey=0.92, flakes=1.0, wind=(0.1, 0.4)
    ),
}


@dataclass(frozen=True)
class Season:
    """One season: the colours of what grows, and how low the snow line comes down (0 to 1)."""

    chance: float
    snow: Interval
    leaf: str
    conifer: str
    grass: str
    field: str
    plant: str


SEASONS: Dict[str, Season] = {
    "spring": Season(
        1.2,
        (0.25, 0.6),
        leaf="6a8c40 7f9c4a 5b7f40 9aac60",
        conifer="35563a 2e4d33",
        grass="76944a 678744 88a058",
        field="8fb24a c8c24e 6f9b45 9c8458",
        plant="6d9440 e4c84e d88ab0",
    ),
    "summer": Season(
        2.0,
        (0.0, 0.4),
        leaf="44702c 557f33 3b6630 678a3c",
        conifer="2c4a30 27442e",
        grass="6c8d3a 7f9544 5d8238",
        field="d0b562 b9a558 7f9a45 97a552",
        plant="55783a c9a84e a878b8",
    ),
    "autumn": Season(
        1.3,
        (0.1, 0.5),
        leaf="bf8534 a85c30 cfa444 8a7a3a 984a32",
        conifer="38502f 304a30",
        grass="9a8c48 a8924c 868444",
        field="a8824c c4a25c 8a6a48 9a9450",
        plant="a07c3c b4582e 8a7a40",
    ),
    "winter": Season(
        0.35,
        (0.65, 1.0),
        leaf="a8a49e 8c8276 b8b8b8 7d7264",
        conifer="3a4f42 33483e",
        grass="9a9068 8c8660 a89c74",
        field="a89878 8f8064 b4a888",
        plant="8a7c5c 9a8a68 7a7054",
    ),
}

# Light and dark of stone; depths and shallows of water.
STONES = ("8c8a88 5f5d5c", "9a8c7c 6e6053", "a09084 75665c", "7f848c 565b64", "a88a70 7a5c48")
SANDS = ("d8c49a", "cbb084", "e2d4b4", "c8a878")
WATERS = ("12384a 3f8a86", "0f3352 3c7f96", "1b3d38 5a8468", "14424f 58b0a8", "20343f 5f7a74")
FRESH_WATERS = ("14303a 4c7a74", "1c3832 5e7a5c", "22343a 6a7e78", "123a46 4fa09a", "2a2e26 6e6a4c")
