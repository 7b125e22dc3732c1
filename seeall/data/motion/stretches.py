"""Short stretches of clips, to learn from what moves in them: videos, folders of frames, the synthetic world.

A clip is cut into stretches of `gap` + 1 frames, each beginning with the frame that the one before ends with; the last
may be shorter. What is known of a stretch of the synthetic world is where each pixel of its first frame is in its last
one, exactly, and which things it is on. Of files nothing is known.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from seeall.data import scenes
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.clips import clips
from seeall.data.decode import Pixels
from seeall.data.motion.fields import Field
from seeall.data.motion.pairs import frames_of
from seeall.data.pictures import Pictures, find
from seeall.data.scenes.flow import flow
from seeall.data.video import RATE, Frame
from seeall.types import SeeallError

_LONGEST = 1000


def find_stretches(data: str, *, gap: int = 4, fps: float = RATE) -> Annotated:
    """The stretches that `data` names; `pictures.read` gives the frames of one, (T, H, W, 3), T from 2 to `gap` + 1.

    data: a folder of videos, of frames or of folders of frames, a manifest, a video, or scenes:… with frames above 1
    gap: frames from the first to the last of a stretch · fps: frames a second that are taken of videos

    Raises: SeeallError where no clip has two frames, or for settings out of bounds.
    """
    if not 1 <= gap <= _LONGEST:
        raise SeeallError(f"setting 'gap' is {gap}: choose 1 to {_LONGEST} frames")
    if not 0 < fps < 1000:
        raise SeeallError(f"setting 'fps' is {fps}: choose frames a second, above 0")
    pictures = find(data, rate=fps)
    found = clips(pictures)
    rows = [part for mine in found.rows() for part in _cut(mine, gap)]
    firsts = pictures.subset([part[0] for part in rows])
    taken = replace(
        firsts, keys=[tuple(pictures.keys[i] for i in part) for part in rows], labels=None, metadata=None, sound=None,
        reader=functools.partial(_read, pictures),
        moments=[(found.names[int(found.clip[part[0]])], float(found.seconds[part[0]])) for part in rows],
    )  # fmt: skip
    if data == "scenes" or data.startswith("scenes:"):
        notes = [(part[0], part[-1]) for part in rows]
        known = frozenset({"frames", "masks", "flow"})
        return Annotated(taken, (), known, notes, functools.partial(_drawn, world=scenes.parse(data)))
    return Annotated(taken, (), frozenset({"frames"}), rows, lambda note, *_: Truth())


def frames_in(pictures: Pictures) -> Pictures:
    """The pictures one by one, those of a clip in a row and in their order; as they are where nothing is a clip."""
    try:
        found = clips(pictures)
    except SeeallError:
        return pictures
    order = [i for mine in found.rows() for i in mine]
    moments = [(found.names[int(c)], float(s)) for c, s in zip(found.clip, found.seconds)]
    return replace(pictures, moments=moments).subset(order)


def _cut(rows: Sequence[int], gap: int) -> list[Sequence[int]]:
    """
    >>> _cut([0, 1, 2, 3, 4, 5], 2)
    [[0, 1, 2], [2, 3, 4], [4, 5]]
    """
    return [rows[start : start + gap + 1] for start in range(0, len(rows) - 1, gap)]


def _read(pictures: Pictures, keys: Sequence[Any], shortest: int | None) -> Pixels:
    return frames_of(
        lambda key: pictures.reader(key, shortest), keys,
        lambda key: key.id if isinstance(key, Frame) else os.path.basename(str(key)),  # noqa: PTH119
    )  # fmt: skip


def _drawn(row: tuple[int, int], height: int, width: int, *, world: scenes.Scenes) -> Truth:
    there = world.truth(row[0])
    vectors, visible = flow(world.scene(row[0]), world.scene(row[1]), world.size)
    return Truth(
        boxes=there.boxes, classes=there.classes, crowd=np.zeros(len(there.boxes), np.bool_), masks=there.masks,
        motion=Field(vectors, np.ones_like(visible), ~visible),
    )  # fmt: skip
