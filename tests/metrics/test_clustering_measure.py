"""k-means and normalised mutual information against scikit-learn, a loop and hand-made cases."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from pytest import approx
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from seeall.metrics import clustering
from seeall.metrics.clustering import kmeans, nmi, normalised_mutual_information
from seeall.types import SeeallError


def blobs(n: int, k: int, d: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    x, labels = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


def loop(a: list[int], b: list[int]) -> float:
    """I / mean of H, one cell at a time."""
    n, of_a, of_b, cells = len(a), Counter(a), Counter(b), Counter(zip(a, b))
    information = sum(c / n * math.log(c * n / (of_a[i] * of_b[j])) for (i, j), c in cells.items())
    entropies = [-sum(c / n * math.log(c / n) for c in of.values()) for of in (of_a, of_b)]
    return information / (sum(entropies) / 2)


def test_information_agrees_with_scikit_learn_and_the_loop() -> None:
    for seed, (n, p, q) in enumerate([(50, 3, 4), (200, 30, 2), (1000, 10, 10), (40, 40, 40), (7, 1, 3)]):
        g = torch.Generator().manual_seed(seed)
        a, b = (torch.randint(0, m, (n,), generator=g) * 5 - 9 for m in (p, q))
        b = torch.where(torch.rand(n, generator=g) < 0.4, a, b)
        found = normalised_mutual_information(a, b)
        assert found == approx(normalized_mutual_info_score(a, b), abs=1e-9)
        assert found == approx(loop(a.tolist(), b.tolist()), abs=1e-9)
        assert found == approx(normalised_mutual_information(b, a), abs=1e-12)


def test_information_at_its_ends() -> None:
    a = torch.tensor([0, 0, 1, 1, 2, 2])
    assert normalised_mutual_information(a, 10 - 3 * a) == 1
    assert normalised_mutual_information(a, torch.tensor([0, 1] * 3)) == approx(0, abs=1e-12)
    assert normalised_mutual_information(a, torch.zeros(6, dtype=torch.int64)) == 0
    assert normalised_mutual_information(torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)) == 1


def inertia(x: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Cluster of every row, and the sum of squared distances, in float64."""
    distance = torch.cdist(x.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return distance.argmin(1), float(distance.min(1).values.sum())


@pytest.mark.parametrize(
    ("n", "k", "d", "spread"), [(400, 5, 2, 1.0), (1000, 20, 8, 1.0), (900, 30, 3, 0.5), (600, 12, 32, 6.0)]
)
@pytest.mark.parametrize("budget", [1 << 22, 300])
def test_inertia_is_scikit_learns(
    n: int, k: int, d: int, spread: float, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "_BUDGET", budget)
    x, _ = blobs(n, k, d, spread)
    cluster, centres, total = kmeans(x, k, restarts=10)
    theirs = KMeans(k, n_init=10, random_state=0).fit(x.numpy())
    assert total == approx(theirs.inertia_, rel=0.03)
    nearest, by_loop = inertia(x, centres)
    assert total == approx(by_loop, rel=1e-4)
    assert float((cluster == nearest).double().mean()) > 0.999
    for c in range(k):  # no row changed at last, so centres are means
        assert torch.allclose(centres[c], x[cluster == c].mean(0), atol=1e-3)


def test_from_the_same_start_lloyd_is_scikit_learns() -> None:
    x, _ = blobs(500, 6, 4, 3.0)
    start = x[torch.arange(0, 500, 80)[:6]]
    _, centres, total = clustering._lloyd(x, start, 300)
    theirs = KMeans(6, init=start.numpy(), n_init=1, tol=0, max_iter=300).fit(x.numpy())
    assert total == approx(theirs.inertia_, rel=1e-4)
    assert torch.allclose(centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-3)


def test_the_best_of_all_partitions() -> None:
    x = torch.tensor([[0.0, 0.0], [0.2, 0.1], [3.0, 0.0], [3.1, 0.3], [0.0, 4.0], [0.5, 4.2], [1.5, 2.0]])
    best = math.inf
    for parts in itertools.product(range(3), repeat=7):
        label = torch.tensor(parts)
        groups = [x[label == c] for c in set(parts)]
        best = min(best, sum(float((g - g.mean(0)).square().sum()) for g in groups))
    assert kmeans(x, 3, restarts=5)[2] == approx(best, rel=1e-5)


def test_more_restarts_are_never_worse_and_often_better() -> None:
    x, _ = blobs(600, 40, 2, 0.3)
    few = [kmeans(x, 40, restarts=1, seed=s)[2] for s in range(5)]
    many = [kmeans(x, 40, restarts=4, seed=s)[2] for s in range(5)]
    assert all(m <= f for m, f in zip(many, few))
    assert len(set(few)) > 1 and sum(many) < sum(few)


def test_a_start_far_better_than_rows_drawn_evenly() -> None:
    """One blob of 900 rows and 19 of 5: evenly drawn rows leave most of the small ones without a centre."""
    g = torch.Generator().manual_seed(0)
    middles = torch.cat([torch.zeros(900, 2), 50 * torch.randn(19, 2, generator=g).repeat_interleave(5, 0)])
    x = middles + 0.1 * torch.randn(995, 2, generator=g)
    rows = clustering._start(x, 20, 0, 0)
    assert inertia(x, rows)[1] < 10 * inertia(x, middles.unique(dim=0))[1]


def test_an_empty_cluster_takes_the_farthest_row() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.5]])
    cluster, centres, total = clustering._lloyd(x, torch.tensor([[0.0], [10.0], [100.0]]), 20)
    assert sorted(cluster.bincount().tolist()) == [1, 2, 2]
    assert total == approx(0.5 + 0.5)
    assert sorted(centres[:, 0].tolist()) == approx([0.5, 10.5, 12.5])


def test_far_from_the_origin() -> None:
    x, labels = blobs(300, 4, 3, 0.1)
    near, far = kmeans(x, 4), kmeans(x + 1000, 4)
    assert far[2] == approx(near[2], rel=0.02)
    assert normalised_mutual_information(far[0], labels) == 1


def test_fewer_places_than_clusters() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(10, 1)
    cluster, centres, total = kmeans(x, 4)
    assert total == 0 and torch.equal(centres[cluster], x)
    assert kmeans(x, 20)[2] == 0
    assert kmeans(x[:1], 1)[2] == 0
    places = torch.randn(2, 700, generator=torch.Generator().manual_seed(0))
    cluster, _, total = kmeans(places.repeat(50, 1), 5)  # rounding is no distance
    assert total == 0 and len(cluster.unique()) == 2


def test_nmi_of_features() -> None:
    """High for classes apart, of any length; little for noise; what scikit-learn finds for what lies between."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 8
    centres = torch.nn.functional.normalize(torch.randn(8, 16, generator=g), dim=1)
    length = 1 + 9 * torch.rand(400, 1, generator=g)
    noise = torch.randn(400, 16, generator=g)
    assert nmi(length * (centres[labels] + 0.02 * noise), labels * 3 - 1) == 1
    assert nmi(noise, labels) < 0.15
    x = length * (centres[labels] + 0.25 * noise)
    theirs = KMeans(8, n_init=10, random_state=0).fit_predict(torch.nn.functional.normalize(x, dim=1).numpy())
    assert 0.4 < nmi(x, labels) < 0.95
    assert nmi(x, labels) == approx(normalized_mutual_info_score(labels, theirs), abs=0.03)


def test_a_function_of_its_arguments() -> None:
    x, labels = blobs(300, 10, 4, 4.0)
    assert nmi(x, labels) == nmi(x, labels) == nmi(x.clone().requires_grad_(), labels)
    first, again, other = (kmeans(x, 10, restarts=1, seed=s) for s in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and first[2] == again[2]
    assert not torch.equal(first[0], other[0])


def test_a_collapsed_embedding_says_nothing() -> None:
    labels = torch.arange(90) % 3
    for x in (torch.ones(90, 4), torch.zeros(90, 4), torch.rand(1, 700).expand(90, 700)):
        assert nmi(x, labels) == 0


def test_what_cannot_be_measured_is_said() -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SeeallError, match="at least two labels to compare with"):
        nmi(x, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(SeeallError, match="NaN"):
        nmi(x / 0, torch.arange(6))
    with pytest.raises(SeeallError, match="no features"):
        nmi(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels"):
        nmi(x, torch.arange(5))
    for k in (0, 7):
        with pytest.raises(SeeallError, match=f"from 1 to the number of rows, 6, not {k}"):
            kmeans(x, k)
    for settings in ({"restarts": 0}, {"iterations": 0}):
        with pytest.raises(SeeallError, match="restarts and iterations must be at least 1"):
            nmi(x, torch.arange(6), **settings)


@pytest.mark.gpu
def test_cuda_agrees_with_cpu_and_with_itself() -> None:
    x, labels = blobs(5000, 20, 16, 4.0)
    want, got, again = kmeans(x, 20), kmeans(x.cuda(), 20), kmeans(x.cuda(), 20)
    assert torch.equal(got[0], again[0]) and got[2] == again[2]
    assert got[2] == approx(want[2], rel=0.01)
    assert nmi(x.cuda(), labels.cuda()) == approx(nmi(x, labels), abs=0.02)
