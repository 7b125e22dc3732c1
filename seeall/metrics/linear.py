"""Linear evaluation: multinomial logistic regression on frozen features.

Features are standardised by the training features' mean and deviation. The weights W (D, K), without the bias,
minimise, by L-BFGS on all rows at once with a strong-Wolfe line search,

    (1/n) Σ cross-entropy + (λ/2) ‖W‖²

for the λ of `STRENGTHS` that is right most often on a held-out tenth of the training features; the regression
is then fitted to all of them. Deterministic: the tenth is every tenth row in order of label. Nothing is ever
chosen on the test features. In scikit-learn's terms C = 1 / (λ n).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seeall.metrics.knn import require_finite

STRENGTHS = (0.1, 0.003, 0.0001)
"""λ, strongest first: each fit starts from the one before."""
_ROWS = 1 << 16
_ITERATIONS = 100


def linear_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> tuple[float, float]:
    """Share of test features whose class is the likeliest, and one of the five likeliest; in [0, 1].

    train: (n, D), test: (m, D) float, not normalised here; labels: (n,) and (m,) int64, any numbers. A class
    that training has not seen counts as wrong.
    Raises: SeeallError for features that are none or not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        train, test = require_finite(train), require_finite(test)
        labels = train_labels.to(train.device)
        known, y = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
        # what never moves in training says nothing, but would if it were divided by its rounding noise
        noise = 1e-6 * torch.maximum(mean.abs(), deviation.max())
        deviation = torch.where(deviation > noise, deviation, torch.inf)
        x = (train - mean) / deviation
        solution = _fit(x, y, len(known), *_choose(x, y, len(known)))
        best = _scores((test - mean) / deviation, solution).topk(min(5, len(known)), dim=1).indices
        right = known[best] == test_labels.to(best.device)[:, None]
        return float(right[:, 0].double().mean()), float(right.any(dim=1).double().mean())


def _choose(x: Tensor, y: Tensor, classes: int) -> tuple[float, Tensor | None]:
    """The strength that is right most often on the held-out tenth, the strongest of equals; and its fit."""
    order = y.argsort(stable=True)
    held = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    held[order[5::10]] = True
    if not bool(held.any()):
        return STRENGTHS[0], None
    best: tuple[int, float, Tensor | None] = (-1, 0.0, None)
    rest_x, rest_y, solution = x[~held], y[~held], None
    for strength in STRENGTHS:
        solution = _fit(rest_x, rest_y, classes, strength, solution)
        right = int((_scores(x[held], solution).argmax(dim=1) == y[held]).sum())
        if right > best[0]:
            best = (right, strength, solution)
    return best[1:]


def _fit(x: Tensor, y: Tensor, classes: int, strength: float, start: Tensor | None) -> Tensor:
    """x: (n, D) standardised, y: (n,) in [0, classes) → (D + 1, classes), the last row being the bias."""
    solution = x.new_zeros(x.shape[1] + 1, classes) if start is None else start.clone()
    solution.requires_grad_()
    search = torch.optim.LBFGS(
        [solution], max_iter=_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        search.zero_grad()
        total = strength / 2 * solution[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        for i in range(0, len(x), _ROWS):
            scores = _scores(x[i : i + _ROWS], solution)
            part = F.cross_entropy(scores, y[i : i + _ROWS], reduction="sum") / len(x)
            part.backward()  # type: ignore[no-untyped-call]
            total = total.detach() + part.detach()
        return total.detach()

    search.step(loss)  # type: ignore[no-untyped-call]
    return solution.detach()


def _scores(x: Tensor, solution: Tensor) -> Tensor:
    """(n, D) → (n, K)."""
    return torch.addmm(solution[-1], x, solution[:-1])
