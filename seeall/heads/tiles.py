"""Looking at a large picture in pieces that overlap, and putting together what was seen in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from seeall.heads.prediction import Prediction, together
from seeall.metrics.detection import Found, Masks

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
    left to its neighbour, or, where they are larger than what two tiles share, to a look at the whole picture, made as
    small as a tile; of what was found twice, the surer one stays. Scores of whole pictures are averaged.
    """
    height, width = picture.shape[1:]
    places = tiles(height, width, side, overlap)
    said: list[Prediction] = []
    for some in together(places, lambda tile: (tile[3] - tile[1], tile[2] - tile[0])):
        said += see([picture[:, y0:y1, x0:x1] for x0, y0, x1, y1 in some])
    if said[0].semantic is not None:
        return Prediction(semantic=_painted(said, places, height, width))
    if said[0].found is not None:
        said.append(Prediction(found=_whole(see, picture, side, overlap)))
        places.append((0, 0, width, height))
        return Prediction(found=_gathered([p.found for p in said if p.found is not None], places, height, width))
    return Prediction(scores=np.mean([p.scores for p in said if p.scores is not None], axis=0))


def _whole(see: See, picture: Tensor, side: int, overlap: int) -> Found:
    """The things that no tile may have whole, found when the picture has no more pixels than a tile.

    Returns: boxes at the picture's own size, masks at that at which they were found.
    """
    height, width = picture.shape[1:]
    scale = min(1.0, side / (height * width) ** 0.5)
    small = max(1, int(scale * height)), max(1, int(scale * width))
    if small != (height, width):
        picture = F.interpolate(picture[None], small, mode="bilinear", antialias=True)[0]
    found = see([picture])[0].found
    assert found is not None
    boxes = found.boxes * np.array([width / small[1], height / small[0]] * 2, np.float32)
    boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
    large = (boxes[:, 2:] - boxes[:, :2] > overlap - 2 * _EDGE).any(1)
    masks = None if found.masks is None else found.masks[large]
    return Found(boxes=boxes[large], scores=found.scores[large], classes=found.classes[large], masks=masks)


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
    masks = None
    if said[0].masks is not None:
        laid = (_laid(said[k], row, places[k], height, width) for k, row in (origins[i] for i in kept))
        masks = Masks.pack(laid, height, width)
    return Found(boxes=b[kept], scores=s[kept], classes=c[kept], masks=masks)


def _laid(found: Found, row: int, place: Tile, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) the mask of one thing where it lies, enlarged where it was found in a picture made smaller."""
    assert found.masks is not None
    x0, y0, x1, y1 = place
    mask, laid = found.masks[row], np.zeros((height, width), np.bool_)
    if mask.shape != (y1 - y0, x1 - x0):
        down, across = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((y1 - y0, x1 - x0), mask.shape))
        mask = mask[down[:, None], across]
    laid[y0:y1, x0:x1] = mask
    return laid
