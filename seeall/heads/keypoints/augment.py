"""Two frames of a stretch, drawn by key anew for every epoch, and what they go through, both alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from seeall.data import keyed
from seeall.data.annotations.examples import Example
from seeall.data.annotations.truth import Truth
from seeall.heads.augment import jittered
from seeall.types import SeeallError

_STREAM = 0x7A9


@dataclass(frozen=True, kw_only=True)
class PairAugment:
    """flip: chance of a mirror image · jitter: brightness, contrast and saturation change by factors up to 1 ± jitter

    Raises: SeeallError for values out of bounds.
    """

    flip: float = 0.5
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise SeeallError(f"setting 'flip' is {self.flip}: choose 0 to 1")
        if not 0 <= self.jitter < 1:
            raise SeeallError(f"setting 'jitter' is {self.jitter}: choose a share from 0 and below 1")

    def __call__(self, example: Example, size: int, *key: int) -> Example:
        """example: frames (T, 3, H, W) → two of them, source and target, squeezed to (2, 3, size, size)."""
        u = keyed.uniform(*key, _STREAM, n=7).tolist()
        frames = len(example.pixels)
        apart = 1 + int(u[0] * (frames - 1))
        first = int(u[1] * (frames - apart))
        rows = [first, first + apart] if u[2] < 0.5 else [first + apart, first]
        pixels = squeezed(example.pixels[rows], size)
        if u[3] < self.flip:
            pixels = pixels.flip(-1)
        if self.jitter:
            pixels = jittered(pixels, *(1 + self.jitter * (2 * x - 1) for x in u[4:7]))
        return replace(example, pixels=pixels, truth=Truth())


def squeezed(pixels: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) uint8 → (N, 3, size, size), whatever its proportions."""
    if tuple(pixels.shape[-2:]) == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
