"""SimCLR's NT-Xent over groups, which over labels is SupCon.

NT-Xent (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", eq. 1)
has one positive an anchor. L_out of SupCon (Khosla et al. 2020, "Supervised Contrastive Learning", eq. 2)
allows any number of them, and with two views a picture the two are equal. With s_ij = z_i.z_j / T:

    L = mean over anchors i of   log sum_{j != i} exp s_ij  -  1/|P(i)| sum_{p in P(i)} s_ip

P(i) is every other row of i's group. A row alone in its group is a negative for all others and no anchor.
Departure: the papers have no such rows, and sum where this takes the mean.

Decoupled (DCL: Yeh et al. 2022, "Decoupled Contrastive Learning", arXiv:2110.06848, eq. 6), the sum is over rows of
other groups alone: an anchor whose positive is close already goes on learning. With a queue the sum takes in the
remembered rows of other groups; with reweighted negatives it is what `negatives/reweighted.py` says.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.ssl.negatives.all import All
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.reweighted import Reweighted
from seeall.ssl.similarity import UNSHIFTED, log_sum, memory_logsumexp, similarity_logsumexp
from seeall.types import SeeallError


class SimCLR(nn.Module):
    """Pulls the rows of a group together and pushes all others apart, in memory linear in N.

    Args:
        negatives: whom it pushes away, and how much.
        temperature: T. Small values weigh the nearest negatives more; 0.1 to 0.5 is usual.
        decoupled: leave positives out of the sum.
        learn_temperature: T is learnt, from `temperature` on, and stays at or above 0.02.

    Raises:
        SeeallError: temperature is not a finite number above 0, or decoupled is asked for with reweighted negatives,
            which are so already.
    """

    def __init__(
        self,
        negatives: All | Queue | Reweighted = All(),
        *,
        temperature: float = 0.1,
        decoupled: bool = False,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        least = 1 / UNSHIFTED if learn_temperature else 0
        if not least <= temperature < math.inf or temperature == 0:
            raise SeeallError(
                f"simclr: temperature must be {f'{least} or more' if least else 'above 0'}, not {temperature}; "
                "0.1 to 0.5 is usual"
            )
        if decoupled and isinstance(negatives, Reweighted):
            raise SeeallError("simclr: reweighted negatives are decoupled already; leave decoupled out")
        self.negatives, self.decoupled, self.temperature = negatives, decoupled, temperature
        if learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.learns = learn_temperature

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """The loss, and what it is made of.

        Args:
            z: (N, D), any length and float type; made unit length here, in float32 or, if so given, float64.
            groups: (N,) int64, equal where rows belong together; any values.

        Returns: `loss`; without gradient, over the anchors, `alignment`, the mean cosine of positives, and
            `uniformity`, the mean over i of log mean_j exp(-|z_i - z_j|^2 / 2T) over the j of the sum (after Wang
            and Isola 2020): 0 when all rows agree, lower the better they spread; `temperature` where it is learnt.
            A batch without positives gives 0.

        Raises:
            ValueError: z is not (N, D), or groups is not (N,).
        """
        if z.ndim != 2 or groups.shape != z.shape[:1]:
            raise ValueError(f"want z (N, D) and groups (N,), not {(*z.shape,)} and {(*groups.shape,)}")
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
            group, sizes = count(groups)
            positives = sizes[group] - 1
            temperature = self._temperature().to(z) if self.learns else self.temperature
            anchor = positives > 0
            anchors = anchor.sum().clamp(min=1)

            sums = torch.zeros_like(z).index_add(0, group, z)
            cosine = (z * (sums[group] - z)).sum(1) / positives.clamp(min=1)
            if isinstance(self.negatives, Reweighted):
                losses, lse, among = self.negatives(z, group, sizes, temperature)
                some = among > 0
            else:
                lse, among = self._others(z, groups, group, positives, temperature)
                some = among > 0  # a decoupled anchor may be without anything to sum over; it has nothing to say
                losses = torch.where(some, lse, 0) - torch.where(some, cosine, 0) / temperature
            loss = torch.where(anchor, losses, 0).sum() / anchors

            alignment = torch.where(anchor, cosine, 0).sum().detach() / anchors
            spread = torch.where(some, lse, 0).detach() - among.clamp(min=1).log() - 1 / temperature
            uniformity = torch.where(anchor & some, spread, 0).sum().detach() / anchors
        told = {"loss": loss, "alignment": alignment, "uniformity": uniformity}
        return told | ({"temperature": temperature.detach()} if isinstance(temperature, Tensor) else {})

    def _temperature(self) -> Tensor:
        """T as it is learnt; the parameter itself is held at its least, for a clamped one would not move again."""
        with torch.no_grad():
            self.log_temperature.clamp_(min=-math.log(UNSHIFTED))
        return self.log_temperature.exp()

    def _others(
        self, z: Tensor, groups: Tensor, group: Tensor, positives: Tensor, temperature: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each row is compared with: the log of its sum, (N,), and over how many rows that is, (N,)."""
        lse = similarity_logsumexp(z, temperature, groups=group if self.decoupled else None)
        among = (len(z) - 1 - positives * self.decoupled).to(z)
        if isinstance(self.negatives, Queue):
            rows, owners = (x[len(z) :] for x in self.negatives.recall(z, groups))
            if len(rows):
                lse = log_sum(lse, memory_logsumexp(z, temperature, groups, rows, owners))
                among = among + (groups[:, None] != owners).sum(1)
        return lse, among


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
