"""The triplet loss: an anchor is nearer to its positive than to a negative, by a margin.

FaceNet (Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832, eq. 3), with d the Euclidean distance of rows of
length one; and the soft form of it (Hermans, Beyer and Leibe 2017, arXiv:1703.07737, sections 2 and 3.2):

    L = max(0, m + d(a,p)² - d(a,n)²)        L_soft = log(1 + exp(d(a,p) - d(a,n)))

The soft form takes distances as they are, since squared ones pull the less the nearer rows come to each other, and all
rows to one place the sooner. Where two rows coincide their distance has a gradient of 0. Departure: Hermans et al.
leave rows as long as they are.

The mean is over the triplets that cost something, as those that do not would only make it smaller; the papers sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.negatives import mining
from seeall.ssl.negatives.all import All
from seeall.types import SeeallError


class Triplet(nn.Module):
    """Rows of a group nearer to each other than to any other.

    Args:
        negatives: which triplets of a batch count.
        margin: m, of squared distances, which are at most 4.
        soft: the soft form, of distances that are not squared; it has no margin and never stops pulling.

    Raises:
        SeeallError: margin is not from 0 to 4.
    """

    def __init__(self, negatives: mining.Negatives = All(), *, margin: float = 0.2, soft: bool = False) -> None:
        super().__init__()
        if not 0 < margin <= 4:
            raise SeeallError(f"triplet: margin is {margin}: choose above 0, up to 4; 0.2 is usual")
        self.negatives, self.margin, self.soft = negatives, margin, soft

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """z: (N, D) of any length, groups: (N,) int64 → loss, and what was found; see `mining.told`.

        A batch without a triplet gives 0.
        """
        with torch.autocast(z.device.type, enabled=False):
            positive, negative = mining.triplets(z, groups, self.negatives)
            if self.soft:
                losses = F.softplus(positive - negative)
            else:
                losses = F.relu(positive.square() - negative.square() + self.margin)
            return {"loss": mining.active_mean(losses), **mining.told(positive, negative, losses > 0)}
