"""`random`: for every positive pair one negative, each as likely as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from seeall.ssl.negatives.mining import Candidates, Triplets


class Random:
    """Draws from torch's generator, which pretraining seeds by step, the same on every process."""

    def __call__(self, found: Candidates) -> Triplets:
        """One triplet for every positive pair of an anchor that has a negative."""
        return draw(found, found.negative.float())


def draw(found: Candidates, weights: Tensor) -> Triplets:
    """For every positive pair one negative, drawn with replacement with odds of weights (N, M), not below 0.

    Anchors whose weights are all 0 draw nothing.
    """
    able = weights.sum(1) > 0
    a, p = (found.positive & able[:, None]).nonzero(as_tuple=True)
    if not len(a):
        return a, p, p
    each = found.positive.sum(1)
    drawn = torch.multinomial(weights[able], int(each.max()), replacement=True)
    place = able.cumsum(0) - 1
    turn = (found.positive.cumsum(1) - 1)[a, p]
    return a, p, drawn[place[a], turn]
