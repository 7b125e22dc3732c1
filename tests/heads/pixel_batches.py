"""Logits of small pictures with their targets, what a loss makes of them, and how close is equal."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from seeall.data.annotations.truth import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]
CASES = (
    "random",
    "ignored in part",
    "one picture",
    "one class",
    "one class of many",
    "absent class",
    "perfect",
    "wrong",
)


def batch(case: str, K: int = 4, size: tuple[int, int, int] = (2, 4, 5)) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) float64 and target (B, H, W)."""
    g = torch.Generator().manual_seed(CASES.index(case))
    B, H, W = (1, *size[1:]) if case == "one picture" else size
    K = 1 if case == "one class" else K
    logits = torch.randn(B, K, H, W, generator=g, dtype=torch.float64)
    target = torch.randint(0, K - 1 if case == "absent class" else K, (B, H, W), generator=g)
    if case == "one class of many":
        target[:] = 1
    if case == "ignored in part":
        target[torch.rand(B, H, W, generator=g) < 0.4] = IGNORE
        target[0] = IGNORE
    if case in ("perfect", "wrong"):
        logits += 9 * F.one_hot(target, K).movedim(3, 1) * (1 if case == "perfect" else -1)
    return logits, target


def value_and_gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target)
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    for g, w in zip(got, want, strict=True):
        assert torch.isfinite(g).all()
        assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance)
