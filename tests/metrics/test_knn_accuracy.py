"""Weighted kNN against scikit-learn, lightly and an explicit loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightly.utils.benchmarking.knn import knn_predict
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from seeall.metrics import knn
from seeall.metrics.knn import knn_accuracy, nearest, normalised
from seeall.types import SeeallError

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(n: int = 300, m: int = 200, dim: int = 16, classes: int = 7, seed: int = 0) -> Problem:
    """Overlapping classes, so that accuracy is neither chance nor 1, and features of any length."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=g)
    labels = torch.randint(classes, (n + m,), generator=g)
    features = centres[labels] + 1.3 * torch.randn(n + m, dim, generator=g)
    features *= torch.rand(n + m, 1, generator=g) * 10 + 0.1
    return features[:n], labels[:n], features[n:], labels[n:]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (200, 0.07), (50, 1.0)])
def test_agrees_with_scikit_learn_and_lightly(k: int, temperature: float) -> None:
    x, y, u, v = problem()
    ours = knn_accuracy(x, y, u, v, k=k, temperature=temperature, classes=7)

    def vote(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / temperature)

    peer = KNeighborsClassifier(k, weights=vote, metric="cosine", algorithm="brute")
    theirs = peer.fit(x.numpy(), y.numpy()).score(u.numpy(), v.numpy())
    a, b = F.normalize(u, dim=1), F.normalize(x, dim=1)
    first = knn_predict(a, b.T, y, num_classes=7, knn_k=k, knn_t=temperature)[:, 0]
    assert ours == theirs == (first == v).sum().item() / len(v)
    assert 0.3 < ours < 0.99


def test_agrees_with_a_loop() -> None:
    x, y, u, v = problem(n=40, m=25)
    right = 0
    for query, truth in zip(u.tolist(), v.tolist()):

        def cosine(row: list[float], query: list[float] = query) -> float:
            return sum(p * q for p, q in zip(row, query)) / math.hypot(*row) / math.hypot(*query)

        closest = sorted(zip(map(cosine, x.tolist()), y.tolist()), reverse=True)[:5]
        votes = [sum(math.exp(s / 0.1) for s, label in closest if label == c) for c in range(7)]
        right += votes.index(max(votes)) == truth
    assert knn_accuracy(x, y, u, v, k=5, classes=7) == right / 25


def test_k_is_at_most_the_training_set_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, u, v = problem(n=30, m=50)
    whole = knn_accuracy(x, y, u, v, k=30, classes=7)
    assert knn_accuracy(x, y, u, v, k=1000, classes=7) == whole
    monkeypatch.setattr(knn, "_BUDGET", 100)  # three queries at once
    assert knn_accuracy(x, y, u, v, k=30, classes=7) == whole


def test_a_low_temperature_does_not_overflow() -> None:
    x, y, u, v = problem()
    assert knn_accuracy(x, y, u, v, k=20, temperature=1e-4, classes=7) == knn_accuracy(x, y, u, v, k=1, classes=7)


def test_equal_neighbours_stand_in_gallery_order(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    gallery = torch.randint(-1, 2, (60, 3), generator=g).float()  # whole numbers: products are exact
    queries = torch.randint(-1, 2, (20, 3), generator=g).float()
    monkeypatch.setattr(knn, "_BUDGET", 300)
    for k in (1, 7, 59):
        for part, similarity, index in nearest(queries, gallery, k):
            for row, query in enumerate(queries[part].tolist()):
                s = [sum(p * q for p, q in zip(query, item)) for item in gallery.tolist()]
                order = sorted(range(60), key=lambda i, s=s: (-s[i], i))[:k]
                assert index[row].tolist() == order
                assert similarity[row].tolist() == [s[i] for i in order]


def test_half_precision_features_are_taken() -> None:
    x, y, u, v = problem()
    half = knn_accuracy(x.bfloat16(), y, u.bfloat16(), v, classes=7)
    assert abs(half - knn_accuracy(x, y, u, v, classes=7)) < 0.05


def test_what_cannot_be_measured_is_one_line() -> None:
    x, y, u, v = problem()
    x[3, 4] = torch.nan
    with pytest.raises(SeeallError, match="NaN"):
        knn_accuracy(x, y, u, v, classes=7)
    with pytest.raises(SeeallError, match="no features"):
        normalised(torch.empty(0, 4))
