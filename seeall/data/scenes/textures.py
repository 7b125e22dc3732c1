"""Textures: families of patterns in three colours, smooth to the pixel, and colours that go together.

A pattern is a function of texture coordinates (unit: one period) and of `px`, a pixel's size in that unit.
It answers with two weights: how much of the second colour lies over the first, and how much of the third
over both. Edges are blurred by one pixel, so that patterns neither flicker nor shimmer.

Colours are chosen in OKLCH (Ottosson 2020, "A perceptual color space for image processing"), where equal
steps of lightness look equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seeall.data.scenes.shapes import Array

LATTICE = 16
"""Side of the table of random numbers behind the noise and the tones of bricks."""


@dataclass(frozen=True, eq=False)
class Texture:
    """One pattern with its parameters."""

    family: str
    palette: Array
    """(3, 3) sRGB in [0, 1]: ground, figure, accent."""
    frequency: float
    """Periods per unit of the surface."""
    angle: float
    """Radians between the pattern and the surface."""
    shift: tuple[float, float]
    """Where the pattern starts, in periods."""
    duty: float
    """Share of the figure in a period, about 0.3 to 0.7."""
    lattice: Array
    """(LATTICE, LATTICE) uniform in [0, 1]."""


Weights = tuple[Array, Array | None]
Pattern = Callable[[Array, Array, float, Texture], Weights]


def _soft(distance: Array, px: float) -> Array:
    """1 where the distance to an edge is positive, 0 where negative, one pixel wide in between."""
    return clip(distance * np.float32(1 / px) + np.float32(0.5))


def clip(x: Array, high: float = 1.0) -> Array:
    """x between 0 and `high`, in a third of the time that `np.clip` takes on small arrays."""
    return np.asarray(np.minimum(np.maximum(x, np.float32(0)), np.float32(high)))


def _wave(x: Array) -> Array:
    """Triangle wave of period 1: 0 at whole numbers, 0.5 half-way."""
    return np.asarray(np.abs(x - np.rint(x)))


def _stagger(row: Array) -> Array:
    """Half a period in every other row."""
    return np.asarray(_wave(row * np.float32(0.5)))


def _bands(x: Array, px: float, texture: Texture) -> Weights:
    """Bands across x with a thin accent line in the middle of each band of figure."""
    wave = _wave(x)
    half = np.float32(texture.duty / 2)
    return _soft(half - wave, px), _soft(half * np.float32(0.3) - wave, px)


def noise(x: Array, y: Array, lattice: Array) -> Array:
    """Smooth noise in [0, 1] whose features are one unit wide; repeats after LATTICE units."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    left, above = x0.astype(np.int32) % LATTICE, y0.astype(np.int32) % LATTICE
    flat, corner = _corners(lattice), above * LATTICE + left
    top, right, bottom, both = (table.take(corner) for table in flat)
    return np.asarray(top + right * fx + fy * (bottom + both * fx))


def _corners(lattice: Array) -> Array:
    """(4, LATTICE²): a value, its steps to the right and downwards, and what both add together."""
    right, below = np.roll(lattice, -1, 1) - lattice, np.roll(lattice, -1, 0) - lattice
    return np.stack([lattice, right, below, np.roll(right, -1, 0) - right]).reshape(4, -1)


def clouds(columns: Array, lattice: Array, rows: Array | None = None, features: int = 4) -> Array:
    """(H, W) smooth noise in [0, 1], `features` to a unit, at x = columns (W,) and y = rows (H,), else the same.

    Two small matrix products: each pixel's share in every line of the lattice that it lies between.
    """
    across, its_columns = _shares(columns * np.float32(features))
    down, its_rows = _shares((columns if rows is None else rows) * np.float32(features))
    return np.asarray(down @ lattice[np.ix_(its_rows, its_columns)] @ across.T)


def _shares(position: Array) -> tuple[Array, NDArray[np.int64]]:
    """(n, m) weight of each of m lines of the lattice at n positions, and which lines these are."""
    lines = np.arange(math.floor(position.min()), math.floor(position.max()) + 2)
    near = 1 - np.minimum(np.abs(position[:, None] - lines.astype(np.float32)), np.float32(1))
    return near * near * (3 - 2 * near), lines % LATTICE


def _stripes(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    return _bands(x, px, texture)


def _waves(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    return _bands(x + np.float32(0.35) * np.sin(y * np.float32(math.pi)), px, texture)


def _zigzag(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    return _bands(x + 2 * _wave(y * np.float32(0.5)), px, texture)


def _rings(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    return _bands(np.sqrt(x * x + y * y), px, texture)


def _spokes(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    sectors = 3 + round(6 * (texture.duty - 0.3))
    turn = np.arctan2(y, x) * np.float32(sectors / (2 * math.pi))
    radius = np.sqrt(x * x + y * y)
    blur = np.maximum(radius * np.float32(2 * math.pi / sectors), px)
    weight = clip((np.float32(0.25) - _wave(turn)) * blur * np.float32(1 / px) + np.float32(0.5))
    return weight, _soft(np.float32(0.3) - radius, px)


def _checks(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    across = _soft(_wave(x) - np.float32(0.25), px)
    down = _soft(_wave(y) - np.float32(0.25), px)
    return across + down - 2 * across * down, None


def _plaid(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    across, line_across = _bands(x, px, texture)
    down, line_down = _bands(y, px, texture)
    assert line_across is not None and line_down is not None
    return (across + down) * np.float32(0.5), np.maximum(line_across, line_down) * np.float32(0.7)


def _dots(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    row = np.floor(y)
    dx = _wave(x + _stagger(row) + np.float32(0.5))
    dy = y - row - np.float32(0.5)
    distance = np.sqrt(dx * dx + dy * dy)
    radius = np.float32(0.2 + 0.35 * texture.duty)
    return _soft(radius - distance, px), _soft(radius * np.float32(0.45) - distance, px)


def _bricks(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    y = y * np.float32(1.8)
    row = np.floor(y)
    x = x + _stagger(row)
    joint = np.float32(0.05 + 0.1 * texture.duty)
    face = np.minimum(_soft(_wave(x) - joint * np.float32(0.6), px), _soft(_wave(y) - joint, 1.8 * px))
    tone = texture.lattice[row.astype(np.intp) % LATTICE, np.floor(x).astype(np.intp) % LATTICE]
    return face, face * (tone > np.float32(0.75))


def _marble(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    cloud = noise(x, y, texture.lattice)
    veins = noise(2 * x + cloud, 2 * y, texture.lattice[::-1])
    wide = clip((cloud - np.float32(0.5)) * 3 + np.float32(texture.duty))
    return wide, clip(1 - np.abs(veins - np.float32(0.5)) * 12)


def _spots(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    height = noise(2 * x, 2 * y, texture.lattice) - np.float32(1 - texture.duty)
    return _soft(height, 2 * px), _soft(height - np.float32(0.18), 2 * px)


def _ramp(x: Array, y: Array, px: float, texture: Texture) -> Weights:
    position = x * np.float32(0.5 / max(texture.frequency, 0.1)) + np.float32(0.5)
    return clip(position * 2), clip(position * 2 - 1)


PATTERNS: dict[str, Pattern] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "waves": _waves,
    "zigzag": _zigzag,
    "rings": _rings,
    "spokes": _spokes,
    "plaid": _plaid,
    "marble": _marble,
    "spots": _spots,
    "ramp": _ramp,
}
CENTRED = frozenset({"rings", "spokes", "ramp"})
"""Patterns with a centre, which stays near the centre of the surface."""
FAMILIES = tuple(PATTERNS)


def paint(texture: Texture, u: Array, v: Array, px: float) -> Array:
    """(3, H, W) colours of a surface at u, v: (H, W), or (1, W) and (H, 1); `px`: a pixel in their unit."""
    c, s = math.cos(texture.angle) * texture.frequency, math.sin(texture.angle) * texture.frequency
    x = u * np.float32(c) + v * np.float32(s) + np.float32(texture.shift[0])
    y = v * np.float32(c) - u * np.float32(s) + np.float32(texture.shift[1])
    figure, accent = PATTERNS[texture.family](x, y, px * texture.frequency, texture)
    ground, second, third = texture.palette[:, :, None, None]
    colour = ground + (second - ground) * figure
    if accent is not None:
        colour += (third - colour) * accent
    return np.asarray(colour)


def oklch(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """sRGB in [0, 1] of an OKLCH colour (hue in turns); what no screen can show is clipped.

    >>> [round(c, 2) for c in oklch(1.0, 0.0, 0.0)]
    [1.0, 1.0, 1.0]
    """
    a, b = chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )
    red, green, blue = (
        min(12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055, 1.0) if c > 0 else 0.0 for c in linear
    )
    return red, green, blue


def palette(rng: np.random.Generator, contrast: float, chroma: float) -> Array:
    """(3, 3) sRGB: a ground, a figure at least `contrast` lighter or darker, and an accent."""
    hue, gap, tilt, apart, accent = (float(r) for r in rng.random(5))
    middle = 0.5 + 0.25 * tilt
    difference = contrast * (1 + 0.8 * apart) * (0.5 if gap < 0.5 else -0.5)
    step = (0.0, 0.08, -0.08, 0.33, -0.33, 0.5)[int(rng.integers(6))]
    colours = [
        oklch(middle + difference, chroma, hue),
        oklch(middle - difference, chroma * (0.6 + 0.4 * apart), hue + step),
    ]
    if accent < 0.6:
        colours.append(oklch(middle + (1.4 if accent < 0.35 else -1.6) * contrast, 0.2 * chroma, hue))
    else:
        colours.append(oklch(middle + 0.6 * contrast, chroma, hue + 0.5 + gap))
    return np.array(colours, np.float32)


def draw_texture(
    rng: np.random.Generator, *, frequency: tuple[float, float], contrast: float, chroma: float
) -> Texture:
    """A texture at random, its periods per unit between the bounds."""
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    low, high = frequency
    r = [float(x) for x in rng.random(5)]
    shift = (0.3 * (r[2] - 0.5), 0.3 * (r[3] - 0.5)) if family in CENTRED else (4 * r[2], 4 * r[3])
    return Texture(
        family=family,
        palette=palette(rng, contrast, chroma),
        frequency=low * (high / low) ** r[0],
        angle=math.pi * r[1],
        shift=shift,
        duty=0.32 + 0.36 * r[4],
        lattice=rng.random((LATTICE, LATTICE), dtype=np.float32),
    )


def unpack(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(3, H, W) float in [0, 1] → (H, W, 3) uint8, rounded."""
    return np.ascontiguousarray((image * np.float32(255) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))
