"""What the objectives over pairs share: who is whose twin, the type they calculate in, a curve."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def twins(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs among rows: of every group its first and second row, its third and fourth, and so on.

    groups: (N,) int64, equal where rows belong together; any values. An odd last row has no twin.
    Returns: a and b, (n,) int64 each: row numbers of the first and the second of every pair. A GPU's host
        waits once, for n.

    >>> twins(torch.tensor([7, 3, 7, 3, 3, 5]))
    (tensor([1, 0]), tensor([3, 2]))
    """
    if groups.ndim != 1:
        raise ValueError(f"want groups (N,), not {(*groups.shape,)}")
    order = groups.argsort(stable=True)
    ordered = groups[order]
    place = torch.arange(len(groups), device=groups.device)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    rank = place - torch.where(first, place, 0).cummax(0).values if len(groups) else place
    second = (rank % 2 == 1).nonzero().flatten()
    return order[second - 1], order[second]


def rows(z: Tensor, groups: Tensor, like: Tensor | None = None) -> Tensor:
    """z: (N, D) of any float type → the same in float32, in float64 where it is that, or in the type of `like`.

    like: (…, D), weights that the rows are to meet.
    Raises: ValueError where z is not (N, D), groups not (N,), or D another than that of `like`.
    """
    if z.ndim != 2 or groups.shape != z.shape[:1]:
        raise ValueError(f"want z (N, D) and groups (N,), not {(*z.shape,)} and {(*groups.shape,)}")
    if like is None:
        return z if z.dtype == torch.float64 else z.float()
    if z.shape[1] != like.shape[-1]:
        raise ValueError(f"want z of {like.shape[-1]} dimensions, not {z.shape[1]}")
    return z.to(like.dtype)


@torch.no_grad()
def alignment(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The mean cosine of pairs, 0 without any. z: (N, D); a, b: (n,) from `twins`."""
    unit = F.normalize(z, dim=1)
    return (unit[a] * unit[b]).sum() / max(len(a), 1)


def nothing(z: Tensor, objective: nn.Module) -> Tensor:
    """A loss of 0 with a gradient of 0 for z and every weight: DDP waits for a weight that has none."""
    total = z.sum() * 0
    for weight in objective.parameters():
        total = total + weight.sum() * 0
    return total
