"""What a clip goes through before a head learns from it, drawn by key: some of its frames, a window, a flip, colours.

All frames of a clip are changed alike. Where a clip shows flow, what is changed is how things move: what is enlarged
moves by more, a mirror image moves the other way, and there are no colours to be changed.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.data import keyed
from seeall.data.annotations.examples import Example
from seeall.data.motion.actions import Sees, enlarged, mirrored
from seeall.heads.augment import jittered
from seeall.types import SeeallError

_STREAM = 0xAC7


@dataclass(frozen=True)
class ClipAugment:
    """frames: so many in a row are learnt from at a time · sees: what they show, see `find_actions`
    flip: chance of a mirror image; leave it at 0 where left and
    right mean something · crop_min: the least side of the window, as a share of the shorter side
    jitter: brightness, contrast and saturation change by factors up to 1 ± jitter; of flow nothing does

    Raises: SeeallError for values out of bounds.
    """

    frames: int
    sees: Sees = "frames"
    _: KW_ONLY
    flip: float = 0.0
    crop_min: float = 0.7
    jitter: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise SeeallError(f"setting 'flip' is {self.flip}: choose a chance, 0 to 1")
        if not 0 < self.crop_min <= 1:
            raise SeeallError(f"setting 'crop_min' is {self.crop_min}: choose a share above 0, 1 at most")
        if not 0 <= self.jitter < 1:
            raise SeeallError(f"setting 'jitter' is {self.jitter}: choose a share from 0 and below 1")

    def __call__(self, example: Example, size: int, *key: int) -> Example:
        """example: (T, 3, H, W) → (frames, 3, size, size), changed as `key` says."""
        u = keyed.uniform(*key, _STREAM, n=8).tolist()
        clip = taken(example.pixels, self.frames, u[0])
        height, width = clip.shape[-2:]
        shorter = min(height, width)
        side = max(1, round((self.crop_min + u[1] * (1 - self.crop_min)) * shorter))
        top, left = round(u[2] * (height - side)), round(u[3] * (width - side))
        clip = clip[..., top : top + side, left : left + side]
        if self.sees == "flow":
            clip = enlarged(clip, shorter / side)
        if side != size:
            clip = F.interpolate(clip, (size, size), mode="bilinear", antialias=True)
        if u[4] < self.flip:
            clip = mirrored(clip) if self.sees == "flow" else clip.flip(3)
        if self.jitter and self.sees == "frames":
            clip = jittered(clip, *(1 + self.jitter * (2 * x - 1) for x in u[5:8]))
        return replace(example, pixels=clip)


def taken(clip: Tensor, frames: int, place: float) -> Tensor:
    """(T, …) → (frames, …): as many in a row, `place` of the way from first to last possible start; the last frame is
    held where the clip is shorter.
    """
    start = round(place * max(0, len(clip) - frames))
    some = clip[start : start + frames]
    return torch.cat([some, some[-1:].expand(frames - len(some), *some.shape[1:])]) if len(some) < frames else some
