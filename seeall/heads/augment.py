"""What a picture and its truth go through together before a head learns from them, drawn by key.

A window of the picture, between `crop_min` and `crop_max` of its sides and of its proportions, becomes the whole; it
may reach over the edge, where there is nothing to see and nothing to find. Then a flip, and a change of brightness,
contrast and colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seeall.data import keyed
from seeall.data.annotations.examples import Example, scaled
from seeall.data.annotations.truth import IGNORE, Truth
from seeall.data.scenes.dataset import tight_boxes
from seeall.types import SeeallError

_STREAM = 0xA06
_VISIBLE = 0.25
"""A thing is dropped where less than this share of its box is left in the window, and that is less than this share of
the window. A crowd stays, since what is no crowd and no thing is background."""
_FILL = 124
"""What lies over the edge: about the mean colour of pictures."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """flip: chance of a mirror image · crop_min, crop_max: sides of the window, as shares of the picture's
    jitter: brightness, contrast and saturation change by factors up to 1 ± jitter

    Raises: SeeallError for values out of bounds.
    """

    flip: float = 0.5
    crop_min: float = 0.6
    crop_max: float = 1.0
    jitter: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise SeeallError(f"setting 'flip' is {self.flip}: choose a chance, 0 to 1")
        if not 0 < self.crop_min <= self.crop_max <= 4:
            raise SeeallError(
                f"settings 'crop_min' and 'crop_max' are {self.crop_min} and {self.crop_max}: choose shares of the "
                "picture's sides above 0, the least first, 4 at most"
            )
        if not 0 <= self.jitter < 1:
            raise SeeallError(f"setting 'jitter' is {self.jitter}: choose a share from 0 and below 1")

    def __call__(self, example: Example, size: int, *key: int) -> Example:
        """The same example, which has that size already, changed as `key` says."""
        u = keyed.uniform(*key, _STREAM, n=7).tolist()
        height, width = example.pixels.shape[1:]
        share = self.crop_min + u[0] * (self.crop_max - self.crop_min)
        h, w = max(1, round(share * height)), max(1, round(share * width))
        top, left = _place(u[1], height, h), _place(u[2], width, w)
        pixels, truth = example.pixels, example.truth
        if (top, left, h, w) != (0, 0, height, width):
            pixels, truth = _window(pixels, truth, (top, left, h, w))
        if u[3] < self.flip:
            pixels, truth = pixels.flip(2), _mirrored(truth, width)
        if self.jitter:
            pixels = jittered(pixels, *(1 + self.jitter * (2 * x - 1) for x in u[4:]))
        return replace(example, pixels=pixels, truth=truth)


def _place(u: float, whole: int, part: int) -> int:
    """Where a window begins: inside, or around the whole where it is larger."""
    return round(u * (whole - part))


def _window(pixels: Tensor, truth: Truth, window: tuple[int, int, int, int]) -> tuple[Tensor, Truth]:
    """top, left, height and width of what becomes the whole picture."""
    top, left, h, w = window
    height, width = pixels.shape[1:]
    cut = _cut(pixels.numpy(), window, _FILL)
    grown = F.interpolate(torch.from_numpy(cut)[None], (height, width), mode="bilinear", antialias=True)[0]
    boxes = truth.boxes - np.array([left, top, left, top], np.float32)
    inside = boxes.clip(0, np.array([w, h, w, h], np.float32))
    sizes, rest = (np.prod(b[:, 2:] - b[:, :2], 1) for b in (boxes, inside))
    masks = None if truth.masks is None else _cut(truth.masks, window, False)
    kept = (rest > 0) & (truth.crowd | (rest >= _VISIBLE * np.minimum(sizes, h * w)))
    if masks is not None:
        kept &= masks.any((1, 2))
        masks = masks[kept]
    found = replace(
        truth, boxes=inside[kept], classes=truth.classes[kept], crowd=truth.crowd[kept], masks=masks,
        semantic=None if truth.semantic is None else _cut(truth.semantic, window, IGNORE),
    )  # fmt: skip
    seen = scaled(found, (h, w), (height, width))
    if seen.masks is None:
        return grown, seen
    there = seen.masks.any((1, 2))  # what is left of a thing may be too little to be seen at this scale
    masks = seen.masks[there]
    return grown, replace(
        seen, boxes=tight_boxes(masks), classes=seen.classes[there], crowd=seen.crowd[there], masks=masks
    )


def _cut(values: NDArray[Any], window: tuple[int, int, int, int], fill: int | bool) -> NDArray[Any]:
    """(…, H, W) → (…, h, w), `fill` where the window reaches over the edge."""
    top, left, h, w = window
    rows, columns = values.shape[-2:]
    y0, y1, x0, x1 = max(top, 0), min(top + h, rows), max(left, 0), min(left + w, columns)
    if (y0, x0, y1 - y0, x1 - x0) == (top, left, h, w):
        return np.ascontiguousarray(values[..., y0:y1, x0:x1])
    cut = np.full((*values.shape[:-2], h, w), fill, values.dtype)
    cut[..., y0 - top : y1 - top, x0 - left : x1 - left] = values[..., y0:y1, x0:x1]
    return cut


def _mirrored(truth: Truth, width: int) -> Truth:
    boxes = truth.boxes.copy()
    boxes[:, [0, 2]] = width - truth.boxes[:, [2, 0]]
    return replace(
        truth,
        boxes=boxes,
        masks=None if truth.masks is None else truth.masks[..., ::-1],
        semantic=None if truth.semantic is None else truth.semantic[:, ::-1],
    )


def jittered(pixels: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """(…, 3, H, W) uint8, each of the three changed by its factor."""
    x = pixels.float() * brightness
    x = (x - x.mean()) * contrast + x.mean()
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)
    return (grey + (x - grey) * saturation).clamp(0, 255).round().to(torch.uint8)
