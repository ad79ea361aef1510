"""The look of a scene, chosen apart from its geometry: time of day, weather, season, air and colour
grade.

Colours are linear RGB; the tables give them as sRGB hex because that is how they were chosen by
eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, Tuple

import numpy as np

from jseg.landscapes.fractal import generator

Colour = Tuple[float, float, float]


@lru_cache(maxsize=None)
def linear(code: str) -> np.ndarray:
    """sRGB "rrggbb" to linear float32 RGB, read-only."""
    value = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float64) / 255
    colour = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )
    colour.setflags(write=False)
    return colour


@lru_cache(maxsize=None)
def colours(codes: Tuple[str, ...]) -> np.ndarray:
    """Several sRGB codes as linear float32 [n, 3], read-only."""
    table = np.stack([linear(code) for code in codes])
    table.setflags(write=False)
    return table


@dataclass(frozen=True)
class Hour:
    """One time of day: sky colours, light colours and strengths, sun height in degrees (low,
    high).
    """

    zenith: str
    middle: str
    horizon: str
    glow: str  # sky near the sun
    sun: str  # colour of direct light
    ambient: str  # colour of light from the sky
    sun_power: float
    ambient_power: float
    elevation: Tuple[float, float]
    ahead: float  # chance that the sun stands in the image's direction
    stars: float = 0.0


HOURS: Dict[str, Hour] = {
    "dawn": Hour(
        "5f7fb4", "c3b4c6", "f8d5b2", "ffe2a8", "ffb483", "9a9fc0", 1.35, 0.75, (3, 9), 0.55
    ),
    "morning": Hour(
        "3f78c0", "8dbae2", "dce8ea", "fff6dc", "ffe8c2", "9ab6d8", 1.95, 0.55, (18, 34), 0.15
    ),
    "noon": Hour(
        "2463b4", "68a4dc", "c4dced", "ffffff", "fff6e4", "93b4dc", 2.0, 0.6, (42, 62), 0.0
    ),
    "afternoon": Hour(
        "3a72b6", "88b3dc", "e2e4de", "fff1cf", "ffe2b0", "98b0d2", 2.0, 0.55, (20, 36), 0.15
    ),
    "golden": Hour(
        "5a86b8", "c4bda6", "ffd08a", "ffe9a0", "ffb45c", "9c9fb8", 1.95, 0.58, (6, 13), 0.45
    ),
    "sunset": Hour(
        "3c4f8a", "b8707f", "ff9c50", "ffd070", "ff8a44", "9088a8", 1.4, 0.62, (1.5, 5), 0.65
    ),
    "dusk": Hour("1d2f5e", "5c6299", "e8a08c", "ffb684", "c98a8a", "7a80ac", 0.4, 0.6, (1, 3), 0.5),
    "night": Hour(
        "070d22", "122449", "2c4468", "c8d8f4", "9fb8e8", "5070ac", 0.5, 0.34, (25, 45), 0.5, 1.0
    ),
}


@dataclass(frozen=True)
class Weather:
    """One weather: how it bends the hour. Haze is extinction per kilometre at sea level, mist the
    same for air below `mist_top` metres.
    """

    clouds: Tuple[Tuple[str, float], ...]  # cloud kinds and their chances
    cover: Tuple[float, float]
    haze: Tuple[float, float]
    mist: Tuple[float, float] = (0.0, 0.0)
    grey: float = 0.0  # how far sky and light go to the overcast colours
    drops: float = 0.0  # falling rain
    flakes: float = 0.0  # falling snow
    wind: Tuple[float, float] = (0.15, 0.6)


WEATHERS: Dict[str, Weather] = {
    "clear": Weather(
        (("none", 0.3), ("cirrus", 0.7)), (0.2, 0.55), (0.018, 0.05), wind=(0.05, 0.4)
    ),
    "fair": Weather((("cumulus", 0.75), ("altocumulus", 0.25)), (0.25, 0.5), (0.02, 0.06)),
    "cloudy": Weather(
        (("cumulus", 0.4), ("stratocumulus", 0.6)),
        (0.5, 0.72),
        (0.03, 0.08),
        grey=0.25,
        wind=(0.2, 0.7),
    ),
    "hazy": Weather(
        (("none", 0.4), ("cirrus", 0.6)), (0.2, 0.5), (0.1, 0.22), grey=0.1, wind=(0.03, 0.25)
    ),
    "misty": Weather(
        (("none", 0.5), ("cirrus", 0.5)),
        (0.2, 0.4),
        (0.06, 0.14),
        (1.0, 3.5),
        grey=0.3,
        wind=(0.0, 0.15),
    ),
    "overcast": Weather((("stratus", 1.0),), (0.85, 1.0), (0.05, 0.14), grey=0.85, wind=(0.2, 0.7)),
    "storm": Weather((("storm", 1.0),), (0.7, 0.9), (0.06, 0.12), grey=0.6, wind=(0.5, 1.0)),
    "rain": Weather(
        (("stratus", 0.6), ("storm", 0.4)),
        (0.85, 1.0),
        (0.2, 0.5),
        grey=0.9,
        drops=1.0,
        wind=(0.4, 0.8),
    ),
    "snowfall": Weather(
        (("stratus", 1.0),), (0.9, 1.0), (0.25, 0.7), grey=0.92, flakes=1.0, wind=(0.1, 0.4)
    ),
}

SEASONS: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "spring": {
        "leaf": ("6a8c40", "7f9c4a", "5b7f40", "9aac60"),
        "conifer": ("35563a", "2e4d33"),
        "grass": ("76944a", "678744", "88a058"),
        "field": ("8fb24a", "c8c24e", "6f9b45", "9c8458"),
        "plant": ("6d9440", "e4c84e", "d88ab0"),
    },
    "summer": {
        "leaf": ("44702c", "557f33", "3b6630", "678a3c"),
        "conifer": ("2c4a30", "27442e"),
        "grass": ("6c8d3a", "7f9544", "5d8238"),
        "field": ("d0b562", "b9a558", "7f9a45", "97a552"),
        "plant": ("55783a", "c9a84e", "a878b8"),
    },
    "autumn": {
        "leaf": ("bf8534", "a85c30", "cfa444", "8a7a3a", "984a32"),
        "conifer": ("38502f", "304a30"),
        "grass": ("9a8c48", "a8924c", "868444"),
        "field": ("a8824c", "c4a25c", "8a6a48", "9a9450"),
        "plant": ("a07c3c", "b4582e", "8a7a40"),
    },
    "winter": {
        "leaf": ("a8a49e", "8c8276", "b8b8b8", "7d7264"),
        "conifer": ("3a4f42", "33483e"),
        "grass": ("9a9068", "8c8660", "a89c74"),
        "field": ("a89878", "8f8064", "b4a888"),
        "plant": ("8a7c5c", "9a8a68", "7a7054"),
    },
}

STONES: Tuple[Tuple[str, str], ...] = (
    ("8c8a88", "5f5d5c"),
    ("9a8c7c", "6e6053"),
    ("a09084", "75665c"),
    ("7f848c", "565b64"),
    ("a88a70", "7a5c48"),
)
SANDS: Tuple[str, ...] = ("d8c49a", "cbb084", "e2d4b4", "c8a878")
WATERS: Tuple[Tuple[str, str], ...] = (
    ("12384a", "3f8a86"),
    ("0f3352", "3c7f96"),
    ("1b3d38", "5a8468"),
    ("14424f", "58b0a8"),
    ("20343f", "5f7a74"),
)
FRESH_WATERS: Tuple[Tuple[str, str], ...] = (
    ("14303a", "4c7a74"),
    ("1c3832", "5e7a5c"),
    ("22343a", "6a7e78"),
    ("123a46", "4fa09a"),
    ("2a2e26", "6e6a4c"),
)


@dataclass(frozen=True)
class Style:
    """Everything that turns one geometry into an image. Angles in radians, azimuth 0 = straight
    ahead, positive to the right.
    """

    hour: str
    weather: str
    season: str
    azimuth: float
    elevation: float
    zenith: np.ndarray
    middle: np.ndarray
    horizon: np.ndarray
    glow: np.ndarray
    sun: np.ndarray  # direct light on a surface facing the sun
    ambient: np.ndarray  # light from the whole sky on level ground
    sun_seen: float  # strength of disc and glow in the sky
    stars: float
    cloud: str
    cover: float
    haze: float
    mist: float
    wind: float
    drops: float
    flakes: float
    snow: float  # 0 summer to 1 deep winter: the snow line comes down
    saturation: float
    contrast: float
    warmth: float
    seed: int

    def direction(self) -> np.ndarray:
        """Unit vector (x, up, z) to the sun."""
        flat = np.cos(self.elevation)
        return np.array(
            [np.sin(self.azimuth) * flat, np.sin(self.elevation), np.cos(self.azimuth) * flat],
            np.float32,
        )

    def palette(self, subject: str) -> np.ndarray:
        """Season colours of leaf, conifer, grass, field or plant, [n, 3] linear."""
        return colours(SEASONS[self.season][subject])

    def pick(self, table: Tuple, salt: int):
        """One row of a table by this style's seed."""
        return table[int(generator(self.seed, 77, salt).integers(len(table)))]


OVERCAST = {
    name: linear(code)
    for name, code in dict(
        zenith="9aa6b2",
        middle="b4bcc4",
        horizon="d2d7da",
        glow="e6e6e2",
        sun="fff4e6",
        ambient="b8c4d0",
    ).items()
}


def _draw(rng: np.random.Generator, chances: Dict[str, float]) -> str:
    names = list(chances)
    weights = np.array([chances[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _azimuth(rng: np.random.Generator, ahead: float) -> float:
    """In the image with probability `ahead`, else a side light, now and then from behind the
    camera.
    """
    side = 1 if rng.random() < 0.5 else -1
    if rng.random() < ahead:
        return side * rng.uniform(0.08, 0.42)
    return side * np.radians(rng.uniform(45, 140))


HOUR_CHANCES = {
    "dawn": 1.3,
    "morning": 1.6,
    "noon": 1.5,
    "afternoon": 1.5,
    "golden": 1.8,
    "sunset": 1.4,
    "dusk": 0.9,
    "night": 0.6,
}
WEATHER_CHANCES = {
    "clear": 2.2,
    "fair": 3.0,
    "cloudy": 1.6,
    "hazy": 1.0,
    "misty": 1.0,
    "overcast": 0.8,
    "storm": 0.5,
    "rain": 0.45,
    "snowfall": 0.15,
}
SEASON_CHANCES = {"spring": 1.2, "summer": 2.0, "autumn": 1.3, "winter": 0.35}
SNOW = {"spring": (0.25, 0.6), "summer": (0.0, 0.4), "autumn": (0.1, 0.5), "winter": (0.65, 1.0)}
DIM = {
    "dusk": 0.5,
    "night": 0.2,
    "sunset": 0.72,
    "dawn": 0.8,
}  # brightness of a covered sky, 1 at the other hours


def _tones(hour: str, weather: str, rng: np.random.Generator) -> Dict[str, np.ndarray]:
    """Sky and light colours of an hour, drawn towards grey by the weather and a little off by
    chance.
    """
    grey = WEATHERS[weather].grey
    jitter = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    tones = {}
    for name, dull in OVERCAST.items():
        dull = dull * DIM.get(hour, 1.0)
        if weather in ("storm", "rain") and name != "sun":
            dull = dull * np.float32([0.62, 0.66, 0.7])
        tones[name] = linear(getattr(HOURS[hour], name)) * (1 - grey) + dull * grey
        if name in ("zenith", "middle", "horizon"):
            tones[name] = tones[name] * jitter
    tones["sun"] = tones["sun"] * (HOURS[hour].sun_power * (1 - 0.86 * grey))
    tones["ambient"] = tones["ambient"] * (
        HOURS[hour].ambient_power * (1 - grey) + 0.95 * DIM.get(hour, 1.0) * grey
    )
    return tones


def make_style(seed: int, wintry: bool = False) -> Style:
    """The style of a seed; `wintry` scenes (snow on the ground) are always in winter."""
    rng = generator(seed, 11)
    hour = _draw(rng, HOUR_CHANCES)
    weather = _draw(rng, dict(WEATHER_CHANCES, snowfall=0.8) if wintry else WEATHER_CHANCES)
    if WEATHERS[weather].grey > 0.5 and hour not in ("morning", "noon", "afternoon"):
        weather = (
            "fair" if hour in ("night", "dusk") else "cloudy" if rng.random() < 0.7 else weather
        )
    season = "winter" if wintry or weather == "snowfall" else _draw(rng, SEASON_CHANCES)
    key, sky = HOURS[hour], WEATHERS[weather]
    return Style(
        hour=hour,
        weather=weather,
        season=season,
        azimuth=_azimuth(rng, key.ahead),
        elevation=float(np.radians(rng.uniform(*key.elevation))),
        sun_seen=(1 - sky.grey) ** 1.5 * (1.0 if hour != "night" else 0.35),
        stars=key.stars * (1 - sky.grey),
        cloud=_draw(rng, dict(sky.clouds)),
        cover=rng.uniform(*sky.cover),
        haze=float(np.exp(rng.uniform(*np.log(sky.haze)))),
        mist=rng.uniform(*sky.mist),
        wind=rng.uniform(*sky.wind),
        drops=sky.drops,
        flakes=sky.flakes,
        snow=rng.uniform(*SNOW[season]),
        saturation=rng.uniform(0.92, 1.18),
        contrast=rng.uniform(0.95, 1.12),
        warmth=rng.normal(0, 0.03),
        seed=int(seed),
        **_tones(hour, weather, rng),
    )
