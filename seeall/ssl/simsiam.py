"""SimSiam (Chen and He 2021, arXiv:2011.10566, eq. 1 to 4), by lightly's prediction head and cosine.

    L = -½ mean over pairs of   cos(h(z_a), stop(z_b)) + cos(h(z_b), stop(z_a))

h is the predictor; no gradient passes stop. The predictor's BatchNorm takes both views as one batch, as the
projector before it does.
"""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class SimSiam(nn.Module):
    """Predicts a row's twin, without negatives and without a teacher.

    Args:
        dim: D, width of the rows.
        hidden: width inside the predictor; None takes a quarter of D, as the paper does.

    Raises:
        SeeallError: hidden is below 1.
    """

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = max(1, dim // 4) if hidden is None else hidden
        if hidden < 1:
            raise SeeallError(f"simsiam: hidden must be at least 1, not {hidden}; a quarter of the width is usual")
        self.predictor = SimSiamPredictionHead(dim, hidden, dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """The loss in the type of the predictor's weights, float32 as a rule.

        z: (N, D); groups: (N,) int64. Rows without a twin take no part.
        Returns: `loss`, -1 to 1, and 0 without pairs; `alignment`, the mean cosine of pairs.
        Raises: ValueError where the shapes are others.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = rows(z, groups, self.predictor.layers[0].weight)
            a, b = twins(groups)
            if len(a):
                loss = self.criterion(self.predictor(z[torch.cat([a, b])]), z[torch.cat([b, a])].detach())
            else:
                loss = nothing(z, self)
            return {"loss": loss, "alignment": alignment(z, a, b)}
