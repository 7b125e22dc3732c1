"""Which pictures are frames of one clip, and when each was taken."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter

import torch
from torch import Tensor

from seeall.data.pictures import Pictures
from seeall.data.video import Frame
from seeall.types import SeeallError


class NoClip(SeeallError):
    """Nothing among the pictures of `source` moves, for this reason."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} has {reason}; give videos, or a sub-folder of frames for each clip")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Clips:
    """clip: (n,) int64, the number of each picture's clip · seconds: (n,) float64 within it · names: of the clips"""

    clip: Tensor
    seconds: Tensor
    names: list[str]

    def rows(self) -> list[list[int]]:
        """The pictures of each clip, in their order."""
        found: list[list[int]] = [[] for _ in self.names]
        for i in self.seconds.argsort(stable=True).tolist():
            found[int(self.clip[i])].append(i)
        return found


def clips(pictures: Pictures, fps: float = 24.0) -> Clips:
    """The clips that pictures are frames of, numbered in the order in which they are met.

    What the pictures say themselves (`moments`) counts first. A frame of a video belongs to the video, at its time
    stamp. A file belongs to the folder it is in, which may hold other files as well, and is the k-th of the pictures
    from there by natural order of names (9 before 10), at k / fps seconds; a file that was left out is not noticed.
    What is none of these is a clip of its own.

    fps: frames a second of folders of frames, which do not say

    Raises: NoClip where no clip has two frames; SeeallError where fps is not above 0.
    """
    if not 0 < fps < math.inf:
        raise SeeallError(f"fps is {fps}: choose a number above 0; 24 is usual")
    where = pictures.moments or _moments(pictures, fps)
    if max(Counter(name for name, _ in where).values(), default=0) < 2:
        films = any(isinstance(key, Frame) for key in pictures.keys)
        also = ": its videos are damaged, or of one frame" if films else ""
        raise NoClip(pictures.source, f"no two frames of one clip{also}")
    number: dict[str, int] = {}
    clip = [number.setdefault(name, len(number)) for name, _ in where]
    seconds = torch.tensor([time for _, time in where], dtype=torch.float64)
    return Clips(torch.tensor(clip, dtype=torch.int64), seconds, list(number))


def moving(pictures: Pictures) -> torch.Tensor:
    """(n,) int64 numbers that frames of one video, or of one clip of the synthetic world, share; other pictures have
    one each.
    """
    number: dict[str, int] = {}
    clips = [name for name, _ in pictures.moments or ()] or [f"\0{i}" for i in range(len(pictures))]
    own = [key.video.path if isinstance(key, Frame) else clip for key, clip in zip(pictures.keys, clips)]
    return torch.tensor([number.setdefault(name, len(number)) for name in own], dtype=torch.int64)


def natural(name: str) -> list[str | int]:
    """What names sort by where numbers in them are to count as numbers.

    >>> sorted(["f10", "f9", "f010b"], key=natural)
    ['f9', 'f10', 'f010b']
    """
    parts: list[str | int] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts


def _moments(pictures: Pictures, fps: float) -> list[tuple[str, float]]:
    folders: dict[str, list[tuple[list[str | int], str, int]]] = {}
    found = [(str(name), 0.0) for name in pictures.ids]
    for i, key in enumerate(pictures.keys):
        if isinstance(key, Frame):
            found[i] = key.video.name, key.seconds
        elif isinstance(key, (str, os.PathLike)):
            folder, name = os.path.split(pictures.ids[i])
            folders.setdefault(folder or ".", []).append((natural(name), name, i))
    for folder, files in folders.items():
        for place, (_, _, i) in enumerate(sorted(files)):
            found[i] = folder, place / fps
    return found
