"""The contrastive loss on pairs: positives to one place, negatives at least a margin away.

Hadsell, Chopra and LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping", eq. 4, with y = 1 for a
positive pair, as is usual now, and d the Euclidean distance of rows of length one:

    L = y d² + (1 - y) max(0, m - d)²

Departure: the paper halves both parts and sums over all pairs. A batch has far more negatives, so here the positives'
mean and the negatives' are added, each over the pairs that cost something.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.negatives import mining
from seeall.ssl.negatives.all import All
from seeall.types import SeeallError


class Contrastive(nn.Module):
    """Rows of a group to one place, all others a margin apart.

    Args:
        negatives: which pairs of a batch count.
        margin: m, a distance; rows of length one are at most 2 apart.

    Raises:
        SeeallError: margin is not from 0 to 2.
    """

    def __init__(self, negatives: mining.Negatives = All(), *, margin: float = 1.0) -> None:
        super().__init__()
        if not 0 < margin <= 2:
            raise SeeallError(f"contrastive: margin is {margin}: choose above 0, up to 2; 1 is usual")
        self.negatives, self.margin = negatives, margin

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """z: (N, D) of any length, groups: (N,) int64 → loss, and what was found; see `mining.told`.

        A batch without pairs gives 0.
        """
        with torch.autocast(z.device.type, enabled=False):
            positive, negative = mining.pairs(z, groups, self.negatives)
            near = positive.square()
            far = F.relu(self.margin - negative).square()
            loss = mining.active_mean(near) + mining.active_mean(far)
            return {"loss": loss, **mining.told(positive, negative, far > 0)}
