"""A loss over groups as a loop over anchors and positives, its terms from the papers, and how close is equal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

Row = list[Tensor]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


def ours(objective: torch.nn.Module, z: Tensor, groups: list[int] | Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.as_tensor(groups, dtype=torch.int64)
    return value_and_gradient(lambda x: objective(x, labels)["loss"], z)


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float) -> None:
    """The value relatively, the gradient relatively to its largest entry."""
    for g, w in zip(got, want, strict=True):
        assert torch.isfinite(g).all()
        assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance * max([1e-6, *w.abs().flatten().tolist()]))


def units(z: Tensor) -> list[Row]:
    listed = [[z[i, k] for k in range(z.shape[1])] for i in range(len(z))]
    return [[x / sum(y * y for y in row).sqrt() for x in row] for row in listed]


def dot(x: Row, y: Row) -> Tensor:
    return sum(a * b for a, b in zip(x, y))


def loop(
    z: Tensor,
    groups: list[int],
    term: Callable[[Tensor, list[Tensor], list[Tensor]], Tensor],
    memory: tuple[list[Row], list[int]] = ([], []),
) -> Tensor:
    """The mean over anchors of their mean over positives of term(cosine, cosines to negatives, to other positives).

    Negatives are the rows of other groups, in the batch and in the memory. Without any, an anchor's term is 0.
    """
    unit, n, terms = units(z), range(len(z)), []
    for i in n:
        positives = [p for p in n if p != i and groups[p] == groups[i]]
        if not positives:
            continue
        negatives = [dot(unit[i], unit[j]) for j in n if groups[j] != groups[i]]
        negatives += [dot(unit[i], row) for row, owner in zip(*memory) if owner != groups[i]]
        cosines = [dot(unit[i], unit[p]) for p in positives]
        each = [term(c, negatives, cosines) for c in cosines]
        terms.append(sum(each) / len(each))
    return sum(terms) / len(terms) + z.sum() * 0 if terms else z.sum() * 0


def decoupled(temperature: float) -> Callable[..., Tensor]:
    """Yeh et al. 2022, eq. 6."""

    def term(positive: Tensor, negatives: list[Tensor], _: list[Tensor]) -> Tensor:
        if not negatives:
            return positive * 0
        return torch.log(sum(torch.exp(s / temperature) for s in negatives)) - positive / temperature

    return term


def usual(temperature: float) -> Callable[..., Tensor]:
    """Khosla et al. 2020, eq. 2."""

    def term(positive: Tensor, negatives: list[Tensor], positives: list[Tensor]) -> Tensor:
        return torch.log(sum(torch.exp(s / temperature) for s in negatives + positives)) - positive / temperature

    return term
