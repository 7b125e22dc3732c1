"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2), by lightly's `BarlowTwinsLoss`.

    L = Σ_i (1 - C_ii)² + λ Σ_i Σ_{j≠i} C_ij²

C (D, D) is the correlation, over the n pairs, of the dimensions of the first rows with those of the second.
As in lightly, 10⁻⁵ is added to every variance. Means and variances are taken over the first and the second rows
apart, so it matters which of a pair comes first, not where it stands.
"""

from __future__ import annotations

import math

import torch
from lightly.loss import BarlowTwinsLoss
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class BarlowTwins(nn.Module):
    """Makes each dimension agree within pairs and differ from all other dimensions; no negatives.

    Args:
        redundancy: λ, the weight of the correlations between different dimensions.

    Raises:
        SeeallError: redundancy is not a finite number from 0.
    """

    def __init__(self, *, redundancy: float = 0.005) -> None:
        super().__init__()
        if not 0 <= redundancy < math.inf:
            raise SeeallError(f"barlow_twins: redundancy must be 0 or above, not {redundancy}; 0.005 is usual")
        self.criterion = BarlowTwinsLoss(lambda_param=redundancy)

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """The loss in float32 or, where z is that, float64.

        z: (N, D), not normalised; groups: (N,) int64. Rows without a twin take no part.
        Returns: `loss`, 0 for fewer than two pairs, which have no variance; `alignment`, the mean cosine of pairs.
        Raises: ValueError where the shapes are others.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = rows(z, groups)
            a, b = twins(groups)
            loss = self.criterion(z[a], z[b]) if len(a) > 1 else nothing(z, self)
            return {"loss": loss, "alignment": alignment(z, a, b)}
