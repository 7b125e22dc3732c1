"""SimCLR's NT-Xent over groups, which over labels is SupCon.

NT-Xent (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", eq. 1)
has one positive an anchor. L_out of SupCon (Khosla et al. 2020, "Supervised Contrastive Learning", eq. 2)
allows any number of them, and with two views a picture the two are equal. With s_ij = z_i.z_j / T:

    L = mean over anchors i of   log sum_{j != i} exp s_ij  -  1/|P(i)| sum_{p in P(i)} s_ip

P(i) is every other row of i's group. A row alone in its group is a negative for all others and no anchor.
Departure: the papers have no such rows, and sum where this takes the mean.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.similarity import similarity_logsumexp
from seeall.types import SeeallError


class SimCLR(nn.Module):
    """Pulls the rows of a group together and pushes all others apart, in memory linear in N.

    Args:
        temperature: T. Small values weigh the nearest negatives more; 0.1 to 0.5 is usual.

    Raises:
        SeeallError: temperature is not a finite number above 0.
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise SeeallError(f"simclr: temperature must be above 0, not {temperature}; 0.1 to 0.5 is usual")
        self.temperature = temperature

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """The loss, and what it is made of.

        Args:
            z: (N, D), any length and float type; made unit length here, in float32 or, if so given, float64.
            groups: (N,) int64, equal where rows belong together; any values.

        Returns: `loss`; without gradient, over the anchors, `alignment`, the mean cosine of positives, and
            `uniformity`, the mean over i of log mean_{j != i} exp(-|z_i - z_j|^2 / 2T) (after Wang and Isola
            2020): 0 when all rows agree, lower the better they spread. A batch without positives gives 0.

        Raises:
            ValueError: z is not (N, D), or groups is not (N,).
        """
        if z.ndim != 2 or groups.shape != z.shape[:1]:
            raise ValueError(f"want z (N, D) and groups (N,), not {(*z.shape,)} and {(*groups.shape,)}")
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
            group, sizes = count(groups)
            positives = sizes[group] - 1
            anchor = positives > 0
            anchors = anchor.sum().clamp(min=1)

            sums = torch.zeros_like(z).index_add(0, group, z)
            cosine = (z * (sums[group] - z)).sum(1) / positives.clamp(min=1)
            lse = similarity_logsumexp(z, self.temperature)

            loss = torch.where(anchor, lse - cosine / self.temperature, 0).sum() / anchors
            alignment = torch.where(anchor, cosine, 0).sum().detach() / anchors
            spread = lse.detach() - math.log(max(len(z) - 1, 1)) - 1 / self.temperature
            uniformity = torch.where(anchor, spread, 0).sum() / anchors
        return {"loss": loss, "alignment": alignment, "uniformity": uniformity}


def count(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) groups of any values → each row's group as a number from 0, (N,), and the size of each number, (N,).

    `torch.unique` would tell the same, but a GPU's host would have to wait for the number of groups.

    >>> count(torch.tensor([7, 3, 7]))
    (tensor([1, 0, 1]), tensor([1, 2, 0]))
    """
    order = groups.argsort()
    ordered = groups[order]
    steps = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).long().cumsum(0)])[: len(groups)]
    number = torch.empty_like(steps).scatter_(0, order, steps)
    return number, torch.zeros_like(number).scatter_add_(0, number, torch.ones_like(number))
