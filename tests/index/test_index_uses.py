"""Near-duplicates, clusters and outliers beside brute force and scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from seeall.index.clusters import clusters
from seeall.index.duplicates import duplicates
from seeall.index.outliers import outliers
from seeall.index.plan import Plan
from seeall.index.store import Index
from seeall.types import SeeallError

DIM = 24


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def blobs(n: int, k: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    own = random.integers(0, k, n)
    return unit(random.standard_normal((k, DIM))[own] + spread * random.standard_normal((n, DIM))), own


def make(folder: Path, x: np.ndarray, **settings: Plan) -> Index:
    index = Index.create(folder / "index", dim=x.shape[1], model="m", preprocessing={}, gpu="off", **settings)
    index.add([f"p{n}" for n in range(len(x))], x)
    return index


def components(x: np.ndarray, ids: np.ndarray, threshold: float) -> set[frozenset[int]]:
    """By a walk over the whole matrix of cosines."""
    alike, left, found = x.astype(np.float64) @ x.T >= threshold, set(range(len(x))), set()
    while left:
        group, edge = set(), {min(left)}
        while edge:
            group |= edge
            edge = set(np.flatnonzero(alike[list(edge)].any(0)).tolist()) - group
        left -= group
        if len(group) > 1:
            found.add(frozenset(ids[list(group)].tolist()))
    return found


@pytest.mark.parametrize("exact_below", [10**6, 500])
@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.95])
def test_duplicates_are_the_components(folder: Path, threshold: float, exact_below: int) -> None:
    """One blob of 300 has more neighbours above the threshold than are asked for at first."""
    x = np.concatenate([blobs(700, 150, 0.35)[0], blobs(300, 1, 0.25, 1)[0]])
    with make(folder, x, plan=Plan(exact_below=exact_below)) as index:
        index.remove(range(1, 40))
        found = duplicates(index, threshold)
        kept = x[index.ids - 1]
        expected = components(kept, index.ids, threshold)
    assert {frozenset(group.ids.tolist()) for group in found} == expected and len(expected) > 5
    assert [len(g.ids) for g in found] == sorted((len(g) for g in expected), reverse=True)
    for group in found:
        assert group.ids[0] == group.ids.min() and (np.diff(group.scores) <= 1e-6).all()
        assert np.allclose(group.scores, x[group.ids - 1] @ x[group.ids[0] - 1], atol=1e-5)


def test_all_the_same_are_one_group(folder: Path) -> None:
    x = unit(np.ones((3000, 3)))
    with make(folder, x) as index:
        (group,) = duplicates(index, 1.0)
        assert sorted(group.ids.tolist()) == list(range(1, 3001))
        values, scores = outliers(index, 5)
        assert values.tolist() == [1, 2, 3, 4, 5] and np.allclose(scores, 1)


def test_outliers_are_those_of_brute_force(folder: Path) -> None:
    x, _ = blobs(600, 12, 0.3)
    with make(folder, x) as index:
        index.remove([5, 6])
        kept = x[index.ids - 1].astype(np.float64)
        cosines = kept @ kept.T
        np.fill_diagonal(cosines, -2)
        mean = -np.sort(-cosines, axis=1)[:, :7].mean(1)
        ids, scores = outliers(index, 30, 7)
        order = np.argsort(mean)[:30]
        assert np.array_equal(ids, index.ids[order]) and np.allclose(scores, mean[order], atol=1e-5)
        assert len(outliers(index, 10_000)[0]) == 598


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, np.ndarray, np.ndarray]]:
    x, own = blobs(1200, 8, 0.25, 3)
    with make(tmp_path_factory.mktemp("clusters"), x) as index:
        yield index, x, own


@pytest.mark.parametrize("k", [None, 8])
def test_clusters_are_the_blobs(grouped: tuple[Index, np.ndarray, np.ndarray], k: int | None) -> None:
    index, x, own = grouped
    found = clusters(index, k, most=2000)
    assert len(found) == 8 and sum(c.size for c in found) == 1200
    mine, named = np.full(1200, -1), np.concatenate([c.ids for c in found])
    for number, cluster in enumerate(found):
        mine[cluster.ids - 1] = number
        assert len(cluster.ids) == cluster.size and (np.diff(cluster.scores) <= 0).all()
        assert cluster.cohesion == pytest.approx(cluster.scores.mean(), abs=1e-5)
    assert sorted(named.tolist()) == index.ids.tolist()
    theirs = KMeans(8, n_init=5, random_state=0).fit_predict(x)
    assert adjusted_rand_score(own, mine) > 0.99 and adjusted_rand_score(theirs, mine) > 0.99
    assert [c.size for c in found] == sorted((c.size for c in found), reverse=True)


def test_central_pictures_are_the_nearest_to_the_centre(grouped: tuple[Index, np.ndarray, np.ndarray]) -> None:
    index, _, _ = grouped
    for few, all_ in zip(clusters(index, 8, most=3), clusters(index, 8, most=2000)):
        assert few.ids.tolist() == all_.ids[:3].tolist() and few.size == all_.size


def test_few_items(folder: Path) -> None:
    with make(folder, np.eye(3)) as index:
        assert sum(c.size for c in clusters(index)) == 3 and sum(c.size for c in clusters(index, 3)) == 3
        assert duplicates(index) == [] and len(outliers(index)[0]) == 3
        index.remove([2, 3])
        assert [c.size for c in clusters(index)] == [1] and duplicates(index) == []
        with pytest.raises(SeeallError, match="holds 1 items"):
            outliers(index)
        index.remove([1])
        assert duplicates(index) == []
        with pytest.raises(SeeallError, match="is empty"):
            clusters(index)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: duplicates(i, 0), "above 0"), (lambda i: duplicates(i, 1.1), "at most 1"),
        (lambda i: clusters(i, 0), "at least 1 cluster"), (lambda i: clusters(i, 5000), "at most 1200"),
        (lambda i: clusters(i, 2, most=0), "--most 0"), (lambda i: outliers(i, 0), "--most 0"),
        (lambda i: outliers(i, 1, 0), "-k 0"), (lambda i: duplicates(i, float("nan")), "above 0"),
    ],
)  # fmt: skip
def test_mistakes(grouped: tuple[Index, np.ndarray, np.ndarray], call: object, words: str) -> None:
    with pytest.raises(SeeallError, match=words):
        call(grouped[0])  # type: ignore[operator]
