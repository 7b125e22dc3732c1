"""Weighted k-nearest-neighbour classification on frozen features.

Wu, Xiong, Yu and Lin 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section
3.4: the k training features that are closest by cosine s vote for their class with weight exp(s / T). The
weights here are exp((s - s₁) / T), with s₁ the closest: the same vote, but it cannot overflow.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from seeall.types import SeeallError

_BUDGET = 1 << 24
"""Similarities held at once; 64 MiB in float32."""


def require_finite(features: Tensor) -> Tensor:
    """(n, D) → the same in float32, outside any graph.

    Raises: SeeallError if there are none or one is not finite.
    """
    if not len(features):
        raise SeeallError("there are no features to measure: check that the data holds pictures")
    features = features.detach().float()
    if not bool(torch.isfinite(features).all()):
        raise SeeallError("features hold NaN or infinity: the training diverged; try a lower learning rate")
    return features


def normalised(features: Tensor) -> Tensor:
    """(n, D) → (n, D) float32 of length 1. Raises as `require_finite`."""
    return F.normalize(require_finite(features), dim=1)


def nearest(
    queries: Tensor, gallery: Tensor, k: int, *, skip_self: bool = False
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The k rows of `gallery` with the highest inner product, best first; equal ones in gallery order.

    queries: (m, D); gallery: (n, D); skip_self: row i of the queries is row i of the gallery, and is left
    out of its own neighbours (needs k < n).
    Yields: for a slice of b queries, similarities (b, k) and gallery rows (b, k) int64.
    """
    rows = max(1, _BUDGET // len(gallery))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        similarity = queries[part] @ gallery.T
        if skip_self:
            similarity.diagonal(start).fill_(-torch.inf)
        yield (part, *_ranked(similarity, k))


def _ranked(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of every row, ties by column. `topk` alone keeps an arbitrary part of a tie at rank k."""
    best, index = similarity.topk(k, dim=1)
    index, order = index.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    tied = (similarity >= best[:, -1:]).sum(dim=1) > k
    if bool(tied.any()):
        whole, columns = similarity[tied].sort(dim=1, descending=True, stable=True)
        best[tied], index[tied] = whole[:, :k], columns[:, :k]
    return best, index


@torch.no_grad()
def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.1,
    classes: int,
) -> float:
    """Share of test features whose class wins the vote, in [0, 1].

    train: (n, D), test: (m, D), of any length, normalised here; labels: (n,) and (m,) int64 in [0, classes).
    k is at most n. A tie goes to the lower class.
    Raises: SeeallError for features that are none or not finite.
    """
    gallery, queries = normalised(train), normalised(test)
    labels, truth = train_labels.to(gallery.device), test_labels.to(queries.device)
    right = 0
    for part, similarity, index in nearest(queries, gallery, min(k, len(gallery))):
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(weights), classes).scatter_add_(1, labels[index], weights)
        right += int((votes.argmax(dim=1) == truth[part]).sum())
    return right / len(queries)
