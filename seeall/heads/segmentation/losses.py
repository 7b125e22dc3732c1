"""What a wrong class of a pixel costs.

With p the softmax of the logits, y_i the class of pixel i and g_i(c) = 1 where that is c, else 0:

    cross-entropy   Σ_i w(y_i) · -log p_i(y_i) / Σ_i w(y_i)
    focal           Σ_i w(y_i) · -(1 - p_i(y_i))^γ log p_i(y_i) / Σ_i w(y_i)
                    (Lin et al. 2017, arXiv:1708.02002, eq. 4; with weights eq. 5)
    dice            mean over classes c of 1 - (2 Σ_i p_i g_i + s) / (Σ_i p_i² + Σ_i g_i² + s)
                    (V-Net, Milletari, Navab and Ahmadi 2016, arXiv:1606.04797, section 3), smoothed by s
    lovasz          mean over classes c of Σ_i m_π(i) · (Δ({π(1) … π(i)}) - Δ({π(1) … π(i-1)})), m_i = |g_i - p_i|,
                    π sorts m downwards, and Δ(M) is 1 - the Jaccard index of c if the pixels of M alone were wrong
                    (Berman, Rannen Triki and Blaschko 2018, arXiv:1705.08790, eq. 8 to 11 and Alg. 1)

    relaxed         Σ_i -log Σ_{c in N(i)} p_i(c) / n, N(i) the classes within `border` pixels of i, n pixels
                    (Zhu et al. 2019, arXiv:1812.01593, eq. 5: at an edge, either side will do)

The means are over the classes that the pixels have. Departures: the focal loss is a mean, as the cross-entropy is,
where the paper divides by the number of objects; Dice is of many classes where V-Net's is of two.

Pixels of class IGNORE count for nothing; where all are, a loss is 0 and so is its gradient. Losses are computed in
float32, whatever the precision of the step, or in float64 where the logits are.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.catalog import suggest
from seeall.data.annotations.truth import IGNORE
from seeall.types import SeeallError

LOSSES = ("cross-entropy", "focal", "dice", "lovasz", "relaxed")
WEIGHED = ("cross-entropy", "focal")
"""Those that heed weights of classes; the others count every class alike."""


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """logits: (B, K, H, W), target: (B, H, W) int64, weights: (K,) of classes → scalar.

    Raises: ValueError for shapes that do not fit, as all losses do.
    """
    return focal(logits, target, gamma=0.0, weights=weights)


def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """logits: (B, K, H, W), target: (B, H, W) int64, weights: (K,) of classes → scalar.

    gamma: the larger, the less a pixel costs that is nearly right; 0 is cross-entropy.
    """
    logits = _checked(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        counted = target != IGNORE
        label = target.masked_fill(~counted, 0)
        log_p = F.log_softmax(logits, 1).gather(1, label[:, None])[:, 0]
        weight = counted.to(logits.dtype) if weights is None else weights.to(logits)[label] * counted
        cost = -log_p
        if gamma:
            wrong = -torch.expm1(log_p)
            # nearer to 0, a power below 1 would have a gradient without end
            cost = cost * wrong.clamp(min=torch.finfo(wrong.dtype).eps) ** gamma
        total = weight.sum()
        return (weight * cost).sum() / total.masked_fill(total == 0, 1)


def dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """logits: (B, K, H, W), target: (B, H, W) int64 → scalar, of all pictures together.

    smooth: s, in pixels
    """
    logits = _checked(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        p, is_class = _by_class(logits, target, per_picture=False)
        g = is_class.to(p.dtype)
        p = p * (target != IGNORE).reshape(1, 1, -1)
        both, sizes = (p * g).sum(2), g.sum(2)
        coefficient = (2 * both + smooth) / (p.square().sum(2) + sizes + smooth)
        return _mean(1 - coefficient, sizes > 0)


def lovasz(logits: Tensor, target: Tensor, *, per_picture: bool = False, present: bool = True) -> Tensor:
    """logits: (B, K, H, W), target: (B, H, W) int64 → scalar.

    per_picture: the mean of the pictures' losses, without those of which no pixel counts, in place of the loss of
        all pixels together
    present: classes without a pixel cost nothing; else they cost the largest p that any pixel gives them
    """
    logits = _checked(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        p, is_class = _by_class(logits, target, per_picture)
        counted = (target != IGNORE).reshape(len(p), 1, -1)
        errors = torch.where(is_class, 1 - p, p).masked_fill(~counted, 0)
        errors, order = errors.sort(2, descending=True)
        slope = _jaccard_slope(is_class.gather(2, order), errors.dtype)
        losses = (errors * slope).sum(2)
        over = is_class.any(2) if present else counted.any(2).expand_as(losses)
        each = (losses * over).sum(1) / over.sum(1).clamp(min=1)
        return _mean(each, counted.any(2)[:, 0])


def relaxed(logits: Tensor, target: Tensor, *, border: int = 1) -> Tensor:
    """logits: (B, K, H, W), target: (B, H, W) int64 → scalar. border: px, as wide as edges may be mistaken."""
    logits = _checked(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        counted = target != IGNORE
        classes = torch.arange(logits.shape[1], device=target.device)[:, None, None]
        near = F.max_pool2d((target[:, None] == classes).to(logits.dtype), 2 * border + 1, 1, border) > 0
        near |= ~counted[:, None]  # what counts for nothing must not become infinite
        cost = logits.logsumexp(1) - logits.masked_fill(~near, -torch.inf).logsumexp(1)
        return (cost * counted).sum() / counted.sum().clamp(min=1)


def _jaccard_slope(is_class: Tensor, dtype: torch.dtype) -> Tensor:
    """By how much the Jaccard loss of a class grows with each pixel that is wrong, one after the other.

    is_class: (G, K, P) bool, in the order of errors → (G, K, P): 1/U for a pixel of the class, I/U - I/(U + 1) for
    another, with I and U, intersection and union, before it. The difference of two losses would be mostly rounding.
    """
    total = is_class.sum(2, keepdim=True)
    right = is_class.cumsum(2)
    intersection = (total - right).to(dtype)
    union = (total - right + torch.arange(1, right.shape[2] + 1, device=right.device)).to(dtype)
    slope = torch.where(is_class, 1 / union, intersection / (union * (union - 1)).clamp(min=1))
    slope[..., :1] += total == 0  # a class without a pixel is lost with the first
    return slope


def _by_class(logits: Tensor, target: Tensor, per_picture: bool) -> tuple[Tensor, Tensor]:
    """p and whether a pixel is of the class: (G, K, P), G being B, or 1 with the pixels of all pictures together."""
    K = logits.shape[1]
    is_class = target[:, None] == torch.arange(K, device=target.device)[:, None, None]
    parts = (logits.softmax(1).flatten(2), is_class.flatten(2))
    p, is_class = parts if per_picture else (part.transpose(0, 1).reshape(1, K, -1) for part in parts)
    return p, is_class


def _mean(values: Tensor, over: Tensor) -> Tensor:
    return (values * over).sum() / over.sum().clamp(min=1)


def _checked(logits: Tensor, target: Tensor) -> Tensor:
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"want logits (B, K, H, W) and target (B, H, W), not {(*logits.shape,)}, {(*target.shape,)}")
    return logits if logits.dtype == torch.float64 else logits.float()


@final
class SegmentationLoss(nn.Module):
    """One loss or a sum of several, and another from some epoch on.

    Args:
        loss: names joined by "+", each with a factor if it has one: "cross-entropy", "cross-entropy+0.5*dice".
        then: what is the loss from epoch `switch` on, written the same way.
        switch: the first epoch of `then`, from 0.
        balance: "median" weighs classes in cross-entropy and focal loss by median frequency over frequency, as
            SegNet does (Eigen and Fergus 2015, arXiv:1411.4734, section 6.3.2); see `set_counts`.
        gamma: of the focal loss.
        border: px, of the relaxed one.

    Raises:
        SeeallError: a name is unknown or twice there, a factor, gamma or border is no such number, `then` and `switch`
            are not both given, or `balance` has no loss to weigh.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        loss: str = "cross-entropy",
        then: str | None = None,
        switch: int | None = None,
        balance: Literal["none", "median"] = "none",
        gamma: float = 2.0,
        border: int = 1,
    ) -> None:
        super().__init__()
        if (then is None) != (switch is None):
            missing = "switch, the epoch it starts from" if switch is None else "then, the loss from that epoch on"
            raise SeeallError(f"segmentation: {'then' if switch is None else 'switch'} needs {missing}")
        if switch is not None and switch < 1:
            raise SeeallError(f"segmentation: switch is {switch}: choose an epoch from 1 on")
        if not 0 <= gamma < math.inf:
            raise SeeallError(f"segmentation: gamma is {gamma}: choose 0 or more; 2 is usual")
        if border < 1:
            raise SeeallError(f"segmentation: border is {border}: choose 1 px or more")
        if balance not in ("none", "median"):
            raise SeeallError(f"segmentation: balance is {balance!r}: {suggest(balance, ('none', 'median'))}")
        self.first, self.second = _parts(loss), _parts(then) if then is not None else {}
        self.names = [*self.first, *(name for name in self.second if name not in self.first)]
        if balance == "median" and not set(WEIGHED) & set(self.names):
            raise SeeallError(f"segmentation: balance weighs {' and '.join(WEIGHED)} alone; {loss!r} has neither")
        self.switch, self.balance, self.gamma, self.border = switch, balance, gamma, border
        self.register_buffer("weights", None, persistent=False)

    def set_counts(self, counts: Tensor) -> None:
        """What `balance` weighs by. counts: (n, K) how many pixels of each class each of n pictures has.

        The frequency of a class is its share of the pixels of those pictures that have it. A class that no picture
        has gets a weight of 0.
        """
        counts = counts.double()
        shown = counts > 0
        pixels = (shown * counts.sum(1, keepdim=True)).sum(0)
        frequency = counts.sum(0) / pixels.clamp(min=1)
        known = frequency > 0
        if self.balance == "median" and bool(known.any()):
            weights = torch.where(known, frequency[known].quantile(0.5) / frequency, 0.0)
            self.weights = weights.float()

    def forward(self, logits: Tensor, target: Tensor, epoch: int) -> dict[str, Tensor]:
        """logits: (B, K, H, W), target: (B, H, W) int64, epoch from 0 → loss, and each part by name, without factor.

        Parts that do not count in this epoch are told all the same, so that the names stay the same.
        """
        if self.balance == "median" and self.weights is None:
            raise ValueError("balance='median' needs set_counts first")
        active = self.second if self.switch is not None and epoch >= self.switch else self.first
        told = {}
        total = logits.new_zeros((), dtype=torch.float32)
        for name in self.names:
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in active):
                part = self._part(name, logits, target)
            told[name] = part.detach()
            if name in active:
                total = total + active[name] * part
        return {"loss": total, **told}

    def _part(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        if name == "cross-entropy":
            return cross_entropy(logits, target, self.weights)
        if name == "focal":
            return focal(logits, target, gamma=self.gamma, weights=self.weights)
        if name == "relaxed":
            return relaxed(logits, target, border=self.border)
        return dice(logits, target) if name == "dice" else lovasz(logits, target)


def _parts(text: str) -> dict[str, float]:
    """What to sum.

    >>> _parts("cross-entropy + 0.5*dice")
    {'cross-entropy': 1.0, 'dice': 0.5}
    """
    parts: dict[str, float] = {}
    for term in text.split("+"):
        before, star, after = (piece.strip() for piece in term.partition("*"))
        name, factor = (after, before) if star else (before, "1")
        if name not in LOSSES:
            raise SeeallError(f"segmentation: unknown loss {name!r}: {suggest(name, LOSSES)}")
        if name in parts:
            raise SeeallError(f"segmentation: {name} is twice in {text!r}: write it once, with the sum as factor")
        try:
            parts[name] = float(factor)
        except ValueError:
            raise SeeallError(f"segmentation: {factor!r} before {name} is no number: write 0.5*{name}") from None
        if not 0 < parts[name] < math.inf:
            raise SeeallError(f"segmentation: the factor of {name} is {factor}: choose above 0")
    return parts
