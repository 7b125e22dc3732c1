"""Anchors: the boxes that a detector starts from, the usual ones or some that fit a data set.

The fit is k-means with 1 - IoU of width and height for a distance, as in YOLO9000 (Redmon and Farhadi 2017,
arXiv:1612.08242, section 2), with medians in place of means, for every level of the pyramid by itself: anchors of a
level lie a stride apart, so large strides are no use to small boxes, however many of these there are.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from seeall.data import keyed
from seeall.types import SeeallError

Shapes = list[list[tuple[float, float]]]
"""For each level of a pyramid, widths and heights in px."""
_ROUNDS = 100


def usual(strides: list[int], *, scale: float, octaves: int) -> Shapes:
    """Three proportions (1:2, 1:1, 2:1) at `octaves` sizes from `scale` strides to below twice as much.

    >>> usual([8], scale=4, octaves=1)
    [[(45.25, 22.63), (32.0, 32.0), (22.63, 45.25)]]
    """
    return [
        [
            (round(size * ratio**-0.5, 2), round(size * ratio**0.5, 2))
            for size in (scale * stride * 2 ** (k / octaves) for k in range(octaves))
            for ratio in (0.5, 1.0, 2.0)
        ]
        for stride in strides
    ]


def generator(shapes: Shapes) -> AnchorGenerator:
    """torchvision's, with exactly these."""
    made = AnchorGenerator(tuple((1.0,) * len(level) for level in shapes), ((1.0,),) * len(shapes))
    cells = [torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in level]) for level in shapes]
    made.cell_anchors = cells
    return made


def overlap(sizes: Tensor, anchors: Tensor) -> Tensor:
    """IoU (n, k) of boxes and anchors, both of (·, 2) width and height, laid on one centre."""
    shared = torch.minimum(sizes[:, None], anchors[None]).prod(2)
    return shared / (sizes.prod(1)[:, None] + anchors.prod(1)[None] - shared)


def fit(boxes: Tensor, strides: list[int], each: int, *, scale: float, seed: int = 0) -> Shapes:
    """Anchors for boxes (n, 4) xyxy, px: `each`, three or nine, for the level of every stride, smallest first.

    A level's are fitted to the boxes whose size, the root of the area, is from `scale` strides to below twice as much;
    the finest takes smaller boxes too, the coarsest larger ones. A level with too few boxes has the usual ones.

    Raises: SeeallError where all levels have too few.
    """
    sizes = (boxes[:, 2:] - boxes[:, :2]).double().round(decimals=2).clamp(min=1.0)
    octave = (sizes.prod(1).sqrt() / scale).log2()
    found = usual(strides, scale=scale, octaves=each // 3)
    bounds = [-torch.inf, *(math.log2(stride) for stride in strides[1:]), torch.inf]
    fitted = 0
    for level, (low, high) in enumerate(itertools.pairwise(bounds)):
        mine = sizes[(octave >= low) & (octave < high)]
        if len(mine.unique(dim=0)) >= each:  # type: ignore[no-untyped-call]
            found[level], fitted = medians(mine, each, keyed.seed(seed, level)), fitted + 1
    if not fitted:
        raise SeeallError(
            f"setting 'anchors' is fit: {len(boxes)} boxes are too few to fit {each} anchors a level to; leave it out"
        )
    return found


def medians(sizes: Tensor, k: int, seed: int = 0) -> list[tuple[float, float]]:
    """k anchors for widths and heights (n, 2), px, k of them different at least; smallest first."""
    distinct = sizes.unique(dim=0)  # type: ignore[no-untyped-call]
    order = distinct[distinct.prod(1).argsort()]
    anchors = order[torch.linspace(0, len(order) - 1, k).round().long()]
    for turn in range(_ROUNDS):
        nearest = overlap(sizes, anchors).argmax(1)
        moved = torch.stack(
            [
                sizes[nearest == i].median(0).values if (nearest == i).any()
                else sizes[int(keyed.bits(seed, turn, i) % len(sizes))]
                for i in range(k)
            ]
        )  # fmt: skip
        if torch.equal(moved, anchors):
            break
        anchors = moved
    return [(round(w, 2), round(h, 2)) for w, h in anchors[anchors.prod(1).argsort()].tolist()]
