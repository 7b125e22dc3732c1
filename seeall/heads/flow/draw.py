"""Flow that can be looked at: colours for directions, a wheel that explains them, errors, the second frame put back.

Colours are those of Baker et al. 2011 (A Database and Evaluation Methodology for Optical Flow), by torchvision; the
stronger a colour the faster, up to a speed that is written below the wheel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import flow_to_image

from seeall.data.annotations.truth import Truth
from seeall.data.decode import Pixels
from seeall.data.motion.fields import Field
from seeall.metrics.flow import errors_of

_QUANTILE = 0.99
_GAP = 4
_READABLE = 320
"""Pictures are drawn enlarged as long as their longer side is not above this, px."""
_WHEEL, _LETTERS = 24, 12.0
"""Least sides of the wheel, and least size of the letters below it, px."""


def fastest(*fields: NDArray[np.float32]) -> float:
    """A speed that nearly nothing of these (H, W, 2) is above, px; at least one."""
    lengths = np.concatenate([np.sqrt((field**2).sum(-1)).ravel() for field in fields])
    return float(max(1.0, np.quantile(lengths, _QUANTILE)))


def coloured(vectors: NDArray[np.float32], scale: float, known: NDArray[np.bool_] | None = None) -> Pixels:
    """(H, W, 2) px → (H, W, 3) uint8: strongest at `scale` px and beyond; black where not known."""
    length = np.sqrt((vectors**2).sum(-1, keepdims=True))
    shown = vectors * np.minimum(1, scale / np.maximum(length, 1e-9))
    edge = np.zeros((len(shown), 1, 2), np.float32)
    edge[0, 0, 0] = scale  # the colours are relative to the longest vector there is
    both = torch.from_numpy(np.concatenate([shown, edge], 1).astype(np.float32)).permute(2, 0, 1)
    picture: Pixels = flow_to_image(both).permute(1, 2, 0).numpy()[:, :-1].copy()
    if known is not None:
        picture[~known] = 0
    return picture


def wheel(side: int, scale: float, letters: float) -> Pixels:
    """The colour of every direction up to `scale` px, and below it that speed in words, on white: (height, width, 3).

    side: of the wheel, px · letters: their size, px
    """
    line = (np.arange(side) + 0.5) / side * 2 - 1
    vectors = np.stack(np.meshgrid(line, line), -1).astype(np.float32)
    disc = coloured(scale * vectors, scale)
    disc[(vectors**2).sum(-1) > 1] = 255
    words, font = f"{scale:.3g} px", ImageFont.load_default(letters)
    left, top, right, bottom = font.getbbox(words)
    edge = round(letters / 4)
    width = max(side, round(right - left)) + 2 * edge
    paper = Image.new("RGB", (width, side + round(bottom - top) + 3 * edge), (255, 255, 255))
    paper.paste(Image.fromarray(disc), ((width - side) // 2, edge))
    place = ((width - right - left) / 2, side + 2 * edge - top)
    ImageDraw.Draw(paper).text(place, words, (0, 0, 0), font)
    return np.asarray(paper)


def _enlarged(picture: Pixels) -> Pixels:
    """(H, W, 3) as it is; a small one larger by a whole number."""
    factor = max(1, _READABLE // max(picture.shape[:2]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def on_the_frame(frame: Pixels, truth: Truth, classes: Sequence[str]) -> Pixels:
    """(H, W, 3), and beside it what is known of how it moves."""
    if truth.motion is None:
        return frame
    moving = coloured(truth.motion.vectors, fastest(truth.motion.vectors), truth.motion.known)
    return np.concatenate([frame, moving], 1)


def put_back(second: Pixels, vectors: NDArray[np.float32]) -> Pixels:
    """The second frame (H, W, 3) seen where the flow (H, W, 2) px says that its pixels were: as the first, if all is
    right and nothing was hidden. Black where the flow leads out of it.
    """
    height, width = second.shape[:2]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    grid = np.stack([(x + vectors[..., 0]) * 2 / width, (y + vectors[..., 1]) * 2 / height], -1) - 1
    frame = torch.from_numpy(np.array(second)).permute(2, 0, 1)[None].float()
    back = F.grid_sample(frame, torch.from_numpy(grid).float()[None], align_corners=False)[0]
    pixels: Pixels = back.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels


def errors(said: NDArray[np.float32], true: Field, scale: float) -> Pixels:
    """(H, W, 3): end-point errors from black, none, over red to white, `scale` px and more; blue where not known."""
    share = np.minimum(errors_of(said, true.vectors) / scale, 1)[..., None]
    heat = np.clip(3 * share - np.arange(3), 0, 1)
    picture: Pixels = np.round(255 * heat).astype(np.uint8)
    picture[~true.known] = (40, 60, 120)
    return picture


def beside(first: Pixels, said: NDArray[np.float32], scale: float) -> Pixels:
    """The first frame (H, W, 3), left, and its flow (H, W, 2), right, small ones enlarged, with the wheel in a corner
    where there is room for it.
    """
    colours = _enlarged(coloured(said, scale))
    height, width = colours.shape[:2]
    corner = wheel(max(_WHEEL, min(height, width) // 5), scale, max(_LETTERS, (height * width) ** 0.5 / 20))
    if corner.shape[0] < height and corner.shape[1] < width:
        colours[: corner.shape[0], : corner.shape[1]] = corner
    return np.concatenate([_enlarged(first), np.full((height, _GAP, 3), 255, np.uint8), colours], 1)


def panel(frames: NDArray[np.uint8], said: NDArray[np.float32], true: Field | None = None) -> Pixels:
    """Side by side: the second frame put back, the first, the flow said, and, where there is, the true one and errors;
    small ones enlarged.

    frames: (2, H, W, 3).
    """
    scale = fastest(said) if true is None else fastest(true.vectors[true.known][None], said)
    parts = [_enlarged(put_back(frames[1], said)), beside(frames[0], said, scale)]
    if true is not None:
        parts += [_enlarged(coloured(true.vectors, scale, true.known)), _enlarged(errors(said, true, scale))]
    gap = np.full((parts[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for one in parts for part in (one, gap)][:-1], 1)
