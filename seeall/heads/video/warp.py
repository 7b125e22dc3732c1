"""Masks carried along by flow, from the frames that have one to those beside them.

For frames k, k + 1, …, a pixel x of frame j lay at x + b_j(x) in frame j - 1, b_j being the flow from j back to j - 1.
So where it lay in frame k is a chain of such steps,

    c_k(x) = x,   c_j(x) = c_{j-1}(x + b_j(x)),

looked up between pixels at each step, while the mask itself is looked up once, in frame k: its edges are not blurred.
A step counts only where it leads into the picture and the flow f_j from j - 1 to j leads back (Sundaram, Brox and
Keutzer 2010, eq. 5):  |b_j + f_j|² < 0.01 (|b_j|² + |f_j|²) + 0.5.  Where one step does not, nothing is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from seeall.data.annotations.truth import IGNORE

Between = Callable[[int, int], NDArray[np.float32]]
"""Two frames → the flow from the first to the second, (H, W, 2), px."""
_SLOPE, _SLACK = 0.01, 0.5


def chain(frames: Sequence[int], between: Between) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each frame after the first: its number, where its pixels lay in the first, (2, H, W) px, and which are known."""
    where: Tensor | None = None
    known: Tensor | None = None
    for before, now in itertools.pairwise(frames):
        back, forth = (_planes(between(*pair)) for pair in ((now, before), (before, now)))
        grid = _grid(back)
        if where is None or known is None:
            where, known = grid, torch.ones_like(grid[0], dtype=torch.bool)
        at = grid + back
        returned = looked_up(forth, at)
        off = (back + returned).square().sum(0)
        holds = off < _SLOPE * (back.square().sum(0) + returned.square().sum(0)) + _SLACK
        height, width = grid.shape[1:]
        inside = (at[0] >= -0.5) & (at[0] <= width - 0.5) & (at[1] >= -0.5) & (at[1] <= height - 0.5)
        where, known = looked_up(where, at), looked_up(known[None].float(), at, "nearest")[0].bool() & holds & inside
        yield now, where, known


def moved(mask: NDArray[np.uint8], where: Tensor, known: Tensor) -> NDArray[np.uint8]:
    """The mask (H, W) of the first frame, where its pixels are now; IGNORE where that is not known."""
    column, row = (where[k].round().long().clamp(0, side - 1) for k, side in ((0, mask.shape[1]), (1, mask.shape[0])))
    found = torch.from_numpy(np.ascontiguousarray(mask))[row, column]
    return found.masked_fill(~known, IGNORE).numpy()


def looked_up(planes: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """planes: (C, H, W), at: (2, H, W) x and y, px → their values there, those of the border beyond it."""
    height, width = planes.shape[1:]
    scale = torch.tensor([2 / width, 2 / height]).view(2, 1, 1)
    places = ((at + 0.5) * scale - 1).permute(1, 2, 0)[None]
    return F.grid_sample(planes[None], places, mode, "border", align_corners=False)[0]


def _planes(flow: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(flow, 2, 0)))


def _grid(like: Tensor) -> Tensor:
    """(2, H, W): x and y of each pixel."""
    height, width = like.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows]).float()
