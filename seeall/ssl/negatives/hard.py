"""`hard`: every anchor with its farthest positive and its nearest negative.

"Batch hard" (Hermans, Beyer and Leibe 2017, "In Defense of the Triplet Loss for Person Re-Identification",
arXiv:1703.07737, eq. 5). At the start of training it may draw all rows together, where the loss of a triplet equals
the margin and no longer moves: `semihard` and the soft margin, of distances that are not squared, are less prone to it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeall.ssl.negatives.mining import Candidates, Triplets


class Hard:
    """The first row of equally far ones is taken."""

    def __call__(self, found: Candidates) -> Triplets:
        """One triplet for every anchor that has a positive and a negative."""
        anchors = (found.positive.any(1) & found.negative.any(1)).nonzero().flatten()
        farthest = found.distance.masked_fill(~found.positive, -math.inf).argmax(1)
        nearest = found.distance.masked_fill(~found.negative, math.inf).argmin(1)
        return anchors, farthest[anchors], nearest[anchors]
