"""Features → places on a plane where near ones stay near: t-SNE, exact (van der Maaten and Hinton 2008).

"Visualizing Data using t-SNE", JMLR 9, on rows of length 1, so that near means a high cosine. With d_ij the distance
of two rows and y_i their places:

    p_j|i ∝ exp(-β_i d_ij²), j ≠ i     β_i such that 2^entropy of p_·|i is the perplexity    (eq. 1)
    p_ij = (p_j|i + p_i|j) / 2n        q_ij ∝ 1 / (1 + |y_i - y_j|²)                         (eq. 3, 4)
    KL(P, Q) = Σ p_ij log(p_ij / q_ij)   is what descent makes small, its gradient being
    4 Σ_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|²)                                     (eq. 5)

Descent with momentum and gains, attraction exaggerated at first, as in section 3.4. Departures: it starts from the
first two principal components, made small, and so has nothing random about it; the exaggeration is 12, and the rate
grows with n (Belkina et al. 2019, "Automated optimized parameters for t-SNE", n / exaggeration).
"""

from __future__ import annotations

import torch
from torch import Tensor

from seeall.metrics.knn import normalised
from seeall.types import SeeallError

_EXAGGERATION, _EARLY = 12.0, 100
_SMALL, _NONE = 1e-4, 1e-12


@torch.no_grad()
def tsne(features: Tensor, *, perplexity: float = 30.0, steps: int = 750) -> Tensor:
    """Places (n, 2) float32 of features (n, D), of any length, normalised here; a function of its arguments.

    perplexity: about how many neighbours a row has; less where there are fewer than three times as many rows.
    Time and memory grow with n²: some seconds for 400 rows.
    Raises: SeeallError for features that are none or not finite, or a perplexity or steps that make no sense.
    """
    if not perplexity >= 1 or steps < 1:
        raise SeeallError(f"t-SNE: perplexity and steps must be at least 1, not {perplexity} and {steps}")
    x = normalised(features).cpu().double()
    n = len(x)
    y = _start(x)
    if n < 3:
        return y.float()
    p = _near(x, min(perplexity, max(1.0, (n - 1) / 3)))
    rate = n / _EXAGGERATION
    speed, gain = torch.zeros_like(y), torch.ones_like(y)
    for step in range(steps):
        early = step < _EARLY
        if step == _EARLY:
            speed, gain = torch.zeros_like(y), torch.ones_like(y)
        slope = _gradient(p * _EXAGGERATION if early else p, y)
        gain = torch.where(slope * speed < 0, gain + 0.2, gain * 0.8).clamp_(min=0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gain * slope
        y = y + speed
        y -= y.mean(dim=0)
    return y.float()


@torch.no_grad()
def apart(places: Tensor, side: float, *, rounds: int = 200) -> Tensor:
    """The same places (n, 2), moved until squares of `side` around them cover each other no more, or rounds are over.

    Both of two squares that overlap give way by half, along the axis on which they overlap less; of two at the very
    same place the first goes to the left.
    """
    y = places.double()
    first = torch.arange(len(y))
    first = (first[:, None] < first).double() - (first[:, None] > first).double()
    for _ in range(rounds):
        gap = y[:, None] - y
        over = side - gap.abs()  # (n, n, 2), above 0 on both axes where squares overlap
        clash = (over > 1e-6 * side).all(dim=2).fill_diagonal_(False)
        if not bool(clash.any()):
            break
        by_x = over[..., 0] <= over[..., 1]
        way = torch.where(gap == 0, -first[..., None], gap.sign())
        push = torch.stack([clash & by_x, clash & ~by_x], dim=2) * way * over / 2
        y = y + 0.5 * push.sum(dim=1)
    return y.float()


def _start(x: Tensor) -> Tensor:
    """(n, D) → (n, 2): the first principal components, the sign of each such that its farthest row is positive."""
    centred = x - x.mean(dim=0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    y = torch.zeros(len(x), 2, dtype=x.dtype)
    y[:, : min(2, len(s))] = (u * s)[:, :2]
    y *= y.gather(0, y.abs().argmax(dim=0, keepdim=True)).sign()
    return y / y[:, 0].std(correction=0).clamp(min=_NONE) * _SMALL


def _near(x: Tensor, perplexity: float) -> Tensor:
    """(n, D) → P (n, n), symmetric, its sum 1; every β by bisection."""
    n = len(x)
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    distance.fill_diagonal_(torch.inf)
    least = distance.min(dim=1, keepdim=True).values
    distance -= least  # the same p, but the largest weight is 1
    low, high = torch.zeros(n, 1, dtype=x.dtype), torch.full((n, 1), torch.inf, dtype=x.dtype)
    beta = torch.ones(n, 1, dtype=x.dtype)
    for _ in range(64):
        weight = (-beta * distance).exp()
        p = weight / weight.sum(dim=1, keepdim=True)
        wide = -torch.xlogy(p, p).sum(dim=1, keepdim=True) > torch.tensor(perplexity, dtype=x.dtype).log()
        low, high = torch.where(wide, beta, low), torch.where(wide, high, beta)
        beta = torch.where(high.isinf(), beta * 2, (low + high) / 2)
    return (p + p.T) / (2 * n)


def _gradient(p: Tensor, y: Tensor) -> Tensor:
    squared = y.square().sum(dim=1)
    kernel = (1 + squared[:, None] + squared - 2 * y @ y.T).clamp_(min=1).reciprocal_()
    kernel.fill_diagonal_(0)
    pull = (p - kernel / kernel.sum()) * kernel
    return 4 * (pull.sum(dim=1, keepdim=True) * y - pull @ y)
