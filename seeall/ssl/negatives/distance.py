"""`distance`: negatives drawn so that all distances are seen about equally often.

Wu, Manmatha, Smola and Krähenbühl 2017, "Sampling Matters in Deep Embedding Learning", arXiv:1706.07567, section 4.
Points spread evenly over the unit sphere in D dimensions are mostly √2 apart: the density of their distances is

    q(d) ~ d^(D-2) (1 - d²/4)^((D-3)/2)

and a negative at distance d is drawn with odds min(λ, 1/q(d)), where λ = 1/q(cutoff). So what is nearer than the cutoff
is no likelier than it is, and neither is what lies beyond √2, where the density falls again. Weights are found as
logarithms, less the largest of their row, so none of them is infinite and they are never all 0.
As in the authors' code, negatives beyond `farthest` are left out, as they cost nothing; an anchor that has no others
draws evenly from all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seeall.ssl.negatives.random import draw
from seeall.types import SeeallError

if TYPE_CHECKING:
    from seeall.ssl.negatives.mining import Candidates, Triplets


class DistanceWeighted:
    """One negative for every positive pair.

    cutoff: no negative is likelier than one at this distance; the nearest are the noisiest
    farthest: negatives beyond are not drawn; 1.4 is nearly √2, where most of a sphere lies

    Raises: SeeallError where not 0 < cutoff < farthest <= 2.
    """

    def __init__(self, *, cutoff: float = 0.5, farthest: float = 1.4) -> None:
        if not 0 < cutoff < farthest <= 2:
            raise SeeallError(
                f"distance: cutoff is {cutoff}, farthest {farthest}: choose 0 < cutoff < farthest <= 2; "
                "0.5 and 1.4 are usual"
            )
        self.cutoff, self.farthest = cutoff, farthest

    def __call__(self, found: Candidates) -> Triplets:
        """One triplet for every positive pair of an anchor that has a negative."""
        return draw(found, self.weights(found))

    def weights(self, found: Candidates) -> Tensor:
        """(N, M), the odds of each negative, the largest of a row being 1; 0 for what is no negative."""
        d = found.distance.clamp(min=self.cutoff)
        inverse = _inverse(d, found.dim)
        inverse = inverse.minimum(_inverse(d.new_full((), self.cutoff), found.dim))
        near = found.negative & (found.distance < self.farthest)
        near = torch.where(near.any(1, keepdim=True), near, found.negative)
        inverse = torch.where(found.negative & near & (found.distance >= self.farthest), 0, inverse)
        inverse = inverse.masked_fill(~near, -math.inf)
        return (inverse - inverse.amax(1, keepdim=True).clamp(min=-1e30)).exp()


def _inverse(d: Tensor, dim: int) -> Tensor:
    """log(1/q(d)), but for a constant."""
    return (2 - dim) * d.log() - (dim - 3) / 2 * (1 - d.square() / 4).clamp(min=1e-8).log()
