"""`reweighted`: NT-Xent in which hard negatives weigh more, and same ones that got among them less.

Robinson, Chuang, Sra and Jegelka 2021, "Contrastive Learning with Hard Negative Samples", arXiv:2010.04592, section
4; with beta 0 it is the debiased loss of Chuang et al. 2020, arXiv:2007.00224, eq. 8, and with tau_plus 0 too NT-Xent
without the anchor's other positives in the sum. With s = z.z / T, one positive p of anchor i, and its n negatives j:

    L_ip = -s_ip + log(exp s_ip + G)
    G    = max( (R - τ⁺ n exp s_ip) / (1 - τ⁺),  n exp(-1/T) )
    R    = n sum_j exp((1 + β) s_ij) / sum_j exp(β s_ij)

R is a quotient of two log-sum-exps, at the temperatures T / (1 + β) and T / β, so memory stays linear in N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from seeall.ssl.similarity import UNSHIFTED, similarity_logsumexp
from seeall.types import SeeallError


class Reweighted:
    """How negatives are weighed.

    beta: β, how much the nearest weigh more; 0 leaves all alike
    tau_plus: τ⁺, the share of negatives taken to be of the anchor's own class after all

    Raises: SeeallError where beta is below 0, or tau_plus is not from 0 and below 1.
    """

    def __init__(self, *, beta: float = 1.0, tau_plus: float = 0.0) -> None:
        if not 0 <= beta < math.inf:
            raise SeeallError(f"reweighted: beta is {beta}: choose 0 or more; 0.5 to 2 is usual")
        if not 0 <= tau_plus < 1:
            raise SeeallError(f"reweighted: tau_plus is {tau_plus}: choose from 0 and below 1; 0 to 0.1 is usual")
        self.beta, self.tau_plus = beta, tau_plus

    def __call__(
        self, z: Tensor, group: Tensor, sizes: Tensor, temperature: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z (N, D), of length one, with numbered groups and their sizes, as `count` gives them.

        Returns, (N,) each: the mean of L_ip over an anchor's positives, 0 where it has none or no negative; log R; n.
        """
        positives = sizes[group] - 1
        among = (len(z) - 1 - positives).to(z)
        some = among > 0
        log_r = similarity_logsumexp(
            z, temperature / (1 + self.beta), groups=group, least=1 / UNSHIFTED / (1 + self.beta)
        )
        if self.beta:
            base = similarity_logsumexp(z, temperature / self.beta, groups=group, least=1 / UNSHIFTED / self.beta)
            log_r = among.clamp(min=1).log() + torch.where(some, log_r, 0) - torch.where(some, base, 0)
        log_r = torch.where(some, log_r, 0)
        losses = log_r * 0
        for other in around(group, sizes):
            cosine = (z * z[other]).sum(1)
            loss = self._loss(cosine / temperature, log_r, among, temperature)
            losses = losses + torch.where(some & (other != torch.arange(len(z), device=z.device)), loss, 0)
        return losses / positives.clamp(min=1), log_r, among

    def _loss(self, positive: Tensor, log_r: Tensor, among: Tensor, temperature: float | Tensor) -> Tensor:
        """L_ip of s_ip, log R and n, (N,) each."""
        log_g = log_r
        if self.tau_plus:
            log_n = among.clamp(min=1).log()
            peak = torch.maximum(log_r, positive + log_n).detach()
            g = (log_r - peak).exp() - self.tau_plus * (positive + log_n - peak).exp()
            log_g = g.clamp(min=torch.finfo(g.dtype).tiny).log() + peak - math.log(1 - self.tau_plus)
            log_g = torch.maximum(log_g, log_n - 1 / temperature)
        return torch.logaddexp(positive, log_g) - positive


def around(group: Tensor, sizes: Tensor) -> Iterator[Tensor]:
    """The other rows of each row's group, one after another: (N,) row numbers at a time.

    Rows of small groups, whose others have all been told, get their own number.

    >>> [other.tolist() for other in around(torch.tensor([0, 1, 0, 0]), torch.tensor([3, 1, 0, 0]))]
    [[2, 1, 3, 0], [3, 1, 0, 2]]
    """
    order = group.argsort(stable=True)
    first, size = torch.searchsorted(group[order], group), sizes[group]
    itself = torch.arange(len(group), device=group.device)
    turn = torch.empty_like(order).scatter_(0, order, itself) - first
    for k in range(1, int(size.max()) if len(size) else 0):
        yield torch.where(k < size, order[first + (turn + k) % size], itself)
