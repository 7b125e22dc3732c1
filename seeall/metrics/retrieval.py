"""How well a query finds its own kind in a gallery, by cosine.

For a query with R positives in the gallery, rel(i) being 1 where its i-th neighbour is a positive, else 0:

    precision@k   (1/k) Σ_{i≤k} rel(i)
    recall@k      1 if any rel(i), i ≤ k, else 0: the Recall@k of metric learning (Jégou et al. 2011)
    r-precision   (1/R) Σ_{i≤R} rel(i)
    map@r         (1/R) Σ_{i≤R} rel(i) · precision@i     (Musgrave, Belongie and Lim 2020, arXiv:2003.08505)

Each is averaged over the queries that have a positive. Neighbours of equal similarity stand in gallery order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seeall.metrics.knn import nearest, normalised
from seeall.types import SeeallError


@torch.no_grad()
def retrieval(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Retrieval measures of queries against a gallery or, without one, of each query against all the others.

    queries: (m, D), gallery: (n, D), of any length, normalised here; labels: (m,) and (n,) int64.
    ks: ranks; one beyond the size of the gallery counts as that size.
    Returns: precision@k and recall@k for every k, r-precision and map@r, all in [0, 1]; queries, how many
        were measured; queries_without_positive, how many were left out.
    Raises: SeeallError for features that are none or not finite, or if no query has a positive.
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("a gallery needs its labels")
    alone = gallery is None
    queries = normalised(queries)
    gallery = queries if gallery is None else normalised(gallery)
    theirs = query_labels if gallery_labels is None else gallery_labels
    wanted, labels = _dense(query_labels.to(gallery.device), theirs.to(gallery.device))
    positives = labels.bincount(minlength=int(wanted.max()) + 1)[wanted] - int(alone)
    kept = positives > 0
    if not bool(kept.any()):
        raise SeeallError("no query has another picture of its label to find: check the labels of the data")
    depth = min(max(int(positives.max()), *ks), len(gallery) - int(alone))
    sums: dict[str, float] = {}
    for part, _, index in nearest(queries, gallery, depth, skip_self=alone):
        keep = kept[part]
        right = labels[index[keep]] == wanted[part][keep, None]
        for name, values in _measures(right, positives[part][keep], ks).items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    count = int(kept.sum())
    means = {name: total / count for name, total in sums.items()}
    return means | {"queries": count, "queries_without_positive": len(queries) - count}


def _dense(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The same labels numbered from 0 without holes."""
    _, numbers = torch.cat([first, second]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return numbers[: len(first)], numbers[len(first) :]


def _measures(right: Tensor, positives: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """right: (b, depth) bool, neighbours best first; positives: (b,) R of every query → (b,) of each kind."""
    hits = right.cumsum(dim=1)
    ranks = torch.arange(1, right.shape[1] + 1, device=right.device)
    within = right & (ranks <= positives[:, None])
    measures = {}
    for k in ks:
        found = hits[:, min(k, right.shape[1]) - 1]
        measures[f"precision@{k}"] = found / min(k, right.shape[1])
        measures[f"recall@{k}"] = (found > 0).float()
    measures["r-precision"] = within.sum(dim=1) / positives
    measures["map@r"] = (within * hits / ranks).sum(dim=1) / positives
    return measures
