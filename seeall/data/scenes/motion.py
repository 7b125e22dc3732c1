"""How a clip moves: paths for things, camera and light, and the frame at any time as a scene of its own.

A clip begins with a still, whose things it keeps. Its chief thing does one of `ACTIONS`; the others go about
behind it, and up to two of them come and go in front. All of it is a function of (world seed, identity, number
of the clip), so that any frame can be drawn alone. Speeds are in picture sides per second.

The chief thing stays in sight: its path keeps to the room that its size leaves in the picture, and whatever
is in front goes round its middle. An action is one stroke: up to about five seconds it goes one way only,
the slower the longer the clip; beyond that it turns back and begins again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seeall.data.scenes.shapes import REACH
from seeall.data.scenes.world import ACTION, MOTION, Background, Light, Odds, Pole, Pose, Scene, Thing, generator

ACTIONS = ("left", "right", "up", "down", "grow", "shrink", "turn", "still")
"""What the chief thing of a clip does, as seen: `turn` is either way round, `still` leaves all the rest moving."""

_SHARP = 0.95
"""How much a swing is like a bounce (1) rather than a pendulum (0)."""
_SLOPE = _SHARP / math.asin(_SHARP)
"""Its steepest slope, for a reach of 1 and a speed of one radian per second."""
_STROKE = 0.8 * math.pi
"""The part of a swing that goes one way, without its ends, in radians."""
_SLOWEST = 0.06
_CHIEF, _OTHER = 0.8, 0.85
"""Sizes of things in clips, against those in stills: there must be room to move."""
_LEAST = 0.1
"""Least scale of the chief thing, however many there are."""
_NEAREST = 0.2
"""Share of the radius of the chief thing, from its middle, that nothing in front but a pole ever covers."""
_IN_FRONT = 2
"""Most things in front: any two leave something of any shape to be seen."""
_PARALLAX = 1.5
"""How much faster than the background poles go past."""


@dataclass(frozen=True)
class Swing:
    """A number that goes smoothly to and fro between middle ± reach."""

    middle: float
    reach: float = 0.0
    phase: float = 0.0
    """Radians; 0 is in the middle, on the way to middle + reach."""
    speed: float = 0.0
    """Radians per second."""

    def at(self, t: float) -> float:
        """Its value after t seconds."""
        wave = math.asin(_SHARP * math.sin(self.phase + self.speed * t)) / math.asin(_SHARP)
        return self.middle + self.reach * wave


@dataclass(frozen=True)
class Path:
    """The way of a thing through the picture."""

    x: Swing
    y: Swing
    size: Swing
    """Natural logarithm of the scale."""
    angle: Swing
    spin: float = 0.0
    """Radians per second, on top of `angle`."""

    def pose(self, t: float) -> Pose:
        """Where the thing is after t seconds."""
        return Pose(self.x.at(t), self.y.at(t), math.exp(self.size.at(t)), self.angle.at(t) + self.spin * t)


@dataclass(frozen=True)
class Orbit:
    """The way of a thing in front of the chief one: round its middle, now nearer, now farther."""

    gap: Swing
    """Between the thing and the middle part of the chief one, at least 0."""
    bearing: float
    turning: float
    """Radians, and radians per second."""
    size: Swing
    angle: Swing

    def pose(self, t: float, chief: Pose) -> Pose:
        """Where the thing is after t seconds, the chief one being at `chief`."""
        scale = math.exp(self.size.at(t))
        away = _NEAREST * chief.scale + REACH * scale + self.gap.at(t)
        bearing = self.bearing + self.turning * t
        return Pose(chief.x + away * math.cos(bearing), chief.y + away * math.sin(bearing), scale, self.angle.at(t))


@dataclass(frozen=True)
class Motion:
    """All paths of a clip. Those of things are in the order of the still's things."""

    chief: Path
    behind: tuple[Path, ...]
    before: tuple[Orbit, ...]
    camera: tuple[Swing, Swing]
    """How far the background has gone to the right and downwards."""
    light: tuple[Swing, Swing, Swing, Swing]
    """A factor of its strength, and what is added to its two slopes and to its direction."""


def action(seed: int, clip: int, actions: Sequence[str] = ACTIONS) -> str:
    """What the chief thing of a clip does: n actions each once in any n clips from a multiple of n, in keyed order."""
    block, place = divmod(clip, len(actions))
    return actions[int(generator(seed, ACTION, block).permutation(len(actions))[place])]


def motion(seed: int, clip: int, still: Scene, seconds: float, odds: Odds, actions: Sequence[str] = ACTIONS) -> Motion:
    """The paths of clip `clip`, of so many seconds, which begins with `still`. actions: those that it may be of."""
    rng = generator(seed, MOTION, still.things[still.main].identity.number, clip)
    poses = [thing.start for thing in still.things]
    behind, before = _order(still)
    return Motion(
        chief=_chief(rng, action(seed, clip, actions), poses[still.main], seconds),
        camera=(_sway(rng, 0.0, 0.25, (0.01, 0.06)), _sway(rng, 0.0, 0.2, (0.01, 0.06))),
        light=(
            _sway(rng, 1.0, 0.15 * odds.light, (0.0, 0.15)),
            _sway(rng, 0.0, 0.25 * odds.light, (0.0, 0.2)),
            _sway(rng, 0.0, 0.25 * odds.light, (0.0, 0.2)),
            _sway(rng, 0.0, 0.6 * odds.light, (0.0, 0.4)),
        ),
        behind=tuple(_behind(rng, poses[k]) for k in behind),
        before=tuple(_before(rng, poses[k]) for k in before),
    )


def frame(still: Scene, paths: Motion, t: float, number: int, seconds: float) -> Scene:
    """Frame `number` of a clip of so many seconds, at t seconds."""
    chief, identities = paths.chief.pose(t), [thing.identity for thing in still.things]
    behind, before = _order(still)
    things = (
        *(Thing(identities[k], path.pose(t)) for k, path in zip(behind, paths.behind, strict=True)),
        Thing(identities[still.main], chief),
        *(Thing(identities[k], orbit.pose(t, chief)) for k, orbit in zip(before, paths.before, strict=True)),
    )
    return Scene(
        things=things,
        main=len(behind),
        background=_drifted(still.background, paths, t),
        light=_changed(still.light, paths, t, number),
        poles=tuple(_passing(pole, still, paths, t, seconds / 2) for pole in still.poles),
    )


def _order(still: Scene) -> tuple[list[int], list[int]]:
    """Which things go behind the chief one, and which in front: those in front of it, but not too many."""
    others = [k for k in range(len(still.things)) if k != still.main]
    first = max(still.main, len(others) - _IN_FRONT)
    return others[:first], others[first:]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _either(rng: np.random.Generator) -> int:
    return 1 if float(rng.random()) < 0.5 else -1


def _sway(rng: np.random.Generator, middle: float, reach: float, speed: tuple[float, float]) -> Swing:
    """To and fro from anywhere, at a top speed between two bounds."""
    phase, fast = _between(rng, 0, 2 * math.pi), _between(rng, *speed)
    return Swing(middle, reach, phase, fast / (reach * _SLOPE)) if reach > 0 else Swing(middle)


def _stroke(
    rng: np.random.Generator, sign: int, middle: float, reach: float, speed: tuple[float, float], seconds: float
) -> Swing:
    """One way, towards + or -, for so many seconds if it need not be too slow for that."""
    radians = 1 / (reach * _SLOPE)
    omega = min(_between(rng, *speed) * radians, max(_STROKE / seconds, _SLOWEST * radians))
    rest = max(_STROKE - omega * seconds, 0.0)
    return Swing(middle, sign * reach, _between(rng, 0, rest) - _STROKE / 2, omega)


def _chief(rng: np.random.Generator, name: str, still: Pose, seconds: float) -> Path:
    """The path of the chief thing for an action."""
    size = Swing(math.log(_CHIEF * still.scale))
    angle = Swing(still.angle)
    spin = 0.0
    if name in ("grow", "shrink"):
        middle = max(size.middle - 0.15, math.log(_LEAST) + 0.4)
        size = _stroke(rng, 1 if name == "grow" else -1, middle, 0.4, (0.2, 0.6), seconds)
    elif name == "turn":
        spin = _either(rng) * _between(rng, 0.8, 2.0)
    elif name != "still":
        size, angle = _sway(rng, size.middle, 0.06, (0.0, 0.06)), _sway(rng, angle.middle, 0.12, (0.0, 0.2))
    room = 0.5 - 0.82 * math.exp(size.middle + abs(size.reach))
    sway = 0.0 if name == "still" else 0.12 * room
    axes = []
    for negative, positive in (("left", "right"), ("up", "down")):
        if name in (negative, positive):
            axes.append(_stroke(rng, 1 if name == positive else -1, 0.5, room, (0.15, 0.4), seconds))
        else:
            axes.append(_sway(rng, 0.5 + _between(rng, sway - room, room - sway), sway, (0.0, 0.03)))
    return Path(axes[0], axes[1], size, angle, spin)


def _behind(rng: np.random.Generator, still: Pose) -> Path:
    """The path of a thing behind: anywhere, also across the edge of the picture."""
    across, down = (_sway(rng, _between(rng, 0.2, 0.8), _between(rng, 0.1, 0.3), (0.05, 0.25)) for _ in range(2))
    size = _sway(rng, math.log(_OTHER * still.scale), 0.15, (0.0, 0.2))
    spins = float(rng.random()) < 0.3
    spin = _either(rng) * _between(rng, 0.3, 1.0)
    return Path(across, down, size, _sway(rng, still.angle, 0.2, (0.0, 0.3)), spin if spins else 0.0)


def _before(rng: np.random.Generator, still: Pose) -> Orbit:
    """The path of a thing in front."""
    return Orbit(
        gap=_sway(rng, 0.15, 0.15, (0.05, 0.25)),
        bearing=_between(rng, 0, 2 * math.pi),
        turning=_either(rng) * _between(rng, 0.1, 0.5),
        size=_sway(rng, math.log(_OTHER * still.scale), 0.1, (0.0, 0.15)),
        angle=_sway(rng, still.angle, 0.3, (0.0, 0.4)),
    )


def _drifted(background: Background, paths: Motion, t: float) -> Background:
    return replace(background, shift=(paths.camera[0].at(t), paths.camera[1].at(t)))


def _changed(light: Light, paths: Motion, t: float, number: int) -> Light:
    """The light at t seconds; the noise is another in every frame."""
    strength, across, down, turned = (swing.at(t) for swing in paths.light)
    red, green, blue = light.tint
    return replace(
        light,
        tint=(red * strength, green * strength, blue * strength),
        slope=(light.slope[0] + across, light.slope[1] + down),
        direction=light.direction + turned,
        noise_seed=light.noise_seed + number,
    )


def _passing(pole: Pole, still: Scene, paths: Motion, t: float, middle: float) -> Pole:
    """A pole, moved with the camera so that it stands before the chief thing in the middle of the clip."""
    then, start = paths.chief.pose(middle), still.things[still.main].start
    nearer = then.scale / start.scale
    passed = [_PARALLAX * (swing.at(t) - swing.at(middle)) for swing in paths.camera]
    x, y = then.x + nearer * (pole.x - start.x), then.y + nearer * (pole.y - start.y)
    return replace(pole, x=x + passed[0], y=y + passed[1])
