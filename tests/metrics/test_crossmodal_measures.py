"""Retrieval between two modalities against an explicit loop, scikit-learn, shuffling and hand-made cases."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import approx
from sklearn.metrics import ndcg_score
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from seeall.metrics import knn
from seeall.metrics.crossmodal import MODALITIES, crossmodal
from seeall.types import SeeallError

CROSS = ("image_sound", "sound_image")
ALL = ("image_image", "image_sound", "sound_image", "sound_sound")


def pairs(n: int, seed: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    """`ties`: signs, whose products are exact, so that ties are ties."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 4, generator=g)
    sounds = images + torch.randn(n, 4, generator=g)
    return (images.sign(), sounds.sign()) if ties else (images, sounds)


def some_labels(n: int, classes: int, seed: int) -> Tensor:
    return torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed)) * 7 - 3


def loop(images: Tensor, sounds: Tensor, labels: list[int] | None, k: int) -> dict[str, float]:
    """The definitions, one query at a time."""
    features = dict(zip(MODALITIES, (normalize(x.double(), dim=1).tolist() for x in (images, sounds))))
    n = len(images)
    rows: dict[str, list[float]] = {}
    for a in MODALITIES:
        for b in MODALITIES:
            for q, query in enumerate(features[a]):
                items = [i for i in range(n) if a != b or i != q]
                score = {i: sum(x * y for x, y in zip(query, features[b][i])) for i in items}
                order = sorted(items, key=lambda i, s=score: (-round(s[i], 7), i))
                if a != b:
                    rows.setdefault(f"{a}_{b}_pair_recall@1", []).append(float(order[0] == q))
                if labels is None or not any(labels[i] == labels[q] for i in items):
                    continue
                rel = [float(labels[i] == labels[q]) for i in order]
                gain = [sum(r / math.log2(i + 2) for i, r in enumerate(s[:k])) for s in (rel, sorted(rel)[::-1])]
                even = [sum(rel) / len(rel)] * len(rel)  # what stands on average at every place of a random order
                by_chance = sum(r / math.log2(i + 2) for i, r in enumerate(even[:k]))
                for name, value in {
                    "recall@1": rel[0],
                    f"ndcg@{k}": gain[0] / gain[1],
                    "chance_recall@1": even[0],
                    f"chance_ndcg@{k}": by_chance / gain[1],
                }.items():
                    rows.setdefault(f"{a}_{b}_{name}", []).append(value)
    means = {name: sum(values) / len(values) for name, values in rows.items()}
    means |= {"queries": n, "pair_chance_recall@1": 1 / n}
    if labels is not None:
        means["queries_without_positive"] = sum(labels.count(label) == 1 for label in labels)
    return means


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("budget", [1 << 24, 150])
def test_agrees_with_the_loop(ties: bool, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_BUDGET", budget)
    for seed, k in enumerate((1, 3, 30, 100)):
        images, sounds = pairs(40, seed, ties)
        labels = some_labels(40, 20, seed)
        found = crossmodal(images, sounds, labels, k=k)
        assert found == approx(loop(images, sounds, labels.tolist(), k), abs=1e-6)
        assert found["queries_without_positive"] > 0
        assert crossmodal(images, sounds, k=k) == approx(loop(images, sounds, None, k), abs=1e-6)


def test_ndcg_is_scikit_learns() -> None:
    images, sounds = pairs(120, 7)
    labels = some_labels(120, 3, 7)  # about 40 a class, more than 30
    found = crossmodal(images, sounds, labels)
    features = dict(zip(MODALITIES, (normalize(images, dim=1), normalize(sounds, dim=1))))
    same = (labels[:, None] == labels).float()
    others = ~torch.eye(120, dtype=torch.bool)
    for direction in ALL:
        a, b = direction.split("_")
        score, relevance = features[a] @ features[b].T, same
        if a == b:
            score, relevance = score[others].view(120, 119), same[others].view(120, 119)
        assert found[f"{direction}_ndcg@30"] == approx(ndcg_score(relevance, score, k=30), abs=1e-6)


def test_chance_is_what_shuffled_pairs_get() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 8 + [3] * 2)
    sums: dict[str, float] = {}
    rounds = 60
    for seed in range(rounds):
        g = torch.Generator().manual_seed(seed)
        found = crossmodal(torch.randn(100, 32, generator=g), torch.randn(100, 32, generator=g), labels)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value / rounds
    for direction in ALL:
        for measure, tolerance in (("ndcg@30", 0.01), ("recall@1", 0.02)):
            chance = sums[f"{direction}_chance_{measure}"]
            assert sums[f"{direction}_{measure}"] == approx(chance, abs=tolerance)
            assert 0.2 < chance < 0.6
    for direction in CROSS:
        assert sums[f"{direction}_pair_recall@1"] == approx(sums["pair_chance_recall@1"], abs=0.005) == 0.01


def test_pairs_that_are_equal_find_each_other() -> None:
    images, _ = pairs(50, 0)
    found = crossmodal(images, 3 * images, torch.arange(50) // 2)
    for direction in CROSS:
        assert found[f"{direction}_pair_recall@1"] == found[f"{direction}_recall@1"] == 1
    assert found["image_image_ndcg@30"] == found["sound_sound_ndcg@30"] < found["image_sound_ndcg@30"]


def test_perfect_and_worst() -> None:
    labels = torch.arange(12) % 3
    sides = one_hot(labels, 3).float()
    best = crossmodal(sides, sides, labels)
    assert all(best[f"{d}_{m}"] == approx(1) for d in ALL for m in ("ndcg@30", "recall@1"))
    assert best["image_sound_pair_recall@1"] == 3 / 12  # the first of the four of a class
    worst = crossmodal(sides, sides.roll(1, 1), labels, k=3)
    assert all(worst[f"{d}_{m}"] == 0 for d in CROSS for m in ("ndcg@3", "recall@1", "pair_recall@1"))


def test_one_by_hand() -> None:
    """Of image 0's sounds, at 50, 10, 90 and 20 degrees, numbers 1, 3, 0, 2: its class, 0 and 3, at ranks 2 and 3."""
    images = torch.tensor([0.0, 170.0, 179.0, 192.0]).deg2rad()
    sounds = torch.tensor([50.0, 10.0, 90.0, 20.0]).deg2rad()
    points = [torch.stack([angle.cos(), angle.sin()], 1) for angle in (images, sounds)]
    labels = torch.tensor([0, 1, 1, 0])
    # images 1, 2 and 3 look the other way and find 2, 0, 3, 1; of these 1 and 2 are their own class
    ideal = 1 + 1 / math.log2(3)
    first = (1 / math.log2(3) + 1 / math.log2(4)) / ideal
    second = (1 + 1 / math.log2(5)) / ideal
    found = crossmodal(*points, labels)
    assert found["image_sound_ndcg@30"] == approx((first + second + second + first) / 4)
    assert found["image_sound_recall@1"] == 2 / 4
    assert found["image_sound_pair_recall@1"] == 1 / 4
    assert found["image_image_recall@1"] == 3 / 4  # 1 and 2 find each other, 0 finds 3, which finds 2


def test_a_collapsed_embedding_finds_one_pair() -> None:
    labels = torch.arange(20) % 4
    for x in (torch.ones(20, 3), torch.zeros(20, 3)):
        found = crossmodal(x, x, labels)
        assert found["image_sound_pair_recall@1"] == found["pair_chance_recall@1"] == 1 / 20
        assert found["image_sound_recall@1"] == found["image_sound_chance_recall@1"] == 1 / 4


def test_without_labels_there_are_no_classes() -> None:
    found = crossmodal(*pairs(10, 0))
    assert set(found) == {"queries", "pair_chance_recall@1", *(f"{d}_pair_recall@1" for d in CROSS)}
    assert crossmodal(*(x.clone().requires_grad_() for x in pairs(10, 0))) == found


def test_what_cannot_be_measured_is_said() -> None:
    images, sounds = pairs(5, 0)
    with pytest.raises(SeeallError, match="no pair has another of its label"):
        crossmodal(images, sounds, torch.arange(5))
    with pytest.raises(SeeallError, match="at least two pairs"):
        crossmodal(images[:1], sounds[:1])
    with pytest.raises(SeeallError, match="no features"):
        crossmodal(images[:0], sounds[:0])
    with pytest.raises(SeeallError, match="NaN"):
        crossmodal(images, sounds / 0)
    with pytest.raises(SeeallError, match="k must be at least 1, not 0"):
        crossmodal(images, sounds, k=0)
    for wrong in ((images, sounds[:4], None), (images, sounds[:, :3], None), (images, sounds, torch.arange(4))):
        with pytest.raises(ValueError, match="sounds"):
            crossmodal(*wrong)


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    images, sounds = pairs(500, 1)
    labels = some_labels(500, 10, 1)
    assert crossmodal(images.cuda(), sounds.cuda(), labels.cuda()) == approx(
        crossmodal(images, sounds, labels), abs=1e-3
    )
