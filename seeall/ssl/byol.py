"""BYOL (Grill et al. 2020, arXiv:2006.07733, eq. 2), by lightly's prediction head and cosine.

    L = -½ mean over pairs of   cos(q(z_a), t_b) + cos(q(z_b), t_a)

q is the predictor and t the row as the teacher sees it. The paper's loss, 2 - 2 cos in both directions, is 4 + 4 L:
the same minima. The predictor's BatchNorm takes both views as one batch, as the projector before it does.

Departure: the teacher's momentum does not change on the way; in the paper it rises to 1 along a cosine.
"""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class BYOL(nn.Module):
    """Predicts what the teacher makes of a row's twin; no negatives.

    Args:
        dim: D, width of the rows.
        hidden: width inside the predictor; that of the projector is usual.
        momentum: the share of the teacher's weights that stays at each micro-batch; whoever keeps the teacher reads it.

    Raises:
        SeeallError: a setting is out of its range.
    """

    def __init__(self, dim: int, *, hidden: int = 512, momentum: float = 0.99) -> None:
        super().__init__()
        if hidden < 1:
            raise SeeallError(f"byol: hidden must be at least 1, not {hidden}; 512 to 4096 is usual")
        if not 0 <= momentum < 1:
            raise SeeallError(f"byol: momentum must be from 0 and below 1, not {momentum}; 0.99 is usual")
        self.momentum = momentum
        self.predictor = BYOLPredictionHead(dim, hidden, dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, z: Tensor, groups: Tensor, taught: Tensor) -> dict[str, Tensor]:
        """The loss in the type of the predictor's weights, float32 as a rule.

        z: (N, D); groups: (N,) int64; taught: (N, D), the same rows seen by the teacher, no gradient goes there.
        Rows without a twin take no part.
        Returns: `loss`, -1 to 1, and 0 without pairs; `alignment`, the mean cosine of pairs.
        Raises: ValueError where the shapes are others.
        """
        with torch.autocast(z.device.type, enabled=False):
            weight = self.predictor.layers[0].weight
            z, taught = rows(z, groups, weight), rows(taught, groups, weight).detach()
            a, b = twins(groups)
            if len(a):
                loss = self.criterion(self.predictor(z[torch.cat([a, b])]), taught[torch.cat([b, a])])
            else:
                loss = nothing(z, self)
            return {"loss": loss, "alignment": alignment(z, a, b)}
