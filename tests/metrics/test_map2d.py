"""t-SNE against loops written from the paper, scikit-learn's divergence, and hand-made cases."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import approx
from sklearn.manifold import TSNE, trustworthiness
from torch import Tensor
from torch.nn.functional import normalize

from seeall.metrics.map2d import _gradient, _near, apart, tsne
from seeall.types import SeeallError


def clouds(n: int = 60, classes: int = 3, dim: int = 8, spread: float = 0.3) -> Tensor:
    """n rows around `classes` points of the sphere."""
    g = torch.Generator().manual_seed(0)
    middles = normalize(torch.randn(classes, dim, generator=g), dim=1)
    return normalize(middles[torch.arange(n) % classes] + spread * torch.randn(n, dim, generator=g), dim=1)


def neighbours(x: list[list[float]], perplexity: float) -> list[list[float]]:
    """Equations 1 and 3, one row at a time, the width found by trying."""
    n = len(x)
    given = []
    for i in range(n):
        d = [math.inf if i == j else math.dist(x[i], x[j]) ** 2 for j in range(n)]
        low, high = 1e-6, 1e6
        for _ in range(200):
            beta = math.sqrt(low * high)
            weights = [math.exp(-beta * (v - min(d))) for v in d]
            p = [w / sum(weights) for w in weights]
            wide = 2 ** -sum(v * math.log2(v) for v in p if v) > perplexity
            low, high = (beta, high) if wide else (low, beta)
        given.append(p)
    return [[(given[i][j] + given[j][i]) / (2 * n) for j in range(n)] for i in range(n)]


def divergence(p: Tensor, y: Tensor) -> Tensor:
    """Equation 4 and the cost."""
    q = 1 / (1 + (y[:, None] - y).square().sum(2))
    q = q * (1 - torch.eye(len(y)))
    q = q / q.sum()
    some = p > 0
    return (p[some] * (p[some] / q[some]).log()).sum()


def test_neighbours_are_those_of_the_paper() -> None:
    x = clouds(24).double()
    assert torch.allclose(_near(x, 6.0), torch.tensor(neighbours(x.tolist(), 6.0), dtype=x.dtype), atol=1e-9)


def test_gradient_is_that_of_the_divergence() -> None:
    p = _near(clouds(20).double(), 5.0)
    y = torch.randn(20, 2, dtype=p.dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (wanted,) = torch.autograd.grad(divergence(p, y), y)
    assert torch.allclose(_gradient(p, y.detach()), wanted)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_divergence_is_as_low_as_that_of_scikit_learn(spread: float) -> None:
    x = clouds(90, spread=spread)
    theirs = TSNE(perplexity=15, init="pca", method="exact", random_state=0).fit(x.numpy())
    p = _near(x.double(), 15.0)
    assert float(divergence(p, torch.from_numpy(theirs.embedding_))) == approx(theirs.kl_divergence_, rel=0.01)
    assert float(divergence(p, tsne(x, perplexity=15))) < 1.05 * theirs.kl_divergence_


def test_near_stays_near() -> None:
    x = clouds(90, classes=6, spread=0.25)
    y = tsne(x, perplexity=10)
    assert trustworthiness(x.numpy(), y.numpy(), n_neighbors=8) > 0.93
    nearest = torch.cdist(y, y).fill_diagonal_(torch.inf).argmin(1)
    assert (nearest % 6 == torch.arange(90) % 6).float().mean() > 0.95


def test_nothing_is_random_and_length_does_not_matter() -> None:
    x = clouds(30)
    assert torch.equal(tsne(x, steps=60), tsne(x, steps=60))
    assert torch.allclose(tsne(x, steps=20), tsne(4 * x, steps=20), atol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_few_rows(n: int) -> None:
    y = tsne(clouds(n))
    assert y.shape == (n, 2) and bool(y.isfinite().all())


def test_one_dimension_and_rows_that_are_all_alike() -> None:
    for x in (torch.ones(12, 1), torch.ones(40, 5), torch.zeros(9, 3), torch.tensor([[1.0], [-1.0]] * 6)):
        assert bool(tsne(x, steps=50).isfinite().all())


def test_refuses() -> None:
    with pytest.raises(SeeallError, match="there are no features"):
        tsne(torch.empty(0, 3))
    with pytest.raises(SeeallError, match="NaN or infinity"):
        tsne(torch.tensor([[math.nan], [1.0]]))
    with pytest.raises(SeeallError, match="perplexity and steps must be at least 1, not 0 and 750"):
        tsne(clouds(9), perplexity=0)
    with pytest.raises(SeeallError, match="must be at least 1, not 30.0 and 0"):
        tsne(clouds(9), steps=0)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_squares_that_were_moved_apart_do_not_overlap(n: int) -> None:
    places = tsne(clouds(n)) if n > 2 else torch.zeros(n, 2)
    side = float((places.max(0).values - places.min(0).values).prod().sqrt()) * 0.5 / math.sqrt(n) or 1.0
    moved = apart(places, side)
    for i in range(n):
        for j in range(i):
            assert max(abs(float(v)) for v in moved[i] - moved[j]) > 0.99 * side
    assert torch.equal(apart(moved, side / 2), moved)
    assert float((moved - places).abs().max()) < 3 * side
