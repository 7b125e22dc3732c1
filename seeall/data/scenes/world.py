"""What is in a picture, before it is drawn: things, background, light, and how they are chosen.

A scene is a plain description without pixels. Coordinates are in picture sides: x to the right and y
downwards, both from 0 to 1, so that one scene can be drawn at any size. Time is in seconds; a still is the
scene at t = 0, and a frame of a clip is a scene of its own (`motion`).

What an identity looks like is a function of (world seed, number) alone, its shape excepted, which also depends
on how many classes there are. Everything else in a picture is drawn from a generator keyed by (world seed,
identity, number of the picture).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seeall.data.scenes.shapes import Array
from seeall.data.scenes.textures import Texture, draw_texture, oklch

LOOKS, PICTURE, ACTION, MOTION, VOICE, TAKE, HISS, ODDITY = range(1, 9)
"""What random numbers are for: the second part of every key."""
_TRIES = 8
"""Places tried for a thing before it goes behind the chief one."""
_TURN = math.pi / 6
"""Things are turned by at most this to either side."""
_SHRUNK = 0.6
"""Small things are smaller than usual by at most this share."""


@dataclass(frozen=True)
class Pose:
    """Where a thing is or, per second, how it changes."""

    x: float
    y: float
    scale: float
    """Radius of the thing's unit circle, in picture sides."""
    angle: float
    """Radians, clockwise as seen."""

    def moved(self, velocity: Pose, t: float) -> Pose:
        """This pose after t seconds."""
        return Pose(
            self.x + t * velocity.x,
            self.y + t * velocity.y,
            self.scale + t * velocity.scale,
            self.angle + t * velocity.angle,
        )


STILL = Pose(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Identity:
    """One particular object: what stays the same in all its pictures."""

    number: int
    shape: int
    """Class: an index into `shapes.NAMES`."""
    cut: float
    """The shape's own proportion, 0 to 1."""
    stretch: float
    """Width over height, by the shape's own measure of both."""
    texture: Texture
    rim: float
    """Width of the border inside the outline, in the thing's unit; 0 for none."""
    rim_colour: Array
    """(3,) sRGB."""


@dataclass(frozen=True, eq=False)
class Thing:
    """An identity at a place, moving evenly."""

    identity: Identity
    start: Pose
    velocity: Pose = STILL

    def pose(self, t: float) -> Pose:
        """Where the thing is after t seconds."""
        return self.start.moved(self.velocity, t)


@dataclass(frozen=True, eq=False)
class Pole:
    """Something nameless in front of everything: it hides things and counts as background."""

    x: float
    y: float
    angle: float
    width: float
    colour: Array


@dataclass(frozen=True, eq=False)
class Background:
    """What lies behind the things."""

    texture: Texture
    clouds: float
    """How strongly large soft patches lighten and darken it."""
    ground: Texture | None
    """A second surface below the horizon, or none."""
    horizon: tuple[float, float]
    """Height of the horizon in the middle of the picture, and its slope."""
    shift: tuple[float, float] = (0.0, 0.0)
    """How far all this has gone to the right and downwards, in picture sides: the camera has gone the other way."""


@dataclass(frozen=True, eq=False)
class Light:
    """The light that falls on a scene, and the noise of the camera."""

    tint: tuple[float, float, float]
    """Factors of red, green and blue: colour and strength in one."""
    slope: tuple[float, float]
    """How much brighter it gets from left to right and from top to bottom."""
    direction: float
    """Radians: where the light comes from, in the picture's plane."""
    shadow: float
    """Darkness of the shadows, 0 to 1."""
    noise: float
    """Standard deviation of the noise, which is evenly distributed, in units of white."""
    noise_seed: int


@dataclass(frozen=True, eq=False)
class Scene:
    """All there is to draw. Things are sorted from back to front; `main` is the index of the chief one."""

    things: tuple[Thing, ...]
    main: int
    background: Background
    light: Light
    poles: tuple[Pole, ...] = ()


@dataclass(frozen=True)
class Odds:
    """How much pictures differ; all but `things` between 0 (not at all) and 1."""

    things: tuple[int, int] = (1, 1)
    light: float = 0.5
    noise: float = 0.3
    poles: float = 0.2
    small: float = 0.0
    backdrop: float = 0.0


def generator(*key: int) -> np.random.Generator:
    """A generator of its own for every key (seed, use, …); NumPy hashes the numbers, each below 2³²."""
    return np.random.Generator(np.random.PCG64(key))


def identity(seed: int, number: int, classes: int) -> Identity:
    """Identity `number` of the world `seed`; consecutive ones go round the classes."""
    rng = generator(seed, LOOKS, number, 0)
    cut, stretch, rim, chroma = (float(r) for r in rng.random(4))
    texture = draw_texture(rng, frequency=(0.9, 2.4), contrast=0.28, chroma=0.06 + 0.13 * chroma)
    return Identity(
        number=number,
        shape=number % classes,
        cut=cut,
        stretch=1.2 ** (2 * stretch - 1),
        texture=texture,
        rim=0.07 + 0.1 * rim if rim < 0.5 else 0.0,
        rim_colour=texture.palette[2],
    )


def _background(rng: np.random.Generator, vivid: float) -> Background:
    contrast, chroma = 0.07 + 0.21 * vivid, 0.08 + 0.11 * vivid
    texture = draw_texture(rng, frequency=(0.8, 4.0), contrast=contrast, chroma=chroma * float(rng.random()))
    clouds, split, height, slope = (float(r) for r in rng.random(4))
    ground = None
    if split < 0.4:
        ground = draw_texture(rng, frequency=(1.0, 4.0), contrast=contrast, chroma=chroma * float(rng.random()))
    return Background(texture, 0.1 + 0.3 * clouds, ground, (0.45 + 0.35 * height, 0.4 * (slope - 0.5)))


def _light(rng: np.random.Generator, odds: Odds) -> Light:
    strength, warm, green, x, y, direction, shadow, grain = (float(r) for r in rng.random(8))
    level = 1 + odds.light * (0.75 * strength - 0.4)
    warmth, greenness = odds.light * 0.4 * (2 * warm - 1), odds.light * 0.12 * (2 * green - 1)
    return Light(
        tint=(level * (1 + warmth), level * (1 + greenness), level * (1 - warmth)),
        slope=(odds.light * 1.2 * (x - 0.5), odds.light * 1.2 * (y - 0.5)),
        direction=2 * math.pi * direction,
        shadow=0.25 + 0.35 * shadow,
        noise=0.1 * odds.noise * grain,
        noise_seed=int(rng.integers(1 << 62)),
    )


def _pose(rng: np.random.Generator, shrink: float) -> Pose:
    size, x, y, angle = (float(r) for r in rng.random(4))
    scale = (0.33 + 0.13 * size) * shrink
    room = 0.5 - 0.82 * scale
    return Pose(0.5 + room * (2 * x - 1), 0.5 + room * (2 * y - 1), scale, _TURN * (2 * angle - 1))


def _pole(rng: np.random.Generator, main: Pose, shrunk: float) -> Pole:
    """A pole that takes something off the chief thing, but not its middle."""
    side, away, angle, width, lightness, hue = (float(r) for r in rng.random(6))
    angle = math.pi * angle
    offset = main.scale * (0.35 + 0.5 * away) * (1 if side < 0.5 else -1)
    colour = np.array(oklch(0.25 + 0.5 * lightness, 0.04, hue), np.float32)
    x, y = main.x - offset * math.sin(angle), main.y + offset * math.cos(angle)
    return Pole(x, y, angle, (0.03 + 0.04 * width) * shrunk, colour)


def _beside(pose: Pose, main: Pose) -> bool:
    """Whether a thing in front would leave the middle of the chief thing free."""
    return math.hypot(pose.x - main.x, pose.y - main.y) > 0.3 * main.scale + pose.scale


def scene(seed: int, chief: Identity, number: int, others: range, odds: Odds, classes: int) -> Scene:
    """Picture `number` of `chief`, with further things from the identities `others` other than itself."""
    rng = generator(seed, PICTURE, chief.number, number)
    odd = generator(seed, ODDITY, chief.number, number)  # its own, so that the rest stays what it is without it
    background, light = _background(rng, odds.backdrop * float(odd.random())), _light(rng, odds)
    low, high = odds.things
    count = int(rng.integers(low, high + 1))
    shrunk = [1 - _SHRUNK * odds.small * float(r) for r in odd.random(count)]
    crowded = count**-0.4
    main = _pose(rng, crowded * shrunk[0])
    poles = (_pole(rng, main, shrunk[0]),) if float(rng.random()) < odds.poles else ()
    behind: list[Thing] = []
    before: list[Thing] = []
    for k in range(1, count):
        pick = int(rng.integers(max(len(others) - 1, 1)))
        other = others[pick]
        if other == chief.number:
            other = others[-1]
        in_front = float(rng.random()) < 0.5
        places = [_pose(rng, crowded * shrunk[k]) for _ in range(_TRIES)]
        free = [place for place in places if _beside(place, main)]
        thing = Thing(identity(seed, other, classes), (free or places)[0])
        (before if in_front and free else behind).append(thing)
    things = (*behind, Thing(chief, main), *before)
    return Scene(things, len(behind), background, light, poles)
