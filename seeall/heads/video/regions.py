"""Where a frame differs from another one, and the few rectangles that hold all of it.

A picture is divided in blocks; the last row and column of them may be smaller. A grid (rows, columns) has an entry for
each block, a box is left, top, right and bottom.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Box = tuple[int, int, int, int]
CELL = 8
"""Side of what differences are averaged over, px: noise goes, small things stay."""


def differing(a: Tensor, b: Tensor, block: int) -> NDArray[np.float32]:
    """a, b: (1, C, H, W) → (⌈H / block⌉, ⌈W / block⌉): of each block, the mean absolute difference of that cell of
    8 px a side in which it is the largest. 8 divides `block`.
    """
    cells = F.avg_pool2d((a - b).abs().mean(1, keepdim=True), CELL, ceil_mode=True)
    most: NDArray[np.float32] = F.max_pool2d(cells, block // CELL, ceil_mode=True)[0, 0].cpu().numpy()
    return most


def boxes(changed: NDArray[np.bool_]) -> list[Box]:
    """The bounding box, in blocks, of each set of blocks that touch at a side or a corner.

    >>> boxes(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], bool))
    [(0, 0, 2, 2), (3, 2, 4, 3)]
    """
    left, found = {(int(y), int(x)) for y, x in np.argwhere(changed)}, list[Box]()
    while left:
        stack = [min(left)]
        left.discard(stack[0])
        rows, columns = list[int](), list[int]()
        while stack:
            y, x = stack.pop()
            rows.append(y)
            columns.append(x)
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
        found.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return found


def grown(box: Box, by: int, width: int, height: int) -> Box:
    """`by` more at each side, within the picture."""
    left, top, right, bottom = box
    return max(0, left - by), max(0, top - by), min(width, right + by), min(height, bottom + by)


def area(box: Box) -> int:
    """Of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def joined(some: Sequence[Box], by: int, width: int, height: int) -> list[Box]:
    """Two boxes become one that holds both wherever that, once all are grown, is not the larger area.

    >>> joined([(0, 0, 2, 2), (2, 0, 4, 2), (30, 0, 32, 2)], 1, 40, 9)
    [(30, 0, 32, 2), (0, 0, 4, 2)]
    """
    left = list(some)

    def cost(box: Box) -> int:
        return area(grown(box, by, width, height))

    k = 0
    while k < len(left):
        a = left[k]
        for b in left[k + 1 :]:
            both = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
            if cost(both) <= cost(a) + cost(b):
                left = [box for box in left if box not in (a, b)] + [both]
                k = -1
                break
        k += 1
    return left
