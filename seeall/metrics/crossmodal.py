"""Retrieval between and within two modalities, images and sounds that belong together pair by pair, by cosine.

In four directions, each item of the first modality looks for items of the second; within a modality it does not
find itself. With rel(i) = 1 where the i-th neighbour has the query's label, else 0, and R such items to find:

    ndcg@k        Σ_{i≤k} rel(i) / log₂(i + 1), divided by the same sum for the R put first
    recall@1      rel(1)
    pair_recall@1 1 where the first neighbour is the other half of the query's own pair, else 0; between modalities

nDCG with k = 30 in four directions is the protocol of Arandjelović and Zisserman 2018, "Objects that Sound"
(AVE-Net), section 3. Departure: an item has one label here, so the relevance is 1 or 0.

Beside each stands what items in random order would get, as an exact expectation: with G items to choose from, any
place is relevant with probability R/G. Neighbours of equal similarity stand in gallery order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seeall.metrics.knn import nearest, normalised
from seeall.types import SeeallError

MODALITIES = ("image", "sound")


@torch.no_grad()
def crossmodal(images: Tensor, sounds: Tensor, labels: Tensor | None = None, *, k: int = 30) -> dict[str, float]:
    """How well images and sounds find each other, and themselves, in one space.

    images, sounds: (n, D), of any length, normalised here; row i of both is one pair; labels: (n,) int64, its class.
    k: rank of nDCG; one beyond the size of the gallery counts as that size.
    Returns, all in [0, 1]:
        image_sound_pair_recall@1, sound_image_pair_recall@1, pair_chance_recall@1;
        with labels, for each d of image_image, image_sound, sound_image and sound_sound: d_recall@1, d_ndcg@k, and
        d_chance_recall@1, d_chance_ndcg@k. A query whose label no other pair has is left out within a modality.
        Besides: queries, how many pairs there are; with labels, queries_without_positive, how many were left out.
    Raises: SeeallError for features that are none or not finite, fewer than two pairs, a k below 1, or labels of
        which no two are equal.
    """
    if images.ndim != 2 or images.shape != sounds.shape or (labels is not None and labels.shape != images.shape[:1]):
        shapes = [(*part.shape,) for part in (images, sounds, labels) if part is not None]
        raise ValueError(f"want images (n, D), sounds (n, D) and labels (n,) or none, not {shapes}")
    if k < 1:
        raise SeeallError(f"crossmodal: k must be at least 1, not {k}; 30 is usual")
    features = dict(zip(MODALITIES, (normalised(images), normalised(sounds.to(images.device)))))
    n = len(images)
    if n < 2:
        raise SeeallError("crossmodal retrieval needs at least two pairs of image and sound: check the data")
    measures: dict[str, float] = {"queries": n, "pair_chance_recall@1": 1 / n}
    others = None
    if labels is not None:
        labels, others = _others(labels.to(images.device))
        measures["queries_without_positive"] = int((others == 0).sum())
    for a in MODALITIES:
        for b in MODALITIES:
            if a == b and labels is None:
                continue
            index = _neighbours(features[a], features[b], k, alone=a == b)
            if a != b:
                own = torch.arange(n, device=index.device)
                measures[f"{a}_{b}_pair_recall@1"] = _mean(index[:, 0] == own)
            if labels is not None and others is not None:
                right = labels[index] == labels[:, None]
                found = _graded(right, others, n - 1, k) if a == b else _graded(right, others + 1, n, k)
                measures |= {f"{a}_{b}_{name}": value for name, value in found.items()}
    return measures


def _others(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels numbered from 0, and of every pair how many others have its label: (n,) and (n,)."""
    _, number, sizes = labels.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    if int(sizes.max()) < 2:
        raise SeeallError("no pair has another of its label to find: check the labels of the data, or leave them out")
    return number, sizes[number] - 1


def _neighbours(queries: Tensor, gallery: Tensor, k: int, *, alone: bool) -> Tensor:
    """(n, min(k, size of the gallery)) int64, best first."""
    found = nearest(queries, gallery, min(k, len(gallery) - int(alone)), skip_self=alone)
    return torch.cat([index for _, _, index in found])


def _graded(right: Tensor, positives: Tensor, size: int, k: int) -> dict[str, float]:
    """Means over the queries that have a positive.

    right: (n, depth) bool, neighbours best first; positives: (n,) R of every query; size: G.
    """
    right, positives = right[positives > 0], positives[positives > 0]
    depth = right.shape[1]
    discounts = 1 / torch.arange(2, depth + 2, dtype=torch.float64, device=right.device).log2()
    ideal = discounts.cumsum(0)[positives.clamp(max=depth) - 1]
    likely = positives.double() / size
    return {
        "recall@1": _mean(right[:, 0]),
        f"ndcg@{k}": _mean(right.double() @ discounts / ideal),
        "chance_recall@1": _mean(likely),
        f"chance_ndcg@{k}": _mean(likely * discounts.sum() / ideal),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
