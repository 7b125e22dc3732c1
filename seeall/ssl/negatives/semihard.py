"""`semihard`: negatives that are farther than the positive, but not by the margin.

FaceNet (Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832, eq. 4): d(a,p)² < d(a,n)², inside the margin. The
paper takes some of them; here all of them count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from seeall.types import SeeallError

if TYPE_CHECKING:
    from seeall.ssl.negatives.mining import Candidates, Triplets


_HELD = 1 << 22
"""Distances that are looked at together; all at once they would be as many as pairs times rows."""


class SemiHard:
    """d(a,p)² < d(a,n)² <= d(a,p)² + margin.

    margin: of squared distances; a triplet loss with a smaller one gets triplets that cost nothing.

    Raises: SeeallError where margin is not from 0 to 4.
    """

    def __init__(self, *, margin: float = 0.2) -> None:
        if not 0 < margin <= 4:
            raise SeeallError(
                f"semihard: margin is {margin}: choose above 0, up to 4; that of the triplet loss is usual"
            )
        self.margin = margin

    def __call__(self, found: Candidates) -> Triplets:
        """All triplets of that kind."""
        a, p = found.positive.nonzero(as_tuple=True)
        squared, parts = found.distance.square(), []
        together = max(1, _HELD // squared.shape[1])
        for anchor, positive in zip(torch.split(a, together), torch.split(p, together)):
            beyond = squared[anchor] - squared[anchor, positive][:, None]
            pair, n = (found.negative[anchor] & (beyond > 0) & (beyond <= self.margin)).nonzero(as_tuple=True)
            parts.append(torch.stack([anchor[pair], positive[pair], n]))
        a, p, n = torch.cat(parts, dim=1)
        return a, p, n
