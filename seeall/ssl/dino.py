"""DINO (Caron et al. 2021, arXiv:2104.14294, eq. 1, 2 and 4, algorithm 1), by lightly's `DINOLoss`.

    L = ½ mean over pairs of   H(p_a, s_b) + H(p_b, s_a)        H(p, s) = -Σ_k p_k log s_k

s is the softmax over K prototypes of the student's cosines with them over its temperature, p that of the teacher's
cosines less the centre, with the averaged prototypes; the centre is a running mean of the teacher's cosines.

Departures: two views, no smaller crops; the three-layer head is the projector, so the prototypes are all that is
here; the teacher's temperature and momentum do not change on the way; the prototypes learn from the first step on.
lightly's loss adds the centre up over processes and divides by their number, also in eval mode, where one process
alone would wait for ever; rows come gathered, so here each process moves the same centre itself, in training only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss
from torch import Tensor, nn

from seeall.ssl.twins import alignment, nothing, rows, twins
from seeall.types import SeeallError


class _StillCentre(DINOLoss):  # type: ignore[misc]
    """lightly's loss, but for its centre, which stays where it is put."""

    def update_center(self, teacher_out: Tensor) -> None:
        """teacher_out: (2, n, K), not looked at."""


class DINO(nn.Module):
    """Shares rows out among prototypes as the teacher shares out their twins; no negatives.

    Args:
        dim: D, width of the rows.
        prototypes: K.
        student_temperature, teacher_temperature: the lower the teacher's, the sharper what is to be matched.
        centre_momentum: the share of the centre that stays at each micro-batch.
        momentum: the share of the teacher's weights that stays at each micro-batch; its prototypes are kept here, all
            else by whoever keeps the teacher.

    Raises:
        SeeallError: a setting is out of its range.
    """

    taught_prototypes: Tensor

    def __init__(
        self,
        dim: int,
        *,
        prototypes: int = 1024,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        centre_momentum: float = 0.9,
        momentum: float = 0.996,
    ) -> None:
        super().__init__()
        if prototypes < 2:
            raise SeeallError(f"dino: prototypes must be at least 2, not {prototypes}; 1024 to 65536 is usual")
        for name, value, usual in (
            ("student_temperature", student_temperature, "0.1"),
            ("teacher_temperature", teacher_temperature, "0.04 to 0.07"),
        ):
            if not 0 < value < math.inf:
                raise SeeallError(f"dino: {name} must be above 0, not {value}; {usual} is usual")
        for name, value, usual in (
            ("centre_momentum", centre_momentum, "0.9"),
            ("momentum", momentum, "0.99 to 0.996"),
        ):
            if not 0 <= value < 1:
                raise SeeallError(f"dino: {name} must be from 0 and below 1, not {value}; {usual} is usual")
        self.momentum, self.centre_momentum, self.teacher_temperature = momentum, centre_momentum, teacher_temperature
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.register_buffer("taught_prototypes", self.prototypes.weight.detach().clone())
        self.criterion = _StillCentre(prototypes, teacher_temp=teacher_temperature, student_temp=student_temperature)

    def forward(self, z: Tensor, groups: Tensor, taught: Tensor) -> dict[str, Tensor]:
        """The loss in the type of the prototypes, float32 as a rule. Training moves the averaged prototypes before
        and the centre after it is taken.

        z: (N, D); groups: (N,) int64; taught: (N, D), the same rows seen by the teacher, no gradient goes there.
        Rows without a twin take no part.
        Returns: `loss`, 0 without pairs; `entropy`, of the teacher's shares, nats, log K where it is undecided;
            `alignment`, the mean cosine of pairs.
        Raises: ValueError where the shapes are others.
        """
        with torch.autocast(z.device.type, enabled=False):
            weight = self.prototypes.weight
            z, taught = rows(z, groups, weight), rows(taught, groups, weight).detach()
            if self.training:
                self.taught_prototypes.lerp_(weight.detach(), 1 - self.momentum)
            a, b = twins(groups)
            loss, entropy = nothing(z, self), z.new_zeros(())
            if len(a):
                student, teacher = cosines(z, weight), cosines(taught, self.taught_prototypes)
                entropy = self._entropy(teacher[torch.cat([a, b])])
                loss = self.criterion([teacher[a], teacher[b]], [student[a], student[b]])
                if self.training:
                    self._move_centre(teacher[torch.cat([a, b])])
            return {"loss": loss, "entropy": entropy, "alignment": alignment(z, a, b)}

    def _entropy(self, teacher: Tensor) -> Tensor:
        """teacher: (n, K) → mean entropy of its shares, nats."""
        shares = ((teacher - self.criterion.center[0]) / self.teacher_temperature).softmax(1)
        entropy: Tensor = torch.special.entr(shares).sum(1).mean()
        return entropy

    @torch.no_grad()
    def _move_centre(self, teacher: Tensor) -> None:
        """teacher: (n, K); eq. 4."""
        self.criterion.center.lerp_(teacher.mean(0), 1 - self.centre_momentum)


def cosines(x: Tensor, prototypes: Tensor) -> Tensor:
    """x: (N, D), prototypes: (K, D) → (N, K): a linear layer, its weights of unit length, on rows of unit length."""
    return F.linear(F.normalize(x, dim=1), F.normalize(prototypes, dim=1))
