"""Looking at a large picture in pieces that overlap, and putting together what was seen in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from seeall.heads.prediction import BATCH, Prediction
from seeall.metrics.detection import Found

Tile = tuple[int, int, int, int]
"""Left, top, right and bottom, px."""
_NMS = 0.5
_EDGE = 2
"""A box that ends so near, px, to where its tile ends inside the picture was cut, and another tile has it whole."""


def tiles(height: int, width: int, side: int, overlap: int) -> list[Tile]:
    """Squares of `side` px, or less where the picture is, that cover it and overlap by `overlap` or more.

    >>> tiles(100, 250, 100, 20)
    [(0, 0, 100, 100), (75, 0, 175, 100), (150, 0, 250, 100)]
    """

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = -(-(length - overlap) // (side - overlap))
        return [round(k * (length - side) / (count - 1)) for k in range(count)]

    return [(x, y, min(x + side, width), min(y + side, height)) for y in starts(height) for x in starts(width)]


See = Callable[[Sequence[Tensor]], list[Prediction]]


def predict(see: See, picture: Tensor, side: int, overlap: int) -> Prediction:
    """What `see` says of a picture (3, H, W) uint8 when shown its tiles.

    A class for each pixel is taken from the tile in which it lies farthest from the edge. Things that a tile cuts are
    left to its neighbour, or, where they are larger than what two tiles share, to a look at the whole picture; of what
    was found twice, the surer one stays. Scores of whole pictures are averaged.
    """
    height, width = picture.shape[1:]
    places = tiles(height, width, side, overlap)
    said: list[Prediction] = []
    for start in range(0, len(places), BATCH):
        said += see([picture[:, y0:y1, x0:x1] for x0, y0, x1, y1 in places[start : start + BATCH]])
    if said[0].semantic is not None:
        return Prediction(semantic=_painted(said, places, height, width))
    if said[0].found is not None:
        said += see([picture])
        places.append((0, 0, width, height))
        return Prediction(found=_gathered([p.found for p in said if p.found is not None], places, height, width))
    return Prediction(scores=np.mean([p.scores for p in said if p.scores is not None], axis=0))


def _painted(said: Sequence[Prediction], places: Sequence[Tile], height: int, width: int) -> NDArray[np.uint8]:
    painted, depth = np.zeros((height, width), np.uint8), np.full((height, width), -1.0)
    for prediction, (x0, y0, x1, y1) in zip(said, places):
        here = np.minimum(_from_edge(y0, y1, height)[:, None], _from_edge(x0, x1, width)[None, :])
        nearer = here > depth[y0:y1, x0:x1]
        assert prediction.semantic is not None
        painted[y0:y1, x0:x1][nearer] = prediction.semantic[nearer]
        depth[y0:y1, x0:x1][nearer] = here[nearer]
    return painted


def _from_edge(start: int, stop: int, whole: int) -> NDArray[np.float64]:
    """(stop - start,) how far each pixel is from where the tile ends inside the picture, px."""
    place = np.arange(start, stop)
    before = place - start if start > 0 else np.inf
    after = stop - 1 - place if stop < whole else np.inf
    return np.minimum(before, after) * np.ones(stop - start)


def _gathered(said: Sequence[Found], places: Sequence[Tile], height: int, width: int) -> Found:
    boxes, scores, classes, origins = [], [], [], list[tuple[int, int]]()
    for k, (found, (x0, y0, x1, y1)) in enumerate(zip(said, places)):
        inner = np.array([x0 > 0, y0 > 0, x1 < width, y1 < height])
        gap = np.abs(found.boxes - np.array([0, 0, x1 - x0, y1 - y0], np.float32))
        cut = (inner & (gap < _EDGE)).any(1)
        boxes.append(found.boxes[~cut] + np.array([x0, y0, x0, y0], np.float32))
        scores.append(found.scores[~cut])
        classes.append(found.classes[~cut])
        origins += [(k, int(row)) for row in np.flatnonzero(~cut)]
    b, s, c = np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes)
    kept = batched_nms(torch.from_numpy(b), torch.from_numpy(s), torch.from_numpy(c), _NMS).numpy()
    masks = None if said[0].masks is None else np.zeros((len(kept), height, width), bool)
    for mask, i in zip(masks if masks is not None else (), kept):
        k, row = origins[i]
        x0, y0, x1, y1 = places[k]
        mask[y0:y1, x0:x1] = said[k].masks[row]
    return Found(boxes=b[kept], scores=s[kept], classes=c[kept], masks=masks)
