"""Detectors of two stages: where boxes are cut out of maps, whatever was seen first and however high it was."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seeall.backbones.load import build as build_backbone
from seeall.heads import build
from seeall.heads.about import About

SMALL = {"width": 16, "hidden": 16, "proposals": 20, "sampled": 8, "score": 0.0}
BOXES = torch.tensor([[40.0, 24, 61, 45], [30, 20, 47.5, 60], [16, 18, 134, 140], [33, 30, 151, 147]])


def head_of(model: str, size: int, **settings: Any) -> tuple[Any, build.Recipe]:
    torch.manual_seed(0)
    task = "instance" if model == "mask-rcnn" else "detection"
    made = SMALL | ({"mask_width": 16} if model == "mask-rcnn" else {}) | settings
    recipe = build.Recipe(task, model, ("a", "b"), size, "shufflenet_v2_x0_5", {}, {"model": made})
    backbone, _ = build_backbone("shufflenet_v2_x0_5")
    return build.assemble(recipe, backbone, About(size)).eval(), recipe


def ramps(height: int, width: int, strides: list[int]) -> dict[str, Tensor]:
    """Maps whose cells say where their middles lie in the picture, x and y, px."""
    maps = {}
    for k, stride in enumerate(strides):
        rows, columns = (-(-side // stride) for side in (height, width))
        maps[str(k)] = torch.zeros(1, 2, rows, columns)
        for i, j in itertools.product(range(rows), range(columns)):
            maps[str(k)][0, :, i, j] = torch.tensor([(j + 0.5) * stride, (i + 0.5) * stride])
    return maps


def middles(box: list[float], side: int, strides: list[int]) -> np.ndarray:
    """(2, side, side): where the parts of a box have their middles, a part at a time.

    Lin et al. 2017 (arXiv:1612.03144), eq. 1: k = ⌊4 + log2(√(wh) / 224)⌋ says which map, of stride 2^k, it is cut out
    of. He et al. 2017 (arXiv:1703.06870) sample at coordinates by the stride, where the middle of the first cell is
    taken to be 0: half a cell too far. No box is taken for smaller than a cell.
    """
    x0, y0, x1, y1 = box
    level = math.floor(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 224))
    stride = min(max(2**level, strides[0]), strides[-1])
    width, height = max(x1 - x0, stride), max(y1 - y0, stride)
    found = np.zeros((2, side, side))
    for i, j in itertools.product(range(side), range(side)):
        found[0, i, j] = x0 + (j + 0.5) * width / side + stride / 2
        found[1, i, j] = y0 + (i + 0.5) * height / side + stride / 2
    return found


@pytest.mark.parametrize("finest", [4, 8, 32])
@pytest.mark.parametrize("height", [20, 33, 45, 66, 130, 160])
def test_boxes_are_cut_out_of_maps_where_they_lie(height: int, finest: int) -> None:
    """The height of the first picture does not count, nor that maps are those of a picture filled up to 32 px."""
    heads = head_of("mask-rcnn", height, finest=finest)[0].network.roi_heads
    strides = [stride for stride in (4, 8, 16, 32) if stride >= finest]
    filled = -(-height // 32) * 32
    first = ramps(filled, 224, strides)
    inside = torch.tensor([[2.0, 2.0, 18.0, 18.0]])
    for pool, side in ((heads.box_roi_pool, 7), (heads.mask_roi_pool, 14)):
        pool(first, [inside], [(height, 200)])
        cut = pool(ramps(192, 192, strides), [BOXES], [(180, 190)])
        for box, there in zip(BOXES.tolist(), cut):
            np.testing.assert_allclose(there, middles(box, side, strides), atol=1e-3)


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
def test_what_is_found_does_not_hang_on_which_picture_came_first(model: str, tmp_path: Path) -> None:
    head, recipe = head_of(model, 40)
    build.save(head, recipe, tmp_path)
    other, again = copy.deepcopy(head), build.load(tmp_path)[0].cpu()
    drawn = torch.Generator().manual_seed(1)
    wide, tall = (
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=drawn) for size in ((40, 60), (60, 40))
    )
    first = head.predict([wide, tall])[0].found
    second, loaded = other.predict([tall, wide])[1].found, again.predict([tall, wide])[1].found
    assert len(first.scores)
    for found in (second, loaded):
        np.testing.assert_array_equal(first.scores, found.scores)
        np.testing.assert_array_equal(first.boxes, found.boxes)
