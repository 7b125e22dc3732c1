"""VICReg (Bardes, Ponce and LeCun 2022, arXiv:2105.04906, eq. 6), by lightly's `VICRegLoss`.

    L = λ s(A, B) + μ [v(A) + v(B)] / 2 + ν [c(A) + c(B)]

A and B, (n, D), are the first and the second rows of the pairs, s is their mean squared difference, v the mean over
dimensions of max(0, 1 - √(variance + 10⁻⁴)) (eq. 1) and c the sum of the squared covariances of different
dimensions over D (eq. 4). As in the authors' code, and other than eq. 5 and 6, s is also a mean over dimensions and v
is halved. v and c are taken over A and over B apart, so it matters which of a pair comes first, not where it stands.
"""

from __future__ import annotations

import math

import torch
from lightly.loss import VICRegLoss
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class VICReg(nn.Module):
    """Draws pairs together, keeps every dimension's deviation above 1 and dimensions uncorrelated; no negatives.

    Args:
        invariance, variance, covariance: the weights λ, μ and ν.

    Raises:
        SeeallError: a weight is not a finite number from 0.
    """

    def __init__(self, *, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> None:
        super().__init__()
        for name, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
            if not 0 <= value < math.inf:
                raise SeeallError(f"vicreg: {name} must be 0 or above, not {value}; 25, 25 and 1 are usual")
        self.criterion = VICRegLoss(lambda_param=invariance, mu_param=variance, nu_param=covariance)

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
