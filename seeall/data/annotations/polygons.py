"""Outlines of things → masks. A pixel is in a polygon where COCO has it, exactly so for corners on the grid.

Polygons of one thing are united. A run-length encoding counts pixels column by column, off and on in turn, as a list
of numbers or as the text COCO's tools write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco
from numpy.typing import NDArray

from seeall.types import SeeallError

Polygon = NDArray[np.float64]
"""(P, 2) px, P ≥ 3."""
Outline = Sequence[Polygon] | dict[str, Any]
"""Polygons that together are one thing; or a run-length encoding, `size` and `counts`."""
Box = tuple[float, float, float, float]
"""xyxy, px."""
_CORNERS = 64
"""Of the polygon that stands for an ellipse."""


def mask(outline: Outline, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """(H, W) of one outline. Raises SeeallError for a run-length encoding of another size, or one that is broken."""
    if isinstance(outline, dict):
        if tuple(outline["size"]) != (height, width):
            said = "x".join(str(n) for n in reversed(outline["size"]))
            raise SeeallError(f"{where}: a mask of {said} px for a picture of {width}x{height} px; scale either")
        return np.asarray(coco.decode(_packed(outline, where)), np.bool_)
    flat = [np.ascontiguousarray(polygon, np.float64).ravel().tolist() for polygon in outline]
    if not flat:
        return np.zeros((height, width), np.bool_)
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(flat, height, width))), np.bool_)


def bounds(outline: Outline, where: str) -> Box:
    """The box around an outline."""
    if isinstance(outline, dict):
        x, y, width, height = (float(v) for v in coco.toBbox([_packed(outline, where)])[0])
        return x, y, x + width, y + height
    corners = np.concatenate([np.zeros((0, 2)), *outline])
    if not len(corners):
        return 0.0, 0.0, 0.0, 0.0
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return x0, y0, x1, y1


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> Polygon:
    """A polygon for an ellipse around (x, y) of two radii in px, turned by `turn` radians."""
    angle = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    u, v = across * np.cos(angle), down * np.sin(angle)
    return np.stack([x + u * math.cos(turn) - v * math.sin(turn), y + u * math.sin(turn) + v * math.cos(turn)], 1)


def encode(values: NDArray[np.bool_]) -> dict[str, Any]:
    """(H, W) → run-length encoding as COCO's tools write it: `size` and `counts`, which JSON can hold."""
    packed = coco.encode(np.asfortranarray(values, np.uint8))
    counts = packed["counts"]
    return {
        "size": [int(n) for n in packed["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


def _packed(outline: dict[str, Any], where: str) -> dict[str, Any]:
    """A run-length encoding with its counts as text, found to be whole."""
    try:
        height, width = (int(n) for n in outline["size"])
        packed: dict[str, Any] = outline
        if isinstance(outline["counts"], list):
            packed = coco.frPyObjects(outline, height, width)
        coco.decode(packed)
        return packed
    except (ValueError, TypeError, KeyError, OverflowError, RuntimeError) as fault:
        raise SeeallError(
            f"{where}: broken run-length encoding: {str(fault).splitlines()[0]}; write it again"
        ) from None
