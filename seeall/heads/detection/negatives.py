"""What a one-stage detector learns from the many places where nothing is.

Of some ten thousand anchors in a picture a few dozen lie on a thing, and the rest, most of them easy, would drown
these.

    plain     cross-entropy of all anchors
    focal     all anchors, easy ones weighed down by (1 - p)^γ (Lin et al. 2017, arXiv:1708.02002, eq. 5)
    mining    the hardest ones alone, `ratio` for each positive: online hard negative mining (Liu et al. 2016,
              SSD, arXiv:1512.02325, section 2.2; Shrivastava, Gupta and Girshick 2016, arXiv:1604.03540)
    bootstrap some at random, and those that were taken for things when the detector was last tried out (Sung and Poggio
              1998, "Example-based learning for view-based human face detection", section 4.2); see `bootstrap.py`

All sum over what they take and divide by the number of positives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.ops import sigmoid_focal_loss

Negatives = Literal["focal", "plain", "mining", "bootstrap"]
Cost = Callable[[Tensor, Tensor, Tensor], Tensor]
"""logits (n, K), targets (n, K) of 0 and 1, hard (n,) bool: anchors on a thing mistaken before → the loss, a scalar."""


def plain(logits: Tensor, targets: Tensor, hard: Tensor) -> Tensor:
    """Cross-entropy over all anchors and classes."""
    return _per_positive(F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1), targets)


def focal(logits: Tensor, targets: Tensor, hard: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss, torchvision's."""
    return _per_positive(sigmoid_focal_loss(logits, targets, alpha, gamma).sum(1), targets)


def mining(logits: Tensor, targets: Tensor, hard: Tensor, *, ratio: float = 3.0) -> Tensor:
    """Cross-entropy of the positives and, for each, of the `ratio` negatives where it is highest."""
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    positive = targets.sum(1) > 0
    hardest = cost.detach().masked_fill(positive, -1.0).topk(_count(positive, ratio)).indices
    return (cost[positive].sum() + cost[hardest].sum()) / max(1, int(positive.sum()))


def bootstrap(logits: Tensor, targets: Tensor, hard: Tensor, *, ratio: float = 3.0) -> Tensor:
    """Cross-entropy of the positives, of the mistaken, and of `ratio` negatives a positive drawn at random."""
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    positive = targets.sum(1) > 0
    chance = torch.rand(len(cost), device=cost.device).masked_fill(positive, -1.0).masked_fill(hard & ~positive, 2.0)
    taken = chance.topk(min(int((~positive).sum()), _count(positive, ratio) + int((hard & ~positive).sum()))).indices
    return (cost[positive].sum() + cost[taken].sum()) / max(1, int(positive.sum()))


def _count(positive: Tensor, ratio: float) -> int:
    """Negatives to take; a picture without things gives as many as one with a thing."""
    return min(int((~positive).sum()), round(ratio * max(1, int(positive.sum()))))


def _per_positive(cost: Tensor, targets: Tensor) -> Tensor:
    return cost.sum() / targets.sum().clamp(min=1)


COSTS: dict[str, Callable[..., Tensor]] = {"focal": focal, "plain": plain, "mining": mining, "bootstrap": bootstrap}


@final
class Scoring(RetinaNetClassificationHead):  # type: ignore[misc]
    """torchvision's head, with a choice of what a wrong score costs."""

    def __init__(self, channels: int, anchors: int, classes: int, cost: Cost) -> None:
        super().__init__(channels, anchors, classes)
        self.cost = cost

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], matched_idxs: list[Tensor]
    ) -> Tensor:
        """Mean over pictures. matched_idxs: for each anchor the box it is matched to, -1 for none, -2 for doubt.

        Of anchors without a box, those that are `idle`, (A,) bool in each of targets, do not count.
        """
        losses = []
        for truth, logits, matched in zip(targets, head_outputs["cls_logits"], matched_idxs):
            found = matched >= 0
            counted = (matched != self.BETWEEN_THRESHOLDS) & (found | ~truth["idle"])
            wanted = torch.zeros_like(logits)
            wanted[found, truth["labels"][matched[found]]] = 1.0
            hard = truth["hard"] if "hard" in truth else torch.zeros_like(found)
            losses.append(self.cost(logits[counted], wanted[counted], hard[counted]))
        return torch.stack(losses).mean()
