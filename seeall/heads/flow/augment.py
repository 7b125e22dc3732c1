"""What a pair of frames and its flow go through together before a head learns from them, drawn by key.

A window becomes what is learnt from: turned, enlarged and mirrored, for both frames alike, and a little differently for
the second, which adds to the flow (Dosovitskiy et al. 2015, arXiv:1504.06852, section 4.3). Then brightness, contrast
and colour change, for both alike, and grey noise is added to each.

With T₁ and T₂ from points of the window to points of the frames, the flow f of a frame's pixel becomes
f′(p) = T₂⁻¹(T₁(p) + f(T₁(p))) - p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.data import keyed
from seeall.data.annotations.examples import Example
from seeall.data.motion.fields import Field
from seeall.heads.augment import jittered
from seeall.types import SeeallError

_STREAM = 0xF10
_SHIFT_APART = 0.03
_TURN_APART, _ZOOM_APART = 0.15, 0.25
"""How much of the turn and of the zoom's range the second frame may differ by."""
_NOISE = 0.04


@dataclass(frozen=True, kw_only=True)
class FlowAugment:
    """flip: chance of a mirror image, across and down alike · turn: degrees, either way · zoom_min, zoom_max: how much
    larger things become · apart: how much of that the second frame differs by, 0 to 1, and as much of 3 % of the
    window's side in place · jitter: brightness, contrast and saturation change by factors up to 1 ± jitter
    noise: at most as much of 4 % of white

    Raises: SeeallError for values out of bounds.
    """

    flip: float = 0.5
    turn: float = 17.0
    zoom_min: float = 0.9
    zoom_max: float = 1.6
    apart: float = 0.5
    jitter: float = 0.3
    noise: float = 0.5

    def __post_init__(self) -> None:
        for name, value, most in (
            ("flip", self.flip, 1.0), ("apart", self.apart, 1.0), ("noise", self.noise, 1.0), ("turn", self.turn, 180.0)
        ):  # fmt: skip
            if not 0 <= value <= most:
                raise SeeallError(f"setting {name!r} is {value}: choose 0 to {most:g}")
        if not 0.1 <= self.zoom_min <= self.zoom_max <= 10:
            raise SeeallError(
                f"settings 'zoom_min' and 'zoom_max' are {self.zoom_min} and {self.zoom_max}: choose 0.1 to 10, the "
                "least first"
            )
        if not 0 <= self.jitter < 1:
            raise SeeallError(f"setting 'jitter' is {self.jitter}: choose a share from 0 and below 1")

    def __call__(self, example: Example, size: int, *key: int) -> Example:
        """example: frames (2, 3, H, W) and their motion → frames (2, 3, size, size), changed as `key` says."""
        u = keyed.uniform(*key, _STREAM, n=16).tolist()
        assert example.truth.motion is not None
        height, width = example.pixels.shape[-2:]
        zoom = self.zoom_min * (self.zoom_max / self.zoom_min) ** u[0]
        turn = math.radians(self.turn) * (2 * u[1] - 1)
        room = (width - size / zoom, height - size / zoom)
        centre = [
            side / 2 + (u[2 + k] - 0.5) * max(0.0, free) for k, (side, free) in enumerate(zip((width, height), room))
        ]
        flips = (u[4] < self.flip, u[5] < self.flip)
        one = _similar(zoom, turn, flips, centre)
        more = self.apart * _ZOOM_APART * math.log(self.zoom_max / self.zoom_min) * (2 * u[6] - 1)
        also = self.apart * _TURN_APART * math.radians(self.turn) * (2 * u[7] - 1)
        away = [self.apart * _SHIFT_APART * size / zoom * (2 * x - 1) for x in u[8:10]]
        other = _similar(zoom * math.exp(more), turn + also, flips, [c + a for c, a in zip(centre, away)])
        pixels = torch.cat([_seen(example.pixels[k : k + 1], to, size) for k, to in enumerate((one, other))])
        if self.jitter:
            pixels = jittered(pixels, *(1 + self.jitter * (2 * x - 1) for x in u[10:13]))
        if self.noise:
            grain = keyed.normal(*key, _STREAM, 1, n=2 * size * size).view(2, 1, size, size)
            pixels = (pixels + 255 * _NOISE * self.noise * u[13] * grain).clamp(0, 255).round().to(torch.uint8)
        return replace(example, pixels=pixels, truth=replace(example.truth, motion=_moved(example, one, other, size)))


class _Affine(NamedTuple):
    """p → matrix · p + shift, px, p from the middle of the window, the result from the frame's corner."""

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        there: np.ndarray = points @ self.matrix.T + self.shift
        return there

    def back(self, points: np.ndarray) -> np.ndarray:
        here: np.ndarray = (points - self.shift) @ np.linalg.inv(self.matrix).T
        return here


def _similar(zoom: float, turn: float, flips: tuple[bool, bool], centre: list[float]) -> _Affine:
    c, s = math.cos(turn) / zoom, math.sin(turn) / zoom
    return _Affine(np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if f else 1.0 for f in flips]), np.array(centre))


def _points(size: int) -> np.ndarray:
    """(size, size, 2) x and y of the middles of the window's pixels, from its own middle, px."""
    line = np.arange(size) + 0.5 - size / 2
    return np.stack(np.meshgrid(line, line), -1)


def _seen(frame: Tensor, to: _Affine, size: int) -> Tensor:
    """(1, 3, H, W) uint8 → (1, 3, size, size) uint8: bilinear, grey beyond the edge."""
    height, width = frame.shape[-2:]
    grid = torch.from_numpy(2 * to(_points(size)) / [width, height] - 1).float()[None]
    seen = F.grid_sample(frame.float() - 127, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (seen + 127).clamp(0, 255).round().to(torch.uint8)


def _moved(example: Example, one: _Affine, other: _Affine, size: int) -> Field:
    motion = example.truth.motion
    assert motion is not None
    height, width = motion.known.shape
    points = _points(size)
    there = one(points)
    x, y = (np.floor(there[..., k]).astype(np.int64) for k in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    flow = other.back(there + motion.vectors[y, x]) - points
    known = inside & motion.known[y, x]
    hidden = None if motion.hidden is None else motion.hidden[y, x]
    return Field(np.where(known[..., None], flow, 0).astype(np.float32), known, hidden)
