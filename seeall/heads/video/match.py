"""Where the pixels of a frame lay in an earlier one, by matching windows: no network, and a few milliseconds.

The displacement measurement of Jain and Jain 1981, coarse to fine. For each pixel of a frame halved `levels` times, of
all shifts of at most `reach` the one after which the window around it differs least, as the sum of absolute
differences; then, in frames ever twice as large, of the nine around twice that shift. Shifts are whole pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_STILL = 1e-3
"""What a pixel of shift costs, of the range of pixels: where nothing tells, nothing moves."""


@torch.no_grad()
def lay(new: Tensor, old: Tensor, *, levels: int = 2, reach: int = 4, window: int = 5) -> Tensor:
    """new, old: (1, C, H, W), pixels of range 1 → (2, H, W) int64, row and column in `old` of each pixel of `new`.

    levels: how often frames are halved · reach: of the first search, in pixels of the smallest frame, so that motion of
    about 2 ** levels * reach px is found · window: its side, px of each frame; odd
    """
    sizes = [(new.mean(1, keepdim=True), old.mean(1, keepdim=True))]
    for _ in range(levels):
        a, b = (F.avg_pool2d(one, 2, ceil_mode=True) for one in sizes[-1])
        sizes.append((a, b))
    a, b = sizes.pop()
    shift = _best(a[0, 0], b[0, 0], reach, window)
    while sizes:
        a, b = (one[0, 0] for one in sizes.pop())
        doubled = 2 * shift.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : a.shape[0], : a.shape[1]]
        shift = doubled + _best(a, look(b, _places(doubled)), 1, window)
    return _places(shift)


def look(old: Tensor, at: Tensor) -> Tensor:
    """old: (…, H, W), at: (2, H, W), rows and columns → (…, H, W), what is there."""
    return old[..., at[0], at[1]]


def _places(shift: Tensor) -> Tensor:
    """Rows and columns, none beyond the border."""
    height, width = shift.shape[1:]
    rows, columns = (torch.arange(side, device=shift.device) for side in (height, width))
    return torch.stack([
        (rows[:, None] + shift[0]).clamp_(0, height - 1), (columns + shift[1]).clamp_(0, width - 1)
    ])  # fmt: skip


def _best(a: Tensor, b: Tensor, reach: int, window: int) -> Tensor:
    """a, b: (H, W) → (2, H, W), the shift of each pixel, the shorter one where two are as good."""
    steps, (height, width) = range(-reach, reach + 1), a.shape
    tried = sorted(((dy, dx) for dy in steps for dx in steps), key=lambda one: abs(one[0]) + abs(one[1]))
    wide = F.pad(b[None, None], (reach,) * 4, mode="replicate")[0, 0]
    cost = torch.stack([
        wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in tried
    ])  # fmt: skip
    cost = _sums(_sums(cost.sub_(a).abs_(), window, 1), window, 2)
    shifts = torch.tensor(tried, device=a.device)
    cost += window**2 * _STILL * shifts.abs().sum(1).view(-1, 1, 1)
    return shifts[cost.min(0).indices].movedim(-1, 0)


def _sums(x: Tensor, window: int, axis: int) -> Tensor:
    """Of `window` entries around each along an axis; of those that there are, at the ends."""
    total, size = x.clone(), x.shape[axis]
    for k in range(1, min(window // 2, size - 1) + 1):
        total.narrow(axis, 0, size - k).add_(x.narrow(axis, k, size - k))
        total.narrow(axis, k, size - k).add_(x.narrow(axis, 0, size - k))
    return total
