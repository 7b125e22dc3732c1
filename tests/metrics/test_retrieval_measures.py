"""Retrieval measures against an explicit loop, scikit-learn and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest import approx
from sklearn.metrics import average_precision_score
from torch import Tensor

from seeall.metrics import knn
from seeall.metrics.retrieval import retrieval
from seeall.types import SeeallError

KS = (1, 2, 5, 10)


def loop(u: Tensor, a: list[int], x: Tensor | None, b: list[int] | None) -> dict[str, float]:
    """The definitions, one query at a time."""
    alone = x is None
    x, b = (u, a) if x is None or b is None else (x, b)
    unit = [[value / max(sum(v * v for v in row) ** 0.5, 1e-12) for value in row] for row in x.tolist()]
    rows: dict[str, list[float]] = {}
    skipped = 0
    for q, (query, label) in enumerate(zip(u.tolist(), a)):
        items = [i for i in range(len(b)) if not (alone and i == q)]
        score = {i: sum(p * r for p, r in zip(query, unit[i])) for i in items}
        rel = [b[i] == label for i in sorted(items, key=lambda i, s=score: (-s[i], i))]
        R = sum(rel)
        if R == 0:
            skipped += 1
            continue
        result = {"r-precision": sum(rel[:R]) / R}
        result["map@r"] = sum(rel[i] * sum(rel[: i + 1]) / (i + 1) for i in range(R)) / R
        for k in KS:
            k_here = min(k, len(rel))
            result[f"precision@{k}"] = sum(rel[:k_here]) / k_here
            result[f"recall@{k}"] = float(any(rel[:k_here]))
        for name, value in result.items():
            rows.setdefault(name, []).append(value)
    means = {name: sum(values) / len(values) for name, values in rows.items()}
    return means | {"queries": len(a) - skipped, "queries_without_positive": skipped}


def features(n: int, seed: int, whole: bool = False) -> Tensor:
    """`whole`: signs, whose products are exact, so that ties are ties."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (n, 4), generator=g) * 2.0 - 1 if whole else torch.randn(n, 4, generator=g)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("budget", [1 << 24, 150])
def test_agrees_with_the_loop(whole: bool, alone: bool, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_BUDGET", budget)
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        u, a = features(40, seed, whole), torch.randint(0, 25, (40,), generator=g) * 7 - 3
        if alone:
            ours, theirs = retrieval(u, a, ks=KS), loop(u, a.tolist(), None, None)
        else:
            x, b = features(30, seed + 100, whole), torch.randint(0, 25, (30,), generator=g) * 7 - 3
            ours, theirs = retrieval(u, a, x, b, ks=KS), loop(u, a.tolist(), x, b.tolist())
        assert ours == approx(theirs, abs=1e-6)
        assert ours["queries_without_positive"] > 0


def test_with_two_pictures_a_group_map_at_r_is_recall_at_1() -> None:
    found = retrieval(features(40, 0), torch.arange(40) // 2)
    assert found["map@r"] == approx(found["r-precision"]) == approx(found["recall@1"])
    assert found["precision@1"] == found["recall@1"]


def test_scikit_learns_average_precision_over_the_first_r() -> None:
    """Cut after R neighbours, with the positives never found put last: average precision is then MAP@R's."""
    u, a, x, b = features(12, 1), torch.arange(12) % 3, features(50, 2), torch.arange(50) % 3
    total = 0.0
    for query, label in zip(u, a):
        order = (torch.nn.functional.normalize(x, dim=1) @ query).argsort(descending=True)
        rel = (b[order] == label).numpy()
        R = rel.sum()
        hits = rel[:R]
        if hits.any():
            total += average_precision_score(hits, -np.arange(R)) * hits.sum() / R
    assert retrieval(u, a, x, b)["map@r"] == approx(total / 12, abs=1e-6)


def test_a_collapsed_embedding_is_no_better_than_gallery_order() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    found = retrieval(torch.ones(5, 3), labels, ks=(1,))
    assert found["recall@1"] == approx(2 / 5)  # everybody finds the first of the others, of class 0


def test_perfect_and_worst() -> None:
    labels = torch.arange(6) % 2
    sides = torch.nn.functional.one_hot(labels).float()
    best = retrieval(sides, labels, ks=(1, 2))
    assert all(best[m] == 1 for m in ("precision@2", "recall@1", "map@r", "r-precision"))
    worst = retrieval(sides, labels, sides, 1 - labels, ks=(1, 3))
    assert all(worst[m] == 0 for m in ("precision@3", "recall@3", "map@r", "r-precision"))


def test_a_rank_beyond_the_gallery_counts_as_its_size() -> None:
    found = retrieval(features(3, 0), torch.tensor([0, 0, 1]), ks=(2, 100))
    assert found["precision@100"] == found["precision@2"] == 0.5
    assert (found["queries"], found["queries_without_positive"]) == (2, 1)


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(SeeallError, match="no query has another picture"):
        retrieval(features(5, 0), torch.arange(5))
    with pytest.raises(SeeallError, match="no query has another picture"):
        retrieval(features(1, 0), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(SeeallError, match="NaN"):
        retrieval(torch.full((2, 2), torch.nan), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels"):
        retrieval(features(5, 0), torch.arange(5), features(5, 0))
