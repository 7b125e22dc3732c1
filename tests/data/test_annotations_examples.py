"""Pictures and truth at the size a head sees: what vanishes when it is scaled down, and pictures that are very long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seeall.data.annotations.examples import LONGEST, filled_up, load, read
from seeall.data.annotations.truth import IGNORE, Annotated, Truth
from seeall.data.pictures import find


def annotated(folder: Path, height: int, width: int, truth: Truth, knows: str) -> Annotated:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "a.png")
    return Annotated(find(str(folder)), ["x"], frozenset({knows}), [None], lambda note, h, w: truth)


def things(height: int, width: int, sides: list[tuple[int, int]]) -> Truth:
    """One thing after the other along the diagonal, each (place, side)."""
    masks = np.zeros((len(sides), height, width), bool)
    for mask, (at, side) in zip(masks, sides):
        mask[at : at + side, at : at + side] = True
    boxes = np.array([[at, at, at + side, at + side] for at, side in sides], np.float32)
    return Truth(boxes=boxes, classes=np.zeros(len(sides), np.int64), crowd=np.zeros(len(sides), bool), masks=masks)


def test_things_that_vanish_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = things(320, 320, [(10, 100), (150, 2), (201, 3), (250, 40)])
    caplog.set_level("WARNING")
    some = load(annotated(tmp_path, 320, 320, truth, "masks"), 32)
    seen = some[0].truth
    assert some[0].lost == 2 and seen.masks is not None and len(seen.masks) == len(seen.boxes) == len(seen.crowd) == 2
    assert seen.masks.any((1, 2)).all() and seen.boxes[0].tolist() == [1, 1, 11, 11]
    assert "2 things are left out: once pictures have 32 px they cover no pixel" in caplog.text


@pytest.mark.parametrize(("height", "width"), [(4, 600), (600, 4)])
def test_a_long_picture_is_filled_up_before_it_grows(tmp_path: Path, height: int, width: int) -> None:
    semantic = np.zeros((height, width), np.uint8)
    example = read(annotated(tmp_path, height, width, Truth(semantic=semantic), "semantic"), 0, 64)
    assert sorted(example.pixels.shape[1:]) == [64, 64 * LONGEST]
    counts = np.unique(example.truth.semantic, return_counts=True)  # type: ignore[call-overload]
    assert counts[0].tolist() == [0, IGNORE] and counts[1][0] < 0.07 * 64 * 64 * LONGEST
    assert (example.pixels[:, torch.from_numpy(example.truth.semantic == IGNORE)] == 0).float().mean() > 0.97  # type: ignore[arg-type]


def test_other_pictures_are_not_filled_up() -> None:
    pixels, truth = np.zeros((10, 80, 3), np.uint8), things(10, 80, [(1, 3)])
    assert filled_up(pixels, truth) == (pixels, truth)
