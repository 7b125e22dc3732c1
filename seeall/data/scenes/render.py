"""Draws a scene with NumPy: colours, and which thing each pixel shows.

A pixel's colour is blended by how much of it a shape covers, judged by the signed distance of its centre; it
belongs to the foremost thing that its centre lies in. Light is applied last, as a factor, then camera noise.
What each pixel shows is known without drawing, too: `local` and `beside` are where a point lies to a thing and
to a pole, and `flow` asks them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seeall.data.scenes.shapes import NAMES, REACH, SHAPES, Array
from seeall.data.scenes.textures import clip, clouds, paint, unpack
from seeall.data.scenes.world import Background, Identity, Light, Pole, Pose, Scene

NOBODY = -1
"""What the map of owners holds where no thing is seen."""
_SHADOW = 0.16
"""How far a shadow falls, in the thing's unit, and how soft its edge is."""


def render(scene: Scene, size: int, t: float = 0.0) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Draw a scene as it is after t seconds.

    Returns: image (size, size, 3) uint8 sRGB; owner (size, size) int8, the index in `scene.things` of the
    thing that a pixel shows, or NOBODY.
    """
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    image = _backdrop(scene.background, centres)
    owner = np.full((size, size), NOBODY, np.int8)
    for index, thing in enumerate(scene.things):
        _draw(image, owner, index, thing.identity, thing.pose(t), scene.light, centres)
    for pole in scene.poles:
        _cover(image, owner, pole, centres)
    return unpack(_lit(image, scene.light, centres)), owner


def _backdrop(background: Background, centres: Array) -> Array:
    """(3, S, S) colours behind everything."""
    columns, rows = (centres - np.float32(gone) for gone in background.shift)
    u, v = 2 * columns[None, :] - 1, 2 * rows[:, None] - 1
    px = 2 / len(centres)
    image = paint(background.texture, u, v, px)
    if background.ground is not None:
        height, slope = background.horizon
        below = (v - np.float32(2 * height - 1) - np.float32(slope) * u) * np.float32(1 / px)
        image += (paint(background.ground, u, v, px) - image) * clip(below + np.float32(0.5))
    patches = clouds(columns, background.texture.lattice, rows)
    image *= 1 + np.float32(background.clouds) * (patches - np.float32(0.5))
    return image


def distance(identity: Identity, u: Array, v: Array) -> Array:
    """Signed distance to the outline of a thing, in its own unit and coordinates; negative inside."""
    width = np.float32(math.sqrt(identity.stretch))
    return SHAPES[NAMES[identity.shape]](u / width, v * width, identity.cut)


def local(pose: Pose, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Points of the picture as a thing sees them: dx, dy from its origin in its unit, and u, v turned with it too."""
    dx, dy = ((p - np.float32(o)) * np.float32(1 / pose.scale) for p, o in ((x, pose.x), (y, pose.y)))
    c, s = np.float32(math.cos(pose.angle)), np.float32(math.sin(pose.angle))
    return dx, dy, c * dx + s * dy, c * dy - s * dx


def beside(pole: Pole, x: Array, y: Array) -> Array:
    """How far points of the picture are from the middle of a pole, in half-widths: up to ±1 is in it."""
    c, s = np.float32(math.cos(pole.angle)), np.float32(math.sin(pole.angle))
    across = (y - np.float32(pole.y)) * c - (x - np.float32(pole.x)) * s
    return np.asarray(across * np.float32(2 / pole.width))


def _window(low: float, high: float, size: int) -> slice:
    """The pixels between two coordinates."""
    return slice(max(int(low * size), 0), max(min(int(high * size) + 1, size), 0))


def _draw(
    image: Array, owner: NDArray[np.int8], index: int, who: Identity, pose: Pose, light: Light, centres: Array
) -> None:
    """Draw one thing and its shadow over what is there."""
    size = len(centres)
    if pose.scale <= 0:
        return
    reach = pose.scale * (REACH + 2 * _SHADOW)
    rows = _window(pose.y - reach, pose.y + reach, size)
    columns = _window(pose.x - reach, pose.x + reach, size)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    dx, dy, u, v = local(pose, centres[None, columns], centres[rows, None])
    c, s = np.float32(math.cos(pose.angle)), np.float32(math.sin(pose.angle))
    lx, ly = math.cos(light.direction), math.sin(light.direction)
    sharpness = np.float32(pose.scale * size)

    su = np.float32(_SHADOW) * (c * np.float32(lx) + s * np.float32(ly))
    sv = np.float32(_SHADOW) * (c * np.float32(ly) - s * np.float32(lx))
    shade = clip(np.float32(0.5) - distance(who, u + su, v + sv) * np.float32(0.5 / _SHADOW))
    below = image[:, rows, columns] * (1 - np.float32(light.shadow) * shade)

    d = distance(who, u, v)
    colour = paint(who.texture, u, v, float(1 / sharpness))
    if who.rim:
        border = clip((d + np.float32(who.rim)) * sharpness + np.float32(0.5))
        colour += (who.rim_colour[:, None, None] - colour) * border
    roundness = 1 + clip(d + np.float32(0.2), 0.2) * np.float32(-1.2)
    colour *= roundness * (1 + np.float32(0.22) * (np.float32(lx) * dx + np.float32(ly) * dy))
    cover = clip(np.float32(0.5) - d * sharpness)
    image[:, rows, columns] = below + (colour - below) * cover
    owner[rows, columns][d <= 0] = index


def _cover(image: Array, owner: NDArray[np.int8], pole: Pole, centres: Array) -> None:
    """Draw a pole over what is there."""
    across = beside(pole, centres[None, :], centres[:, None])
    gap = (np.abs(across) - 1) * np.float32(pole.width / 2 * len(centres))
    cover = clip(np.float32(0.5) - gap)
    image += (pole.colour[:, None, None] * (1 - np.float32(0.3) * across) - image) * cover
    owner[gap <= 0] = NOBODY


def _lit(image: Array, light: Light, centres: Array) -> Array:
    """The picture under its light, with noise, clipped to [0, 1]."""
    size = len(centres)
    sx, sy = (np.float32(slope) for slope in light.slope)
    field = 1 + sx * (centres - np.float32(0.5))[None, :] + sy * (centres - np.float32(0.5))[:, None]
    image *= np.array(light.tint, np.float32)[:, None, None] * field
    if light.noise > 0:
        rng = np.random.Generator(np.random.PCG64(light.noise_seed))
        grain = rng.random((3, size, size), dtype=np.float32)
        grain -= np.float32(0.5)
        image += np.multiply(grain, np.float32(light.noise * math.sqrt(12)), out=grain)
    return clip(image)
