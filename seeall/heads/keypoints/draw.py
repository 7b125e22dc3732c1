"""Keypoints that can be looked at: a colour for each, the surer the larger, and where they have been of late."""

from __future__ import annotations

import colorsys
import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from seeall.data.annotations.truth import Truth
from seeall.data.decode import Pixels

TRAIL = 12
"""Frames that a trail is long."""
_READABLE = 320
"""Pictures are drawn enlarged as long as their longer side is not above this, px."""
_GAP = 4
_DOT = 0.014
"""Radius of a keypoint, as a share of the picture's sides; up to twice as much where it is sure."""


def colours(count: int) -> list[tuple[int, int, int]]:
    """As many strong colours, evenly around the wheel."""
    wheel = (colorsys.hsv_to_rgb(k / max(1, count), 1, 1 if k % 2 else 0.85) for k in range(count))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in wheel]


def marked(pixels: Pixels, points: Sequence[NDArray[np.float32]], true: NDArray[np.floating] | None = None) -> Pixels:
    """A picture (H, W, 3) and its keypoints, small ones enlarged by a whole number.

    points: (K, 3) each, x and y, px, and how sure; the last ones are the picture's own, the others came before it
    true: (K, 2) places where a cross is drawn, px; NaN where none is
    """
    factor = max(1, _READABLE // max(pixels.shape[:2]))
    paper = Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1))
    pen, unit = ImageDraw.Draw(paper, "RGBA"), _DOT * (paper.width * paper.height) ** 0.5
    for k, colour in enumerate(colours(len(points[-1]))):
        line = [(factor * float(x), factor * float(y)) for x, y in (one[k, :2] for one in points)]
        for i, (start, end) in enumerate(itertools.pairwise(line), start=1):
            pen.line([start, end], (*colour, round(255 * i / len(line))), max(1, round(unit / 2)))
        (x, y), radius = line[-1], unit * (1 + float(points[-1][k, 2]))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour, (255, 255, 255), max(1, round(unit / 3)))
        if true is not None and np.isfinite(true[k]).all():
            (x, y), arm = (factor * true[k]).tolist(), 1.5 * unit
            for dx, dy in ((arm, arm), (arm, -arm)):
                pen.line([(x - dx, y - dy), (x + dx, y + dy)], (255, 255, 255), max(1, round(unit / 3)))
    return np.asarray(paper)


def panel(frames: Pixels, points: NDArray[np.float32], truth: Truth) -> Pixels:
    """The frames (T, H, W, 3) of a stretch with their keypoints (T, K, 3), side by side; on the last one, where this is
    known, white crosses where those of the first that are on things should be.
    """
    true = None
    if truth.motion is not None and truth.masks is not None:
        height, width = truth.motion.known.shape
        x, y = (points[0, :, k].astype(np.int64).clip(0, most - 1) for k, most in enumerate((width, height)))
        on = np.asarray(truth.masks[:, y, x].any(0))[:, None]
        true = np.where(on, points[0, :, :2] + truth.motion.vectors[y, x], np.nan)
    shown = [marked(f, list(points[: t + 1]), true if t == len(frames) - 1 else None) for t, f in enumerate(frames)]
    gap = np.full((shown[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for one in shown for part in (one, gap)][:-1], 1)


class Trails:
    """Frames of clips, one after another, each drawn with where its keypoints were in the last ones of its clip."""

    def __init__(self) -> None:
        self._clip: tuple[str, tuple[int, ...]] | None = None
        self._points: deque[NDArray[np.float32]] = deque(maxlen=TRAIL + 1)

    def draw(self, pixels: Pixels, points: NDArray[np.float32], clip: str | None) -> Pixels:
        """The next picture (H, W, 3) and its keypoints (K, 3). clip: what it is a frame of, or None."""
        now = None if clip is None else (clip, pixels.shape)
        if now is None or now != self._clip:
            self._points.clear()
        self._clip = now
        self._points.append(points)
        return marked(pixels, list(self._points))
