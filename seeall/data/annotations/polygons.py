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
_LONGEST = 7
"""Characters of a number in a run-length encoding, which has 32 bits."""
_CORNERS = 64
"""Of the polygon that stands for an ellipse."""


def mask(outline: Outline, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """(H, W) of one outline. Raises SeeallError for a run-length encoding of another size, or one that is broken."""
    if isinstance(outline, dict):
        return np.asarray(coco.decode(whole(outline, height, width, where)), np.bool_)
    if not outline:
        return np.zeros((height, width), np.bool_)
    return np.asarray(coco.decode(_joined(outline, height, width)), np.bool_)


def area(outline: Outline, height: int, width: int, where: str) -> int:
    """Pixels of `mask`, counted without it. Raises as `mask` does."""
    if isinstance(outline, dict):
        return int(coco.area(whole(outline, height, width, where)))
    return int(coco.area(_joined(outline, height, width))) if outline else 0


def whole(outline: dict[str, Any], height: int, width: int, where: str) -> dict[str, Any]:
    """A run-length encoding with its counts as text, found to fit the picture without decoding it.

    Raises: SeeallError for one of another size, or one that is broken.
    """
    if tuple(outline["size"]) != (height, width):
        said = "x".join(str(n) for n in reversed(outline["size"]))
        raise SeeallError(f"{where}: a mask of {said} px for a picture of {width}x{height} px; scale either")
    return _packed(outline, where)


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


def upright_box(box: Box, orientation: int, height: int, width: int) -> Box:
    """A box in a picture as it lies in its file, `height` by `width` px → in that set upright.

    orientation: EXIF's, 5 to 8, of those that swap height and width
    """
    x0, y0, x1, y1 = box
    left, right = (y0, y1) if orientation in (5, 8) else (height - y1, height - y0)
    top, bottom = (x0, x1) if orientation in (5, 6) else (width - x1, width - x0)
    return left, top, right, bottom


def upright(outline: Outline, orientation: int, height: int, width: int, where: str) -> Outline:
    """The same for an outline. Raises SeeallError for a run-length encoding of another size, or one that is broken."""
    across, down = (1 if orientation in kept else -1 for kept in ((5, 8), (5, 6)))
    if isinstance(outline, dict):
        return encode(mask(outline, height, width, where).T[::down, ::across])
    start = np.array([0 if across > 0 else height, 0 if down > 0 else width])
    return [start + polygon[:, ::-1] * (across, down) for polygon in outline]


def _joined(outline: Sequence[Polygon], height: int, width: int) -> Any:
    """The run-length encoding of at least one polygon."""
    flat = [np.ascontiguousarray(polygon, np.float64).ravel().tolist() for polygon in outline]
    return coco.merge(coco.frPyObjects(flat, height, width))


def _packed(outline: dict[str, Any], where: str) -> dict[str, Any]:
    """A run-length encoding with its counts as text, found to be whole."""
    try:
        height, width = (int(n) for n in outline["size"])
        counts = outline["counts"]
        if isinstance(counts, list):
            wrong = [n for n in counts if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= height * width]
            if wrong:
                raise ValueError(f"{repr(wrong[0])[:40]} among its counts, want whole numbers of 0 to {height * width}")
            counts = coco.frPyObjects(outline, height, width)["counts"]
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        if (there := _length(counts)) != height * width:
            raise ValueError(f"counts of {there} px for {height * width} px")
        return {"size": [height, width], "counts": counts}
    except (ValueError, TypeError, KeyError, OverflowError, RuntimeError) as fault:
        raise SeeallError(
            f"{where}: broken run-length encoding: {str(fault).splitlines()[0]}; write it again"
        ) from None


def _length(counts: bytes) -> int:
    """The sum of run lengths written as text: six bits a character, of which one says that the number goes on.

    From the third on, a number is the difference to the one before last. Raises ValueError for what is no such text.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        raise ValueError("text that is no run lengths")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _LONGEST:
        raise ValueError("a run that is too long")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((bits & 31) << shifts, starts) - ((bits[ends] >> 4 & 1) << 5 * sizes)
    runs = np.concatenate([numbers[:1], numbers[1::2].cumsum(), numbers[2::2].cumsum()])
    if runs.min() < 0:
        raise ValueError("a run of less than nothing")
    return int(runs.sum())
