"""`scenes:…` as a set of pictures or clips: the settings, the n-th picture, the truth about it, and its sound.

Everything is a function of (settings, i). Picture i is number `first + i` of its world; it shows identity
`first_identity + number mod identities`, so that each identity gets n / identities pictures. With `frames` above
1 the same goes for clips, and picture i is frame i mod frames of clip i div frames.

For a test on new pictures of known identities, continue with `first`; for one on unseen identities, with
`first_identity`:

>>> learn = parse("scenes:n=400,identities=40")
>>> new_pictures = parse("scenes:n=80,identities=40,first=400")
>>> unseen = parse("scenes:n=80,identities=8,first_identity=40")
>>> learn.id(0), new_pictures.id(0), unseen.id(0)
('scenes/identity_0000/000000', 'scenes/identity_0000/000400', 'scenes/identity_0040/000000')
>>> clips = parse("scenes:n=20,frames=16,fps=8")
>>> len(clips), clips.id(35), clips.moment(35)
(320, 'scenes/identity_0002/clip_000002/003', ('scenes/identity_0002/clip_000002', 0.375))
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seeall import catalog
from seeall.data.scenes import flow, motion, sound, world
from seeall.data.scenes.render import render
from seeall.data.scenes.shapes import NAMES
from seeall.types import SeeallError

_LARGEST = (1 << 31) - 1
_LONGEST = 100_000
_MOST_THINGS = 10
_CROWD = 16
"""Least size for more than one thing and for clips, px; twice this for both. Below it the chief thing could be hidden
to the last pixel."""
RANGES = ("light", "noise", "poles", "small", "backdrop")
"""Settings that say how much pictures differ, 0 (not at all) to 1: what domain randomisation is made of."""
_SMALLEST = 0.003
"""A thing that shows on less than this share of the picture is left out of the truth, unless it is the chief
one."""


@dataclass(frozen=True, eq=False)
class Truth:
    """A picture and all that is known about it. M things, the chief one first; H = W = size."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    classes: NDArray[np.int64]
    """(M,) from 0; the names are in `shapes.NAMES`."""
    identities: NDArray[np.int64]
    """(M,) numbers of the identities."""
    boxes: NDArray[np.float32]
    """(M, 4) xyxy, px, tight around the visible part: the pixel in column c covers x from c to c + 1."""
    masks: NDArray[np.bool_]
    """(M, H, W) the visible parts; no pixel is in two."""
    semantic: NDArray[np.uint8]
    """(H, W) 0 for the background, else class + 1: the union of the masks."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """The synthetic world: `n` pictures or clips, each of one chief thing and, if asked for, some more.

    Raises: SeeallError for a value out of bounds.
    """

    n: int = 2000
    """Pictures or, where `frames` is above 1, clips."""
    size: int = 64
    """Side of a picture, px. The same picture is drawn at every size; only the camera noise differs."""
    seed: int = 0
    """The world: another seed has other identities and other pictures."""
    classes: int = 8
    """Shapes in use, the first of `shapes.NAMES`."""
    identities: int = 100
    """Different objects in this set."""
    first_identity: int = 0
    """Number of the first of them."""
    first: int = 0
    """Number of the first picture or clip."""
    frames: int = 1
    """Pictures of a clip; 1 for single pictures."""
    fps: float = 8.0
    """Frames per second of a clip."""
    things: str = "1"
    """Things in a picture: a number, or the least and the most, as in 1-3."""
    light: float = 0.5
    """How much colour, strength and slope of the light vary, 0 to 1."""
    noise: float = 0.3
    """How strong the noise of camera and microphone may be, 0 to 1."""
    poles: float = 0.2
    """Share of pictures or clips with a nameless pole in front of the chief thing, 0 to 1."""
    small: float = 0.0
    """How much smaller than usual things may be, 0 to 1: at 1, less than half as large."""
    backdrop: float = 0.0
    """How strong the colours of backgrounds may be, 0 to 1: at 1, as strong as those of things."""
    actions: str = "all"
    """What chief things of clips may do: `motion.ACTIONS`, or some of them, as left+right."""
    labels: Literal["class", "identity", "action"] = "class"
    """What `label` names: the shape of the chief thing, which object it is, or what it does in its clip."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n", 1, _LARGEST), ("size", 8, 4096), ("seed", 0, _LARGEST), ("classes", 1, len(NAMES)),
            ("identities", 1, _LARGEST), ("first_identity", 0, _LARGEST), ("first", 0, _LARGEST),
            ("frames", 1, _LONGEST), ("fps", 0.01, 1000), *((name, 0, 1) for name in RANGES),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise SeeallError(f"scenes: {name}={value} is out of bounds; choose from {low} to {high}")
        most = self._odds().things[1]
        if most > 1 and self.size < (least := _CROWD if self.frames == 1 else 2 * _CROWD):
            where = "" if self.frames == 1 else " in clips"
            raise SeeallError(f"scenes: things={self.things}{where} need size={least} or more, not {self.size}")
        if self.frames > 1 and self.size < _CROWD:
            raise SeeallError(f"scenes: clips need size={_CROWD} or more, not {self.size}")
        if self.small and self.size < 2 * _CROWD:
            raise SeeallError(f"scenes: small={self.small} needs size={2 * _CROWD} or more, not {self.size}")
        strange = [name for name in self._actions() if name not in motion.ACTIONS]
        if strange:
            raise SeeallError(f"scenes: actions={self.actions}: {catalog.suggest(strange[0], motion.ACTIONS)}")
        if self.labels == "action" and self.frames == 1:
            raise SeeallError("scenes: labels=action need clips; write frames=16 or so")

    def _actions(self) -> tuple[str, ...]:
        return motion.ACTIONS if self.actions == "all" else tuple(dict.fromkeys(self.actions.split("+")))

    def _odds(self) -> world.Odds:
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", str(self.things))
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= _MOST_THINGS:
            raise SeeallError(
                f"scenes: things={self.things} is neither a number (1 to {_MOST_THINGS}) nor a range (1-3)"
            )
        return world.Odds(things=(low, high), **{name: getattr(self, name) for name in RANGES})

    def __len__(self) -> int:
        return self.n * self.frames

    def text(self) -> str:
        """What `parse` makes this set of."""
        return "scenes:" + ",".join(f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self))

    def _number(self, i: int) -> int:
        """Number of the picture or clip that picture i is (of)."""
        if not 0 <= i < len(self):
            raise IndexError(f"picture {i} of {len(self)}")
        return self.first + i // self.frames

    def identity(self, i: int) -> int:
        """Number of the identity that picture i is of."""
        return self.first_identity + self._number(i) % self.identities

    def label(self, i: int) -> str:
        """Name of the class, of the identity, or of the action, of the chief thing in picture i."""
        if self.labels == "action":
            return self.action(i)
        if self.labels == "identity":
            return f"identity_{self.identity(i):04d}"
        return NAMES[self.identity(i) % self.classes]

    def action(self, i: int) -> str:
        """What the chief thing does in the clip of picture i, one of `motion.ACTIONS`: without clips, still."""
        return motion.action(self.seed, self._number(i), self._actions()) if self.frames > 1 else "still"

    def id(self, i: int) -> str:
        """A name for picture i that looks like a path: world, identity, number or clip and frame."""
        clip, _ = self.moment(i)
        return f"{clip}/{i % self.frames:03d}" if self.frames > 1 else clip

    def moment(self, i: int) -> tuple[str, float]:
        """Name of the clip of picture i, and seconds since it began. A picture without one is its own, at 0."""
        kind = "clip_" if self.frames > 1 else ""
        name = f"scenes/identity_{self.identity(i):04d}/{kind}{self._number(i):06d}"
        return name, i % self.frames / self.fps

    def scene(self, i: int) -> world.Scene:
        """What is in picture i, before it is drawn."""
        number, odds = self._number(i), self._odds()
        chief = world.identity(self.seed, self.identity(i), self.classes)
        others = range(self.first_identity, self.first_identity + self.identities)
        still = world.scene(self.seed, chief, number, others, odds, self.classes)
        if self.frames == 1:
            return still
        frame, seconds = i % self.frames, (self.frames - 1) / self.fps  # from the first frame to the last
        paths = motion.motion(self.seed, number, still, seconds, odds, self._actions())
        return motion.frame(still, paths, frame / self.fps, frame, seconds)

    def image(self, i: int) -> NDArray[np.uint8]:
        """(size, size, 3) uint8 sRGB."""
        return render(self.scene(i), self.size)[0]

    def flow(self, i: int) -> flow.Flow:
        """Vectors (size, size, 2) float32, px, from picture i to the next of its clip; where they end visibly.

        Raises: IndexError for the last frame of a clip.
        """
        if i % self.frames == self.frames - 1:
            raise IndexError(f"{self.id(i)} is the last of its clip")
        return flow.flow(self.scene(i), self.scene(i + 1), self.size)

    def sound(self, i: int, seconds: float = 1.0, rate: int = 16_000) -> NDArray[np.float32]:
        """(round(seconds · rate),) in [-1, 1]: what the chief thing of picture i sounds like from its moment on.

        Frames of a clip hear one sound that goes on. Raises: SeeallError for a length or rate out of bounds.
        """
        who, number = self.identity(i), self._number(i)
        shape, (_, start) = NAMES[who % self.classes], self.moment(i)
        return sound.sound(self.seed, shape, who, number, self._odds(), start=start, seconds=seconds, rate=rate)

    def truth(self, i: int) -> Truth:
        """Picture i with classes, identities, boxes and masks of what can be seen in it."""
        scene = self.scene(i)
        image, owner = render(scene, self.size)
        counts = np.bincount(owner.ravel() + 1, minlength=len(scene.things) + 1)[1:]
        order = [scene.main, *(k for k in range(len(scene.things)) if k != scene.main)]
        seen = [k for k in order if counts[k] > (0 if k == scene.main else _SMALLEST * owner.size)]
        masks = np.asarray(np.array(seen, np.int8)[:, None, None] == owner, np.bool_)
        classes = np.array([scene.things[k].identity.shape for k in seen], np.int64)
        return Truth(
            image=image,
            classes=classes,
            identities=np.array([scene.things[k].identity.number for k in seen], np.int64),
            boxes=tight_boxes(masks),
            masks=masks,
            semantic=(masks * (classes + 1)[:, None, None]).sum(0).astype(np.uint8),
        )


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(M, 4) xyxy, px, of masks (M, H, W), none of them empty."""
    edges = []
    for axis in (1, 2):
        line = np.asarray(masks.any(axis))
        edges += [line.argmax(1), line.shape[1] - line[:, ::-1].argmax(1)]
    x1, x2, y1, y2 = edges
    return np.stack([x1, y1, x2, y2], 1).astype(np.float32)


def parse(text: str) -> Scenes:
    """The set that a text such as `scenes:n=500,size=32` names.

    Raises: SeeallError for text that does not begin with `scenes`, an unknown setting or a bad value.
    """
    head, _, rest = text.partition(":")
    if head.strip() != "scenes":
        raise SeeallError(f"{text!r} does not name the synthetic world; write scenes or scenes:n=500,size=32")
    pairs = [pair.strip() for pair in rest.split(",") if pair.strip()]
    for pair in pairs:
        if "=" not in pair:
            raise SeeallError(f"{text!r}: {pair!r} is no setting; write name=value, as in scenes:n=500,size=32")
    names = [pair.partition("=")[0].strip() for pair in pairs]
    for name in names:
        if names.count(name) > 1:
            raise SeeallError(f"{text!r}: {name} is set twice")
    return Scenes(**catalog.resolve({"scenes": Scenes}, pairs)["scenes"])
