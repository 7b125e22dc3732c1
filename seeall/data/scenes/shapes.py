"""The shapes of things: one signed-distance function per class, in the thing's own coordinates.

A shape fits into the unit circle around the origin, x to the right and y downwards, and its distance is
negative inside. Distances are exact near straight edges and circles; beyond corners they may come out too
small, which only a soft shadow would show. Numbers in [0, 1] called `cut` are the one proportion that two
things of a class may differ in (thickness, sharpness, roundness) beside their stretch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = Callable[[Array, Array, float], Array]

REACH = 1.2
"""No stretched shape reaches farther than this from its origin."""


def _length(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)


def _box(x: Array, y: Array, half_width: float, half_height: float, corner: float = 0.0) -> Array:
    """Distance to a rectangle with rounded corners, for x and y that are not negative."""
    qx, qy = x - (half_width - corner), y - (half_height - corner)
    outside = _length(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - corner)


def _points(x: Array, y: Array, n: int, inner: float) -> Array:
    """A star of n points of radius 1 with its notches at radius `inner`; the first point looks up.

    The plane is folded into half of one point, where the outline is a single straight line.
    """
    sector = 2 * math.pi / n
    turn = np.arctan2(x, -y) / sector
    folded = np.abs(turn - np.rint(turn)) * sector
    radius = _length(x, y)
    notch_x, notch_y = inner * math.cos(sector / 2), inner * math.sin(sector / 2)
    edge = math.hypot(notch_x - 1, notch_y)
    normal_x, normal_y = notch_y / edge, (1 - notch_x) / edge
    return np.asarray(radius * (np.cos(folded) * normal_x + np.sin(folded) * normal_y) - normal_x)


def disc(x: Array, y: Array, cut: float) -> Array:
    """A disc, or by its stretch an ellipse."""
    return _length(x, y) - np.float32(0.84 + 0.1 * cut)


def square(x: Array, y: Array, cut: float) -> Array:
    """A square or, by its stretch, a rectangle; `cut` rounds its corners."""
    return _box(np.abs(x), np.abs(y), 0.78, 0.78, 0.05 + 0.25 * cut)


def triangle(x: Array, y: Array, cut: float) -> Array:
    """An equilateral triangle whose sides bulge in a little with `cut`."""
    return _points(x, y + np.float32(-0.12), 3, 0.52 - 0.06 * cut)


def star(x: Array, y: Array, cut: float) -> Array:
    """A star of four, five or six points."""
    n = 4 + min(int(3 * cut), 2)
    return _points(x, y, n, 0.42 + 0.16 * (3 * cut % 1))


def ring(x: Array, y: Array, cut: float) -> Array:
    """An annulus; `cut` makes it thicker."""
    width = 0.18 + 0.12 * cut
    return np.asarray(np.abs(_length(x, y) - np.float32(0.94 - width)) - np.float32(width))


def cross(x: Array, y: Array, cut: float) -> Array:
    """An upright cross; `cut` makes its arms wider."""
    x, y, width = np.abs(x), np.abs(y), 0.22 + 0.16 * cut
    return np.asarray(np.minimum(_box(x, y, 0.94, width, 0.06), _box(x, y, width, 0.94, 0.06)))


def crescent(x: Array, y: Array, cut: float) -> Array:
    """A disc out of which another is bitten; `cut` makes the moon fuller."""
    x = x + np.float32(0.15)
    bite = np.float32(0.72) - _length(x - np.float32(0.48 + 0.24 * cut), y)
    return np.asarray(np.maximum(_length(x, y) - np.float32(0.95), bite))


def heart(x: Array, y: Array, cut: float) -> Array:
    """A square on its tip and a disc on each of its upper sides; `cut` makes it a little larger."""
    a = 0.7 + 0.06 * cut
    x, y = np.abs(x), np.float32(-0.1 * a) - y + np.float32(0.2 * a)
    diamond = (x + np.abs(y) - np.float32(a)) * np.float32(math.sqrt(0.5))
    lobe = _length(x - np.float32(a / 2), y - np.float32(a / 2)) - np.float32(a * math.sqrt(0.5))
    return np.asarray(np.minimum(diamond, lobe))


SHAPES: dict[str, Shape] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "crescent": crescent,
    "heart": heart,
}
"""Name of a class → its distance function; the order numbers the classes from 0."""
NAMES = tuple(SHAPES)
