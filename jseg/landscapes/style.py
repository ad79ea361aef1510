"""The look of a scene, chosen apart from its geometry: time of day, weather, season, air and colour
grade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

import numpy as np

from jseg.landscapes.fractal import generator
from jseg.landscapes.palettes import HOURS, OVERCAST, SEASONS, TONES, WEATHERS, colours

WINTRY_SNOWFALL = 0.8  # chance of falling snow in wintry scenes
DARK = np.float32([0.62, 0.66, 0.7])  # what heavy clouds let through


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
        x, z = np.sin(self.azimuth) * flat, np.cos(self.azimuth) * flat
        return np.array([x, np.sin(self.elevation), z], np.float32)

    def palette(self, subject: str) -> np.ndarray:
        """Season colours of leaf, conifer, grass, field or plant, [n, 3] linear."""
        return colours(getattr(SEASONS[self.season], subject))

    def pick(self, table: Tuple[str, ...], salt: int) -> str:
        """One row of a table by this style's seed."""
        return table[int(generator(self.seed, 77, salt).integers(len(table)))]


def make_style(seed: int, wintry: bool = False) -> Style:
    """The style of a seed; `wintry` scenes (snow on the ground) are always in winter."""
    rng = generator(seed, 11)
    hour = _draw(rng, _chances(HOURS))
    chances = _chances(WEATHERS)
    weather = _draw(rng, dict(chances, snowfall=WINTRY_SNOWFALL) if wintry else chances)

    # A covered sky has its hours: elsewhere it would hide what makes them.
    if WEATHERS[weather].grey > 0.5 and hour not in ("morning", "noon", "afternoon"):
        if hour in ("night", "dusk"):
            weather = "fair"
        elif rng.random() < 0.7:
            weather = "cloudy"
    season = "winter" if wintry or weather == "snowfall" else _draw(rng, _chances(SEASONS))
    light, sky = HOURS[hour], WEATHERS[weather]
    return Style(
        hour=hour,
        weather=weather,
        season=season,
        azimuth=_azimuth(rng, light.ahead),
        elevation=float(np.radians(rng.uniform(*light.elevation))),
        sun_seen=(1 - sky.grey) ** 1.5 * (1.0 if hour != "night" else 0.35),
        stars=light.stars * (1 - sky.grey),
        cloud=_draw(rng, sky.clouds),
        cover=rng.uniform(*sky.cover),
        haze=float(np.exp(rng.uniform(*np.log(sky.haze)))),
        mist=rng.uniform(*sky.mist),
        wind=rng.uniform(*sky.wind),
        drops=sky.drops,
        flakes=sky.flakes,
        snow=rng.uniform(*SEASONS[season].snow),
        saturation=rng.uniform(0.92, 1.18),
        contrast=rng.uniform(0.95, 1.12),
        warmth=rng.normal(0, 0.03),
        seed=int(seed),
        **_tones(hour, weather, rng),
    )


def _chances(table: Mapping) -> Dict[str, float]:
    return {name: row.chance for name, row in table.items()}


def _draw(rng: np.random.Generator, chances: Mapping[str, float]) -> str:
    names = list(chances)
    weights = np.array([chances[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _azimuth(rng: np.random.Generator, ahead: float) -> float:
    """In the image with probability `ahead`, else to the side, sometimes behind the camera."""
    side = 1 if rng.random() < 0.5 else -1
    if rng.random() < ahead:
        return side * rng.uniform(0.08, 0.42)
    return side * np.radians(rng.uniform(45, 140))


def _tones(hour: str, weather: str, rng: np.random.Generator) -> Dict[str, np.ndarray]:
    """Sky and light colours of an hour, drawn towards grey by the weather and a little off by
    chance.
    """
    light, grey = HOURS[hour], WEATHERS[weather].grey
    jitter = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    tones = {}
    for name, clear, overcast in zip(TONES, colours(light.tones), colours(OVERCAST)):
        dull = overcast * light.covered
        if weather in ("storm", "rain") and name != "sun":
            dull = dull * DARK
        tones[name] = clear * (1 - grey) + dull * grey
        if name in ("zenith", "middle", "horizon"):
            tones[name] = tones[name] * jitter

    # Clouds take the sun's light and spread it over the sky.
    tones["sun"] = tones["sun"] * (light.sun_power * (1 - 0.86 * grey))
    ambient = light.ambient_power * (1 - grey) + 0.95 * light.covered * grey
    tones["ambient"] = tones["ambient"] * ambient
    return tones
