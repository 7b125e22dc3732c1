"""From a batch to the distances that a loss on pairs or on triplets is made of.

Every row of z is an anchor. Its positives are the other rows of its group, its negatives the rows of other groups
and, where there is a queue, the remembered rows of other groups. A *miner* is a callable that sees all distances,
without gradient, and answers with triplets: the numbers (a, p, n) of T anchors, positives and negatives. Distances are
Euclidean, between rows of length one, so from 0 to 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.ssl.negatives.all import All
from seeall.ssl.negatives.queue import Queue
from seeall.types import SeeallError

MOST = 1 << 25
"""Triplets that are looked at in one batch, at most: their numbers alone take 24 bytes each."""


@dataclass(frozen=True)
class Candidates:
    """What a miner chooses from: N anchors, and M rows that they are compared with, the first N being themselves.

    distance: (N, M), without gradient · positive, negative: (N, M) bool · dim: D, the dimension of the rows
    """

    distance: Tensor
    positive: Tensor
    negative: Tensor
    dim: int


Triplets = tuple[Tensor, Tensor, Tensor]
Miner = Callable[[Candidates], Triplets]
Negatives = Miner | All | Queue


def triplets(z: Tensor, groups: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
    """z (N, D) of any length and groups (N,) → distances of T triplets, anchor to positive and anchor to negative.

    Raises: SeeallError where a batch holds more triplets than can be looked at.
    """
    found, distance = _candidates(z, groups, negatives)
    a, p, n = _every_triplet(found) if isinstance(negatives, (All, Queue)) else _chosen(found, negatives)
    return distance[a, p], distance[a, n]


def pairs(z: Tensor, groups: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
    """The same for a loss on pairs: distances of positive pairs, and of negative ones.

    All pairs of the batch, in both orders, where `negatives` is all or a queue; else (a, p) and (a, n) of every
    triplet.
    """
    found, distance = _candidates(z, groups, negatives)
    if isinstance(negatives, (All, Queue)):
        return distance[found.positive], distance[found.negative]
    a, p, n = _chosen(found, negatives)
    return distance[a, p], distance[a, n]


def _chosen(found: Candidates, miner: Miner) -> Triplets:
    """What a miner finds, which need not mind a batch without rows."""
    if len(found.distance):
        return miner(found)
    none = torch.zeros(0, dtype=torch.int64, device=found.distance.device)
    return none, none, none


def _candidates(z: Tensor, groups: Tensor, negatives: Negatives) -> tuple[Candidates, Tensor]:
    if z.ndim != 2 or groups.shape != z.shape[:1]:
        raise ValueError(f"want z (N, D) and groups (N,), not {(*z.shape,)} and {(*groups.shape,)}")
    z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
    rows, owners = negatives.recall(z, groups) if isinstance(negatives, Queue) else (z, groups)
    # not by way of products: near 0 those lose all digits, and the gradient with them
    distance = torch.cdist(z, rows, compute_mode="donot_use_mm_for_euclid_dist")
    positive = groups[:, None] == owners
    negative = ~positive
    positive = positive[:, : len(z)].clone().fill_diagonal_(False)
    positive = F.pad(positive, (0, len(rows) - len(z)))
    return Candidates(distance.detach(), positive, negative, z.shape[1]), distance


def _every_triplet(found: Candidates) -> Triplets:
    """Every positive pair with every negative of its anchor."""
    a, p = found.positive.nonzero(as_tuple=True)
    many = found.negative.sum(1)
    most = int(many[a].sum())
    if most > MOST:
        raise SeeallError(
            f"a batch holds {most:,} triplets, more than the {MOST:,} that fit; choose --negatives semihard, hard, "
            "distance or random, or a smaller --batch-size"
        )
    each = many[a]
    pair = torch.repeat_interleave(torch.arange(len(a), device=a.device), each, output_size=most)
    nth = torch.arange(most, device=a.device) - (each.cumsum(0) - each)[pair]
    negatives, first = found.negative.nonzero()[:, 1], many.cumsum(0) - many
    return a[pair], p[pair], negatives[first[a[pair]] + nth]


def active_mean(losses: Tensor) -> Tensor:
    """The mean of the terms above zero; 0, with a gradient of 0, where there are none."""
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def told(positive: Tensor, negative: Tensor, active: Tensor) -> dict[str, Tensor]:
    """What a miner found, as scalars without gradient.

    `found`, how many triplets, or negative pairs; `active`, the share of them that still cost something;
    `d_positive`, `d_negative`, mean distances to positives and negatives, 0 where there are none.
    """
    with torch.no_grad():
        return {
            "found": torch.tensor(float(len(negative)), device=negative.device),
            "active": active.float().sum() / max(active.numel(), 1),
            "d_positive": positive.sum() / max(len(positive), 1),
            "d_negative": negative.sum() / max(len(negative), 1),
        }
