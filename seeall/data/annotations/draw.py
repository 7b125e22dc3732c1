"""What is in a picture, known or predicted, drawn on it: boxes with names; masks and classes of pixels as tints."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seeall.data.annotations.truth import IGNORE, Truth
from seeall.data.decode import Pixels

_TINT = 0.45
"""How much of a tint is seen on a mask; the picture is the rest."""
_LEAST = 0.004
"""Share of the picture below which the pixels of a class get no name."""
_GRID = 96
"""Longest side of the grid on which a place for a name is looked for."""
_FIRST = (
    (230, 60, 60), (40, 120, 230), (250, 190, 30), (40, 170, 80), (170, 80, 210), (245, 130, 40), (60, 200, 210),
    (240, 90, 190), (150, 200, 40), (130, 90, 50), (20, 130, 130), (250, 160, 150), (100, 110, 240), (190, 160, 90),
    (120, 30, 70), (150, 220, 180),
)  # fmt: skip


def palette(n: int) -> NDArray[np.uint8]:
    """(n, 3) sRGB: colours for n classes, near ones unlike each other."""
    more = []
    for k in range(len(_FIRST), n):
        r, g, b = colorsys.hsv_to_rgb(k * 0.618034 % 1, (0.85, 0.55, 0.7)[k % 3], (0.95, 0.6, 0.8)[k // 3 % 3])
        more.append((round(255 * r), round(255 * g), round(255 * b)))
    return np.array([*_FIRST, *more][:n], np.uint8).reshape(-1, 3)


def draw(pixels: Pixels, truth: Truth, classes: Sequence[str], scores: NDArray[np.floating] | None = None) -> Pixels:
    """The picture with what is known of it drawn on.

    pixels: (H, W, 3) · classes: names; pixels of a class called background get no tint · scores: (M,) of the things,
    or (1,) of the label

    Colours are those of the classes; where things have masks, one for each thing, so that neighbours can be told apart.

    Returns: (H, W, 3).
    """
    colours = palette(max(len(classes), len(truth.boxes), 1))
    height, width = pixels.shape[:2]
    values = pixels.astype(np.float32)
    tints = [colours[k if truth.masks is not None else int(c)] for k, c in enumerate(truth.classes)]
    line = max(1, round((height * width) ** 0.5 / 240))
    if truth.semantic is not None:
        tinted = truth.semantic < len(classes)
        tinted &= ~np.isin(truth.semantic, [k for k, name in enumerate(classes) if name == "background"])
        values[tinted] += _TINT * 1.3 * (colours[truth.semantic[tinted]] - values[tinted])
        values[_rim(truth.semantic)] *= 0.35
    for mask, tint in zip(truth.masks if truth.masks is not None else (), tints):
        values[mask] += _TINT * (tint - values[mask])
        edge = mask & _rim(mask, line)
        values[edge] = tint
    picture = Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(9.0, (height * width) ** 0.5 / 36))
    for box, tint in zip(truth.boxes, tints):
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_rgb(tint), width=line)
    for k, (box, c, tint) in enumerate(zip(truth.boxes, truth.classes, tints)):
        words = classes[int(c)] + (f" {scores[k]:.2f}" if scores is not None else "")
        _plate(pen, font, (float(box[0]), float(box[1])), words + " (crowd)" * bool(truth.crowd[k]), tint, above=True)
    if truth.semantic is not None:
        for value in np.unique(truth.semantic).tolist():
            here = truth.semantic == value
            if value != IGNORE and value < len(classes) and classes[value] != "background" and here.mean() > _LEAST:
                _plate(pen, font, _middle(here), classes[value], colours[value], above=False)
    if truth.label is not None:
        words = classes[truth.label] + (f" {scores[0]:.2f}" if scores is not None else "")
        _plate(pen, font, (0.0, 0.0), words, colours[truth.label], above=True)
    return np.asarray(picture)


def _rgb(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in colour)
    return red, green, blue


def _plate(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, at: tuple[float, float], words: str,
    colour: NDArray[np.uint8], *, above: bool,
) -> None:  # fmt: skip
    """Words on a plate: above a corner, or in the middle of a place; within the picture in any case."""
    width, height = pen.im.size
    left, top, right, bottom = font.getbbox(words)
    across, down = right - left + 4, bottom - top + 4
    x, y = (at[0], at[1] - down) if above else (at[0] - across / 2, at[1] - down / 2)
    x, y = max(0.0, min(x, width - across)), max(0.0, min(y, height - down))
    ink = (0, 0, 0) if colour @ np.array([0.3, 0.59, 0.11]) > 140 else (255, 255, 255)
    pen.rectangle((x, y, x + across - 1, y + down - 1), fill=_rgb(colour))
    pen.text((x + 2 - left, y + 2 - top), words, ink, font)


def _rim(values: NDArray[np.uint8] | NDArray[np.bool_], deep: int = 1) -> NDArray[np.bool_]:
    """Pixels within `deep` px of one of another value, to the right or below; for masks on any side."""
    rim = np.zeros(values.shape, np.bool_)
    for k in range(1, deep + 1):
        down, across = values[k:] != values[:-k], values[:, k:] != values[:, :-k]
        rim[:-k] |= down
        rim[:, :-k] |= across
        if values.dtype == np.bool_:
            rim[k:] |= down
            rim[:, k:] |= across
    return rim


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """x and y of a pixel that is far inside the mask."""
    step = max(1, -(-max(mask.shape) // _GRID))
    left = np.pad(mask[::step, ::step], 1)
    if not left.any():
        left = np.pad(mask, 1)
        step = 1
    while True:
        inner = left.copy()
        inner[1:-1, 1:-1] &= left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
        if not inner.any():
            ys, xs = np.nonzero(left)
            k = int(np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2))
            return float((xs[k] - 1) * step), float((ys[k] - 1) * step)
        left = inner
