"""The margin loss: one boundary β between what is near and what is far, and a margin on either side of it.

Wu, Manmatha, Smola and Krähenbühl 2017, "Sampling Matters in Deep Embedding Learning", arXiv:1706.07567, eq. 5 and 6,
with y = 1 for a positive pair and -1 for a negative one, d the Euclidean distance of rows of length one:

    L = max(0, α + y (d - β)) + ν β

β is learnt, at a rate of its own. The mean is over the pairs that cost something, as in the authors' code. Departure:
one β for all, not one a class, since groups need not be classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.negatives import mining
from seeall.ssl.negatives.all import All
from seeall.types import SeeallError


class Margin(nn.Module):
    """Positives nearer than β - α, negatives farther than β + α.

    Args:
        negatives: which pairs of a batch count.
        margin: α, a distance.
        beta: β, where it starts; points spread evenly are about 1.41 apart.
        beta_lr: the learning rate of β; 0 leaves it where it is.
        nu: ν, the pull on β towards 0.

    Raises:
        SeeallError: margin or beta is not above 0 and below 2, beta_lr or nu is below 0.
    """

    def __init__(
        self,
        negatives: mining.Negatives = All(),
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        beta_lr: float = 5e-4,
        nu: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("margin", margin), ("beta", beta)):
            if not 0 < value < 2:
                raise SeeallError(f"margin: {name} is {value}: choose above 0 and below 2; 0.2 and 1.2 are usual")
        for name, value in (("beta_lr", beta_lr), ("nu", nu)):
            if not 0 <= value < torch.inf:
                raise SeeallError(f"margin: {name} is {value}: choose 0 or more")
        self.negatives, self.margin, self.nu = negatives, margin, nu
        self.beta = nn.Parameter(torch.tensor(beta), requires_grad=beta_lr > 0)
        self.own_rates = {"beta": beta_lr} if beta_lr else {}

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """z: (N, D) of any length, groups: (N,) int64 → loss, beta, and what was found; see `mining.told`.

        A batch without pairs gives ν β.
        """
        with torch.autocast(z.device.type, enabled=False):
            positive, negative = mining.pairs(z, groups, self.negatives)
            beta = self.beta.to(positive)
            near, far = F.relu(self.margin + positive - beta), F.relu(self.margin + beta - negative)
            loss = mining.active_mean(torch.cat([near, far])) + self.nu * beta
            return {"loss": loss, "beta": beta.detach(), **mining.told(positive, negative, far > 0)}
