"""Clips, and the name of what happens in each: videos, folders of frames, the synthetic world.

The folder that a video is in names what happens in it, and the folder above a folder of frames; or a manifest of videos
has a column `label`. Where the folders at the top are called train, val and test, they are splits. Of each clip so many
frames a second are taken, by their time stamps, so that a variable frame rate is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seeall.console import log
from seeall.data import scenes
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.clips import clips
from seeall.data.decode import Pixels
from seeall.data.motion.pairs import frames_of
from seeall.data.pictures import Pictures
from seeall.data.pictures import find as find_pictures
from seeall.data.scenes.flow import flow
from seeall.data.video import Frame
from seeall.types import SeeallError

Sees = Literal["frames", "flow"]
_BOUND = 1 / 8
_NONE, _STEPS = 128, 127


def find_actions(data: str, *, fps: float = 8.0, frames_fps: float = 24.0, sees: Sees = "frames") -> Annotated:
    """The clips that `data` names, each with its label; `pictures.read` gives its frames, (T, H, W, 3).

    data: a folder of videos or of folders of frames, a manifest of videos, or scenes:… with frames above 1
    fps: frames a second that are taken · frames_fps: frames a second of folders of frames, which do not say
    sees: what a clip shows: its frames, or, of the synthetic world, the exact flow from each to the next, as `pictured`

    Raises: SeeallError where there are no clips, or no labels, or only one.
    """
    if sees == "flow" and data != "scenes" and not data.startswith("scenes:"):
        raise SeeallError(f"{data}: the true flow is known of the synthetic world alone; see the model two-stream")
    for name, value in (("fps", fps), ("frames_fps", frames_fps)):
        if not 0 < value < 1000:
            raise SeeallError(f"setting {name!r} is {value}: choose frames a second, above 0")
    pictures = find_pictures(data, rate=fps)
    taken = clips_in(pictures, fps, frames_fps)
    if sees == "flow":
        if any(len(rows) < 2 for rows in taken.keys):
            raise SeeallError(f"{data}: in a clip of one frame there is no flow: choose a larger fps than {fps:g}")
        taken = dataclasses.replace(taken, reader=functools.partial(_moving, scenes.parse(data)))
    labels = [_label(pictures, rows[0]) for rows in taken.keys]
    classes = sorted({label for label in labels if label is not None})
    if None in labels or len(classes) < 2:
        lacks = "no labels" if None in labels else f"only one label, {classes[0]}"
        raise SeeallError(
            f"{data}: {lacks}: give each action a folder with its videos, or with a folder of frames for each clip; or "
            "a manifest of videos with a column 'label'"
        )
    taken = Pictures(
        data, taken.ids, taken.keys, taken.reader, labels=labels,  # type: ignore[arg-type]
        splits=[pictures.splits[rows[0]] for rows in taken.keys] if pictures.splits else None, root=taken.root,
    )  # fmt: skip
    known = {name: k for k, name in enumerate(classes)}
    notes = [known[str(label)] for label in labels]
    return Annotated(taken, classes, frozenset({"label", "frames"}), notes, lambda note, *_: Truth(label=note))


def clips_in(pictures: Pictures, fps: float = 8.0, frames_fps: float = 24.0) -> Pictures:
    """Each clip that pictures are frames of, as one, its frames in order, so many of them a second: the first of every
    1 / fps seconds, by the rule of `Video.frames`, so that frames which were taken by it stay.

    Raises: SeeallError where no clip has two frames.
    """
    found = clips(pictures, frames_fps)
    taken = []
    for mine in found.rows():
        seconds = [float(found.seconds[i]) + _early(pictures.keys[i]) for i in mine]
        slots = np.floor(np.array(seconds) * fps + 1e-6)
        taken.append(tuple(i for i, new in zip(mine, np.diff(slots, prepend=-1) > 0) if new))
    if short := sum(len(mine) < 2 for mine in taken):
        log.warning("%s: in %d of %d clips nothing moves, as they have one frame", pictures.source, short, len(taken))
    return Pictures(
        pictures.source, found.names, taken, functools.partial(_read, pictures), root=pictures.root,
    )  # fmt: skip


def _early(key: Any) -> float:
    """By how much the time stamp of a frame may be too small, as it was rounded, in seconds."""
    return key.video.tick / 2 if isinstance(key, Frame) else 0.0


def _read(pictures: Pictures, rows: Sequence[int], shortest: int | None) -> Pixels:
    return frames_of(lambda i: pictures.read(i, shortest), rows, pictures.ids.__getitem__)


def _moving(world: scenes.Scenes, rows: Sequence[int], shortest: int | None) -> Pixels:
    scene = [world.scene(i) for i in rows]
    fields = [flow(one, other, world.size)[0] for one, other in itertools.pairwise(scene)]
    return np.stack([pictured((vectors / world.size).astype(np.float32)) for vectors in fields])


def pictured(vectors: NDArray[np.float32]) -> Pixels:
    """Flow (H, W, 2), in sides of the picture → (H, W, 3) uint8: to the right, down, and the speed; 128 is none, and
    what moves by an eighth of a side or more has 1 or 255.
    """
    seen = np.concatenate([vectors, np.linalg.norm(vectors, axis=2, keepdims=True)], 2)
    return np.round(_NONE + _STEPS * np.clip(seen / _BOUND, -1, 1)).astype(np.uint8)


def enlarged(seen: Tensor, factor: float) -> Tensor:
    """`pictured` (…, 3, H, W) uint8 of a window of a picture whose side is `factor` times as long as the window's, 1 or
    more: what moves, moves by so many times more of a side. What has 1 or 255, an eighth or more, keeps it.
    """
    codes: Tensor = _NONE + (seen.float() - _NONE) * factor
    return codes.clamp(_NONE - _STEPS, _NONE + _STEPS).round().to(torch.uint8)


def mirrored(seen: Tensor) -> Tensor:
    """`pictured` (…, 3, H, W) uint8 of the mirror image: what went to the right goes to the left, just as fast."""
    right, down, speed = seen.flip(-1).unbind(-3)
    left = (2 * _NONE - right.int()).clamp(max=_NONE + _STEPS).to(torch.uint8)
    return torch.stack([left, down, speed], -3)


def _label(pictures: Pictures, row: int) -> str | None:
    """What happens in the clip of a frame."""
    if pictures.labels is None:
        return None
    key: Any = pictures.keys[row]
    if isinstance(key, Frame) or pictures.moments:
        return pictures.labels[row]
    return pictures.labels[row].rpartition("/")[0] or None  # the last folder is the clip
