"""How well clusters found without labels agree with the labels: k-means, then normalised mutual information.

k-means by Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii 2007, "k-means++: The Advantages of
Careful Seeding", its greedy form, with 2 + ⌊ln k⌋ candidates a step), as often as `restarts` says; the
start with the lowest inertia, the sum of squared distances to the nearest centre, is kept. On rows of length 1 a
squared distance is 2 - 2 cosine, though centres are means and not made length 1 again.

    nmi(U, V) = I(U; V) / ((H(U) + H(V)) / 2)      (arithmetic mean; Manning, Raghavan and Schütze 2008, section 16.3)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.metrics.knn import normalised, require_finite
from seeall.types import SeeallError

_BUDGET = 1 << 22
"""Distances, or coordinates in float64, held at once."""
_ROUNDING = 1e-6
"""A squared distance this small beside the squared lengths is rounding: the rows are equal."""
_START = 0xC1057
"""Stream of random numbers, so that no other use of the seed shares a key."""


@torch.no_grad()
def nmi(features: Tensor, labels: Tensor, *, seed: int = 0, restarts: int = 3, iterations: int = 100) -> float:
    """Normalised mutual information of the labels and as many clusters as there are labels, in [0, 1].

    features: (n, D), of any length, normalised here; labels: (n,) int64. Unrelated clusters do not give 0 but more,
    the more clusters there are: compare only equal numbers of pictures and classes.
    Raises: SeeallError for features that are none or not finite, or if there are fewer than two labels.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"want features (n, D) and labels (n,), not {(*features.shape,)} and {(*labels.shape,)}")
    x = normalised(features)
    classes, truth = labels.to(x.device).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    if len(classes) < 2:
        raise SeeallError("clusters need pictures of at least two labels to compare with: check the labels of the data")
    found, _, _ = kmeans(x, len(classes), seed=seed, restarts=restarts, iterations=iterations)
    return normalised_mutual_information(truth, found)


def normalised_mutual_information(first: Tensor, second: Tensor) -> float:
    """How much two ways to part the same n things say of each other: 0 nothing, 1 all.

    first, second: (n,) int64, any numbers, n above 0. Two partitions of one part each agree: 1.

    >>> normalised_mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 3, 3]))
    1.0
    """
    parts, a = first.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    others, b = second.to(first.device).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    if len(parts) == len(others) == 1:
        return 1.0
    of_a, of_b = a.bincount().double() / len(a), b.bincount().double() / len(b)
    cells, counts = (a * len(others) + b).unique(return_counts=True)
    joint = counts.double() / len(a)
    independent = of_a[cells // len(others)] * of_b[cells % len(others)]
    information = float((joint * (joint / independent).log()).sum())
    entropies = -float((of_a * of_a.log()).sum() + (of_b * of_b.log()).sum())
    return min(max(2 * information / entropies, 0.0), 1.0)


@torch.no_grad()
def kmeans(
    x: Tensor, k: int, *, seed: int = 0, restarts: int = 3, iterations: int = 100
) -> tuple[Tensor, Tensor, float]:
    """k centres with a low sum of squared distances from every row to the nearest; a function of its arguments.

    x: (n, D) float, not normalised here, k at most n; iterations: the most of a start, which ends before where no
    row changes its cluster.
    Returns: cluster of every row (n,) int64, centres (k, D), inertia. Where rows have fewer than k places, clusters
        are left empty.
    Raises: SeeallError for rows that are none or not finite, or a k, restarts or iterations that make no sense.
    """
    x = require_finite(x)
    if not 1 <= k <= len(x):
        raise SeeallError(f"k-means: k must be from 1 to the number of rows, {len(x)}, not {k}")
    if restarts < 1 or iterations < 1:
        raise SeeallError(f"k-means: restarts and iterations must be at least 1, not {restarts} and {iterations}")
    # far from the origin, differences would drown in the rounding of squares
    middle = x.mean(dim=0)
    x = x - middle
    runs = (_lloyd(x, _start(x, k, seed, r), iterations) for r in range(restarts))
    cluster, centres, inertia = min(runs, key=lambda run: run[2])
    return cluster, centres + middle, inertia


def _start(x: Tensor, k: int, seed: int, restart: int) -> Tensor:
    """k rows, each the best of a few candidates that are drawn in proportion to the squared distance: (k, D)."""
    candidates = 2 + math.floor(math.log(k))
    draws = keyed.uniform(seed, _START, restart, torch.arange(k), n=candidates).double().to(x.device)
    rows = [(draws[0, 0] * len(x)).long()]
    nearest = _distances(x, x[rows[0]][None])[:, 0]
    for step in range(1, k):
        sums = nearest.double().cumsum(0)
        drawn = torch.searchsorted(sums, draws[step] * sums[-1], right=True).clamp(max=len(x) - 1)
        distance = torch.minimum(nearest[:, None], _distances(x, x[drawn]))
        best = distance.sum(dim=0, dtype=torch.float64).argmin()
        rows.append(drawn[best])
        nearest = distance[:, best]
    return x[torch.stack(rows)]


def _lloyd(x: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor, float]:
    cluster, distance = _assign(x, centres)
    for _ in range(iterations):
        centres = _means(x, cluster, distance, centres)
        before = cluster
        cluster, distance = _assign(x, centres)
        if torch.equal(cluster, before):
            break
    return cluster, centres, float(distance.sum(dtype=torch.float64))


def _assign(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every row, the first of equals, and the squared distance to it: (n,) and (n,)."""
    rows = max(1, _BUDGET // len(centres))
    parts = [_distances(x[i : i + rows], centres).min(dim=1) for i in range(0, len(x), rows)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def _distances(x: Tensor, centres: Tensor) -> Tensor:
    """Squared: (n, D) and (k, D) → (n, k)."""
    lengths = x.square().sum(dim=1)[:, None] + centres.square().sum(dim=1)
    distance = torch.addmm(lengths, x, centres.T, alpha=-2)
    return torch.where(distance > _ROUNDING * lengths, distance, 0)


def _means(x: Tensor, cluster: Tensor, distance: Tensor, centres: Tensor) -> Tensor:
    """The mean of every cluster; an empty one takes the row that is farthest from its centre instead.

    Summed in float64, so that the order of summing, which a GPU does not keep, is lost in the rounding.
    """
    sums = torch.zeros_like(centres, dtype=torch.float64)
    rows = max(1, _BUDGET // x.shape[1])
    for i in range(0, len(x), rows):
        sums.index_add_(0, cluster[i : i + rows], x[i : i + rows].double())
    sizes = cluster.bincount(minlength=len(centres))
    means = (sums / sizes.clamp(min=1)[:, None]).to(x.dtype)
    empty = (sizes == 0).nonzero()[:, 0]
    far = distance.topk(len(empty))
    means[empty] = torch.where(far.values[:, None] > 0, x[far.indices], centres[empty])
    return means
