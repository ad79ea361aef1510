"""Gradient noise and its fractal sums on separable grids, in scene coordinates.

A grid has one row coordinate per row and one column coordinate per column. On such a grid Perlin's
noise is a sum of two separable interpolations, so an octave costs two small matrix products instead
of four gathers per sample. Lattice gradients are hashed from (key, row, column): the same scene
point has the same value at any size, and an octave that the grid cannot carry fades out. Sources:
Perlin, "Improving noise" (2002); Musgrave, "Texturing and Modeling", chapter 16 (ridged
multifractal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple, Union

import cv2
import numpy as np

PERLIN_GAIN = 2.2  # brings the standard deviation of one octave to about 0.5
LACUNARITY, RIDGED_LACUNARITY = 2.03, 2.07  # each octave's frequency over the one before
SHARPNESS, DECAY = 2.0, 0.52  # of ridged noise: how crests gather roughness, octave by octave


@dataclass(frozen=True)
class Grid:
    """Sample positions: `v` [rows] and `x` [columns], float32, each monotonic, in the same scene
    unit.
    """

    v: np.ndarray
    x: np.ndarray

    def rows(self, start: int, stop: int) -> "Grid":
        """The grid of rows start .. stop - 1."""
        return Grid(self.v[start:stop], self.x)

    @property
    def shape(self) -> Tuple[int, int]:
        return len(self.v), len(self.x)

    def pitch(self) -> np.ndarray:
        """Distance between neighbouring samples, the larger of the two directions, [rows]."""
        across = abs(float(self.x[-1] - self.x[0])) / max(len(self.x) - 1, 1)
        along = np.abs(np.gradient(self.v)) if len(self.v) > 1 else np.zeros(1, np.float32)
        return np.maximum(along * 0.7, across).astype(np.float32)


def generator(*key: int) -> np.random.Generator:
    """A random generator for (seed, subject, ...): small non-negative integers; independent of
    every other key.
    """
    sequence = np.random.SeedSequence([int(part) & 0xFFFFFFFF for part in key])
    return np.random.Generator(np.random.PCG64(sequence))


def hash_bits(key: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Thirty-two well mixed bits for each (row, column) of broadcastable integer arrays."""
    with np.errstate(over="ignore"):
        row, column = (part.astype(np.int64).astype(np.uint32) for part in (rows, columns))
        bits = row * np.uint32(0x9E3779B1) + np.uint32(key & 0xFFFFFFFF)
        bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x85EBCA77)
        bits = bits ^ (bits >> np.uint32(13)) ^ (column * np.uint32(0xC2B2AE3D))
        bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
        bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
        return bits ^ (bits >> np.uint32(16))


def hash_unit(key: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Uniform float32 in [0, 1) for each (row, column)."""
    return (hash_bits(key, rows, columns) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _cells(positions: np.ndarray, frequency: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice cell, place within it and the smooth weight of the far corner."""
    scaled = positions.astype(np.float64) * frequency
    cell = np.floor(scaled)
    place = (scaled - cell).astype(np.float32)
    return cell.astype(np.int64), place, place * place * place * (place * (place * 6 - 15) + 10)


def perlin(key: int, grid: Grid, frequency: Union[float, Tuple[float, float]]) -> np.ndarray:
    """One octave of gradient noise on the grid, [rows, columns] float32, about [-1.5, 1.5], zero
    mean.

    `frequency` is in lattice cells per scene unit, or a pair (along v, along x) for stretched
    noise.
    """
    along, across = frequency if isinstance(frequency, tuple) else (frequency, frequency)
    row, row_place, row_weight = _cells(grid.v, along)
    column, column_place, column_weight = _cells(grid.x, across)

    # A gradient at every corner of the lattice.
    row_ids = np.arange(row.min(), row.max() + 2)
    column_ids = np.arange(column.min(), column.max() + 2)
    bits = hash_bits(key, row_ids[:, None], column_ids[None, :])
    gradient_x = (bits & np.uint32(0xFFFF)).astype(np.float32) / 32767.5 - 1
    gradient_v = (bits >> np.uint32(16)).astype(np.float32) / 32767.5 - 1

    # Interpolated along the rows, then along the columns by one matrix product.
    row, column = row - row_ids[0], column - column_ids[0]
    near, far = (1 - row_weight)[:, None], row_weight[:, None]
    from_x = near * gradient_x[row] + far * gradient_x[row + 1]
    from_v = near * row_place[:, None] * gradient_v[row]
    from_v = from_v + far * (row_place - 1)[:, None] * gradient_v[row + 1]
    columns = np.arange(len(column))
    spread = np.zeros((2, len(column_ids), len(column)), np.float32)
    spread[0, column, columns] = (1 - column_weight) * column_place
    spread[0, column + 1, columns] = column_weight * (column_place - 1)
    spread[1, column, columns] = 1 - column_weight
    spread[1, column + 1, columns] = column_weight
    noise = np.concatenate((from_x, from_v), axis=1) @ spread.reshape(-1, len(column))
    noise *= PERLIN_GAIN
    return noise


def carried(pitch: np.ndarray, frequency: float) -> np.ndarray:
    """How much of an octave a grid of this pitch [rows] can carry, 1 well below the sampling limit
    to 0 at it, [rows, 1].
    """
    return np.clip(2.0 - 3.2 * frequency * pitch, 0, 1)[:, None].astype(np.float32)


def spectrum(
    key: int,
    grid: Grid,
    frequencies: Sequence[float],
    amplitudes: Sequence[Union[float, np.ndarray]],
) -> np.ndarray:
    """Sum of octaves; an amplitude is a number or one value per row, so that a world-sized pattern
    can shrink with distance.
    """
    total, pitch = np.zeros(grid.shape, np.float32), grid.pitch()
    for octave, (frequency, amplitude) in enumerate(zip(frequencies, amplitudes)):
        weight = carried(pitch, frequency) * np.reshape(np.asarray(amplitude, np.float32), (-1, 1))
        active = np.flatnonzero(weight[:, 0] > 1e-3)
        if len(active):
            start, stop = active[0], active[-1] + 1
            noise = perlin(key + 7919 * octave, grid.rows(start, stop), frequency)
            total[start:stop] += noise * weight[start:stop]
    return total


def fbm(key: int, grid: Grid, frequency: float, octaves: int, gain: float = 0.5) -> np.ndarray:
    """Fractional Brownian motion, about [-1, 1]."""
    frequencies = [frequency * LACUNARITY**k for k in range(octaves)]
    return spectrum(key, grid, frequencies, [gain**k for k in range(octaves)])


def world_noise(
    key: int, grid: Grid, longest: float, shortest: float, gain: float = 0.8
) -> np.ndarray:
    """Noise with wavelengths between two world lengths on a grid whose v is the logarithm of
    distance, about [-1, 1].

    Octave k has wavelength exp(v) / f_k; its amplitude falls by `gain` per octave below `longest`
    and is nothing outside the band.
    """
    v = grid.v
    low, high = np.exp(v.min()) / longest, np.exp(v.max()) / shortest
    first = 2.0 ** np.floor(np.log2(max(low, 0.5)))
    limit = min(high, 1.0 / max(float(grid.pitch().min()), 1e-6))
    count = max(int(np.ceil(np.log2(max(limit / first, 1.0)))) + 1, 1)
    frequencies = [first * 2.0**k * 1.07 for k in range(count)]
    amplitudes = []
    for frequency in frequencies:
        depth = np.log2(longest * frequency / np.exp(v))  # octaves below the longest wavelength
        last = np.log2(longest / shortest)
        inside = np.clip(depth + 1, 0, 1) * np.clip(last + 1 - depth, 0, 1)
        amplitudes.append(inside * gain ** np.clip(depth, 0, None))
    keys = key + int(round(np.log2(first))) * 7919
    return spectrum(keys, grid, frequencies, amplitudes)


def ridged(key: int, grid: Grid, frequency: float, octaves: int) -> np.ndarray:
    """Ridged multifractal noise, about [0, 1]: sharp crests, and roughness only where the octave
    before was high.
    """
    total, weight, scale, norm = np.zeros(grid.shape, np.float32), 1.0, 1.0, 0.0
    pitch = grid.pitch()
    for octave in range(octaves):
        here = frequency * RIDGED_LACUNARITY**octave
        carry = carried(pitch, here)
        if not carry.any():
            break
        signal = 1 - np.abs(np.clip(perlin(key + 7919 * octave, grid, here), -1, 1))
        signal *= signal
        signal *= weight
        total += signal * (scale * carry)
        norm += scale * 0.62
        weight = np.clip(signal * SHARPNESS, 0, 1)
        scale *= DECAY
    return total / norm


def displaced(field: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The field read at (row + down, column + right), both in samples, clamped at the border."""
    rows, columns = field.shape[:2]
    map_x = right + np.arange(columns, dtype=np.float32)
    map_y = down + np.arange(rows, dtype=np.float32)[:, None]
    return cv2.remap(
        field,
        map_x.astype(np.float32),
        map_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` falls instead."""
    place = np.clip((value - low) / (high - low), 0, 1)
    return place * place * (3 - 2 * place)
